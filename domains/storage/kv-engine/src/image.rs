//! A segment in memory, while it is being written: its bytes, its summary, and how far they have come to the disk.

use crate::key_hash::KeyHash;
use crate::layout::{Footer, Header, Layout};
use crate::place::{ALIGNMENT, Class, Place};
use crate::record::{self, Head, Kind, LongValue, PieceName, Seed};
use alloc::vec::Vec;

/// A segment in memory.
pub struct Image {
    /// Which one.
    pub segment: u32,
    /// Its serial number.
    pub serial: u64,
    seed: Seed,
    start: u64,
    bytes: Vec<u8>,
    /// Where the next record goes.
    pub tail: usize,
    /// All before this was written; whole logical blocks.
    pub written: usize,
    /// The last group that was written as a whole when that was reached.
    pub written_sequence: u64,
    /// All before this is durable.
    pub durable: usize,
    /// The last group in here or before.
    pub sequence: u64,
    summary: Summary,
}

impl Image {
    /// A fresh segment, in `bytes`, which has a segment's length and any content.
    pub fn new(layout: &Layout, segment: u32, header: Header, mut bytes: Vec<u8>) -> Image {
        let head_bytes = layout.block_bytes as usize;
        if let Some(head) = bytes.get_mut(..head_bytes) {
            head.fill(0);
            header.encode(layout.store).write_to(head);
        }
        Image {
            segment,
            serial: header.serial,
            seed: Seed::new(layout.store, header.serial),
            start: layout.segment_start(segment),
            bytes,
            tail: head_bytes,
            written: 0,
            written_sequence: header.sequence,
            durable: 0,
            sequence: header.sequence,
            summary: Summary::default(),
        }
    }

    /// The memory, for another segment.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether `records` more with `bytes` together fit, with their summary.
    pub fn has_room(&self, layout: &Layout, records: usize, bytes: usize) -> bool {
        let words = self.summary.words.len() + records * WORDS_PER_RECORD;
        layout.round_up(self.tail + bytes) <= layout.summary_start(words)
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.summary.words.is_empty()
    }

    /// Adds a record, for which there is room; its place.
    pub fn push(&mut self, head: Head, hash: KeyHash, key: &[u8], value: &[u8]) -> Option<Place> {
        let to = self.bytes.get_mut(self.tail..)?;
        let bytes = record::encode(to, self.seed, self.tail, head, key, value)?;
        let class = match head.kind {
            Kind::PutLong => Class::Long,
            Kind::Piece => Class::Piece,
            _ => Class::Value,
        };
        let place = Place::new(self.start + self.tail as u64, bytes, class, hash.check);
        self.summary.push(self.tail, bytes, head, hash, key, value);
        self.tail += bytes;
        Some(place)
    }

    /// The bytes of the record at `offset` of the partition, with its length.
    pub fn record(&self, place: Place) -> Option<&[u8]> {
        let start = place.offset().checked_sub(self.start)? as usize;
        self.bytes
            .get(start..start + place.bytes())
            .filter(|_| start < self.tail)
    }

    /// The records as they stand, from the first.
    pub fn records(&self) -> &[u8] {
        self.bytes.get(..self.tail).unwrap_or_default()
    }

    /// Ends the write-out: zeros up to the next logical block, so that what comes later begins there. What is to be written.
    pub fn unwritten(&mut self, layout: &Layout) -> (u64, &[u8]) {
        let end = layout.round_up(self.tail);
        if let Some(padding) = self.bytes.get_mut(self.tail..end) {
            padding.fill(0);
        }
        self.tail = end;
        let bytes = self.bytes.get(self.written..end).unwrap_or_default();
        (self.start + self.written as u64, bytes)
    }

    /// Whether all was written.
    pub fn is_written(&self, layout: &Layout) -> bool {
        self.written == layout.round_up(self.tail)
    }

    /// Whether all is durable.
    pub fn is_durable(&self, layout: &Layout) -> bool {
        self.durable == layout.round_up(self.tail)
    }

    /// Summary and footer, and where they go.
    pub fn ending(&self, layout: &Layout) -> (u64, Vec<u8>) {
        let (at, bytes) = self
            .summary
            .ending(layout, self.serial, self.tail as u64, self.sequence);
        (self.start + at, bytes)
    }
}

/// Words of the summary that a record takes at most.
pub const WORDS_PER_RECORD: usize = 4;

