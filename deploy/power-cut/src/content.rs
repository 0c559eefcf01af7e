//! What is in the store: the keys of database 0 with their strings, put together from the entries that the server wrote.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use interface::key_value::{Entry, INLINE_LIMIT_BYTES, Reader, STORE_BYTES, StoreBuffer, StoreError};
use kv_engine::disk::Disk;
use kv_engine::engine::Engine;
use kv_server::journal::{KEY_LETTER, REDO_KEY, element_name, for_each_entry, read_redo};
use kv_server::stored_entry::{StoredContent, read_entry};
use kv_server::value::Kind;
use rref::RRef;

/// Bytes of a database's number in a key's name.
const SPACE_BYTES: usize = 4;

/// Keys and strings of database 0.
///
/// # Errors
/// When an entry can't be read back, or isn't what the server writes.
pub fn strings<D: Disk>(engine: &Engine<D>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut entries = entries(engine)?;
    finish_unit(&mut entries)?;
    let mut strings = BTreeMap::new();
    for (name, value) in &entries {
        let Some(key) = name.strip_prefix(&[KEY_LETTER]) else {
            continue;
        };
        let (space, key) = key
            .split_at_checked(SPACE_BYTES)
            .context("a key's name is too short")?;
        if space != [0; SPACE_BYTES] {
            continue;
        }
        let stored = read_entry(value).map_err(|_| anyhow!("the entry of a key can't be understood"))?;
        let string = match stored.content {
            StoredContent::String(bytes) => bytes.to_vec(),
            StoredContent::Chunks(id, length) => chunks(&entries, id, length)?,
            StoredContent::Collection(..) => continue,
        };
        strings.insert(key.to_vec(), string);
    }
    Ok(strings)
}

/// All entries by name.
fn entries<D: Disk>(engine: &Engine<D>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut entries = BTreeMap::new();
    let mut buffer = buffer()?;
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = engine
            .scan(at, INLINE_LIMIT_BYTES as u32, &mut buffer)
            .map_err(store)?;
        for entry in Reader::new(&buffer) {
            match entry.map_err(|_| anyhow!("the store gives entries that can't be read"))? {
                Entry::Put { key, value } => entries.insert(key.to_vec(), value.to_vec()),
                Entry::Key { key, .. } => entries.insert(key.to_vec(), whole_value(engine, key)?),
                other => bail!("a scan gives {other:?}"),
            };
        }
    }
    Ok(entries)
}

fn whole_value<D: Disk>(engine: &Engine<D>, name: &[u8]) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let mut buffer = buffer()?;
    loop {
        buffer.length = name.len() as u32;
        buffer
            .data
            .get_mut(..name.len())
            .context("a name is too long")?
            .copy_from_slice(name);
        let total = engine.read(&mut buffer, value.len() as u64).map_err(store)?;
        let piece = buffer.data.get(..buffer.length as usize).unwrap_or_default();
        value.extend_from_slice(piece);
        if value.len() as u64 >= total {
            return Ok(value);
        }
        ensure!(!piece.is_empty(), "a value ends too early");
    }
}

/// A long unit that was being written is finished by the server's next start; here by writing its entries over the others.
fn finish_unit(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    let Some(redo) = entries.remove(REDO_KEY) else {
        return Ok(());
    };
    for (part, staged) in read_redo(&redo).context("a long unit can't be understood")? {
        for_each_entry(&part, |entry| match *entry {
            Entry::Put { key, value } => {
                entries.insert(key.to_vec(), value.to_vec());
            }
            Entry::PutStaged { key, value, .. } => {
                if let Some(value) = staged.iter().find(|staged| staged.number == value) {
                    entries.insert(key.to_vec(), value.bytes.clone());
                }
            }
            Entry::Delete { key } => {
                entries.remove(key);
            }
            Entry::Clear => entries.clear(),
            Entry::Key { .. } => {}
        });
    }
    Ok(())
}

fn chunks(entries: &BTreeMap<Vec<u8>, Vec<u8>>, id: u64, length: u64) -> Result<Vec<u8>> {
    let mut string = Vec::new();
    let mut index = 0_u32;
    while (string.len() as u64) < length {
        let mut name = Vec::new();
        element_name(&mut name, id, Kind::String, &index.to_be_bytes());
        let chunk = entries
            .get(&name)
            .with_context(|| format!("chunk {index} of a long string is missing"))?;
        ensure!(!chunk.is_empty(), "chunk {index} of a long string is empty");
        string.extend_from_slice(chunk);
        index += 1;
    }
    ensure!(string.len() as u64 == length, "a long string has another length");
    Ok(string)
}

fn buffer() -> Result<RRef<StoreBuffer>> {
    let buffer = StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    };
    RRef::new(buffer).map_err(|_| anyhow!("no memory for a buffer"))
}

fn store(error: StoreError) -> anyhow::Error {
    anyhow!("the store can't be read: {error}")
}
