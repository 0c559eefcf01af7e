//! I/O queues (base specification 2.0, 3.3; commands of the NVM command set 1.0, 3.2 and 3.3).
//!
//! A command is built from blocks ([`IoQueue::command`]) and owns them until its completion was posted or the controller was turned off
//! since (see the module above). What it moves is what its blocks say, a page each at most: lengths and addresses are put down here and
//! nowhere else. Ranges that move nothing (write zeroes, deallocate) are the driver's.

mod command;

pub use command::{Accepted, Command, CommandKind};

use super::identifiers::Identifiers;
use super::namespace::Namespace;
use super::ring::Ring;
use super::{QueueClaim, Shared};
use crate::pages::Pages;
use alloc::boxed::Box;
use command::data_address;
use core::fmt;
use rref::block::BLOCK_BYTES;
use rref::{Block, RRef};

/// Blocks that a command owns at most: as many as cross in a batch.
pub const TRANSFER_BLOCKS: usize = 32;
/// Entries of a queue at most.
const ENTRY_LIMIT: u32 = 128;
/// Words of a command's list: of pages behind the first, or of ranges. A list never crosses a page, being a power of two.
const LIST_WORDS: usize = 32;
/// Ranges that a deallocation names at most: two words each.
pub const RANGE_LIMIT: usize = LIST_WORDS / 2;
/// Logical blocks that a length can name: it has 16 bits, counted from 0.
const LENGTH_LIMIT: u32 = 1 << 16;

/// Why there is no queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// No queue of this number can be made.
    NoQueue {
        /// The number.
        queue: u16,
    },
    /// There is one already.
    InUse {
        /// Its number.
        queue: u16,
    },
    /// The controller hasn't been seen off in this life.
    NotTurnedOff,
    /// It holds commands, or was started since the controller was turned off.
    Busy,
    /// No memory for it.
    OutOfMemory,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueError::NoQueue { queue } => write!(f, "there can be no queue {queue}"),
            QueueError::InUse { queue } => write!(f, "there is a queue {queue} already"),
            QueueError::NotTurnedOff => f.write_str("the controller wasn't turned off"),
            QueueError::Busy => f.write_str("the queue is in use"),
            QueueError::OutOfMemory => f.write_str("no memory for a queue"),
        }
    }
}

/// What is done with one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Fill it from the namespace.
    Read,
    /// Write it.
    Write,
    /// Write it; it is durable with the completion.
    WriteThrough,
}

/// Opcodes, and a bit of the word behind the address (NVM command set 1.0, 3.2).
const OPCODE_WRITE: u64 = 0x01;
const OPCODE_READ: u64 = 0x02;
const FORCE_UNIT_ACCESS: u64 = 1 << 30;

/// One slot's command.
struct Slot {
    blocks: [Option<RRef<Block>>; TRANSFER_BLOCKS],
    /// Blocks put in.
    count: u8,
    /// Of them, taken out again.
    taken: u8,
}

/// A pair of I/O queues.
pub struct IoQueue {
    claim: QueueClaim,
    ring: Ring,
    identifiers: Identifiers,
    slots: Box<[Slot]>,
    /// A list for each slot.
    lists: Pages,
    /// When it was started; 0 before.
    epoch: u32,
    strays: u64,
}

impl IoQueue {
    pub(super) fn new(claim: QueueClaim, entries: u32) -> Result<IoQueue, QueueError> {
        let entries = entries
            .min(ENTRY_LIMIT)
            .min(claim.shared.capabilities.queue_entries());
        let Some(slots) = entries.checked_sub(1).filter(|&slots| slots > 0) else {
            return Err(QueueError::NoQueue { queue: claim.queue });
        };
        let slots = slots as usize;
        let ring = Ring::new(&claim.shared, claim.queue, entries).ok_or(QueueError::OutOfMemory)?;
        let lists = claim
            .shared
            .device
            .pages(slots * LIST_WORDS * size_of::<u64>())
            .ok_or(QueueError::OutOfMemory)?;
        let empty = || Slot {
            blocks: [const { None }; TRANSFER_BLOCKS],
            count: 0,
            taken: 0,
        };
        Ok(IoQueue {
            claim,
            ring,
            identifiers: Identifiers::new(slots),
            slots: core::iter::repeat_with(empty).take(slots).collect(),
            lists,
            epoch: 0,
            strays: 0,
        })
    }

