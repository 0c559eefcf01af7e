//! `kv`: the key-value store under its server: how it is, single entries as they are on the disk, checking and cleaning.
//!
//! Keys here are the store's own. What the server makes of its clients' keys is for the server; one of its keys begins with a letter and a
//! number. Bytes that can't be typed are written `\xNN`.

use crate::answer::Answer;
use crate::import::Import;
use crate::table::{Table, bytes};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::key_value::{
    CheckReport, Entry, KeyValueStore, Reader, STORE_BYTES, StoreBuffer, StoreError, Writer,
};
use rref::RRef;
use serde_json::{Value, json};

/// Second words of `kv`.
pub const WORDS: &[&str] = &["check", "compact", "get", "keys", "set", "stats"];
/// Bytes of a value that are shown.
const SHOWN_BYTES: usize = 1024;
/// Keys that are shown unless asked otherwise.
const DEFAULT_KEYS: usize = 20;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// How the store is.
    Statistics,
    /// The value of a key.
    Get(Vec<u8>),
    /// To give a key a value.
    Set(Vec<u8>, Vec<u8>),
    /// Some keys.
    Keys(usize),
    /// To clean all that can be cleaned.
    Compact,
    /// To read all of it.
    Check,
}

impl Request {
    /// Whether the answer can be JSON.
    pub fn has_json(&self) -> bool {
        !matches!(self, Request::Set(..) | Request::Compact)
    }
}

/// The request that the words behind `kv` make; `None` if they make none.
pub fn request(words: &[&str]) -> Option<Result<Request, String>> {
    let key = |text: &str| {
        unescape(text).ok_or_else(|| format!("{text} has a \\ without two hexadecimal digits behind \\x."))
    };
    Some(match *words {
        [] | ["stats"] => Ok(Request::Statistics),
        ["get", name] => key(name).map(Request::Get),
        ["set", name, value] => key(name).and_then(|name| Ok(Request::Set(name, key(value)?))),
        ["keys"] => Ok(Request::Keys(DEFAULT_KEYS)),
        ["keys", count] => count
            .parse()
            .map(Request::Keys)
            .map_err(|_| format!("{count} is not a number of keys.")),
        ["compact"] => Ok(Request::Compact),
        ["check"] => Ok(Request::Check),
        _ => return None,
    })
}

type Store = Import<dyn KeyValueStore>;

/// Answers `kv`.
pub fn answer(store: &mut Store, request: Request) -> Result<Answer, String> {
    match request {
        Request::Statistics => statistics(store),
        Request::Get(key) => get(store, &key),
        Request::Set(key, value) => set(store, &key, &value),
        Request::Keys(count) => keys(store, count),
        Request::Compact => {
            let before = store.call(|store| store.statistics())?;
            store.call(|store| store.compact())?;
            let after = store.call(|store| store.statistics())?;
            Ok(Answer::text(format!(
                "{} of {} segments are free, {} were before; {} moved.",
                after.free_segments,
                after.segments,
                before.free_segments,
                bytes(after.cleaned_bytes.saturating_sub(before.cleaned_bytes)),
            )))
        }
        Request::Check => check(store),
    }
}

fn statistics(store: &mut Store) -> Result<Answer, String> {
    let found = store.call(|store| store.statistics())?;
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row([name.into(), value]);
    row("keys", found.keys.to_string());
    row("live data", bytes(found.live_bytes));
    row(
        "segments",
        format!(
            "{} of {} in use, {} of {}",
            found.segments - found.free_segments.min(found.segments),
            found.segments,
            bytes(found.used_bytes),
            bytes(found.capacity_bytes)
        ),
    );
    row("index", bytes(found.index_bytes));
    row("last group", found.appended.to_string());
    row("durable up to", found.committed.to_string());
    row(
        "since its start",
        format!(
            "{} groups, {} flushes or forced writes",
            found.groups, found.flushes
        ),
    );
    row(
        "written",
        format!(
            "{}, of it {} by cleaning",
            bytes(found.written_bytes),
            bytes(found.cleaned_bytes)
        ),
    );
    row(
        "opened",
        format!("in {} ms, {} read", found.open_ms, bytes(found.open_read_bytes)),
    );
    row("read by scans", bytes(found.scan_read_bytes));
    row(
        "dropped then",
        format!(
            "{} groups that nobody had committed, {}",
            found.dropped_groups,
            bytes(found.dropped_bytes)
        ),
    );
    let json = json!({
        "keys": found.keys,
        "live_bytes": found.live_bytes,
        "used_bytes": found.used_bytes,
        "capacity_bytes": found.capacity_bytes,
        "index_bytes": found.index_bytes,
        "appended": found.appended,
        "committed": found.committed,
        "groups": found.groups,
        "flushes": found.flushes,
        "written_bytes": found.written_bytes,
        "cleaned_bytes": found.cleaned_bytes,
        "segments": found.segments,
        "free_segments": found.free_segments,
        "open_ms": found.open_ms,
        "open_read_bytes": found.open_read_bytes,
        "scan_read_bytes": found.scan_read_bytes,
        "dropped_groups": found.dropped_groups,
        "dropped_bytes": found.dropped_bytes,
    });
    Ok(Answer {
        text: table.to_string(),
        json,
    })
}

