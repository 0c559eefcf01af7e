//! Threads that wait in the kernel against changes and deaths that must end the wait: `WaitTicket`, `wake_waiters` and `park` of
//! `isolation/src/run/thread.rs`, `kill` and `Inside` of `isolation/src/run/death.rs`.

use super::parking::Thread;
use super::real::atomic::AtomicU32;
use super::real::requests::{self, Requests};
use super::real::tokens::Wake;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

const PREEMPTIONS: usize = 3;

/// The right order, or another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kernel,
    Mutant,
}

/// A waiter that registers, looks and parks, and a change.
fn ticket(order: Order) {
    struct Shared {
        /// `WAITERS`: whether the waiter is among them.
        waits: Mutex<bool>,
        changed: Mutex<bool>,
        waiter: Thread,
    }
    let shared = Arc::new(Shared {
        waits: Mutex::new(false),
        changed: Mutex::new(false),
        waiter: Thread::new(1),
    });
    let changing = shared.clone();
    let change = thread::spawn(move || {
        *changing.changed.lock().expect("the lock") = true;
        // `wake_waiters`
        let waits = changing.waits.lock().expect("the lock");
        if *waits {
            changing.waiter.unpark();
        }
        drop(waits);
        changing.waiter.waker_ends();
    });
    let register = || *shared.waits.lock().expect("the lock") = true;
    let look = || *shared.changed.lock().expect("the lock");
    // The loop of `wait_death` and `connect`.
    loop {
        if order == Order::Kernel {
            // `WaitTicket::new`
            register();
        }
        if look() {
            break;
        }
        if order == Order::Mutant {
            register();
        }
        // `WaitTicket::wait`, and its drop
        shared.waiter.park();
        *shared.waits.lock().expect("the lock") = false;
    }
    change.join().expect("the change");
}

#[test]
fn a_change_ends_the_wait_for_it() {
    super::check(PREEMPTIONS, || ticket(Order::Kernel));
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_waiter_that_looks_before_it_registers_is_found() {
    super::check(PREEMPTIONS, || ticket(Order::Mutant));
}

/// A thread that waits with a domain on its chain, that domain's death, and at the same time the death of one that isn't.
fn called_off(order: Order) {
    struct Shared {
        requests: Requests,
        pending: AtomicU32,
        /// Whether the domain on the waiter's chain is dead.
        dead: AtomicBool,
        waiter: Thread,
    }
    impl Shared {
        /// `kill` as far as a parked thread is concerned.
        fn kill(&self, on_chain: bool, order: Order) {
            let mark = || {
                if on_chain {
                    self.dead.store(true, Ordering::Release);
                }
            };
            if order == Order::Kernel {
                mark();
            }
            self.pending.store(self.requests.next(), Ordering::SeqCst);
            if order == Order::Mutant {
                mark();
            }
            // `Inside`: whoever has nothing dead on its chain isn't woken.
            if self.pending.load(Ordering::Relaxed) != 0 && self.dead.load(Ordering::Acquire) {
                self.waiter.cancel();
            }
            self.waiter.waker_ends();
        }
    }
    let shared = Arc::new(Shared {
        requests: Requests::new(AtomicU32::new(0)),
        pending: AtomicU32::new(0),
        dead: AtomicBool::new(false),
        waiter: Thread::new(2),
    });
    let killers = [true, false].map(|on_chain| {
        let shared = shared.clone();
        thread::spawn(move || shared.kill(on_chain, order))
    });
    // `park` of run/thread.rs
    loop {
        if requests::look(&shared.pending, || shared.dead.load(Ordering::Acquire)) {
            break;
        }
        assert_eq!(shared.waiter.park(), Wake::Cancelled, "nobody wakes it");
    }
    for killer in killers {
        killer.join().expect("a killer");
    }
}

#[test]
fn a_death_ends_the_waits_of_threads_with_the_dead_on_their_chains() {
    super::check(2, || called_off(Order::Kernel));
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_request_before_the_mark_is_found() {
    super::check(2, || called_off(Order::Mutant));
}

/// A thread that looks for one request while another comes.
fn newer_request(take_back: impl Fn(&AtomicU32, &dyn Fn() -> bool) -> bool) {
    let shared = Arc::new((
        Requests::new(AtomicU32::new(0)),
        AtomicU32::new(0),
        AtomicBool::new(false),
    ));
    let killer = shared.clone();
    shared.1.store(shared.0.next(), Ordering::SeqCst);
    let second = thread::spawn(move || {
        killer.2.store(true, Ordering::Release);
        killer.1.store(killer.0.next(), Ordering::SeqCst);
    });
    let is_broken = || shared.2.load(Ordering::Acquire);
    let first = take_back(&shared.1, &is_broken);
    second.join().expect("the killer");
    assert!(
        first || take_back(&shared.1, &is_broken),
        "the newer request is lost"
    );
}

#[test]
fn a_newer_request_stands() {
    super::check(PREEMPTIONS, || {
        newer_request(|pending, is_broken| requests::look(pending, is_broken))
    });
}

#[test]
#[should_panic(expected = "the newer request is lost")]
fn taking_back_whatever_request_there_is_is_found() {
    super::check(PREEMPTIONS, || {
        newer_request(|pending, is_broken| {
            let asked = pending.load(Ordering::SeqCst) != 0;
            let broken = asked && is_broken();
            if asked && !broken {
                pending.store(0, Ordering::SeqCst);
            }
            broken
        })
    });
}