    fn shared(&self) -> &Shared {
        self.ring.shared()
    }

    /// Its number, from 1.
    pub fn number(&self) -> u16 {
        self.claim.queue
    }

    /// Commands that it holds at most.
    pub fn depth(&self) -> usize {
        self.slots.len()
    }

    /// When it was started.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn addresses(&self) -> (u64, u64) {
        self.ring.addresses()
    }

    /// Word 10 of the commands that create it: number, and entries counted from 0.
    pub(super) fn size_word(&self) -> u32 {
        u32::from(self.number()) | (self.ring.entries() - 1) << 16
    }

    /// Whether the controller may know of it: it was not turned off since [`start`](Self::start).
    #[inline(always)]
    pub fn is_live(&self) -> bool {
        self.epoch == self.ring.shared().epoch()
    }

    /// Begins anew, after the controller was turned off and what the queue held was taken back. The controller has to be told then, by
    /// [`create_completion_queue`](super::AdminCommand::create_completion_queue) and the other.
    pub fn start(&mut self) -> Result<(), QueueError> {
        if self.is_live() || self.slots.iter().any(|slot| slot.count != slot.taken) {
            return Err(QueueError::Busy);
        }
        for slot in &mut self.slots {
            (slot.count, slot.taken) = (0, 0);
        }
        self.ring.reset();
        self.identifiers.reset();
        self.epoch = self.shared().epoch();
        Ok(())
    }

    /// Whether the controller knows of the queue, and has itself said what the namespace is since it was last off: lengths in memory depend
    /// on that.
    #[inline(always)]
    fn takes(&self, namespace: &Namespace) -> bool {
        let source = self.ring.shared().source();
        source.epoch == self.epoch && source == namespace.source()
    }

    /// Commands for which there is room.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.identifiers.available()
    }

    /// Begins a command; `None` when there is no room, or the controller was turned off since the queue was started or since it said what the
    /// namespace is.
    #[inline]
    pub fn command(&mut self, namespace: &Namespace, kind: CommandKind) -> Option<Command<'_>> {
        if !self.takes(namespace) {
            return None;
        }
        let slot = self.identifiers.take()?;
        Some(Command {
            queue: self,
            namespace: *namespace,
            kind,
            slot,
            address: 0,
            length: 0,
            whole: true,
            ranges: 0,
            submitted: false,
        })
    }

    /// Submits a read or write of one block, as a [`command`](Self::command) of it alone does for more instructions: its slot, or the block
    /// when there is no room, when it has no data or too much, or when the controller was turned off.
    #[inline]
    pub fn submit_one(
        &mut self,
        namespace: &Namespace,
        transfer: Transfer,
        block: RRef<Block>,
    ) -> Result<u8, RRef<Block>> {
        let (address, count) = (block.address, block.count);
        let fits = count != 0 && count <= (BLOCK_BYTES >> namespace.block_shift()) as u32;
        if !fits || !self.takes(namespace) {
            return Err(block);
        }
        let Some(index) = self.identifiers.take() else {
            return Err(block);
        };
        let (Some(slot), Some(identifier)) = (
            self.slots.get_mut(usize::from(index)),
            self.identifiers.identifier(index),
        ) else {
            return Err(block);
        };
        let page = data_address(&block);
        // Nothing is there; forgetting it spares its drop code.
        core::mem::forget(slot.blocks[0].replace(block));
        (slot.count, slot.taken) = (1, 0);
        let (opcode, flags) = match transfer {
            Transfer::Read => (OPCODE_READ, 0),
            Transfer::Write => (OPCODE_WRITE, 0),
            Transfer::WriteThrough => (OPCODE_WRITE, FORCE_UNIT_ACCESS),
        };
        self.ring.push([
            opcode | u64::from(identifier) << 16 | u64::from(namespace.id()) << 32,
            0,
            0,
            page,
            0,
            address,
            u64::from(count - 1) | flags,
            0,
        ]);
        Ok(index)
    }

    /// Takes the next completion if it is that of a command of one block that succeeded: its slot, which is free then, and the block. For
    /// others there is [`finished`](Self::finished).
    #[inline]
    pub fn finished_one(&mut self) -> Option<(u8, RRef<Block>)> {
        if !self.is_live() {
            return None;
        }
        let entry = self.ring.peek()?;
        if entry.status != 0 || entry.queue != self.claim.queue {
            return None;
        }
        let index = self.identifiers.slot(entry.command)?;
        let slot = self.slots.get_mut(usize::from(index))?;
        if (slot.count, slot.taken) != (1, 0) {
            return None;
        }
        let block = slot.blocks[0].take()?;
        (slot.count, slot.taken) = (0, 0);
        self.ring.advance();
        self.identifiers.release(index);
        Some((index, block))
    }

    /// Tells the controller of commands submitted since: one register write, or none.
    #[inline(always)]
    pub fn publish(&mut self) {
        if self.is_live() {
            self.ring.publish();
        }
    }

    /// Whether a completion waits.
    #[inline(always)]
    pub fn has_completion(&self) -> bool {
        self.is_live() && self.ring.is_ready()
    }

    /// Takes the next completion. Completions that are for no command are counted and dropped.
    #[inline]
    pub fn finished(&mut self) -> Option<Finished<'_>> {
        if !self.is_live() {
            return None;
        }
        loop {
            let entry = self.ring.pop()?;
            match self.identifiers.slot(entry.command) {
                Some(slot) if entry.queue == self.claim.queue => {
                    return Some(Finished {
                        queue: self,
                        slot,
                        status: entry.status,
                    });
                }
                _ => self.strays += 1,
            }
        }
    }

    /// Gives completions taken since back to the controller: one register write, or none.
    #[inline(always)]
    pub fn acknowledge(&mut self) {
        if self.is_live() {
            self.ring.acknowledge();
        }
    }

    /// The identifier of the command in a slot, for an abort. The slot is not used again before the queue is started anew.
    pub fn identifier_for_abort(&mut self, slot: u8) -> Option<u16> {
        let identifier = self.identifiers.identifier(slot)?;
        self.identifiers.retire(slot);
        Some(identifier)
    }

    /// Takes the next block back that the queue holds, with its command's slot, when the controller was turned off or taken off the bus
    /// since the queue was started; otherwise there is none.
    pub fn take_back(&mut self) -> Option<(u8, RRef<Block>)> {
        if self.is_live() {
            return None;
        }
        for (index, slot) in (0u8..).zip(self.slots.iter_mut()) {
            if let Some(block) = slot.take() {
                return Some((index, block));
            }
        }
        None
    }

    /// Completions that were for no command.
    pub fn strays(&self) -> u64 {
        self.strays
    }
}

