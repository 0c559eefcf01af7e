//! Reading values. What comes from a client is believed in nothing.

use super::packed::{integers, listpack, take, take_array, ziplist};
use super::{Kind, Restored};
use crate::number::{self, Digits};
use crate::types::Stream;
use crate::types::stream::{Fields, StreamId};
use crate::types::stream_group::{Consumer, Group};
use crate::value::Malformed;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::str;

/// A string may be so much longer than its compressed form, which is at most 264 bytes for 3.
const COMPRESSION_LIMIT: u64 = 100;
/// Flags of a stream's entry.
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// Reads a value, without version and checksum.
///
/// # Errors
/// When it isn't one.
pub fn read(value: &[u8]) -> Result<Restored, Malformed> {
    let mut reader = Reader { bytes: value };
    let [kind] = take_array(&mut reader.bytes)?;
    let restored = match Kind::from_byte(kind)? {
        Kind::String => Restored::String(reader.string()?),
        Kind::List => Restored::List(reader.strings(1)?),
        Kind::Set => Restored::Set(reader.strings(1)?),
        Kind::Hash => Restored::Hash(pairs(reader.strings(2)?)?),
        Kind::SortedSet => Restored::SortedSet(reader.scores(Reader::binary_score)?),
        Kind::SortedSetText => Restored::SortedSet(reader.scores(Reader::text_score)?),
        Kind::ListZiplist => Restored::List(ziplist(&reader.string()?)?),
        Kind::SetIntegers => Restored::Set(integers(&reader.string()?)?),
        Kind::SetListpack => Restored::Set(listpack(&reader.string()?)?),
        Kind::HashZiplist => Restored::Hash(pairs(ziplist(&reader.string()?)?)?),
        Kind::HashListpack => Restored::Hash(pairs(listpack(&reader.string()?)?)?),
        Kind::SortedSetZiplist => Restored::SortedSet(scored(ziplist(&reader.string()?)?)?),
        Kind::SortedSetListpack => Restored::SortedSet(scored(listpack(&reader.string()?)?)?),
        Kind::ListZiplists => Restored::List(reader.ziplists()?),
        Kind::ListListpacks => Restored::List(reader.listpacks()?),
        Kind::Stream1 => Restored::Stream(reader.stream(1)?),
        Kind::Stream2 => Restored::Stream(reader.stream(2)?),
        Kind::Stream3 => Restored::Stream(reader.stream(3)?),
    };
    let is_empty = match &restored {
        Restored::List(elements) | Restored::Set(elements) => elements.is_empty(),
        Restored::Hash(fields) => fields.is_empty(),
        Restored::SortedSet(members) => members.is_empty(),
        Restored::String(_) | Restored::Stream(_) => false,
    };
    if is_empty || !reader.bytes.is_empty() {
        return Err(Malformed);
    }
    Ok(restored)
}

/// Two of a hash's strings: field and value.
type Pair = (Vec<u8>, Vec<u8>);

fn pairs(elements: Vec<Vec<u8>>) -> Result<Vec<Pair>, Malformed> {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let Some(first) = elements.next() {
        pairs.push((first, elements.next().ok_or(Malformed)?));
    }
    Ok(pairs)
}

fn scored(elements: Vec<Vec<u8>>) -> Result<Vec<(Vec<u8>, f64)>, Malformed> {
    let pairs = pairs(elements)?.into_iter();
    pairs
        .map(|(member, score)| Ok((member, number::float(&score).ok_or(Malformed)?)))
        .collect()
}

/// What a length field says.
enum Length {
    Bytes(u64),
    /// A string in another form.
    Encoded(u8),
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn length_or_encoding(&mut self) -> Result<Length, Malformed> {
        let [first] = take_array(&mut self.bytes)?;
        Ok(Length::Bytes(match first {
            0..0x40 => u64::from(first),
            0x40..0x80 => {
                let [low] = take_array(&mut self.bytes)?;
                u64::from(first & 0x3f) << 8 | u64::from(low)
            }
            0x80 => u64::from(u32::from_be_bytes(take_array(&mut self.bytes)?)),
            0x81 => u64::from_be_bytes(take_array(&mut self.bytes)?),
            0xc0.. => return Ok(Length::Encoded(first & 0x3f)),
            _ => return Err(Malformed),
        }))
    }

    fn length(&mut self) -> Result<u64, Malformed> {
        match self.length_or_encoding()? {
            Length::Bytes(length) => Ok(length),
            Length::Encoded(_) => Err(Malformed),
        }
    }

