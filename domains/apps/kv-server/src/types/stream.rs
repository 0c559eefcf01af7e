//! Streams: entries in order of their ids. The groups of consumers that read them are in `stream_group.rs`.

use super::stream_group::{Consumer, Group, Pending};
use crate::value::{Collection, Kind, Malformed, Value};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::ops::Bound;

/// Memory that an entry takes beside its bytes: its place in the tree and the heap's overhead.
const ENTRY_BYTES: usize = 48;
/// Memory that a pending entry takes, in its group's table and its consumer's.
const PENDING_BYTES: usize = 80;
/// Memory that a group or a consumer takes beside its name.
const GROUP_BYTES: usize = 160;

/// First bytes of what is journaled: an entry, a group, a consumer, an entry that was delivered and not acknowledged.
const ENTRY_TAG: u8 = b'e';
const GROUP_TAG: u8 = b'g';
const CONSUMER_TAG: u8 = b'c';
const PENDING_TAG: u8 = b'p';

/// What names an entry: milliseconds since 1970, usually, and a number within the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// Milliseconds.
    pub milliseconds: u64,
    /// Counts within the millisecond.
    pub sequence: u64,
}

impl StreamId {
    /// Before all that an entry can have.
    pub const LEAST: StreamId = StreamId {
        milliseconds: 0,
        sequence: 0,
    };
    /// The greatest.
    pub const GREATEST: StreamId = StreamId {
        milliseconds: u64::MAX,
        sequence: u64::MAX,
    };

    /// Reads `milliseconds` or `milliseconds-sequence`; the first form has `sequence` for its second number.
    pub fn parse(text: &[u8], sequence: u64) -> Option<StreamId> {
        let (milliseconds, sequence) = match text.iter().position(|&byte| byte == b'-') {
            Some(dash) => (text.get(..dash)?, parse_number(text.get(dash + 1..)?)?),
            None => (text, sequence),
        };
        Some(StreamId {
            milliseconds: parse_number(milliseconds)?,
            sequence,
        })
    }

    /// The next one.
    pub fn next(self) -> Option<StreamId> {
        match self.sequence.checked_add(1) {
            Some(sequence) => Some(StreamId { sequence, ..self }),
            None => Some(StreamId {
                milliseconds: self.milliseconds.checked_add(1)?,
                sequence: 0,
            }),
        }
    }

    /// The one before.
    pub fn previous(self) -> Option<StreamId> {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Some(StreamId { sequence, ..self }),
            None => Some(StreamId {
                milliseconds: self.milliseconds.checked_sub(1)?,
                sequence: u64::MAX,
            }),
        }
    }

    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.milliseconds) << 64 | u128::from(self.sequence)).to_be_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Result<StreamId, Malformed> {
        let number = u128::from_be_bytes(bytes.try_into().map_err(|_| Malformed)?);
        Ok(StreamId {
            milliseconds: (number >> 64) as u64,
            sequence: number as u64,
        })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// An entry's fields and values, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Box<[u8]>);

impl Fields {
    /// Those of a sequence of fields and values in turn.
    pub fn new<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Fields {
        let mut packed = Vec::new();
        for part in parts {
            packed.extend_from_slice(&(part.len() as u32).to_le_bytes());
            packed.extend_from_slice(part);
        }
        Fields(packed.into_boxed_slice())
    }

    /// Fields and values in turn.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        core::iter::from_fn(move || {
            let (part, behind) = split_counted(rest).ok()?;
            rest = behind;
            Some(part)
        })
    }

    /// As it is journaled.
    pub fn packed(&self) -> &[u8] {
        &self.0
    }
}

fn split_counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or(Malformed)
}

/// A stream.
#[derive(Clone, Default)]
pub struct Stream {
    entries: BTreeMap<StreamId, Fields>,
    bytes: usize,
    /// The id of the newest entry that there ever was.
    pub last_id: StreamId,
    /// The greatest id of those that were deleted.
    pub deleted_id: StreamId,
    /// Entries that there ever were.
    pub added: u64,
    /// The groups by name.
    pub groups: BTreeMap<Box<[u8]>, Group>,
    /// `last_id` when the metadata was last journaled: what a start finds behind it was added since.
    recorded_id: StreamId,
}

impl Stream {
    /// Notes that the metadata are being journaled.
    pub fn record(&mut self) {
        self.recorded_id = self.last_id;
    }

