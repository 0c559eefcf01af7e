//! Blocks: page-sized buffers on the shared heap, each with the request that a storage device is to carry out with it.
//!
//! A block is one request and its data. Requests of more than a page are runs of blocks in a batch at consecutive addresses, which a driver may
//! carry out by one command. The data is aligned to a page, so that a device can be told of any run of them by a list of pages (NVM Express
//! base specification, "Physical Region Page Entry and List").
//!
//! A block says by itself what is to be done with it, because it outlives its driver: the driver's heir finds those that it held and
//! gives them to the next one. So every field is a plain number of which any value is sound, and is looked at through a method that
//! checks it.

use crate::batch::Batch;
use crate::exchange::{Exchange, Share};
use crate::reference::{OutOfMemory, RRef};
use abi::object::HEADER_BYTES;
use abi::{ObjectKind, sys};
use core::fmt;
use core::ptr::NonNull;

/// Bytes of data in one block.
pub const BLOCK_BYTES: usize = 4096;

/// What a device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Fill the data from the device.
    Read = 0,
    /// Write the data to the device.
    Write = 1,
    /// Make every write that was completed before durable.
    Flush = 2,
    /// Make the range read as zeros, without data.
    WriteZeroes = 3,
    /// The range's content is of no use any more.
    Deallocate = 4,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Progress {
    /// To be carried out; in an answer: the device had no room, hand it over again.
    Submitted = 0,
    /// Carried out.
    Done = 1,
    /// It failed: [`Block::fault`] says how.
    Failed = 2,
}

/// Why a device didn't carry out a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// The range is not on the device, the length isn't a whole number of its blocks, or no data was to be moved.
    OutOfRange = 1,
    /// The device can't do this.
    Unsupported = 2,
    /// The medium doesn't give the data back (unrecovered read error, end-to-end check).
    Unreadable = 3,
    /// The medium doesn't take the data (write fault).
    WriteFault = 4,
    /// No space: a thinly provisioned device is full.
    NoSpace = 5,
    /// It is protected against writing.
    ReadOnly = 6,
    /// It wasn't answered in time, not even after a reset.
    TimedOut = 7,
    /// The device is gone or given up.
    Gone = 8,
    /// It failed inside, transfer of data included.
    Internal = 9,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Flush => "flush",
            Operation::WriteZeroes => "write of zeros",
            Operation::Deallocate => "deallocation",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::OutOfRange => "it is not on the device",
            Fault::Unsupported => "the device can't do this",
            Fault::Unreadable => "the medium doesn't give the data back",
            Fault::WriteFault => "the medium doesn't take the data",
            Fault::NoSpace => "no space is left",
            Fault::ReadOnly => "it is protected against writing",
            Fault::TimedOut => "it wasn't answered in time",
            Fault::Gone => "the device is gone",
            Fault::Internal => "the device failed inside",
        })
    }
}

/// A storage request with a page of data.
#[repr(C, align(64))]
pub struct Block {
    operation: u8,
    progress: u8,
    fault: u8,
    force_unit_access: u8,
    /// The device's own status, for logs: of NVMe the status field of the completion.
    pub device_status: u16,
    /// The device's part: a namespace or partition by its index.
    pub unit: u16,
    /// First logical block.
    pub address: u64,
    /// Logical blocks; of reads and writes at most a page of them.
    pub count: u32,
    unused: u32,
    /// The owner's name for the request; devices leave it alone.
    pub cookie: u64,
    /// For the domains between the owner and the driver: the first two words are the block shadow's, the others the partitions'. Drivers leave them
    /// alone, so that what they held can be told apart when they have died.
    pub shadow: [u64; 4],
    head: [u8; HEAD_BYTES],
    data: [u8; BLOCK_BYTES],
}

/// Between the fields and the data, so that the data begins a page behind the object's header, which begins one.
const HEAD_BYTES: usize = BLOCK_BYTES - HEADER_BYTES - 64;

const _: () = assert!(
    core::mem::offset_of!(Block, data) == BLOCK_BYTES - HEADER_BYTES
        && size_of::<Block>() == 2 * BLOCK_BYTES - HEADER_BYTES
);

// SAFETY: Plain data.
unsafe impl Exchange for Block {}
// SAFETY: Plain data.
unsafe impl Share for Block {}

/// Requests that cross together.
pub type BlockBatch = Batch<Block>;

