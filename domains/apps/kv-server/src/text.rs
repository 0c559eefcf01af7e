//! Strings, wherever their bytes are: in memory, or in the store in chunks.

use crate::command::Context;
use crate::error::CommandError;
use crate::journal::{Journal, USER_KEY_LIMIT_BYTES, element_name};
use crate::keyspace::{Events, NEVER_MS};
use crate::ledger::Ledger;
use crate::stable_map::Slot;
use crate::stored_entry::chunks;
use crate::value::{CHUNK_BYTES, IN_MEMORY_BYTES, Kind, StringValue, Value};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use interface::key_value::StoreError;

/// Reads one chunk of a string.
fn read_chunk(journal: &Journal, ledger: &mut Ledger, id: u64, index: u32) -> Result<Vec<u8>, CommandError> {
    let mut name = Vec::with_capacity(16);
    element_name(&mut name, id, Kind::String, &index.to_be_bytes());
    match journal.find_pending(&name) {
        Some(Some(bytes)) => Ok(bytes),
        Some(None) => Err(CommandError::Store(StoreError::NotFound)),
        None => ledger.read(&name, CHUNK_BYTES).map_err(CommandError::Store),
    }
}

impl Context<'_> {
    /// Where a key with a string is; `None` if there is no such key.
    ///
    /// # Errors
    /// When the key holds another type.
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<Slot>, CommandError> {
        let Some(slot) = self.find(key) else {
            return Ok(None);
        };
        match self.entry(slot).map(|entry| &entry.value) {
            Some(Value::String(_)) => Ok(Some(slot)),
            _ => Err(CommandError::WrongType),
        }
    }

    /// Length of the string in a slot, in bytes.
    pub fn string_length(&self, slot: Slot) -> u64 {
        match self.entry(slot).map(|entry| &entry.value) {
            Some(Value::String(string)) => string.len(),
            _ => 0,
        }
    }

    /// The string in a slot, all of it.
    ///
    /// # Errors
    /// The store's.
    pub fn bytes(&mut self, slot: Slot) -> Result<Cow<'_, [u8]>, CommandError> {
        let length = self.string_length(slot);
        self.bytes_between(slot, 0, length)
    }

    /// The bytes of the string in a slot from `start` to before `end`, or its end.
    ///
    /// # Errors
    /// The store's.
    pub fn bytes_between(&mut self, slot: Slot, start: u64, end: u64) -> Result<Cow<'_, [u8]>, CommandError> {
        let server = &mut *self.server;
        let Some(entry) = server.keyspace.entry(self.database, slot) else {
            return Ok(Cow::Borrowed(&[]));
        };
        let (id, length) = match &entry.value {
            Value::String(StringValue::Memory(bytes)) => {
                let end = end.min(bytes.len() as u64) as usize;
                return Ok(Cow::Borrowed(bytes.get(start as usize..end).unwrap_or_default()));
            }
            Value::String(StringValue::Stored { length }) => (entry.id, *length),
            Value::Collection(_) => return Err(CommandError::WrongType),
        };
        let end = end.min(length);
        if start >= end {
            return Ok(Cow::Borrowed(&[]));
        }
        let step = CHUNK_BYTES as u64;
        let mut bytes = Vec::with_capacity((end - start) as usize);
        for index in start / step..end.div_ceil(step) {
            let chunk = read_chunk(&server.keyspace.journal, &mut server.ledger, id, index as u32)?;
            let first = start.saturating_sub(index * step).min(chunk.len() as u64) as usize;
            let last = (end - index * step).min(chunk.len() as u64) as usize;
            bytes.extend_from_slice(chunk.get(first..last).unwrap_or_default());
        }
        Ok(Cow::Owned(bytes))
    }

    /// Writes the string in a slot as a reply.
    ///
    /// # Errors
    /// The store's.
    #[inline]
    pub fn reply_string(&mut self, slot: Slot) -> Result<(), CommandError> {
        if let Some(entry) = self.server.keyspace.entry(self.database, slot)
            && let Value::String(StringValue::Memory(bytes)) = &entry.value
        {
            self.reply.bulk(bytes);
            return Ok(());
        }
        let bytes = self.bytes(slot)?.into_owned();
        self.reply.bulk(&bytes);
        Ok(())
    }

    fn keeps_in_memory(&self, length: u64) -> bool {
        length <= IN_MEMORY_BYTES as u64 || !self.server.ledger.has_store()
    }

    /// Sets a key to a string, whatever it was. Its expiry is removed unless it is to be kept. `Context::changed` is to follow.
    ///
    /// # Errors
    /// When the key or the string is too long.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8], keep_expiry: bool) -> Result<Slot, CommandError> {
        let present = self.server.keyspace.find(self.database, key);
        self.set_string_at(key, present, bytes, keep_expiry)
    }

    /// The same, where the caller has looked for the key.
    ///
    /// # Errors
    /// When the key or the string is too long.
    #[inline]
    pub fn set_string_at(
        &mut self,
        key: &[u8],
        present: Option<Slot>,
        bytes: &[u8],
        keep_expiry: bool,
    ) -> Result<Slot, CommandError> {
        let database = self.database;
        if !self.keeps_in_memory(bytes.len() as u64) {
            return self.set_stored(key, bytes, keep_expiry);
        }
        match present {
            Some(slot) => {
                if !keep_expiry {
                    self.server.keyspace.forget_expiry(database, slot);
                }
                self.server.keyspace.overwrite_string(database, slot, bytes);
                Ok(slot)
            }
            None => {
                if key.len() > USER_KEY_LIMIT_BYTES {
                    return Err(CommandError::KeyTooLong);
                }
                let slot = self
                    .server
                    .keyspace
                    .place_string(database, key, bytes)
                    .ok_or(CommandError::NoSuchKey)?;
                self.notify(Events::NEW, "new", key);
                Ok(slot)
            }
        }
    }

    #[cold]
    fn set_stored(&mut self, key: &[u8], bytes: &[u8], keep_expiry: bool) -> Result<Slot, CommandError> {
        if bytes.len() as u64 > self.server.config.bulk_limit_bytes {
            return Err(CommandError::StringTooLong);
        }
        if key.len() > USER_KEY_LIMIT_BYTES {
            return Err(CommandError::KeyTooLong);
        }
        let database = self.database;
        let keyspace = &mut self.server.keyspace;
        let mut expires_ms = NEVER_MS;
        if let Some(slot) = keyspace.find(database, key) {
            if keep_expiry && let Some(entry) = keyspace.entry(database, slot) {
                expires_ms = entry.expires_ms;
            }
            keyspace.take_value(database, slot);
        }
        let journal = &mut keyspace.journal;
        let id = journal.new_id();
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            journal.put_early(id, Kind::String, &(index as u32).to_be_bytes(), chunk);
        }
        journal.end_early();
        let length = bytes.len() as u64;
        let value = Value::String(StringValue::Stored { length });
        keyspace
            .place(database, key, value, id, expires_ms)
            .ok_or(CommandError::NoSuchKey)
    }

    /// Writes `bytes` over the string in a slot at `offset`; it gets longer as needed, zeros between. `Context::changed` is to follow.
    ///
    /// # Errors
    /// When the string would be too long; the store's.
    pub fn write_at(
        &mut self,
        key: &[u8],
        slot: Slot,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Slot, CommandError> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= self.server.config.bulk_limit_bytes)
            .ok_or(CommandError::StringTooLong)?;
        let length = end.max(self.string_length(slot));
        let database = self.database;
        let in_memory = self.keeps_in_memory(length);
        if let Some(entry) = self.server.keyspace.entry_mut(database, slot) {
            match &mut entry.value {
                Value::String(StringValue::Memory(present)) if in_memory => {
                    if present.len() < length as usize {
                        // Room for the next time too: appending is seldom done once.
                        if present.capacity() < length as usize {
                            present.reserve(length as usize - present.len());
                        }
                        present.resize(length as usize, 0);
                    }
                    if let Some(to) = present.get_mut(offset as usize..end as usize) {
                        to.copy_from_slice(bytes);
                    }
                    self.server.keyspace.journal_key(database, slot);
                    return Ok(slot);
                }
                Value::String(StringValue::Stored { length: present }) => {
                    let (id, before) = (entry.id, *present);
                    return self.write_chunks(slot, id, before, length, offset, bytes);
                }
                _ => {}
            }
        }
        let mut all = self.bytes(slot)?.into_owned();
        all.resize(length as usize, 0);
        if let Some(to) = all.get_mut(offset as usize..end as usize) {
            to.copy_from_slice(bytes);
        }
        self.set_string_at(key, Some(slot), &all, true)
    }

    fn write_chunks(
        &mut self,
        slot: Slot,
        id: u64,
        before: u64,
        length: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Slot, CommandError> {
        let step = CHUNK_BYTES as u64;
        let end = offset + bytes.len() as u64;
        let server = &mut *self.server;
        // Zeros begin where the string ended.
        let first = offset.min(before) / step;
        let last = end.max(length).div_ceil(step);
        for index in first..last {
            let start = index * step;
            let stop = (start + step).min(length);
            let changes = start < end && stop > offset || stop > before;
            if !changes {
                continue;
            }
            let mut chunk = if start < before {
                read_chunk(&server.keyspace.journal, &mut server.ledger, id, index as u32)?
            } else {
                Vec::new()
            };
            chunk.resize((stop - start) as usize, 0);
            let from = offset.max(start);
            let to = end.min(stop);
            if from < to
                && let Some(part) = chunk.get_mut((from - start) as usize..(to - start) as usize)
                && let Some(new) = bytes.get((from - offset) as usize..(to - offset) as usize)
            {
                part.copy_from_slice(new);
            }
            let journal = &mut server.keyspace.journal;
            journal.put_element(id, Kind::String, &(index as u32).to_be_bytes(), &chunk);
        }
        if let Some(entry) = server.keyspace.entry_mut(self.database, slot) {
            entry.value = Value::String(StringValue::Stored { length });
        }
        if length != before {
            server.keyspace.journal_key(self.database, slot);
        }
        Ok(slot)
    }

    /// A copy of the string in a slot for another key: the value, and the identity of its chunks.
    ///
    /// # Errors
    /// The store's.
    pub fn copy_string(&mut self, slot: Slot) -> Result<(Value, u64), CommandError> {
        let server = &mut *self.server;
        let Some(entry) = server.keyspace.entry(self.database, slot) else {
            return Err(CommandError::NoSuchKey);
        };
        let Value::String(string) = &entry.value else {
            return Err(CommandError::WrongType);
        };
        let copy = Value::String(string.clone());
        if let StringValue::Memory(_) = string {
            return Ok((copy, 0));
        }
        let id = entry.id;
        let new = server.keyspace.journal.new_id();
        for index in 0..chunks(&copy) {
            let chunk = read_chunk(&server.keyspace.journal, &mut server.ledger, id, index)?;
            server
                .keyspace
                .journal
                .put_early(new, Kind::String, &index.to_be_bytes(), &chunk);
        }
        server.keyspace.journal.end_early();
        Ok((copy, new))
    }
}
