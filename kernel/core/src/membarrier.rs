//! Making every CPU take notice, without waking those that sleep: the protocol behind `machine::smp`.
//!
//! One CPU takes a number and interrupts every other that isn't idle; each of these answers with the newest number that it finds. An
//! idle CPU is left alone and catches up before it does anything. What is decisive is the order of two pairs of accesses: the caller
//! takes its number and then looks who is idle, an idle CPU says that it isn't and then looks for numbers. One of the two sees the
//! other, so no CPU runs anything without having caught up or being waited for.
//!
//! Interrupts are the caller's business. `kernel/models` checks this file, and with it that sequential consistency is needed.

use super::atomic::{AtomicBool, AtomicU64, Ordering};

/// The numbers that have been given out.
pub struct Broadcasts(AtomicU64);

/// One CPU's part: at first it runs, and has answered nothing.
#[derive(Default)]
pub struct Listener {
    /// The last number that it has answered.
    seen: AtomicU64,
    idle: AtomicBool,
}

impl Broadcasts {
    /// Counts on from what `last` holds.
    pub const fn new(last: AtomicU64) -> Self {
        Self(last)
    }

    /// Takes the next number. Everything written before is visible to whoever answers it.
    pub fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The newest number, for a CPU that answers.
    pub fn newest(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Listener {
    /// Whether a broadcast leaves it alone now. To be asked after [`Broadcasts::begin`].
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::SeqCst)
    }

    /// Whether it has answered `number`.
    pub fn has_answered(&self, number: u64) -> bool {
        self.seen.load(Ordering::SeqCst) >= number
    }

    /// Answers. Everything that this CPU wrote before is visible to whoever waits for `number`.
    pub fn answer(&self, number: u64) {
        self.seen.store(number, Ordering::SeqCst);
    }

    /// This CPU is about to halt: from now on broadcasts leave it alone.
    pub fn enter_idle(&self) {
        self.idle.store(true, Ordering::SeqCst);
    }

    /// This CPU goes on: `catch_up` does what it was spared and returns the number that this answers. Nothing, if it wasn't idle.
    pub fn leave_idle(&self, catch_up: impl FnOnce() -> u64) {
        if self.idle.load(Ordering::Relaxed) {
            self.idle.store(false, Ordering::SeqCst);
            self.answer(catch_up());
        }
    }
}
