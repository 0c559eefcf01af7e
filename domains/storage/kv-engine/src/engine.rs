//! The engine: groups are appended, committed and read.
//!
//! An append puts a group's records into the segment that is open in memory and their places into the index; then every read sees them. A
//! commit brings what is in memory to the disk. Of all threads that wait for it one writes out, for all of them: what was appended meanwhile
//! goes with the next write-out. A write-out that can be made durable by one forced command is; a larger one is followed by a flush. Where the
//! device has no volatile cache neither is needed.
//!
//! When the disk fails a write-out, it is tried again up to [`ATTEMPTS`](crate::disk::ATTEMPTS) times if that can help. Then the commits that waited for it fail; what they
//! were for is still in memory, is read as before, and goes out with the next commit that succeeds.

use crate::cache::Cache;
use crate::disk::{Disk, DiskError, Runs};
use crate::image::Room;
use crate::layout::Layout;
use crate::record::{Head, Kind, LAST, LongValue, PieceName};
use crate::scan::Window;
use crate::state::{RESERVED_FOR_CLEANING, RESERVED_FOR_DELETIONS, Staging, State};
use crate::write_out::Goal;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, ThreadId, Wake};
use interface::key_value::{Entry, Reader, StoreBuffer, StoreError, StoreStatistics, VALUE_LIMIT_BYTES};

/// Bytes that may be in memory only, beyond which an append writes out itself.
const UNWRITTEN_LIMIT_BYTES: usize = 512 << 10;
/// How long a thread waits for another's write-out before it looks again, in nanoseconds: only so that no lost wake-up can hold it for ever.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// What a store may take of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the index.
    pub index_bytes: usize,
    /// Of records that were read.
    pub cache_bytes: usize,
}

/// What opening it was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Bytes read.
    pub read_bytes: u64,
    /// Complete groups behind the longest valid prefix, and begun ones at its end.
    pub dropped_groups: u64,
    /// Bytes there.
    pub dropped_bytes: u64,
    /// Segments whose header or records are damaged.
    pub damaged_segments: u32,
    /// How long it took, milliseconds; for the opener to fill in.
    pub duration_ms: u64,
}

/// An open store.
pub struct Engine<D> {
    pub(crate) runs: Runs<D>,
    pub(crate) layout: Layout,
    pub(crate) state: Mutex<State>,
    pub(crate) cache: Mutex<Cache>,
    pub(crate) window: Mutex<Option<Window>>,
    opened: Opened,
}

/// What an append needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// New values.
    Values,
    /// Deletions only.
    Deletions,
    /// Cleaning.
    Cleaning,
}

pub(crate) fn store_error(error: DiskError) -> StoreError {
    match error {
        DiskError::OutOfMemory => StoreError::OutOfMemory,
        _ => StoreError::Device,
    }
}

/// What a group needs.
#[derive(Default)]
struct Demand {
    room: Room,
    entries: usize,
    insertions: usize,
    /// It names values that were staged.
    is_staged: bool,
}

impl Demand {
    fn of(group: &StoreBuffer) -> Result<Demand, StoreError> {
        let mut demand = Demand::default();
        if group.length as usize > group.data.len() {
            return Err(StoreError::Malformed);
        }
        for entry in Reader::new(group) {
            let (kind, key_bytes, value_bytes) = match entry.map_err(|_| StoreError::Malformed)? {
                Entry::Put { key, value } => (Kind::Put, key.len(), value.len()),
                Entry::PutStaged { key, .. } => {
                    demand.is_staged = true;
                    (Kind::PutLong, key.len(), LongValue::BYTES)
                }
                Entry::Delete { key } => (Kind::Delete, key.len(), 8),
                Entry::Clear => (Kind::Clear, 0, 0),
                Entry::Key { .. } => return Err(StoreError::Malformed),
            };
            demand.entries += 1;
            demand.insertions += usize::from(matches!(kind, Kind::Put | Kind::PutLong));
            demand.room.add(kind, key_bytes, value_bytes);
        }
        // A group that changes nothing has a record too.
        demand.room.add(Kind::Nothing, 0, 0);
        Ok(demand)
    }
}

impl<D: Disk> Engine<D> {
    pub(crate) fn from_parts(runs: Runs<D>, state: State, limits: Limits, opened: Opened) -> Engine<D> {
        Engine {
            runs,
            layout: state.layout,
            state: Mutex::new(state),
            cache: Mutex::new(Cache::new(limits.cache_bytes)),
            window: Mutex::new(None),
            opened,
        }
    }

