//! A UDP load: small datagrams from many source ports to one address, for a bounded time.
//!
//! Sends in batches (`sendmmsg`) so that the generator costs little beside what it measures. It sends only; who receives
//! counts.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use serde::Serialize;

/// Datagrams of one system call.
const BATCH: usize = 32;
/// What the backends count and don't answer.
const QUIET: &[u8] = b"quiet";

/// What to send.
pub struct Load {
    pub to: SocketAddr,
    pub payload: usize,
    pub flows: u16,
    /// Datagrams a second; 0 for no limit.
    pub rate: u64,
    pub duration: Duration,
}

/// What was sent.
#[derive(Serialize)]
pub struct Sent {
    pub datagrams: u64,
    pub seconds: f64,
    pub per_second: f64,
}

impl Load {
    /// Sends until the time is over.
    pub fn run(&self) -> Result<Sent> {
        ensure!(self.flows > 0, "at least one flow is needed");
        ensure!(self.payload <= 65_507, "a datagram carries at most 65507 bytes");
        let sockets = self.sockets()?;
        let mut payload = QUIET.to_vec();
        payload.resize(self.payload, b'.');
        let slices = [IoSlice::new(&payload)];
        let messages = [&slices; BATCH];
        let addresses: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
        let mut headers = MultiHeaders::preallocate(BATCH, None);

        let started = Instant::now();
        let mut datagrams = 0_u64;
        for socket in sockets.iter().cycle() {
            let elapsed = started.elapsed();
            if elapsed >= self.duration {
                break;
            }
            if self.rate > 0 {
                let due = Duration::from_secs_f64(datagrams as f64 / self.rate as f64);
                if let Some(early) = due.checked_sub(elapsed) {
                    sleep(early);
                }
            }
            match sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                messages,
                addresses,
                [],
                MsgFlags::empty(),
            ) {
                Ok(results) => datagrams += results.count() as u64,
                // The queue is full, or an ICMP error came back for an earlier one: go on.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => {}
                Err(error) => return Err(error).context("sending failed"),
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok(Sent {
            datagrams,
            seconds,
            per_second: datagrams as f64 / seconds,
        })
    }

    fn sockets(&self) -> Result<Vec<UdpSocket>> {
        let any: SocketAddr = if self.to.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        (0..self.flows)
            .map(|_| {
                let socket = UdpSocket::bind(any).context("no port is free")?;
                socket
                    .connect(self.to)
                    .with_context(|| format!("there is no way to {}", self.to))?;
                Ok(socket)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives_whole() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let load = Load {
            to: receiver.local_addr().unwrap(),
            payload: 22,
            flows: 2,
            rate: 1_000,
            duration: Duration::from_millis(50),
        };
        let sent = load.run().unwrap();
        assert!(sent.datagrams >= BATCH as u64);
        let mut buffer = [0; 100];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!((length, &buffer[..5]), (22, QUIET));
    }
}
