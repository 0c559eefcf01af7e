//! A key's own entry in the store: its type, its expiry, and a short string's bytes or what its elements are found by.

use crate::keyspace::Entry;
use crate::value::{Kind, Malformed, StringValue, Value};
use alloc::vec::Vec;

/// Chunks that a stored string has.
pub fn chunks(value: &Value) -> u32 {
    match value {
        Value::String(StringValue::Stored { length }) => {
            length.div_ceil(crate::value::CHUNK_BYTES as u64) as u32
        }
        _ => 0,
    }
}

const STORED_FLAG: u8 = 0x80;

/// What the entry of a key begins with.
#[inline]
pub(crate) fn entry_head(entry: &Entry) -> [u8; 9] {
    let stored = matches!(entry.value, Value::String(StringValue::Stored { .. }));
    let letter = entry.value.kind().letter() | if stored { STORED_FLAG } else { 0 };
    let [a, b, c, d, e, f, g, h] = entry.expires_ms.to_le_bytes();
    [letter, a, b, c, d, e, f, g, h]
}

/// Writes the entry of a key.
pub(crate) fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(&entry_head(entry));
    match &entry.value {
        Value::String(StringValue::Memory(bytes)) => out.extend_from_slice(bytes),
        Value::String(StringValue::Stored { length }) => {
            out.extend_from_slice(&entry.id.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        Value::Collection(collection) => {
            out.extend_from_slice(&entry.id.to_le_bytes());
            collection.metadata(out);
        }
    }
}

/// A key's own entry, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct StoredEntry<'a> {
    /// When it expires.
    pub expires_ms: u64,
    /// What it is.
    pub content: StoredContent<'a>,
}

/// What a key's own entry says of its value.
#[derive(Debug, PartialEq, Eq)]
pub enum StoredContent<'a> {
    /// A string's bytes.
    String(&'a [u8]),
    /// A string in chunks under this id.
    Chunks(u64, u64),
    /// A collection of this kind under this id, and its metadata.
    Collection(Kind, u64, &'a [u8]),
}

/// Takes a key's own entry apart.
///
/// # Errors
/// When it isn't one.
pub fn read_entry(value: &[u8]) -> Result<StoredEntry<'_>, Malformed> {
    let (letter, rest) = value.split_first().ok_or(Malformed)?;
    let (expires, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
    let expires_ms = u64::from_le_bytes(*expires);
    let kind = Kind::from_letter(letter & !STORED_FLAG).ok_or(Malformed)?;
    let number = |rest: &'_ [u8]| {
        rest.first_chunk::<8>()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or(Malformed)
    };
    let content = match (kind, letter & STORED_FLAG != 0) {
        (Kind::String, false) => StoredContent::String(rest),
        (Kind::String, true) => {
            StoredContent::Chunks(number(rest)?, number(rest.get(8..).unwrap_or_default())?)
        }
        (kind, false) => StoredContent::Collection(kind, number(rest)?, rest.get(8..).unwrap_or_default()),
        _ => return Err(Malformed),
    };
    Ok(StoredEntry { expires_ms, content })
}
