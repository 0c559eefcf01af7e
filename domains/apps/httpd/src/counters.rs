//! What a shard counts.
//!
//! Each shard writes its own counters and only those, so that counting is a load and a store; anyone may read them.

use crate::status::Status;
use core::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only by the shard whose counter it is.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    /// Sets; only by the shard whose counter it is.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One shard's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Answers by status, in the order of [`Status::ALL`].
    answers: [Counter; Status::ALL.len()],
    /// Bytes given to the stack, heads and bodies.
    pub sent_bytes: Counter,
    /// Bytes taken from the stack.
    pub received_bytes: Counter,
    /// Connections taken.
    pub accepted: Counter,
    /// Connections refused at the limit.
    pub refused: Counter,
    /// Connections ended by a deadline.
    pub timed_out: Counter,
    /// Connections ended because buffers were used up.
    pub starved: Counter,
    /// Connections open now.
    pub open: Counter,
}

impl Counters {
    /// Counts an answer.
    #[inline]
    pub fn answered(&self, status: Status) {
        if let Some(counter) = self.answers.get(status as usize) {
            counter.add(1);
        }
    }

    /// Answers of this status.
    pub fn answers(&self, status: Status) -> u64 {
        self.answers.get(status as usize).map_or(0, Counter::get)
    }
}
