//! One CPU's connection table: which backend a flow has been given.
//!
//! A fixed number of buckets, each one cache line with six entries, and two buckets a flow may be in. An entry is known
//! by 32 bits of the flow's hash besides those that choose the bucket, so two flows are taken for one with a probability
//! of about 2^-29 a lookup; the later one then shares the earlier one's backend, which harms neither. When both buckets
//! are full of live connections, a flow isn't remembered and is served from the lookup table alone (the paper's section
//! 3.3), so a flood costs stickiness over changes of backends, never service. Before that happens, entries of
//! connections that are only being opened make way, so a flood of SYNs displaces itself and not the established.
//!
//! Entries end by expiry only: when they are found expired, when their place is needed, or when the sweep passes. Whether
//! a remembered backend still exists is for the caller to say (`balancer.rs`). Nothing here allocates after creation. The
//! table outlives its domain (`takeover`).

mod takeover;

use rref::{Exchange, OutOfMemory, Plain, Share, SharedSlice};

use crate::table::BackendSlot;

pub use takeover::discard;

/// Entries in a bucket, as many as fit a cache line.
pub const BUCKET_ENTRIES: usize = 6;

/// One incarnation of a backend's slot: the slot's next tenant has another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share, Plain)]
#[repr(C)]
pub struct BackendRef {
    /// Index into the balancer's list.
    pub slot: BackendSlot,
    /// Which tenant of the slot.
    pub incarnation: u16,
}

/// A connection's state, as far as one who sees only the client's half can know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// A SYN was seen, and nothing since.
    Opening = 1,
    /// Packets are flowing.
    Established = 2,
    /// The client sent a FIN or RST.
    Closing = 3,
}

/// Time in whole seconds, modulo 2^14: what fits an entry beside its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(u16);

const TICK_MASK: u16 = 0x3fff;

/// The longest timeout, in seconds. Deadlines further ahead are taken for past ones, so the rest of [`Tick`]'s range, 8,384
/// seconds, is how late an expired entry may be swept.
pub const LONGEST_TIMEOUT_SECONDS: u16 = 8_000;

impl Tick {
    fn from_seconds(seconds: u64) -> Self {
        Self(seconds as u16 & TICK_MASK)
    }
}

/// An entry's state and the tick from which it no longer counts, in 16 bits; 0 is an empty entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share, Plain)]
#[repr(transparent)]
pub struct Life(u16);

impl Life {
    const EMPTY: Self = Self(0);

    /// A life in `state` that ends `timeout_seconds` from now; longer than [`LONGEST_TIMEOUT_SECONDS`] is that.
    #[inline(always)]
    #[must_use]
    pub fn new(state: FlowState, now: Tick, timeout_seconds: u16) -> Self {
        let deadline = now.0 + timeout_seconds.min(LONGEST_TIMEOUT_SECONDS);
        Self((state as u16) << 14 | (deadline & TICK_MASK))
    }

    /// The state, unless the entry is empty.
    #[inline(always)]
    #[must_use]
    pub fn state(self) -> Option<FlowState> {
        match self.0 >> 14 {
            1 => Some(FlowState::Opening),
            2 => Some(FlowState::Established),
            3 => Some(FlowState::Closing),
            _ => None,
        }
    }

    /// The state as a number below 4; 0 is empty.
    #[inline(always)]
    #[must_use]
    pub fn state_number(self) -> usize {
        usize::from(self.0 >> 14)
    }

    /// Seconds until the deadline; 0 when it has passed.
    #[inline(always)]
    fn remaining_seconds(self, now: Tick) -> u16 {
        let remaining = (self.0.wrapping_sub(now.0)) & TICK_MASK;
        if remaining > LONGEST_TIMEOUT_SECONDS {
            0
        } else {
            remaining
        }
    }

    #[inline(always)]
    fn is_alive(self, now: Tick) -> bool {
        self.0 >> 14 != 0 && self.remaining_seconds(now) != 0
    }
}

