//! Namespaces as the units of a block device. A unit keeps its index as long as the driver lives, also when its namespace goes.

use crate::identify::{ControllerData, NamespaceData, RangeLimits};
use alloc::vec::Vec;
use dma::nvme::{Namespace, RANGE_LIMIT, TRANSFER_BLOCKS};
use interface::block::UnitInfo;
use rref::Text;
use rref::block::{BLOCK_BYTES, Block, Fault, Operation};

/// Logical blocks that the length in a command can name.
const COMMAND_BLOCKS: u32 = 1 << 16;

/// A namespace that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// For commands.
    pub namespace: Namespace,
    /// Pages that a command moves at most: not more than a command has room for.
    pub transfer_pages: u32,
    /// Logical blocks that one write of zeroes covers; 0 when it can't.
    pub write_zeroes_blocks: u32,
    /// Logical blocks that one range of a deallocation covers; 0 when it can't.
    pub range_blocks: u32,
    /// Ranges that a deallocation names.
    pub ranges: u32,
    /// Writes may be lost until they are flushed.
    pub volatile_cache: bool,
    forced_writes: bool,
    read_only: bool,
    atomic_blocks: u32,
    name: Text<72>,
}

impl Unit {
    /// What a namespace is with this controller.
    pub fn new(
        namespace: Namespace,
        data: &NamespaceData,
        controller: &ControllerData,
        limits: &RangeLimits,
        volatile_cache: bool,
    ) -> Unit {
        let block_bytes = u64::from(namespace.block_bytes());
        let pages = controller
            .transfer_limit_bytes
            .map_or(u64::MAX, |bytes| bytes / BLOCK_BYTES as u64)
            .clamp(1, TRANSFER_BLOCKS as u64);
        let zeroes = limits
            .write_zeroes_bytes
            .map_or(u64::MAX, |bytes| bytes / block_bytes)
            .clamp(1, u64::from(COMMAND_BLOCKS));
        Unit {
            namespace,
            transfer_pages: pages as u32,
            write_zeroes_blocks: if controller.write_zeroes { zeroes as u32 } else { 0 },
            range_blocks: if controller.deallocate {
                limits.range_blocks
            } else {
                0
            },
            ranges: u32::from(limits.ranges).min(RANGE_LIMIT as u32),
            volatile_cache,
            forced_writes: controller.forces_writes(),
            read_only: data.read_only,
            atomic_blocks: data.atomic_blocks.unwrap_or(controller.atomic_blocks),
            name: Text::format(format_args!("{} n{}", controller.serial, namespace.id())),
        }
    }

    /// What users see.
    pub fn info(&self) -> UnitInfo {
        let block_bytes = self.namespace.block_bytes();
        UnitInfo {
            block_bytes,
            blocks: self.namespace.blocks(),
            volatile_cache: self.volatile_cache,
            forced_writes: self.forced_writes,
            read_only: self.read_only,
            deallocate: self.range_blocks != 0,
            atomic_blocks: self.atomic_blocks,
            transfer_blocks: self.transfer_pages * (BLOCK_BYTES as u32 / block_bytes),
            kind: [0; 16],
            name: self.name,
        }
    }

    /// Why a request can't be handed to the controller, if so.
    #[inline(always)]
    pub fn objection(&self, operation: Operation, block: &Block) -> Option<Fault> {
        let page_blocks = BLOCK_BYTES as u32 / self.namespace.block_bytes();
        let limit = match operation {
            Operation::Flush => return None,
            Operation::Read | Operation::Write => page_blocks,
            Operation::WriteZeroes if self.write_zeroes_blocks == 0 => return Some(Fault::Unsupported),
            Operation::Deallocate if self.range_blocks == 0 => return Some(Fault::Unsupported),
            Operation::WriteZeroes | Operation::Deallocate => u32::MAX,
        };
        let end = block.address.checked_add(u64::from(block.count));
        let fits =
            block.count != 0 && block.count <= limit && end.is_some_and(|end| end <= self.namespace.blocks());
        if fits { None } else { Some(Fault::OutOfRange) }
    }
}

/// Units by their index; `None` where the namespace is gone or can't be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units(Vec<Option<Unit>>, Vec<u32>);

impl Units {
    /// How many there are or were.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many can be used.
    pub fn usable(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// A unit.
    #[inline(always)]
    pub fn get(&self, index: u16) -> Option<&Unit> {
        self.0.get(usize::from(index))?.as_ref()
    }

    /// The units that there are now: namespaces known before keep their index, new ones come behind them. Says whether anything changed.
    pub fn replace(&mut self, found: &[Unit]) -> bool {
        let before = self.clone();
        for unit in &mut self.0 {
            *unit = None;
        }
        for unit in found {
            let id = unit.namespace.id();
            let index = match self.1.iter().position(|&known| known == id) {
                Some(index) => index,
                None => {
                    self.1.push(id);
                    self.0.push(None);
                    self.1.len() - 1
                }
            };
            if let Some(place) = self.0.get_mut(index) {
                *place = Some(*unit);
            }
        }
        // What users see of them: that they are known anew is no change.
        let seen = |units: &Units| -> Vec<_> {
            let each = units.0.iter().zip(&units.1);
            each.map(|(unit, id)| (*id, unit.as_ref().map(Unit::info)))
                .collect()
        };
        seen(self) != seen(&before)
    }
}
