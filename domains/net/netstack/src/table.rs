//! Connections by number and by 4-tuple.
//!
//! A [`Slab`] gives each entry an index and a serial number, so that an old number never finds a new entry. A [`FlowTable`]
//! finds by 4-tuple, whatever state the connection is in; its hash is keyed, so that nobody outside can aim at one chain.

use crate::demultiplex::FlowKey;
use alloc::vec::Vec;
use hashbrown::HashTable;

/// An entry's number: index and serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Index in the slab.
    pub index: u32,
    /// Tells users of one index apart.
    pub serial: u32,
}

struct Slot<T> {
    serial: u32,
    value: Option<T>,
}

/// Values by [`Ticket`]; free indices are used again with another serial.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    length: usize,
}

impl<T> Slab<T> {
    /// An empty one.
    pub const fn new() -> Slab<T> {
        Slab {
            slots: Vec::new(),
            free: Vec::new(),
            length: 0,
        }
    }

    /// Values in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a value.
    pub fn insert(&mut self, value: T) -> Ticket {
        self.length += 1;
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.value = Some(value);
            return Ticket {
                index,
                serial: slot.serial,
            };
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            serial: 1,
            value: Some(value),
        });
        Ticket { index, serial: 1 }
    }

    /// Takes a value out; its ticket is void from then on.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let slot = self.slots.get_mut(ticket.index as usize)?;
        if slot.serial != ticket.serial {
            return None;
        }
        let value = slot.value.take()?;
        // 0 is never a serial, so that a number made of zeros is nobody's.
        slot.serial = slot.serial.checked_add(1).unwrap_or(1);
        self.free.push(ticket.index);
        self.length -= 1;
        Some(value)
    }

    /// The value of a ticket.
    #[inline]
    pub fn get(&self, ticket: Ticket) -> Option<&T> {
        let slot = self.slots.get(ticket.index as usize)?;
        (slot.serial == ticket.serial).then_some(slot.value.as_ref()?)
    }

    /// The value of a ticket, to change.
    #[inline]
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let slot = self.slots.get_mut(ticket.index as usize)?;
        if slot.serial != ticket.serial {
            return None;
        }
        slot.value.as_mut()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let ticket = Ticket {
                index: index as u32,
                serial: slot.serial,
            };
            Some((ticket, slot.value.as_ref()?))
        })
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::new()
    }
}

/// Which table a flow is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A connection with buffers.
    Connection(Ticket),
    /// A SYN was answered.
    HalfOpen(Ticket),
    /// Closed, waiting for its last segments to leave the network.
    TimeWait(Ticket),
}

struct Entry {
    key: FlowKey,
    place: Place,
}

/// Flows by 4-tuple.
pub struct FlowTable {
    entries: HashTable<Entry>,
    secret: [u64; 2],
}

fn folded_product(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl FlowTable {
    /// An empty one, hashing with `secret`.
    pub fn new(secret: [u64; 2]) -> FlowTable {
        FlowTable {
            entries: HashTable::new(),
            secret,
        }
    }

    #[inline]
    fn hash(secret: [u64; 2], key: &FlowKey) -> u64 {
        let ports = u64::from(key.remote_port) << 16 | u64::from(key.local_port);
        let first = folded_product(key.remote as u64 ^ secret[0], ports ^ secret[1]);
        let high = (key.remote >> 64) as u64 ^ (key.local >> 64) as u64;
        folded_product(first ^ key.local as u64 ^ secret[1], high ^ secret[0])
    }

    /// Where the flow is.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<Place> {
        let hash = Self::hash(self.secret, key);
        self.entries
            .find(hash, |entry| entry.key == *key)
            .map(|entry| entry.place)
    }

    /// Puts the flow in `place`, wherever it was before.
    pub fn put(&mut self, key: FlowKey, place: Place) {
        let secret = self.secret;
        let hash = Self::hash(secret, &key);
        match self.entries.find_mut(hash, |entry| entry.key == key) {
            Some(entry) => entry.place = place,
            None => {
                self.entries
                    .insert_unique(hash, Entry { key, place }, |entry| Self::hash(secret, &entry.key));
            }
        }
    }

    /// Forgets the flow.
    pub fn remove(&mut self, key: &FlowKey) {
        let hash = Self::hash(self.secret, key);
        if let Ok(entry) = self.entries.find_entry(hash, |entry| entry.key == *key) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ticket_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn flows_are_told_apart_by_every_part_of_the_tuple() {
        let mut table = FlowTable::new([3, 5]);
        let key = FlowKey {
            local: 1,
            remote: 2,
            local_port: 3,
            remote_port: 4,
        };
        let ticket = Ticket { index: 7, serial: 1 };
        table.put(key, Place::HalfOpen(ticket));
        for other in [
            FlowKey { local: 9, ..key },
            FlowKey { remote: 9, ..key },
            FlowKey { local_port: 9, ..key },
            FlowKey {
                remote_port: 9,
                ..key
            },
        ] {
            assert_eq!(table.find(&other), None);
        }
        table.put(key, Place::Connection(ticket));
        assert_eq!(table.find(&key), Some(Place::Connection(ticket)));
        table.remove(&key);
        assert_eq!(table.find(&key), None);
    }
}
