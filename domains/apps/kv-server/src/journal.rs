//! Changes on their way to the store.
//!
//! Commands write what they change as entries: a key's own entry (type, expiry, a short string's bytes), and an entry for each element of a
//! collection. The entries of one command, or of one EXEC, are a *unit*: on the disk whole or not at all. Units are packed into *groups*, the
//! store's own unit of atomicity; one that is longer than a group is written twice, first as a value of its own from which a start can finish it.
//! Entries say what is, not what happened, so a group can be appended again.
//!
//! This file has no part in where groups go: `ledger.rs` appends them.

use crate::value::Kind;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::Hasher;
use interface::key_value::{
    Entry, INLINE_LIMIT_BYTES, KEY_LIMIT_BYTES, STORE_BYTES, StoreBuffer, VALUE_LIMIT_BYTES, Writer,
};
use siphasher::sip128::{Hasher128, SipHasher24};

/// First byte of a key's own entry.
pub const KEY_LETTER: u8 = b'k';
/// The entry with a unit that is being written in several groups.
pub const REDO_KEY: &[u8] = b"r";
/// The entry that says which space each database is.
pub const SPACES_KEY: &[u8] = b"d";
/// Flag in an element's letter: the element is too long for a key, so that its digest is there and the element before the value.
pub const DIGEST_FLAG: u8 = 0x80;
/// Keys of users at most, in bytes.
pub const USER_KEY_LIMIT_BYTES: usize = KEY_LIMIT_BYTES - 16;
/// Longer elements are named by their digest, in bytes.
const ELEMENT_KEY_LIMIT_BYTES: usize = 1024;

/// A value that is too long for an entry, under the number that an entry of its group names it by.
#[derive(Debug, PartialEq, Eq)]
pub struct Staged {
    /// The number; no other value since the start has it.
    pub number: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the store is to append at once.
#[derive(Debug, Default)]
pub struct Group {
    /// Counts groups from 1; not the store's number, which a store that was restarted begins anew.
    pub number: u64,
    /// Entries, as `interface::key_value::Writer` writes them.
    pub entries: Vec<u8>,
    /// The long values that they name.
    pub staged: Vec<Staged>,
}

/// The journal.
pub struct Journal {
    buffer: Box<StoreBuffer>,
    staged: Vec<Staged>,
    /// Where the unit at hand begins in `buffer`, and in `staged`.
    unit_start: usize,
    unit_staged: usize,
    /// What came before `buffer` of a unit that is longer.
    parts: Vec<(Vec<u8>, Vec<Staged>)>,
    /// Entries that needn't be on the disk together with any others, but before the unit at hand.
    early: Option<Box<StoreBuffer>>,
    closed: VecDeque<Group>,
    spare: Vec<Vec<u8>>,
    next_group: u64,
    next_value: u64,
    next_id: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    enabled: bool,
}

/// Made where it is to lie: it is too large for a stack.
fn empty_buffer() -> Box<StoreBuffer> {
    Box::new(StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    })
}

impl Journal {
    /// An empty journal. `first_value` begins the numbers of long values: no other incarnation may have given the same.
    pub fn new(first_value: u64) -> Journal {
        Journal {
            buffer: empty_buffer(),
            staged: Vec::new(),
            unit_start: 0,
            unit_staged: 0,
            parts: Vec::new(),
            early: None,
            closed: VecDeque::new(),
            spare: Vec::new(),
            next_group: 1,
            next_value: first_value,
            next_id: 1,
            key: Vec::new(),
            value: Vec::new(),
            enabled: true,
        }
    }

    /// Whether changes are written; not where there is no store.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// A new identity for what has elements.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Notes that this identity is in use.
    pub fn reserve_id(&mut self, id: u64) {
        self.next_id = self.next_id.max(id.saturating_add(1));
    }

    /// Writes a key's own entry: what `value` appends, which is `Keyspace`'s business.
    #[inline]
    pub fn put_key(&mut self, space: u32, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        if !self.enabled {
            return;
        }
        let (mut name, mut content) = (core::mem::take(&mut self.key), core::mem::take(&mut self.value));
        name.clear();
        content.clear();
        key_name(&mut name, space, key);
        value(&mut content);
        self.put(&name, &content);
        (self.key, self.value) = (name, content);
    }

