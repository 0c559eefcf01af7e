//! Fills the store on a disk's file, by the engine itself on this machine: long strings of zeros, so that the file stays sparse.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use interface::key_value::{Entry, STORE_BYTES, StoreBuffer, Writer};
use kv_engine::disk::{Disk, DiskError, Shape};
use kv_engine::engine::{Engine, Limits};
use kv_engine::open::Options;
use kv_server::journal::{element_name, key_name};
use kv_server::stored_entry::{StoredContent, read_entry};
use kv_server::value::{CHUNK_BYTES, Kind};
use power_cut::partition::{self, Place};
use power_cut::replay::Medium;
use progress::Step;
use rref::RRef;
use rref::block::{Block, Fault, Operation};

/// Logical block of the disk, in bytes.
const BLOCK: u32 = 512;
/// Chunks of each string: 1 MB.
const CHUNKS: u64 = 64;
/// Flag of a string that is in chunks, in the letter of its entry.
const IN_CHUNKS: u8 = 0x80;
/// What of a disk holds the partition table.
const HEAD_BYTES: usize = 64 << 10;

struct FileDisk {
    file: File,
    place: Place,
}

impl FileDisk {
    fn carry_out(&self, block: &mut Block) -> Result<(), Fault> {
        let at = self.place.start + block.address * u64::from(BLOCK);
        let length = block.count as usize * BLOCK as usize;
        let done = match block.operation() {
            Some(Operation::Read) => {
                let data = block.data_mut().get_mut(..length).ok_or(Fault::OutOfRange)?;
                self.file.read_exact_at(data, at)
            }
            Some(Operation::Write) => {
                let data = block.data().get(..length).ok_or(Fault::OutOfRange)?;
                // Blank already: a new disk's file has holes there.
                if data.iter().all(|byte| *byte == 0) {
                    return Ok(());
                }
                self.file.write_all_at(data, at)
            }
            Some(Operation::Flush) => Ok(()),
            _ => return Err(Fault::Unsupported),
        };
        done.map_err(|_| Fault::Internal)
    }
}

impl Disk for FileDisk {
    fn shape(&self) -> Shape {
        Shape {
            block_bytes: BLOCK,
            blocks: self.place.bytes / u64::from(BLOCK),
            volatile_cache: true,
            forced_writes: true,
            deallocate: false,
        }
    }

    fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        for block in requests {
            match self.carry_out(block) {
                Ok(()) => block.complete(),
                Err(fault) => block.fail(fault, 0),
            }
        }
        Ok(())
    }
}

/// Writes `bytes` of strings into the store of the disk in `file`; gives how many strings.
pub fn fill(file: &Path, bytes: u64) -> Result<u64> {
    host_platform::attach();
    let step = Step::start(format!("Filling the store with {} MiB", bytes >> 20));
    let file = File::options().read(true).write(true).open(file)?;
    let mut head = vec![0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let mut medium = Medium::default();
    medium.write(0, &head);
    let place = partition::find(&medium, BLOCK).context("the disk has no partition for the store")?;
    let options = Options {
        limits: Limits {
            index_bytes: 256 << 20,
            cache_bytes: 1 << 20,
        },
        segment_bytes: None,
        random: || std::process::id().into(),
    };
    let store = |error| anyhow!("the store can't be filled: {error}");
    let engine = Engine::open(FileDisk { file, place }, options, |_| {}).map_err(store)?;
    let mut group = RRef::new(StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    })
    .map_err(|_| anyhow!("no memory for a buffer"))?;
    let chunk = [0; CHUNK_BYTES];
    let strings = bytes / (CHUNKS * CHUNK_BYTES as u64);
    for number in 0..strings {
        let id = number + 1;
        for index in 0..CHUNKS as u32 {
            let mut name = Vec::new();
            element_name(&mut name, id, Kind::String, &index.to_be_bytes());
            put(&engine, &mut group, &name, &chunk)?;
        }
        let mut name = Vec::new();
        key_name(&mut name, 0, format!("key{number}").as_bytes());
        let value = entry(id, CHUNKS * CHUNK_BYTES as u64)?;
        put(&engine, &mut group, &name, &value)?;
        if number % 64 == 0 {
            engine.commit(engine.appended()).map_err(store)?;
            step.note(format!("{} of {strings} MB", number));
        }
    }
    engine.commit(engine.appended()).map_err(store)?;
    step.done(format!("{strings} strings of 1 MB"));
    Ok(strings)
}

fn put<D: Disk>(engine: &Engine<D>, group: &mut StoreBuffer, name: &[u8], value: &[u8]) -> Result<()> {
    Writer::begin(group)
        .push(&Entry::Put { key: name, value })
        .map_err(|_| anyhow!("an entry is too long"))?;
    engine
        .append(group)
        .map_err(|error| anyhow!("the store can't be filled: {error}"))?;
    Ok(())
}

/// The entry of a key whose string is in chunks, as the server writes it.
fn entry(id: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![Kind::String.letter() | IN_CHUNKS];
    for word in [0, id, length] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    match read_entry(&bytes) {
        Ok(stored) if stored.content == StoredContent::Chunks(id, length) => Ok(bytes),
        _ => Err(anyhow!("the server writes its entries in another way now")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_understands_the_entries() {
        assert!(entry(5, 1_024_000).is_ok());
    }
}
