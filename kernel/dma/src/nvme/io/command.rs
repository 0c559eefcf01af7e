//! Commands of several blocks, flushes and ranges, while they are built.
//!
//! What a command of one block needs is short enough to stand in `IoQueue::submit_one`.

use super::{
    FORCE_UNIT_ACCESS, IoQueue, LENGTH_LIMIT, LIST_WORDS, OPCODE_READ, OPCODE_WRITE, RANGE_LIMIT,
    TRANSFER_BLOCKS,
};
use crate::nvme::namespace::Namespace;
use rref::block::BLOCK_BYTES;
use rref::{Block, RRef};

/// What a command is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// Fill blocks from the namespace.
    Read,
    /// Write blocks; durable with the completion when `force_unit_access`.
    Write {
        /// See there.
        force_unit_access: bool,
    },
    /// Make completed writes durable.
    Flush,
    /// Make `count` logical blocks from `address` on read as zeros.
    WriteZeroes {
        /// First logical block.
        address: u64,
        /// Logical blocks, from 1 to 65,536; cut to that.
        count: u32,
    },
    /// Forget ranges ([`Command::add_range`]).
    Deallocate,
}

/// What [`Command::accept`] found a block to be.
pub struct Accepted {
    bytes: u32,
}

/// A command that is being built. Dropped before it is submitted, it drops its blocks.
pub struct Command<'a> {
    pub(super) queue: &'a mut IoQueue,
    pub(super) namespace: Namespace,
    pub(super) kind: CommandKind,
    pub(super) slot: u8,
    /// Of reads and writes: the first logical block, and how many there are so far.
    pub(super) address: u64,
    pub(super) length: u32,
    /// Every block so far filled its page: another may follow.
    pub(super) whole: bool,
    pub(super) ranges: u8,
    pub(super) submitted: bool,
}

impl Command<'_> {
    /// The slot that it takes: the driver's name for it.
    #[inline(always)]
    pub fn slot(&self) -> u8 {
        self.slot
    }

    #[inline(always)]
    fn count(&self) -> usize {
        let slot = self.queue.slots.get(usize::from(self.slot));
        slot.map_or(TRANSFER_BLOCKS, |slot| usize::from(slot.count))
    }

    /// Whether a block can be the next of this command: there is room, and, where data is moved, it has some, begins where the last one
    /// ended, and the last one filled its page.
    #[inline(always)]
    pub fn accept(&self, block: &Block) -> Option<Accepted> {
        let count = self.count();
        if count >= TRANSFER_BLOCKS {
            return None;
        }
        let moves = matches!(self.kind, CommandKind::Read | CommandKind::Write { .. });
        if !moves {
            return Some(Accepted { bytes: 0 });
        }
        let limit = (BLOCK_BYTES >> self.namespace.block_shift()) as u32;
        if block.count == 0 || block.count > limit {
            return None;
        }
        if count != 0
            && (!self.whole || self.address.checked_add(u64::from(self.length)) != Some(block.address))
        {
            return None;
        }
        Some(Accepted {
            bytes: block.count << self.namespace.block_shift(),
        })
    }

    /// Adds a block; gives it back when it can't be the next.
    #[inline(always)]
    pub fn push(&mut self, block: RRef<Block>) -> Result<(), RRef<Block>> {
        let Some(Accepted { bytes }) = self.accept(&block) else {
            return Err(block);
        };
        let count = self.count();
        if bytes != 0 {
            if count == 0 {
                self.address = block.address;
            } else {
                // Pages behind the first, should there be more than two.
                let list = usize::from(self.slot) * LIST_WORDS + count - 1;
                self.queue.lists.write(list, [data_address(&block)]);
            }
            self.length += block.count;
            self.whole = bytes as usize == BLOCK_BYTES;
        }
        let Some(slot) = self.queue.slots.get_mut(usize::from(self.slot)) else {
            return Err(block);
        };
        let Some(place) = slot.blocks.get_mut(count) else {
            return Err(block);
        };
        // Nothing is there; forgetting it spares its drop code.
        core::mem::forget(place.replace(block));
        slot.count += 1;
        Ok(())
    }

    /// Adds a range to a deallocation; false when there is no room.
    pub fn add_range(&mut self, address: u64, count: u32) -> bool {
        let ranges = usize::from(self.ranges);
        if self.kind != CommandKind::Deallocate || ranges >= RANGE_LIMIT {
            return false;
        }
        let list = usize::from(self.slot) * LIST_WORDS + 2 * ranges;
        self.queue.lists.write(list, [u64::from(count) << 32, address]);
        self.ranges += 1;
        true
    }

    /// Puts the command into the queue; false when it moves nothing and has no range, which drops it. The controller hears of it with
    /// [`IoQueue::publish`].
    #[inline(always)]
    pub fn submit(mut self) -> bool {
        const DEALLOCATE: u64 = 1 << 2;
        let list =
            self.queue.lists.physical() + u64::from(self.slot) * (LIST_WORDS * size_of::<u64>()) as u64;
        let index = usize::from(self.slot);
        let Some(slot) = self.queue.slots.get(index) else {
            return false;
        };
        let page = |index: usize| slot.blocks.get(index)?.as_ref().map(data_address);
        let (opcode, pages, address, last): (u64, [u64; 2], u64, u64) = match self.kind {
            CommandKind::Read | CommandKind::Write { .. } => {
                let Some(first) = page(0) else {
                    return false;
                };
                let second = match slot.count {
                    0 | 1 => 0,
                    2 => page(1).unwrap_or(0),
                    _ => list,
                };
                let length = u64::from(self.length - 1);
                match self.kind {
                    CommandKind::Write {
                        force_unit_access: true,
                    } => (
                        OPCODE_WRITE,
                        [first, second],
                        self.address,
                        length | FORCE_UNIT_ACCESS,
                    ),
                    CommandKind::Write { .. } => (OPCODE_WRITE, [first, second], self.address, length),
                    _ => (OPCODE_READ, [first, second], self.address, length),
                }
            }
            CommandKind::Flush => (0x00, [0; 2], 0, 0),
            CommandKind::WriteZeroes { address, count } => {
                let length = count.clamp(1, LENGTH_LIMIT) - 1;
                (0x08, [0; 2], address, u64::from(length))
            }
            CommandKind::Deallocate => {
                if self.ranges == 0 {
                    return false;
                }
                // Words 10 and 11 are the number of ranges, counted from 0, and what is to become of them.
                let words = u64::from(self.ranges - 1) | DEALLOCATE << 32;
                (0x09, [list, 0], words, 0)
            }
        };
        let Some(identifier) = self.queue.identifiers.identifier(self.slot) else {
            return false;
        };
        self.queue.ring.push([
            opcode | u64::from(identifier) << 16 | u64::from(self.namespace.id()) << 32,
            0,
            0,
            pages[0],
            pages[1],
            address,
            last,
            0,
        ]);
        self.submitted = true;
        true
    }
}

/// Where a device finds a block's data.
#[inline(always)]
pub(super) fn data_address(block: &RRef<Block>) -> u64 {
    block.physical() + Block::DATA_OFFSET as u64
}

impl Drop for Command<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.submitted {
            self.queue.empty(self.slot);
        }
    }
}
