//! The key-value store, as its server sees it: keys and values of bytes, on disk, with an order of writes that survives.
//!
//! What is written is appended to one log. Each *group* of entries, the entries of one `append`, gets the next sequence number and is there after a
//! crash as a whole or not at all; and if it is there, so is every group before it. A group is seen by reads at once and is durable when
//! [`KeyValueStore::commit`] for its number, or a later one, has returned.
//!
//! Entries are written one behind the other in a [`StoreBuffer`], in the form that [`Writer`] makes and [`Reader`] takes apart. A value that is
//! too long for a buffer is *staged* first, in pieces, and then named by a `PutStaged` entry. What is staged and never named is dropped when
//! the store opens next.

use core::fmt;
use rref::{Exchange, RRef, RpcError, Share, interface};

/// Bytes in a buffer.
pub const STORE_BYTES: usize = 32 * 1024 - 128;
/// Bytes of a key at most.
pub const KEY_LIMIT_BYTES: usize = 16 * 1024;
/// Bytes of a value in an entry at most; longer ones are staged.
pub const INLINE_LIMIT_BYTES: usize = 16 * 1024 - 256;
/// Bytes of a value at most.
pub const VALUE_LIMIT_BYTES: u64 = 512 << 20;

/// Bytes on their way to or from the store.
#[derive(Exchange, Share)]
#[repr(C)]
pub struct StoreBuffer {
    /// Bytes used, from the start of `data`.
    pub length: u32,
    /// The bytes.
    pub data: [u8; STORE_BYTES],
}

/// Why the store doesn't do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum StoreError {
    /// It is opening: reading what is on the disk. Share of it in percent.
    Opening(u8),
    /// There is no disk.
    NoDisk,
    /// The domains that the disk is reached by don't answer for now.
    Unreachable,
    /// There is no partition for it, and a disk's partition table can't be read: it may be there.
    UnreadableTable,
    /// There is no partition for it.
    NoPartition,
    /// Its partition has no room for a store.
    TooSmall,
    /// What is on the partition isn't a store that this version can read; it is left as it is.
    Unrecognised,
    /// The disk is full: reads and deletions go on.
    Full,
    /// The index has reached its limit of memory.
    OutOfMemory,
    /// The disk failed; what was appended since the last commit may be lost. Reads go on as far as they can.
    Device,
    /// A record that should be there can't be read back right (checksum).
    Corrupt,
    /// The buffer's content isn't what the call takes, or a length is beyond its limit.
    Malformed,
    /// No such key.
    NotFound,
    /// The store's domain died; connect again.
    Dead(RpcError),
}

impl From<RpcError> for StoreError {
    fn from(error: RpcError) -> Self {
        StoreError::Dead(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreError::Opening(percent) => return write!(f, "the store is opening ({percent} %)"),
            StoreError::NoDisk => "there is no disk for the store",
            StoreError::Unreachable => "the disk can't be reached for now",
            StoreError::UnreadableTable => "a disk's partition table can't be read",
            StoreError::NoPartition => "there is no partition for the store",
            StoreError::TooSmall => "the store's partition is too small for one",
            StoreError::Unrecognised => "the partition holds no store of this version",
            StoreError::Full => "the disk is full",
            StoreError::OutOfMemory => "the index is at its limit of memory",
            StoreError::Device => "the disk failed",
            StoreError::Corrupt => "a record is damaged",
            StoreError::Malformed => "malformed request",
            StoreError::NotFound => "no such key",
            StoreError::Dead(error) => return error.fmt(f),
        })
    }
}

/// What an `append` made of a group.
#[derive(Exchange)]
pub struct Appended {
    /// The buffer of the call.
    pub buffer: RRef<StoreBuffer>,
    /// The group's number; the first is 1.
    pub sequence: u64,
}

/// What a `read` gave.
#[derive(Exchange)]
pub struct ReadValue {
    /// The buffer of the call, with the bytes from the offset on, as many as fit.
    pub buffer: RRef<StoreBuffer>,
    /// Bytes of the whole value.
    pub value_bytes: u64,
}

/// What a `scan` gave.
#[derive(Exchange)]
pub struct Scanned {
    /// The buffer of the call, with entries ([`Reader`]): `Put` with the value where it is short enough, else `Key`.
    pub buffer: RRef<StoreBuffer>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// How the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct StoreStatistics {
    /// Live keys.
    pub keys: u64,
    /// Bytes of live keys and values, as they stand in the log.
    pub live_bytes: u64,
    /// Bytes of the partition that segments take.
    pub used_bytes: u64,
    /// Bytes of the partition.
    pub capacity_bytes: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// The last sequence number given.
    pub appended: u64,
    /// The last that is durable.
    pub committed: u64,
    /// Groups appended since the domain started.
    pub groups: u64,
    /// Flushes or forced writes that made them durable.
    pub flushes: u64,
    /// Bytes written to the device, for all purposes.
    pub written_bytes: u64,
    /// Bytes that cleaning moved.
    pub cleaned_bytes: u64,
    /// Segments, and of them free ones.
    pub segments: u32,
    /// Segments that hold nothing.
    pub free_segments: u32,
    /// How long the last opening took, milliseconds.
    pub open_ms: u64,
    /// Bytes that were read for it.
    pub open_read_bytes: u64,
    /// Bytes that scans have read since, which is how the server starts.
    pub scan_read_bytes: u64,
    /// Groups behind the longest valid prefix that opening dropped.
    pub dropped_groups: u64,
    /// Bytes there.
    pub dropped_bytes: u64,
}

