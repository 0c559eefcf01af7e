//! An interrupt and the one thread that waits for it: who sees whom.
//!
//! The interrupt says that it came and then looks for a waiter; the thread says that it waits and then looks whether it came. One of
//! the two sees the other, so an interrupt that comes after a wait has returned ends the next one. `kernel/models` checks this file.

use super::atomic::{AtomicBool, AtomicU64, Ordering};

/// An interrupt's state: at first it hasn't come, and nobody waits.
#[derive(Default)]
pub struct LineState {
    /// It came since the last wait.
    fired: AtomicBool,
    /// Number of the thread that waits for it; 0 for none.
    waiter: AtomicU64,
}

impl LineState {
    /// It came: the thread that must be woken, if one waits.
    pub fn raise(&self) -> Option<u64> {
        self.fired.store(true, Ordering::SeqCst);
        match self.waiter.load(Ordering::SeqCst) {
            0 => None,
            waiter => Some(waiter),
        }
    }

    /// Waits as thread `me`, by `park` unless it came since the last wait; `woken` if it came, or what `park` says.
    pub fn wait<W>(&self, me: u64, woken: W, park: impl FnOnce() -> W) -> W {
        self.waiter.store(me, Ordering::SeqCst);
        let early = self.fired.swap(false, Ordering::SeqCst);
        let parked = (!early).then(park);
        self.waiter.store(0, Ordering::SeqCst);
        // What came meanwhile is answered by this return, even one that the deadline ends.
        let late = self.fired.swap(false, Ordering::SeqCst);
        match parked {
            Some(result) if !late => result,
            _ => woken,
        }
    }
}