    /// How many things follow; each takes a byte at least, so that there can't be more than bytes.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.length()?).map_err(|_| Malformed)?;
        if count > self.bytes.len() {
            return Err(Malformed);
        }
        Ok(count)
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let number = match self.length_or_encoding()? {
            Length::Bytes(length) => {
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                return Ok(take(&mut self.bytes, length)?.to_vec());
            }
            Length::Encoded(0) => i64::from(i8::from_le_bytes(take_array(&mut self.bytes)?)),
            Length::Encoded(1) => i64::from(i16::from_le_bytes(take_array(&mut self.bytes)?)),
            Length::Encoded(2) => i64::from(i32::from_le_bytes(take_array(&mut self.bytes)?)),
            Length::Encoded(3) => {
                let packed = self.count()?;
                let length = self.length()?;
                let packed = take(&mut self.bytes, packed)?;
                return decompress(packed, length);
            }
            Length::Encoded(_) => return Err(Malformed),
        };
        Ok(Digits::default().of(number).to_vec())
    }

    /// As many strings as are said, `each` for one of them.
    fn strings(&mut self, each: usize) -> Result<Vec<Vec<u8>>, Malformed> {
        let count = self.count()?;
        (0..count * each).map(|_| self.string()).collect()
    }

    fn scores(
        &mut self,
        score: fn(&mut Self) -> Result<f64, Malformed>,
    ) -> Result<Vec<(Vec<u8>, f64)>, Malformed> {
        let count = self.count()?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let member = self.string()?;
            let score = score(self)?;
            if score.is_nan() {
                return Err(Malformed);
            }
            members.push((member, score));
        }
        Ok(members)
    }

    fn binary_score(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_le_bytes(take_array(&mut self.bytes)?))
    }

    fn text_score(&mut self) -> Result<f64, Malformed> {
        let [length] = take_array(&mut self.bytes)?;
        match length {
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            length => {
                let text = take(&mut self.bytes, usize::from(length))?;
                let text = str::from_utf8(text).map_err(|_| Malformed)?;
                text.parse().map_err(|_| Malformed)
            }
        }
    }

    fn ziplists(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut elements = Vec::new();
        for _ in 0..self.count()? {
            elements.extend(ziplist(&self.string()?)?);
        }
        Ok(elements)
    }

    fn listpacks(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut elements = Vec::new();
        for _ in 0..self.count()? {
            match self.length()? {
                1 => elements.push(self.string()?),
                2 => elements.extend(listpack(&self.string()?)?),
                _ => return Err(Malformed),
            }
        }
        Ok(elements)
    }

    fn id(&mut self) -> Result<StreamId, Malformed> {
        Ok(StreamId {
            milliseconds: self.length()?,
            sequence: self.length()?,
        })
    }

    fn raw_id(&mut self) -> Result<StreamId, Malformed> {
        read_raw_id(&mut self.bytes)
    }

    fn stream(&mut self, version: u8) -> Result<Stream, Malformed> {
        let mut stream = Stream::default();
        for _ in 0..self.count()? {
            let first = self.string()?;
            let first = read_raw_id(&mut first.as_slice())?;
            let elements = listpack(&self.string()?)?;
            read_node(&mut stream, first, elements)?;
        }
        let length = self.length()?;
        if length != stream.length() as u64 {
            return Err(Malformed);
        }
        let newest = stream.last_id;
        stream.last_id = self.id()?;
        if stream.last_id < newest {
            return Err(Malformed);
        }
        stream.added = length;
        if version >= 2 {
            let _first = self.id()?;
            stream.deleted_id = self.id()?;
            stream.added = self.length()?;
        }
        for _ in 0..self.count()? {
            let name = self.string()?;
            let mut group = self.group(version)?;
            if version < 2 {
                group.entries_read = stream.entries_up_to(group.last_id);
            }
            if stream.groups.insert(name.into_boxed_slice(), group).is_some() {
                return Err(Malformed);
            }
        }
        stream.record();
        Ok(stream)
    }

    fn group(&mut self, version: u8) -> Result<Group, Malformed> {
        let mut group = Group {
            last_id: self.id()?,
            ..Group::default()
        };
        if version >= 2 {
            group.entries_read = Some(self.length()?).filter(|read| *read != u64::MAX);
        }
        let mut pending: Vec<(StreamId, u64, u64)> = Vec::new();
        for _ in 0..self.count()? {
            let id = self.raw_id()?;
            let delivered_ms = u64::from_le_bytes(take_array(&mut self.bytes)?);
            pending.push((id, delivered_ms, self.length()?));
        }
        if !pending.is_sorted_by(|one, other| one.0 < other.0) {
            return Err(Malformed);
        }
        for _ in 0..self.count()? {
            let name = self.string()?;
            let seen_ms = u64::from_le_bytes(take_array(&mut self.bytes)?);
            let active_ms = match version {
                3 => Some(u64::from_le_bytes(take_array(&mut self.bytes)?)).filter(|ms| *ms != u64::MAX),
                _ => Some(seen_ms),
            };
            let consumer = Consumer {
                seen_ms,
                active_ms,
                ..Consumer::default()
            };
            if group
                .consumers
                .insert(Arc::from(name.as_slice()), consumer)
                .is_some()
            {
                return Err(Malformed);
            }
            for _ in 0..self.count()? {
                let id = self.raw_id()?;
                let place = pending.binary_search_by_key(&id, |(id, _, _)| *id);
                let (_, delivered_ms, deliveries) =
                    place.ok().and_then(|place| pending.get(place)).ok_or(Malformed)?;
                if group.pending.contains_key(&id) {
                    return Err(Malformed);
                }
                group.assign(id, &name, *delivered_ms, *deliveries);
            }
        }
        // Each has a consumer.
        if group.pending.len() != pending.len() {
            return Err(Malformed);
        }
        Ok(group)
    }
}

