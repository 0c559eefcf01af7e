//! Cleaning: the live records of a segment are appended again, and the segment is free.
//!
//! The segment to clean is the one where it wins most for its cost: cost-benefit as in Rosenblum and Ousterhout's log-structured file system (1992),
//! or the emptiest when space is needed at once. A segment is freed on the disk, by a header that says so, only when the copies are
//! durable.
//!
//! A deletion has to stay as long as an older segment may hold a record of its key: until every segment up to the one that it was first
//! in is gone, or the key has come back. When deletions take much room the oldest segment is cleaned, whatever it holds, so that this comes.
//! A `Clear` stays where it is until no older segment is left; those have nothing live and are free for the asking.

use crate::disk::Disk;
use crate::engine::{Engine, Purpose, store_error};
use crate::image::Room;
use crate::layout::Header;
use crate::record::{Head, Kind, LAST, LOOSE, Record, Seed};
use crate::state::{RESERVED_FOR_DELETIONS, Segment, State, Use};
use crate::walk::{Step, hash_of, step};
use crate::write_out::{Goal, Waiter, wake_all};
use alloc::vec::Vec;
use domain_rt::thread;
use interface::key_value::StoreError;

/// Bytes of records that are moved with the lock held.
const MOVED_AT_ONCE_BYTES: usize = 32 << 10;
/// Of a segment, the sixteenth parts that must be won for cleaning it to be worth it.
const LEAST_GAIN: u64 = 1;

impl State {
    fn segment_capacity(&self) -> u64 {
        u64::from(self.layout.segment_bytes - 2 * self.layout.block_bytes)
    }

    /// The oldest segment in use but for this one.
    fn oldest_but(&self, serial: u64) -> u64 {
        let mut serials = self.log.keys().copied();
        serials.find(|&other| other != serial).unwrap_or(u64::MAX)
    }

    /// What cleaning a segment would have to copy.
    fn cost(&self, segment: &Segment) -> u64 {
        let keeps_deletions = self.oldest_but(segment.serial) <= segment.deletions_from;
        segment.live_bytes
            + if keeps_deletions {
                segment.deletion_bytes
            } else {
                0
            }
    }

    /// The segment to clean: the emptiest if space is needed at once.
    fn choose(&self, at_once: bool) -> Option<u32> {
        let capacity = self.segment_capacity();
        let candidates = self.log.values().filter_map(|&number| {
            let segment = self.segments.get(number as usize)?;
            let is_it = segment.usage == Use::Sealed && !segment.is_stuck;
            is_it.then_some((number, segment))
        });
        let newest = self.next_serial;
        let best = candidates
            .clone()
            .map(|(number, segment)| (number, self.cost(segment), newest - segment.serial))
            .filter(|&(_, cost, _)| cost + capacity / 16 * LEAST_GAIN <= capacity)
            .max_by_key(|&(_, cost, age)| {
                let gain = capacity - cost;
                if at_once {
                    gain
                } else {
                    gain * age.min(1 << 20) / (capacity + cost)
                }
            })
            .map(|(number, ..)| number);
        let oldest = candidates.map(|(number, _)| number).next();
        let deletions: u64 = self.segments.iter().map(|segment| segment.deletion_bytes).sum();
        let used = (self.segments.len() - self.free.len()) as u64 * capacity;
        if deletions > used / 4 {
            // Without this the deletions would stay for as long as there is one old record.
            return oldest;
        }
        let holds_clear = |number: u32| {
            let segment = self.segments.get(number as usize);
            segment.is_some_and(|segment| {
                segment.serial == self.clear.1 && self.oldest_but(segment.serial) < self.clear.1
            })
        };
        match best {
            Some(number) if holds_clear(number) => oldest,
            best => best,
        }
    }

    /// Whether cleaning should go on in the background: an eighth of the segments are to be free.
    pub fn wants_cleaning(&self) -> bool {
        let wanted = (self.segments.len() / 8).max(RESERVED_FOR_DELETIONS + 2);
        self.free.len() < wanted
    }

