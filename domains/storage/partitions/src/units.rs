//! The units: where each partition lies, for the way of requests, which looks here without a lock.
//!
//! A unit's number is given once. What it is becomes visible by one store, of its length, after the rest; when the partition goes the length
//! becomes zero, and nothing else changes.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rref::OwnerId;

/// Units at most, those of deleted partitions counted, in one life of this domain.
pub const UNIT_LIMIT: usize = 256;
/// Blocks of a disk that can be numbered: what a stamp has room for.
pub const FIRST_LIMIT: u64 = 1 << 48;

/// Where a partition lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The disk, as a unit of the device below.
    pub disk: u16,
    /// First block.
    pub first: u64,
    /// Blocks.
    pub blocks: u64,
}

/// All units.
pub struct Units {
    count: AtomicU32,
    units: [Unit; UNIT_LIMIT],
}

struct Unit {
    disk: AtomicU32,
    first: AtomicU64,
    blocks: AtomicU64,
    /// The incarnation that made the last request.
    user: AtomicU64,
}

impl Units {
    /// No units.
    pub const fn new() -> Units {
        Units {
            count: AtomicU32::new(0),
            units: [const {
                Unit {
                    disk: AtomicU32::new(0),
                    first: AtomicU64::new(0),
                    blocks: AtomicU64::new(0),
                    user: AtomicU64::new(0),
                }
            }; UNIT_LIMIT],
        }
    }

    /// Numbers that were given.
    pub fn count(&self) -> u16 {
        self.count.load(Ordering::Acquire) as u16
    }

    /// A new unit; `None` when there are no numbers left or it lies too far out. Called by one thread at a time.
    pub fn add(&self, extent: Extent) -> Option<u16> {
        let number = self.count();
        let unit = self.units.get(usize::from(number))?;
        if extent.first >= FIRST_LIMIT {
            return None;
        }
        unit.disk.store(u32::from(extent.disk), Ordering::Relaxed);
        unit.first.store(extent.first, Ordering::Relaxed);
        unit.blocks.store(extent.blocks, Ordering::Release);
        self.count.store(u32::from(number) + 1, Ordering::Release);
        Some(number)
    }

    /// The partition is gone: requests for it fail.
    pub fn remove(&self, number: u16) {
        if let Some(unit) = self.units.get(usize::from(number)) {
            unit.blocks.store(0, Ordering::Release);
        }
    }

    /// Where a unit lies; `None` if there is none of that number, any more.
    #[inline]
    pub fn extent(&self, number: u16) -> Option<Extent> {
        let unit = self.units.get(usize::from(number))?;
        let blocks = unit.blocks.load(Ordering::Acquire);
        (blocks != 0).then(|| Extent {
            disk: unit.disk.load(Ordering::Relaxed) as u16,
            first: unit.first.load(Ordering::Relaxed),
            blocks,
        })
    }

    /// Notes who makes requests.
    #[inline]
    pub fn set_user(&self, number: u16, user: OwnerId) {
        if let Some(unit) = self.units.get(usize::from(number))
            && unit.user.load(Ordering::Relaxed) != user.0
        {
            unit.user.store(user.0, Ordering::Relaxed);
        }
    }

    /// Who made the last request.
    pub fn user(&self, number: u16) -> OwnerId {
        let unit = self.units.get(usize::from(number));
        unit.map_or(OwnerId::NONE, |unit| OwnerId(unit.user.load(Ordering::Relaxed)))
    }
}
