//! Writing values.

use super::Kind;
use super::packed::Listpack;
use crate::types::stream::StreamId;
use crate::types::{Hash, List, Set, SortedSet, Stream};
use crate::value::Collection;
use alloc::vec::Vec;
use core::any::Any;

/// Entries of a stream in one listpack.
const NODE_ENTRIES: usize = 100;
/// Bytes of one listpack; an entry that is longer has its own.
const NODE_BYTES: usize = 4096;
/// The greatest and the least stream ID.
const ALL: (StreamId, StreamId) = (
    StreamId {
        milliseconds: 0,
        sequence: 0,
    },
    StreamId {
        milliseconds: u64::MAX,
        sequence: u64::MAX,
    },
);

/// A string.
pub fn write_string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 24);
    out.push(Kind::String as u8);
    put_bytes(&mut out, bytes);
    out
}

/// A collection; `None` for one of a type that isn't known here.
pub fn write_collection(collection: &dyn Collection) -> Option<Vec<u8>> {
    let any: &dyn Any = collection;
    let mut out = Vec::new();
    if let Some(list) = any.downcast_ref::<List>() {
        out.push(Kind::List as u8);
        put_length(&mut out, list.iter().len() as u64);
        list.iter().for_each(|item| put_bytes(&mut out, &item.value));
    } else if let Some(set) = any.downcast_ref::<Set>() {
        out.push(Kind::Set as u8);
        put_length(&mut out, set.iter().len() as u64);
        set.iter().for_each(|member| put_bytes(&mut out, member));
    } else if let Some(hash) = any.downcast_ref::<Hash>() {
        out.push(Kind::Hash as u8);
        put_length(&mut out, hash.iter().len() as u64);
        for (field, value) in hash.iter() {
            put_bytes(&mut out, field);
            put_bytes(&mut out, value);
        }
    } else if let Some(set) = any.downcast_ref::<SortedSet>() {
        out.push(Kind::SortedSet as u8);
        put_length(&mut out, set.iter().len() as u64);
        for scored in set.iter() {
            put_bytes(&mut out, &scored.member);
            out.extend(scored.score.to_le_bytes());
        }
    } else {
        put_stream(&mut out, any.downcast_ref::<Stream>()?);
    }
    Some(out)
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend([0x40 | (length >> 8) as u8, (length & 0xff) as u8]),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend((length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend(length.to_be_bytes());
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_length(out, id.milliseconds);
    put_length(out, id.sequence);
}

fn put_raw_id(out: &mut Vec<u8>, id: StreamId) {
    out.extend(id.milliseconds.to_be_bytes());
    out.extend(id.sequence.to_be_bytes());
}

/// Entries of a stream that go into one listpack.
struct Node {
    first: StreamId,
    entries: usize,
    pack: Listpack,
}

fn put_stream(out: &mut Vec<u8>, stream: &Stream) {
    let mut nodes: Vec<Node> = Vec::new();
    for (id, fields) in stream.range(ALL.0, ALL.1) {
        let parts: Vec<&[u8]> = fields.iter().collect();
        let full = |node: &Node| node.entries >= NODE_ENTRIES || node.pack.len() >= NODE_BYTES;
        if nodes.last().is_none_or(full) {
            nodes.push(Node {
                first: id,
                entries: 0,
                pack: Listpack::default(),
            });
        }
        let Some(node) = nodes.last_mut() else { continue };
        node.entries += 1;
        // Flags, the difference to the node's first entry, the fields, and how many elements that were.
        node.pack.integer(0);
        node.pack.integer(
            id.milliseconds
                .wrapping_sub(node.first.milliseconds)
                .cast_signed(),
        );
        node.pack
            .integer(id.sequence.wrapping_sub(node.first.sequence).cast_signed());
        node.pack.integer((parts.len() / 2) as i64);
        parts.iter().for_each(|part| node.pack.bytes(part));
        node.pack.integer(parts.len() as i64 + 4);
    }
    out.push(Kind::Stream2 as u8);
    put_length(out, nodes.len() as u64);
    for node in nodes {
        put_length(out, 16);
        put_raw_id(out, node.first);
        put_bytes(out, &with_head(node.entries, node.pack));
    }
    put_length(out, stream.length() as u64);
    put_id(out, stream.last_id);
    put_id(out, stream.first_id().unwrap_or(ALL.0));
    put_id(out, stream.deleted_id);
    put_length(out, stream.added);
    put_length(out, stream.groups.len() as u64);
    for (name, group) in &stream.groups {
        put_bytes(out, name);
        put_id(out, group.last_id);
        put_length(out, group.entries_read.unwrap_or(u64::MAX));
        put_length(out, group.pending.len() as u64);
        for (id, pending) in &group.pending {
            put_raw_id(out, *id);
            out.extend(pending.delivered_ms.to_le_bytes());
            put_length(out, pending.deliveries);
        }
        put_length(out, group.consumers.len() as u64);
        for (name, consumer) in &group.consumers {
            put_bytes(out, name);
            out.extend(consumer.seen_ms.to_le_bytes());
            put_length(out, consumer.pending.len() as u64);
            consumer.pending.iter().for_each(|id| put_raw_id(out, *id));
        }
    }
}

/// A node's listpack begins with its number of entries, of deleted ones, and with fields that entries can share: none here.
fn with_head(entries: usize, pack: Listpack) -> Vec<u8> {
    let mut whole = Listpack::default();
    for number in [entries as i64, 0, 0, 0] {
        whole.integer(number);
    }
    whole.append(pack);
    whole.finish()
}
