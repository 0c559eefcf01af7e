//! Hashes: fields with values.

use super::limits::Limits;
use crate::value::{Collection, Kind, Malformed, Value};
use alloc::boxed::Box;
use foldhash::fast::FixedState;
use indexmap::IndexMap;

/// Memory that an entry takes beside its bytes: two boxes with their heap overhead, the hash and the index.
const ENTRY_BYTES: usize = 32 + 8 + 16 + 16;

/// A hash.
pub struct Hash {
    fields: IndexMap<Box<[u8]>, Box<[u8]>, FixedState>,
    bytes: usize,
    large: bool,
}

impl Hash {
    /// An empty one. Who sends the fields can't choose them to collide, as long as `seed` is a secret.
    pub fn new(seed: u64) -> Hash {
        Hash {
            fields: IndexMap::with_hasher(FixedState::with_seed(seed)),
            bytes: 0,
            large: false,
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &**value)
    }

    /// The field and value at a place from 0 to `len() - 1`; places change with removals.
    pub fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        self.fields
            .get_index(place)
            .map(|(field, value)| (&**field, &**value))
    }

    /// Sets a field; whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.large |= field.len().max(value.len()) > limits.hash_value_bytes;
        let new = match self.fields.get_mut(field) {
            Some(present) => {
                self.bytes = self.bytes - present.len() + value.len();
                *present = Box::from(value);
                false
            }
            None => {
                self.fields.insert(Box::from(field), Box::from(value));
                self.bytes += field.len() + value.len();
                true
            }
        };
        self.large |= self.fields.len() > limits.hash_entries;
        new
    }

    /// Removes a field; whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = match self.large {
            true => self.fields.swap_remove(field).map(|value| value.len()),
            false => self.fields.shift_remove(field).map(|value| value.len()),
        };
        self.bytes -= removed.map_or(0, |value| value + field.len());
        removed.is_some()
    }

    /// Whether a scan gives all at once.
    pub fn is_small(&self) -> bool {
        !self.large
    }

    /// All fields with their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(field, value)| (&**field, &**value))
    }
}

impl Collection for Hash {
    fn kind(&self) -> Kind {
        Kind::Hash
    }

    fn len(&self) -> usize {
        self.fields.len()
    }

    fn memory_bytes(&self) -> usize {
        self.bytes + self.fields.len() * ENTRY_BYTES
    }

    fn encoding(&self) -> &'static str {
        if self.large { "hashtable" } else { "listpack" }
    }

    fn load_element(&mut self, element: &[u8], value: &[u8]) -> Result<(), Malformed> {
        self.set(element, value, &Limits::DEFAULT);
        Ok(())
    }

    fn for_each_element(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (field, value) in self.iter() {
            visit(field, value);
        }
    }

    fn drain_elements(&mut self, limit: usize, visit: &mut dyn FnMut(&[u8])) {
        for _ in 0..limit {
            let Some((field, value)) = self.fields.pop() else {
                return;
            };
            self.bytes -= field.len() + value.len();
            visit(&field);
        }
    }

    fn duplicate(&self, seed: u64) -> Value {
        let mut copy = Hash::new(seed);
        copy.fields.reserve(self.fields.len());
        copy.fields.extend(
            self.fields
                .iter()
                .map(|(field, value)| (field.clone(), value.clone())),
        );
        copy.bytes = self.bytes;
        copy.large = self.large;
        Value::Collection(Box::new(copy))
    }
}
