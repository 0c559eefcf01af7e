//! The key space: databases of keys with values and expiry times, and who is to hear of their changes.
//!
//! Every change goes through here, so that each is journaled, accounted for and told: to transactions that watch the key, to clients that wait for
//! it, to subscribers of key space events. Commands know keys by their [`Slot`]s, which hold until the key is removed.
//!
//! Databases as a whole are in `spaces.rs`. A database is a *space* of keys with a number of its own in the store; so emptying or swapping databases is one small entry, and what was
//! in a space that no database is any more is removed a little at a time.

use crate::journal::Journal;
use crate::stable_map::{Slot, StableMap};
use crate::stored_entry::{chunks, entry_head, write_entry};
use crate::value::{Collection, StringValue, Value};
use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use bitflags::bitflags;

/// Databases.
pub const DATABASES: usize = 16;
/// No expiry.
pub const NEVER_MS: u64 = 0;
/// Bytes of memory that a key takes beside its own bytes and its value's, nearly.
const ENTRY_BYTES: usize = 120;

/// What a key has.
pub struct Entry {
    /// Its value.
    pub value: Value,
    /// When it expires, milliseconds since 1970; [`NEVER_MS`] for never. Changed by [`Keyspace::set_expiry`] alone.
    pub expires_ms: u64,
    /// Identity of its elements in the store; 0 for a string in memory.
    pub id: u64,
    /// When it was last used, in seconds since 1970.
    pub used_s: u32,
    /// Bytes of memory counted for it.
    pub(crate) counted_bytes: usize,
}

/// A database.
pub struct Database {
    /// Its keys.
    pub keys: StableMap<Entry>,
    /// The keys that expire, by time.
    expiring: BTreeSet<(u64, Slot)>,
    pub(crate) space: u32,
}

impl Database {
    pub(crate) fn new(space: u32, seed: u64) -> Database {
        Database {
            keys: StableMap::new(seed),
            expiring: BTreeSet::new(),
            space,
        }
    }

    /// Keys that expire.
    pub fn expiring_count(&self) -> usize {
        self.expiring.len()
    }

    /// Mean time to live of the keys that expire at `now_ms`, in milliseconds, by the earliest and the latest.
    pub fn average_ttl_ms(&self, now_ms: u64) -> u64 {
        match (self.expiring.first(), self.expiring.last()) {
            (Some((first, _)), Some((last, _))) => (first.midpoint(*last)).saturating_sub(now_ms),
            _ => 0,
        }
    }
}

bitflags! {
    /// Classes of key space events, as `notify-keyspace-events` has letters for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Events: u32 {
        /// `K`: channels by key.
        const KEYSPACE = 1;
        /// `E`: channels by event.
        const KEYEVENT = 1 << 1;
        /// `g`: commands of any type.
        const GENERIC = 1 << 2;
        /// `$`: strings.
        const STRING = 1 << 3;
        /// `l`: lists.
        const LIST = 1 << 4;
        /// `s`: sets.
        const SET = 1 << 5;
        /// `h`: hashes.
        const HASH = 1 << 6;
        /// `z`: sorted sets.
        const SORTED_SET = 1 << 7;
        /// `x`: keys that expired.
        const EXPIRED = 1 << 8;
        /// `e`: keys that were evicted.
        const EVICTED = 1 << 9;
        /// `t`: streams.
        const STREAM = 1 << 10;
        /// `m`: keys that weren't there.
        const KEY_MISS = 1 << 11;
        /// `n`: new keys.
        const NEW = 1 << 12;
        /// `A`: all of them but misses and new keys.
        const ALL = Self::GENERIC.bits() | Self::STRING.bits() | Self::LIST.bits() | Self::SET.bits() | Self::HASH.bits()
            | Self::SORTED_SET.bits() | Self::EXPIRED.bits() | Self::EVICTED.bits() | Self::STREAM.bits();
    }
}

