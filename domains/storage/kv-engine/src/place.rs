//! Where a record is: what a slot of the index holds beside the hash, in one word.

/// Bits of a key's hash that are kept with the place.
pub const CHECK_BITS: u32 = 10;
/// Records begin at multiples of this, in bytes.
pub const ALIGNMENT: usize = 8;

const OFFSET_BITS: u32 = 40;
const LENGTH_BITS: u32 = 12;
const CLASS_SHIFT: u32 = OFFSET_BITS + LENGTH_BITS;
const CHECK_SHIFT: u32 = CLASS_SHIFT + 2;

/// Bytes of a partition that places reach.
pub const REACH_BYTES: u64 = (ALIGNMENT as u64) << OFFSET_BITS;
/// Bytes of a record at most.
pub const RECORD_LIMIT_BYTES: usize = ALIGNMENT << LENGTH_BITS;

const _: () = assert!(CHECK_SHIFT + CHECK_BITS == 64);

/// What a place's record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A key with its value.
    Value,
    /// A key, and where its long value's pieces are.
    Long,
    /// A piece of a long value.
    Piece,
}

/// A record's offset in the partition, its length, what it holds and [`CHECK_BITS`] bits of its key's hash. Never 0: no record is at
/// offset 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// The place of a record at `offset` with `bytes`, both multiples of [`ALIGNMENT`] and within the limits above.
    pub fn new(offset: u64, bytes: usize, class: Class, check: u16) -> Place {
        let class = match class {
            Class::Value => 0,
            Class::Long => 1,
            Class::Piece => 2,
        };
        Place(
            (offset / ALIGNMENT as u64)
                | (((bytes / ALIGNMENT) as u64) << OFFSET_BITS)
                | class << CLASS_SHIFT
                | u64::from(check) << CHECK_SHIFT,
        )
    }

    /// From the word that [`Place::word`] gave.
    #[inline(always)]
    pub fn from_word(word: u64) -> Place {
        Place(word)
    }

    /// As a word.
    #[inline(always)]
    pub fn word(self) -> u64 {
        self.0
    }

    /// Bytes from the partition's start.
    #[inline(always)]
    pub fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) * ALIGNMENT as u64
    }

    /// Bytes of the record.
    #[inline(always)]
    pub fn bytes(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize % (1 << LENGTH_BITS) * ALIGNMENT
    }

    /// What it holds.
    #[inline(always)]
    pub fn class(self) -> Class {
        match self.0 >> CLASS_SHIFT & 3 {
            0 => Class::Value,
            1 => Class::Long,
            _ => Class::Piece,
        }
    }

    /// Bits of the hash.
    #[inline(always)]
    pub fn check(self) -> u16 {
        (self.0 >> CHECK_SHIFT) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gives_back_what_it_was_made_of(offset in 1..REACH_BYTES / 8, words in 0..RECORD_LIMIT_BYTES / 8, class in 0..3, check in 0..1_u16 << CHECK_BITS) {
            let class = [Class::Value, Class::Long, Class::Piece][class as usize];
            let place = Place::from_word(Place::new(offset * 8, words * 8, class, check).word());
            prop_assert_eq!((place.offset(), place.bytes(), place.class(), place.check()), (offset * 8, words * 8, class, check));
        }
    }
}
