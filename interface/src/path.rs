//! The packet path above the device: what the classifier hands batches to.
//!
//! One thread per receive queue calls these, each with its own shard number, and runs every packet to completion. A processor
//! gives the packets that it got back in one batch, each marked with what is to be done: `Transmit`, or `Empty` (used up, free to
//! fill). It keeps none, so buffers don't leak when it dies between calls.

use crate::net::MacAddress;
use core::fmt;
use core::net::IpAddr;
use rref::{Exchange, PacketBatch, RpcError, Share, interface};

/// Why a processor has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum PathError {
    /// There is no shard of this number.
    NoShard {
        /// The one that was asked for.
        shard: u16,
    },
    /// No memory.
    OutOfMemory,
    /// The processor's domain died; the batch is gone.
    Dead(RpcError),
}

impl From<RpcError> for PathError {
    fn from(error: RpcError) -> Self {
        PathError::Dead(error)
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::NoShard { shard } => write!(f, "there is no shard {shard}"),
            PathError::OutOfMemory => f.write_str("out of memory"),
            PathError::Dead(error) => error.fmt(f),
        }
    }
}

/// What a processor made of a batch.
#[derive(Exchange)]
pub struct Processed {
    /// The packets of the call, marked `Transmit` or `Empty`; order of frames to send is kept.
    pub packets: PacketBatch,
    /// It has more to send: call again with empty packets.
    pub more: bool,
    /// Call again by this time (`clock::now_ns`), even if nothing arrives; `u64::MAX` for no need.
    pub wake_ns: u64,
}

/// Something that takes received packets and says what is to be sent.
#[interface]
pub trait PacketProcessor {
    /// Handles `packets` (marked `Received`, or `Empty` to be filled with frames to send) for `shard`. `runner` calls may be made at any time, with a batch that
    /// holds only empty packets too. Never blocks.
    #[deadline(ms = 100)]
    fn process(&self, shard: u16, packets: PacketBatch) -> Result<Processed, PathError>;

    /// Registers the calling thread as the runner of `shard`: it is unparked (`thread::unpark`) when the processor has something to
    /// send on its own (an application wrote to a socket) while the runner sleeps. The runner then calls `process`.
    fn attach(&self, shard: u16, runner: u64) -> Result<(), PathError>;
}

/// The neighbour cache, for who sends frames on its own.
#[interface]
pub trait Neighbours {
    /// The Ethernet address of an on-link neighbour, if known; asks for it (ARP, NDP) if not or if it is getting old.
    fn resolve(&self, address: IpAddr) -> Result<Option<MacAddress>, PathError>;

    /// The appliance's own Ethernet address.
    fn own_mac(&self) -> Result<MacAddress, PathError>;
}
