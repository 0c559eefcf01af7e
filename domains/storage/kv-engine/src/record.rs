//! Records: what the log is made of.
//!
//! ```text
//!  0  u32  CRC-32C of everything behind it up to the value's end, begun with the store, the segment's serial number and the place in it
//!  4  u8   kind
//!  5  u8   flags
//!  6  u16  bytes of the key
//!  8  u64  sequence number of the group
//! 16  u32  bytes of the value
//! 20  u32  0
//! 24       key, value, zeros up to a multiple of 8
//! ```
//! All numbers are little-endian. Because the checksum begins with where the record is, one that was left there by an earlier use of the
//! segment, or that a disk has written elsewhere than it was told, is none.

use crate::place::ALIGNMENT;

/// Bytes before the key.
pub const HEAD_BYTES: usize = 24;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The key has this value.
    Put = 1,
    /// The key is no more. The value is the serial number of the segment that the record was first in.
    Delete = 2,
    /// No key is any more.
    Clear = 3,
    /// The key has a long value; the record's value is a [`LongValue`].
    PutLong = 4,
    /// A piece of a long value; the key is a [`PieceName`].
    Piece = 5,
    /// A group that changes nothing.
    Nothing = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Put,
            2 => Kind::Delete,
            3 => Kind::Clear,
            4 => Kind::PutLong,
            5 => Kind::Piece,
            6 => Kind::Nothing,
            _ => return None,
        })
    }
}

/// The record is the last of its group.
pub const LAST: u8 = 1;
/// The record stands for itself and belongs to no group: a piece, or one that cleaning moved.
pub const LOOSE: u8 = 2;

/// What a record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it says.
    pub kind: Kind,
    /// [`LAST`] and [`LOOSE`].
    pub flags: u8,
    /// Of its group.
    pub sequence: u64,
}

/// A record, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The beginning.
    pub head: Head,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Bytes that a record takes.
pub const fn size(key_bytes: usize, value_bytes: usize) -> usize {
    (HEAD_BYTES + key_bytes + value_bytes).next_multiple_of(ALIGNMENT)
}

/// What checksums in a segment begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// Of the segment with this serial number.
    pub fn new(store: u64, serial: u64) -> Seed {
        Seed(checksum::extend(
            checksum::extend(0, &store.to_le_bytes()),
            &serial.to_le_bytes(),
        ))
    }

    fn at(self, offset: usize) -> u32 {
        checksum::extend(self.0, &(offset as u64).to_le_bytes())
    }
}

/// Writes a record to the start of `to`, which is at `offset` of its segment; the bytes it takes, or `None` if that's too much.
pub fn encode(
    to: &mut [u8],
    seed: Seed,
    offset: usize,
    head: Head,
    key: &[u8],
    value: &[u8],
) -> Option<usize> {
    let bytes = size(key.len(), value.len());
    let to = to.get_mut(..bytes)?;
    let content = HEAD_BYTES + key.len() + value.len();
    let (to_head, rest) = to.split_first_chunk_mut::<HEAD_BYTES>()?;
    let [_, _, _, _, kind, flags, k0, k1, numbers @ ..] = to_head;
    (*kind, *flags) = (head.kind as u8, head.flags);
    [*k0, *k1] = u16::try_from(key.len()).ok()?.to_le_bytes();
    numbers[..8].copy_from_slice(&head.sequence.to_le_bytes());
    numbers[8..12].copy_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
    numbers[12..].fill(0);
    let (to_key, rest) = rest.split_at_mut_checked(key.len())?;
    let (to_value, padding) = rest.split_at_mut_checked(value.len())?;
    to_key.copy_from_slice(key);
    to_value.copy_from_slice(value);
    padding.fill(0);
    let crc = checksum::extend(seed.at(offset), to.get(4..content)?);
    to.first_chunk_mut().map(|first| *first = crc.to_le_bytes())?;
    Some(bytes)
}

/// The record at the start of `from`, which is at `offset` of its segment, and the bytes it takes; `None` if there is none that is right.
pub fn decode(from: &[u8], seed: Seed, offset: usize) -> Option<(Record<'_>, usize)> {
    let (head, rest) = from.split_first_chunk::<HEAD_BYTES>()?;
    let (crc, fields) = head.split_first_chunk::<4>()?;
    let [kind, flags, k0, k1, numbers @ ..] = fields else {
        return None;
    };
    let (sequence, numbers) = numbers.split_first_chunk::<8>()?;
    let value_bytes = numbers.first_chunk::<4>()?;
    let kind = Kind::from_byte(*kind)?;
    let key_bytes = usize::from(u16::from_le_bytes([*k0, *k1]));
    let value_bytes = u32::from_le_bytes(*value_bytes) as usize;
    let content = rest.get(..key_bytes.checked_add(value_bytes)?)?;
    let expected = checksum::extend(checksum::extend(seed.at(offset), fields), content);
    if expected != u32::from_le_bytes(*crc) {
        return None;
    }
    let (key, value) = content.split_at_checked(key_bytes)?;
    let record = Record {
        head: Head {
            kind,
            flags: *flags,
            sequence: u64::from_le_bytes(*sequence),
        },
        key,
        value,
    };
    Some((record, size(key_bytes, value_bytes)))
}

