//! The engine as a whole on a simulated disk: what is written is read, with every way of writing it, and over restarts.

use crate::disk::Disk;
use crate::engine::{Engine, Limits};
use crate::open::Options;
use crate::simulated_disk::SimulatedDisk;
use interface::key_value::{Entry, Reader, STORE_BYTES, StoreBuffer, StoreError, VALUE_LIMIT_BYTES, Writer};
use std::collections::{BTreeMap, BTreeSet};

pub const LIMITS: Limits = Limits {
    index_bytes: 64 << 20,
    cache_bytes: 1 << 20,
};

pub fn options() -> Options {
    Options {
        limits: LIMITS,
        segment_bytes: Some(256 << 10),
        random: || 0x1234_5678_9abc_def1,
    }
}

pub fn buffer() -> Box<StoreBuffer> {
    Box::new(StoreBuffer {
        length: 0,
        data: [0; STORE_BYTES],
    })
}

pub fn open<D: Disk>(disk: D) -> Result<Engine<D>, StoreError> {
    host_platform::attach();
    Engine::open(disk, options(), |_| {})
}

pub fn append<D: Disk>(engine: &Engine<D>, entries: &[Entry<'_>]) -> Result<u64, StoreError> {
    let mut buffer = buffer();
    let mut writer = Writer::begin(&mut buffer);
    for entry in entries {
        writer.push(entry).unwrap();
    }
    engine.append(&buffer)
}

pub fn put<D: Disk>(engine: &Engine<D>, key: &[u8], value: &[u8]) -> u64 {
    append(engine, &[Entry::Put { key, value }]).unwrap()
}

pub fn read<D: Disk>(engine: &Engine<D>, key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut value = Vec::new();
    loop {
        let mut buffer = buffer();
        buffer.data[..key.len()].copy_from_slice(key);
        buffer.length = key.len() as u32;
        let value_bytes = engine.read(&mut buffer, value.len() as u64)?;
        value.extend_from_slice(&buffer.data[..buffer.length as usize]);
        if value.len() as u64 >= value_bytes {
            return Ok(value);
        }
        assert!(buffer.length > 0);
    }
}

/// All that a scan gives; long values are read.
pub fn content<D: Disk>(engine: &Engine<D>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut cursor = 0;
    loop {
        let mut buffer = buffer();
        let next = engine.scan(cursor, 1000, &mut buffer).unwrap();
        for entry in Reader::new(&buffer) {
            match entry.unwrap() {
                Entry::Put { key, value } => all.insert(key.to_vec(), value.to_vec()),
                Entry::Key { key, value_bytes } => {
                    let value = read(engine, key).unwrap();
                    assert_eq!(value.len() as u64, value_bytes);
                    all.insert(key.to_vec(), value)
                }
                other => panic!("{other:?} from a scan"),
            };
        }
        match next {
            Some(next) => {
                assert!(next > cursor);
                cursor = next;
            }
            None => return all,
        }
    }
}

/// The keys that a scan gives while others write.
fn keys<D: Disk>(engine: &Engine<D>) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let mut buffer = buffer();
        cursor = engine.scan(at, 0, &mut buffer).unwrap();
        for entry in Reader::new(&buffer) {
            if let Entry::Put { key, .. } | Entry::Key { key, .. } = entry.unwrap() {
                all.insert(key.to_vec());
            }
        }
    }
    all
}

/// A check of the whole finds nothing wrong.
pub fn assert_sound<D: Disk>(engine: &Engine<D>) {
    let mut cursor = 0;
    loop {
        let report = engine.check(cursor).unwrap();
        assert_eq!(
            (report.damaged, report.dangling),
            (0, 0),
            "{report:?} at {cursor}"
        );
        match report.next {
            Some(next) => cursor = next,
            None => return,
        }
    }
}

pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