    /// What opening it was like.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Appends a group; its number.
    ///
    /// # Errors
    /// [`StoreError::Malformed`], [`StoreError::NotFound`] for a value that wasn't staged as a whole, [`StoreError::Full`],
    /// [`StoreError::OutOfMemory`] and [`StoreError::Device`]. Then nothing of the group is there.
    pub fn append(&self, group: &StoreBuffer) -> Result<u64, StoreError> {
        let demand = Demand::of(group)?;
        let purpose = match demand.insertions {
            0 => Purpose::Deletions,
            _ => Purpose::Values,
        };
        self.with_room(purpose, demand.room, |state| {
            state
                .index
                .reserve(demand.insertions)
                .map_err(|_| StoreError::OutOfMemory)?;
            if demand.is_staged {
                Self::check_staged(state, group)?;
            }
            let sequence = state.appended + 1;
            let mut ended = false;
            for (index, entry) in Reader::new(group).flatten().enumerate() {
                let flags = if index + 1 == demand.entries { LAST } else { 0 };
                ended = Self::push_entry(state, entry, sequence, flags)?;
            }
            if !ended {
                let head = Head {
                    kind: Kind::Nothing,
                    flags: LAST,
                    sequence,
                };
                let hash = state.secret.hash(&[]);
                state.push(head, hash, &[], &[])?;
            }
            state.appended = sequence;
            state.counters.groups += 1;
            Ok(sequence)
        })
    }

    /// Every value that the group names must have been staged, as long as it says, and be named once.
    fn check_staged(state: &State, group: &StoreBuffer) -> Result<(), StoreError> {
        let staged = |entry| match entry {
            Entry::PutStaged {
                value, value_bytes, ..
            } => Some((value, value_bytes)),
            _ => None,
        };
        for (index, (value, value_bytes)) in Reader::new(group).flatten().filter_map(staged).enumerate() {
            let staging = state.staging.get(&value).ok_or(StoreError::NotFound)?;
            if staging.value.bytes != value_bytes {
                return Err(StoreError::Malformed);
            }
            let mut before = Reader::new(group).flatten().filter_map(staged).take(index);
            if before.any(|(other, _)| other == value) {
                return Err(StoreError::NotFound);
            }
        }
        Ok(())
    }

    /// Adds a group's entry; false when that took no record.
    #[inline]
    fn push_entry(state: &mut State, entry: Entry<'_>, sequence: u64, flags: u8) -> Result<bool, StoreError> {
        let head = |kind| Head {
            kind,
            flags,
            sequence,
        };
        match entry {
            Entry::Put { key, value } => {
                let hash = state.hasher.hash(key);
                state.push(head(Kind::Put), hash, key, value)?;
            }
            Entry::PutStaged { key, value, .. } => {
                let staging = state.staging.remove(&value).ok_or(StoreError::NotFound)?;
                let hash = state.hasher.hash(key);
                state.push(head(Kind::PutLong), hash, key, &staging.value.encode())?;
            }
            Entry::Delete { key } => {
                let hash = state.hasher.hash(key);
                if state.find(hash).is_none() {
                    return Ok(false);
                }
                let serial = state.open.as_ref().map_or(0, |image| image.serial);
                state.push(head(Kind::Delete), hash, key, &serial.to_le_bytes())?;
            }
            Entry::Clear => {
                let hash = state.secret.hash(&[]);
                state.push(head(Kind::Clear), hash, &[], &[])?;
            }
            Entry::Key { .. } => return Err(StoreError::Malformed),
        }
        Ok(true)
    }

    /// Keeps a piece of a long value; see [`interface::key_value::KeyValueStore::stage`].
    pub fn stage(&self, value: u64, offset: u64, piece: &[u8]) -> Result<(), StoreError> {
        let length = piece.len() as u64;
        if length == 0 || offset + length > VALUE_LIMIT_BYTES {
            return Err(StoreError::Malformed);
        }
        let mut room = Room::default();
        room.add(Kind::Piece, PieceName::BYTES, piece.len());
        self.with_room(Purpose::Values, room, |state| {
            state.index.reserve(1).map_err(|_| StoreError::OutOfMemory)?;
            if offset == 0 {
                Self::drop_staged(state, value);
                let id = state.next_value;
                state.next_value += 1;
                let fresh = Staging {
                    value: LongValue {
                        id,
                        bytes: 0,
                        piece_bytes: piece.len() as u32,
                    },
                    ended: false,
                };
                state.staging.insert(value, fresh);
            }
            let staging = state.staging.get_mut(&value).ok_or(StoreError::NotFound)?;
            let limit = u64::from(staging.value.piece_bytes);
            if staging.ended || staging.value.bytes != offset || length > limit {
                return Err(StoreError::Malformed);
            }
            let name = PieceName {
                id: staging.value.id,
                number: staging.value.pieces(),
            };
            staging.value.bytes += length;
            staging.ended = length < limit;
            state.push_piece(name, piece)
        })
    }