/// Something that happened to a key.
pub struct KeyEvent {
    /// What.
    pub name: &'static str,
    /// In which database.
    pub database: usize,
    /// To which key.
    pub key: Box<[u8]>,
}

/// What is left of keys that are gone.
pub(crate) enum Remains {
    Collection(u64, Box<dyn Collection>),
    /// A string's chunks, from this one on.
    Chunks(u64, u32),
    Space(u32, StableMap<Entry>),
}

/// A key's value is no string in memory, or it may have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInMemory;

/// The key space.
pub struct Keyspace {
    pub(crate) databases: Vec<Database>,
    pub(crate) next_space: u32,
    /// The journal.
    pub journal: Journal,
    /// Milliseconds since 1970, as of this round.
    pub now_ms: u64,
    /// Changes since the start.
    pub dirty: u64,
    /// Keys that expired since the start.
    pub expired: u64,
    /// Keys that have expired stay, and aren't found: in a pause.
    pub keeps_expired: bool,
    /// No key expires before this, milliseconds since 1970.
    next_expiry_ms: u64,
    /// Bytes of memory that keys and values take, nearly.
    pub used_bytes: usize,
    /// Keys of which a change is of interest: watched or waited for.
    interest: StableMap<u32>,
    /// Of these, which changed, by database.
    pub touched: Vec<(usize, Box<[u8]>)>,
    /// Databases that were emptied or swapped whole.
    pub touched_databases: Vec<usize>,
    /// Which events are wanted.
    pub wanted_events: Events,
    /// Which happened.
    pub events: Vec<KeyEvent>,
    pub(crate) remains: VecDeque<Remains>,
    random: u64,
}

impl Keyspace {
    /// An empty key space; `seed` is unpredictable.
    pub fn new(seed: u64, first_value: u64) -> Keyspace {
        let databases = (0..DATABASES as u32)
            .map(|number| Database::new(number, seed.wrapping_add(u64::from(number))))
            .collect();
        Keyspace {
            databases,
            next_space: DATABASES as u32,
            journal: Journal::new(first_value),
            now_ms: 0,
            dirty: 0,
            expired: 0,
            keeps_expired: false,
            next_expiry_ms: u64::MAX,
            used_bytes: 0,
            interest: StableMap::new(seed.rotate_left(7)),
            touched: Vec::new(),
            touched_databases: Vec::new(),
            wanted_events: Events::default(),
            events: Vec::new(),
            remains: VecDeque::new(),
            random: seed | 1,
        }
    }