#[test]
fn what_is_put_is_read_and_is_there_after_a_restart() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    let mut model = BTreeMap::new();
    for number in 0..3000_u64 {
        let key = format!("key{}", number % 700).into_bytes();
        let value = bytes(number, number as usize % 300);
        put(&engine, &key, &value);
        model.insert(key, value);
        if number % 50 == 0 {
            assert_eq!(engine.commit(number + 1), Ok(number + 1));
        }
    }
    append(
        &engine,
        &[Entry::Delete { key: b"key3" }, Entry::Delete { key: b"none" }],
    )
    .unwrap();
    model.remove(&b"key3"[..]);
    assert_eq!(engine.commit(u64::MAX), Ok(3001));
    for (key, value) in &model {
        assert_eq!(read(&engine, key).as_ref(), Ok(value));
    }
    assert_eq!(read(&engine, b"key3"), Err(StoreError::NotFound));
    assert_eq!(content(&engine), model);
    assert_sound(&engine);
    drop(engine);

    let engine = open(disk).unwrap();
    assert_eq!((engine.appended(), engine.committed()), (3001, 3001));
    assert_eq!(engine.statistics().keys, model.len() as u64);
    assert_eq!(engine.opened().dropped_bytes, 0);
    assert_eq!(content(&engine), model);
    for (key, value) in &model {
        assert_eq!(read(&engine, key).as_ref(), Ok(value));
    }
    assert_sound(&engine);
}

#[test]
fn what_was_not_committed_may_be_gone() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    let first = put(&engine, b"a", b"1");
    engine.commit(first).unwrap();
    put(&engine, b"b", b"2");
    drop(engine);
    assert_eq!(
        content(&open(disk).unwrap()),
        BTreeMap::from([(b"a".to_vec(), b"1".to_vec())])
    );
}

fn stage<D: Disk>(engine: &Engine<D>, number: u64, value: &[u8], piece_bytes: usize) {
    let mut offset = 0;
    for piece in value.chunks(piece_bytes) {
        engine.stage(number, offset, piece).unwrap();
        offset += piece.len() as u64;
    }
}

#[test]
fn long_values_are_staged_replaced_and_dropped() {
    let disk = SimulatedDisk::new(16 << 20);
    let engine = open(disk.clone()).unwrap();
    let (first, second) = (bytes(1, 1_000_000), bytes(2, 500_001));
    let long = |number, value: &Vec<u8>| Entry::PutStaged {
        key: b"long",
        value: number,
        value_bytes: value.len() as u64,
    };
    stage(&engine, 7, &first, STORE_BYTES);
    append(&engine, &[long(7, &first)]).unwrap();
    assert_eq!(read(&engine, b"long").as_ref(), Ok(&first));
    // It is named once, and as long as it is.
    assert_eq!(append(&engine, &[long(7, &first)]), Err(StoreError::NotFound));
    stage(&engine, 8, &second, 10_000);
    assert_eq!(append(&engine, &[long(8, &first)]), Err(StoreError::Malformed));
    assert_eq!(engine.stage(8, 5, b"x"), Err(StoreError::Malformed));
    append(
        &engine,
        &[
            long(8, &second),
            Entry::Put {
                key: b"short",
                value: b"!",
            },
        ],
    )
    .unwrap();
    stage(&engine, 9, &first, 20_000);
    engine.commit(u64::MAX).unwrap();
    let model = BTreeMap::from([
        (b"long".to_vec(), second.clone()),
        (b"short".to_vec(), b"!".to_vec()),
    ]);
    assert_eq!(content(&engine), model);
    assert_sound(&engine);
    drop(engine);
    let engine = open(disk.clone()).unwrap();
    assert_eq!(content(&engine), model);
    // What was staged and not named is nothing now.
    assert_eq!(append(&engine, &[long(9, &first)]), Err(StoreError::NotFound));
    assert!(engine.statistics().live_bytes < 520_000);
    append(&engine, &[Entry::Delete { key: b"long" }]).unwrap();
    engine.commit(u64::MAX).unwrap();
    assert!(engine.statistics().live_bytes < 200);
    drop(engine);
    assert_eq!(open(disk).unwrap().statistics().keys, 1);
}

#[test]
fn clear_drops_all_but_what_is_staged() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    let value = bytes(3, 100_000);
    for number in 0..1000_u32 {
        put(&engine, &number.to_le_bytes(), b"value");
    }
    stage(&engine, 1, &value, STORE_BYTES);
    let after = Entry::Put {
        key: b"after",
        value: b"1",
    };
    append(
        &engine,
        &[
            Entry::Put {
                key: b"before",
                value: b"1",
            },
            Entry::Clear,
            after,
        ],
    )
    .unwrap();
    let named = Entry::PutStaged {
        key: b"long",
        value: 1,
        value_bytes: 100_000,
    };
    append(&engine, &[named]).unwrap();
    engine.commit(u64::MAX).unwrap();
    let model = BTreeMap::from([(b"after".to_vec(), b"1".to_vec()), (b"long".to_vec(), value)]);
    assert_eq!(content(&engine), model);
    drop(engine);
    let engine = open(disk.clone()).unwrap();
    assert_eq!(content(&engine), model);
    engine.compact().unwrap();
    assert_eq!(content(&engine), model);
    assert_sound(&engine);
    drop(engine);
    assert_eq!(content(&open(disk).unwrap()), model);
}

