//! Storage devices, as everything above them sees them: NVMe, a RAM disk, a partition, a shadow of one of these.
//!
//! A device takes requests and gives them back carried out, as a network device trades packets: each request is a [`rref::Block`] with a page
//! of data of its own, and up to a batch of them crosses at once. Requests of one batch at consecutive addresses that are of one kind
//! may become one command. There is no order between requests that are under way at the same time, but for this: a flush makes durable what
//! was given back as done before it was handed over. Who needs an order waits.
//!
//! A call that comes back with [`BlockError::Dead`] has taken its requests along: whoever made it makes them again, after
//! [`BlockDevice::abandon`] to whoever is behind the handle then. A block shadow spares its callers this for the driver behind it.
//!
//! A device has *units*: namespaces of a controller, partitions of a disk. Each has its own logical block size; requests name the unit
//! and count in its blocks.

use core::fmt;
use rref::{BlockBatch, Exchange, RpcError, Share, Text, interface};

pub use crate::net::WaitResult;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct UnitInfo {
    /// Bytes in a logical block: a power of two from 512 to 4,096.
    pub block_bytes: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Writes can be lost by a power cut until they are flushed or forced.
    pub volatile_cache: bool,
    /// Forced writes are durable when they are done. Where they aren't, only a flush makes anything durable.
    pub forced_writes: bool,
    /// It takes no writes.
    pub read_only: bool,
    /// Deallocation does something.
    pub deallocate: bool,
    /// Logical blocks that a power cut leaves all old or all new when they are written by one command; at least 1.
    pub atomic_blocks: u32,
    /// Logical blocks that one command moves at most; longer runs become several.
    pub transfer_blocks: u32,
    /// What kind of content it is for: of a partition its type GUID in the byte order of GPT, otherwise zero.
    pub kind: [u8; 16],
    /// A name: of a partition the one in the table, of a namespace the controller's serial number and the namespace's number.
    pub name: Text<72>,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct BlockDeviceInfo {
    /// Units; a request's `unit` is less.
    pub units: u16,
    /// Queues; one thread at a time may call `exchange` and `wait` for each.
    pub queues: u16,
    /// Requests that a queue holds at most.
    pub queue_depth: u16,
    /// Counts up when units come, go or change: look at them again.
    pub changes: u32,
    /// What the maker calls it.
    pub model: Text<40>,
}

/// What went wrong with a call; what went wrong with a request is in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum BlockError {
    /// No such queue.
    NoQueue {
        /// The queue that was asked for.
        queue: u16,
        /// Queues that there are.
        queues: u16,
    },
    /// No such unit.
    NoUnit {
        /// The one that was asked for.
        unit: u16,
        /// Units that there are.
        units: u16,
    },
    /// There is no device, or it was removed.
    NoDevice,
    /// The device failed and can't be brought back; the driver's log says how.
    Failed,
    /// No memory.
    OutOfMemory,
    /// A domain behind this one died with what was under way in the queue. It is gone, carried out or not, and nothing of it happens any more: make the
    /// requests again.
    Lost,
    /// The domain behind the handle died; connect again.
    Dead(RpcError),
}

impl From<RpcError> for BlockError {
    fn from(error: RpcError) -> Self {
        BlockError::Dead(error)
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::NoQueue { queue, queues } => {
                write!(f, "there is no queue {queue}; the device has {queues}")
            }
            BlockError::NoUnit { unit, units } => {
                write!(f, "there is no unit {unit}; the device has {units}")
            }
            BlockError::NoDevice => f.write_str("there is no storage device"),
            BlockError::Failed => f.write_str("the storage device has failed"),
            BlockError::OutOfMemory => f.write_str("out of memory"),
            BlockError::Lost => f.write_str("what was under way is lost: a domain on its way died"),
            BlockError::Dead(error) => error.fmt(f),
        }
    }
}

/// Counters since the domain started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct BlockStatistics {
    /// Read requests done.
    pub reads: u64,
    /// Bytes that they moved.
    pub read_bytes: u64,
    /// Write requests done.
    pub writes: u64,
    /// Bytes that they moved.
    pub written_bytes: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Deallocations and writes of zeros done.
    pub discards: u64,
    /// Commands that they became.
    pub commands: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Commands that weren't answered in time.
    pub timeouts: u64,
    /// Commands aborted.
    pub aborts: u64,
    /// Resets of the controller.
    pub resets: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Restarts of the driver, as its shadow counts them; 0 from a driver itself.
    pub restarts: u64,
    /// Requests handed to a further driver because the one before died with them.
    pub replayed: u64,
}

/// A storage device with queues.
#[interface]
pub trait BlockDevice {
    /// What the device is.
    fn info(&self) -> Result<BlockDeviceInfo, BlockError>;

    /// What one of its units is.
    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError>;

    /// Takes the requests of `requests` and gives back those that are finished, at most one batch: done or failed ones in any order, and behind them, still
    /// marked as submitted, those of the call for which there is no room now. A full batch for which there is no room at all comes back as it is: fetch
    /// answers with an emptier one. Never blocks.
    ///
    /// An error but for a wrong queue's number means that all that was under way in the queue is gone, carried out or not.
    #[deadline(ms = 20)]
    fn exchange(&self, queue: u16, requests: BlockBatch) -> Result<BlockBatch, BlockError>;

    /// The same, and when that would give back nothing it waits until the queue has finished requests, or until `deadline_ns`: an exchange, a wait and a second
    /// exchange for the crossings of one. May give back nothing before that time; whoever still wants something makes the call again.
    #[deadline(none)]
    fn exchange_until(
        &self,
        queue: u16,
        requests: BlockBatch,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError>;

    /// Blocks until the queue has finished requests, or until `deadline_ns`.
    #[deadline(none)]
    fn wait(&self, queue: u16, deadline_ns: u64) -> Result<WaitResult, BlockError>;

    /// Forgets what the calling domain, or an earlier incarnation of it, has handed over and not taken back, on all queues. It is carried out before this
    /// returns or never, and isn't given back. So a new incarnation makes this call before it reads or writes anything: a write that its predecessor
    /// left under way could otherwise reach the medium after its own.
    #[deadline(ms = 60000)]
    fn abandon(&self) -> Result<(), BlockError>;

    /// Counters.
    fn statistics(&self) -> Result<BlockStatistics, BlockError>;
}
