//! Ways to stay in a victim.

use crate::service::Neighbours;
use attack_interface::victim::Dwell;
use core::sync::atomic::{AtomicU32, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::thread::Wake;
use domain_rt::{clock, thread};

/// Longest stay in one crossing: shorter than any deadline.
const CROSSING_US: u32 = 10_000;
/// Between two looks of a sleeper, nanoseconds.
const LOOK_NS: u64 = 5_000_000;
/// How long a wait for a provider lasts, milliseconds.
const WAIT_MS: u64 = 10_000;

/// How long a stay is.
pub struct Stay<'a> {
    until_ns: u64,
    released: &'a AtomicU32,
    before: u32,
}

impl<'a> Stay<'a> {
    /// Until a time, or until `released` changes.
    pub fn until(until_ns: u64, released: &'a AtomicU32) -> Stay<'a> {
        Stay {
            until_ns,
            released,
            before: released.load(Ordering::Relaxed),
        }
    }

    fn is_over(&self) -> bool {
        clock::now_ns() >= self.until_ns || self.released.load(Ordering::Relaxed) != self.before
    }

    /// Computes until it is over.
    pub fn spin(&self) {
        while !self.is_over() {
            core::hint::spin_loop();
        }
    }
}

/// Stays; true if the wait was called off.
pub fn dwell(way: Dwell, stay: &Stay<'_>, lock: &Mutex<()>, neighbours: &Neighbours) -> bool {
    match way {
        Dwell::Spin => {
            stay.spin();
            false
        }
        Dwell::Sleep => sleep(stay),
        Dwell::Lock => {
            // The lock is held for good (`Service::new`).
            while !stay.is_over() && lock.try_lock().is_none() {
                thread::yield_now();
            }
            false
        }
        Dwell::Wait => {
            let left_ms = stay
                .until_ns
                .saturating_sub(clock::now_ns())
                .div_ceil(1_000_000)
                .min(WAIT_MS);
            neighbours.wait_for_absent(left_ms);
            false
        }
        Dwell::Crossing => {
            while !stay.is_over() {
                if !neighbours.sleep_there(CROSSING_US) {
                    return false;
                }
            }
            false
        }
    }
}

fn sleep(stay: &Stay<'_>) -> bool {
    while !stay.is_over() {
        let look_ns = clock::now_ns().saturating_add(LOOK_NS);
        if thread::park_until(look_ns.min(stay.until_ns)) == Wake::Cancelled {
            return true;
        }
    }
    false
}

/// Stays for ever.
pub fn stay(way: Dwell, lock: &Mutex<()>, neighbours: &Neighbours) -> ! {
    loop {
        match way {
            // The lock's own wait, not a look at it from time to time.
            Dwell::Lock => drop(lock.lock()),
            _ => {
                dwell(
                    way,
                    &Stay::until(clock::NEVER, &AtomicU32::new(0)),
                    lock,
                    neighbours,
                );
            }
        }
    }
}