/// What a check of the whole store found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct CheckReport {
    /// Records read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that are damaged.
    pub damaged: u64,
    /// Index entries that name no such record, or one that is damaged.
    pub dangling: u64,
    /// Segments that the disk failed to read: nothing is known of their records.
    pub unreadable: u64,
    /// The check goes on behind this place; `None` when it is through.
    pub next: Option<u64>,
}

/// The store.
#[interface]
pub trait KeyValueStore {
    /// Appends the buffer's entries ([`Writer`]) as one group. Blocks only while the store has too much that isn't written out.
    #[deadline(none)]
    fn append(&self, group: RRef<StoreBuffer>) -> Result<Appended, StoreError>;

    /// Keeps `piece` as the bytes from `offset` of the long value `value`, a number of the caller's choice that it uses for one value only. Pieces come
    /// in order and are all of one length, but for the last, which may be shorter; offset 0 begins the value anew.
    #[deadline(none)]
    fn stage(
        &self,
        value: u64,
        offset: u64,
        piece: RRef<StoreBuffer>,
    ) -> Result<RRef<StoreBuffer>, StoreError>;

    /// Blocks until every group up to `sequence` is durable; the answer is the last that is. One flush serves all who wait.
    #[deadline(none)]
    fn commit(&self, sequence: u64) -> Result<u64, StoreError>;

    /// The last durable group.
    fn committed(&self) -> Result<u64, StoreError>;

    /// The value of the key that `buffer` holds, from `offset` on.
    #[deadline(none)]
    fn read(&self, buffer: RRef<StoreBuffer>, offset: u64) -> Result<ReadValue, StoreError>;

    /// Live entries from `cursor` (0 at first) on, in no particular order; each that is there from the first to the last call is given at least once. Values of
    /// up to `value_limit_bytes` come with their keys.
    #[deadline(none)]
    fn scan(
        &self,
        cursor: u64,
        value_limit_bytes: u32,
        buffer: RRef<StoreBuffer>,
    ) -> Result<Scanned, StoreError>;

    /// Cleans segments until no more than the live bytes and one segment are in use; for the operator.
    #[deadline(none)]
    fn compact(&self) -> Result<(), StoreError>;

    /// Reads a part of the store from `cursor` (0 at first) on and compares it with checksums and index.
    #[deadline(none)]
    fn check(&self, cursor: u64) -> Result<CheckReport, StoreError>;

    /// How it is.
    fn statistics(&self) -> Result<StoreStatistics, StoreError>;
}

/// One entry of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The key has this value.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// The key has the value that was staged under this number.
    PutStaged {
        /// The key.
        key: &'a [u8],
        /// The number.
        value: u64,
        /// Bytes of the value.
        value_bytes: u64,
    },
    /// The key is no more.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// No key is any more.
    Clear,
    /// From a scan: the key has a value of this length.
    Key {
        /// The key.
        key: &'a [u8],
        /// Bytes of the value.
        value_bytes: u64,
    },
}

const PUT: u8 = 1;
const PUT_STAGED: u8 = 2;
const DELETE: u8 = 3;
const CLEAR: u8 = 4;
const KEY: u8 = 5;
/// Kind, length of the key, two numbers.
const HEAD_BYTES: usize = 1 + 2 + 8 + 8;

/// The entry doesn't fit; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Writes entries into a buffer, from its start.
pub struct Writer<'a> {
    buffer: &'a mut StoreBuffer,
}

