//! What admin and I/O queues have in common: a submission queue, its completion queue, their doorbells and phase (base specification
//! 2.0, 3.3 "NVM Queue Models", 4.2 "Completion Queue Entry").
//!
//! Knows nothing of what commands mean. Which command a completion is for, and whether it is for one at all, is its user's to find out.

use super::Shared;
use super::registers::DOORBELLS;
use crate::pages::Pages;
use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};

/// Words of a submission queue entry.
pub const SUBMISSION_WORDS: usize = 8;
/// Words of a completion queue entry.
const COMPLETION_WORDS: usize = 2;
/// The phase tag in a completion entry's second word.
const PHASE: u64 = 1 << 48;

/// A completion entry's contents.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Command specific.
    pub result: u32,
    /// Submission queue that the command came from.
    pub queue: u16,
    /// The command's identifier.
    pub command: u16,
    /// Status without phase.
    pub status: u16,
}

/// A pair of queues of the same length.
pub struct Ring {
    shared: Arc<Shared>,
    submission: Pages,
    completion: Pages,
    entries: u32,
    submission_doorbell: u32,
    completion_doorbell: u32,
    /// Next submission entry to be written.
    tail: u32,
    /// The tail that the controller was told.
    published: u32,
    /// Next completion entry to be read.
    head: u32,
    /// The head that the controller was told.
    acknowledged: u32,
    /// Phase of entries that are new.
    phase: u64,
}

impl Ring {
    /// Memory for queue pair `queue` of `entries`; `None` when there is none.
    pub fn new(shared: &Arc<Shared>, queue: u16, entries: u32) -> Option<Ring> {
        let stride = shared.capabilities.doorbell_stride();
        let first = DOORBELLS + 2 * u32::from(queue) * stride;
        Some(Ring {
            submission: shared
                .device
                .pages(entries as usize * SUBMISSION_WORDS * size_of::<u64>())?,
            completion: shared
                .device
                .pages(entries as usize * COMPLETION_WORDS * size_of::<u64>())?,
            shared: shared.clone(),
            entries,
            submission_doorbell: first,
            completion_doorbell: first + stride,
            tail: 0,
            published: 0,
            head: 0,
            acknowledged: 0,
            phase: PHASE,
        })
    }

    /// Where the controller left off is forgotten: it knows nothing of the queues, and will be told anew.
    pub fn reset(&mut self) {
        self.completion.clear();
        (self.tail, self.published, self.head, self.acknowledged) = (0, 0, 0, 0);
        self.phase = PHASE;
    }

    /// What rings and controller share.
    #[inline(always)]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Entries of each queue.
    #[inline(always)]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Addresses of submission and completion queue.
    pub fn addresses(&self) -> (u64, u64) {
        (self.submission.physical(), self.completion.physical())
    }

    /// Writes an entry. The user sees to it that fewer than all are under way.
    #[inline(always)]
    pub fn push(&mut self, words: [u64; SUBMISSION_WORDS]) {
        self.submission
            .write(self.tail as usize * SUBMISSION_WORDS, words);
        self.tail += 1;
        if self.tail == self.entries {
            self.tail = 0;
        }
    }

    /// Tells the controller of entries written since: one register write, or none.
    #[inline(always)]
    pub fn publish(&mut self) {
        if self.tail == self.published {
            return;
        }
        self.published = self.tail;
        // The controller must see entries no later than the tail that covers them.
        fence(Ordering::Release);
        self.shared
            .registers
            .write_trusted(self.submission_doorbell, self.tail);
    }

    /// Whether there is a completion.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.completion.read(self.head as usize * COMPLETION_WORDS + 1) & PHASE == self.phase
    }

    /// Takes the next completion.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.peek()?;
        self.advance();
        Some(entry)
    }

    /// Goes on behind the completion that [`peek`](Self::peek) has shown.
    #[inline(always)]
    pub fn advance(&mut self) {
        self.head += 1;
        if self.head == self.entries {
            self.head = 0;
            self.phase ^= PHASE;
        }
    }

    /// Looks at the next completion.
    #[inline(always)]
    pub fn peek(&self) -> Option<Entry> {
        let index = self.head as usize * COMPLETION_WORDS;
        let second = self.completion.read(index + 1);
        if second & PHASE != self.phase {
            return None;
        }
        // The phase is written last: what else the entry holds, and the data that it is about, is read after it.
        fence(Ordering::Acquire);
        let first = self.completion.read(index);
        Some(Entry {
            result: first as u32,
            queue: (second >> 16) as u16,
            command: (second >> 32) as u16,
            status: (second >> 49) as u16,
        })
    }

    /// Gives entries taken since back to the controller: one register write, or none.
    #[inline(always)]
    pub fn acknowledge(&mut self) {
        if self.head == self.acknowledged {
            return;
        }
        self.acknowledged = self.head;
        self.shared
            .registers
            .write_trusted(self.completion_doorbell, self.head);
    }
}
