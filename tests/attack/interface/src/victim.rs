//! A domain that faults as it is told, in the position that it is told.
//!
//! Victims form a chain: each may have a `next` one to call, and all have a bystander, which nothing may happen to.

use attack::Fault;
use core::fmt;
use rref::{Exchange, OwnerId, PacketBatch, RRef, RpcError, Share, interface};

/// How a thread passes its time in a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum Dwell {
    /// Computing.
    Spin,
    /// Asleep.
    Sleep,
    /// Waiting for a lock of the victim's that another of its threads holds.
    Lock,
    /// In a queue of the kernel's: for a provider to come up.
    Wait,
    /// In a crossing into the bystander, where it sleeps.
    Crossing,
}

/// Work that the kernel does for a domain, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum Work {
    /// Private memory, in pieces that the heap asks the kernel for.
    Private,
    /// Shared objects and batches of them.
    Shared,
    /// Threads that end at once.
    Threads,
    /// Handles, connected and given back.
    Handles,
    /// Crossings into the bystander, with objects.
    Crossings,
}

/// What a call through a chain of victims has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Seen {
    /// The incarnation that was dead, or died, when it was called; the innermost such.
    pub died: Option<OwnerId>,
    /// The wait in the innermost victim was called off.
    pub cancelled: bool,
}

/// What is moved into a victim and back.
#[derive(Exchange)]
pub struct Goods {
    /// One object.
    pub object: RRef<[u64; 64]>,
    /// A batch of packets.
    pub batch: PacketBatch,
}

/// Why a victim has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum VictimError {
    /// Its manifest entry gives it no next victim.
    NoNext,
    /// No memory, or no thread.
    OutOfMemory,
    /// It is dead, or died in the call.
    Dead(RpcError),
}

impl From<RpcError> for VictimError {
    fn from(error: RpcError) -> Self {
        VictimError::Dead(error)
    }
}

impl fmt::Display for VictimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VictimError::NoNext => f.write_str("there is no next victim"),
            VictimError::OutOfMemory => f.write_str("out of memory"),
            VictimError::Dead(error) => error.fmt(f),
        }
    }
}

/// A domain that can be told to fault.
#[interface]
pub trait Victim {
    /// Does nothing.
    fn ping(&self) -> Result<(), VictimError>;

    /// Raises `fault` in this call, `hops` victims further on.
    fn fault(&self, fault: Fault, hops: u8) -> Result<Seen, VictimError>;

    /// Starts a thread on `cpu` that raises `fault` after `delay_us`.
    fn fault_later(&self, fault: Fault, cpu: u16, delay_us: u32) -> Result<(), VictimError>;

    /// Stays inside for `time_us`, `hops` victims further on, on the caller's thread.
    fn dwell(&self, way: Dwell, hops: u8, time_us: u32) -> Result<Seen, VictimError>;

    /// Starts `threads` threads on `cpu` that stay for ever.
    fn crowd(&self, way: Dwell, threads: u16, cpu: u16) -> Result<(), VictimError>;

    /// Starts a thread on `cpu` that makes the kernel work for ever.
    fn labour(&self, work: Work, cpu: u16) -> Result<(), VictimError>;

    /// Takes `goods`, adds objects of its own that it holds meanwhile, and passes them on `hops` times. The last victim raises `fault`, or
    /// computes for `time_us` when there is none, and gives the goods back.
    fn hold(
        &self,
        goods: Goods,
        lent: &RRef<[u64; 64]>,
        fault: Option<Fault>,
        hops: u8,
        time_us: u32,
    ) -> Result<Goods, VictimError>;
}
