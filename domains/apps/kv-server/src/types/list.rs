//! Lists: values in order, each with a number that says where it stands.
//!
//! The numbers ([`Position`]) are what the journal names elements by: a push or a pop writes one element, and an insertion takes a number between
//! its neighbours'. When there is none left, the list is numbered anew ([`List::renumber`]) and written as a whole, which spares the rest of the list's life.

use super::limits::Limits;
use crate::value::{Collection, Kind, Malformed, Value};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Where an element stands: elements are in order of it.
pub type Position = i64;

/// Between two elements that were pushed one behind the other; every insertion between the same two halves what is left.
const GAP: Position = 1 << 20;
/// What the packed form adds to an element, about.
const PACKED_OVERHEAD_BYTES: usize = 3;
/// Memory that an element takes beside its bytes: its place in the queue and the heap's overhead.
const ITEM_BYTES: usize = 24 + 8;

/// There is no position left where one is needed: the list is to be renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPosition;

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it stands.
    pub position: Position,
    /// What it is.
    pub value: Box<[u8]>,
}

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// A list.
#[derive(Clone, Default)]
pub struct List {
    items: VecDeque<Item>,
    /// Bytes of all values.
    bytes: usize,
    /// Whether it has outgrown the packed form.
    large: bool,
}

impl List {
    /// Chooses the form that fits: a list that grows beyond the limit is large, and small again only when it is half as long.
    pub fn fit(&mut self, limits: &Limits) {
        let (entries, bytes) = (
            self.items.len(),
            self.bytes + self.items.len() * PACKED_OVERHEAD_BYTES,
        );
        self.large = match self.large {
            false => !limits.list_is_small(entries, bytes),
            true => !limits.list_is_small(entries * 2, bytes * 2),
        };
    }

    /// Adds `value` at an end; where it stands.
    ///
    /// # Errors
    /// When the numbers have run out there.
    pub fn push(&mut self, end: End, value: Box<[u8]>) -> Result<Position, NoPosition> {
        let neighbour = match end {
            End::Left => self.items.front(),
            End::Right => self.items.back(),
        };
        let position = match (neighbour, end) {
            (None, _) => 0,
            (Some(item), End::Left) => item.position.checked_sub(GAP).ok_or(NoPosition)?,
            (Some(item), End::Right) => item.position.checked_add(GAP).ok_or(NoPosition)?,
        };
        let bytes = value.len();
        let item = Item { position, value };
        match end {
            End::Left => self.items.push_front(item),
            End::Right => self.items.push_back(item),
        }
        self.bytes += bytes;
        Ok(position)
    }

    /// Takes the element at an end.
    pub fn pop(&mut self, end: End) -> Option<Item> {
        let item = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        self.bytes -= item.value.len();
        Some(item)
    }

    /// The element at an index.
    pub fn get(&self, index: usize) -> Option<&Item> {
        self.items.get(index)
    }

    /// Replaces the value at an index; where it stands.
    pub fn set(&mut self, index: usize, value: Box<[u8]>) -> Option<Position> {
        let bytes = value.len();
        let item = self.items.get_mut(index)?;
        let position = item.position;
        let old = core::mem::replace(&mut item.value, value);
        self.bytes -= old.len();
        self.bytes += bytes;
        Some(position)
    }

    /// Inserts before the element at `index`, or at the tail; where it stands.
    ///
    /// # Errors
    /// When no number is free between the neighbours.
    pub fn insert(&mut self, index: usize, value: Box<[u8]>) -> Result<Position, NoPosition> {
        if index == 0 {
            return self.push(End::Left, value);
        }
        let (Some(before), Some(behind)) = (self.items.get(index - 1), self.items.get(index)) else {
            return self.push(End::Right, value);
        };
        // Positions of neighbours may be further apart than the type can say; their middle never is beyond it.
        let position = before.position.midpoint(behind.position);
        if position <= before.position || position >= behind.position {
            return Err(NoPosition);
        }
        let bytes = value.len();
        self.items.insert(index, Item { position, value });
        self.bytes += bytes;
        Ok(position)
    }

    /// Takes the element at an index out.
    pub fn remove(&mut self, index: usize) -> Option<Item> {
        let item = self.items.remove(index)?;
        self.bytes -= item.value.len();
        Some(item)
    }

    /// Takes up to `limit` elements out that equal `value`, seen from an end: how many, each told to `removed` by its position.
    pub fn remove_equal(
        &mut self,
        value: &[u8],
        limit: u64,
        from: End,
        mut removed: impl FnMut(Position),
    ) -> usize {
        let length = self.items.len();
        let mut left = limit;
        let mut bytes = 0;
        let mut keep = |item: &Item| {
            let equal = left > 0 && *item.value == *value;
            if equal {
                left -= 1;
                bytes += item.value.len();
                removed(item.position);
            }
            !equal
        };
        match from {
            End::Left => self.items.retain(&mut keep),
            End::Right => {
                let mut kept: VecDeque<Item> = core::mem::take(&mut self.items)
                    .into_iter()
                    .rev()
                    .filter(&mut keep)
                    .collect();
                kept.make_contiguous().reverse();
                self.items = kept;
            }
        }
        self.bytes -= bytes;
        length - self.items.len()
    }

    /// Gives every element a new position, evenly apart, the first at 0.
    pub fn renumber(&mut self) {
        let mut position = 0;
        for item in &mut self.items {
            item.position = position;
            position += GAP;
        }
    }

