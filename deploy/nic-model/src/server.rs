//! The process around a device: sockets, wire, time. One thread serves them all.
//!
//! While something happens it polls, because a register read that waits for a sleeping process costs the guest several
//! times as much; after a short quiet time it sleeps until a socket, the wire or the device's own clock wakes it.

use crate::control::ControlConnection;
use crate::device::Device;
use crate::vfio_user::{Connection, Session};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Frames taken from the wire before the guest is served again.
const WIRE_BATCH: usize = 32;
/// While polling, the control socket is looked at only this often.
const CONTROL_INTERVAL: Duration = Duration::from_millis(5);
/// Sleep at most this long.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where QEMU connects.
    pub socket: PathBuf,
    /// Where people and scripts connect.
    pub control: Option<PathBuf>,
    /// How long to poll after the last event before sleeping.
    pub busy_poll: Duration,
    /// End when the first client is gone, instead of waiting for another.
    pub once: bool,
}

/// A listening socket whose file is removed at the end.
struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 8)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    fn accept(&self) -> Option<OwnedFd> {
        rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC).ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Failing to tidy up is no reason to fail at the end.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves one device.
pub struct Server {
    device: Device,
    config: ServerConfig,
    started: Instant,
    clients: Listener,
    control: Option<Listener>,
    session: Option<Session>,
    users: Vec<ControlConnection>,
}

impl Server {
    /// Binds the sockets. Existing socket files are replaced.
    pub fn new(device: Device, config: ServerConfig) -> io::Result<Self> {
        let named = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        let clients = Listener::bind(&config.socket).map_err(|error| named(&config.socket, error))?;
        let control = match &config.control {
            Some(path) => Some(Listener::bind(path).map_err(|error| named(path, error))?),
            None => None,
        };
        let started = Instant::now();
        Ok(Self {
            device,
            config,
            started,
            clients,
            control,
            session: None,
            users: Vec::new(),
        })
    }

    /// Serves until the process is told to end by `stop`, or the only client is gone; gives the device back.
    pub fn run(mut self, stop: impl Fn() -> bool) -> io::Result<Device> {
        let mut last_event = Instant::now();
        let mut last_control = last_event;
        loop {
            let now = Instant::now();
            self.device
                .advance_to(u64::try_from((now - self.started).as_nanos()).unwrap_or(u64::MAX));
            let had_client = self.session.is_some();
            let mut busy = self.serve_client();
            if had_client && self.session.is_none() && self.config.once {
                return Ok(self.device);
            }
            busy |= self.device.receive_from_wire(WIRE_BATCH) > 0;
            if now - last_control >= CONTROL_INTERVAL {
                last_control = now;
                self.serve_control();
                if stop() {
                    return Ok(self.device);
                }
            }
            if busy {
                last_event = now;
            } else if now - last_event >= self.config.busy_poll {
                self.sleep()?;
                last_event = Instant::now();
                last_control = last_event - CONTROL_INTERVAL;
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Accepts a client, or answers the one there is; true when something happened.
    fn serve_client(&mut self) -> bool {
        let Some(session) = &mut self.session else {
            self.session = self.clients.accept().map(|socket| {
                log::info!("a client has connected");
                Session::new(Connection::new(socket))
            });
            return self.session.is_some();
        };
        match session.serve(&mut self.device) {
            Ok(busy) => busy,
            Err(error) => {
                log::info!("the client is gone: {error}");
                if let Some(session) = self.session.take() {
                    session.end(&mut self.device);
                }
                true
            }
        }
    }

    fn serve_control(&mut self) {
        if let Some(listener) = &self.control {
            while let Some(socket) = listener.accept() {
                self.users.push(ControlConnection::new(socket));
            }
        }
        let device = &mut self.device;
        self.users.retain_mut(|user| user.serve(device));
    }

    /// Waits until a socket, the wire or the device's clock has something.
    fn sleep(&mut self) -> io::Result<()> {
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let until = self
            .device
            .next_due_ns()
            .map(|due| Duration::from_nanos(due.saturating_sub(now_ns)));
        let time = until.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let client = match &self.session {
            Some(session) => session.connection().readiness(),
            None => self.clients.socket.as_fd(),
        };
        let mut waiting = vec![PollFd::from_borrowed_fd(client, PollFlags::IN)];
        let others = self.device.wire().readiness().into_iter();
        let others = others.chain(self.control.as_ref().map(|listener| listener.socket.as_fd()));
        let others = others.chain(self.users.iter().map(ControlConnection::readiness));
        waiting.extend(others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match rustix::event::poll(&mut waiting, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceConfig;
    use crate::wire::MemoryWire;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    static STOP: AtomicBool = AtomicBool::new(false);

    /// One user and one client are served side by side, also after the process has gone to sleep; nothing stays behind.
    #[test]
    fn serves_both_sockets_until_it_is_stopped() {
        let folder = std::env::temp_dir().join(format!("nic-model-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let config = ServerConfig {
            socket: folder.join("nic"),
            control: Some(folder.join("control")),
            busy_poll: Duration::ZERO,
            once: false,
        };
        let device = Device::new(DeviceConfig::default(), Box::new(MemoryWire::new()));
        let server = Server::new(device, config).expect("sockets");
        let serving = std::thread::spawn(move || server.run(|| STOP.load(Ordering::Relaxed)).map(|_| ()));

        let user = UnixStream::connect(folder.join("control")).expect("control");
        let mut client = UnixStream::connect(folder.join("nic")).expect("client");
        for _ in 0..3 {
            // VFIO_USER_DEVICE_GET_INFO.
            let mut request = vec![1, 0, 4, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            request.resize(32, 0);
            client.write_all(&request).expect("request");
            let mut reply = [0; 32];
            client.read_exact(&mut reply).expect("reply");
            assert_eq!(reply[8], 1);
            (&user).write_all(b"{\"cmd\":\"counters\"}\n").expect("question");
            let mut line = String::new();
            BufReader::new(&user).read_line(&mut line).expect("answer");
            assert!(line.contains("\"ok\":true"), "{line}");
        }
        STOP.store(true, Ordering::Relaxed);
        drop(user);
        serving.join().expect("no panic").expect("no error");
        assert!(!folder.join("nic").exists() && !folder.join("control").exists());
        std::fs::remove_dir(&folder).expect("empty");
    }
}
