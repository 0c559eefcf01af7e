//! What the engine knows: its segments, its index, how far the log has come. All of it is behind one lock; nothing here waits or touches the
//! disk.

use crate::disk::DiskError;
use crate::image::{Action, Image, Note, summary_words};
use crate::index::Index;
use crate::key_hash::{Hasher, KeyHash, Secret};
use crate::layout::{Header, Layout};
use crate::place::{Class, Place};
use crate::record::{Head, Kind, LAST, LOOSE, LongValue, PieceName};
use crate::write_out::Waiter;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use domain_rt::thread::ThreadId;
use interface::key_value::StoreError;
use rref::{Block, RRef};

/// Free segments that values leave alone: two for cleaning, and one for deletions when the disk is full.
pub const RESERVED_FOR_DELETIONS: usize = 3;
/// Segments at once that an image was to be written to in vain: a disk that takes nothing isn't tried everywhere.
const VACATED_LIMIT: usize = 4;
/// Free segments that deletions leave alone.
pub const RESERVED_FOR_CLEANING: usize = 2;

/// What a segment is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Nothing.
    #[default]
    Free,
    /// It is in memory, and being written.
    Open,
    /// It is on the disk as a whole.
    Sealed,
}

/// One segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// What for.
    pub usage: Use,
    /// Of this use.
    pub serial: u64,
    /// Where its records end.
    pub end: usize,
    /// Weight ([`weight`]) of the records that the index names.
    pub live_bytes: u64,
    /// How many these are.
    pub live_records: u32,
    /// Weight of the deletions in it.
    pub deletion_bytes: u64,
    /// The last segment that one of them was first in.
    pub deletions_from: u64,
    /// It holds live records that can't be read.
    pub is_stuck: bool,
}

/// What a record costs: its bytes and those of its summary.
pub fn weight(place: Place) -> u64 {
    (place.bytes() + summary_words(place.class(), place.bytes()) * 8) as u64
}

/// A long value that is being staged.
#[derive(Clone, Copy, Debug)]
pub struct Staging {
    /// What it will be.
    pub value: LongValue,
    /// A piece that isn't as long as the first has come: it was the last.
    pub ended: bool,
}

/// A segment that an image was to be written to in vain.
#[derive(Clone, Copy, Debug)]
pub struct Vacated {
    /// The segment.
    pub segment: u32,
    /// Of the image, which goes to another one.
    pub serial: u64,
    /// Where its records ended then.
    end: usize,
    /// The header was written, and isn't durable.
    pub is_written: bool,
}

/// Counters since the start, for [`StoreStatistics`](interface::key_value::StoreStatistics).
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Groups appended.
    pub groups: u64,
    /// Flushes and forced writes.
    pub flushes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes that scans read.
    pub scan_read_bytes: u64,
    /// Bytes that cleaning moved.
    pub cleaned_bytes: u64,
    /// Segments that it freed.
    pub cleaned_segments: u64,
    /// Requests that the disk failed.
    pub disk_errors: u64,
}

/// All of it.
pub struct State {
    /// How the store lies.
    pub layout: Layout,
    /// What hashes begin with.
    pub secret: Secret,
    /// For the keys of groups.
    pub hasher: Hasher,
    /// All segments.
    pub segments: Vec<Segment>,
    /// Those that are free, in the order in which they became so.
    pub free: VecDeque<u32>,
    /// Those that are in use, by serial number.
    pub log: BTreeMap<u64, u32>,
    /// The one that records go to.
    pub open: Option<Image>,
    /// The one before, until its end is written.
    pub sealing: Option<Image>,
    /// Segments that an image was to be written to in vain: their headers are to say that they are free.
    pub vacated: Vec<Vacated>,
    /// Memory for the next.
    pub spare: Vec<Vec<u8>>,
    /// Of the segment that is begun next.
    pub next_serial: u64,
    /// The one that was begun last, and where it ends.
    pub previous: (u64, u64),
    /// Which key is where.
    pub index: Index,
    /// The long values, by the offset of the record that names them.
    pub longs: BTreeMap<u64, LongValue>,
    /// Those to come, by the caller's number.
    pub staging: BTreeMap<u64, Staging>,
    /// The name of the next long value.
    pub next_value: u64,
    /// Keys; pieces of long values are not.
    pub keys: u64,
    /// Weight of all that the index names.
    pub live_bytes: u64,
    /// The last group.
    pub appended: u64,
    /// The last that is durable.
    pub durable: u64,
    /// The last `Clear`: its group, and the segment that its record is in.
    pub clear: (u64, u64),
    /// Somebody writes out.
    pub writing: bool,
    /// Somebody cleans.
    pub cleaning: bool,
    /// Something that was written can still be lost.
    pub unflushed: bool,
    /// Write-outs that failed.
    pub failures: u64,
    /// Why the last one did.
    pub last_error: Option<DiskError>,
    /// Threads that wait for a write-out or for cleaning.
    pub waiters: Vec<Waiter>,
    /// Memory for the next write-out's list of requests.
    pub requests: Vec<RRef<Block>>,
    /// Who cleans in the background.
    pub cleaner: Option<ThreadId>,
    /// Counters.
    pub counters: Counters,
}

