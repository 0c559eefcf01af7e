//! Tests of the machine layer on the machine: run by the command line option `selftest`, ended by an exit
//! status.
//!
//! Each test is a function that panics when it finds something wrong, which ends the machine with a report
//! and a failing status. They run one after the other on the main thread of an otherwise idle machine, so
//! they may check that no page is lost.

mod faults;
mod memory;
mod pci;
mod threads;

use super::{clock, console, cpu, heap, memory as frames, power, thread};

/// A test's name and what it does.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("frames come back", memory::frames_come_back),
    ("the heap grows and keeps contents", memory::heap_keeps_contents),
    ("copying, filling and comparing memory", memory::memory_functions),
    (
        "areas map, unmap and give everything back",
        memory::areas_give_everything_back,
    ),
    ("no CPU sees an old mapping", memory::no_cpu_sees_an_old_mapping),
    (
        "no page is writable and executable",
        super::paging::check_write_xor_execute,
    ),
    ("a wake before the park is kept", threads::early_wake_is_kept),
    (
        "parking ends at its deadline, not before",
        threads::park_times_out,
    ),
    ("cancelling ends a wait", threads::cancel_ends_a_wait),
    ("sleepers wake in order", threads::sleepers_wake_in_order),
    (
        "threads on different CPUs wake each other",
        threads::cross_cpu_ping_pong,
    ),
    (
        "a spinning thread is preempted and keeps its registers",
        threads::preemption_keeps_registers,
    ),
    (
        "ended threads give everything back",
        threads::ended_threads_give_everything_back,
    ),
    ("everything at once", threads::storm),
    ("time is the same on all CPUs", threads::time_agrees),
    (
        "the return hook can redirect threads",
        faults::return_hook_redirects,
    ),
    ("exceptions can be taken", faults::exceptions_can_be_taken),
    (
        "a stack overflow hits the guard page",
        faults::stack_overflow_hits_guard,
    ),
    (
        "code can't be written, not even through its alias",
        faults::code_cannot_be_written,
    ),
    ("MSI-X reaches every CPU", pci::msix_reaches_every_cpu),
    (
        "an idle machine takes no interrupts",
        threads::idle_machine_is_quiet,
    ),
];

/// Does what the command line's `selftest` or `selftest=…` asks for and ends the machine; returns if it has
/// neither.
///
/// `selftest` runs all tests; `selftest=panic` and `selftest=fault` end in a fault report; `selftest=console`
/// repeats one line of input; `selftest=power-off` and `selftest=reboot` do what they say.
pub fn run_if_asked() {
    let boot = super::boot_information();
    match boot.option_value("selftest") {
        Some("panic") => faults::panic_on_purpose(),
        Some("fault") => faults::fault_on_purpose(),
        Some("console") => console_echo(),
        Some("power-off") => power::power_off(),
        Some("reboot") => power::reboot(),
        Some(other) => panic!("unknown self-test {other}"),
        None if boot.has_option("selftest") => run(),
        None => return,
    }
    power::exit(power::ExitStatus::Success)
}

/// Runs all tests; returns when they have passed.
fn run() {
    log::info!("self-test: {} tests on {} CPUs", TESTS.len(), cpu::count());
    pci::map_registers();
    for (name, test) in TESTS {
        let before = frames::free_pages();
        let start = clock::now_ns();
        test();
        log::info!("  ok: {name} ({} us)", (clock::now_ns() - start) / 1000);
        // Ended threads are reaped in their own time; the heap grows in steps and never shrinks.
        let is_whole = || {
            before
                .abs_diff(frames::free_pages())
                .is_multiple_of(heap::GROWTH_FRAMES)
        };
        wait_for("pages to come back", is_whole);
    }
    log::info!("self-test: all passed");
}

/// Repeats what comes in, up to the first line end.
fn console_echo() {
    log::info!("self-test: type a line");
    let mut buffer = [0; 16];
    loop {
        match console::read(&mut buffer, clock::now_ns() + 10_000_000_000) {
            Ok(count) => {
                console::write(&buffer[..count]);
                if buffer[..count].contains(&b'\r') || buffer[..count].contains(&b'\n') {
                    return;
                }
            }
            Err(wake) => panic!("no input: {wake:?}"),
        }
    }
}

/// Waits until `condition` holds; the test fails after a minute, which only a hang takes.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let limit = clock::now_ns() + 60_000_000_000;
    while !condition() {
        assert!(clock::now_ns() < limit, "waited too long for {what}");
        thread::sleep_until(clock::now_ns() + 200_000);
    }
}
