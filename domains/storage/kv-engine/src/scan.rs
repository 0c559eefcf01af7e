//! Scanning: everything that is live, for the server's start.
//!
//! In the order of the log the disk is read from front to back, and what cleaning moves meanwhile comes again later, at the end. Of a sealed segment
//! its summary is read first: it says which records may be live, and has the keys of those with long values. What else is wanted is read in
//! stretches, many at once, with the gaps between where these are small; dead records and values that nobody asked for are passed over.

use crate::disk::Disk;
use crate::engine::{Engine, store_error};
use crate::image::{Action, Note, Summary};
use crate::record::{self, Kind, LongValue, Record, Seed};
use crate::state::State;
use crate::walk::{Step, hash_of, step};
use alloc::vec::Vec;
use interface::key_value::{Entry, StoreBuffer, StoreError, Writer};
use log::error;

/// Bytes of records that are read at once.
const STRETCHES_BYTES: usize = 1 << 20;
/// Bytes between two wanted records that are read with them: a disk has them sooner than another request.
const GAP_BYTES: usize = 32 << 10;

/// What was read of a segment. Sealed segments don't change, so it stays right.
pub(crate) struct Window {
    serial: u64,
    summary: Summary,
    /// The offset of the record to go on with, and the word of the summary where it is.
    next: (usize, usize),
    /// Stretches of the segment, in their order: from where to where, and where that begins in `bytes`.
    stretches: Vec<Stretch>,
    bytes: Vec<u8>,
    /// The record that was damaged when it was read last.
    doubtful: Option<usize>,
}

/// A part of a segment that was read.
struct Stretch {
    from: usize,
    to: usize,
    /// Where it begins among all that was read.
    place: usize,
}

impl Window {
    /// The word of the note of the first record that isn't before `offset`.
    fn seek(&mut self, offset: usize) -> usize {
        if self.next.0 != offset {
            let before = self.summary.notes().take_while(|note| note.offset < offset);
            self.next = (offset, before.last().map_or(0, |note| note.next));
        }
        self.next.1
    }

    fn record(&self, note: &Note) -> Option<&[u8]> {
        let next = self
            .stretches
            .partition_point(|stretch| stretch.from <= note.offset);
        let stretch = self.stretches.get(next.checked_sub(1)?)?;
        let from = stretch.place + note.offset - stretch.from;
        let is_there = note.offset + note.bytes <= stretch.to;
        self.bytes.get(from..from + note.bytes).filter(|_| is_there)
    }
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

    /// The segment after this one.
    fn following(self) -> Cursor {
        Cursor {
            serial: self.serial + 1,
            offset: 0,
        }
    }
}

/// How a segment was left.
enum Emitted {
    /// The buffer is full, and the cursor at the record that didn't fit.
    Full,
    /// All was looked at.
    Through,
    /// These stretches of the segment are to be read.
    Wanted(Vec<Stretch>),
}

/// What gets the entries, and which of them with their values.
struct Sink<'a> {
    buffer: &'a mut StoreBuffer,
    value_limit_bytes: usize,
}

