//! Databases as a whole: emptying and swapping them, what is left of keys that are gone, and what a start puts in.

use crate::journal::SPACES_KEY;
use crate::keyspace::{DATABASES, Database, Keyspace, Remains};
use crate::stable_map::Slot;
use crate::value::{Kind, Malformed, Value};
use alloc::vec::Vec;

impl Keyspace {
    /// Empties a database: how many keys it had.
    pub fn flush(&mut self, database: usize) -> usize {
        let (seed, space_number) = (self.random(), self.next_space);
        let Some(space) = self.databases.get_mut(database) else {
            return 0;
        };
        let count = space.keys.len();
        if count == 0 {
            return 0;
        }
        self.next_space += 1;
        let old = core::mem::replace(space, Database::new(space_number, seed));
        let counted: usize = old.keys.iter().map(|(.., entry)| entry.counted_bytes).sum();
        self.used_bytes = self.used_bytes.saturating_sub(counted);
        self.remains.push_back(Remains::Space(old.space, old.keys));
        self.touched_databases.push(database);
        self.journal_spaces();
        self.dirty += count as u64;
        count
    }

    /// Empties all databases.
    pub fn flush_all(&mut self) -> usize {
        (0..self.databases.len())
            .map(|database| self.flush(database))
            .sum()
    }

    /// Swaps two databases.
    pub fn swap(&mut self, first: usize, second: usize) {
        if first.max(second) < self.databases.len() {
            self.databases.swap(first, second);
            self.touched_databases.extend([first, second]);
            self.journal_spaces();
            self.dirty += 1;
        }
    }

    fn journal_spaces(&mut self) {
        let mut spaces = Vec::with_capacity(4 * DATABASES);
        for database in &self.databases {
            spaces.extend_from_slice(&database.space.to_le_bytes());
        }
        self.journal.put(SPACES_KEY, &spaces);
    }

    /// Removes up to `limit` elements of keys that are gone; whether there are more.
    pub fn remove_remains(&mut self, mut limit: usize) -> bool {
        while limit > 0 {
            let Some(remains) = self.remains.pop_front() else {
                return false;
            };
            limit -= 1;
            match remains {
                Remains::Collection(id, mut collection) => {
                    let kind = collection.kind();
                    let journal = &mut self.journal;
                    let mut taken = 0;
                    collection.drain_elements(limit.max(1), &mut |element| {
                        journal.delete_element(id, kind, element);
                        taken += 1;
                    });
                    limit = limit.saturating_sub(taken);
                    if !collection.is_empty() && taken > 0 {
                        self.remains.push_front(Remains::Collection(id, collection));
                    }
                }
                Remains::Chunks(id, count) => {
                    if let Some(last) = count.checked_sub(1) {
                        self.journal.delete_element(id, Kind::String, &last.to_be_bytes());
                        self.remains.push_front(Remains::Chunks(id, last));
                    }
                }
                Remains::Space(space, mut keys) => {
                    let first = keys.slot_count().checked_sub(1).map(Slot::new);
                    // The last slot is used, or it wouldn't be there; else any is.
                    let slot = first
                        .filter(|slot| keys.get(*slot).is_some())
                        .or_else(|| keys.random(1));
                    if let Some((key, entry)) = slot.and_then(|slot| keys.take(slot)) {
                        self.journal.delete_key(space, &key);
                        self.discard(entry.id, entry.value);
                        self.remains.push_back(Remains::Space(space, keys));
                    }
                }
            }
            self.journal.end_unit();
        }
        !self.remains.is_empty()
    }

    /// Has a string's chunks removed, a little at a time.
    pub fn discard_chunks(&mut self, id: u64, count: u32) {
        self.remains.push_back(Remains::Chunks(id, count));
    }

    /// Whether there are elements to be removed of keys that are gone.
    #[inline]
    pub fn has_remains(&self) -> bool {
        !self.remains.is_empty()
    }

    /// Whether a database is this space.
    pub fn has_space(&self, space: u32) -> bool {
        self.databases.iter().any(|database| database.space == space)
    }

    /// Puts what a start has read; without journaling, and already counted.
    pub fn load(&mut self, space: u32, key: &[u8], value: Value, id: u64, expires_ms: u64) -> bool {
        let Some(number) = self.databases.iter().position(|database| database.space == space) else {
            return false;
        };
        self.journal.set_enabled(false);
        if let Some(slot) = self.place(number, key, value, id, expires_ms) {
            self.changed(number, slot);
        }
        self.journal.set_enabled(true);
        self.journal.reserve_id(id);
        true
    }

    /// Forgets all keys, for a load that begins anew; nothing is journaled.
    pub fn forget_everything(&mut self) {
        for number in 0..DATABASES as u32 {
            let seed = self.random();
            if let Some(database) = self.databases.get_mut(number as usize) {
                *database = Database::new(number, seed);
            }
        }
        self.next_space = DATABASES as u32;
        self.used_bytes = 0;
        self.remains.clear();
    }

    /// Takes which space each database is, as it was journaled; before any key is loaded.
    ///
    /// # Errors
    /// When it isn't that.
    pub fn load_spaces(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if value.len() != 4 * DATABASES {
            return Err(Malformed);
        }
        for (database, number) in self.databases.iter_mut().zip(value.chunks_exact(4)) {
            database.space = number.try_into().map(u32::from_le_bytes).map_err(|_| Malformed)?;
            self.next_space = self.next_space.max(database.space.saturating_add(1));
        }
        Ok(())
    }
}