    /// Whether the metadata are to be journaled before `removed` goes, because a start couldn't count it.
    pub fn must_record(&self, removed: StreamId) -> bool {
        removed > self.recorded_id
    }

    /// Entries.
    pub fn length(&self) -> usize {
        self.entries.len()
    }

    /// Adds an entry, whose id is greater than the last.
    pub fn add(&mut self, id: StreamId, fields: Fields) {
        self.bytes += fields.0.len();
        self.entries.insert(id, fields);
        self.last_id = id;
        self.added += 1;
    }

    /// Removes an entry; whether it was there.
    pub fn remove(&mut self, id: StreamId) -> bool {
        let removed = self.entries.remove(&id);
        self.bytes -= removed.as_ref().map_or(0, |fields| fields.0.len());
        if removed.is_some() {
            self.deleted_id = self.deleted_id.max(id);
        }
        removed.is_some()
    }

    /// Removes the oldest entry for trimming, which doesn't count as deleting.
    pub fn trim_first(&mut self) -> Option<StreamId> {
        let (id, fields) = self.entries.pop_first()?;
        self.bytes -= fields.0.len();
        Some(id)
    }

    /// The entry of an id.
    pub fn get(&self, id: StreamId) -> Option<&Fields> {
        self.entries.get(&id)
    }

    /// The first entry's id.
    pub fn first_id(&self) -> Option<StreamId> {
        self.entries.first_key_value().map(|(id, _)| *id)
    }

    /// The entries from `first` to `last`, both included.
    pub fn range(
        &self,
        first: StreamId,
        last: StreamId,
    ) -> impl DoubleEndedIterator<Item = (StreamId, &Fields)> {
        let bounds = match first <= last {
            true => (Bound::Included(first), Bound::Included(last)),
            // Nothing; a tree doesn't take ends in the wrong order.
            false => (Bound::Included(first), Bound::Excluded(first)),
        };
        self.entries.range(bounds).map(|(id, fields)| (*id, fields))
    }

    /// How many entries would have been read by a group whose last one is `id`, if that can be told.
    pub fn entries_up_to(&self, id: StreamId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        let Some(first) = self.first_id() else {
            return (id <= self.last_id).then_some(self.added);
        };
        if id >= self.last_id {
            return (id == self.last_id).then_some(self.added);
        }
        let behind = self.added.saturating_sub(self.entries.len() as u64);
        match id.cmp(&first) {
            // With an entry deleted between those that are there, nobody knows how many there were up to a place.
            _ if self.deleted_id >= first => None,
            Ordering::Less => Some(behind),
            Ordering::Equal => Some(behind + 1),
            Ordering::Greater => None,
        }
    }

    /// Whether an entry behind `id` was deleted, up to the last: then the entries read can't be counted on.
    pub fn has_gap_behind(&self, id: StreamId) -> bool {
        match self.first_id() {
            Some(first) => {
                self.deleted_id != StreamId::LEAST && first <= self.deleted_id && id <= self.deleted_id
            }
            None => false,
        }
    }

    /// Entries that a group hasn't been given, if that can be told; negative if it was told to have read more than there were.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let since = |read: u64| self.added.wrapping_sub(read).cast_signed();
        if self.added == 0 {
            return Some(0);
        }
        match group.entries_read {
            Some(read) if !self.has_gap_behind(group.last_id) => Some(since(read)),
            _ => self.entries_up_to(group.last_id).map(since),
        }
    }
}

/// What an entry is journaled as.
pub fn entry_element(id: StreamId) -> [u8; 17] {
    let mut element = [ENTRY_TAG; 17];
    if let Some(to) = element.last_chunk_mut::<16>() {
        *to = id.to_bytes();
    }
    element
}

fn tagged(tag: u8, group: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut element = Vec::with_capacity(5 + group.len() + rest.len());
    element.push(tag);
    element.extend_from_slice(&(group.len() as u32).to_le_bytes());
    element.extend_from_slice(group);
    element.extend_from_slice(rest);
    element
}

/// What a group is journaled as.
pub fn group_element(group: &[u8]) -> Vec<u8> {
    tagged(GROUP_TAG, group, &[])
}

/// What a consumer is journaled as.
pub fn consumer_element(group: &[u8], consumer: &[u8]) -> Vec<u8> {
    tagged(CONSUMER_TAG, group, consumer)
}

/// What a pending entry is journaled as.
pub fn pending_element(group: &[u8], id: StreamId) -> Vec<u8> {
    tagged(PENDING_TAG, group, &id.to_bytes())
}

