//! Walking the log from its oldest record to its newest: for the server, which wants all that is live, and for the operator, who wants it checked.
//!
//! In the order of the log the disk is read from front to back, and what cleaning moves meanwhile comes again later, at the end.

use crate::disk::Disk;
use crate::engine::{Engine, store_error};
use crate::key_hash::{KeyHash, Secret};
use crate::layout::Layout;
use crate::place::RECORD_LIMIT_BYTES;
use crate::record::{self, Head, Kind, LongValue, PieceName, Record, Seed};
use crate::state::{State, Use};
use alloc::vec::Vec;
use interface::key_value::{CheckReport, Entry, StoreBuffer, StoreError, Writer};

/// Bytes that are read ahead.
const WINDOW_BYTES: usize = 512 << 10;

/// A part of a segment that was read ahead. Sealed segments don't change, so it stays right.
pub(crate) struct Window {
    serial: u64,
    start: usize,
    bytes: Vec<u8>,
}

/// A place in the log: a segment's serial number, and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    serial: u64,
    offset: usize,
}

impl Cursor {
    fn decode(cursor: u64) -> Cursor {
        Cursor {
            serial: cursor >> 23,
            offset: (cursor & ((1 << 23) - 1)) as usize * 8,
        }
    }

    fn encode(self) -> u64 {
        (self.serial << 23) | (self.offset as u64 / 8)
    }
}

/// One step through a segment's bytes.
pub(crate) enum Step<'a> {
    /// A record, and its bytes.
    Record(Record<'a>, usize),
    /// Zeros to the end of a logical block.
    Padding(usize),
    /// The bytes end in the middle of a record.
    Cut,
    /// No record: go on with the next logical block.
    Damage(usize),
}

/// What is at `offset` of a segment, of which `bytes` are those from there on.
pub(crate) fn step<'a>(layout: &Layout, seed: Seed, offset: usize, bytes: &'a [u8]) -> Step<'a> {
    if let Some((record, length)) = record::decode(bytes, seed, offset) {
        return Step::Record(record, length);
    }
    let rest_of_block = layout.round_up(offset + 1) - offset;
    if record::is_padding(bytes) && rest_of_block < layout.block_bytes as usize {
        return Step::Padding(rest_of_block);
    }
    if bytes.len() < RECORD_LIMIT_BYTES {
        return Step::Cut;
    }
    Step::Damage(rest_of_block)
}

/// The hash that the index has a record under, if it can have it.
pub(crate) fn hash_of(secret: Secret, record: &Record<'_>) -> Option<KeyHash> {
    match record.head.kind {
        Kind::Put | Kind::PutLong | Kind::Delete => Some(secret.hash(record.key)),
        Kind::Piece => PieceName::decode(record.key).map(|name| secret.piece(name.id, name.number)),
        Kind::Clear | Kind::Nothing => None,
    }
}

impl<D: Disk> Engine<D> {
    /// Gives live entries from `cursor` on; see [`interface::key_value::KeyValueStore::scan`].
    pub fn scan(
        &self,
        cursor: u64,
        value_limit_bytes: u32,
        buffer: &mut StoreBuffer,
    ) -> Result<Option<u64>, StoreError> {
        buffer.length = 0;
        let mut cursor = Cursor::decode(cursor);
        let mut window = self.window.lock().take();
        loop {
            domain_rt::thread::heartbeat();
            let mut state = self.state.lock();
            let Some((&serial, &segment)) = state.log.range(cursor.serial..).next() else {
                return Ok(None);
            };
            if serial != cursor.serial || cursor.offset == 0 {
                cursor = Cursor {
                    serial,
                    offset: self.layout.block_bytes as usize,
                };
            }
            let images = [&state.open, &state.sealing];
            let in_memory = images.into_iter().flatten().find(|image| image.serial == serial);
            let start = self.layout.segment_start(segment);
            if let Some(image) = in_memory {
                let bytes = image.records();
                let from = bytes.get(cursor.offset..).unwrap_or_default();
                match self.emit(&state, &mut cursor, start, from, value_limit_bytes, buffer) {
                    Emitted::Full => return Ok(Some(cursor.encode())),
                    Emitted::More => {}
                }
                cursor = Cursor {
                    serial: serial + 1,
                    offset: 0,
                };
                continue;
            }
            let end = state
                .segments
                .get(segment as usize)
                .map_or(0, |segment| segment.end);
            if cursor.offset >= end {
                cursor = Cursor {
                    serial: serial + 1,
                    offset: 0,
                };
                continue;
            }
            let has_it = window.as_ref().is_some_and(|window| {
                let window_end = window.start + window.bytes.len();
                window.serial == serial
                    && (window.start..window_end).contains(&cursor.offset)
                    && (window_end - cursor.offset >= RECORD_LIMIT_BYTES || window_end == end)
            });
            if !has_it {
                drop(state);
                let from = self.layout.round_down(cursor.offset);
                let mut bytes = window.take().map_or_else(Vec::new, |window| window.bytes);
                bytes.clear();
                bytes.resize(WINDOW_BYTES.min(self.layout.round_up(end) - from), 0);
                self.runs
                    .read(start + from as u64, &mut bytes)
                    .map_err(store_error)?;
                bytes.truncate(end - from);
                window = Some(Window {
                    serial,
                    start: from,
                    bytes,
                });
                state = self.state.lock();
                // It may have been freed meanwhile; then its records aren't named by the index.
                if state.log.get(&serial) != Some(&segment) {
                    continue;
                }
            }
            let Some(read) = &window else { continue };
            let from = read.bytes.get(cursor.offset - read.start..).unwrap_or_default();
            if let Emitted::Full = self.emit(&state, &mut cursor, start, from, value_limit_bytes, buffer) {
                drop(state);
                *self.window.lock() = window;
                return Ok(Some(cursor.encode()));
            }
            if cursor.offset < end && read.start + read.bytes.len() >= end {
                // A cut record that nothing follows.
                cursor.offset = self.layout.round_up(cursor.offset + 1);
            }
        }
    }

