//! Shared-heap objects in memory: a header, then the payload.
//!
//! The header is all that the kernel needs to give an object back when its owner dies: its size class and whether it
//! holds other objects. It never points into a domain (docs/soundness.md, invariant 3).

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Shared objects that one batch holds at most.
pub const BATCH_CAPACITY: usize = 32;

/// Bytes between the start of a header and the payload; also the payload's alignment.
pub const HEADER_BYTES: usize = 64;

/// What the payload is, for reclaiming it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ObjectKind {
    /// Bytes that hold no other object.
    Plain = 0,
    /// A [`BatchBody`].
    Batch = 1,
    /// A packet (`rref::Packet`): valid as one from before its owner sees it until it is freed.
    Packet = 2,
    /// A storage request with its data (`rref::Block`): any bytes are one.
    Block = 3,
}

/// Stands [`HEADER_BYTES`] before the payload of each shared object.
#[repr(C, align(64))]
pub struct ObjectHeader {
    /// The [`crate::OwnerId`] that holds the object; `NONE` while it is free, `NESTED` inside a batch.
    pub owner: AtomicU64,
    /// Physical address of the payload; objects are physically contiguous.
    pub physical: u64,
    /// Bytes usable in the payload.
    pub size: u64,
    /// An [`ObjectKind`].
    pub kind: AtomicU32,
    /// Number of the span that the object was cut from.
    pub span: u32,
    /// Link in the span's free list while the object is free.
    pub next_free: AtomicU64,
    /// Bytes that were asked for.
    pub length: AtomicU64,
    /// The name by which the owner's heir finds a plain object; 0 for one that dies with its owner.
    pub tag: AtomicU64,
    /// A packet's [`crate::TransmitPlace`]; means something only while a driver has the packet marked for transmission.
    pub place: AtomicU64,
}

const _: () = assert!(size_of::<ObjectHeader>() == HEADER_BYTES);

/// A bounded queue of shared objects, itself a shared object: the payload of kind [`ObjectKind::Batch`].
///
/// `slots[(head + i) % BATCH_CAPACITY]` for `i < length` point to payloads. Words are atomics because the kernel reads
/// them after a death at any instruction; the order of stores is what makes that sound (`rref::batch`).
#[repr(C)]
pub struct BatchBody {
    /// Index of the first filled slot.
    pub head: AtomicU32,
    /// Filled slots.
    pub length: AtomicU32,
    /// Payload addresses.
    pub slots: [AtomicU64; BATCH_CAPACITY],
}