/// The journaled value of a group.
pub fn group_value(group: &Group) -> Vec<u8> {
    let mut value = Vec::from(group.last_id.to_bytes());
    value.extend(group.entries_read.unwrap_or(u64::MAX).to_le_bytes());
    value
}

/// The journaled value of a consumer.
pub fn consumer_value(consumer: &Consumer) -> [u8; 16] {
    let numbers = u128::from(consumer.seen_ms) | u128::from(consumer.active_ms.unwrap_or(u64::MAX)) << 64;
    numbers.to_le_bytes()
}

/// The journaled value of a pending entry.
pub fn pending_value(pending: &Pending) -> Vec<u8> {
    let mut value = Vec::from(pending.delivered_ms.to_le_bytes());
    value.extend(pending.deliveries.to_le_bytes());
    value.extend_from_slice(&pending.consumer);
    value
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or(Malformed)?;
    Ok((u64::from_le_bytes(*number), rest))
}

impl Collection for Stream {
    fn kind(&self) -> Kind {
        Kind::Stream
    }

    fn len(&self) -> usize {
        let parts = |group: &Group| 1 + group.consumers.len() + group.pending.len();
        self.entries.len() + self.groups.values().map(parts).sum::<usize>()
    }

    fn memory_bytes(&self) -> usize {
        let group = |name: &[u8], group: &Group| {
            let people = group.consumers.len() + 1;
            name.len() + people * GROUP_BYTES + group.pending.len() * PENDING_BYTES
        };
        self.bytes
            + self.entries.len() * ENTRY_BYTES
            + self
                .groups
                .iter()
                .map(|(name, state)| group(name, state))
                .sum::<usize>()
    }

