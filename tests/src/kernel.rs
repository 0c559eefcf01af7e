//! The kernel alone: its own tests, which need a machine, and what it says when it faults itself.

use anyhow::{Result, ensure};
use progress::Step;

use crate::bare_machine::run;
use crate::context::Context;

/// QEMU's exit code for `kernel::machine::power::ExitStatus::Success`: isa-debug-exit gives 2 · 16 + 1.
const SUCCESS: i32 = 33;

/// Memory, threads, interrupts, time: `selftest` on the command line, on one CPU and on four.
pub fn passes_self_test(context: &Context) -> Result<()> {
    let kernel = image_builder::build_kernel(&image_builder::Options::new(&context.root))?;
    for cpus in [1, 4] {
        let step = Step::start(format!("Self-test on {cpus} CPU(s)"));
        let ending = run(context, &kernel, "selftest", cpus)?;
        ensure!(
            ending.status.code() == Some(SUCCESS),
            "QEMU ended with {}:\n{}",
            ending.status,
            ending.serial
        );
        ensure!(
            ending.serial.contains("self-test: all passed"),
            "there was no self-test:\n{}",
            ending.serial
        );
        let tests = ending.serial.matches("  ok: ").count();
        step.done(format!("{tests} tests"));
        context.figure(&format!("tests_on_{cpus}_cpus"), tests, "");
    }
    Ok(())
}

/// A panic and a page fault in the kernel both end the machine with a report and a failing exit code.
pub fn reports_faults(context: &Context) -> Result<()> {
    let kernel = image_builder::build_kernel(&image_builder::Options::new(&context.root))?;
    // A panic knows where it is in the source; what an exception interrupted is in the registers.
    for (word, title, place) in [
        ("selftest=panic", "*** kernel panic: ", "panic_on_purpose + "),
        ("selftest=fault", "*** kernel fault: ", "rip "),
    ] {
        // CPU and domain, and a backtrace down to the kernel's first function, by name.
        let expected = [
            title,
            place,
            "CPU ",
            "domain ",
            "backtrace:",
            "  appliance_main + ",
        ];
        let step = Step::start(format!("Booting with {word}"));
        let ending = run(context, &kernel, word, 2)?;
        ensure!(
            !matches!(ending.status.code(), Some(0 | SUCCESS) | None),
            "with {word} QEMU ended with {}, which is no failing exit code:\n{}",
            ending.status,
            ending.serial
        );
        for part in expected {
            ensure!(
                ending.serial.contains(part),
                "with {word} the report doesn't have \"{part}\":\n{}",
                ending.serial
            );
        }
        step.done(format!("{}", ending.status));
    }
    Ok(())
}
