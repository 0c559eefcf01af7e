//! How commands get the right to make namespaces, and into them.
//!
//! Root makes them directly. Anybody else gets a user namespace in which they are root, with a mount namespace where
//! `/run/netns` can be written; a process that only sleeps holds both open.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// The way into the lab's namespaces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Access {
    /// As root, directly.
    Root,
    /// Through the user namespace that this process holds.
    User(Process),
}

impl Access {
    /// Root's way when this is root, else a new user namespace.
    pub fn create(directory: &Path) -> Result<Self> {
        if nix::unistd::geteuid().is_root() {
            return Ok(Self::Root);
        }
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "--net", "sh", "-c"])
            .arg("mount -t tmpfs tmpfs /run && mkdir /run/netns && echo ready && exec sleep infinity");
        let log = directory.join("user-namespace.log");
        let mut holder = Process::start("user-namespace", command, &log, Stdio::null())?;
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("ready") {
                return Ok(Self::User(holder));
            }
            if holder.has_ended() {
                bail!(
                    "a user namespace can't be made here: {}\nrun this as root, or allow user namespaces",
                    said.trim()
                );
            }
            sleep(Duration::from_millis(20));
        }
        holder.end();
        bail!(
            "making a user namespace took more than 5 s; see {}",
            log.display()
        )
    }

    /// A command with the right to make namespaces, in the machine's (or the user namespace's) own network.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::User(holder) => {
                let mut command = Command::new("nsenter");
                command
                    .args(["--target", &holder.pid.to_string()])
                    .args(["--user", "--mount", "--net", "--preserve-credentials", "--"])
                    .arg(program);
                command
            }
        }
    }

    /// A command inside a network namespace.
    pub fn command_in(&self, namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command("nsenter");
        let path: PathBuf = Path::new("/run/netns").join(namespace);
        command
            .arg(format!("--net={}", path.display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command to its end, with text for its standard input.
    pub fn run(&self, mut command: Command, input: &str) -> Result<()> {
        use std::io::Write;
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} can't be run"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that failed early has closed it; its own message, below, says more.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
            bail!(
                "`{name} {}` failed: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}