impl Sink<'_> {
    /// False when it is full.
    fn push(&mut self, entry: &Entry<'_>) -> bool {
        // An empty buffer has room for any entry that a store can have.
        Writer::resume(self.buffer).push(entry).is_ok() || self.buffer.length == 0
    }

    /// Adds what a live record says.
    fn push_record(&mut self, record: &Record<'_>) -> bool {
        let Record { head, key, value } = *record;
        let entry = match head.kind {
            Kind::PutLong => LongValue::decode(value).map(|long| Entry::Key {
                key,
                value_bytes: long.bytes,
            }),
            Kind::Put if value.len() <= self.value_limit_bytes => Some(Entry::Put { key, value }),
            Kind::Put => Some(Entry::Key {
                key,
                value_bytes: value.len() as u64,
            }),
            _ => None,
        };
        entry.is_none_or(|entry| self.push(&entry))
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
        let mut sink = Sink {
            buffer,
            value_limit_bytes: value_limit_bytes as usize,
        };
        let mut cursor = Cursor::decode(cursor);
        let mut window = self.window.lock().take();
        loop {
            domain_rt::thread::heartbeat();
            let state = self.state.lock();
            let Some((&serial, &segment)) = state.log.range(cursor.serial..).next() else {
                return Ok(None);
            };
            if serial != cursor.serial || cursor.offset == 0 {
                cursor = Cursor {
                    serial,
                    offset: self.layout.block_bytes as usize,
                };
            }
            let start = self.layout.segment_start(segment);
            let images = [&state.open, &state.sealing];
            if let Some(image) = images.into_iter().flatten().find(|image| image.serial == serial) {
                let bytes = image.records().get(cursor.offset..).unwrap_or_default();
                if !self.emit_image(&state, &mut cursor, start, bytes, &mut sink) {
                    return Ok(Some(cursor.encode()));
                }
                cursor = cursor.following();
                continue;
            }
            let end = state
                .segments
                .get(segment as usize)
                .map_or(0, |segment| segment.end);
            let Some(this) = window.as_mut().filter(|window| window.serial == serial) else {
                drop(state);
                // If it is freed meanwhile, the next round goes on behind it.
                window = Some(self.window_of(segment, serial, end)?);
                continue;
            };
            let emitted = self.emit_sealed(&state, &mut cursor, start, end, this, &mut sink);
            drop(state);
            match emitted {
                Emitted::Through => cursor = cursor.following(),
                Emitted::Full => {
                    *self.window.lock() = window;
                    return Ok(Some(cursor.encode()));
                }
                Emitted::Wanted(stretches) => {
                    this.stretches = stretches;
                    let length = this
                        .stretches
                        .iter()
                        .map(|stretch| stretch.to - stretch.from)
                        .sum();
                    this.bytes.clear();
                    this.bytes.resize(length, 0);
                    let places = this.stretches.iter();
                    let places: Vec<(u64, usize)> = places
                        .map(|stretch| (start + stretch.from as u64, stretch.to - stretch.from))
                        .collect();
                    self.runs
                        .read_stretches(&places, &mut this.bytes)
                        .map_err(store_error)?;
                    self.state.lock().counters.scan_read_bytes += this.bytes.len() as u64;
                }
            }
        }
    }

    /// Reads what a sealed segment says of itself. Where its summary is damaged, that is made again from its records.
    fn window_of(&self, segment: u32, serial: u64, end: usize) -> Result<Window, StoreError> {
        let head_bytes = self.layout.block_bytes as usize;
        let (summary, mut read_bytes) = self.read_summary(segment, serial)?;
        let (summary, bytes) = match summary {
            Some(summary) => (summary, Vec::new()),
            None => {
                let mut bytes = alloc::vec![0; self.layout.round_up(end)];
                let start = self.layout.segment_start(segment);
                self.runs.read(start, &mut bytes).map_err(store_error)?;
                read_bytes += bytes.len() as u64;
                bytes.truncate(end);
                (self.summarise(serial, &bytes), bytes)
            }
        };
        self.state.lock().counters.scan_read_bytes += read_bytes;
        Ok(Window {
            serial,
            summary,
            next: (head_bytes, 0),
            stretches: alloc::vec![Stretch {
                from: 0,
                to: bytes.len(),
                place: 0,
            }],
            bytes,
            doubtful: None,
        })
    }

    /// The summary of the records in `bytes`, a segment's from its start.
    fn summarise(&self, serial: u64, bytes: &[u8]) -> Summary {
        let secret = self.state.lock().secret;
        let seed = Seed::new(self.layout.store, serial);
        let mut offset = self.layout.block_bytes as usize;
        let mut summary = Summary::default();
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            offset += match step(&self.layout, seed, offset, rest) {
                Step::Record(record, length) => {
                    if let Some(hash) = hash_of(secret, &record) {
                        summary.push(offset, length, record.head, hash, record.key, record.value);
                    }
                    length
                }
                Step::Padding(length) | Step::Damage(length) => length,
                Step::Cut => self.layout.round_up(offset + 1) - offset,
            };
        }
        summary
    }

    /// Gives the live records of a segment in memory, of which `bytes` are those from the cursor on, and moves the cursor behind them; false
    /// when the buffer is full.
    fn emit_image(
        &self,
        state: &State,
        cursor: &mut Cursor,
        start: u64,
        bytes: &[u8],
        sink: &mut Sink<'_>,
    ) -> bool {
        let seed = Seed::new(self.layout.store, cursor.serial);
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match step(&self.layout, seed, cursor.offset, rest) {
                Step::Record(record, length) => {
                    let at = start + cursor.offset as u64;
                    let hash = hash_of(state.secret, &record);
                    let place = hash.and_then(|hash| state.find(hash));
                    if place.is_some_and(|place| place.offset() == at) && !sink.push_record(&record) {
                        return false;
                    }
                    length
                }
                Step::Padding(length) | Step::Damage(length) => length,
                Step::Cut => return true,
            };
            cursor.offset += length;
            rest = rest.get(length..).unwrap_or_default();
        }
        true
    }

    /// Gives the live records of a sealed segment from the cursor on, and moves the cursor behind them.
    fn emit_sealed(
        &self,
        state: &State,
        cursor: &mut Cursor,
        start: u64,
        end: usize,
        window: &mut Window,
        sink: &mut Sink<'_>,
    ) -> Emitted {
        let seed = Seed::new(self.layout.store, cursor.serial);
        let mut key = Vec::new();
        let mut at = window.seek(cursor.offset);
        while let Some(note) = window.summary.note(at) {
            if !is_wanted(state, start, &note) {
                at = note.next;
                continue;
            }
            cursor.offset = note.offset;
            window.next = (note.offset, at);
            if let Some(named) = note
                .named
                .filter(|named| named.value_bytes > sink.value_limit_bytes)
            {
                window.summary.key(named, &mut key);
                let entry = Entry::Key {
                    key: &key,
                    value_bytes: named.value_bytes as u64,
                };
                if !sink.push(&entry) {
                    return Emitted::Full;
                }
                at = note.next;
                continue;
            }
            let record = window.record(&note);
            let decoded = record.and_then(|bytes| record::decode(bytes, seed, note.offset));
            match decoded {
                Some((record, _)) => {
                    if !sink.push_record(&record) {
                        return Emitted::Full;
                    }
                }
                // Not read, or not right: perhaps that was on the way only.
                None if record.is_none() || window.doubtful != Some(note.offset) => {
                    if note.offset + note.bytes > end {
                        at = note.next;
                        continue;
                    }
                    window.doubtful = record.map(|_| note.offset);
                    return self.wanted(state, start, end, window, &note, sink.value_limit_bytes);
                }
                None => error!(
                    "a record that is live is damaged: its key is left out (segment {}, byte {})",
                    cursor.serial, note.offset
                ),
            }
            at = note.next;
        }
        Emitted::Through
    }

    /// What to read from the record of `first` on, which is wanted: what else is until there is enough.
    fn wanted(
        &self,
        state: &State,
        start: u64,
        end: usize,
        window: &Window,
        first: &Note,
        value_limit_bytes: usize,
    ) -> Emitted {
        let block_range = |note: &Note| {
            let to = self.layout.round_up(note.offset + note.bytes);
            (self.layout.round_down(note.offset), to)
        };
        let (from, to) = block_range(first);
        let mut stretches = alloc::vec![Stretch { from, to, place: 0 }];
        let mut at = first.next;
        while let Some(note) = window.summary.note(at) {
            at = note.next;
            let is_long = note
                .named
                .is_some_and(|named| named.value_bytes > value_limit_bytes);
            if is_long || note.offset + note.bytes > end || !is_wanted(state, start, &note) {
                continue;
            }
            let (from, to) = block_range(&note);
            let Some(last) = stretches.last_mut() else { break };
            if from < last.from || last.place + to.max(last.to) - last.from > STRETCHES_BYTES {
                break;
            }
            if from <= last.to + GAP_BYTES {
                last.to = to.max(last.to);
            } else {
                let place = last.place + last.to - last.from;
                if place + to - from > STRETCHES_BYTES {
                    break;
                }
                stretches.push(Stretch { from, to, place });
            }
        }
        Emitted::Wanted(stretches)
    }
}

/// Whether a note is of a key that is live: the index names this record.
fn is_wanted(state: &State, start: u64, note: &Note) -> bool {
    matches!(note.action, Action::Put | Action::PutLong(_))
        && state
            .find(note.hash)
            .is_some_and(|place| place.offset() == start + note.offset as u64)
}
