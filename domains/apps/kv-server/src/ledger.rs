//! The store's side of the journal: groups are appended in order, and kept until they are durable.
//!
//! So nothing that a client may have heard of is lost when the store's domain dies: its successor gets what it had not made durable again, in
//! order. Groups say what is, so it does no harm if some of it was durable after all.

use crate::journal::{Group, Journal};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use domain_rt::{Handle, clock, thread};
use interface::key_value::{KeyValueStore, STORE_BYTES, StoreBuffer, StoreError};
use rref::RRef;

/// More than this in groups that aren't durable and writers wait, in bytes.
pub const KEPT_LIMIT_BYTES: usize = 64 << 20;

/// How long a read waits for the store's successor, in milliseconds.
const READ_PATIENCE_MS: u64 = 5000;

struct Kept {
    group: Group,
    /// The store's number for it, once it has it.
    sequence: Option<u64>,
}

/// Groups that aren't durable yet, and the store that is to make them so.
#[derive(Default)]
pub struct Ledger {
    store: Option<Handle<dyn KeyValueStore>>,
    /// Counts stores: a number of an earlier one means nothing to the next.
    epoch: u64,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Groups up to this number are durable.
    durable: u64,
    buffer: Option<RRef<StoreBuffer>>,
    /// Why the store took no more.
    failure: Option<StoreError>,
}

/// What to wait for.
pub struct Ticket {
    /// The store.
    pub store: Handle<dyn KeyValueStore>,
    /// Which of the stores.
    pub epoch: u64,
    /// Its number.
    pub sequence: u64,
}

/// Not inlined: a buffer is made on the stack first, and no other function is to have a frame of that size.
#[cold]
#[inline(never)]
pub fn new_buffer() -> Result<RRef<StoreBuffer>, StoreError> {
    RRef::new(StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    })
    .map_err(|_| StoreError::OutOfMemory)
}

/// Fills a buffer with bytes, as many as fit.
pub fn fill(buffer: &mut StoreBuffer, bytes: &[u8]) {
    let length = bytes.len().min(STORE_BYTES);
    if let (Some(to), Some(from)) = (buffer.data.get_mut(..length), bytes.get(..length)) {
        to.copy_from_slice(from);
    }
    buffer.length = length as u32;
}

impl Ledger {
    /// Uses this store from now on; what is not durable is appended to it.
    pub fn use_store(&mut self, store: Handle<dyn KeyValueStore>) {
        self.store = Some(store);
        self.epoch += 1;
        for kept in &mut self.kept {
            kept.sequence = None;
        }
        self.failure = None;
        self.append_kept();
    }

    /// Whether there is a store.
    pub fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// The store, and which one it is.
    pub fn store(&self) -> Option<(Handle<dyn KeyValueStore>, u64)> {
        self.store.clone().map(|store| (store, self.epoch))
    }

    /// Why the store takes no more, but for its death.
    pub fn failure(&self) -> Option<StoreError> {
        self.failure
    }

