//! The admin queue (base specification 2.0, 5 "Admin Command Set"): commands that move at most a page, into memory of its own.
//!
//! A driver makes an [`AdminCommand`], hands it in and gets its [`AdminCompletion`]. There is none that names memory but the queue's: features
//! with a data buffer, firmware and namespace management aren't offered.

use super::identifiers::Identifiers;
use super::namespace::{Namespace, NamespaceError, Source};
use super::ring::Ring;
use super::{IoQueue, Shared};
use crate::pages::Pages;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Entries of the queues.
const ENTRIES: u32 = 32;
/// Commands under way at most: fewer than entries.
const SLOTS: usize = 16;
/// Bytes that a command moves at most.
pub const PAGE_BYTES: usize = 4096;

/// Features without a data buffer (5.27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Feature {
    /// Weights of arbitration.
    Arbitration = 0x01,
    /// Power state.
    PowerManagement = 0x02,
    /// Temperature that raises a warning.
    TemperatureThreshold = 0x04,
    /// Retries.
    ErrorRecovery = 0x05,
    /// Volatile write cache: bit 0 is on.
    VolatileWriteCache = 0x06,
    /// I/O queues, counted from 0: completion queues in the high half, submission queues in the low.
    NumberOfQueues = 0x07,
    /// Interrupt coalescing: time in bits 8 to 15 (100 µs), threshold in 0 to 7.
    InterruptCoalescing = 0x08,
    /// Which events are reported.
    AsynchronousEvents = 0x0B,
}

/// A command for the admin queue.
#[derive(Clone, Copy)]
pub struct AdminCommand {
    opcode: u8,
    namespace: u32,
    /// Words 10 to 13.
    words: [u32; 4],
    memory: Memory,
}

/// What a command's first address is.
#[derive(Clone, Copy)]
enum Memory {
    None,
    /// A page of the admin queue's.
    Answer,
    /// Of an I/O queue that was started in this epoch.
    Queue {
        physical: u64,
        epoch: u32,
    },
}

impl AdminCommand {
    const fn new(opcode: u8, namespace: u32, words: [u32; 4], memory: Memory) -> AdminCommand {
        AdminCommand {
            opcode,
            namespace,
            words,
            memory,
        }
    }

    /// Identify (5.17) of a structure by its number.
    pub const fn identify(structure: u8, namespace: u32) -> AdminCommand {
        AdminCommand::new(0x06, namespace, [structure as u32, 0, 0, 0], Memory::Answer)
    }

    /// Identify of a structure that belongs to command set `command_set`.
    pub const fn identify_for(structure: u8, namespace: u32, command_set: u8) -> AdminCommand {
        let words = [structure as u32, (command_set as u32) << 24, 0, 0];
        AdminCommand::new(0x06, namespace, words, Memory::Answer)
    }

    /// Get Log Page (5.16): `bytes` of it, a multiple of 4 up to a page, from `offset` on. With `retain` the events that it is about stay.
    pub fn log_page(page: u8, bytes: u32, offset: u64, retain: bool) -> AdminCommand {
        let dwords = (bytes.clamp(4, PAGE_BYTES as u32) / 4) - 1;
        let words = [
            u32::from(page) | u32::from(retain) << 15 | dwords << 16,
            0,
            offset as u32,
            (offset >> 32) as u32,
        ];
        AdminCommand::new(0x02, u32::MAX, words, Memory::Answer)
    }

    /// Set Features (5.27), not saved over a reset.
    pub const fn set_feature(feature: Feature, value: u32) -> AdminCommand {
        AdminCommand::new(0x09, 0, [feature as u32, value, 0, 0], Memory::None)
    }

    /// Get Features (5.15), the current value.
    pub const fn get_feature(feature: Feature) -> AdminCommand {
        AdminCommand::new(0x0A, 0, [feature as u32, 0, 0, 0], Memory::None)
    }

    /// Abort (5.1) of a command of an I/O queue.
    pub const fn abort(queue: u16, command: u16) -> AdminCommand {
        let words = [queue as u32 | (command as u32) << 16, 0, 0, 0];
        AdminCommand::new(0x08, 0, words, Memory::None)
    }

    /// Asynchronous Event Request (5.2): answered when something happens.
    pub const fn asynchronous_event() -> AdminCommand {
        AdminCommand::new(0x0C, 0, [0; 4], Memory::None)
    }

    /// Create I/O Completion Queue (5.4), which raises MSI-X entry `vector` if any.
    pub fn create_completion_queue(queue: &IoQueue, vector: Option<u16>) -> AdminCommand {
        const CONTIGUOUS: u32 = 1;
        const INTERRUPTS: u32 = 1 << 1;
        let interrupts = vector.map_or(0, |vector| INTERRUPTS | u32::from(vector) << 16);
        AdminCommand::new(
            0x05,
            0,
            [queue.size_word(), CONTIGUOUS | interrupts, 0, 0],
            Memory::Queue {
                physical: queue.addresses().1,
                epoch: queue.epoch(),
            },
        )
    }