    /// All elements from the head on.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Item> + ExactSizeIterator {
        self.items.iter()
    }

    /// The elements from index `start` up to but not including `end`.
    pub fn range(
        &self,
        start: usize,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = &Item> + ExactSizeIterator {
        let end = end.min(self.items.len());
        self.items.range(start.min(end)..end)
    }
}

/// What an element is journaled as: bytes in the order of positions.
pub fn element(position: Position) -> [u8; 8] {
    (position.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

impl Collection for List {
    fn kind(&self) -> Kind {
        Kind::List
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn memory_bytes(&self) -> usize {
        self.bytes + self.items.len() * ITEM_BYTES
    }

    fn encoding(&self) -> &'static str {
        if self.large { "quicklist" } else { "listpack" }
    }

    fn load_element(&mut self, element: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let place: [u8; 8] = element.try_into().map_err(|_| Malformed)?;
        self.bytes += value.len();
        self.items.push_back(Item {
            position: (u64::from_be_bytes(place) ^ 1 << 63).cast_signed(),
            value: Box::from(value),
        });
        Ok(())
    }

    fn finish_loading(&mut self) {
        let items = self.items.make_contiguous();
        // One that was read twice keeps the value that was read last.
        items.sort_by_key(|item| item.position);
        let mut sorted: Vec<Item> = Vec::with_capacity(items.len());
        for item in core::mem::take(&mut self.items) {
            match sorted.last_mut() {
                Some(last) if last.position == item.position => *last = item,
                _ => sorted.push(item),
            }
        }
        self.items = VecDeque::from(sorted);
        self.bytes = self.items.iter().map(|item| item.value.len()).sum();
        self.fit(&Limits::DEFAULT);
    }

    fn for_each_element(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for item in &self.items {
            visit(&element(item.position), &item.value);
        }
    }

    fn drain_elements(&mut self, limit: usize, visit: &mut dyn FnMut(&[u8])) {
        for _ in 0..limit {
            let Some(item) = self.pop(End::Right) else { return };
            visit(&element(item.position));
        }
    }

    fn duplicate(&self, _: u64) -> Value {
        Value::Collection(Box::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(number: u32) -> Box<[u8]> {
        Box::from(number.to_le_bytes().as_slice())
    }

    proptest! {
        /// Whatever is done, the order is that of a plain vector, positions rise strictly, and the elements written by position give the list again.
        #[test]
        fn agrees_with_a_vector(steps in prop::collection::vec((0_u8..7, any::<prop::sample::Index>(), any::<u32>()), 0..400)) {
            let mut list = List::default();
            let mut model: Vec<u32> = Vec::new();
            for (kind, at, number) in steps {
                match kind {
                    0 => { list.push(End::Left, value(number)).unwrap(); model.insert(0, number); }
                    1 => { list.push(End::Right, value(number)).unwrap(); model.push(number); }
                    2 => { prop_assert_eq!(list.pop(End::Left).map(|item| item.value), (!model.is_empty()).then(|| value(model.remove(0)))); }
                    3 => { prop_assert_eq!(list.pop(End::Right).map(|item| item.value), model.pop().map(value)); }
                    4 => {
                        let at = at.index(model.len() + 1);
                        if list.insert(at, value(number)).is_err() {
                            list.renumber();
                            list.insert(at, value(number)).unwrap();
                        }
                        model.insert(at, number);
                    }
                    5 if !model.is_empty() => {
                        let at = at.index(model.len());
                        prop_assert_eq!(list.remove(at).unwrap().value, value(model.remove(at)));
                    }
                    _ if !model.is_empty() => {
                        let at = at.index(model.len());
                        list.set(at, value(number)).unwrap();
                        model[at] = number;
                    }
                    _ => {}
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!(list.bytes, model.len() * 4);
            }
            prop_assert!(list.iter().map(|item| &item.value).eq(model.iter().map(|&number| value(number)).collect::<Vec<_>>().iter()));
            let mut elements = Vec::new();
            list.for_each_element(&mut |element, value| elements.push((element.to_vec(), value.to_vec())));
            prop_assert!(elements.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let mut read = List::default();
            for (element, value) in elements.iter().rev().chain(elements.iter().take(3)) {
                read.load_element(element, value).unwrap();
            }
            read.finish_loading();
            prop_assert!(read.iter().eq(list.iter()));
            prop_assert_eq!(read.bytes, list.bytes);
        }
    }

    /// Insertions at one place use up the numbers there; numbering anew makes room, and the order stays.
    #[test]
    fn renumbering_makes_room() {
        let mut list = List::default();
        list.push(End::Right, value(0)).unwrap();
        list.push(End::Right, value(1)).unwrap();
        let mut inserted = 0;
        while list.insert(1, value(2 + inserted)).is_ok() {
            inserted += 1;
        }
        assert_eq!(inserted, GAP.ilog2());
        let before: Vec<_> = list.iter().map(|item| item.value.clone()).collect();
        list.renumber();
        list.insert(1, value(99)).unwrap();
        list.remove(1);
        assert!(list.iter().map(|item| &item.value).eq(before.iter()));
    }

    /// A list at the end of the numbers says so instead of wrapping round.
    #[test]
    fn positions_never_wrap() {
        let mut list = List::default();
        list.load_element(&element(i64::MAX), b"z").unwrap();
        list.load_element(&element(i64::MIN), b"a").unwrap();
        list.finish_loading();
        assert_eq!(list.push(End::Left, value(1)), Err(NoPosition));
        assert_eq!(list.push(End::Right, value(1)), Err(NoPosition));
        assert!(list.insert(1, value(1)).is_ok());
    }
}