impl Slot {
    /// Takes the next block out, in the order in which they were put in.
    #[inline(always)]
    fn take(&mut self) -> Option<RRef<Block>> {
        if self.taken == self.count {
            return None;
        }
        let block = self.blocks.get_mut(usize::from(self.taken))?.take();
        self.taken += 1;
        block
    }
}

impl Drop for IoQueue {
    fn drop(&mut self) {
        if self.is_live() {
            // The controller may know the queue and use what is in it: that stays, and so does the number.
            self.claim.kept = true;
            for slot in &mut self.slots {
                while let Some(block) = slot.take() {
                    core::mem::forget(block);
                }
            }
        }
    }
}

impl IoQueue {
    /// Drops what is left in a slot, which is free then.
    #[inline(always)]
    fn empty(&mut self, index: u8) {
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            while let Some(block) = slot.take() {
                drop(block);
            }
            (slot.count, slot.taken) = (0, 0);
        }
        self.identifiers.release(index);
    }
}

/// A command whose completion was posted. Dropped, it drops blocks that weren't taken.
pub struct Finished<'a> {
    queue: &'a mut IoQueue,
    slot: u8,
    status: u16,
}

impl Finished<'_> {
    /// Its slot.
    #[inline(always)]
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// Status field without the phase; 0 is success.
    #[inline(always)]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Blocks that are left to be taken.
    #[inline(always)]
    pub fn len(&self) -> usize {
        let slot = self.queue.slots.get(usize::from(self.slot));
        slot.map_or(0, |slot| usize::from(slot.count - slot.taken))
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next of its blocks.
    #[inline(always)]
    pub fn take(&mut self) -> Option<RRef<Block>> {
        self.queue.slots.get_mut(usize::from(self.slot))?.take()
    }
}

impl Drop for Finished<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.queue.empty(self.slot);
    }
}