    fn drop_staged(state: &mut State, value: u64) {
        if let Some(staging) = state.staging.remove(&value) {
            for number in 0..staging.value.pieces() {
                state.unset(state.secret.piece(staging.value.id, number));
            }
        }
    }

    /// Does `work` with the lock held, when the open segment has this room.
    pub(crate) fn with_room<R>(
        &self,
        purpose: Purpose,
        room: Room,
        work: impl FnOnce(&mut State) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        loop {
            let mut state = self.state.lock();
            if purpose == Purpose::Values && state.live_bytes + room.total_bytes() > state.live_limit_bytes()
            {
                return Err(StoreError::Full);
            }
            let layout = state.layout;
            match &state.open {
                Some(image) if image.has_room(&layout, room) => {
                    let unwritten = image.tail - image.written.min(image.tail);
                    if unwritten < UNWRITTEN_LIMIT_BYTES {
                        return work(&mut state);
                    }
                    drop(state);
                    self.write_out(Goal::Written(UNWRITTEN_LIMIT_BYTES))?;
                }
                Some(_) if state.sealing.is_some() => {
                    drop(state);
                    self.write_out(Goal::Sealed)?;
                }
                _ => {
                    // The next segment before the end of this one, so that a full disk leaves it open for what still fits.
                    let reserved = match purpose {
                        Purpose::Values => RESERVED_FOR_DELETIONS,
                        Purpose::Deletions => RESERVED_FOR_CLEANING,
                        Purpose::Cleaning => 0,
                    };
                    if state.free.len() > reserved {
                        state.seal();
                        state.begin_segment(reserved);
                        if let Some(cleaner) = state.cleaner.filter(|_| state.wants_cleaning()) {
                            thread::unpark(cleaner);
                        }
                        continue;
                    }
                    drop(state);
                    if purpose == Purpose::Cleaning || !self.clean_or_wait()? {
                        return Err(StoreError::Full);
                    }
                }
            }
        }
    }

    /// Blocks until every group up to `sequence` is durable; the last that is.
    ///
    /// # Errors
    /// [`StoreError::Device`] when the disk fails: then it isn't known which of the groups since the last commit are durable.
    pub fn commit(&self, sequence: u64) -> Result<u64, StoreError> {
        let sequence = {
            let state = self.state.lock();
            if state.durable >= sequence {
                return Ok(state.durable);
            }
            sequence.min(state.appended)
        };
        self.write_out(Goal::Durable(sequence))
    }

    /// The last durable group.
    pub fn committed(&self) -> u64 {
        self.state.lock().durable
    }

    /// The last group.
    pub fn appended(&self) -> u64 {
        self.state.lock().appended
    }

    /// Waits for whoever writes out or cleans; `state` is unlocked meanwhile.
    ///
    /// # Errors
    /// When the domain that the thread came from is dead: it returns there at once.
    pub(crate) fn wait(&self) -> Result<(), StoreError> {
        match thread::park_until(domain_rt::clock::now_ns().saturating_add(LOOK_AGAIN_NS)) {
            Wake::Cancelled => Err(StoreError::Device),
            _ => Ok(()),
        }
    }

    /// The thread that is to be woken when segments run short.
    pub fn set_cleaner(&self, cleaner: ThreadId) {
        self.state.lock().cleaner = Some(cleaner);
    }

    /// How long opening took.
    pub fn set_opening_time(&mut self, duration_ms: u64) {
        self.opened.duration_ms = duration_ms;
    }

    /// Whether cleaning should go on in the background.
    pub fn wants_cleaning(&self) -> bool {
        self.state.lock().wants_cleaning()
    }

    /// Whether appends are about to wait for cleaning.
    pub fn is_short(&self) -> bool {
        self.state.lock().free.len() <= RESERVED_FOR_DELETIONS + 1
    }

    /// How the store is.
    pub fn statistics(&self) -> StoreStatistics {
        let state = self.state.lock();
        let capacity = u64::from(state.layout.segments) * u64::from(state.layout.segment_bytes);
        let free = state.free.len() as u32;
        StoreStatistics {
            keys: state.keys,
            live_bytes: state.live_bytes,
            used_bytes: u64::from(state.layout.segments - free) * u64::from(state.layout.segment_bytes),
            capacity_bytes: capacity,
            index_bytes: state.index.bytes() as u64,
            appended: state.appended,
            committed: state.durable,
            groups: state.counters.groups,
            flushes: state.counters.flushes,
            written_bytes: state.counters.written_bytes,
            cleaned_bytes: state.counters.cleaned_bytes,
            segments: state.layout.segments,
            free_segments: free,
            open_ms: self.opened.duration_ms,
            open_read_bytes: self.opened.read_bytes,
            scan_read_bytes: state.counters.scan_read_bytes,
            dropped_groups: self.opened.dropped_groups,
            dropped_bytes: self.opened.dropped_bytes,
        }
    }
}
