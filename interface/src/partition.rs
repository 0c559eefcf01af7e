//! Disks and their partitions, as an operator and the domains above see them.
//!
//! Reading and writing goes through [`crate::block::BlockDevice`] of the same domain, of which each partition is a unit. A partition keeps its
//! unit's number as long as the domain lives; the number of one that was deleted is left empty. What a partition is for is told by its type
//! GUID, never by its place.

use core::fmt;
use rref::{Exchange, RpcError, Share, Text, interface};

use crate::block::BlockError;

/// Type GUID of the key-value store's partition, 1f6b083e-fd61-4752-afa6-5240914ac220, in the byte order of GPT.
pub const STORE_PARTITION: [u8; 16] = [
    0x3e, 0x08, 0x6b, 0x1f, 0x61, 0xfd, 0x52, 0x47, 0xaf, 0xa6, 0x52, 0x40, 0x91, 0x4a, 0xc2, 0x20,
];
/// Type GUID of a partition that measurements may overwrite, 33567c23-1e47-4038-b100-c1ef826a30df, in the byte order of GPT.
pub const SCRATCH_PARTITION: [u8; 16] = [
    0x23, 0x7c, 0x56, 0x33, 0x47, 0x1e, 0x38, 0x40, 0xb1, 0x00, 0xc1, 0xef, 0x82, 0x6a, 0x30, 0xdf,
];

/// What is at the place of a disk's partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum TableState {
    /// Nothing: the first and last blocks, where tables are, are zeros.
    Blank,
    /// A GPT, both copies of which are right.
    Whole,
    /// A GPT, one copy of which was damaged and has been written again from the other.
    Repaired,
    /// A GPT, one copy of which is damaged and can't be written.
    Degraded,
    /// Something else, which is left alone.
    Foreign,
    /// It can't be read.
    Unreadable,
}

impl fmt::Display for TableState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableState::Blank => "blank",
            TableState::Whole => "GPT",
            TableState::Repaired => "GPT, repaired",
            TableState::Degraded => "GPT, one copy damaged",
            TableState::Foreign => "no GPT",
            TableState::Unreadable => "unreadable",
        })
    }
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct DiskInfo {
    /// What the device's maker calls it.
    pub model: Text<40>,
    /// The unit's name: of a namespace the controller's serial number and its number.
    pub name: Text<72>,
    /// Bytes in a logical block.
    pub block_bytes: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// It takes no writes.
    pub read_only: bool,
    /// Its table.
    pub table: TableState,
    /// Its own GUID, in the byte order of GPT; zero without a table.
    pub guid: [u8; 16],
    /// Partitions.
    pub partitions: u16,
    /// Logical blocks in the largest stretch that is in no partition.
    pub free_blocks: u64,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct PartitionInfo {
    /// The disk that it is on.
    pub disk: u16,
    /// Its number in the disk's table, from 1.
    pub number: u16,
    /// Its unit as a [`crate::block::BlockDevice`].
    pub unit: u16,
    /// What it is for: type GUID, in the byte order of GPT.
    pub kind: [u8; 16],
    /// Its own GUID, in the byte order of GPT.
    pub guid: [u8; 16],
    /// First logical block of the disk.
    pub first: u64,
    /// Logical blocks.
    pub blocks: u64,
    /// Some domain has used it since this one started.
    pub in_use: bool,
    /// Its name.
    pub name: Text<72>,
}

/// What a new partition is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct NewPartition {
    /// Type GUID, in the byte order of GPT; not zero.
    pub kind: [u8; 16],
    /// Its name: 36 UTF-16 code units at most.
    pub name: Text<72>,
    /// Bytes, rounded up to whole mebibytes; 0 for all of the largest free stretch.
    pub bytes: u64,
}

/// Why it wasn't done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum DiskError {
    /// No such disk.
    NoDisk(u16),
    /// No such partition.
    NoPartition(u16),
    /// The disk has no table that this can read.
    NoTable(TableState),
    /// The disk isn't blank; nothing is created over what is there.
    NotBlank(TableState),
    /// A domain uses the partition.
    InUse,
    /// No stretch of free blocks is that long; bytes of the longest.
    NoSpace(u64),
    /// The table has no free entry, or the disk is too small for one.
    TableFull,
    /// The name is too long or the type is zero.
    Malformed,
    /// The disk takes no writes.
    ReadOnly,
    /// A read or write of the table failed.
    Failed,
    /// The device can't be reached.
    Device(BlockError),
    /// The domain behind the handle died; connect again.
    Dead(RpcError),
}

impl From<RpcError> for DiskError {
    fn from(error: RpcError) -> Self {
        DiskError::Dead(error)
    }
}

impl From<BlockError> for DiskError {
    fn from(error: BlockError) -> Self {
        DiskError::Device(error)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::NoDisk(disk) => write!(f, "there is no disk {disk}"),
            DiskError::NoPartition(number) => write!(f, "there is no partition {number}"),
            DiskError::NoTable(state) => write!(f, "the disk has no partition table ({state})"),
            DiskError::NotBlank(state) => write!(f, "the disk is not blank ({state})"),
            DiskError::InUse => f.write_str("the partition is in use"),
            DiskError::NoSpace(bytes) => write!(
                f,
                "there is no room for it: the longest free stretch has {} MiB",
                bytes >> 20
            ),
            DiskError::TableFull => f.write_str("the partition table has no room"),
            DiskError::Malformed => f.write_str("the name is too long, or there is no type"),
            DiskError::ReadOnly => f.write_str("the disk is read-only"),
            DiskError::Failed => f.write_str("the disk failed to read or write its partition table"),
            DiskError::Device(error) => error.fmt(f),
            DiskError::Dead(error) => error.fmt(f),
        }
    }
}

/// The disks and what is on them.
#[interface(deadline_ms = 30000)]
pub trait Disks {
    /// The `index`-th disk; `None` behind the last one.
    fn disk(&self, index: u16) -> Result<Option<DiskInfo>, DiskError>;

    /// The `index`-th partition of a disk, by its place in the table; `None` behind the last one.
    fn partition(&self, disk: u16, index: u16) -> Result<Option<PartitionInfo>, DiskError>;

    /// Writes an empty partition table to a blank disk.
    fn create_table(&self, disk: u16) -> Result<(), DiskError>;

    /// Adds a partition where there is most room.
    fn create_partition(&self, disk: u16, partition: NewPartition) -> Result<PartitionInfo, DiskError>;

    /// Takes a partition that nobody uses out of the table. Its content stays on the disk.
    fn delete_partition(&self, disk: u16, number: u16) -> Result<(), DiskError>;
}
