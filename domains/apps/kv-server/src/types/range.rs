//! Ranges of scores (`(1`, `-inf`), of members (`[a`, `(b`, `-`, `+`) and of indexes (`-1` is the last), as commands write them.

use crate::number;

/// One end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ScoreBound {
    score: f64,
    exclusive: bool,
}

impl ScoreBound {
    fn parse(text: &[u8]) -> Option<ScoreBound> {
        let (score, exclusive) = match text {
            [b'(', score @ ..] => (score, true),
            score => (score, false),
        };
        Some(ScoreBound {
            score: number::float(score)?,
            exclusive,
        })
    }
}

/// A range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    low: ScoreBound,
    high: ScoreBound,
}

impl ScoreRange {
    /// Reads both ends.
    pub fn parse(low: &[u8], high: &[u8]) -> Option<ScoreRange> {
        Some(ScoreRange {
            low: ScoreBound::parse(low)?,
            high: ScoreBound::parse(high)?,
        })
    }

    /// Whether `score` is before the range.
    pub fn is_below(&self, score: f64) -> bool {
        score < self.low.score || (self.low.exclusive && score == self.low.score)
    }

    /// Whether `score` is behind the range.
    pub fn is_above(&self, score: f64) -> bool {
        score > self.high.score || (self.high.exclusive && score == self.high.score)
    }
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LexBound<'a> {
    Least,
    Greatest,
    Inclusive(&'a [u8]),
    Exclusive(&'a [u8]),
}

impl<'a> LexBound<'a> {
    fn parse(text: &'a [u8]) -> Option<LexBound<'a>> {
        Some(match text {
            b"-" => LexBound::Least,
            b"+" => LexBound::Greatest,
            [b'[', member @ ..] => LexBound::Inclusive(member),
            [b'(', member @ ..] => LexBound::Exclusive(member),
            _ => return None,
        })
    }
}

/// A range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexRange<'a> {
    low: LexBound<'a>,
    high: LexBound<'a>,
}

impl<'a> LexRange<'a> {
    /// Reads both ends.
    pub fn parse(low: &'a [u8], high: &'a [u8]) -> Option<LexRange<'a>> {
        Some(LexRange {
            low: LexBound::parse(low)?,
            high: LexBound::parse(high)?,
        })
    }

    /// Whether `member` is before the range.
    pub fn is_below(&self, member: &[u8]) -> bool {
        match self.low {
            LexBound::Least => false,
            LexBound::Greatest => true,
            LexBound::Inclusive(low) => member < low,
            LexBound::Exclusive(low) => member <= low,
        }
    }

    /// Whether `member` is behind the range.
    pub fn is_above(&self, member: &[u8]) -> bool {
        match self.high {
            LexBound::Least => true,
            LexBound::Greatest => false,
            LexBound::Inclusive(high) => member > high,
            LexBound::Exclusive(high) => member >= high,
        }
    }
}

/// The indexes that `first` and `last` mean in a sequence of `length`, negative ones counted from its end: the first, and the one behind the last.
/// An empty range has both the same.
pub fn indexes(first: i64, last: i64, length: usize) -> (usize, usize) {
    let length = length as i64;
    let from_start = |index: i64| {
        if index < 0 {
            index.saturating_add(length)
        } else {
            index
        }
    };
    let first = from_start(first).max(0);
    let end = from_start(last).saturating_add(1).min(length);
    if first >= end {
        return (0, 0);
    }
    (first as usize, end as usize)
}

/// The index that `index` means in a sequence of `length`, if it is in it.
pub fn index(index: i64, length: usize) -> Option<usize> {
    let at = if index < 0 {
        index.checked_add(length as i64)?
    } else {
        index
    };
    usize::try_from(at).ok().filter(|&at| at < length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_are_read() {
        let range = ScoreRange::parse(b"(1", b"+inf").unwrap();
        assert!(range.is_below(1.0) && !range.is_below(1.1) && !range.is_above(f64::INFINITY));
        assert_eq!(ScoreRange::parse(b"(", b"1"), None);
        assert_eq!(ScoreRange::parse(b"str", b"1"), None);
        let range = LexRange::parse(b"[a", b"(c").unwrap();
        assert!(!range.is_below(b"a") && !range.is_above(b"bzz") && range.is_above(b"c"));
        assert_eq!(LexRange::parse(b"a", b"+"), None);
        assert!(LexRange::parse(b"+", b"-").unwrap().is_below(b"x"));
    }

    proptest! {
        #[test]
        fn indexes_are_those_of_the_definition(first: i64, last: i64, near_first in -12_i64..12, near_last in -12_i64..12, length in 0_usize..10) {
            for (first, last) in [(first, last), (near_first, near_last), (first, near_last), (near_first, last)] {
                let (start, end) = indexes(first, last, length);
                prop_assert!(start <= end && end <= length);
                for at in 0..length {
                    let wanted = |bound: i64| i128::from(bound) + if bound < 0 { length as i128 } else { 0 };
                    prop_assert_eq!((start..end).contains(&at), (wanted(first)..=wanted(last)).contains(&(at as i128)));
                }
                prop_assert_eq!(index(near_first, length).is_some(), near_first < length as i64 && near_first >= -(length as i64));
            }
        }
    }
}
