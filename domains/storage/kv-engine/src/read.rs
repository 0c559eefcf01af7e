//! Reading values: through the index to the record, which says whether it is the key's.

use crate::disk::Disk;
use crate::engine::{Engine, store_error};
use crate::place::{ALIGNMENT, Class, Place};
use crate::record::{self, LongValue, PieceName, Record, Seed};
use crate::state::State;
use alloc::vec::Vec;
use interface::key_value::{StoreBuffer, StoreError};

/// Times that a record which isn't right is looked up again: it may have been moved while it was read.
const LOOKUPS: u32 = 8;
/// Keys and values that the cache takes, in bytes together; longer ones are read in fewer requests a byte anyway.
const CACHED_LIMIT_BYTES: usize = 4096;

/// Where a record was found.
enum Found {
    /// In memory; its bytes.
    Bytes(Vec<u8>, u64),
    /// On the disk, in the segment of this serial number.
    OnDisk(u64),
}

impl<D: Disk> Engine<D> {
    /// Does `work` with the record at the place that `find` gives, with its place: from memory if it is there, else from the disk.
    pub(crate) fn with_record<R>(
        &self,
        find: impl Fn(&State) -> Option<Place>,
        work: impl FnOnce(Record<'_>, Place) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut last = None;
        let mut scratch = Vec::new();
        for _ in 0..LOOKUPS {
            let (place, found) = {
                let state = self.state.lock();
                let place = find(&state).ok_or(StoreError::NotFound)?;
                let found = match state.image(place) {
                    Some(image) => Found::Bytes(
                        image.record(place).ok_or(StoreError::Corrupt)?.to_vec(),
                        image.serial,
                    ),
                    None => {
                        let (segment, _) = self.layout.locate(place.offset());
                        let segment = state.segments.get(segment as usize);
                        Found::OnDisk(segment.map_or(0, |segment| segment.serial))
                    }
                };
                (place, found)
            };
            let (_, offset) = self.layout.locate(place.offset());
            let (serial, bytes, is_new) = match found {
                Found::Bytes(bytes, serial) => {
                    scratch = bytes;
                    (serial, scratch.as_slice(), false)
                }
                Found::OnDisk(serial) => {
                    let name = record_name(serial, offset);
                    if let Some(bytes) = self.cache.lock().get(name) {
                        scratch.clear();
                        scratch.extend_from_slice(bytes);
                        (serial, scratch.as_slice(), false)
                    } else {
                        let bytes = self.read_record(place, &mut scratch)?;
                        (serial, bytes, true)
                    }
                }
            };
            let seed = Seed::new(self.layout.store, serial);
            if let Some((record, _)) = record::decode(bytes, seed, offset) {
                if is_new && record.value.len() + record.key.len() < CACHED_LIMIT_BYTES {
                    self.cache.lock().insert(record_name(serial, offset), bytes);
                }
                return work(record, place);
            }
            // Not right, and still the one that is to be read: the disk has it wrong, twice.
            if last == Some((place, serial)) {
                break;
            }
            last = Some((place, serial));
        }
        Err(StoreError::Corrupt)
    }

    fn read_record<'a>(&self, place: Place, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], StoreError> {
        let block = u64::from(self.layout.block_bytes);
        let start = place.offset() / block * block;
        let skip = (place.offset() - start) as usize;
        let length = self.layout.round_up(skip + place.bytes());
        scratch.clear();
        scratch.resize(length, 0);
        self.runs.read(start, scratch).map_err(store_error)?;
        Ok(scratch.get(skip..skip + place.bytes()).unwrap_or_default())
    }

    /// Reads the value of the key that `buffer` holds into it, from `offset` on, as much as fits; bytes of the whole value.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Corrupt`], [`StoreError::Device`], [`StoreError::Malformed`].
    pub fn read(&self, buffer: &mut StoreBuffer, offset: u64) -> Result<u64, StoreError> {
        let key = buffer
            .data
            .get(..buffer.length as usize)
            .ok_or(StoreError::Malformed)?;
        let hash = self.state.lock().secret.hash(key);
        let StoreBuffer { length, data } = buffer;
        let answer = self.with_record(
            |state| state.find(hash).filter(|place| place.class() != Class::Piece),
            |record, place| {
                if data.get(..*length as usize) != Some(record.key) {
                    return Err(StoreError::NotFound);
                }
                if place.class() == Class::Long {
                    return LongValue::decode(record.value)
                        .map(Answer::Long)
                        .ok_or(StoreError::Corrupt);
                }
                *length = copy(record.value, offset, data) as u32;
                Ok(Answer::Whole(record.value.len() as u64))
            },
        )?;
        match answer {
            Answer::Whole(value_bytes) => Ok(value_bytes),
            Answer::Long(value) => self.read_long(value, buffer, offset),
        }
    }

    /// Reads pieces of a long value until the buffer is full.
    fn read_long(&self, value: LongValue, buffer: &mut StoreBuffer, offset: u64) -> Result<u64, StoreError> {
        buffer.length = 0;
        let mut at = offset;
        while at < value.bytes {
            let Some(to) = buffer
                .data
                .get_mut(buffer.length as usize..)
                .filter(|to| !to.is_empty())
            else {
                break;
            };
            let number = (at / u64::from(value.piece_bytes)) as u32;
            let skip = at % u64::from(value.piece_bytes);
            let name = PieceName { id: value.id, number };
            let copied = self.with_record(
                |state| state.find(state.secret.piece(value.id, number)),
                |record, _| {
                    if record.key != name.encode() {
                        return Err(StoreError::Corrupt);
                    }
                    Ok(copy(record.value, skip, to))
                },
            );
            // A value that was overwritten while it was read has no pieces any more: `NotFound`, as if it had been deleted before.
            let copied = copied?;
            if copied == 0 {
                return Err(StoreError::Corrupt);
            }
            buffer.length += copied as u32;
            at += copied as u64;
        }
        Ok(value.bytes)
    }
}

/// What the record of a key says.
enum Answer {
    /// It held the value, of so many bytes, and those asked for are in the buffer.
    Whole(u64),
    /// The value is in pieces.
    Long(LongValue),
}

/// Copies from `offset` on, as much as fits; bytes copied.
fn copy(from: &[u8], offset: u64, to: &mut [u8]) -> usize {
    let from = usize::try_from(offset).ok().and_then(|offset| from.get(offset..));
    let from = from.unwrap_or_default();
    let length = from.len().min(to.len());
    if let (Some(to), Some(from)) = (to.get_mut(..length), from.get(..length)) {
        to.copy_from_slice(from);
    }
    length
}

/// Names a record for the cache: segments are at most 2^23 words of eight bytes.
fn record_name(serial: u64, offset: usize) -> u64 {
    serial << 23 | (offset / ALIGNMENT) as u64
}
