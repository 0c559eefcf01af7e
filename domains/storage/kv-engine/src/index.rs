//! The index: a hash table with open addressing and linear probing, 16 bytes a slot, that grows without a pause.
//!
//! A slot holds a hash and a word that isn't 0. What the word means, and whether a slot with the right hash is the one that is looked
//! for, is for the caller to say. At most three quarters of the slots are in use. A table that is full gets a bigger one beside it, and every
//! insertion moves a few slots over until the old one is empty, so that no insertion takes long; meanwhile both are searched.

use alloc::vec::Vec;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = size_of::<Slot>();
/// Slots that an insertion moves at most while a table is being replaced. Two would do to be through before the new one is full.
const MOVED_PER_INSERTION: usize = 16;
/// Slots at first.
const FIRST_SLOTS: usize = 1 << 10;

/// No slot is in use.
const EMPTY: u64 = 0;
/// Of the old table: was in use, and no longer counts. Keeps the chain of probes whole.
const GONE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Slot {
    hash: u64,
    word: u64,
}

/// The index would take more memory than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexFull;

#[derive(Debug, Default)]
struct Table {
    /// A power of two of them, or none.
    slots: Vec<Slot>,
    used: usize,
}

impl Table {
    fn with_slots(count: usize) -> Result<Table, IndexFull> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).map_err(|_| IndexFull)?;
        slots.resize(count, Slot::default());
        Ok(Table { slots, used: 0 })
    }

    /// The position of the slot with this hash whose word `is_it`.
    #[inline(always)]
    fn position(&self, hash: u64, mut is_it: impl FnMut(u64) -> bool) -> Option<usize> {
        let slots = self.slots.as_slice();
        let mut position = hash as usize;
        loop {
            position &= slots.len().wrapping_sub(1);
            let slot = slots.get(position)?;
            if slot.hash == hash && slot.word != EMPTY && is_it(slot.word) {
                return Some(position);
            }
            if slot.word == EMPTY {
                return None;
            }
            position += 1;
        }
    }

    fn insert(&mut self, hash: u64, word: u64) {
        let mask = self.slots.len().wrapping_sub(1);
        let mut position = hash as usize & mask;
        while let Some(slot) = self.slots.get_mut(position) {
            if slot.word == EMPTY {
                *slot = Slot { hash, word };
                self.used += 1;
                return;
            }
            position = (position + 1) & mask;
        }
    }

    /// Empties a slot and closes the gap: those behind it that the gap would hide move up.
    fn remove(&mut self, position: usize) {
        let mask = self.slots.len().wrapping_sub(1);
        let (mut gap, mut next) = (position, (position + 1) & mask);
        while let Some(&slot) = self.slots.get(next) {
            if slot.word == EMPTY {
                break;
            }
            let home = slot.hash as usize & mask;
            // Whether the way from its home to where it is leads over the gap.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(gap) & mask {
                if let Some(to) = self.slots.get_mut(gap) {
                    *to = slot;
                }
                gap = next;
            }
            next = (next + 1) & mask;
        }
        if let Some(slot) = self.slots.get_mut(gap) {
            *slot = Slot::default();
            self.used -= 1;
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Index {
    table: Table,
    /// The one that is being replaced.
    old: Table,
    /// Slots of it that have been moved.
    moved: usize,
    limit_bytes: usize,
}

impl Index {
    /// An empty one that takes `limit_bytes` of memory at most, the transition to a bigger table included.
    pub fn new(limit_bytes: usize) -> Index {
        Index {
            limit_bytes,
            ..Index::default()
        }
    }

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.table.used + self.old.used
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        (self.table.slots.len() + self.old.slots.len()) * SLOT_BYTES
    }

    /// The word with this hash that `is_it`.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        if let Some(position) = self.table.position(hash, &mut is_it) {
            return self.table.slots.get(position).map(|slot| slot.word);
        }
        if self.old.slots.is_empty() {
            return None;
        }
        let position = self.old.position(hash, |word| word != GONE && is_it(word))?;
        self.old.slots.get(position).map(|slot| slot.word)
    }

    /// Sees to it that `count` insertions find room.
    ///
    /// # Errors
    /// When that takes too much memory; then nothing has changed.
    pub fn reserve(&mut self, count: usize) -> Result<(), IndexFull> {
        let needed = self.len() + count;
        if needed <= self.table.slots.len() / 4 * 3 {
            return Ok(());
        }
        self.finish_move();
        let mut slots = self.table.slots.len().max(FIRST_SLOTS);
        while needed > slots / 4 * 3 {
            slots *= 2;
        }
        if (slots + self.table.slots.len()) * SLOT_BYTES > self.limit_bytes {
            return Err(IndexFull);
        }
        self.old = core::mem::replace(&mut self.table, Table::with_slots(slots)?);
        self.moved = 0;
        Ok(())
    }

    /// Adds a slot; there is room by [`Index::reserve`].
    pub fn insert(&mut self, hash: u64, word: u64) {
        self.table.insert(hash, word);
        if !self.old.slots.is_empty() {
            self.move_some(MOVED_PER_INSERTION);
        }
    }

    /// Gives the word with this hash that `is_it` another value; the one before, or `None` when there is none.
    pub fn replace(&mut self, hash: u64, word: u64, mut is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        let slot = match self.table.position(hash, &mut is_it) {
            Some(position) => self.table.slots.get_mut(position)?,
            None => {
                let position = self.old.position(hash, |word| word != GONE && is_it(word))?;
                self.old.slots.get_mut(position)?
            }
        };
        Some(core::mem::replace(&mut slot.word, word))
    }

    /// Takes the word with this hash that `is_it` out.
    pub fn remove(&mut self, hash: u64, mut is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        if let Some(position) = self.table.position(hash, &mut is_it) {
            let word = self.table.slots.get(position)?.word;
            self.table.remove(position);
            return Some(word);
        }
        let position = self.old.position(hash, |word| word != GONE && is_it(word))?;
        let slot = self.old.slots.get_mut(position)?;
        self.old.used -= 1;
        Some(core::mem::replace(&mut slot.word, GONE))
    }

    /// Takes all out; keeps the memory.
    pub fn clear(&mut self) {
        self.old = Table::default();
        self.moved = 0;
        self.table.slots.fill(Slot::default());
        self.table.used = 0;
    }

    /// All that are in use, hash and word.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let both = self.table.slots.iter().chain(&self.old.slots);
        both.filter(|slot| slot.word != EMPTY && slot.word != GONE)
            .map(|slot| (slot.hash, slot.word))
    }

    fn move_some(&mut self, count: usize) {
        for _ in 0..count {
            let Some(slot) = self.old.slots.get_mut(self.moved) else {
                self.old = Table::default();
                self.moved = 0;
                return;
            };
            self.moved += 1;
            let Slot { hash, word } = *slot;
            if word != EMPTY && word != GONE {
                slot.word = GONE;
                self.old.used -= 1;
                self.table.insert(hash, word);
            }
        }
    }

    fn finish_move(&mut self) {
        while !self.old.slots.is_empty() {
            self.move_some(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u64, u64),
        Remove(u64),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Hashes that share their low bits, so that chains are long and wrap around.
        let hash = prop_oneof![
            0..40_u64,
            (0..3000_u64).prop_map(|n| n << 9 | 0x1ff),
            any::<u64>()
        ];
        let step = prop_oneof![
            12 => (hash.clone(), 1..u64::MAX).prop_map(|(hash, word)| Step::Put(hash, word)),
            5 => hash.prop_map(Step::Remove),
            1 => Just(Step::Clear),
        ];
        proptest::collection::vec(step, 0..4000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn is_a_map(steps in steps()) {
            let (mut index, mut model) = (Index::new(1 << 30), HashMap::new());
            for step in steps {
                match step {
                    Step::Put(hash, word) => {
                        index.reserve(1).unwrap();
                        let before = index.replace(hash, word, |_| true);
                        if before.is_none() {
                            index.insert(hash, word);
                        }
                        prop_assert_eq!(before, model.insert(hash, word));
                    }
                    Step::Remove(hash) => prop_assert_eq!(index.remove(hash, |_| true), model.remove(&hash)),
                    // Seldom enough for tables to grow in between.
                    Step::Clear if model.len() % 7 == 0 => {
                        index.clear();
                        model.clear();
                    }
                    Step::Clear => {}
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for (&hash, &word) in &model {
                prop_assert_eq!(index.find(hash, |_| true), Some(word));
            }
            let all: HashMap<_, _> = index.iter().collect();
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn words_with_one_hash_are_told_apart() {
        let mut index = Index::new(1 << 20);
        index.reserve(3).unwrap();
        for word in 1..4 {
            index.insert(77, word);
        }
        assert_eq!(index.find(77, |word| word == 2), Some(2));
        assert_eq!(index.remove(77, |word| word == 1), Some(1));
        assert_eq!(index.replace(77, 9, |word| word == 3), Some(3));
        assert_eq!(index.find(77, |word| word == 3), None);
        assert_eq!(index.find(77, |word| word == 9), Some(9));
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn memory_has_a_limit() {
        let mut index = Index::new(3 * FIRST_SLOTS * SLOT_BYTES);
        let mut count = 0;
        while index.reserve(1).is_ok() {
            index.insert(count, 1);
            count += 1;
        }
        assert_eq!(count as usize, 2 * FIRST_SLOTS / 4 * 3);
        assert_eq!(index.find(count - 1, |_| true), Some(1));
    }
}
