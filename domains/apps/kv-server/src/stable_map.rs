//! A hash table whose entries keep their place: for key spaces and collections that are scanned while they change.
//!
//! An entry lies in the same slot from its insertion to its removal, however the table grows in between. So a slot's number is a handle that
//! costs no second look-up, walking the slots by number gives each entry that is there all the time exactly once (which SCAN promises), and a
//! random entry is one of a random slot. Hashing is seeded: who sends the keys can't choose them to collide.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The slot of a number.
    pub fn new(number: u32) -> Slot {
        Slot(number)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

struct Item<V> {
    hash: u64,
    key: Box<[u8]>,
    value: V,
}

/// The table.
pub struct StableMap<V> {
    index: HashTable<u32>,
    slots: Vec<Option<Item<V>>>,
    free: Vec<u32>,
    hasher: FixedState,
}

impl<V> StableMap<V> {
    /// An empty table that hashes with `seed`.
    pub fn new(seed: u64) -> StableMap<V> {
        StableMap {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Slots, used or not: the numbers that a scan goes through.
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        // Not `hash_one`, which hashes the length too: nothing is hashed but one key.
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    /// Where `key` is.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        let hash = self.hash(key);
        let found = self.index.find(
            hash,
            |&number| matches!(self.slots.get(number as usize), Some(Some(item)) if *item.key == *key),
        );
        found.map(|&number| Slot(number))
    }

    /// The value in a slot.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&V> {
        match self.slots.get(slot.index()) {
            Some(Some(item)) => Some(&item.value),
            _ => None,
        }
    }

    /// The value in a slot.
    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut V> {
        match self.slots.get_mut(slot.index()) {
            Some(Some(item)) => Some(&mut item.value),
            _ => None,
        }
    }

    /// The key in a slot.
    #[inline]
    pub fn key(&self, slot: Slot) -> Option<&[u8]> {
        match self.slots.get(slot.index()) {
            Some(Some(item)) => Some(&item.key),
            _ => None,
        }
    }

    /// Key and value in a slot.
    #[inline]
    pub fn entry(&self, slot: Slot) -> Option<(&[u8], &V)> {
        match self.slots.get(slot.index()) {
            Some(Some(item)) => Some((&item.key, &item.value)),
            _ => None,
        }
    }

    /// Key and value in a slot.
    #[inline]
    pub fn entry_mut(&mut self, slot: Slot) -> Option<(&[u8], &mut V)> {
        match self.slots.get_mut(slot.index()) {
            Some(Some(item)) => Some((&item.key, &mut item.value)),
            _ => None,
        }
    }

    /// Puts a value under a key: its slot, and the value that was there.
    pub fn insert(&mut self, key: &[u8], value: V) -> (Slot, Option<V>) {
        if let Some(slot) = self.find(key) {
            let old = self
                .get_mut(slot)
                .map(|present| core::mem::replace(present, value));
            return (slot, old);
        }
        (self.insert_absent(key, value), None)
    }

    /// Puts a value under a key that isn't there.
    pub fn insert_absent(&mut self, key: &[u8], value: V) -> Slot {
        let hash = self.hash(key);
        let item = Some(Item {
            hash,
            key: key.into(),
            value,
        });
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = self.slots.get_mut(number as usize) {
                    *slot = item;
                }
                number
            }
            None => {
                self.slots.push(item);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, number, |&number| {
            slots
                .get(number as usize)
                .and_then(Option::as_ref)
                .map_or(0, |item| item.hash)
        });
        Slot(number)
    }

    /// Takes the entry of a slot out.
    pub fn take(&mut self, slot: Slot) -> Option<(Box<[u8]>, V)> {
        let item = self.slots.get_mut(slot.index())?.take()?;
        if let Ok(found) = self.index.find_entry(item.hash, |&number| number == slot.0) {
            found.remove();
        }
        if slot.index() + 1 == self.slots.len() {
            self.slots.pop();
        } else {
            self.free.push(slot.0);
        }
        if self.index.is_empty() {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        Some((item.key, item.value))
    }

    /// Takes a key's entry out.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let slot = self.find(key)?;
        self.take(slot).map(|(_, value)| value)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.index = HashTable::new();
        self.slots = Vec::new();
        self.free = Vec::new();
    }

    /// All entries by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &[u8], &V)> {
        self.iter_from(0)
    }

    /// All entries by slot, from the slot of this number on.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (Slot, &[u8], &V)> {
        let rest = self.slots.get(first as usize..).unwrap_or_default();
        rest.iter()
            .zip(first..)
            .filter_map(|(slot, number)| slot.as_ref().map(|item| (Slot(number), &*item.key, &item.value)))
    }

    /// The first entry at or behind a random place; `random` is any number.
    pub fn random(&self, mut random: u64) -> Option<Slot> {
        if self.index.is_empty() {
            return None;
        }
        let count = self.slots.len() as u64;
        for _ in 0..128 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (((random >> 32) * count) >> 32) as usize;
            if let Some(Some(_)) = self.slots.get(number) {
                return Some(Slot(number as u32));
            }
        }
        let first = (random % count) as u32;
        let behind = self.iter_from(first).next();
        behind.or_else(|| self.iter().next()).map(|(slot, ..)| slot)
    }

    /// Bytes of memory that the table takes beside keys and values.
    pub fn overhead_bytes(&self) -> usize {
        self.index.capacity() * 5
            + self.slots.capacity() * size_of::<Option<Item<V>>>()
            + self.free.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is put in and taken out, the table is a map, and what stays there keeps its slot.
        #[test]
        fn is_a_map_with_stable_slots(steps in proptest::collection::vec((0_u8..40, any::<bool>()), 0..400)) {
            let mut map = StableMap::new(7);
            let mut model: BTreeMap<Vec<u8>, (usize, Slot)> = BTreeMap::new();
            for (number, (key, put)) in steps.into_iter().enumerate() {
                let key = vec![key; usize::from(key % 5)];
                if put {
                    let (slot, old) = map.insert(&key, number);
                    let before = model.insert(key, (number, slot));
                    prop_assert_eq!(old, before.map(|(value, _)| value));
                    if let Some((_, place)) = before {
                        prop_assert_eq!(slot, place);
                    }
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key).map(|(value, _)| value));
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for (key, (value, slot)) in &model {
                prop_assert_eq!(map.find(key), Some(*slot));
                prop_assert_eq!(map.get(*slot), Some(value));
            }
            let mut walked: Vec<_> = map.iter().map(|(_, key, value)| (key.to_vec(), *value)).collect();
            walked.sort();
            let expected: Vec<_> = model.iter().map(|(key, (value, _))| (key.clone(), *value)).collect();
            prop_assert_eq!(walked, expected);
            prop_assert_eq!(map.random(3).is_some(), !model.is_empty());
        }
    }
}
