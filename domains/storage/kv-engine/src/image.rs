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

    /// Will be written to another segment, all of it. The records stay where they are in it, and so what they are; what it has of the index is
    /// the caller's business.
    pub fn move_to(&mut self, layout: &Layout, segment: u32) {
        self.segment = segment;
        self.start = layout.segment_start(segment);
        self.written = 0;
        self.durable = 0;
    }

    /// What its records say about the index.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        self.summary.notes()
    }

    /// The memory, for another segment.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether that much more fits.
    pub fn has_room(&self, layout: &Layout, room: Room) -> bool {
        let words = self.summary.words.len() + room.summary_words;
        layout.round_up(self.tail + room.bytes) <= layout.summary_start(words)
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

/// Values in records from this length on, in bytes, have their keys in the summary too, so that a scan which wants no long values needn't read
/// the records.
pub const NAMED_RECORD_BYTES: usize = 4096;
/// Keys up to this length, in bytes, that is: longer ones stand in the records alone.
pub const NAMED_KEY_BYTES: usize = 64;

/// Words of the summary that a record of this length takes at most.
pub const fn summary_words(class: Class, record_bytes: usize) -> usize {
    match class {
        Class::Long | Class::Piece => 4,
        Class::Value if record_bytes >= NAMED_RECORD_BYTES => 3 + NAMED_KEY_BYTES / 8,
        Class::Value => 2,
    }
}

/// What records need of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// For themselves.
    pub bytes: usize,
    /// Words of the summary.
    pub summary_words: usize,
}

impl Room {
    /// Adds a record's.
    pub fn add(&mut self, kind: Kind, key_bytes: usize, value_bytes: usize) {
        let bytes = record::size(key_bytes, value_bytes);
        let class = match kind {
            Kind::Put | Kind::Nothing => Class::Value,
            Kind::Delete | Kind::Clear | Kind::PutLong | Kind::Piece => Class::Long,
        };
        self.bytes += bytes;
        self.summary_words += summary_words(class, bytes);
    }

    /// All of it in bytes.
    pub fn total_bytes(self) -> u64 {
        (self.bytes + self.summary_words * 8) as u64
    }
}

/// A value whose key is in the summary: what the kind in the summary's word is then.
const NAMED_PUT: u64 = 7;
const KIND_SHIFT: u32 = 60;
const CHECK_SHIFT: u32 = 48;
const LENGTH_SHIFT: u32 = 32;

/// What a segment's records say about the index: for each the hash, and a word with its kind (4 bits), the hash's check bits (12), its length
/// and offset in words of eight bytes (16 and 32). Behind that of some, two words of their own; behind a long value's one with its length and
/// the key's (32 bits each), and the key, zeros up to a whole word.
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
    /// The key, where the summary has it.
    pub named: Option<Named>,
    /// Where the next note begins, in words.
    pub next: usize,
}

