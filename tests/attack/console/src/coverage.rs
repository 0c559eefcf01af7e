//! Which crossings of a workload are still to be tried.

use alloc::vec;
use alloc::vec::Vec;

/// Crossings of one kind, counted from 1, of which some are to be tried.
#[derive(Default)]
pub struct Coverage {
    /// Index of the kind of crossing, or any.
    kind: Option<u16>,
    /// Whether crossing `index + 1` is still to be tried.
    untried: Vec<bool>,
}

impl Coverage {
    /// The `first` crossing, every `stride` from it, and none after the `last`.
    pub fn new(kind: Option<u16>, first: u64, stride: u64, last: u64) -> Coverage {
        let (first, last) = (
            to_index(first.max(1)),
            usize::try_from(last).unwrap_or(usize::MAX),
        );
        let mut untried = vec![false; last];
        let teeth = untried.iter_mut().skip(first);
        for tooth in teeth.step_by(usize::try_from(stride.max(1)).unwrap_or(usize::MAX)) {
            *tooth = true;
        }
        Coverage { kind, untried }
    }

    /// Index of the kind of crossing; `None` for any.
    pub fn kind(&self) -> Option<u16> {
        self.kind
    }

    /// The first after `crossing` that is still to be tried.
    pub fn next(&self, crossing: u64) -> Option<u64> {
        let passed = usize::try_from(crossing).ok()?;
        (crossing + 1..)
            .zip(self.untried.iter().skip(passed))
            .find_map(|(crossing, untried)| untried.then_some(crossing))
    }

    /// Notes that a crossing was tried; whether it was still to be.
    pub fn tried(&mut self, crossing: u64) -> bool {
        self.untried
            .get_mut(to_index(crossing))
            .is_some_and(core::mem::take)
    }

    /// How many are still to be tried.
    pub fn left(&self) -> u64 {
        self.untried.iter().map(|untried| u64::from(*untried)).sum()
    }
}

/// Crossings are counted from 1. None is the 0-th.
fn to_index(crossing: u64) -> usize {
    crossing
        .checked_sub(1)
        .and_then(|index| usize::try_from(index).ok())
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tooth_is_tried_once() {
        let mut coverage = Coverage::new(Some(3), 2, 4, 12);
        assert_eq!(coverage.left(), 3);
        assert_eq!(coverage.next(0), Some(2));
        assert_eq!(coverage.next(2), Some(6));
        assert!(coverage.tried(6));
        assert!(!coverage.tried(6), "it was tried before");
        assert!(!coverage.tried(7), "nobody wanted it");
        assert!(!coverage.tried(13), "it is after the last");
        assert!(!coverage.tried(0));
        assert_eq!(coverage.next(2), Some(10));
        assert_eq!(coverage.next(10), None);
        assert_eq!(coverage.left(), 2);
    }

    #[test]
    fn a_stride_of_one_is_all() {
        let mut coverage = Coverage::new(None, 1, 1, 5);
        let mut seen = Vec::new();
        let mut at = 0;
        while let Some(next) = coverage.next(at) {
            assert!(coverage.tried(next));
            seen.push(next);
            at = next;
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!(coverage.left(), 0);
    }
}
