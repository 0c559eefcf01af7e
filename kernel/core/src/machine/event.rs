//! Something that happens, and a thread that waits for it: what an interrupt handler signals.

use super::thread::{self, ThreadId, Wake};
use core::sync::atomic::{AtomicU64, Ordering};

/// Counts signals until they are waited for. One thread at a time may wait; a second one takes the first
/// one's place.
#[derive(Default)]
pub struct Event {
    count: AtomicU64,
    /// Number of the thread that waits; 0 is nobody.
    waiter: AtomicU64,
}

impl Event {
    /// An event that hasn't happened.
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            waiter: AtomicU64::new(0),
        }
    }

    /// It has happened. From anywhere, interrupt handlers included.
    pub fn signal(&self) {
        // Before the waiter is read, which is the other way round than in `wait`: one of the two sees the
        // other.
        self.count.fetch_add(1, Ordering::SeqCst);
        let waiter = self.waiter.swap(0, Ordering::SeqCst);
        if waiter != 0 {
            thread::unpark(ThreadId::from_number(waiter));
        }
    }

    /// Waits until it has happened since the last wait: how often, or why it was given up.
    pub fn wait(&self, deadline_ns: u64) -> Result<u64, Wake> {
        loop {
            self.waiter.store(thread::current_id().number(), Ordering::SeqCst);
            let count = self.count.swap(0, Ordering::SeqCst);
            if count > 0 {
                self.waiter.store(0, Ordering::SeqCst);
                return Ok(count);
            }
            match thread::park_until(deadline_ns) {
                Wake::Woken => {}
                other => {
                    self.waiter.store(0, Ordering::SeqCst);
                    return Err(other);
                }
            }
        }
    }
}