    fn encoding(&self) -> &'static str {
        "stream"
    }

    fn metadata(&self, out: &mut Vec<u8>) {
        out.extend(self.last_id.to_bytes());
        out.extend(self.deleted_id.to_bytes());
        out.extend(self.added.to_le_bytes());
    }

    fn load_metadata(&mut self, metadata: &[u8]) -> Result<(), Malformed> {
        let (last_id, rest) = metadata.split_at_checked(16).ok_or(Malformed)?;
        let (deleted_id, rest) = rest.split_at_checked(16).ok_or(Malformed)?;
        self.last_id = StreamId::from_bytes(last_id)?;
        self.deleted_id = StreamId::from_bytes(deleted_id)?;
        self.added = number(rest)?.0;
        self.recorded_id = self.last_id;
        Ok(())
    }

    fn finish_loading(&mut self) {
        let since = (Bound::Excluded(self.recorded_id), Bound::Unbounded);
        self.added = self
            .added
            .saturating_add(self.entries.range(since).count() as u64);
        if let Some((last, _)) = self.entries.last_key_value() {
            self.last_id = self.last_id.max(*last);
        }
    }

    fn load_element(&mut self, element: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let (&tag, rest) = element.split_first().ok_or(Malformed)?;
        if tag == ENTRY_TAG {
            let id = StreamId::from_bytes(rest)?;
            let mut parts = value;
            while !parts.is_empty() {
                parts = split_counted(parts)?.1;
            }
            self.bytes += value.len();
            if let Some(old) = self.entries.insert(id, Fields(Box::from(value))) {
                self.bytes -= old.0.len();
            }
            return Ok(());
        }
        let (name, rest) = split_counted(rest)?;
        let group = self.groups.entry(Box::from(name)).or_default();
        match tag {
            GROUP_TAG => {
                let (last_id, read) = value.split_at_checked(16).ok_or(Malformed)?;
                group.last_id = StreamId::from_bytes(last_id)?;
                group.entries_read = Some(number(read)?.0).filter(|&read| read != u64::MAX);
            }
            CONSUMER_TAG => {
                let (seen_ms, active) = number(value)?;
                let active_ms = Some(number(active)?.0).filter(|&active| active != u64::MAX);
                let (_, consumer, _) = group.consumer(rest);
                consumer.seen_ms = seen_ms;
                consumer.active_ms = active_ms;
            }
            PENDING_TAG => {
                let (delivered_ms, behind) = number(value)?;
                let (deliveries, consumer) = number(behind)?;
                group.assign(StreamId::from_bytes(rest)?, consumer, delivered_ms, deliveries);
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn for_each_element(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (id, fields) in &self.entries {
            visit(&entry_element(*id), &fields.0);
        }
        for (name, group) in &self.groups {
            visit(&group_element(name), &group_value(group));
            for (consumer, state) in &group.consumers {
                visit(&consumer_element(name, consumer), &consumer_value(state));
            }
            for (id, pending) in &group.pending {
                visit(&pending_element(name, *id), &pending_value(pending));
            }
        }
    }

    fn drain_elements(&mut self, limit: usize, visit: &mut dyn FnMut(&[u8])) {
        for _ in 0..limit {
            if let Some(id) = self.trim_first() {
                visit(&entry_element(id));
                continue;
            }
            let Some(mut first) = self.groups.first_entry() else {
                return;
            };
            let name = first.key().clone();
            if let Some((id, _)) = first.get_mut().pending.pop_first() {
                visit(&pending_element(&name, id));
            } else if let Some((consumer, _)) = first.get_mut().consumers.pop_first() {
                visit(&consumer_element(&name, &consumer));
            } else {
                first.remove();
                visit(&group_element(&name));
            }
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

    #[test]
    fn ids_are_read_and_follow_each_other() {
        let id = |milliseconds, sequence| StreamId {
            milliseconds,
            sequence,
        };
        assert_eq!(StreamId::parse(b"5-7", 0), Some(id(5, 7)));
        assert_eq!(StreamId::parse(b"5", 9), Some(id(5, 9)));
        for text in ["", "-", "5-", "-5", "a", "5-*", "+5-1", "18446744073709551616-0"] {
            assert_eq!(StreamId::parse(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
        assert_eq!(StreamId::GREATEST.next(), None);
        assert_eq!(id(2, 0).previous(), Some(id(1, u64::MAX)));
        assert_eq!(StreamId::LEAST.previous(), None);
    }

    proptest! {
        /// What is journaled gives the same stream again, in whatever order it is read; and a drained one is empty.
        #[test]
        fn a_journaled_stream_comes_back(entries in prop::collection::vec((1_u64..100, any::<[u8; 3]>()), 0..40), pending in prop::collection::vec((0_u8..3, 0_u8..3, 1_u64..100), 0..30), rotate: usize) {
            let mut stream = Stream::default();
            let mut metadata = Vec::new();
            for (number, (milliseconds, field)) in entries.into_iter().enumerate() {
                // Entries that come behind the metadata are counted from themselves.
                if number == rotate % 50 || number == 0 {
                    stream.record();
                    metadata.clear();
                    stream.metadata(&mut metadata);
                }
                let id = stream.last_id.next().unwrap().max(StreamId { milliseconds, sequence: 0 });
                stream.add(id, Fields::new([field.as_slice(), b"value"].into_iter()));
            }
            for (group, consumer, milliseconds) in pending {
                let id = StreamId { milliseconds, sequence: 0 };
                let group = stream.groups.entry(Box::from([group])).or_default();
                group.last_id = id;
                group.assign(id, &[consumer], milliseconds, 1);
            }
            let mut elements = Vec::new();
            stream.for_each_element(&mut |element, value| elements.push((element.to_vec(), value.to_vec())));
            prop_assert_eq!(elements.len(), stream.len());
            let start = rotate % elements.len().max(1);
            elements.rotate_left(start);
            let mut read = Stream::default();
            if !metadata.is_empty() {
                read.load_metadata(&metadata).unwrap();
            }
            for (element, value) in &elements {
                read.load_element(element, value).unwrap();
            }
            read.finish_loading();
            prop_assert_eq!(&read.groups, &stream.groups);
            prop_assert_eq!(&read.entries, &stream.entries);
            prop_assert_eq!((read.last_id, read.added, read.bytes), (stream.last_id, stream.added, stream.bytes));
            let mut drained = Vec::new();
            while read.len() > 0 {
                read.drain_elements(7, &mut |element| drained.push(element.to_vec()));
            }
            let mut names: Vec<_> = elements.into_iter().map(|(element, _)| element).collect();
            names.sort();
            drained.sort();
            prop_assert_eq!(drained, names);
        }

        /// What is on a disk may be anything.
        #[test]
        fn any_bytes_are_refused_or_taken(tag in "[egcp]", element: Vec<u8>, value: Vec<u8>) {
            let mut stream = Stream::default();
            let element = [tag.as_bytes(), &element].concat();
            let _ = stream.load_element(&element, &value);
            let _ = stream.load_metadata(&value);
        }
    }
}
