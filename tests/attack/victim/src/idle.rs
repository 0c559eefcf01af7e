//! Ways to stay in a victim.

use crate::service::Neighbours;
use attack_interface::victim::Dwell;
use domain_rt::sync::Mutex;
use domain_rt::thread::Wake;
use domain_rt::{clock, thread};

/// Longest stay in one crossing: shorter than any deadline.
const CROSSING_US: u32 = 10_000;
/// How long a wait for a provider lasts, milliseconds.
const WAIT_MS: u64 = 10_000;

/// Stays until `until_ns`; true if the wait was called off.
pub fn dwell(way: Dwell, until_ns: u64, lock: &Mutex<()>, neighbours: &Neighbours) -> bool {
    match way {
        Dwell::Spin => {
            while clock::now_ns() < until_ns {
                core::hint::spin_loop();
            }
            false
        }
        Dwell::Sleep => sleep(until_ns),
        Dwell::Lock => {
            // The lock is held for good (`Service::new`).
            while clock::now_ns() < until_ns && lock.try_lock().is_none() {
                thread::yield_now();
            }
            false
        }
        Dwell::Wait => {
            let left_ms = until_ns
                .saturating_sub(clock::now_ns())
                .div_ceil(1_000_000)
                .min(WAIT_MS);
            neighbours.wait_for_absent(left_ms);
            false
        }
        Dwell::Crossing => {
            while clock::now_ns() < until_ns {
                if !neighbours.sleep_there(CROSSING_US) {
                    return false;
                }
            }
            false
        }
    }
}

fn sleep(until_ns: u64) -> bool {
    loop {
        match thread::park_until(until_ns) {
            Wake::Woken => {}
            Wake::TimedOut => return false,
            Wake::Cancelled => return true,
        }
    }
}

/// Stays for ever.
pub fn stay(way: Dwell, lock: &Mutex<()>, neighbours: &Neighbours) -> ! {
    loop {
        match way {
            // The lock's own wait, not a look at it from time to time.
            Dwell::Lock => drop(lock.lock()),
            _ => {
                dwell(way, clock::NEVER, lock, neighbours);
            }
        }
    }
}