    /// Writes the own entry of a key with a string that is kept in memory, as `put_key` would with `content` and `bytes` behind it.
    #[inline]
    pub fn put_string(&mut self, space: u32, key: &[u8], content: &[u8], bytes: &[u8]) {
        let [a, b, c, d] = space.to_be_bytes();
        let is_written = self.enabled
            && Writer::resume(&mut self.buffer)
                .put_parts([&[KEY_LETTER, a, b, c, d], key], [content, bytes])
                .is_ok();
        if !is_written {
            self.put_key(space, key, |out| {
                out.extend_from_slice(content);
                out.extend_from_slice(bytes);
            });
        }
    }

    /// Removes a key's own entry.
    #[inline]
    pub fn delete_key(&mut self, space: u32, key: &[u8]) {
        if !self.enabled {
            return;
        }
        let mut name = core::mem::take(&mut self.key);
        name.clear();
        key_name(&mut name, space, key);
        self.push(&Entry::Delete { key: &name });
        self.key = name;
    }

    /// Writes an element of the collection `id`.
    pub fn put_element(&mut self, id: u64, kind: Kind, element: &[u8], value: &[u8]) {
        if !self.enabled {
            return;
        }
        let mut name = core::mem::take(&mut self.key);
        name.clear();
        if element_name(&mut name, id, kind, element) {
            let mut content = core::mem::take(&mut self.value);
            content.clear();
            content.extend_from_slice(&(element.len() as u32).to_le_bytes());
            content.extend_from_slice(element);
            content.extend_from_slice(value);
            self.put(&name, &content);
            content.shrink_to(INLINE_LIMIT_BYTES);
            self.value = content;
        } else {
            self.put(&name, value);
        }
        self.key = name;
    }

    /// Writes an element of what no key names yet, before the unit at hand and apart from it: so that a long value isn't a long unit.
    pub fn put_early(&mut self, id: u64, kind: Kind, element: &[u8], value: &[u8]) {
        if !self.enabled {
            return;
        }
        let mut name = Vec::with_capacity(32);
        element_name(&mut name, id, kind, element);
        let entry = Entry::Put { key: &name, value };
        let mut buffer = self.early.take().unwrap_or_else(empty_buffer);
        if Writer::resume(&mut buffer).push(&entry).is_err() {
            self.close_early(&buffer);
            // An empty buffer holds any entry.
            let _ = Writer::begin(&mut buffer).push(&entry);
        }
        self.early = Some(buffer);
    }

    /// Ends what `put_early` wrote.
    pub fn end_early(&mut self) {
        if let Some(buffer) = self.early.take() {
            self.close_early(&buffer);
        }
    }

    fn close_early(&mut self, buffer: &StoreBuffer) {
        let entries = buffer
            .data
            .get(..buffer.length as usize)
            .unwrap_or_default()
            .to_vec();
        self.close_group(entries, Vec::new());
    }

    /// Removes an element of the collection `id`.
    pub fn delete_element(&mut self, id: u64, kind: Kind, element: &[u8]) {
        if !self.enabled {
            return;
        }
        let mut name = core::mem::take(&mut self.key);
        name.clear();
        element_name(&mut name, id, kind, element);
        self.push(&Entry::Delete { key: &name });
        self.key = name;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.push(&Entry::Clear);
    }

    /// Removes an entry by its name in the store.
    pub fn delete_raw(&mut self, name: &[u8]) {
        self.push(&Entry::Delete { key: name });
    }

    /// Writes an entry by its name in the store.
    pub fn put(&mut self, name: &[u8], value: &[u8]) {
        if value.len() <= INLINE_LIMIT_BYTES {
            self.push(&Entry::Put { key: name, value });
            return;
        }
        let number = self.stage(value.to_vec());
        self.push(&Entry::PutStaged {
            key: name,
            value: number,
            value_bytes: value.len() as u64,
        });
    }

    fn stage(&mut self, bytes: Vec<u8>) -> u64 {
        let number = self.next_value;
        self.next_value += 1;
        if self.enabled {
            self.staged.push(Staged { number, bytes });
        }
        number
    }

    #[inline]
    fn push(&mut self, entry: &Entry<'_>) {
        if !self.enabled || Writer::resume(&mut self.buffer).push(entry).is_ok() {
            return;
        }
        self.make_room();
        // An empty buffer holds any entry: keys are limited where they come in, values above.
        let fits = Writer::resume(&mut self.buffer).push(entry);
        debug_assert!(fits.is_ok(), "an entry is longer than a group");
    }