/// One cache line of the table. All zeroes is empty.
#[derive(Clone, Copy, Debug, Default, Exchange, Share, Plain)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; BUCKET_ENTRIES],
    backends: [BackendRef; BUCKET_ENTRIES],
    lives: [Life; BUCKET_ENTRIES],
    /// How many flows whose first bucket is this one live in their second: if 0, nobody need look there.
    spilled: u16,
    /// Which entries are in their second bucket, one bit each.
    guests: u8,
    unused: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// The entry with `tag` that is alive.
    #[inline(always)]
    fn find(&self, tag: u32, now: Tick) -> Option<usize> {
        let mut matches = prefetch::equal_words(&self.tags, tag);
        while matches != 0 {
            let way = matches.trailing_zeros() as usize;
            if self.lives.get(way).is_some_and(|life| life.is_alive(now)) {
                return Some(way);
            }
            matches &= matches - 1;
        }
        None
    }

    /// An entry that is empty or expired.
    #[inline(always)]
    fn vacancy(&self, now: Tick) -> Option<usize> {
        self.lives.iter().position(|life| !life.is_alive(now))
    }

    /// Of the connections that are being opened, the one that has waited longest.
    fn oldest_opening(&self, now: Tick) -> Option<usize> {
        let opening = self
            .lives
            .iter()
            .enumerate()
            .filter(|(_, life)| life.state() == Some(FlowState::Opening));
        opening
            .min_by_key(|(_, life)| life.remaining_seconds(now))
            .map(|(way, _)| way)
    }
}

/// The number of entries that a table is made for cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// Not a power of two.
    #[error("{entries} is not a power of two")]
    NotPowerOfTwo {
        /// The number asked for.
        entries: u32,
    },
    /// Outside of [`Capacity::SMALLEST`] to [`Capacity::LARGEST`].
    #[error("{entries} is not between {smallest} and {largest}", smallest = Capacity::SMALLEST, largest = Capacity::LARGEST)]
    OutOfRange {
        /// The number asked for.
        entries: u32,
    },
}

/// The number of connections that a table is made for: a power of two.
///
/// The table gets a quarter as many buckets, and so half as many places again: with as many connections as it was made
/// for it is two thirds full, and all of them find a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity(u32);

impl Capacity {
    /// The smallest table: 16 KiB.
    pub const SMALLEST: u32 = 1 << 10;
    /// The largest table: 256 MiB.
    pub const LARGEST: u32 = 1 << 24;

    /// Checks a number of entries that an operator asks for.
    ///
    /// # Errors
    /// When it is not a power of two or out of range.
    pub fn new(entries: u32) -> Result<Self, CapacityError> {
        if !(Self::SMALLEST..=Self::LARGEST).contains(&entries) {
            Err(CapacityError::OutOfRange { entries })
        } else if !entries.is_power_of_two() {
            Err(CapacityError::NotPowerOfTwo { entries })
        } else {
            Ok(Self(entries))
        }
    }

    /// The number of connections.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    fn buckets(self) -> usize {
        self.0 as usize / 4
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self(1 << 18)
    }
}

/// What has happened in a table since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStatistics {
    /// Entries in use, those that have expired since the sweep last passed included.
    pub entries: u64,
    /// Flows that found no place.
    pub overflowed: u64,
    /// Connections being opened that made way for others.
    pub displaced: u64,
}

/// Buckets that one batch sweeps when there is sweeping to do.
const SWEEP_PER_BATCH: usize = 8;

/// The sweep passes the whole table once in as many seconds. If the clock jumps by less than
/// [`LONGEST_TIMEOUT_SECONDS`], no expired entry is then older than that and this together, so none looks alive again.
const SWEEP_PERIOD_SECONDS: usize = 64;

/// One CPU's memory of flows.
#[derive(Debug)]
pub struct ConnectionTable {
    buckets: SharedSlice<Bucket>,
    mask: usize,
    now: Tick,
    now_seconds: u64,
    /// The bucket that the sweep comes to next.
    sweep_next: usize,
    /// Buckets that the sweep owes for the time that has passed.
    sweep_owed: usize,
    statistics: TableStatistics,
}

/// A live entry, found by [`ConnectionTable::find`].
#[derive(Debug)]
pub struct Entry<'a> {
    bucket: &'a mut Bucket,
    way: usize,
}

