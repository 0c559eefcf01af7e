//! The processes of a run: the model, QEMU, and the guest's console to type commands into.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The model must listen within this time.
const MODEL_TIMEOUT: Duration = Duration::from_secs(10);
/// The guest must reach its start-up script within this time.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// A child that ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // A child that has ended already is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running model.
pub struct Model {
    process: Owned,
    /// Where QEMU connects.
    pub socket: PathBuf,
    control: PathBuf,
}

impl Model {
    /// Starts the program with its sockets in `folder`, plugged into tap interface `tap`.
    pub fn start(program: &Path, folder: &Path, tap: &str, log: File) -> Result<Self> {
        let (socket, control) = (folder.join("nic.sock"), folder.join("control.sock"));
        for stale in [&socket, &control] {
            // Their appearance says that the model listens.
            let _ = std::fs::remove_file(stale);
        }
        let child = lab::hardware(program)
            .arg("--socket")
            .arg(&socket)
            .arg("--control")
            .arg(&control)
            .args(["--tap", tap])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start the model, {}", program.display()))?;
        let mut model = Self {
            process: Owned(child),
            socket,
            control,
        };
        let deadline = Instant::now() + MODEL_TIMEOUT;
        while !(model.socket.exists() && model.control.exists()) {
            if let Some(status) = model.process.0.try_wait()? {
                let text = std::fs::read_to_string(folder.join("model.log")).unwrap_or_default();
                bail!("the model ended at once ({status}): {}", text.trim());
            }
            if Instant::now() > deadline {
                bail!("the model doesn't listen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(model)
    }

    /// Asks the model something.
    pub fn ask(&self, request: &Value) -> Result<Value> {
        let stream = UnixStream::connect(&self.control).context("the model is gone")?;
        stream.set_read_timeout(Some(MODEL_TIMEOUT))?;
        (&stream).write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context("the model's answer is no JSON")?;
        if answer["ok"] != Value::Bool(true) {
            bail!("the model refuses {request}: {}", answer["error"]);
        }
        Ok(answer)
    }
}

/// What QEMU needs to know.
pub struct GuestConfig<'a> {
    /// QEMU itself.
    pub qemu: &'a Path,
    /// Kernel image.
    pub kernel: &'a Path,
    /// Root file system.
    pub initramfs: &'a Path,
    /// The model's socket.
    pub nic_socket: &'a Path,
    /// Virtual CPUs.
    pub cpus: u32,
}

/// A running guest.
pub struct Guest {
    _process: Owned,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    log: File,
}

impl Guest {
    /// Starts QEMU and waits until the guest takes commands.
    pub fn boot(config: &GuestConfig<'_>, mut log: File, errors: File) -> Result<Self> {
        let nic = serde_json::json!({
            "driver": "vfio-user-pci", "id": "nic", "bus": "rp0", "rombar": 0,
            "socket": { "type": "unix", "path": config.nic_socket },
        });
        let mut child = lab::hardware(config.qemu)
            .args([
                "-machine",
                "q35,memory-backend=mem",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
            ])
            .args([
                "-m",
                "512M",
                "-smp",
                &config.cpus.to_string(),
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-object", "memory-backend-memfd,id=mem,size=512M,share=on"])
            .args(["-device", "pcie-root-port,id=rp0,chassis=1,slot=1"])
            .args(["-device", &nic.to_string(), "-serial", "stdio", "-kernel"])
            .arg(config.kernel)
            .arg("-initrd")
            .arg(config.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("can't start QEMU, {}", config.qemu.display()))?;
        let input = child.stdin.take().context("QEMU has no input")?;
        let mut from = child.stdout.take().context("QEMU has no output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                if sender
                    .send(chunk.get(..length).unwrap_or_default().to_vec())
                    .is_err()
                {
                    return;
                }
            }
        });
        log.write_all(b"")?;
        let mut guest = Self {
            _process: Owned(child),
            input,
            output,
            seen: Vec::new(),
            log,
        };
        guest
            .wait_for("<<ready>>", BOOT_TIMEOUT)
            .context("the guest doesn't start; see qemu.log and console.log")?;
        Ok(guest)
    }

    /// Runs a command and gives its output; an exit status other than zero is an error.
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<String> {
        self.send(command)?;
        self.finish(command, timeout)
    }

    /// Types a command without waiting for its end, which [`Guest::finish`] does.
    pub fn send(&mut self, command: &str) -> Result<()> {
        self.input
            .write_all(format!("{command}\n").as_bytes())
            .context("the guest takes no input")?;
        self.input.flush()?;
        Ok(())
    }

    /// Waits for the end of the command that was sent last.
    pub fn finish(&mut self, command: &str, timeout: Duration) -> Result<String> {
        let output = self
            .wait_for("<<status ", timeout)
            .with_context(|| format!("no end of `{command}`"))?;
        let status = self.wait_for(">>", timeout)?;
        if status != "0" {
            bail!("`{command}` in the guest failed ({status}): {}", output.trim());
        }
        Ok(output.replace('\r', "").trim().to_owned())
    }

    /// What comes before `mark`.
    fn wait_for(&mut self, mark: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(at) = self
                .seen
                .windows(mark.len())
                .position(|window| window == mark.as_bytes())
            {
                let text = String::from_utf8_lossy(self.seen.get(..at).unwrap_or_default()).into_owned();
                self.seen.drain(..at + mark.len());
                return Ok(text);
            }
            match self
                .output
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(chunk) => {
                    self.log.write_all(&chunk)?;
                    self.seen.extend(chunk);
                }
                Err(RecvTimeoutError::Timeout) => bail!("nothing for {} s", timeout.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("QEMU has ended"),
            }
        }
    }
}
