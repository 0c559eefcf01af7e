//! The thread on whose stack a CPU is idle, and the shortest way to wake it: by an interrupt of the same CPU.
//!
//! Such an interrupt comes while the CPU is halted, so the wake needs no lock and no queue: the thread finds it when the halt has ended. Everybody else
//! wakes the thread as any other, under its scheduler's lock. When both do, each counts: one ends the wait, the other is kept for the next one.
//!
//! Only the CPU itself uses this, with interrupts off or on a thread. `kernel/models` checks this file against wakes by another CPU.

use super::atomic::{AtomicU64, Ordering};

/// No thread.
const NOBODY: u64 = 0;
/// It was woken.
const WOKEN: u64 = u64::MAX;

/// Number of the thread, or what became of it.
#[derive(Default)]
pub struct HaltedThread(AtomicU64);

impl HaltedThread {
    /// The CPU is idle on `thread`'s stack from here on. Before its halt, with interrupts off until then.
    #[inline]
    pub fn begin(&self, thread: u64) {
        self.0.store(thread, Ordering::Relaxed);
    }

    /// Wakes the thread if the CPU is idle on the stack of this one and no interrupt has woken it yet; otherwise it is to be woken as any other.
    #[inline]
    pub fn wake(&self, thread: u64) -> bool {
        let is_halted = thread != NOBODY && self.0.load(Ordering::Relaxed) == thread;
        if is_halted {
            self.0.store(WOKEN, Ordering::Relaxed);
        }
        is_halted
    }

    /// Whether an interrupt has woken it.
    #[inline]
    pub fn is_woken(&self) -> bool {
        self.0.load(Ordering::Relaxed) == WOKEN
    }

    /// The CPU isn't idle on a thread's stack any more; whether an interrupt has woken that thread.
    #[inline]
    pub fn end(&self) -> bool {
        let is_woken = self.is_woken();
        self.0.store(NOBODY, Ordering::Relaxed);
        is_woken
    }
}