/// A key in a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Bytes of the value.
    pub value_bytes: usize,
    at: usize,
    key_bytes: usize,
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
    pub fn from_bytes(bytes: &[u8]) -> Summary {
        let words = bytes.as_chunks::<8>().0.iter();
        Summary {
            words: words.map(|word| u64::from_le_bytes(*word)).collect(),
        }
    }

    /// Notes a record.
    pub fn push(&mut self, offset: usize, bytes: usize, head: Head, hash: KeyHash, key: &[u8], value: &[u8]) {
        let is_named = head.kind == Kind::Put && bytes >= NAMED_RECORD_BYTES && key.len() <= NAMED_KEY_BYTES;
        let kind = if is_named { NAMED_PUT } else { head.kind as u64 };
        let word = kind << KIND_SHIFT
            | u64::from(hash.check) << CHECK_SHIFT
            | ((bytes / ALIGNMENT) as u64) << LENGTH_SHIFT
            | (offset / ALIGNMENT) as u64;
        self.words.extend([hash.slot, word]);
        match head.kind {
            Kind::Put if is_named => {
                self.words.push((value.len() as u64) << 32 | key.len() as u64);
                self.words.extend(key.chunks(8).map(word_of));
            }
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
        let mut at = 0;
        core::iter::from_fn(move || {
            let note = self.note(at)?;
            at = note.next;
            Some(note)
        })
    }

    /// The note that begins with word `at`, 0 or where another one ends; `None` at the end, and where it makes no sense.
    pub fn note(&self, at: usize) -> Option<Note> {
        let rest = self.words.get(at..)?;
        let (&[slot, word], rest) = rest.split_first_chunk::<2>()?;
        let pair = || rest.first_chunk::<2>().map(|&[first, second]| (first, second));
        let mut next = at + 2;
        let mut named = None;
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
            NAMED_PUT => {
                let lengths = *rest.first()?;
                let (value_bytes, key_bytes) = ((lengths >> 32) as usize, lengths as u32 as usize);
                if key_bytes > NAMED_KEY_BYTES {
                    return None;
                }
                let key_words = key_bytes.div_ceil(8);
                rest.get(1..1 + key_words)?;
                named = Some(Named {
                    value_bytes,
                    at: at + 3,
                    key_bytes,
                });
                next += 1 + key_words;
                Action::Put
            }
            _ => return None,
        };
        if !matches!(action, Action::Put | Action::Nothing) {
            next += 2;
        }
        Some(Note {
            hash: KeyHash {
                slot,
                check: (word >> CHECK_SHIFT) as u16 & 0xfff,
            },
            offset: word as u32 as usize * ALIGNMENT,
            bytes: (word >> LENGTH_SHIFT) as u16 as usize * ALIGNMENT,
            action,
            named,
            next,
        })
    }

    /// Writes a key that a note says is here into `key`.
    pub fn key(&self, named: Named, key: &mut Vec<u8>) {
        key.clear();
        let words = self.words.iter().skip(named.at).take(named.key_bytes.div_ceil(8));
        key.extend(words.flat_map(|word| word.to_le_bytes()));
        key.truncate(named.key_bytes);
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

/// Up to eight bytes as a word.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(word)
}

fn number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_hash::Secret;
    use proptest::prelude::*;

    proptest! {
        /// A summary says of each record what it was made of, keys of long values included, and no record takes more words than were reckoned.
        #[test]
        fn notes_come_back(records in proptest::collection::vec((1..7_u8, 0..100_usize, 0..6000_usize), 0..30)) {
            let secret = Secret { high: 1, low: 2 };
            let mut summary = Summary::default();
            let mut expected = Vec::new();
            let mut room = Room::default();
            for (number, &(kind, key_bytes, value_bytes)) in records.iter().enumerate() {
                let kind = [Kind::Put, Kind::Delete, Kind::Clear, Kind::PutLong, Kind::Piece, Kind::Nothing][kind as usize - 1];
                let (key, value) = (alloc::vec![number as u8; key_bytes], alloc::vec![7; value_bytes]);
                let bytes = record::size(key_bytes, value_bytes);
                let hash = secret.hash(&key);
                let head = Head { kind, flags: 0, sequence: 9 };
                summary.push(number * 8, bytes, head, hash, &key, &value);
                room.add(kind, key_bytes, value_bytes);
                prop_assert!(summary.words() <= room.summary_words);
                expected.push((hash, number * 8, bytes, kind, key, value_bytes));
            }
            let notes: Vec<Note> = summary.notes().collect();
            prop_assert_eq!(notes.len(), expected.len());
            for (note, (hash, offset, bytes, kind, key, value_bytes)) in notes.iter().zip(expected) {
                prop_assert_eq!((note.hash, note.offset, note.bytes), (hash, offset, bytes));
                let is_named = kind == Kind::Put && bytes >= NAMED_RECORD_BYTES && key.len() <= NAMED_KEY_BYTES;
                prop_assert_eq!(note.named.is_some(), is_named);
                if let Some(named) = note.named {
                    let mut found = Vec::new();
                    summary.key(named, &mut found);
                    prop_assert_eq!((found, named.value_bytes), (key, value_bytes));
                }
            }
        }

        #[test]
        fn any_words_are_taken_in_peace(bytes: Vec<u8>) {
            let summary = Summary::from_bytes(&bytes);
            let mut key = Vec::new();
            for note in summary.notes() {
                if let Some(named) = note.named {
                    summary.key(named, &mut key);
                }
            }
        }
    }
}
