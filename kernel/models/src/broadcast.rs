//! Broadcasts against CPUs that go idle and come back (`membarrier.rs` of the kernel, and `broadcast`, `enter_idle` and `leave_idle`
//! of `machine/smp.rs`).
//!
//! A broadcast is a barrier on both sides: what its caller wrote before is seen by what a CPU does after it, or what the CPU did before
//! is seen by the caller after it. That must hold for a CPU that wasn't interrupted because it was idle, too.

use crate::{real, weak};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::cell::Cell;

/// How a CPU takes part, right and wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Kernel,
    /// The CPU goes on without `leave_idle`.
    NoCatchingUp,
    /// The caller interrupts nobody and waits for nobody.
    NoInterrupts,
    /// The CPU catches up, and only then says that it isn't idle.
    CatchesUpTooEarly,
}

macro_rules! model {
    ($name:ident, $real:ident) => {
        fn $name(variant: Variant) {
            use $real::atomic::AtomicU64;
            use $real::membarrier::{Broadcasts, Listener};

            struct Shared {
                broadcasts: Broadcasts,
                flushes: AtomicU64,
                listener: Listener,
                interrupted: AtomicBool,
                /// Written by the caller before its broadcast, read by the CPU.
                mark: AtomicBool,
                /// Written by the CPU, read by the caller after its broadcast.
                trace: AtomicBool,
                /// Memory that the caller takes back: its broadcast is a flush, too.
                frame: UnsafeCell<u32>,
            }
            let shared = Arc::new(Shared {
                broadcasts: Broadcasts::new(AtomicU64::new(0)),
                flushes: AtomicU64::new(0),
                listener: Listener::default(),
                interrupted: AtomicBool::new(false),
                mark: AtomicBool::new(false),
                trace: AtomicBool::new(false),
                frame: UnsafeCell::new(0),
            });
            let cpu = shared.clone();
            let other = thread::spawn(move || {
                let flushed = Cell::new(false);
                // `broadcast_received`
                let catch_up = || {
                    let number = cpu.broadcasts.newest();
                    flushed.set(flushed.get() || cpu.flushes.load(Ordering::SeqCst) > 0);
                    number
                };
                // An interrupt is taken between two instructions, any two.
                let interrupt_point = || {
                    if cpu.interrupted.load(Ordering::Acquire) {
                        cpu.listener.answer(catch_up());
                    }
                };
                cpu.listener.enter_idle();
                match variant {
                    Variant::NoCatchingUp => {}
                    Variant::CatchesUpTooEarly => {
                        let number = catch_up();
                        cpu.listener.leave_idle(|| number);
                    }
                    _ => cpu.listener.leave_idle(catch_up),
                }
                cpu.trace.store(true, Ordering::Relaxed);
                interrupt_point();
                let mark = cpu.mark.load(Ordering::Relaxed);
                if !flushed.get() {
                    // It still finds the frame through what it remembers of the page tables.
                    cpu.frame.with(|_| ());
                }
                interrupt_point();
                cpu.listener.enter_idle();
                mark
            });
            shared.mark.store(true, Ordering::Relaxed);
            // `flush_all_cpus`
            shared.flushes.fetch_add(1, Ordering::SeqCst);
            let number = shared.broadcasts.begin();
            if variant != Variant::NoInterrupts {
                if !shared.listener.is_idle() {
                    shared.interrupted.store(true, Ordering::Release);
                }
                while !shared.listener.has_answered(number) && !shared.listener.is_idle() {
                    thread::yield_now();
                }
            }
            let trace = shared.trace.load(Ordering::Relaxed);
            shared.frame.with_mut(|_| ());
            let mark = other.join().expect("the other CPU");
            assert!(trace || mark, "neither CPU saw the other");
        }
    };
}

model!(on_x86, real);
model!(without_barriers, weak);

const PREEMPTIONS: usize = 4;

#[test]
fn a_broadcast_and_a_cpu_see_each_other_and_no_freed_frame_is_used() {
    super::check(PREEMPTIONS, || on_x86(Variant::Kernel));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_cpu_that_leaves_idle_without_catching_up_is_found() {
    super::check(PREEMPTIONS, || on_x86(Variant::NoCatchingUp));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_cpu_that_catches_up_before_it_says_that_it_runs_is_found() {
    super::check(PREEMPTIONS, || on_x86(Variant::CatchesUpTooEarly));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_broadcast_that_waits_for_nobody_is_found() {
    super::check(PREEMPTIONS, || on_x86(Variant::NoInterrupts));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn accesses_that_are_no_barriers_are_found() {
    super::check(PREEMPTIONS, || without_barriers(Variant::Kernel));
}