    /// Create I/O Submission Queue (5.5) for the completion queue of the same number.
    pub fn create_submission_queue(queue: &IoQueue) -> AdminCommand {
        const CONTIGUOUS: u32 = 1;
        AdminCommand::new(
            0x01,
            0,
            [
                queue.size_word(),
                CONTIGUOUS | u32::from(queue.number()) << 16,
                0,
                0,
            ],
            Memory::Queue {
                physical: queue.addresses().0,
                epoch: queue.epoch(),
            },
        )
    }
}

/// The answer to an admin command.
pub struct AdminCompletion<'a> {
    /// What [`AdminQueue::submit`] returned for the command.
    pub command: u16,
    /// Status field without the phase; 0 is success.
    pub status: u16,
    /// Command specific.
    pub result: u32,
    namespace: u32,
    is_namespace: bool,
    source: Source,
    data: &'a Pages,
    offset: usize,
}

impl AdminCompletion<'_> {
    /// Copies what the command moved, from its start.
    pub fn copy_to(&self, bytes: &mut [u8]) {
        let length = bytes.len().min(PAGE_BYTES);
        self.data
            .copy_to(self.offset, bytes.get_mut(..length).unwrap_or_default());
    }

    /// The namespace that Identify Namespace (structure 0) was about.
    pub fn namespace(&self) -> Result<Namespace, NamespaceError> {
        if !self.is_namespace || self.status != 0 {
            return Err(NamespaceError::Inactive);
        }
        let mut structure: Box<[u8]> = alloc::vec![0; PAGE_BYTES].into_boxed_slice();
        self.copy_to(&mut structure);
        Namespace::parse(self.source, self.namespace, &structure)
    }
}

/// What is known of a command under way.
#[derive(Clone, Copy, Default)]
struct Pending {
    namespace: u32,
    is_namespace: bool,
}

/// The admin queue of a controller.
pub struct AdminQueue {
    ring: Ring,
    identifiers: Identifiers,
    pending: Box<[Pending]>,
    /// A page for each slot.
    data: Pages,
    epoch: u32,
    strays: u64,
}

impl AdminQueue {
    pub(super) fn new(shared: &Arc<Shared>) -> Option<AdminQueue> {
        Some(AdminQueue {
            ring: Ring::new(shared, 0, ENTRIES)?,
            identifiers: Identifiers::new(SLOTS),
            pending: Vec::from([Pending::default(); SLOTS]).into_boxed_slice(),
            data: shared.device.pages(SLOTS * PAGE_BYTES)?,
            epoch: 0,
            strays: 0,
        })
    }

    /// Begins anew, for a controller that is off.
    pub(super) fn start(&mut self) {
        self.ring.reset();
        self.identifiers.reset();
        self.epoch = self.ring.shared().epoch();
    }

    pub(super) fn addresses(&self) -> (u64, u64) {
        self.ring.addresses()
    }

    pub(super) fn entries(&self) -> u32 {
        self.ring.entries()
    }

    /// Hands a command in; its identifier, or `None` when as many are under way as there can be, when the controller was turned off since, or
    /// when the command is about an I/O queue of an earlier time.
    pub fn submit(&mut self, command: AdminCommand) -> Option<u16> {
        if self.epoch != self.ring.shared().epoch() {
            return None;
        }
        if let Memory::Queue { epoch, .. } = command.memory
            && epoch != self.epoch
        {
            return None;
        }
        let slot = self.identifiers.take()?;
        let identifier = self.identifiers.identifier(slot)?;
        let address = match command.memory {
            Memory::None => 0,
            Memory::Answer => self.data.physical() + (usize::from(slot) * PAGE_BYTES) as u64,
            Memory::Queue { physical, .. } => physical,
        };
        if let Some(pending) = self.pending.get_mut(usize::from(slot)) {
            *pending = Pending {
                namespace: command.namespace,
                is_namespace: command.opcode == 0x06 && command.words == [0; 4],
            };
        }
        let [word10, word11, word12, word13] = command.words.map(u64::from);
        self.ring.push([
            u64::from(command.opcode) | u64::from(identifier) << 16 | u64::from(command.namespace) << 32,
            0,
            0,
            address,
            0,
            word10 | word11 << 32,
            word12 | word13 << 32,
            0,
        ]);
        self.ring.publish();
        Some(identifier)
    }

    /// The next answer. It can be read until the queue is used again.
    pub fn completion(&mut self) -> Option<AdminCompletion<'_>> {
        if self.epoch != self.ring.shared().epoch() {
            return None;
        }
        loop {
            let entry = self.ring.pop()?;
            self.ring.acknowledge();
            let Some(slot) = self.identifiers.slot(entry.command).filter(|_| entry.queue == 0) else {
                self.strays += 1;
                continue;
            };
            self.identifiers.release(slot);
            let pending = self.pending.get(usize::from(slot)).copied().unwrap_or_default();
            return Some(AdminCompletion {
                command: entry.command,
                status: entry.status,
                result: entry.result,
                namespace: pending.namespace,
                is_namespace: pending.is_namespace,
                source: self.ring.shared().source(),
                data: &self.data,
                offset: usize::from(slot) * PAGE_BYTES,
            });
        }
    }

    /// Completions that were for no command.
    pub fn strays(&self) -> u64 {
        self.strays
    }
}
