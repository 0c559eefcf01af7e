//! A machine without card and network: for the kernel's own tests, and for what domains do when their device is missing or their settings are wrong.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use image_builder::archive::BootArchive;

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

/// A copy of a boot archive in whose settings httpd finds a mistake, which the build would have refused: it panics at every start.
pub fn with_mistake(context: &Context, archive: &Path) -> Result<PathBuf> {
    let mut changed = BootArchive::read(archive)?;
    changed.add("config/appliance.toml", b"[httpd]\nport = 0\n".to_vec())?;
    let path = context.directory().join("mistake.tar");
    changed.write(&path)?;
    Ok(path)
}

/// Boots `kernel` with words on its command line and waits until the machine ends by itself.
pub fn run(context: &Context, kernel: &Path, words: &str, cpus: u32) -> Result<Ending> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("serial");
    let mut machine = command(context, kernel, words, cpus, &log)?
        .spawn()
        .context("QEMU can't be started")?;
    let status = wait(&mut machine, &log, |machine, _| Ok(machine.try_wait()?))?;
    let serial = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Ending { status, serial })
}

/// Boots `kernel` with a boot archive and ends the machine as soon as what it has said satisfies `until`; gives that text.
pub fn run_until(
    context: &Context,
    kernel: &Path,
    archive: &Path,
    cpus: u32,
    until: impl Fn(&str) -> bool,
) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("serial");
    let mut machine = command(context, kernel, "", cpus, &log)?
        .arg("-initrd")
        .arg(archive)
        .spawn()
        .context("QEMU can't be started")?;
    let said = wait(&mut machine, &log, |machine, log| {
        let serial = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        match machine.try_wait()? {
            Some(status) => bail!("the machine ended by itself with {status}:\n{serial}"),
            None => Ok(until(&serial).then_some(serial)),
        }
    });
    machine.kill()?;
    machine.wait()?;
    said
}

fn command(context: &Context, kernel: &Path, words: &str, cpus: u32, log: &Path) -> Result<Command> {
    let qemu = &context
        .programs()?
        .qemu
        .as_ref()
        .context("there is no QEMU")?
        .system;
    // Domains have deadlines and heartbeats, and whatever else the host does is no fault of theirs.
    let mut command = lab::hardware(qemu);
    command
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-m", "512M", "-smp", &cpus.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-append", words])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null());
    Ok(command)
}

/// Asks `done` again and again, for a bounded time; a machine that is late is ended.
fn wait<R>(
    machine: &mut Child,
    log: &Path,
    done: impl Fn(&mut Child, &Path) -> Result<Option<R>>,
) -> Result<R> {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(result) = done(machine, log)? {
            return Ok(result);
        }
        if Instant::now() > until {
            machine.kill()?;
            machine.wait()?;
            bail!(
                "the machine is not done after {} s:\n{}",
                LIMIT.as_secs(),
                fs::read_to_string(log).unwrap_or_default()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}
