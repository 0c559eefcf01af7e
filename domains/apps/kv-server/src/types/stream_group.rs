//! Groups of consumers that share the reading of a stream: where each is, and who has what to acknowledge.

use super::stream::StreamId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

/// An entry that a consumer has been given and hasn't acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who has it.
    pub consumer: Arc<[u8]>,
    /// When it was last given, milliseconds since 1970.
    pub delivered_ms: u64,
    /// How often.
    pub deliveries: u64,
}

/// A consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// When it last asked, milliseconds since 1970.
    pub seen_ms: u64,
    /// When it was last given something; `None` if never.
    pub active_ms: Option<u64>,
    /// What it hasn't acknowledged.
    pub pending: BTreeSet<StreamId>,
}

/// A group of consumers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The last entry that it was given.
    pub last_id: StreamId,
    /// How many entries it was given, if that is known.
    pub entries_read: Option<u64>,
    /// What is not acknowledged.
    pub pending: BTreeMap<StreamId, Pending>,
    /// Its consumers by name.
    pub consumers: BTreeMap<Arc<[u8]>, Consumer>,
}

impl Group {
    /// The consumer of this name, which is new if there was none: and whether it is.
    pub fn consumer(&mut self, name: &[u8]) -> (Arc<[u8]>, &mut Consumer, bool) {
        let known = self.consumers.get_key_value(name).map(|(name, _)| name.clone());
        let new = known.is_none();
        let name = known.unwrap_or_else(|| Arc::from(name));
        let consumer = self.consumers.entry(name.clone()).or_default();
        (name, consumer, new)
    }

    /// Notes that an entry was given to a consumer; from another it is taken.
    pub fn assign(&mut self, id: StreamId, consumer: &[u8], delivered_ms: u64, deliveries: u64) {
        self.release(id);
        let (name, to, _) = self.consumer(consumer);
        to.pending.insert(id);
        let pending = Pending {
            consumer: name,
            delivered_ms,
            deliveries,
        };
        self.pending.insert(id, pending);
    }

    /// Takes an entry from whoever has it.
    pub fn release(&mut self, id: StreamId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if let Some(consumer) = self.consumers.get_mut(&pending.consumer) {
            consumer.pending.remove(&id);
        }
        Some(pending)
    }
}
