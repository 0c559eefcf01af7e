//! The checker itself: it finds nothing wrong with an engine that keeps its promises, and finds what is wrong when acknowledgements come too early or
//! something else is on the disk.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use interface::key_value::{Entry, STORE_BYTES, StoreBuffer, Writer};
use interface::partition::STORE_PARTITION;
use kv_engine::disk::{Disk, DiskError, Shape};
use kv_engine::engine::{Engine, Limits};
use kv_engine::open::Options;
use kv_load::oracle::Oracle;
use kv_load::record::Event;
use kv_load::value;
use power_cut::check::{Outcome, Plan, run};
use power_cut::disk::MediumDisk;
use power_cut::partition::Place;
use power_cut::replay::Medium;
use rref::RRef;
use rref::block::{Block, Operation};

const SECTOR: usize = 512;
const PLACE: Place = Place {
    start: 1 << 20,
    bytes: 32 << 20,
};

/// A write log in the making.
#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    entries: u64,
}

impl Log {
    fn push(&mut self, offset: u64, data: &[u8], flags: u64) {
        if self.bytes.is_empty() {
            self.bytes.resize(SECTOR, 0);
        }
        let start = self.bytes.len();
        for word in [offset / SECTOR as u64, (data.len() / SECTOR) as u64, flags, 0] {
            self.bytes.extend(word.to_le_bytes());
        }
        self.bytes.resize(start + SECTOR, 0);
        self.bytes.extend(data);
        self.entries += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let head = [0x006a_7366_7773_6872_u64, 1, self.entries, SECTOR as u64];
        for (to, word) in self.bytes.chunks_mut(8).zip(head) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.bytes
    }
}

/// A disk that logs what it does.
struct LoggedDisk {
    inner: MediumDisk,
    log: Arc<Mutex<Log>>,
}

impl Disk for LoggedDisk {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        let mut log = self.log.lock().unwrap();
        for block in requests.iter() {
            let data = &block.data()[..block.count as usize * SECTOR];
            match block.operation() {
                Some(Operation::Write) => {
                    let forced = u64::from(block.force_unit_access()) << 1;
                    log.push(PLACE.start + block.address * SECTOR as u64, data, forced);
                }
                Some(Operation::Flush) => log.push(0, &[], 1),
                _ => {}
            }
        }
        self.inner.run(requests)
    }
}

fn partition_table(log: &mut Log) {
    let mut header = vec![0; SECTOR];
    header[..8].copy_from_slice(b"EFI PART");
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&1_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    log.push(SECTOR as u64, &header, 0);
    let mut table = vec![0; SECTOR];
    table[..16].copy_from_slice(&STORE_PARTITION);
    let (first, count) = (PLACE.start / SECTOR as u64, PLACE.bytes / SECTOR as u64);
    table[32..40].copy_from_slice(&first.to_le_bytes());
    table[40..48].copy_from_slice(&(first + count - 1).to_le_bytes());
    log.push(2 * SECTOR as u64, &table, 0);
    log.push(0, &[], 1);
}

/// Writes keys through the engine, as the server does; `too_early` acknowledges before the commit.
fn history(too_early: bool) -> (Vec<u8>, Vec<Event>) {
    host_platform::attach();
    let log = Arc::new(Mutex::new(Log::default()));
    partition_table(&mut log.lock().unwrap());
    let disk = LoggedDisk {
        inner: MediumDisk::new(Medium::default(), PLACE, SECTOR as u32),
        log: log.clone(),
    };
    let options = Options {
        limits: Limits {
            index_bytes: 1 << 20,
            cache_bytes: 1 << 20,
        },
        segment_bytes: None,
        random: || 7,
    };
    let engine = Engine::open(disk, options, |_| {}).unwrap();
    let mut events = Vec::new();
    let mut buffer = RRef::new(StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    })
    .unwrap();
    for version in 1..=40 {
        let key = format!("k{}", version % 3);
        let length = (version as usize * 397) % 5000;
        events.push(Event::Sent {
            key: key.clone(),
            version,
            length: Some(length),
        });
        let name = [b"k\0\0\0\0".as_slice(), key.as_bytes()].concat();
        let content = [
            b"c\0\0\0\0\0\0\0\0".as_slice(),
            &value::make(&key, version, length),
        ]
        .concat();
        let entry = Entry::Put {
            key: &name,
            value: &content,
        };
        Writer::begin(&mut buffer).push(&entry).unwrap();
        let sequence = engine.append(&buffer).unwrap();
        let mut mark = log.lock().unwrap().bytes.len() as u64;
        engine.commit(sequence).unwrap();
        if !too_early {
            mark = log.lock().unwrap().bytes.len() as u64;
        }
        events.push(Event::Acknowledged { key, version, mark });
    }
    drop(engine);
    let log = std::mem::take(&mut *log.lock().unwrap());
    (log.finish(), events)
}

fn check(log: &[u8], events: &[Event]) -> Outcome {
    let file = tempfile::NamedTempFile::new().unwrap();
    File::create(file.path()).unwrap().write_all(log).unwrap();
    let plan = Plan {
        points: 0,
        seeds: 4,
        block_bytes: SECTOR as u32,
    };
    run(file.path(), &Oracle::new(events), plan).unwrap()
}

#[test]
fn an_engine_that_keeps_its_promises_passes_every_cut() {
    let (log, events) = history(false);
    let outcome = check(&log, &events);
    assert_eq!(outcome.problems, [""; 0]);
    assert!(outcome.points > 40, "{outcome:?}");
    assert!(outcome.cuts > 100, "{outcome:?}");
    assert!(outcome.acknowledged > 1000, "{outcome:?}");
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    let (log, events) = history(true);
    let outcome = check(&log, &events);
    assert!(
        outcome
            .problems
            .iter()
            .any(|problem| problem.contains("was acknowledged")),
        "{outcome:?}"
    );
}

#[test]
fn a_value_that_was_never_written_is_found() {
    let (log, mut events) = history(false);
    // As if key and version had been sent with another length.
    for event in &mut events {
        if let Event::Sent {
            version: 20, length, ..
        } = event
        {
            *length = Some(1);
        }
    }
    let outcome = check(&log, &events);
    assert!(
        outcome
            .problems
            .iter()
            .any(|problem| problem.contains("never written")),
        "{outcome:?}"
    );
}