    /// Empties the buffer: the units before the one at hand become a group, or else the unit is a long one.
    #[cold]
    fn make_room(&mut self) {
        let length = self.buffer.length as usize;
        if self.unit_start > 0 && self.parts.is_empty() {
            let unit = self.bytes(self.unit_start, length);
            let staged = self.staged.split_off(self.unit_staged.min(self.staged.len()));
            self.buffer.length = self.unit_start as u32;
            self.close_buffer();
            if let Some(to) = self.buffer.data.get_mut(..unit.len()) {
                to.copy_from_slice(&unit);
            }
            self.buffer.length = unit.len() as u32;
            self.staged = staged;
        } else {
            let part = self.bytes(0, length);
            self.parts.push((part, core::mem::take(&mut self.staged)));
            self.buffer.length = 0;
        }
        self.unit_start = 0;
        self.unit_staged = 0;
    }

    fn bytes(&mut self, start: usize, end: usize) -> Vec<u8> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(self.buffer.data.get(start..end).unwrap_or_default());
        bytes
    }

    fn close_buffer(&mut self) {
        let entries = self.bytes(0, self.buffer.length as usize);
        let staged = core::mem::take(&mut self.staged);
        self.close_group(entries, staged);
        self.buffer.length = 0;
        self.unit_start = 0;
        self.unit_staged = 0;
    }

    fn close_group(&mut self, entries: Vec<u8>, staged: Vec<Staged>) {
        if entries.is_empty() {
            return;
        }
        self.closed.push_back(Group {
            number: self.next_group,
            entries,
            staged,
        });
        self.next_group += 1;
    }

    /// Ends a unit: what comes next needn't be on the disk together with it.
    #[inline]
    pub fn end_unit(&mut self) {
        if !self.parts.is_empty() {
            self.end_long_unit();
        }
        self.unit_start = self.buffer.length as usize;
        self.unit_staged = self.staged.len();
    }

    #[cold]
    fn end_long_unit(&mut self) {
        let mut parts = core::mem::take(&mut self.parts);
        let last = self.bytes(0, self.buffer.length as usize);
        parts.push((last, core::mem::take(&mut self.staged)));
        self.buffer.length = 0;
        let mut redo = Vec::new();
        for (entries, staged) in &parts {
            write_redo_part(&mut redo, entries, staged);
        }
        let number = self.next_value;
        self.next_value += 1;
        let value_bytes = redo.len() as u64;
        // One that is longer than a value can be is written without: if the power goes in the middle, its beginning is there.
        let with_redo = value_bytes <= VALUE_LIMIT_BYTES;
        if with_redo {
            self.staged.push(Staged { number, bytes: redo });
            self.push(&Entry::PutStaged {
                key: REDO_KEY,
                value: number,
                value_bytes,
            });
            self.close_buffer();
        }
        for (entries, staged) in parts {
            self.close_group(entries, staged);
        }
        if with_redo {
            self.push(&Entry::Delete { key: REDO_KEY });
        }
    }

    /// The groups to append, in order; call it between units.
    #[inline]
    pub fn take_groups(&mut self) -> &mut VecDeque<Group> {
        if self.buffer.length > 0 {
            self.close_buffer();
        }
        &mut self.closed
    }

    /// Gives a group's memory back for another.
    pub fn recycle(&mut self, group: Group) {
        if self.spare.len() < 64 && group.entries.capacity() <= STORE_BYTES {
            self.spare.push(group.entries);
        }
    }

    /// A new number for a long value.
    pub fn new_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value - 1
    }

    /// What an entry that isn't appended yet says of a name: `Some(None)` when it is deleted.
    pub fn find_pending(&self, name: &[u8]) -> Option<Option<Vec<u8>>> {
        let mut found = None;
        let mut look = |entries: &[u8], staged: &[Staged]| {
            for_each_entry(entries, |entry| match entry {
                Entry::Put { key, value } if *key == name => found = Some(Some(value.to_vec())),
                Entry::PutStaged { key, value, .. } if *key == name => {
                    let of_number = staged.iter().find(|staged| staged.number == *value);
                    found = of_number.map(|staged| Some(staged.bytes.clone()));
                }
                Entry::Delete { key } if *key == name => found = Some(None),
                Entry::Clear => found = Some(None),
                _ => {}
            });
        };
        for group in &self.closed {
            look(&group.entries, &group.staged);
        }
        for (entries, staged) in &self.parts {
            look(entries, staged);
        }
        let in_buffer = self.buffer.data.get(..self.buffer.length as usize);
        look(in_buffer.unwrap_or_default(), &self.staged);
        found
    }

    /// The number that the next group will have.
    pub fn next_group(&self) -> u64 {
        self.next_group
    }

    /// Whether there is nothing to append.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buffer.length == 0 && self.closed.is_empty()
    }
}

