//! A start: what the store has becomes the key space.
//!
//! First a long unit that was being written is finished, then every entry is read, in whatever order the store gives them. Elements come before or
//! after the key that they are of; they are put together at the end. What belongs to no key is left from one that was removed, and is deleted.

use crate::journal::{DIGEST_FLAG, Journal, KEY_LETTER, REDO_KEY, SPACES_KEY, read_redo};
use crate::keyspace::Keyspace;
use crate::ledger::{Ledger, fill, new_buffer, read_value};
use crate::stored_entry::{StoredContent, read_entry};
use crate::types;
use crate::value::{IN_MEMORY_BYTES, Kind, Malformed, StringValue, Value};
use alloc::boxed::Box;
use alloc::vec::Vec;
use domain_rt::Handle;
use hashbrown::{HashMap, HashSet};
use interface::key_value::{Entry, KeyValueStore, Reader, StoreBuffer, StoreError, VALUE_LIMIT_BYTES};
use rref::RRef;

/// Values up to this length come with the scan, in bytes: a key's own entry with a string that is kept in memory.
pub const SCAN_VALUE_BYTES: u32 = IN_MEMORY_BYTES as u32 + 64;

type Hasher = foldhash::fast::FixedState;

/// A key whose elements are awaited.
struct Head {
    space: u32,
    key: Box<[u8]>,
    expires_ms: u64,
    kind: Kind,
    metadata: Vec<u8>,
    /// Of a string in chunks.
    length: u64,
}

/// What was read so far.
pub struct Loading {
    heads: HashMap<u64, Head, Hasher>,
    collections: HashMap<u64, Value, Hasher>,
    /// Chunks of strings, by id: how many at least.
    chunks: HashMap<u64, u32, Hasher>,
    /// Names of entries that belong to nothing.
    strays: Vec<Vec<u8>>,
    /// Entries that can't be read.
    pub malformed: u64,
    /// Keys.
    pub keys: u64,
    /// The largest identity seen.
    highest_id: u64,
}

impl Default for Loading {
    fn default() -> Self {
        Loading {
            heads: HashMap::with_hasher(Hasher::with_seed(1)),
            collections: HashMap::with_hasher(Hasher::with_seed(1)),
            chunks: HashMap::with_hasher(Hasher::with_seed(1)),
            strays: Vec::new(),
            malformed: 0,
            keys: 0,
            highest_id: 0,
        }
    }
}

impl Loading {
    /// Takes one entry of the store.
    pub fn take(&mut self, keyspace: &mut Keyspace, name: &[u8], value: &[u8]) {
        if self.take_entry(keyspace, name, value).is_err() {
            self.malformed += 1;
        }
    }

    fn take_entry(&mut self, keyspace: &mut Keyspace, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if name == SPACES_KEY || name == REDO_KEY {
            return Ok(());
        }
        let (&letter, rest) = name.split_first().ok_or(Malformed)?;
        if letter == KEY_LETTER {
            let (space, key) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            return self.take_key(keyspace, u32::from_be_bytes(*space), key, value, name);
        }
        let kind = Kind::from_letter(letter & !DIGEST_FLAG).ok_or(Malformed)?;
        let (id, element) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
        let id = u64::from_be_bytes(*id);
        self.highest_id = self.highest_id.max(id);
        if kind == Kind::String {
            let index = element.first_chunk::<4>().ok_or(Malformed)?;
            let count = self.chunks.entry(id).or_default();
            *count = (*count).max(u32::from_be_bytes(*index).saturating_add(1));
            return Ok(());
        }
        let collection = match self.collections.entry(id) {
            hashbrown::hash_map::Entry::Occupied(present) => present.into_mut(),
            hashbrown::hash_map::Entry::Vacant(vacant) => {
                let seed = keyspace.random();
                vacant.insert(types::empty(kind, seed).ok_or(Malformed)?)
            }
        };
        let collection = collection.collection_mut().ok_or(Malformed)?;
        if collection.kind() != kind {
            return Err(Malformed);
        }
        if letter & DIGEST_FLAG == 0 {
            return collection.load_element(element, value);
        }
        let (length, rest) = value.split_first_chunk::<4>().ok_or(Malformed)?;
        let (element, value) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or(Malformed)?;
        collection.load_element(element, value)
    }

    fn take_key(
        &mut self,
        keyspace: &mut Keyspace,
        space: u32,
        key: &[u8],
        value: &[u8],
        name: &[u8],
    ) -> Result<(), Malformed> {
        let entry = read_entry(value)?;
        if !keyspace.has_space(space) {
            self.strays.push(name.to_vec());
            return Ok(());
        }
        let (id, kind, metadata, length) = match entry.content {
            StoredContent::String(bytes) => {
                self.keys += 1;
                keyspace.load(space, key, Value::string(bytes), 0, entry.expires_ms);
                return Ok(());
            }
            StoredContent::Chunks(id, length) => (id, Kind::String, Vec::new(), length),
            StoredContent::Collection(kind, id, metadata) => (id, kind, metadata.to_vec(), 0),
        };
        self.highest_id = self.highest_id.max(id);
        let head = Head {
            space,
            key: key.into(),
            expires_ms: entry.expires_ms,
            kind,
            metadata,
            length,
        };
        // An entry may come twice.
        self.heads.insert(id, head);
        Ok(())
    }

