//! Address ranges handed out and taken back: first fit over a sorted list of what is free, neighbours merge.
//!
//! Used for virtual areas (domain images, stacks); counts in whatever unit the caller picks, here pages.

use alloc::collections::BTreeMap;

/// The free parts of one range of addresses.
pub struct AreaAllocator {
    /// Start to length; no two entries touch.
    free: BTreeMap<usize, usize>,
}

impl AreaAllocator {
    /// All of `start .. start + length` is free.
    pub fn new(start: usize, length: usize) -> Self {
        Self {
            free: BTreeMap::from([(start, length)]),
        }
    }

    /// Takes the lowest free run of this length, if there is one.
    pub fn allocate(&mut self, length: usize) -> Option<usize> {
        let (start, available) = self
            .free
            .iter()
            .map(|(&s, &l)| (s, l))
            .find(|&(_, l)| l >= length)?;
        self.free.remove(&start);
        if available > length {
            self.free.insert(start + length, available - length);
        }
        Some(start)
    }

    /// Gives a run back. It must have come from [`allocate`](Self::allocate) with the same length.
    pub fn release(&mut self, start: usize, length: usize) {
        let (mut start, mut length) = (start, length);
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            (start, length) = (before, size + length);
        }
        if let Some(size) = self.free.remove(&(start + length)) {
            length += size;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        /// Runs never overlap, and when all are back there is one free run again.
        #[test]
        fn runs_are_disjoint_and_merge_again(lengths in proptest::collection::vec((1usize..9, any::<bool>()), 1..60)) {
            let mut areas = AreaAllocator::new(100, 400);
            let mut runs: Vec<(usize, usize)> = Vec::new();
            for (length, release) in lengths {
                if release && !runs.is_empty() {
                    let (start, length) = runs.swap_remove(length % runs.len());
                    areas.release(start, length);
                } else if let Some(start) = areas.allocate(length) {
                    prop_assert!(start >= 100 && start + length <= 500);
                    prop_assert!(runs.iter().all(|&(s, l)| s + l <= start || start + length <= s));
                    runs.push((start, length));
                }
            }
            for (start, length) in runs {
                areas.release(start, length);
            }
            prop_assert_eq!(areas.allocate(400), Some(100));
        }
    }
}
