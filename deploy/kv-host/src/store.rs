//! A store in memory, with the contract of `interface::key_value` and nothing more: durable at once, gone with the process.

use interface::key_value::{
    Appended, CheckReport, Entry, KeyValueStore, ReadValue, Reader, STORE_BYTES, Scanned, StoreBuffer,
    StoreError, StoreStatistics, Writer,
};
use rref::RRef;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    staged: HashMap<u64, Vec<u8>>,
    sequence: u64,
    written_bytes: u64,
}

/// The store.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn content(buffer: &StoreBuffer) -> Result<&[u8], StoreError> {
    buffer
        .data
        .get(..buffer.length as usize)
        .ok_or(StoreError::Malformed)
}

impl KeyValueStore for MemoryStore {
    fn append(&self, group: RRef<StoreBuffer>) -> Result<Appended, StoreError> {
        let mut state = self.state();
        for entry in Reader::new(&group) {
            match entry.map_err(|_| StoreError::Malformed)? {
                Entry::Put { key, value } => {
                    state.values.insert(key.to_vec(), value.to_vec());
                }
                Entry::PutStaged {
                    key,
                    value,
                    value_bytes,
                } => {
                    let staged = state.staged.remove(&value).ok_or(StoreError::Malformed)?;
                    if staged.len() as u64 != value_bytes {
                        return Err(StoreError::Malformed);
                    }
                    state.values.insert(key.to_vec(), staged);
                }
                Entry::Delete { key } => {
                    state.values.remove(key);
                }
                Entry::Clear => state.values.clear(),
                Entry::Key { .. } => return Err(StoreError::Malformed),
            }
        }
        state.written_bytes += u64::from(group.length);
        state.sequence += 1;
        Ok(Appended {
            buffer: group,
            sequence: state.sequence,
        })
    }

    fn stage(
        &self,
        value: u64,
        offset: u64,
        piece: RRef<StoreBuffer>,
    ) -> Result<RRef<StoreBuffer>, StoreError> {
        let mut state = self.state();
        let staged = state.staged.entry(value).or_default();
        if offset == 0 {
            staged.clear();
        }
        if offset != staged.len() as u64 {
            return Err(StoreError::Malformed);
        }
        staged.extend_from_slice(content(&piece)?);
        Ok(piece)
    }

    fn commit(&self, sequence: u64) -> Result<u64, StoreError> {
        let newest = self.state().sequence;
        if sequence > newest {
            return Err(StoreError::Malformed);
        }
        Ok(newest)
    }

    fn committed(&self) -> Result<u64, StoreError> {
        Ok(self.state().sequence)
    }

    fn read(&self, mut buffer: RRef<StoreBuffer>, offset: u64) -> Result<ReadValue, StoreError> {
        let state = self.state();
        let value = state.values.get(content(&buffer)?).ok_or(StoreError::NotFound)?;
        let rest = value.get(offset as usize..).ok_or(StoreError::Malformed)?;
        let length = rest.len().min(STORE_BYTES);
        buffer.data[..length].copy_from_slice(&rest[..length]);
        buffer.length = length as u32;
        Ok(ReadValue {
            value_bytes: value.len() as u64,
            buffer,
        })
    }

    fn scan(
        &self,
        cursor: u64,
        value_limit_bytes: u32,
        mut buffer: RRef<StoreBuffer>,
    ) -> Result<Scanned, StoreError> {
        let state = self.state();
        let mut writer = Writer::begin(&mut buffer);
        let mut next = None;
        for (place, (key, value)) in state.values.iter().enumerate().skip(cursor as usize) {
            let entry = if value.len() <= value_limit_bytes as usize {
                Entry::Put { key, value }
            } else {
                Entry::Key {
                    key,
                    value_bytes: value.len() as u64,
                }
            };
            if writer.push(&entry).is_err() {
                next = Some(place as u64);
                break;
            }
        }
        Ok(Scanned { buffer, next })
    }

    fn compact(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn check(&self, _cursor: u64) -> Result<CheckReport, StoreError> {
        Ok(CheckReport {
            records: self.state().values.len() as u64,
            ..CheckReport::default()
        })
    }

    fn statistics(&self) -> Result<StoreStatistics, StoreError> {
        let state = self.state();
        Ok(StoreStatistics {
            keys: state.values.len() as u64,
            appended: state.sequence,
            committed: state.sequence,
            groups: state.sequence,
            written_bytes: state.written_bytes,
            ..StoreStatistics::default()
        })
    }
}