    /// Puts keys and elements together when everything was read.
    pub fn finish(mut self, keyspace: &mut Keyspace) -> Loaded {
        keyspace.journal.reserve_id(self.highest_id);
        for (id, head) in self.heads.drain() {
            let value = if head.kind == Kind::String {
                self.chunks.remove(&id);
                Some(Value::String(StringValue::Stored { length: head.length }))
            } else {
                let seed = keyspace.random();
                self.collections
                    .remove(&id)
                    .or_else(|| types::empty(head.kind, seed))
                    .filter(|value| value.kind() == head.kind)
            };
            let Some(mut value) = value else {
                self.malformed += 1;
                continue;
            };
            if let Some(collection) = value.collection_mut() {
                if collection.load_metadata(&head.metadata).is_err() {
                    self.malformed += 1;
                }
                collection.finish_loading();
            }
            self.keys += 1;
            keyspace.load(head.space, &head.key, value, id, head.expires_ms);
        }
        let mut strays = self.strays.len();
        for name in self.strays.drain(..) {
            keyspace.journal.delete_raw(&name);
            keyspace.journal.end_unit();
        }
        for (id, value) in self.collections.drain() {
            strays += 1;
            keyspace.discard(id, value);
        }
        for (id, count) in self.chunks.drain() {
            strays += 1;
            keyspace.discard_chunks(id, count);
        }
        Loaded {
            keys: self.keys,
            strays: strays as u64,
            malformed: self.malformed,
        }
    }
}

/// What a start found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Keys.
    pub keys: u64,
    /// What belonged to no key.
    pub strays: u64,
    /// Entries that couldn't be read.
    pub malformed: u64,
}

/// Finishes a long unit that a former incarnation was writing; whether there was one.
///
/// # Errors
/// The store's; or what is there is no unit.
pub fn finish_unit(
    store: &Handle<dyn KeyValueStore>,
    journal: &mut Journal,
    ledger: &mut Ledger,
) -> Result<bool, StoreError> {
    let redo = match read_value(store, &mut None, REDO_KEY, VALUE_LIMIT_BYTES as usize) {
        Ok(redo) => redo,
        Err(StoreError::NotFound) => return Ok(false),
        Err(error) => return Err(error),
    };
    let parts = read_redo(&redo).ok_or(StoreError::Corrupt)?;
    for (entries, staged) in parts {
        let mut buffer = new_buffer()?;
        fill(&mut buffer, &entries);
        let mut seen = HashSet::with_hasher(Hasher::with_seed(2));
        for entry in Reader::new(&buffer) {
            match entry.map_err(|_| StoreError::Corrupt)? {
                Entry::Put { key, value } => journal.put(key, value),
                // A value's number is new in each incarnation.
                Entry::PutStaged { key, value, .. } => {
                    if let Some(value) = staged.iter().find(|staged| staged.number == value) {
                        seen.insert(value.number);
                        journal.put(key, &value.bytes);
                    }
                }
                Entry::Delete { key } => journal.delete_raw(key),
                Entry::Clear => journal.clear(),
                Entry::Key { .. } => return Err(StoreError::Corrupt),
            }
            // The redo entry holds it all together; groups needn't.
            journal.end_unit();
        }
        ledger.append(journal);
    }
    journal.delete_raw(REDO_KEY);
    journal.end_unit();
    ledger.append(journal);
    match ledger.failure() {
        Some(error) => Err(error),
        None => Ok(true),
    }
}

/// Reads a part of the store: where to go on. `visit` gets each name and value.
///
/// # Errors
/// The store's.
pub fn scan_part(
    store: &Handle<dyn KeyValueStore>,
    buffer: &mut Option<RRef<StoreBuffer>>,
    cursor: u64,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<Option<u64>, StoreError> {
    let empty = buffer.take().map_or_else(new_buffer, Ok)?;
    let scanned = store.scan(cursor, SCAN_VALUE_BYTES, empty)?;
    let mut other = None;
    for entry in Reader::new(&scanned.buffer) {
        match entry.map_err(|_| StoreError::Corrupt)? {
            Entry::Put { key, value } => visit(key, value),
            // A string's chunk is read when it is asked for; an element that is long is read now.
            Entry::Key { key, .. } if key.first() == Some(&Kind::String.letter()) => visit(key, &[]),
            Entry::Key { key, .. } if key == REDO_KEY => {}
            Entry::Key { key, .. } => match read_value(store, &mut other, key, VALUE_LIMIT_BYTES as usize) {
                Ok(value) => visit(key, &value),
                // It went while the scan was under way.
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(error),
            },
            _ => return Err(StoreError::Corrupt),
        }
    }
    *buffer = Some(scanned.buffer);
    Ok(scanned.next)
}