#[test]
fn a_full_disk_takes_deletions_and_is_read() {
    let disk = SimulatedDisk::new(4 << 20);
    let engine = open(disk.clone()).unwrap();
    let mut model = BTreeMap::new();
    let mut number = 0_u64;
    loop {
        let (key, value) = (number.to_le_bytes(), bytes(number, 1000));
        match append(
            &engine,
            &[Entry::Put {
                key: &key,
                value: &value,
            }],
        ) {
            Ok(_) => model.insert(key.to_vec(), value),
            Err(error) => {
                assert_eq!(error, StoreError::Full);
                break;
            }
        };
        number += 1;
    }
    assert!(number > 1500, "full after {number}");
    // Deletions alone, more than the free segments hold records of.
    for deleted in 0..number / 2 {
        let key = deleted.to_le_bytes();
        append(&engine, &[Entry::Delete { key: &key }]).unwrap();
        model.remove(&key[..]);
    }
    engine.commit(u64::MAX).unwrap();
    assert_eq!(content(&engine), model);
    for again in 0..number / 3 {
        let value = bytes(again, 900);
        put(&engine, &again.to_le_bytes(), &value);
        model.insert(again.to_le_bytes().to_vec(), value);
    }
    assert_eq!(content(&engine), model);
    assert_sound(&engine);
    engine.commit(u64::MAX).unwrap();
    drop(engine);
    assert_eq!(content(&open(disk).unwrap()), model);
}

/// Overwriting the same keys many times the disk's size: cleaning keeps up, deletions don't pile up, and nothing comes back.
#[test]
fn cleaning_keeps_up_with_overwriting() {
    let disk = SimulatedDisk::new(4 << 20);
    let engine = open(disk.clone()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut model = BTreeMap::new();
    for cold in 0..500_u64 {
        let key = [b"cold", &cold.to_le_bytes()[..]].concat();
        put(&engine, &key, &[1; 400]);
        model.insert(key, vec![1; 400]);
    }
    for round in 0..60_000_u64 {
        let key = random.u64(..2000).to_le_bytes().to_vec();
        if random.u8(..3) == 0 {
            append(&engine, &[Entry::Delete { key: &key }]).unwrap();
            model.remove(&key);
        } else {
            let value = bytes(round, random.usize(..600));
            put(&engine, &key, &value);
            model.insert(key, value);
        }
        if round % 97 == 0 {
            engine.commit(round).unwrap();
        }
    }
    assert_eq!(content(&engine), model);
    assert_sound(&engine);
    let statistics = engine.statistics();
    assert!(statistics.cleaned_bytes > 0);
    engine.commit(u64::MAX).unwrap();
    drop(engine);
    let engine = open(disk.clone()).unwrap();
    assert_eq!(content(&engine), model);
    engine.compact().unwrap();
    assert_eq!(content(&engine), model);
    drop(engine);
    assert_eq!(content(&open(disk).unwrap()), model);
}

#[test]
fn only_a_blank_partition_gets_a_store() {
    host_platform::attach();
    for at in [0, 100_000, (128 << 10) + (256 << 10) * 3 + 17] {
        let disk = SimulatedDisk::new(4 << 20);
        disk.0.lock().unwrap().content[at] = 1;
        let before = disk.content();
        assert_eq!(open(disk.clone()).err(), Some(StoreError::Unrecognised));
        assert!(disk.content() == before);
    }
    assert_eq!(
        open(SimulatedDisk::new(1 << 20)).err(),
        Some(StoreError::TooSmall)
    );
}

#[test]
fn threads_share_write_outs() {
    let disk = SimulatedDisk::new(16 << 20);
    let engine = open(disk.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let engine = &engine;
            scope.spawn(move || {
                host_platform::attach();
                for number in 0..500_u64 {
                    let key = [thread.to_le_bytes(), number.to_le_bytes()].concat();
                    let sequence = put(engine, &key, &key);
                    assert!(engine.commit(sequence).unwrap() >= sequence);
                }
            });
        }
    });
    assert_eq!(engine.statistics().keys, 2000);
    assert_eq!(engine.committed(), 2000);
    drop(engine);
    assert_eq!(content(&open(disk).unwrap()).len(), 2000);
}

