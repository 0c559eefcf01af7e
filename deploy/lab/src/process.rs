//! Processes of a lab: started in the background, found again, ended.
//!
//! A process is known by its id and the time it started, so that one which has got the id of a dead one is never
//! mistaken for it, let alone ended.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a process may take to end when asked to.
const PATIENCE: Duration = Duration::from_secs(3);

/// A process in the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it is, for messages: `appliance`, `nic-model`, `backend1` …
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// When it started, in clock ticks since the machine's boot.
    started: u64,
    /// What it writes.
    pub log: PathBuf,
}

impl Process {
    /// Starts a command in the background; what it writes goes to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path, input: Stdio) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("{} can't be written", log.display()))?;
        let child = command
            .stdin(input)
            .stdout(file.try_clone()?)
            .stderr(file)
            // The end of the log is to say what was wrong, not where in the program an error was made.
            .env("RUST_LIB_BACKTRACE", "0")
            // A group of its own, so that Ctrl-C at the terminal is for us to handle.
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!(
                    "{name} ({}) can't be started",
                    command.get_program().to_string_lossy()
                )
            })?;
        let pid = i32::try_from(child.id()).context("the process id is out of range")?;
        let started = start_time(pid).unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            pid,
            started,
            log: log.to_owned(),
        })
    }

    /// Whether it has ended, whoever's child it is.
    pub fn has_ended(&mut self) -> bool {
        // Our own child stays in the process table until it is waited for; for anybody else's this changes nothing.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        !self.is_running()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Asks it to end, then makes it.
    pub fn end(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if self.has_ended() {
                return;
            }
            let _ = kill(Pid::from_raw(self.pid), signal);
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until && !self.has_ended() {
                sleep(Duration::from_millis(5));
            }
        }
    }

    /// Ends it from one instruction to the next.
    pub fn kill(&mut self) {
        if self.has_ended() {
            return;
        }
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !self.has_ended() {
            sleep(Duration::from_millis(1));
        }
    }

    /// The end of what it has written.
    pub fn last_words(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Whether one of the lines that it has written is this one.
    pub fn has_said(&self, line: &str) -> bool {
        let log = fs::read(&self.log).unwrap_or_default();
        log.split(|byte| *byte == b'\n')
            .any(|written| written == line.as_bytes())
    }
}

/// The last lines of a file, or nothing if it can't be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

/// A process's start in clock ticks (proc(5), field 22 of `/proc/PID/stat`), unless it has ended.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in brackets, may hold blanks and brackets itself.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> (tempfile::TempDir, Process) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::start("test", command, &directory.path().join("log"), Stdio::null()).unwrap();
        (directory, process)
    }

    #[test]
    fn one_that_ends_by_itself_is_noticed() {
        let (_directory, mut process) = start("echo goodbye");
        let until = Instant::now() + Duration::from_secs(10);
        while !process.has_ended() && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
        assert!(!process.is_running());
        assert_eq!(process.last_words(5), "goodbye");
    }

    #[test]
    fn one_that_runs_is_ended() {
        let (_directory, mut process) = start("exec sleep 1000");
        assert!(process.is_running());
        process.end();
        assert!(!process.is_running());
    }

    #[test]
    fn another_process_with_the_same_id_is_left_alone() {
        let (_directory, mut process) = start("exec sleep 1000");
        let mut mistaken = Process {
            started: process.started + 1,
            ..process.clone()
        };
        mistaken.end();
        assert!(process.is_running());
        process.end();
    }
}