impl State {
    /// Without any segment in use.
    pub fn new(layout: Layout, index_limit_bytes: usize) -> State {
        let secret = Secret {
            high: layout.secret[0],
            low: layout.secret[1],
        };
        State {
            layout,
            secret,
            hasher: Hasher::new(secret),
            segments: alloc::vec![Segment::default(); layout.segments as usize],
            free: VecDeque::new(),
            log: BTreeMap::new(),
            open: None,
            sealing: None,
            vacated: Vec::new(),
            spare: Vec::new(),
            next_serial: 1,
            previous: (0, 0),
            index: Index::new(index_limit_bytes),
            longs: BTreeMap::new(),
            staging: BTreeMap::new(),
            next_value: 1,
            keys: 0,
            live_bytes: 0,
            appended: 0,
            durable: 0,
            clear: (0, 0),
            writing: false,
            cleaning: false,
            unflushed: false,
            failures: 0,
            last_error: None,
            waiters: Vec::new(),
            requests: Vec::new(),
            cleaner: None,
            counters: Counters::default(),
        }
    }

    /// Weight of live records at most, so that cleaning always finds something to win.
    pub fn live_limit_bytes(&self) -> u64 {
        let usable = self.segments.len().saturating_sub(RESERVED_FOR_DELETIONS + 2) as u64;
        usable * u64::from(self.layout.segment_bytes - 2 * self.layout.block_bytes) / 16 * 15
    }

    /// Begins a segment, of which more than `reserved` must be free; the one before must be sealed. False when there is none.
    pub fn begin_segment(&mut self, reserved: usize) -> bool {
        if self.free.len() <= reserved {
            return false;
        }
        let Some(number) = self.free.pop_front() else {
            return false;
        };
        let header = Header {
            serial: self.next_serial,
            previous: self.previous.0,
            previous_end: self.previous.1,
            sequence: self.appended,
        };
        self.next_serial = self.next_serial.saturating_add(1);
        let bytes = self
            .spare
            .pop()
            .unwrap_or_else(|| alloc::vec![0; self.layout.segment_bytes as usize]);
        if let Some(segment) = self.segments.get_mut(number as usize) {
            *segment = Segment {
                usage: Use::Open,
                serial: header.serial,
                ..Segment::default()
            };
        }
        self.log.insert(header.serial, number);
        self.open = Some(Image::new(&self.layout, number, header, bytes));
        true
    }

    /// Begins to seal the open segment, if there is one and none is being sealed.
    pub fn seal(&mut self) {
        if self.sealing.is_some() {
            return;
        }
        if let Some(image) = self.open.take() {
            let end = self.layout.round_up(image.tail);
            self.previous = (image.serial, end as u64);
            if let Some(segment) = self.segments.get_mut(image.segment as usize) {
                segment.end = end;
            }
            self.sealing = Some(image);
        }
    }

    /// Has the image with this serial number written to another segment than the one that doesn't take it; false when there is none.
    ///
    /// The one before keeps what it has until all is durable in the other, and is vacated then. Until that a start may find both, with one serial
    /// number: it takes the one that has more.
    pub fn move_image(&mut self, serial: u64) -> bool {
        let layout = self.layout;
        if self.vacated.len() >= VACATED_LIMIT {
            return false;
        }
        let images = [&mut self.open, &mut self.sealing];
        let Some(image) = images.into_iter().flatten().find(|image| image.serial == serial) else {
            return false;
        };
        let Some(to) = self.free.pop_front() else {
            return false;
        };
        let from = image.segment;
        self.vacated.push(Vacated {
            segment: from,
            serial,
            end: image.tail,
            is_written: false,
        });
        image.move_to(&layout, to);
        let (from_start, to_start) = (layout.segment_start(from), layout.segment_start(to));
        for note in image.notes() {
            let class = match note.action {
                Action::Put => Class::Value,
                Action::PutLong(_) => Class::Long,
                Action::Piece(_) => Class::Piece,
                Action::Delete(_) | Action::Clear(_) | Action::Nothing => continue,
            };
            let place =
                |start: u64| Place::new(start + note.offset as u64, note.bytes, class, note.hash.check);
            let (before, after) = (place(from_start), place(to_start));
            let is_it = |word| word == before.word();
            if self.index.replace(note.hash.slot, after.word(), is_it).is_some()
                && let Some(value) = self.longs.remove(&before.offset())
            {
                self.longs.insert(after.offset(), value);
            }
        }
        if let Some(segment) = self.segments.get_mut(from as usize) {
            let moved = core::mem::take(segment);
            // Not free yet, and nothing to be cleaned.
            segment.usage = Use::Open;
            if let Some(segment) = self.segments.get_mut(to as usize) {
                *segment = moved;
            }
        }
        self.log.insert(serial, to);
        true
    }

