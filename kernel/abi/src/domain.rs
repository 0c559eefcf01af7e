//! Domains as crossings see them: who is alive, in which incarnation.
//!
//! One header a manifest entry, made at boot and never freed, so that a stale handle can always ask whether its target
//! still lives. Everything else about a domain is the kernel's alone.

use core::sync::atomic::{AtomicU64, Ordering};

/// CPUs that per-CPU counters have room for.
pub const CPU_LIMIT: usize = 64;

/// One incarnation of one domain: slot in the domain table and generation, in one word.
///
/// Owners of shared objects and targets of handles are named by it, so neither survives a restart by accident.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct OwnerId(pub u64);

impl OwnerId {
    /// Nobody: a free object, a dead domain's `live` word.
    pub const NONE: OwnerId = OwnerId(0);
    /// Held by another shared object (a batch), whose owner counts.
    pub const NESTED: OwnerId = OwnerId(u64::MAX);
    /// The kernel itself, which is always alive.
    pub const KERNEL: OwnerId = OwnerId::new(0, 1);

    /// The incarnation `generation` (from 1) of the domain in `slot`.
    pub const fn new(slot: u16, generation: u64) -> OwnerId {
        OwnerId(generation << 16 | slot as u64)
    }

    /// Whoever the next incarnation of the domain in `slot` will be: the owner of what was left to it and it has not taken yet. Never
    /// alive.
    pub const fn estate(slot: u16) -> OwnerId {
        OwnerId(slot as u64)
    }

    /// Index in the domain table; 0 is the kernel.
    pub const fn slot(self) -> u16 {
        self.0 as u16
    }

    /// Counts incarnations from 1.
    pub const fn generation(self) -> u64 {
        self.0 >> 16
    }
}

/// Counts on one CPU, on a cache line of its own.
#[repr(C, align(64))]
pub struct PerCpuCount(pub AtomicU64);

/// What every image may know of a domain.
#[repr(C, align(64))]
pub struct DomainHeader {
    /// The incarnation that lives now, or [`OwnerId::NONE`].
    pub live: AtomicU64,
    /// Slot in the domain table.
    pub slot: u16,
    /// Crossings into this domain, by CPU.
    pub crossings: [PerCpuCount; CPU_LIMIT],
}

impl DomainHeader {
    /// A header for `slot`, of a domain that isn't running.
    pub const fn new(slot: u16) -> DomainHeader {
        DomainHeader {
            live: AtomicU64::new(0),
            slot,
            crossings: [const { PerCpuCount(AtomicU64::new(0)) }; CPU_LIMIT],
        }
    }

    /// Whether exactly this incarnation is alive.
    #[inline(always)]
    pub fn is_live(&self, incarnation: OwnerId) -> bool {
        self.live.load(Ordering::Acquire) == incarnation.0
    }

    /// The incarnation alive now, if any.
    pub fn live(&self) -> Option<OwnerId> {
        match self.live.load(Ordering::Acquire) {
            0 => None,
            id => Some(OwnerId(id)),
        }
    }

    /// Crossings into this domain since boot, over all CPUs and generations.
    pub fn crossings(&self) -> u64 {
        self.crossings
            .iter()
            .map(|count| count.0.load(Ordering::Relaxed))
            .sum()
    }
}