const KIND_SHIFT: u32 = 60;
const CHECK_SHIFT: u32 = 48;
const LENGTH_SHIFT: u32 = 32;

/// What a segment's records say about the index: for each the hash, and a word with its kind (4 bits), the hash's check bits (12), its length
/// and offset in words of eight bytes (16 and 32). Behind that of some, two words of their own.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    words: Vec<u64>,
}

/// What a record says about the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Of the key.
    pub hash: KeyHash,
    /// In the segment.
    pub offset: usize,
    /// Of the record.
    pub bytes: usize,
    /// What is done.
    pub action: Action,
}

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The key has the value in this record.
    Put,
    /// The key has this long value.
    PutLong(LongValue),
    /// This is a piece.
    Piece(PieceName),
    /// The key is no more; the serial number of the segment that said so first.
    Delete(u64),
    /// No key is any more, as of this group.
    Clear(u64),
    /// Nothing.
    Nothing,
}

impl Summary {
    /// From the words on a disk.
    pub fn from_words(words: Vec<u64>) -> Summary {
        Summary { words }
    }

    /// Notes a record.
    pub fn push(&mut self, offset: usize, bytes: usize, head: Head, hash: KeyHash, key: &[u8], value: &[u8]) {
        let word = (head.kind as u64) << KIND_SHIFT
            | u64::from(hash.check) << CHECK_SHIFT
            | ((bytes / ALIGNMENT) as u64) << LENGTH_SHIFT
            | (offset / ALIGNMENT) as u64;
        self.words.extend([hash.slot, word]);
        match head.kind {
            Kind::Put | Kind::Nothing => {}
            Kind::Delete => self.words.extend([number(value), 0]),
            Kind::Clear => self.words.extend([head.sequence, 0]),
            Kind::PutLong => {
                let value = LongValue::decode(value).unwrap_or(LongValue {
                    id: 0,
                    bytes: 0,
                    piece_bytes: 1,
                });
                // A value has at most 2^29 bytes.
                self.words
                    .extend([value.id, value.bytes << 32 | u64::from(value.piece_bytes)]);
            }
            Kind::Piece => {
                let name = PieceName::decode(key).unwrap_or(PieceName { id: 0, number: 0 });
                self.words.extend([name.id, u64::from(name.number)]);
            }
        }
    }

    /// The notes in order; ends where they make no sense.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        let mut words = self.words.iter().copied();
        core::iter::from_fn(move || {
            let (slot, word) = (words.next()?, words.next()?);
            let mut pair = || Some((words.next()?, words.next()?));
            let action = match word >> KIND_SHIFT {
                1 => Action::Put,
                2 => Action::Delete(pair()?.0),
                3 => Action::Clear(pair()?.0),
                4 => {
                    let (id, numbers) = pair()?;
                    Action::PutLong(LongValue {
                        id,
                        bytes: numbers >> 32,
                        piece_bytes: (numbers as u32).max(1),
                    })
                }
                5 => {
                    let (id, number) = pair()?;
                    Action::Piece(PieceName {
                        id,
                        number: number as u32,
                    })
                }
                6 => Action::Nothing,
                _ => return None,
            };
            Some(Note {
                hash: KeyHash {
                    slot,
                    check: (word >> CHECK_SHIFT) as u16 & 0xfff,
                },
                offset: word as u32 as usize * ALIGNMENT,
                bytes: (word >> LENGTH_SHIFT) as u16 as usize * ALIGNMENT,
                action,
            })
        })
    }

    /// Words that it has.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Forgets what was noted behind the first `words`.
    pub fn truncate(&mut self, words: usize) {
        self.words.truncate(words);
    }

    /// The bytes that a segment ends with, summary and footer, and where they go in it.
    pub fn ending(&self, layout: &Layout, serial: u64, end: u64, sequence: u64) -> (u64, Vec<u8>) {
        let at = layout.summary_start(self.words.len());
        let mut bytes = alloc::vec![0; layout.segment_bytes as usize - at];
        for (to, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let summary = bytes.get(..self.words.len() * 8).unwrap_or_default();
        let footer = Footer {
            serial,
            end,
            words: self.words.len() as u64,
            summary_crc: checksum::extend(0, summary),
            sequence,
        };
        if let Some(to) = bytes.get_mut(layout.footer_start() - at..) {
            footer.encode(layout.store).write_to(to);
        }
        (at as u64, bytes)
    }
}

fn number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
