//! A crossing that takes an object along, against the death of whoever gives it, of whoever gets it, and of both
//! (`rref/src/crossing.rs`, `isolation/src/run/thread.rs`).
//!
//! A thread of one domain allocates an object, gives it to another domain in a call, gets it back and drops it. Meanwhile one or both
//! are killed and reaped. Shown for every order: no code of a domain runs when its memory has been given back (the checker knows who may
//! touch a cell when), the thread comes to its end, and the object is freed exactly once.

use super::machine::{CALLEE, CALLER, Machine, NOBODY, Thread, Unwound, Variant};
use loom::sync::Arc;
use loom::thread;

/// `cross`, into the callee, with the object there and back.
fn cross(machine: &Machine, thread: &Thread<'_>) -> Result<(), Unwound> {
    let entered = thread.enter(CALLEE, || machine.allocate(CALLEE));
    let mut came_back = false;
    if entered {
        thread.trusted();
        // `enter`: what a dead callee returns is an error, without the object.
        came_back = thread.domain_code().is_ok();
        if came_back {
            thread.trusted();
            // `Outcome::transferred`
            machine.allocate(CALLER);
        }
        thread.trusted();
    }
    thread.pop(CALLEE);
    thread.end_of_trusted()?;
    thread.trusted();
    if came_back || !entered {
        // Dropped by the caller's code: in the kernel again.
        machine.free();
        thread.end_of_trusted()?;
    }
    Ok(())
}

/// The caller's code.
fn body(machine: &Machine, thread: &Thread<'_>) -> Result<(), Unwound> {
    thread.domain_code()?;
    machine.allocate(CALLER);
    thread.end_of_trusted()?;
    cross(machine, thread)?;
    thread.domain_code()
}

/// `run` of `isolation/src/run/thread.rs`.
fn run(machine: &Machine) {
    let thread = Thread::new(machine);
    if thread.enter(CALLER, || ()) {
        // Returned or died: the thread ends either way.
        body(machine, &thread).ok();
    }
    thread.trusted();
    thread.pop(CALLER);
    thread.ends();
}

/// Who reaps the dead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reaper {
    /// The thread that killed them, afterwards.
    Killer,
    /// A supervisor on another CPU, as soon as it may hear of the death. The killer's own broadcast is left out: it need not have come.
    Supervisor,
}

fn model(variant: Variant, killed: &'static [u64], reaper: Reaper) {
    let machine = Arc::new(Machine::new(variant));
    let running = machine.clone();
    let running = thread::spawn(move || run(&running));
    let killer = machine.clone();
    let killing = (reaper == Reaper::Supervisor)
        .then(|| thread::spawn(move || killed.iter().for_each(|&domain| killer.mark_dead(domain))));
    if reaper == Reaper::Killer {
        killed.iter().for_each(|&domain| machine.kill(domain));
    }
    killed.iter().for_each(|&domain| machine.reap(domain));
    if let Some(killer) = killing {
        killer.join().expect("the killer");
    }
    running.join().expect("the thread");
    assert_eq!(machine.owner(), NOBODY, "the object is lost");
}

/// Orders with more are a matter of hours.
const PREEMPTIONS: usize = 3;
/// The same with a third thread.
const PREEMPTIONS_OF_THREE: usize = 2;

fn holds(killed: &'static [u64]) {
    super::check(PREEMPTIONS, move || {
        model(Variant::Kernel, killed, Reaper::Killer)
    });
}

fn fails(variant: Variant) {
    super::check(PREEMPTIONS, move || model(variant, &[CALLEE], Reaper::Killer));
}

#[test]
fn the_death_of_a_callee_loses_nothing() {
    holds(&[CALLEE]);
}

#[test]
fn the_death_of_a_caller_loses_nothing() {
    holds(&[CALLER]);
}

#[test]
fn the_death_of_both_loses_nothing() {
    holds(&[CALLEE, CALLER]);
}

#[test]
fn the_death_of_both_the_other_way_round_loses_nothing() {
    holds(&[CALLER, CALLEE]);
}

#[test]
fn a_death_that_another_cpu_reaps_loses_nothing() {
    super::check(PREEMPTIONS_OF_THREE, || {
        model(Variant::Kernel, &[CALLEE], Reaper::Supervisor)
    });
}

#[test]
#[should_panic(expected = "the object is freed twice")]
fn a_reaper_that_comes_before_the_requests_is_found() {
    super::check(PREEMPTIONS_OF_THREE, || {
        model(Variant::DyingBeforeRequests, &[CALLEE], Reaper::Supervisor);
    });
}

#[test]
#[should_panic(expected = "the object is freed twice")]
fn looking_before_pushing_is_found() {
    fails(Variant::LooksBeforePushing);
}

#[test]
#[should_panic(expected = "the object is freed twice")]
fn giving_before_looking_is_found() {
    fails(Variant::GivesBeforeLooking);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_death_without_a_broadcast_is_found() {
    fails(Variant::NoBroadcast);
}

#[test]
#[should_panic(expected = "the object is freed twice")]
fn reaping_at_once_is_found() {
    fails(Variant::ReapsAtOnce);
}

#[test]
#[should_panic(expected = "the object is freed twice")]
fn reclaiming_before_everybody_left_is_found() {
    fails(Variant::ReclaimsBeforeLeaving);
}