    /// A segment that doesn't take what it was to hold is free again, after all others.
    pub fn vacate(&mut self, number: u32) {
        self.vacated.retain(|other| other.segment != number);
        if let Some(segment) = self.segments.get_mut(number as usize) {
            *segment = Segment::default();
        }
        self.free.push_back(number);
    }

    /// The segment to vacate next: one of which all is durable elsewhere.
    pub fn next_vacant(&self) -> Option<Vacated> {
        let is_durable = |vacated: &Vacated| {
            let mut images = [&self.open, &self.sealing].into_iter().flatten();
            images.all(|image| image.serial != vacated.serial || image.durable >= vacated.end)
        };
        self.vacated.iter().copied().find(is_durable)
    }

    /// The image that a place is in, while its segment is in memory.
    pub fn image(&self, place: Place) -> Option<&Image> {
        let (segment, _) = self.layout.locate(place.offset());
        [&self.open, &self.sealing]
            .into_iter()
            .flatten()
            .find(|image| image.segment == segment)
    }

    /// The place of a key or piece.
    pub fn find(&self, hash: KeyHash) -> Option<Place> {
        let word = self
            .index
            .find(hash.slot, |word| Place::from_word(word).check() == hash.check);
        word.map(Place::from_word)
    }

    /// The oldest segment in use.
    pub fn oldest_serial(&self) -> u64 {
        self.log.first_key_value().map_or(u64::MAX, |(&serial, _)| serial)
    }

    fn segment_of(&mut self, place: Place) -> Option<&mut Segment> {
        let (segment, _) = self.layout.locate(place.offset());
        self.segments.get_mut(segment as usize)
    }

    fn count_live(&mut self, place: Place) {
        let weight = weight(place);
        self.live_bytes += weight;
        self.keys += u64::from(place.class() != Class::Piece);
        if let Some(segment) = self.segment_of(place) {
            segment.live_bytes += weight;
            segment.live_records += 1;
        }
    }

    fn count_dead(&mut self, place: Place) {
        let weight = weight(place);
        self.live_bytes = self.live_bytes.saturating_sub(weight);
        self.keys = self.keys.saturating_sub(u64::from(place.class() != Class::Piece));
        if let Some(segment) = self.segment_of(place) {
            segment.live_bytes = segment.live_bytes.saturating_sub(weight);
            segment.live_records = segment.live_records.saturating_sub(1);
        }
    }

    /// Makes a place the key's; what was the key's before is dead.
    pub fn set(&mut self, hash: KeyHash, place: Place) {
        let same = |word| Place::from_word(word).check() == hash.check;
        match self.index.replace(hash.slot, place.word(), same) {
            Some(word) => self.bury(Place::from_word(word)),
            None => self.index.insert(hash.slot, place.word()),
        }
        self.count_live(place);
    }

    /// The key is no more; false when it was none.
    pub fn unset(&mut self, hash: KeyHash) -> bool {
        let same = |word| Place::from_word(word).check() == hash.check;
        match self.index.remove(hash.slot, same) {
            Some(word) => {
                self.bury(Place::from_word(word));
                true
            }
            None => false,
        }
    }

    /// Counts a record dead that the index no longer names, and with it the pieces of its value.
    fn bury(&mut self, place: Place) {
        self.count_dead(place);
        if place.class() == Class::Long
            && let Some(value) = self.longs.remove(&place.offset())
        {
            for number in 0..value.pieces() {
                self.unset(self.secret.piece(value.id, number));
            }
        }
    }