fn read_raw_id(bytes: &mut &[u8]) -> Result<StreamId, Malformed> {
    Ok(StreamId {
        milliseconds: u64::from_be_bytes(take_array(bytes)?),
        sequence: u64::from_be_bytes(take_array(bytes)?),
    })
}

/// Entries of a stream in a listpack: how many there are and are deleted, the first one's fields, then each with the difference of its id.
fn read_node(stream: &mut Stream, first: StreamId, elements: Vec<Vec<u8>>) -> Result<(), Malformed> {
    let mut elements = elements.into_iter();
    let mut next = || elements.next().ok_or(Malformed);
    let integer = |element: Vec<u8>| number::integer(&element).ok_or(Malformed);
    let count = |element: Vec<u8>| {
        let number = number::integer(&element).ok_or(Malformed)?;
        usize::try_from(number).map_err(|_| Malformed)
    };
    let entries = count(next()?)?;
    let deleted = count(next()?)?;
    let mut shared = Vec::new();
    for _ in 0..count(next()?)? {
        shared.push(next()?);
    }
    next()?;
    for _ in 0..entries.checked_add(deleted).ok_or(Malformed)? {
        let flags = integer(next()?)?;
        let id = StreamId {
            milliseconds: first.milliseconds.wrapping_add_signed(integer(next()?)?),
            sequence: first.sequence.wrapping_add_signed(integer(next()?)?),
        };
        let mut parts = Vec::new();
        if flags & SAME_FIELDS != 0 {
            for field in &shared {
                parts.push(field.clone());
                parts.push(next()?);
            }
        } else {
            for _ in 0..count(next()?)? {
                parts.push(next()?);
                parts.push(next()?);
            }
        }
        next()?;
        if flags & DELETED != 0 {
            continue;
        }
        if stream.length() > 0 && id <= stream.last_id {
            return Err(Malformed);
        }
        stream.add(id, Fields::new(parts.iter().map(Vec::as_slice)));
    }
    match elements.next() {
        None => Ok(()),
        Some(_) => Err(Malformed),
    }
}

/// Undoes LZF: literal runs, and references to what was written already.
fn decompress(mut packed: &[u8], length: u64) -> Result<Vec<u8>, Malformed> {
    if length > (packed.len() as u64).saturating_mul(COMPRESSION_LIMIT) {
        return Err(Malformed);
    }
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let mut out = Vec::with_capacity(length);
    while !packed.is_empty() {
        let [control] = take_array(&mut packed)?;
        if control < 0x20 {
            out.extend_from_slice(take(&mut packed, usize::from(control) + 1)?);
            continue;
        }
        let mut run = usize::from(control >> 5);
        if run == 7 {
            let [more] = take_array(&mut packed)?;
            run += usize::from(more);
        }
        let [low] = take_array(&mut packed)?;
        let back = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
        let start = out.len().checked_sub(back).ok_or(Malformed)?;
        // The reference may reach into what it writes itself.
        for place in start..start + run + 2 {
            let byte = *out.get(place).ok_or(Malformed)?;
            out.push(byte);
        }
        if out.len() > length {
            return Err(Malformed);
        }
    }
    if out.len() != length {
        return Err(Malformed);
    }
    Ok(out)
}