    /// Groups that aren't durable.
    pub fn kept_groups(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of groups that aren't durable.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The last group that was made.
    pub fn newest(&self, journal: &Journal) -> u64 {
        journal.next_group() - 1
    }

    /// Whether a group is durable.
    #[inline]
    pub fn is_durable(&self, group: u64) -> bool {
        group <= self.durable || self.store.is_none()
    }

    /// Appends what the journal has.
    #[inline]
    pub fn append(&mut self, journal: &mut Journal) {
        if journal.is_empty() {
            return;
        }
        if self.store.is_none() {
            while let Some(group) = journal.take_groups().pop_front() {
                journal.recycle(group);
            }
            return;
        }
        while let Some(group) = journal.take_groups().pop_front() {
            self.kept_bytes += size_of_group(&group);
            self.kept.push_back(Kept {
                group,
                sequence: None,
            });
        }
        self.append_kept();
    }

    /// Appends what is kept and isn't appended; stops at a failure, to be tried again.
    pub fn append_kept(&mut self) {
        let Some(store) = &self.store else { return };
        let first = self.kept.iter().rposition(|kept| kept.sequence.is_some());
        let first = first.map_or(0, |last| last + 1);
        self.failure = None;
        for kept in self.kept.range_mut(first..) {
            match append_group(store, &mut self.buffer, &kept.group) {
                Ok(sequence) => kept.sequence = Some(sequence),
                // Its successor gets it.
                Err(StoreError::Dead(_)) => return,
                Err(error) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
    }

    /// What to wait for until `group` is durable; `None` if it wasn't appended.
    pub fn ticket(&self, group: u64) -> Option<Ticket> {
        let first = self.kept.front()?.group.number;
        let position = usize::try_from(group.checked_sub(first)?).ok()?;
        let sequence = self.kept.get(position)?.sequence?;
        Some(Ticket {
            store: self.store.clone()?,
            epoch: self.epoch,
            sequence,
        })
    }

    /// The store of `epoch` has made everything up to `sequence` durable.
    pub fn committed(&mut self, epoch: u64, sequence: u64, journal: &mut Journal) {
        if epoch != self.epoch {
            return;
        }
        while let Some(kept) = self
            .kept
            .pop_front_if(|kept| kept.sequence.is_some_and(|own| own <= sequence))
        {
            self.kept_bytes -= size_of_group(&kept.group);
            self.durable = kept.group.number;
            journal.recycle(kept.group);
        }
    }

    /// Reads a whole value by its name in the store, of at most `limit_bytes`. Waits for the store's successor if it dies.
    ///
    /// # Errors
    /// The store's.
    pub fn read(&mut self, name: &[u8], limit_bytes: usize) -> Result<Vec<u8>, StoreError> {
        let give_up_ns = clock::now_ns().saturating_add(READ_PATIENCE_MS * 1_000_000);
        loop {
            let store = self.store.clone().ok_or(StoreError::NoPartition)?;
            match read_value(&store, &mut self.buffer, name, limit_bytes) {
                Err(StoreError::Dead(_)) if clock::now_ns() < give_up_ns => {
                    if let Ok(store) = domain_rt::reconnect("store", store.target(), 1000) {
                        self.use_store(store);
                    }
                }
                Err(StoreError::Opening(_)) if clock::now_ns() < give_up_ns => thread::sleep_ms(5),
                // What was kept is appended once it is open.
                Ok(value) => return Ok(value),
                Err(error) => return Err(error),
            }
        }
    }
}

fn size_of_group(group: &Group) -> usize {
    let staged: usize = group.staged.iter().map(|staged| staged.bytes.len()).sum();
    group.entries.len() + staged
}

fn append_group(
    store: &Handle<dyn KeyValueStore>,
    own: &mut Option<RRef<StoreBuffer>>,
    group: &Group,
) -> Result<u64, StoreError> {
    for staged in &group.staged {
        let mut offset = 0;
        for piece in staged.bytes.chunks(STORE_BYTES) {
            let mut buffer = own.take().map_or_else(new_buffer, Ok)?;
            fill(&mut buffer, piece);
            *own = Some(store.stage(staged.number, offset, buffer)?);
            offset += piece.len() as u64;
        }
    }
    let mut buffer = own.take().map_or_else(new_buffer, Ok)?;
    fill(&mut buffer, &group.entries);
    let appended = store.append(buffer)?;
    *own = Some(appended.buffer);
    Ok(appended.sequence)
}

/// Reads a whole value by its name in the store, of at most `limit_bytes`; `own` is a buffer for it, if there is one.
///
/// # Errors
/// The store's.
pub fn read_value(
    store: &Handle<dyn KeyValueStore>,
    own: &mut Option<RRef<StoreBuffer>>,
    name: &[u8],
    limit_bytes: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut value = Vec::new();
    loop {
        let mut buffer = own.take().map_or_else(new_buffer, Ok)?;
        fill(&mut buffer, name);
        let read = store.read(buffer, value.len() as u64)?;
        let length = (read.buffer.length as usize).min(STORE_BYTES);
        value.extend_from_slice(read.buffer.data.get(..length).unwrap_or_default());
        *own = Some(read.buffer);
        if value.len() as u64 >= read.value_bytes {
            return Ok(value);
        }
        if length == 0 || value.len() > limit_bytes {
            return Err(StoreError::Malformed);
        }
    }
}
