//! A machine with nothing but the kernel: for its own tests, which need no domains, no card and no network.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};

use crate::context::Context;

/// Far more than anything takes anywhere; a kernel that hangs must not hang the tests.
const LIMIT: Duration = Duration::from_secs(180);

/// How a machine ended, and what it said until then.
pub struct Ending {
    /// QEMU's exit status.
    pub status: ExitStatus,
    /// What the serial port has written.
    pub serial: String,
}

/// Boots `kernel` with words on its command line and waits until the machine ends by itself.
pub fn run(context: &Context, kernel: &Path, words: &str, cpus: u32) -> Result<Ending> {
    let qemu = &context
        .programs()?
        .qemu
        .as_ref()
        .context("there is no QEMU")?
        .system;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("serial");
    let mut machine = Command::new(qemu)
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-m", "512M", "-smp", &cpus.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-append", words])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null())
        .spawn()
        .context("QEMU can't be started")?;
    let until = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = machine.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            machine.kill()?;
            machine.wait()?;
            bail!(
                "the machine has not ended after {} s:\n{}",
                LIMIT.as_secs(),
                fs::read_to_string(&log).unwrap_or_default()
            );
        }
        thread::sleep(Duration::from_millis(20));
    };
    let serial = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Ending { status, serial })
}
