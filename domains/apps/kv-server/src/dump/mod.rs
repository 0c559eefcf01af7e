//! Values as DUMP gives them and RESTORE takes them: Redis' format of a value in its files, with its version and a checksum.
//!
//! What is written is read by Redis 5 and newer (streams by 7): plain encodings, but for streams, which have only packed ones. What is read is all that Redis
//! since 2.8 writes. The format is told by Redis' rdb.c, listpack.c, ziplist.c, intset.c and t_stream.c.

mod packed;
mod read;
mod write;

pub use read::read;
pub use write::{write_collection, write_string};

use crate::types::Stream;
use crate::value::Malformed;
use alloc::vec::Vec;
use crc::{CRC_64_REDIS, Crc};

/// Newest version of the format whose values are read.
const NEWEST: u16 = 11;
/// Version that is written: of streams, of everything else.
const STREAM_VERSION: u16 = 10;
const PLAIN_VERSION: u16 = 9;
const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_REDIS);

/// First byte of a value: its type and encoding. Those with a comment are read alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    String = 0,
    List = 1,
    Set = 2,
    /// Scores as text.
    SortedSetText = 3,
    Hash = 4,
    SortedSet = 5,
    /// A list in a ziplist.
    ListZiplist = 10,
    /// A set of integers.
    SetIntegers = 11,
    /// A sorted set in a ziplist.
    SortedSetZiplist = 12,
    /// A hash in a ziplist.
    HashZiplist = 13,
    /// A list of ziplists.
    ListZiplists = 14,
    /// A stream of Redis 5.
    Stream1 = 15,
    /// A hash in a listpack.
    HashListpack = 16,
    /// A sorted set in a listpack.
    SortedSetListpack = 17,
    /// A list of listpacks and long values.
    ListListpacks = 18,
    Stream2 = 19,
    /// A set in a listpack.
    SetListpack = 20,
    /// A stream of Redis 7.2: consumers say when they were active.
    Stream3 = 21,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Kind, Malformed> {
        Ok(match byte {
            0 => Kind::String,
            1 => Kind::List,
            2 => Kind::Set,
            3 => Kind::SortedSetText,
            4 => Kind::Hash,
            5 => Kind::SortedSet,
            10 => Kind::ListZiplist,
            11 => Kind::SetIntegers,
            12 => Kind::SortedSetZiplist,
            13 => Kind::HashZiplist,
            14 => Kind::ListZiplists,
            15 => Kind::Stream1,
            16 => Kind::HashListpack,
            17 => Kind::SortedSetListpack,
            18 => Kind::ListListpacks,
            19 => Kind::Stream2,
            20 => Kind::SetListpack,
            21 => Kind::Stream3,
            _ => return Err(Malformed),
        })
    }
}

/// Appends version and checksum.
pub fn seal(mut value: Vec<u8>, is_stream: bool) -> Vec<u8> {
    let version = if is_stream { STREAM_VERSION } else { PLAIN_VERSION };
    value.extend(version.to_le_bytes());
    let sum = CRC.checksum(&value);
    value.extend(sum.to_le_bytes());
    value
}

/// The value without version and checksum.
///
/// # Errors
/// When it is of a newer version, or the checksum is another; 0 stands for none.
pub fn open(sealed: &[u8]) -> Result<&[u8], Malformed> {
    let (rest, sum) = sealed.split_last_chunk::<8>().ok_or(Malformed)?;
    let (value, version) = rest.split_last_chunk::<2>().ok_or(Malformed)?;
    let sum = u64::from_le_bytes(*sum);
    if u16::from_le_bytes(*version) > NEWEST || sum != 0 && sum != CRC.checksum(rest) {
        return Err(Malformed);
    }
    Ok(value)
}

/// What was read.
pub enum Restored {
    /// A string.
    String(Vec<u8>),
    /// A list's elements.
    List(Vec<Vec<u8>>),
    /// A set's members.
    Set(Vec<Vec<u8>>),
    /// A hash's fields with their values.
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    /// A sorted set's members with their scores.
    SortedSet(Vec<(Vec<u8>, f64)>),
    /// A stream.
    Stream(Stream),
}

#[cfg(test)]
mod tests;