    /// Writes the live records of `bytes`, which begin at the cursor, into the buffer, and moves the cursor behind them.
    fn emit(
        &self,
        state: &State,
        cursor: &mut Cursor,
        start: u64,
        bytes: &[u8],
        value_limit_bytes: u32,
        buffer: &mut StoreBuffer,
    ) -> Emitted {
        let seed = Seed::new(self.layout.store, cursor.serial);
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match step(&self.layout, seed, cursor.offset, rest) {
                Step::Record(record, length) => {
                    let at = start + cursor.offset as u64;
                    if let Some(entry) = live_entry(state, &record, at, value_limit_bytes)
                        && Writer::resume(buffer).push(&entry).is_err()
                    {
                        return Emitted::Full;
                    }
                    length
                }
                Step::Padding(length) | Step::Damage(length) => length,
                Step::Cut => return Emitted::More,
            };
            cursor.offset += length;
            rest = rest.get(length..).unwrap_or_default();
        }
        Emitted::More
    }

    /// Checks the segment at `cursor`, the serial number of the last one that was checked; see
    /// [`interface::key_value::KeyValueStore::check`].
    pub fn check(&self, cursor: u64) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        let (serial, number, segment, mut bytes) = {
            let state = self.state.lock();
            let Some((&serial, &number)) = state.log.range(cursor.saturating_add(1)..).next() else {
                return Ok(report);
            };
            let images = [&state.open, &state.sealing];
            let image = images.into_iter().flatten().find(|image| image.serial == serial);
            let segment = state.segments.get(number as usize).copied().unwrap_or_default();
            (
                serial,
                number,
                segment,
                image.map(|image| image.records().to_vec()),
            )
        };
        report.next = Some(serial);
        let start = self.layout.segment_start(number);
        if bytes.is_none() && segment.usage == Use::Sealed {
            let mut read = alloc::vec![0; self.layout.round_up(segment.end)];
            self.runs.read(start, &mut read).map_err(store_error)?;
            read.truncate(segment.end);
            bytes = Some(read);
        }
        let bytes = bytes.unwrap_or_default();
        let seed = Seed::new(self.layout.store, serial);
        let secret = self.state.lock().secret;
        let mut offset = self.layout.block_bytes as usize;
        let mut found = Vec::new();
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            offset += match step(&self.layout, seed, offset, rest) {
                Step::Record(record, length) => {
                    report.records += 1;
                    report.bytes += length as u64;
                    if record.head.kind != Kind::Delete
                        && let Some(hash) = hash_of(secret, &record)
                    {
                        found.push((hash, start + offset as u64));
                    }
                    length
                }
                Step::Padding(length) => length,
                Step::Damage(_) | Step::Cut => {
                    // One run of damage counts once.
                    report.damaged += 1;
                    self.skip_damage(seed, offset, &bytes) - offset
                }
            };
            domain_rt::thread::heartbeat();
        }
        let state = self.state.lock();
        let images = [&state.open, &state.sealing];
        let in_memory = images.into_iter().flatten().find(|image| image.serial == serial);
        let now = state.segments.get(number as usize).copied().unwrap_or_default();
        // Records that came meanwhile are named, and weren't looked at: of such a segment nothing can be said, also if it has been sealed since.
        let has_grown = in_memory.map_or(now.end, |image| image.records().len()) != bytes.len();
        if state.log.get(&serial) != Some(&number) {
            // Cleaning freed it, and another one may have been written over what was read.
            return Ok(CheckReport {
                next: report.next,
                ..CheckReport::default()
            });
        }
        if !has_grown {
            let is_named =
                |&(hash, at): &(KeyHash, u64)| state.find(hash).is_some_and(|place| place.offset() == at);
            let named = found.into_iter().filter(is_named).count() as u64;
            report.dangling = u64::from(now.live_records).saturating_sub(named);
        }
        Ok(report)
    }

    /// Where the next record is behind damage at `offset`: at the start of a logical block, or there is none.
    fn skip_damage(&self, seed: Seed, offset: usize, bytes: &[u8]) -> usize {
        let mut next = self.layout.round_up(offset + 1);
        while let Some(rest) = bytes.get(next..).filter(|rest| !rest.is_empty()) {
            if record::decode(rest, seed, next).is_some() {
                return next;
            }
            next += self.layout.block_bytes as usize;
        }
        bytes.len().max(offset + 1)
    }
}

enum Emitted {
    /// The buffer is full, and the cursor at the record that didn't fit.
    Full,
    /// All was looked at.
    More,
}

/// What a scan gives for a record at `at` of the partition; `None` when it isn't live.
fn live_entry<'a>(state: &State, record: &Record<'a>, at: u64, value_limit_bytes: u32) -> Option<Entry<'a>> {
    let Record {
        head: Head { kind, .. },
        key,
        value,
    } = *record;
    if !matches!(kind, Kind::Put | Kind::PutLong) {
        return None;
    }
    let place = state.find(state.secret.hash(key))?;
    if place.offset() != at {
        return None;
    }
    Some(match kind {
        Kind::PutLong => Entry::Key {
            key,
            value_bytes: LongValue::decode(value)?.bytes,
        },
        _ if value.len() <= value_limit_bytes as usize => Entry::Put { key, value },
        _ => Entry::Key {
            key,
            value_bytes: value.len() as u64,
        },
    })
}