/// Whether a record's place holds none, but the zeros that a write-out ends with.
pub fn is_padding(from: &[u8]) -> bool {
    from.first_chunk::<ALIGNMENT>() == Some(&[0; ALIGNMENT])
}

/// Where the pieces of a long value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongValue {
    /// Its name in the store, never used again.
    pub id: u64,
    /// Bytes of the value.
    pub bytes: u64,
    /// Bytes of each piece but the last.
    pub piece_bytes: u32,
}

impl LongValue {
    /// Bytes of its encoding.
    pub const BYTES: usize = 20;

    /// As bytes.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&self.piece_bytes.to_le_bytes());
        bytes
    }

    /// From bytes; `None` unless they are right.
    pub fn decode(from: &[u8]) -> Option<LongValue> {
        let (id, rest) = from.split_first_chunk::<8>()?;
        let (bytes, rest) = rest.split_first_chunk::<8>()?;
        let value = LongValue {
            id: u64::from_le_bytes(*id),
            bytes: u64::from_le_bytes(*bytes),
            piece_bytes: u32::from_le_bytes(rest.try_into().ok()?),
        };
        (value.piece_bytes > 0 && value.bytes <= interface::key_value::VALUE_LIMIT_BYTES).then_some(value)
    }

    /// Pieces it has.
    pub fn pieces(self) -> u32 {
        // At most 2^29: a piece has a byte.
        self.bytes.div_ceil(u64::from(self.piece_bytes)) as u32
    }
}

/// The key of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceName {
    /// The long value.
    pub id: u64,
    /// Which piece of it, from 0.
    pub number: u32,
}

impl PieceName {
    /// Bytes of its encoding.
    pub const BYTES: usize = 12;

    /// As bytes.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// From bytes.
    pub fn decode(from: &[u8]) -> Option<PieceName> {
        let (id, number) = from.split_first_chunk::<8>()?;
        Some(PieceName {
            id: u64::from_le_bytes(*id),
            number: u32::from_le_bytes(number.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> impl Strategy<Value = Head> {
        (1..7_u8, any::<u8>(), any::<u64>()).prop_map(|(kind, flags, sequence)| Head {
            kind: Kind::from_byte(kind).unwrap(),
            flags,
            sequence,
        })
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(head in head(), key: Vec<u8>, value: Vec<u8>, offset in 0..1_usize << 30, serial: u64) {
            let seed = Seed::new(1, serial);
            let mut bytes = vec![0xaa; size(key.len(), value.len()) + 5];
            let taken = encode(&mut bytes, seed, offset, head, &key, &value).unwrap();
            prop_assert_eq!(taken, bytes.len() - 5);
            prop_assert_eq!(&bytes[taken..], &[0xaa; 5]);
            let (record, length) = decode(&bytes, seed, offset).unwrap();
            prop_assert_eq!((record.head, record.key, record.value, length), (head, &key[..], &value[..], taken));
            // Elsewhere it is no record.
            prop_assert_eq!(decode(&bytes, seed, offset + 8), None);
            prop_assert_eq!(decode(&bytes, Seed::new(1, serial ^ 1), offset), None);
            prop_assert_eq!(decode(&bytes, Seed::new(2, serial), offset), None);
        }

        /// One changed bit anywhere in a record (but its padding) is found.
        #[test]
        fn damage_is_found(head in head(), key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..40), at: prop::sample::Index, bit in 0..8) {
            let seed = Seed::new(7, 8);
            let mut bytes = vec![0; size(key.len(), value.len())];
            encode(&mut bytes, seed, 64, head, &key, &value).unwrap();
            bytes[at.index(HEAD_BYTES + key.len() + value.len())] ^= 1_u8 << bit;
            prop_assert_eq!(decode(&bytes, seed, 64), None);
        }

        #[test]
        fn any_bytes_are_taken_in_peace(bytes: Vec<u8>, offset: usize) {
            let _ = decode(&bytes, Seed::new(1, 1), offset);
            let _ = LongValue::decode(&bytes);
            let _ = PieceName::decode(&bytes);
        }
    }
}
