//! The kernel's own tests, which need a machine: memory, threads, interrupts, time (`selftest` on its command line).

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use progress::Step;

use crate::context::Context;

/// QEMU's exit code for `kernel::machine::power::ExitStatus::Success`: isa-debug-exit gives 2 · 16 + 1.
const SUCCESS: i32 = 33;
/// Far more than it takes anywhere; a kernel that hangs must not hang the tests.
const LIMIT: Duration = Duration::from_secs(180);

/// On one CPU and on four.
pub fn passes(context: &Context) -> Result<()> {
    let qemu = &context
        .programs()?
        .qemu
        .as_ref()
        .context("there is no QEMU")?
        .system;
    let kernel = image_builder::build_kernel(&image_builder::Options::new(&context.root))?;
    let directory = tempfile::tempdir()?;
    for cpus in ["1", "4"] {
        let step = Step::start(format!("Self-test on {cpus} CPU(s)"));
        let log = directory.path().join(format!("serial-{cpus}"));
        let mut machine = Command::new(qemu)
            .args([
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-m",
                "512M",
                "-smp",
                cpus,
            ])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args([
                "-device",
                "isa-debug-exit,iobase=0xf4,iosize=4",
                "-append",
                "selftest",
            ])
            .arg("-serial")
            .arg(format!("file:{}", log.display()))
            .arg("-kernel")
            .arg(&kernel)
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
                    "not done after {} s:\n{}",
                    LIMIT.as_secs(),
                    fs::read_to_string(&log)?
                );
            }
            thread::sleep(Duration::from_millis(20));
        };
        let text = fs::read_to_string(&log)?;
        ensure!(
            status.code() == Some(SUCCESS),
            "QEMU ended with {status}:\n{text}"
        );
        ensure!(
            text.contains("self-test: all passed"),
            "there was no self-test:\n{text}"
        );
        step.done(format!("{} tests", text.matches("  ok: ").count()));
    }
    Ok(())
}