impl Entry<'_> {
    /// The backend that the flow was given.
    #[inline(always)]
    #[must_use]
    pub fn backend(&self) -> BackendRef {
        self.bucket.backends[self.way]
    }

    /// The flow's state and deadline.
    #[inline(always)]
    #[must_use]
    pub fn life(&self) -> Life {
        self.bucket.lives[self.way]
    }

    /// Sets state and deadline; leaves the cache line clean if they are as before.
    #[inline(always)]
    pub fn set_life(&mut self, life: Life) {
        let current = &mut self.bucket.lives[self.way];
        if *current != life {
            *current = life;
        }
    }

    /// Gives the flow another backend.
    pub fn set_backend(&mut self, backend: BackendRef) {
        self.bucket.backends[self.way] = backend;
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl ConnectionTable {
    /// An empty table for as many connections as `capacity` says.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(capacity: Capacity) -> Result<Self, OutOfMemory> {
        let buckets = SharedSlice::zeroed(capacity.buckets())?;
        let mask = buckets.len() - 1;
        Ok(Self {
            buckets,
            mask,
            now: Tick(0),
            now_seconds: 0,
            sweep_next: 0,
            sweep_owed: 0,
            statistics: TableStatistics::default(),
        })
    }

    /// What has happened so far.
    #[must_use]
    pub fn statistics(&self) -> TableStatistics {
        self.statistics
    }

    /// The time that entries are measured against.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Sets the time and sweeps a little: called once a batch. Time that goes backwards is ignored.
    #[inline]
    pub fn advance(&mut self, now_seconds: u64) {
        if now_seconds > self.now_seconds {
            self.advance_tick(now_seconds);
        }
        if self.sweep_owed > 0 {
            self.sweep(SWEEP_PER_BATCH);
        }
    }

    #[cold]
    fn advance_tick(&mut self, now_seconds: u64) {
        let elapsed = now_seconds - self.now_seconds;
        // Little traffic leaves a debt; it is paid before it can grow, at a time when nobody waits.
        self.sweep(self.sweep_owed);
        self.now_seconds = now_seconds;
        self.now = Tick::from_seconds(now_seconds);
        if elapsed >= u64::from(LONGEST_TIMEOUT_SECONDS) {
            // Not one packet for longer than any entry lives.
            self.clear();
        } else {
            let periods = elapsed as usize * self.buckets.len() / SWEEP_PERIOD_SECONDS;
            self.sweep_owed = periods.min(self.buckets.len());
        }
    }

    /// Forgets all flows.
    pub fn clear(&mut self) {
        self.buckets.fill(Bucket::default());
        self.sweep_owed = 0;
        self.statistics.entries = 0;
    }

    fn sweep(&mut self, buckets: usize) {
        for _ in 0..buckets.min(self.sweep_owed) {
            let index = self.sweep_next & self.mask;
            self.sweep_next = index + 1;
            self.sweep_owed -= 1;
            let Some(bucket) = self.buckets.get_mut(index) else {
                return;
            };
            let (mut vacated, mut guests) = (0, 0_u8);
            for (way, life) in bucket.lives.iter_mut().enumerate() {
                let is_guest = bucket.guests >> way & 1;
                if *life != Life::EMPTY && !life.is_alive(self.now) {
                    // What a guest's leaving takes concerns another bucket.
                    guests |= is_guest << way;
                    if is_guest == 0 {
                        *life = Life::EMPTY;
                        vacated += 1;
                    }
                }
            }
            self.statistics.entries -= vacated;
            while guests != 0 {
                self.vacate(index, guests.trailing_zeros() as usize);
                guests &= guests - 1;
            }
        }
    }

    /// Starts bringing a flow's first bucket into the cache.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.first_bucket(hash)) {
            prefetch::prefetch(bucket);
        }
    }

    #[inline(always)]
    fn first_bucket(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    /// The other bucket of a flow that has `bucket` as one of its two.
    #[inline(always)]
    fn other_bucket(&self, bucket: usize, tag: u32) -> usize {
        // Odd, so it is never the same bucket; multiplied, so that it depends on all of the tag.
        let distance = (tag.wrapping_mul(0x9e37_79b1) >> 7) | 1;
        (bucket ^ distance as usize) & self.mask
    }

    /// The backend of a flow whose entry is in its first bucket with a life that `is_settled`: the usual case, in which nothing changes.
    ///
    /// Doesn't look at what that life says: `is_settled` must be true of live ones only. Whoever isn't found here may be found by
    /// [`find`](Self::find).
    #[inline(always)]
    #[must_use]
    pub fn find_settled(&self, hash: u64, is_settled: impl Fn(Life) -> bool) -> Option<BackendRef> {
        let bucket = self.buckets.get(self.first_bucket(hash))?;
        let matches = prefetch::equal_words(&bucket.tags, tag_of(hash));
        let way = matches.trailing_zeros() as usize;
        let (life, backend) = (bucket.lives.get(way)?, bucket.backends.get(way)?);
        is_settled(*life).then_some(*backend)
    }

    /// A flow's entry, if it has a live one.
    #[inline(always)]
    pub fn find(&mut self, hash: u64) -> Option<Entry<'_>> {
        let (tag, now) = (tag_of(hash), self.now);
        let first = self.first_bucket(hash);
        if let Some(way) = self.buckets[first].find(tag, now) {
            return Some(Entry {
                bucket: &mut self.buckets[first],
                way,
            });
        }
        if self.buckets[first].spilled == 0 {
            return None;
        }
        let second = self.other_bucket(first, tag);
        let way = self.buckets[second].find(tag, now)?;
        Some(Entry {
            bucket: &mut self.buckets[second],
            way,
        })
    }

    /// Remembers a flow's backend, in place of what was remembered of it; false if there is no place for it.
    pub fn remember(&mut self, hash: u64, backend: BackendRef, life: Life) -> bool {
        match self.find(hash) {
            Some(mut entry) => {
                entry.set_backend(backend);
                entry.set_life(life);
                true
            }
            None => self.insert(hash, backend, life),
        }
    }

    /// Remembers a flow that [`find`](Self::find) has just not found; false if there is no place for it.
    #[inline(always)]
    pub fn insert(&mut self, hash: u64, backend: BackendRef, life: Life) -> bool {
        let first = self.first_bucket(hash);
        match self.buckets[first].vacancy(self.now) {
            Some(way) => {
                self.occupy(first, way, tag_of(hash), backend, life);
                true
            }
            None => self.insert_elsewhere(first, tag_of(hash), backend, life),
        }
    }

    #[cold]
    fn insert_elsewhere(&mut self, first: usize, tag: u32, backend: BackendRef, life: Life) -> bool {
        let second = self.other_bucket(first, tag);
        if let Some(way) = self.guest_vacancy(first, second) {
            self.occupy_as_guest(first, second, way, tag, backend, life);
            return true;
        }
        if let Some(way) = self.move_one_away(first) {
            self.occupy(first, way, tag, backend, life);
            return true;
        }
        match self.buckets[first].oldest_opening(self.now) {
            Some(way) => {
                self.statistics.displaced += 1;
                self.occupy(first, way, tag, backend, life);
                true
            }
            None => {
                self.statistics.overflowed += 1;
                false
            }
        }
    }

    /// A free place in bucket `second` for a flow whose first bucket is `first`.
    fn guest_vacancy(&self, first: usize, second: usize) -> Option<usize> {
        // A bucket whose count is at its end takes no more, or `vacate` couldn't keep it true.
        let may_spill = self.buckets[first].spilled < u16::MAX;
        self.buckets[second].vacancy(self.now).filter(|_| may_spill)
    }

    fn occupy_as_guest(
        &mut self,
        first: usize,
        second: usize,
        way: usize,
        tag: u32,
        backend: BackendRef,
        life: Life,
    ) {
        self.occupy(second, way, tag, backend, life);
        self.buckets[second].guests |= 1 << way;
        self.buckets[first].spilled += 1;
    }

    /// Makes room in a full bucket by moving one of its entries to the other bucket that it may be in.
    fn move_one_away(&mut self, index: usize) -> Option<usize> {
        for way in 0..BUCKET_ENTRIES {
            let Bucket {
                tags,
                backends,
                lives,
                guests,
                ..
            } = self.buckets[index];
            let other = self.other_bucket(index, tags[way]);
            if guests & 1 << way != 0 {
                // It goes home.
                let Some(place) = self.buckets[other].vacancy(self.now) else {
                    continue;
                };
                self.occupy(other, place, tags[way], backends[way], lives[way]);
            } else {
                let Some(place) = self.guest_vacancy(index, other) else {
                    continue;
                };
                self.occupy_as_guest(index, other, place, tags[way], backends[way], lives[way]);
            }
            // Last, so that a death in between forgets nothing.
            self.vacate(index, way);
            return Some(way);
        }
        None
    }

    #[inline(always)]
    fn occupy(&mut self, index: usize, way: usize, tag: u32, backend: BackendRef, life: Life) {
        if self.buckets[index].lives[way] != Life::EMPTY {
            self.vacate(index, way);
        }
        let bucket = &mut self.buckets[index];
        bucket.tags[way] = tag;
        bucket.backends[way] = backend;
        bucket.lives[way] = life;
        self.statistics.entries += 1;
    }

    #[inline(always)]
    fn vacate(&mut self, index: usize, way: usize) {
        let bucket = &mut self.buckets[index];
        bucket.lives[way] = Life::EMPTY;
        if bucket.guests & 1 << way != 0 {
            bucket.guests &= !(1 << way);
            let tag = bucket.tags[way];
            let first = self.other_bucket(index, tag);
            self.buckets[first].spilled -= 1;
        }
        self.statistics.entries -= 1;
    }
}

#[cfg(test)]
#[path = "connection_table_tests.rs"]
mod tests;