    /// A key has a long value.
    pub fn set_long(&mut self, hash: KeyHash, place: Place, value: LongValue) {
        // A record that was moved names the same pieces as the one before: they stay.
        if let Some(before) = self.find(hash)
            && before.class() == Class::Long
            && self
                .longs
                .get(&before.offset())
                .is_some_and(|long| long.id == value.id)
        {
            self.longs.remove(&before.offset());
        }
        self.set(hash, place);
        self.longs.insert(place.offset(), value);
    }

    /// No key is any more. What is staged stays.
    pub fn clear_all(&mut self, sequence: u64, serial: u64) {
        let staged: Vec<(KeyHash, Place)> = self
            .staging
            .values()
            .flat_map(|staging| {
                (0..staging.value.pieces()).map(|number| self.secret.piece(staging.value.id, number))
            })
            .filter_map(|hash| Some((hash, self.find(hash)?)))
            .collect();
        self.index.clear();
        self.longs.clear();
        self.keys = 0;
        self.live_bytes = 0;
        for segment in &mut self.segments {
            segment.live_bytes = 0;
            segment.live_records = 0;
        }
        for (hash, place) in staged {
            self.set(hash, place);
        }
        self.clear = (sequence, serial);
    }

    /// Counts a deletion that the open segment has got.
    pub fn count_deletion(&mut self, segment: u32, bytes: usize, from: u64) {
        if let Some(segment) = self.segments.get_mut(segment as usize) {
            segment.deletion_bytes += bytes as u64 + 32;
            segment.deletions_from = segment.deletions_from.max(from);
        }
    }

    /// Adds a record to the open segment and to the index. The key's hash is given where it is known.
    pub fn push(&mut self, head: Head, hash: KeyHash, key: &[u8], value: &[u8]) -> Result<Place, StoreError> {
        let image = self.open.as_mut().ok_or(StoreError::Device)?;
        let (segment, serial) = (image.segment, image.serial);
        let place = image.push(head, hash, key, value).ok_or(StoreError::Full)?;
        if head.flags & LOOSE == 0 {
            image.sequence = head.sequence;
        }
        match head.kind {
            Kind::Put | Kind::Piece => self.set(hash, place),
            Kind::PutLong => {
                let value = LongValue::decode(value).ok_or(StoreError::Malformed)?;
                self.set_long(hash, place, value);
            }
            Kind::Delete => {
                self.unset(hash);
                let from = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                self.count_deletion(segment, place.bytes(), from);
            }
            Kind::Clear => self.clear_all(head.sequence, serial),
            Kind::Nothing => {}
        }
        Ok(place)
    }

    /// Adds a piece of a long value.
    pub fn push_piece(&mut self, name: PieceName, bytes: &[u8]) -> Result<(), StoreError> {
        let head = Head {
            kind: Kind::Piece,
            flags: LAST | LOOSE,
            sequence: self.appended,
        };
        let hash = self.secret.piece(name.id, name.number);
        self.push(head, hash, &name.encode(), bytes).map(|_| ())
    }

    /// Does again what a record of an opened store did. `named` are the long values that a key has, `unnamed` the pieces of others so far.
    pub fn replay(&mut self, segment: u32, serial: u64, note: Note, unnamed: &mut Unnamed) {
        let at = self.layout.segment_start(segment) + note.offset as u64;
        let place = |class| Place::new(at, note.bytes, class, note.hash.check);
        match note.action {
            Action::Put => self.set(note.hash, place(Class::Value)),
            Action::PutLong(value) => {
                self.set_long(note.hash, place(Class::Long), value);
                for (number, piece) in unnamed.pieces.remove(&value.id).unwrap_or_default() {
                    self.set(self.secret.piece(value.id, number), piece);
                }
                unnamed.named.insert(value.id);
            }
            Action::Piece(name) if unnamed.named.contains(&name.id) => {
                // Of a value that was dropped since, it is nobody's: the index has no such piece any more, or the last check removes it.
                self.set(note.hash, place(Class::Piece));
            }
            Action::Piece(name) => {
                let pieces = unnamed.pieces.entry(name.id).or_default();
                pieces.insert(name.number, place(Class::Piece));
            }
            Action::Delete(from) => {
                self.unset(note.hash);
                self.count_deletion(segment, note.bytes, from);
            }
            Action::Clear(sequence) => self.clear_all(sequence, serial),
            Action::Nothing => {}
        }
    }
}

/// While a store is opened: which long values have a key, and the pieces of those that have none yet.
#[derive(Debug, Default)]
pub struct Unnamed {
    /// Long values that a key had.
    pub named: BTreeSet<u64>,
    /// Pieces of others.
    pub pieces: BTreeMap<u64, BTreeMap<u32, Place>>,
}