    /// A number that nobody can guess easily.
    pub fn random(&mut self) -> u64 {
        // xorshift64*, seeded unpredictably.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A database; commands have checked its number.
    #[inline]
    pub fn database(&self, number: usize) -> Option<&Database> {
        self.databases.get(number)
    }

    /// Where a key is, unless it has expired: then it is removed.
    #[inline]
    pub fn find(&mut self, database: usize, key: &[u8]) -> Option<Slot> {
        let keys = &mut self.databases.get_mut(database)?.keys;
        let slot = keys.find(key)?;
        let entry = keys.get_mut(slot)?;
        if entry.expires_ms != NEVER_MS && entry.expires_ms <= self.now_ms {
            if !self.keeps_expired {
                self.expire(database, slot);
            }
            return None;
        }
        Some(slot)
    }

    /// The bytes of a string that is in memory and doesn't expire, which counts as used now if `touches`; of no key there are none. The fast way of GET.
    ///
    /// # Errors
    /// Where it takes more than that.
    #[inline]
    pub fn string_in_memory(
        &mut self,
        database: usize,
        key: &[u8],
        touches: bool,
    ) -> Result<Option<&[u8]>, NotInMemory> {
        let now_s = (self.now_ms / 1000) as u32;
        let keys = &mut self.databases.get_mut(database).ok_or(NotInMemory)?.keys;
        let Some(slot) = keys.find(key) else {
            return Ok(None);
        };
        match keys.get_mut(slot) {
            Some(Entry {
                value: Value::String(StringValue::Memory(bytes)),
                expires_ms: NEVER_MS,
                used_s,
                ..
            }) => {
                if touches {
                    *used_s = now_s;
                }
                Ok(Some(bytes))
            }
            _ => Err(NotInMemory),
        }
    }

    /// What the key in a slot has.
    #[inline]
    pub fn entry(&self, database: usize, slot: Slot) -> Option<&Entry> {
        self.databases.get(database)?.keys.get(slot)
    }

    /// The key in a slot is used now.
    #[inline]
    pub fn touch(&mut self, database: usize, slot: Slot) {
        let now_s = (self.now_ms / 1000) as u32;
        if let Some(entry) = self.entry_mut(database, slot) {
            entry.used_s = now_s;
        }
    }

    /// What the key in a slot has, to change it; [`changed`](Self::changed) is to follow.
    #[inline]
    pub fn entry_mut(&mut self, database: usize, slot: Slot) -> Option<&mut Entry> {
        self.databases.get_mut(database)?.keys.get_mut(slot)
    }

    /// The same with the journal, for elements.
    #[inline]
    pub fn entry_and_journal(&mut self, database: usize, slot: Slot) -> Option<(&mut Entry, &mut Journal)> {
        let entry = self.databases.get_mut(database)?.keys.get_mut(slot)?;
        Some((entry, &mut self.journal))
    }

    /// Puts a value under a key, whatever was there, without expiry. A collection's elements are journaled too. [`changed`](Self::changed) is to follow.
    pub fn insert(&mut self, database: usize, key: &[u8], value: Value) -> Option<Slot> {
        if let Some(slot) = self.databases.get(database)?.keys.find(key) {
            self.take_value(database, slot);
        }
        let id = match &value {
            Value::String(StringValue::Memory(_)) => 0,
            Value::String(StringValue::Stored { .. }) | Value::Collection(_) => self.journal.new_id(),
        };
        if let Value::Collection(collection) = &value {
            let kind = collection.kind();
            let journal = &mut self.journal;
            collection
                .for_each_element(&mut |element, content| journal.put_element(id, kind, element, content));
        }
        self.place(database, key, value, id, NEVER_MS)
    }

    /// Puts a string that is kept in memory under a key that isn't there. [`changed`](Self::changed) is to follow. The fast way of SET.
    pub fn place_string(&mut self, database: usize, key: &[u8], bytes: &[u8]) -> Option<Slot> {
        let used_s = (self.now_ms / 1000) as u32;
        let entry = Entry {
            value: Value::string(bytes),
            expires_ms: NEVER_MS,
            id: 0,
            used_s,
            counted_bytes: 0,
        };
        let slot = self.databases.get_mut(database)?.keys.insert_absent(key, entry);
        self.journal_key(database, slot);
        Some(slot)
    }

    /// Puts a value whose elements are journaled already.
    pub fn place(
        &mut self,
        database: usize,
        key: &[u8],
        value: Value,
        id: u64,
        expires_ms: u64,
    ) -> Option<Slot> {
        let used_s = (self.now_ms / 1000) as u32;
        let space = self.databases.get_mut(database)?;
        let (slot, old) = space.keys.insert(
            key,
            Entry {
                value,
                expires_ms,
                id,
                used_s,
                counted_bytes: 0,
            },
        );
        if let Some(old) = old {
            self.used_bytes = self.used_bytes.saturating_sub(old.counted_bytes);
            if old.expires_ms != NEVER_MS {
                space.expiring.remove(&(old.expires_ms, slot));
            }
        }
        if expires_ms != NEVER_MS {
            space.expiring.insert((expires_ms, slot));
            self.next_expiry_ms = self.next_expiry_ms.min(expires_ms);
        }
        self.journal_key(database, slot);
        Some(slot)
    }

    /// Replaces a string's bytes by others that are kept in memory, with what was there gone and the expiry as it is. The fast way of SET.
    #[inline]
    pub fn overwrite_string(&mut self, database: usize, slot: Slot, bytes: &[u8]) {
        let Some(space) = self.databases.get_mut(database) else {
            return;
        };
        if let Some(Entry {
            value: Value::String(StringValue::Memory(present)),
            ..
        }) = space.keys.get_mut(slot)
        {
            present.clear();
            if present.capacity() > bytes.len() * 2 + 64 {
                present.shrink_to(bytes.len());
            }
            present.extend_from_slice(bytes);
        } else {
            self.take_value(database, slot);
            if let Some(entry) = self.entry_mut(database, slot) {
                entry.value = Value::string(bytes);
            }
        }
        self.journal_key(database, slot);
    }

    /// Takes the value of a slot out, to be removed a little at a time; an empty string stays.
    pub fn take_value(&mut self, database: usize, slot: Slot) {
        let Some(entry) = self.entry_mut(database, slot) else {
            return;
        };
        let old = core::mem::replace(&mut entry.value, Value::String(StringValue::Memory(Vec::new())));
        let id = core::mem::take(&mut entry.id);
        self.discard(id, old);
    }

    /// Has the elements that a value has in the store removed, a little at a time.
    pub fn discard(&mut self, id: u64, value: Value) {
        match value {
            Value::String(StringValue::Memory(_)) => {}
            Value::String(StringValue::Stored { .. }) => {
                self.remains.push_back(Remains::Chunks(id, chunks(&value)))
            }
            Value::Collection(collection) => self.remains.push_back(Remains::Collection(id, collection)),
        }
    }

    /// Writes a key's own entry: after a change of its expiry, its id, a short string's bytes, or a collection's metadata.
    #[inline]
    pub fn journal_key(&mut self, database: usize, slot: Slot) {
        let Some(space) = self.databases.get(database) else {
            return;
        };
        if let Some((key, entry)) = space.keys.entry(slot) {
            match &entry.value {
                Value::String(StringValue::Memory(bytes)) => {
                    self.journal
                        .put_string(space.space, key, &entry_head(entry), bytes);
                }
                _ => self
                    .journal
                    .put_key(space.space, key, |out| write_entry(out, entry)),
            }
        }
    }

    /// A key has changed: accounts for it and has it told.
    #[inline]
    pub fn changed(&mut self, database: usize, slot: Slot) {
        self.dirty += 1;
        let Some(space) = self.databases.get_mut(database) else {
            return;
        };
        let Some((key, entry)) = space.keys.entry_mut(slot) else {
            return;
        };
        entry.used_s = (self.now_ms / 1000) as u32;
        let bytes = ENTRY_BYTES + key.len() + entry.value.memory_bytes();
        self.used_bytes = (self.used_bytes + bytes).saturating_sub(entry.counted_bytes);
        entry.counted_bytes = bytes;
        if !self.interest.is_empty() && self.interest.find(key).is_some() {
            self.touched.push((database, key.into()));
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, database: usize, slot: Slot) {
        self.dirty += 1;
        let Some(space) = self.databases.get_mut(database) else {
            return;
        };
        let Some((key, entry)) = space.keys.take(slot) else {
            return;
        };
        if entry.expires_ms != NEVER_MS {
            space.expiring.remove(&(entry.expires_ms, slot));
        }
        self.journal.delete_key(space.space, &key);
        self.used_bytes = self.used_bytes.saturating_sub(entry.counted_bytes);
        if !self.interest.is_empty() && self.interest.find(&key).is_some() {
            self.touched.push((database, key));
        }
        self.discard(entry.id, entry.value);
    }

    /// Takes a key out with its value, whose elements stay in the store under their id: for a key that moves.
    pub fn detach(&mut self, database: usize, slot: Slot) -> Option<Entry> {
        self.dirty += 1;
        let space = self.databases.get_mut(database)?;
        let (key, entry) = space.keys.take(slot)?;
        if entry.expires_ms != NEVER_MS {
            space.expiring.remove(&(entry.expires_ms, slot));
        }
        self.journal.delete_key(space.space, &key);
        self.used_bytes = self.used_bytes.saturating_sub(entry.counted_bytes);
        if !self.interest.is_empty() && self.interest.find(&key).is_some() {
            self.touched.push((database, key));
        }
        Some(entry)
    }

    /// Forgets when a key expires, without journaling it: for one that is journaled with a new value next.
    #[inline]
    pub fn forget_expiry(&mut self, database: usize, slot: Slot) {
        if let Some(space) = self.databases.get_mut(database)
            && let Some(entry) = space.keys.get_mut(slot)
            && entry.expires_ms != NEVER_MS
        {
            space.expiring.remove(&(entry.expires_ms, slot));
            entry.expires_ms = NEVER_MS;
        }
    }

    /// Sets when a key expires, and journals it; [`changed`](Self::changed) is to follow.
    pub fn set_expiry(&mut self, database: usize, slot: Slot, expires_ms: u64) {
        let Some(space) = self.databases.get_mut(database) else {
            return;
        };
        let Some(entry) = space.keys.get_mut(slot) else {
            return;
        };
        if entry.expires_ms == expires_ms {
            return;
        }
        if entry.expires_ms != NEVER_MS {
            space.expiring.remove(&(entry.expires_ms, slot));
        }
        entry.expires_ms = expires_ms;
        if expires_ms != NEVER_MS {
            space.expiring.insert((expires_ms, slot));
            self.next_expiry_ms = self.next_expiry_ms.min(expires_ms);
        }
        self.journal_key(database, slot);
    }

    #[cold]
    fn expire(&mut self, database: usize, slot: Slot) {
        self.expired += 1;
        if self.wanted_events.contains(Events::EXPIRED)
            && let Some(key) = self.database(database).and_then(|space| space.keys.key(slot))
        {
            let key = key.into();
            self.events.push(KeyEvent {
                name: "expired",
                database,
                key,
            });
        }
        self.remove(database, slot);
    }

    /// When the next key expires, or is to be removed; milliseconds since 1970.
    #[inline]
    pub fn next_expiry_ms(&self) -> u64 {
        self.next_expiry_ms
    }

    /// Removes up to `limit` keys that have expired.
    pub fn expire_due(&mut self, limit: usize) {
        let mut earliest = u64::MAX;
        let mut left = limit;
        for database in 0..self.databases.len() {
            while let Some(&(due_ms, slot)) = self
                .databases
                .get(database)
                .and_then(|space| space.expiring.first())
            {
                if due_ms > self.now_ms || left == 0 {
                    earliest = earliest.min(due_ms);
                    break;
                }
                left -= 1;
                self.expire(database, slot);
                self.journal.end_unit();
            }
        }
        self.next_expiry_ms = earliest;
    }

    /// Notes an event, if it is wanted.
    #[inline]
    pub fn notify(&mut self, class: Events, name: &'static str, database: usize, key: &[u8]) {
        if self.wanted_events.intersects(class) {
            let key = key.into();
            self.events.push(KeyEvent { name, database, key });
        }
    }

    /// Has changes of a key noted in `touched`; counted.
    pub fn add_interest(&mut self, key: &[u8]) {
        match self
            .interest
            .find(key)
            .and_then(|slot| self.interest.get_mut(slot))
        {
            Some(count) => *count += 1,
            None => {
                self.interest.insert(key, 1);
            }
        }
    }

    /// Ends one interest in a key.
    pub fn remove_interest(&mut self, key: &[u8]) {
        if let Some(slot) = self.interest.find(key)
            && let Some(count) = self.interest.get_mut(slot)
        {
            *count -= 1;
            if *count == 0 {
                self.interest.take(slot);
            }
        }
    }
}
