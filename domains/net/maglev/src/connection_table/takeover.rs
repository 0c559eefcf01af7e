//! A table that outlives its domain: left at a death, checked and repaired by the next incarnation.
//!
//! The death may have come at any instruction, in the middle of any change. Whatever the bytes are, what this makes of them is a table on
//! which every operation is sound and counts right; and but for the flow that was being changed, it knows what it knew. So nothing that the
//! table could derive is believed: counts of spilled flows and of entries are made afresh, and expired entries go.

use rref::{SharedSlice, Tag};

use super::{BUCKET_ENTRIES, Capacity, ConnectionTable, Life, TableStatistics, Tick};

/// Changes with the meaning of a bucket's bytes.
const LAYOUT: u16 = 1;

/// The bits of `guests` that stand for an entry.
const ALL_ENTRIES: u8 = (1 << BUCKET_ENTRIES) - 1;

/// By which the next incarnation finds the table of a CPU.
fn tag(cpu: u16) -> Tag {
    Tag::new(*b"MGLT", LAYOUT, cpu)
}

/// Frees tables of up to `cpus` CPUs that were left and nobody has taken.
pub fn discard(cpus: u16) {
    for cpu in 0..cpus {
        while SharedSlice::<u8>::inherit(tag(cpu)).is_some() {}
    }
}

impl ConnectionTable {
    /// Leaves the table to the next incarnation, as that of `cpu`.
    pub fn bequeath(&mut self, cpu: u16) {
        self.buckets.bequeath(tag(cpu));
    }

    /// Does what the death of the host's domain would.
    #[cfg(test)]
    pub(crate) fn die(self) {
        host_platform::leave(self.buckets);
    }

    /// The table that was left for `cpu`; `None` if there is none of this capacity.
    ///
    /// `now_seconds` is of the clock that it was used with, and at most
    /// [`LONGEST_TIMEOUT_SECONDS`](super::LONGEST_TIMEOUT_SECONDS) after it was last used.
    #[must_use]
    pub fn inherit(cpu: u16, capacity: Capacity, now_seconds: u64) -> Option<Self> {
        let buckets = SharedSlice::inherit(tag(cpu))?;
        if buckets.len() != capacity.buckets() {
            return None;
        }
        let mut table = Self {
            mask: buckets.len() - 1,
            buckets,
            now: Tick::from_seconds(now_seconds),
            now_seconds,
            sweep_next: 0,
            sweep_owed: 0,
            statistics: TableStatistics::default(),
        };
        table.check_entries();
        Some(table)
    }

    /// Drops expired entries, and sets right what follows from the others.
    fn check_entries(&mut self) {
        let (now, mut entries, mut has_guests) = (self.now, 0, false);
        for bucket in self.buckets.iter_mut() {
            bucket.spilled = 0;
            if bucket.lives == [Life::EMPTY; BUCKET_ENTRIES] {
                bucket.guests = 0;
                continue;
            }
            let mut taken = 0;
            for (way, life) in bucket.lives.iter_mut().enumerate() {
                if life.is_alive(now) {
                    taken |= 1 << way;
                } else {
                    *life = Life::EMPTY;
                }
            }
            bucket.guests &= taken & ALL_ENTRIES;
            has_guests |= bucket.guests != 0;
            entries += u64::from(taken.count_ones());
        }
        self.statistics.entries = entries;
        if has_guests {
            self.count_guests();
        }
    }

    /// Counts for each bucket the flows that are in their second one. It counts to `u16::MAX`; were there more, they are forgotten.
    fn count_guests(&mut self) {
        for index in 0..self.buckets.len() {
            let mut guests = self.buckets[index].guests;
            while guests != 0 {
                let way = guests.trailing_zeros() as usize;
                guests &= guests - 1;
                let first = self.other_bucket(index, self.buckets[index].tags[way]);
                if self.buckets[first].spilled == u16::MAX {
                    self.buckets[index].guests &= !(1 << way);
                    self.buckets[index].lives[way] = Life::EMPTY;
                    self.statistics.entries -= 1;
                } else {
                    self.buckets[first].spilled += 1;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