fn buffer() -> Result<RRef<StoreBuffer>, StoreError> {
    RRef::new(StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    })
    .map_err(|_| StoreError::OutOfMemory)
}

fn get(store: &mut Store, key: &[u8]) -> Result<Answer, String> {
    let found = store.call(|store| {
        let mut buffer = buffer()?;
        let to = buffer.data.get_mut(..key.len()).ok_or(StoreError::Malformed)?;
        to.copy_from_slice(key);
        buffer.length = key.len() as u32;
        store.read(buffer, 0)
    })?;
    let value = found.buffer.data.get(..found.buffer.length as usize);
    let value = value.unwrap_or_default();
    let shown = escape(value.get(..SHOWN_BYTES).unwrap_or(value));
    let rest = found.value_bytes.saturating_sub(SHOWN_BYTES as u64);
    let text = match rest {
        0 => shown.clone(),
        rest => format!("{shown}\n… and {rest} bytes more"),
    };
    Ok(Answer {
        text,
        json: json!({ "value": shown, "value_bytes": found.value_bytes }),
    })
}

fn set(store: &mut Store, key: &[u8], value: &[u8]) -> Result<Answer, String> {
    let sequence = store.call(|store| {
        let mut buffer = buffer()?;
        Writer::begin(&mut buffer)
            .push(&Entry::Put { key, value })
            .map_err(|_| StoreError::Malformed)?;
        let appended = store.append(buffer)?;
        store.commit(appended.sequence)
    })?;
    Ok(Answer::text(format!(
        "It is on the disk, as group {sequence}. A server that is running doesn't know of it."
    )))
}

fn keys(store: &mut Store, count: usize) -> Result<Answer, String> {
    let (mut table, mut values) = (Table::new(&["key", ">bytes"]), Vec::new());
    let mut cursor = Some(0);
    while let Some(at) = cursor.filter(|_| values.len() < count) {
        let found = store.call(|store| store.scan(at, 0, buffer()?))?;
        cursor = found.next;
        for entry in Reader::new(&found.buffer).flatten() {
            let (key, value_bytes) = match entry {
                Entry::Put { key, value } => (key, value.len() as u64),
                Entry::Key { key, value_bytes } => (key, value_bytes),
                _ => continue,
            };
            if values.len() < count {
                table.row([escape(key), value_bytes.to_string()]);
                values.push(json!({ "key": escape(key), "value_bytes": value_bytes }));
            }
        }
    }
    Ok(Answer {
        text: match values.is_empty() {
            true => "There is no key.".into(),
            false => table.to_string(),
        },
        json: Value::Array(values),
    })
}

fn check(store: &mut Store) -> Result<Answer, String> {
    let mut total = CheckReport::default();
    let mut cursor = 0;
    loop {
        let part = store.call(|store| store.check(cursor))?;
        total.records += part.records;
        total.bytes += part.bytes;
        total.damaged += part.damaged;
        total.dangling += part.dangling;
        total.unreadable += part.unreadable;
        match part.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let mut verdict = match (total.damaged, total.dangling) {
        (0, 0) => "all of them right".into(),
        (damaged, dangling) => {
            format!("{damaged} places are damaged, {dangling} keys have no record that is right")
        }
    };
    if total.unreadable > 0 {
        verdict += &format!("; {} segments can't be read", total.unreadable);
    }
    Ok(Answer {
        text: format!("{} records, {}: {verdict}.", total.records, bytes(total.bytes)),
        json: json!({
            "records": total.records,
            "bytes": total.bytes,
            "damaged": total.damaged,
            "dangling": total.dangling,
            "unreadable": total.unreadable,
        }),
    })
}

/// Printable characters as they are, other bytes as `\xNN`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\x5c"),
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.strip_prefix('x')?.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(3..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_can_be_typed(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes));
        }

        #[test]
        fn any_words_are_taken_in_peace(words: Vec<String>) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _ = request(&words);
        }
    }

    #[test]
    fn words_make_requests() {
        assert_eq!(request(&[]), Some(Ok(Request::Statistics)));
        assert_eq!(
            request(&["get", "a\\x00b"]),
            Some(Ok(Request::Get(b"a\0b".to_vec())))
        );
        assert_eq!(request(&["keys", "5"]), Some(Ok(Request::Keys(5))));
        assert!(matches!(request(&["get", "a\\y"]), Some(Err(_))));
        assert_eq!(request(&["melt"]), None);
    }
}
