//! What the boot loader said about memory, and what of it is left for the frame allocator.
//!
//! Pure interval arithmetic on physical addresses; the parsers of the boot protocols (`machine::boot`) fill
//! it.

use super::PAGE_SIZE;

/// What a range of physical addresses is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// RAM that is ours.
    Usable,
    /// RAM or registers that firmware keeps: ACPI tables, reserved ranges.
    Reserved,
}

/// A range of physical addresses, end exclusive, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it is for.
    pub kind: RegionKind,
}

const CAPACITY: usize = 128;

/// The memory map: at most 128 regions, which is what firmware's own interfaces can report.
#[derive(Clone)]
pub struct MemoryMap {
    regions: [Region; CAPACITY],
    length: usize,
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryMap {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            regions: [Region {
                start: 0,
                end: 0,
                kind: RegionKind::Reserved,
            }; CAPACITY],
            length: 0,
        }
    }

    /// Adds a region; empty ones and those beyond the capacity are left out (less RAM is used, nothing
    /// breaks).
    pub fn add(&mut self, start: u64, length: u64, kind: RegionKind) {
        let end = start.saturating_add(length);
        if start < end && self.length < CAPACITY {
            self.regions[self.length] = Region { start, end, kind };
            self.length += 1;
        }
    }

    /// All regions, in the order in which they were added.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.length]
    }

    /// One past the last usable byte.
    pub fn usable_end(&self) -> u64 {
        self.usable().map(|region| region.end).max().unwrap_or(0)
    }

    fn usable(&self) -> impl Iterator<Item = Region> + '_ {
        self.regions()
            .iter()
            .copied()
            .filter(|region| region.kind == RegionKind::Usable)
    }

    /// Calls `f` with each run of whole frames (first, count) that is usable and overlaps neither a reserved
    /// region nor any of `taken` (start, end in bytes).
    pub fn free_runs(&self, taken: &[(u64, u64)], mut f: impl FnMut(usize, usize)) {
        let page = PAGE_SIZE as u64;
        for region in self.usable() {
            let mut start = region.start.next_multiple_of(page);
            let end = region.end / page * page;
            while start < end {
                // The obstacle that covers `start`, or else the nearest one after it.
                let obstacles = || {
                    let reserved = self
                        .regions()
                        .iter()
                        .filter(|other| other.kind == RegionKind::Reserved);
                    let earlier = self
                        .usable()
                        .filter(|other| (other.start, other.end) < (region.start, region.end))
                        .map(|other| (other.start, other.end));
                    reserved
                        .map(|other| (other.start, other.end))
                        .chain(taken.iter().copied())
                        .chain(earlier)
                };
                if let Some((_, over)) = obstacles().find(|&(low, high)| low < start + page && start < high) {
                    start = over.next_multiple_of(page).max(start + page);
                    continue;
                }
                let stop = obstacles()
                    .map(|(low, _)| low / page * page)
                    .filter(|&low| low > start)
                    .min();
                let stop = stop.unwrap_or(end).min(end);
                f((start / page) as usize, ((stop - start) / page) as usize);
                start = stop;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, vec::Vec};

    fn frames(map: &MemoryMap, taken: &[(u64, u64)]) -> Vec<usize> {
        let mut all = Vec::new();
        map.free_runs(taken, |first, count| all.extend(first..first + count));
        all
    }

    #[test]
    fn partial_pages_and_taken_ranges_are_left_out() {
        let mut map = MemoryMap::new();
        map.add(0x800, 0x5000, RegionKind::Usable);
        map.add(0x3000, 0x10, RegionKind::Reserved);
        assert_eq!(frames(&map, &[(0x1fff, 0x2001)]), [4]);
    }

    proptest! {
        /// Frame by frame: free exactly when wholly usable and touched by nothing else, and never reported
        /// twice.
        #[test]
        fn agrees_with_a_frame_by_frame_definition(
            regions in proptest::collection::vec((0u64..200_000, 1u64..40_000, any::<bool>()), 0..12),
            taken in proptest::collection::vec((0u64..200_000, 1u64..20_000), 0..4),
        ) {
            let mut map = MemoryMap::new();
            for &(start, length, usable) in &regions {
                map.add(start, length, if usable { RegionKind::Usable } else { RegionKind::Reserved });
            }
            let taken: Vec<_> = taken.into_iter().map(|(start, length)| (start, start + length)).collect();
            let found = frames(&map, &taken);
            let set: BTreeSet<_> = found.iter().copied().collect();
            prop_assert_eq!(set.len(), found.len());
            for frame in 0..64usize {
                let (low, high) = (frame as u64 * 4096, frame as u64 * 4096 + 4096);
                let inside = map.usable().any(|region| region.start <= low && high <= region.end);
                let blocked = map
                    .regions()
                    .iter()
                    .filter(|region| region.kind == RegionKind::Reserved)
                    .map(|region| (region.start, region.end))
                    .chain(taken.iter().copied())
                    .any(|(start, end)| start < high && low < end);
                if set.contains(&frame) {
                    prop_assert!(inside && !blocked);
                } else {
                    let straddles = map.usable().filter(|region| region.start < high && low < region.end).count() > 1;
                    prop_assert!(!inside || blocked || straddles);
                }
            }
        }
    }
}
