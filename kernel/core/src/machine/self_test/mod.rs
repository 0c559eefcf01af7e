//! Tests of the machine layer on the machine: run by the command line option `selftest`, ended by an exit status.
//!
//! Each test is a function that panics when it finds something wrong, which ends the machine with a report and a failing
//! status. They run one after the other on the main thread of an otherwise idle machine, so they may check that no page
//! is lost.

mod faults;
mod memory;
mod threads;

use super::{clock, cpu, memory as frames, power, thread};

/// A test's name and what it does.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("frames come back", memory::frames_come_back),
    ("the heap grows and keeps contents", memory::heap_keeps_contents),
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
    (
        "an idle machine takes no interrupts",
        threads::idle_machine_is_quiet,
    ),
];

/// Does what the command line's `selftest` or `selftest=…` asks for and ends the machine; returns if it has neither.
///
/// `selftest` runs all tests; `selftest=panic` and `selftest=fault` end in a fault report.
pub fn run_if_asked() {
    let boot = super::boot_information();
    match boot.option_value("selftest") {
        Some("panic") => faults::panic_on_purpose(),
        Some("fault") => faults::fault_on_purpose(),
        Some(other) => panic!("unknown self-test {other}"),
        None if boot.has_option("selftest") => run(),
        None => return,
    }
    power::exit(power::ExitStatus::Success)
}

/// Runs all tests; returns when they have passed.
fn run() {
    log::info!("self-test: {} tests on {} CPUs", TESTS.len(), cpu::count());
    for (name, test) in TESTS {
        // Whatever the test before has ended is reaped first.
        let free = settled_free_pages();
        let start = clock::now_ns();
        test();
        log::info!("  ok: {name} ({} us)", (clock::now_ns() - start) / 1000);
        let lost = free.saturating_sub(settled_free_pages());
        // The heap grows in steps and never shrinks.
        assert!(lost.is_multiple_of(256), "{lost} pages were lost by \"{name}\"");
    }
    log::info!("self-test: all passed");
}

/// How many pages are free once the reapers have nothing left to do.
fn settled_free_pages() -> usize {
    let mut free = frames::free_pages();
    for _ in 0..50 {
        thread::sleep_until(clock::now_ns() + 2_000_000);
        let now = frames::free_pages();
        if now == free {
            return now;
        }
        free = now;
    }
    free
}

/// Waits until `condition` holds; the test fails after ten seconds, which only a hang takes.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let limit = clock::now_ns() + 10_000_000_000;
    while !condition() {
        assert!(clock::now_ns() < limit, "waited too long for {what}");
        thread::sleep_until(clock::now_ns() + 200_000);
    }
}