impl<'a> Writer<'a> {
    /// Begins an empty buffer.
    pub fn begin(buffer: &'a mut StoreBuffer) -> Writer<'a> {
        buffer.length = 0;
        Writer { buffer }
    }

    /// Goes on behind what is in the buffer.
    pub fn resume(buffer: &'a mut StoreBuffer) -> Writer<'a> {
        Writer { buffer }
    }

    /// Bytes that an entry takes.
    pub fn size(entry: &Entry<'_>) -> usize {
        let (key, value): (&[u8], &[u8]) = match *entry {
            Entry::Put { key, value } => (key, value),
            Entry::PutStaged { key, .. } | Entry::Delete { key } | Entry::Key { key, .. } => (key, &[]),
            Entry::Clear => (&[], &[]),
        };
        HEAD_BYTES + key.len() + value.len()
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it doesn't fit, or a key or value is beyond its limit.
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), NoRoom> {
        let (kind, key, first, second, value): (u8, &[u8], u64, u64, &[u8]) = match *entry {
            Entry::Put { key, value } => (PUT, key, value.len() as u64, 0, value),
            Entry::PutStaged {
                key,
                value,
                value_bytes,
            } => (PUT_STAGED, key, value_bytes, value, &[]),
            Entry::Delete { key } => (DELETE, key, 0, 0, &[]),
            Entry::Clear => (CLEAR, &[], 0, 0, &[]),
            Entry::Key { key, value_bytes } => (KEY, key, value_bytes, 0, &[]),
        };
        if key.len() > KEY_LIMIT_BYTES || value.len() > INLINE_LIMIT_BYTES {
            return Err(NoRoom);
        }
        let key_bytes = u16::try_from(key.len()).map_err(|_| NoRoom)?;
        let start = self.buffer.length as usize;
        let end = start + Self::size(entry);
        let to = self.buffer.data.get_mut(start..end).ok_or(NoRoom)?;
        let (head, rest) = to.split_at_mut_checked(HEAD_BYTES).ok_or(NoRoom)?;
        let (to_key, to_value) = rest.split_at_mut_checked(key.len()).ok_or(NoRoom)?;
        let [key_low, key_high] = key_bytes.to_le_bytes();
        let mut written = [0; HEAD_BYTES];
        let (start, numbers) = written.split_at_mut(3);
        let (to_first, to_second) = numbers.split_at_mut(8);
        start.copy_from_slice(&[kind, key_low, key_high]);
        to_first.copy_from_slice(&first.to_le_bytes());
        to_second.copy_from_slice(&second.to_le_bytes());
        head.copy_from_slice(&written);
        to_key.copy_from_slice(key);
        to_value.copy_from_slice(value);
        self.buffer.length = end as u32;
        Ok(())
    }

    /// Adds an [`Entry::Put`] of which key and value are in two parts each: for one that is small, and often written.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn put_parts(&mut self, key: [&[u8]; 2], value: [&[u8]; 2]) -> Result<(), NoRoom> {
        let (key_bytes, value_bytes) = (key[0].len() + key[1].len(), value[0].len() + value[1].len());
        if key_bytes > KEY_LIMIT_BYTES || value_bytes > INLINE_LIMIT_BYTES {
            return Err(NoRoom);
        }
        let start = self.buffer.length as usize;
        let end = start + HEAD_BYTES + key_bytes + value_bytes;
        let rest = self.buffer.data.get_mut(start..end).ok_or(NoRoom)?;
        let (head, mut rest) = rest.split_first_chunk_mut::<HEAD_BYTES>().ok_or(NoRoom)?;
        head[0] = PUT;
        head[1..3].copy_from_slice(&(key_bytes as u16).to_le_bytes());
        head[3..11].copy_from_slice(&(value_bytes as u64).to_le_bytes());
        head[11..].fill(0);
        for part in [key[0], key[1], value[0], value[1]] {
            let (to, behind) = rest.split_at_mut_checked(part.len()).ok_or(NoRoom)?;
            to.copy_from_slice(part);
            rest = behind;
        }
        self.buffer.length = end as u32;
        Ok(())
    }
}

/// Takes a buffer's entries apart. Ends at the first one that is malformed, with an error.
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// The buffer's content isn't a sequence of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedEntry;

impl<'a> Reader<'a> {
    /// The entries of `buffer`.
    pub fn new(buffer: &'a StoreBuffer) -> Reader<'a> {
        Reader {
            rest: buffer.data.get(..buffer.length as usize).unwrap_or(&buffer.data),
        }
    }

    fn take(&mut self) -> Result<Entry<'a>, MalformedEntry> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(MalformedEntry)?;
        let [kind, k0, k1, numbers @ ..] = head;
        let (first, second) = numbers.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let (first, second) = (number(first), number(second));
        let key_bytes = usize::from(u16::from_le_bytes([*k0, *k1]));
        let (key, rest) = rest.split_at_checked(key_bytes).ok_or(MalformedEntry)?;
        let value_bytes = match *kind {
            PUT => usize::try_from(first).map_err(|_| MalformedEntry)?,
            _ => 0,
        };
        let (value, rest) = rest.split_at_checked(value_bytes).ok_or(MalformedEntry)?;
        if key.len() > KEY_LIMIT_BYTES || value.len() > INLINE_LIMIT_BYTES {
            return Err(MalformedEntry);
        }
        let entry = match *kind {
            PUT => Entry::Put { key, value },
            PUT_STAGED if first <= VALUE_LIMIT_BYTES => Entry::PutStaged {
                key,
                value: second,
                value_bytes: first,
            },
            DELETE => Entry::Delete { key },
            CLEAR => Entry::Clear,
            KEY => Entry::Key {
                key,
                value_bytes: first,
            },
            _ => return Err(MalformedEntry),
        };
        self.rest = rest;
        Ok(entry)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Entry<'a>, MalformedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}