/// The longest value there may be, over a restart.
#[test]
fn a_value_of_512_mebibytes() {
    let disk = SimulatedDisk::new(600 << 20);
    host_platform::attach();
    let large = Options {
        segment_bytes: Some(8 << 20),
        ..options()
    };
    let engine = Engine::open(disk.clone(), large, |_| {}).unwrap();
    let piece = |number: u64| bytes(number % 7, STORE_BYTES);
    let whole = VALUE_LIMIT_BYTES / STORE_BYTES as u64;
    for number in 0..whole {
        let offset = number * STORE_BYTES as u64;
        engine.stage(1, offset, &piece(number)).unwrap();
    }
    let rest = (VALUE_LIMIT_BYTES - whole * STORE_BYTES as u64) as usize;
    let last = whole * STORE_BYTES as u64;
    assert_eq!(
        engine.stage(1, last, &bytes(0, rest + 1)),
        Err(StoreError::Malformed)
    );
    engine.stage(1, last, &piece(whole)[..rest]).unwrap();
    let named = Entry::PutStaged {
        key: b"long",
        value: 1,
        value_bytes: VALUE_LIMIT_BYTES,
    };
    append(&engine, &[named]).unwrap();
    engine.commit(u64::MAX).unwrap();
    drop(engine);
    let engine = open(disk).unwrap();
    let mut number = 0;
    while number < whole {
        let mut buffer = buffer();
        buffer.data[..4].copy_from_slice(b"long");
        buffer.length = 4;
        let offset = number * STORE_BYTES as u64;
        assert_eq!(engine.read(&mut buffer, offset), Ok(VALUE_LIMIT_BYTES));
        assert!(buffer.data[..buffer.length as usize] == piece(number)[..]);
        number += 97;
    }
}

/// Threads that write, read, scan and commit while another one cleans, on a disk that is written over many times.
#[test]
fn cleaning_beside_threads_loses_nothing() {
    let disk = SimulatedDisk::new(5 << 20);
    let engine = open(disk.clone()).unwrap();
    for cold in 0..50_u64 {
        put(&engine, &[b"cold", &cold.to_le_bytes()[..]].concat(), b"value");
    }
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let models: Vec<BTreeMap<Vec<u8>, Vec<u8>>> = std::thread::scope(|scope| {
        let engine = &engine;
        let is_done = &is_done;
        scope.spawn(move || {
            host_platform::attach();
            while !is_done.load(order) {
                engine.clean(false).unwrap();
                std::thread::yield_now();
            }
        });
        scope.spawn(move || {
            host_platform::attach();
            while !is_done.load(order) {
                // Every key that is never touched is in every scan.
                let all = keys(engine);
                assert!((0..50_u64).all(|cold| all.contains(&[b"cold", &cold.to_le_bytes()[..]].concat())));
                assert_sound(engine);
            }
        });
        let writers: Vec<_> = (0..3_u64)
            .map(|thread| {
                scope.spawn(move || {
                    host_platform::attach();
                    let mut random = fastrand::Rng::with_seed(thread);
                    let mut model = BTreeMap::new();
                    for round in 0..6000_u64 {
                        let key = [thread, random.u64(..300)].map(u64::to_le_bytes).concat();
                        if random.u8(..4) == 0 {
                            append(engine, &[Entry::Delete { key: &key }]).unwrap();
                            model.remove(&key);
                        } else {
                            let value = bytes(round, random.usize(..1500));
                            put(engine, &key, &value);
                            assert_eq!(read(engine, &key).as_ref(), Ok(&value));
                            model.insert(key, value);
                        }
                        if round % 50 == 0 {
                            engine.commit(u64::MAX).unwrap();
                        }
                    }
                    model
                })
            })
            .collect();
        let models = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        is_done.store(true, order);
        models
    });
    let mut model: BTreeMap<_, _> = models.into_iter().flatten().collect();
    for cold in 0..50_u64 {
        model.insert([b"cold", &cold.to_le_bytes()[..]].concat(), b"value".to_vec());
    }
    engine.commit(u64::MAX).unwrap();
    assert!(content(&engine) == model);
    assert!(engine.statistics().cleaned_bytes > 0);
    drop(engine);
    assert!(content(&open(disk).unwrap()) == model);
}