fn write_redo_part(redo: &mut Vec<u8>, entries: &[u8], staged: &[Staged]) {
    redo.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    redo.extend_from_slice(entries);
    redo.extend_from_slice(&(staged.len() as u32).to_le_bytes());
    for value in staged {
        redo.extend_from_slice(&value.number.to_le_bytes());
        redo.extend_from_slice(&(value.bytes.len() as u64).to_le_bytes());
        redo.extend_from_slice(&value.bytes);
    }
}

/// One part of a long unit, as a start finds it: its entries, and the long values that they name.
pub type RedoPart = (Vec<u8>, Vec<Staged>);

/// Takes apart what was written of a long unit; `None` if it isn't that.
pub fn read_redo(mut redo: &[u8]) -> Option<Vec<RedoPart>> {
    fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(taken)
    }
    fn word(from: &mut &[u8]) -> Option<u32> {
        take(from, 4)?.try_into().ok().map(u32::from_le_bytes)
    }
    fn number_of(from: &mut &[u8]) -> Option<u64> {
        take(from, 8)?.try_into().ok().map(u64::from_le_bytes)
    }
    let mut parts = Vec::new();
    while !redo.is_empty() {
        let length = word(&mut redo)? as usize;
        let entries = take(&mut redo, length)?.to_vec();
        let mut staged = Vec::new();
        for _ in 0..word(&mut redo)? {
            let number = number_of(&mut redo)?;
            let length = usize::try_from(number_of(&mut redo)?).ok()?;
            let bytes = take(&mut redo, length)?.to_vec();
            staged.push(Staged { number, bytes });
        }
        parts.push((entries, staged));
    }
    Some(parts)
}

/// Calls `visit` with each entry of `entries`, at most a buffer of them.
pub fn for_each_entry(entries: &[u8], mut visit: impl FnMut(&Entry<'_>)) {
    let mut buffer = empty_buffer();
    if let Some(to) = buffer.data.get_mut(..entries.len()) {
        to.copy_from_slice(entries);
        buffer.length = entries.len() as u32;
    }
    for entry in interface::key_value::Reader::new(&buffer).flatten() {
        visit(&entry);
    }
}

/// 256 bits that stand for a long element.
fn digest_of(element: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    for (part, key) in digest.chunks_exact_mut(16).zip([0, 1]) {
        let mut hasher = SipHasher24::new_with_keys(key, !key);
        hasher.write(element);
        part.copy_from_slice(&hasher.finish128().as_bytes());
    }
    digest
}

/// The name of a key's own entry in the store.
#[inline]
pub fn key_name(name: &mut Vec<u8>, space: u32, key: &[u8]) {
    name.push(KEY_LETTER);
    name.extend_from_slice(&space.to_be_bytes());
    name.extend_from_slice(key);
}

/// The name of an element's entry in the store; whether it is the digest, so that the element is to be in the value.
pub fn element_name(name: &mut Vec<u8>, id: u64, kind: Kind, element: &[u8]) -> bool {
    let digest = element.len() > ELEMENT_KEY_LIMIT_BYTES;
    name.push(kind.letter() | if digest { DIGEST_FLAG } else { 0 });
    name.extend_from_slice(&id.to_be_bytes());
    if digest {
        name.extend_from_slice(&digest_of(element));
    } else {
        name.extend_from_slice(element);
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(journal: &mut Journal) -> Vec<(Vec<u8>, Vec<Staged>)> {
        journal.end_unit();
        let groups = journal.take_groups().drain(..);
        groups.map(|group| (group.entries, group.staged)).collect()
    }

    proptest! {
        /// The fast way of short strings writes what the other one does, also where a group ends, and beyond what an entry holds.
        #[test]
        fn a_string_is_written_as_any_key(
            strings in prop::collection::vec((0_u32..3, 0_usize..40, prop_oneof![0_usize..40, 7000_usize..20_000]), 1..20)
        ) {
            let (mut fast, mut slow) = (Journal::new(1), Journal::new(1));
            for (space, key_bytes, value_bytes) in strings {
                let (key, bytes) = (vec![b'k'; key_bytes], vec![b'v'; value_bytes]);
                fast.put_string(space, &key, b"123456789", &bytes);
                slow.put_key(space, &key, |out| {
                    out.extend_from_slice(b"123456789");
                    out.extend_from_slice(&bytes);
                });
                fast.end_unit();
                slow.end_unit();
            }
            prop_assert_eq!(groups(&mut fast), groups(&mut slow));
        }
    }
}
