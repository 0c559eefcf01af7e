//! The kernel's lock: a spinlock that keeps interrupts off on its CPU while it is held.
//!
//! So it may be taken in interrupt handlers too, and its holder is never preempted. Rules: hold it briefly;
//! take two of them nested only in a fixed order and release in reverse; never wait for another CPU
//! (`smp::broadcast`) or block while one is held.

use core::sync::atomic::{AtomicBool, Ordering};
use lock_api::{GuardNoSend, RawMutex};
use x86_64::instructions::interrupts;

/// The raw lock, for `lock_api` and for the heap.
pub struct RawInterruptLock {
    locked: AtomicBool,
    /// Whether interrupts were on when the holder took the lock; written and read by the holder only.
    were_enabled: AtomicBool,
}

/// A value behind an interrupt-disabling spinlock.
pub type InterruptLock<T> = lock_api::Mutex<RawInterruptLock, T>;

// SAFETY: `locked` goes from false to true by compare-and-exchange only, so at most one context holds the
// lock; with interrupts off nothing else on its CPU runs until it is released.
unsafe impl RawMutex for RawInterruptLock {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the trait asks for a constant as initial value"
    )]
    const INIT: Self = Self {
        locked: AtomicBool::new(false),
        were_enabled: AtomicBool::new(false),
    };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        let enabled = interrupts::are_enabled();
        interrupts::disable();
        while self
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.locked.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
        self.were_enabled.store(enabled, Ordering::Relaxed);
    }

    fn try_lock(&self) -> bool {
        let enabled = interrupts::are_enabled();
        interrupts::disable();
        let taken = self
            .locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if taken {
            self.were_enabled.store(enabled, Ordering::Relaxed);
        } else if enabled {
            interrupts::enable();
        }
        taken
    }

    // SAFETY: The caller holds the lock, as the trait demands, so `were_enabled` is what it found when it took it.
    unsafe fn unlock(&self) {
        let enabled = self.were_enabled.load(Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        if enabled {
            interrupts::enable();
        }
    }
}

/// Runs `f` with interrupts off on this CPU.
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    interrupts::without_interrupts(f)
}