/// A block's bytes, of which any are a value.
#[repr(C, align(64))]
struct BlockBytes([u8; size_of::<Block>()]);

// SAFETY: Plain data.
unsafe impl Exchange for BlockBytes {}
// SAFETY: Plain data.
unsafe impl Share for BlockBytes {}

impl Block {
    /// Distance of the data from the block's first byte, for devices.
    pub const DATA_OFFSET: usize = core::mem::offset_of!(Block, data);

    /// A read of nothing; its data bytes are what they last were.
    pub fn allocate() -> Result<RRef<Block>, OutOfMemory> {
        let bytes: RRef<BlockBytes> = RRef::allocate_as(ObjectKind::Block)?;
        // SAFETY: Same size and alignment, and every field is an integer, of which any bytes are a value.
        let mut block = unsafe { RRef::from_payload(bytes.into_payload().cast::<Block>()) };
        block.reset();
        Ok(block)
    }

    /// The next request that a dead driver held and that was left to this domain, in no particular order.
    pub fn inherit() -> Option<RRef<Block>> {
        let payload = (sys().shared_inherit)(ObjectKind::Block as u32, 0);
        let payload = NonNull::new(payload.cast::<Block>())?;
        // SAFETY: The kind says that it is a block: `allocate` alone makes objects of it, and any bytes are one. The kernel gives each
        // away once, when nobody has a handle to it any more.
        Some(unsafe { RRef::from_payload(payload) })
    }

    /// Makes it a read of nothing again.
    #[inline]
    pub fn reset(&mut self) {
        self.operation = Operation::Read as u8;
        self.progress = Progress::Submitted as u8;
        self.fault = 0;
        self.force_unit_access = 0;
        self.device_status = 0;
        self.unit = 0;
        self.address = 0;
        self.count = 0;
        self.cookie = 0;
        self.shadow = [0; 4];
    }

    /// Makes it a request that is to be carried out.
    #[inline]
    pub fn request(&mut self, operation: Operation, address: u64, count: u32) {
        self.operation = operation as u8;
        self.address = address;
        self.count = count;
        self.force_unit_access = 0;
        self.submit();
    }

    /// Asks that a write is durable when it is done, without a flush.
    #[inline]
    pub fn set_force_unit_access(&mut self, force: bool) {
        self.force_unit_access = u8::from(force);
    }

    /// Whether a write is to be durable when it is done.
    #[inline]
    pub fn force_unit_access(&self) -> bool {
        self.force_unit_access != 0
    }

    /// What is to be done; `None` after a death in the middle of a change, or for a number that nobody should have written.
    #[inline]
    pub fn operation(&self) -> Option<Operation> {
        Some(match self.operation {
            0 => Operation::Read,
            1 => Operation::Write,
            2 => Operation::Flush,
            3 => Operation::WriteZeroes,
            4 => Operation::Deallocate,
            _ => return None,
        })
    }

    /// How far it has come.
    #[inline]
    pub fn progress(&self) -> Progress {
        match self.progress {
            0 => Progress::Submitted,
            1 => Progress::Done,
            _ => Progress::Failed,
        }
    }

    /// Why it failed; `None` unless it did.
    pub fn fault(&self) -> Option<Fault> {
        if self.progress() != Progress::Failed {
            return None;
        }
        Some(match self.fault {
            1 => Fault::OutOfRange,
            2 => Fault::Unsupported,
            3 => Fault::Unreadable,
            4 => Fault::WriteFault,
            5 => Fault::NoSpace,
            6 => Fault::ReadOnly,
            7 => Fault::TimedOut,
            8 => Fault::Gone,
            _ => Fault::Internal,
        })
    }

    /// It is to be carried out, again or for the first time.
    #[inline]
    pub fn submit(&mut self) {
        self.fault = 0;
        self.device_status = 0;
        self.progress = Progress::Submitted as u8;
    }

    /// It was carried out.
    #[inline]
    pub fn complete(&mut self) {
        self.progress = Progress::Done as u8;
    }

    /// It failed.
    pub fn fail(&mut self, fault: Fault, device_status: u16) {
        self.fault = fault as u8;
        self.device_status = device_status;
        self.progress = Progress::Failed as u8;
    }

    /// The data.
    #[inline]
    pub fn data(&self) -> &[u8; BLOCK_BYTES] {
        &self.data
    }

    /// The data, to be changed.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8; BLOCK_BYTES] {
        &mut self.data
    }
}
