//! A lock for state that threads of a domain share.
//!
//! It spins a little and then lets other threads run, since the holder may be a preempted thread of this CPU. A lock dies with
//! its domain; it can't be left held by a thread that was unwound, because that only happens when its domain is dead.

/// How a waiter passes the time.
pub struct Yield;

impl spin::RelaxStrategy for Yield {
    fn relax() {
        crate::thread::yield_now();
    }
}

/// Mutual exclusion; waiters yield the CPU.
pub type Mutex<T> = spin::mutex::SpinMutex<T, Yield>;