    /// Whether a record of a segment that is being cleaned has to be kept.
    fn must_keep(&self, record: &Record<'_>, at: u64, serial: u64) -> bool {
        let Some(hash) = hash_of(self.secret, record) else {
            return false;
        };
        match record.head.kind {
            Kind::Delete => {
                let from = record
                    .value
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes));
                self.find(hash).is_none() && self.oldest_but(serial) <= from
            }
            _ => self.find(hash).is_some_and(|place| place.offset() == at),
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Cleans a segment, or waits for the thread that does; false when there is nothing to win.
    pub(crate) fn clean_or_wait(&self) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        if state.cleaning {
            state.waiters.push(Waiter {
                thread: thread::id(),
                goal: None,
            });
            drop(state);
            self.wait()?;
            return Ok(true);
        }
        drop(state);
        self.clean(true)
    }

    /// Cleans the best segment; false when there is none worth it, or another thread is cleaning.
    pub fn clean(&self, at_once: bool) -> Result<bool, StoreError> {
        let (number, segment) = {
            let mut state = self.state.lock();
            if state.cleaning {
                return Ok(false);
            }
            let Some(number) = state.choose(at_once) else {
                return Ok(false);
            };
            let Some(segment) = state.segments.get(number as usize).copied() else {
                return Ok(false);
            };
            state.cleaning = true;
            (number, segment)
        };
        let result = self.clean_segment(number, segment);
        let mut state = self.state.lock();
        state.cleaning = false;
        wake_all(state);
        result.map(|()| true)
    }

    fn clean_segment(&self, number: u32, segment: Segment) -> Result<(), StoreError> {
        let start = self.layout.segment_start(number);
        if segment.live_records > 0 || segment.deletion_bytes > 0 {
            let mut bytes = alloc::vec![0; self.layout.round_up(segment.end)];
            self.runs.read(start, &mut bytes).map_err(store_error)?;
            bytes.truncate(segment.end);
            self.move_records(&bytes, number, segment.serial)?;
            self.write_out(Goal::AllDurable)?;
        } else {
            // What made its records dead must not be lost with them gone.
            self.write_out(Goal::AllDurable)?;
        }
        let is_empty = {
            let mut state = self.state.lock();
            let segment = state.segments.get_mut(number as usize);
            segment.is_some_and(|segment| {
                // Records that can't be read any more stay where they are, for whoever asks for them to be told.
                segment.is_stuck = segment.live_records > 0;
                !segment.is_stuck
            })
        };
        if !is_empty {
            return Ok(());
        }
        let mut header = alloc::vec![0; self.layout.block_bytes as usize];
        Header::encode_free(self.layout.store, segment.serial).write_to(&mut header);
        self.runs.write(start, &header, true).map_err(store_error)?;
        let mut state = self.state.lock();
        state.log.remove(&segment.serial);
        if let Some(segment) = state.segments.get_mut(number as usize) {
            *segment = Segment::default();
        }
        state.free.push_back(number);
        state.counters.cleaned_segments += 1;
        state.counters.written_bytes += header.len() as u64;
        Ok(())
    }

    fn move_records(&self, bytes: &[u8], number: u32, serial: u64) -> Result<(), StoreError> {
        let start = self.layout.segment_start(number);
        let seed = Seed::new(self.layout.store, serial);
        let mut offset = self.layout.block_bytes as usize;
        let mut group = Vec::new();
        let mut room = Room::default();
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let length = match step(&self.layout, seed, offset, rest) {
                Step::Record(record, length) => {
                    room.add(record.head.kind, record.key.len(), record.value.len());
                    group.push((record, start + offset as u64));
                    length
                }
                Step::Padding(length) => length,
                Step::Damage(_) | Step::Cut => {
                    self.behind_damage((number, serial), seed, offset, bytes) - offset
                }
            };
            offset += length;
            if room.bytes >= MOVED_AT_ONCE_BYTES || offset >= bytes.len() {
                self.move_group(&group, room, serial)?;
                group.clear();
                room = Room::default();
                thread::heartbeat();
            }
        }
        self.move_group(&group, room, serial)
    }

    fn move_group(&self, group: &[(Record<'_>, u64)], room: Room, serial: u64) -> Result<(), StoreError> {
        let is_kept = {
            let state = self.state.lock();
            group
                .iter()
                .any(|(record, at)| state.must_keep(record, *at, serial))
        };
        if !is_kept {
            return Ok(());
        }
        self.with_room(Purpose::Cleaning, room, |state| {
            for (record, at) in group {
                if !state.must_keep(record, *at, serial) {
                    continue;
                }
                let Some(hash) = hash_of(state.secret, record) else {
                    continue;
                };
                let head = Head {
                    flags: LAST | LOOSE,
                    ..record.head
                };
                // The index has the key, or it is a deletion: no room is needed there.
                let place = state.push(head, hash, record.key, record.value)?;
                state.counters.cleaned_bytes += place.bytes() as u64;
            }
            Ok(())
        })
    }

    /// Cleans until the segments in use are no more than their live records need, and one.
    pub fn compact(&self) -> Result<(), StoreError> {
        let most = self.layout.segments * 2;
        for _ in 0..most {
            {
                let state = self.state.lock();
                let used = (state.segments.len() - state.free.len()) as u64;
                let deletions: u64 = state.segments.iter().map(|segment| segment.deletion_bytes).sum();
                let needed = (state.live_bytes + deletions).div_ceil(state.segment_capacity());
                if used <= needed + 1 {
                    return Ok(());
                }
            }
            if !self.clean_or_wait()? {
                return Ok(());
            }
        }
        Ok(())
    }
}
