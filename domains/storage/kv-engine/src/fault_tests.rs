//! Disks that fail: what was committed stays, what can be read is read, and a commit says when it isn't one.

use crate::device::Partition;
use crate::simulated_disk::SimulatedDisk;
use crate::tests::{append, assert_sound, bytes, content, open, put, read};
use interface::block::BlockDevice;
use interface::key_value::{CheckReport, Entry, StoreError};
use rref::block::{Fault, Operation};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use virtual_disk::{Faults, Geometry, OneIn, VirtualDisk};

#[test]
fn a_failed_commit_says_so_and_the_next_makes_up_for_it() {
    for operation in [Operation::Write, Operation::Flush] {
        let disk = SimulatedDisk::new(8 << 20);
        let engine = open(disk.clone()).unwrap();
        let first = put(&engine, b"a", b"1");
        engine.commit(first).unwrap();
        disk.fail(operation, 0, u64::MAX, Fault::Gone);
        // More than one command, so that there is a flush.
        for number in 0..200_u64 {
            put(&engine, &number.to_le_bytes(), &bytes(number, 1000));
        }
        let last = put(&engine, b"b", b"2");
        assert_eq!(engine.commit(last), Err(StoreError::Device));
        assert_eq!(engine.commit(first), Ok(first));
        assert_eq!(read(&engine, b"a").as_deref(), Ok(&b"1"[..]));
        assert_eq!(read(&engine, b"b").as_deref(), Ok(&b"2"[..]));
        disk.heal();
        assert_eq!(engine.commit(last), Ok(last));
        let all = content(&engine);
        assert_sound(&engine);
        drop(engine);
        assert_eq!(content(&open(disk).unwrap()), all);
    }
}

#[test]
fn what_passes_is_tried_again() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    for (operation, fault) in [
        (Operation::Write, Fault::WriteFault),
        (Operation::Write, Fault::TimedOut),
        (Operation::Flush, Fault::Internal),
    ] {
        disk.fail(operation, 0, 2, fault);
        for number in 0..200_u64 {
            put(&engine, &number.to_le_bytes(), &bytes(number, 1000));
        }
        assert_eq!(engine.commit(u64::MAX), Ok(engine.appended()));
    }
    drop(engine);
    let engine = open(disk.clone()).unwrap();
    disk.fail(Operation::Read, 0, 2, Fault::Unreadable);
    assert_eq!(read(&engine, &7_u64.to_le_bytes()), Ok(bytes(7, 1000)));
    disk.fail(Operation::Read, 0, u64::MAX, Fault::Unreadable);
    assert_eq!(read(&engine, &8_u64.to_le_bytes()), Err(StoreError::Device));
    assert_eq!(open(disk.clone()).err(), Some(StoreError::Device));
    disk.heal();
    assert_eq!(open(disk).unwrap().statistics().keys, 200);
}

/// A disk that is full while it is read only: appends end with an error, reads go on.
#[test]
fn a_disk_that_takes_nothing_any_more_is_read() {
    let disk = SimulatedDisk::new(4 << 20);
    let engine = open(disk.clone()).unwrap();
    for number in 0..500_u64 {
        put(&engine, &number.to_le_bytes(), &bytes(number, 1000));
    }
    engine.commit(u64::MAX).unwrap();
    disk.fail(Operation::Write, 0, u64::MAX, Fault::ReadOnly);
    let mut number = 500_u64;
    let error = loop {
        let (key, value) = (number.to_le_bytes(), bytes(number, 1000));
        if let Err(error) = append(
            &engine,
            &[Entry::Put {
                key: &key,
                value: &value,
            }],
        ) {
            break error;
        }
        number += 1;
    };
    assert_eq!(error, StoreError::Device);
    for number in 0..number {
        assert_eq!(read(&engine, &number.to_le_bytes()), Ok(bytes(number, 1000)));
    }
}

/// What can't be read is told from what is damaged, and what is so once only isn't told at all.
#[test]
fn a_check_tells_what_it_cannot_read() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    for number in 0..1000_u64 {
        put(&engine, &number.to_le_bytes(), &bytes(number, 1000));
    }
    engine.commit(u64::MAX).unwrap();
    let check = || {
        let mut total = CheckReport::default();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let part = engine.check(at).unwrap();
            total.damaged += part.damaged;
            total.dangling += part.dangling;
            total.unreadable += part.unreadable;
            cursor = part.next;
        }
        (total.damaged, total.dangling, total.unreadable)
    };
    assert_eq!(check(), (0, 0, 0));
    // Once, and four times in a row, which is as often as a read is tried.
    for times in [1, 4] {
        disk.fail(Operation::Read, 2, times, Fault::Unreadable);
        assert_eq!(check(), (0, 0, 0));
    }
    disk.fail(Operation::Read, 0, u64::MAX, Fault::Unreadable);
    let (damaged, dangling, unreadable) = check();
    assert_eq!((damaged, dangling), (0, 0));
    assert!(unreadable >= 2, "{unreadable} segments");
    disk.heal();
    disk.0.lock().unwrap().content[(128 << 10) + 5000] ^= 1;
    assert_eq!(check(), (1, 1, 0));
}

/// Places that take no writes are passed by: no commit fails, and nothing is lost.
#[test]
fn bad_places_are_passed_by() {
    for seed in 0..10 {
        let disk = SimulatedDisk::new(8 << 20);
        let engine = open(disk.clone()).unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        for segment in [1, 2, 7, 20] {
            let start = (128 << 10) + segment * (256 << 10);
            // Headers, footers and what is between.
            let place = [0, (256 << 10) - 1, random.u64(..256 << 10)][random.usize(..3)];
            disk.spoil(start + place);
        }
        let mut model = BTreeMap::new();
        for number in 0..4000_u64 {
            let (key, value) = (
                random.u64(..1500).to_le_bytes(),
                bytes(number, random.usize(..3000)),
            );
            let sequence = put(&engine, &key, &value);
            model.insert(key.to_vec(), value);
            if random.u8(..30) == 0 {
                assert_eq!(engine.commit(sequence), Ok(sequence));
            }
        }
        engine.commit(u64::MAX).unwrap();
        assert!(disk.0.lock().unwrap().refusals > 0);
        assert!(content(&engine) == model);
        assert_sound(&engine);
        drop(engine);
        assert!(content(&open(disk).unwrap()) == model);
    }
}

/// Long values, deletions and a clear among what goes elsewhere.
#[test]
fn what_goes_elsewhere_is_still_what_it_was() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    let free = engine.statistics().free_segments;
    let long = bytes(1, 50_000);
    put(&engine, b"gone", b"1");
    append(&engine, &[Entry::Clear]).unwrap();
    for (number, piece) in long.chunks(20_000).enumerate() {
        engine.stage(1, number as u64 * 20_000, piece).unwrap();
    }
    let named = Entry::PutStaged {
        key: b"long",
        value: 1,
        value_bytes: long.len() as u64,
    };
    append(&engine, &[named]).unwrap();
    put(&engine, b"deleted", b"2");
    append(&engine, &[Entry::Delete { key: b"deleted" }]).unwrap();
    put(&engine, b"short", b"3");
    disk.spoil((128 << 10) + 30_000);
    let before = engine.statistics();
    engine.commit(u64::MAX).unwrap();
    let model = BTreeMap::from([(b"long".to_vec(), long), (b"short".to_vec(), b"3".to_vec())]);
    let after = engine.statistics();
    assert_eq!((after.keys, after.live_bytes), (before.keys, before.live_bytes));
    assert!(content(&engine) == model);
    assert_sound(&engine);
    engine.compact().unwrap();
    assert!(content(&engine) == model);
    append(&engine, &[Entry::Delete { key: b"long" }]).unwrap();
    engine.commit(u64::MAX).unwrap();
    // The segment that was passed by can be used again.
    assert!(engine.statistics().free_segments >= free - 2);
    drop(engine);
    assert_eq!(content(&open(disk).unwrap()).len(), 1);
}

/// A disk that takes no writes for a while has no segments used up by that.
#[test]
fn a_disk_that_takes_nothing_for_a_while_is_as_before() {
    let disk = SimulatedDisk::new(8 << 20);
    let engine = open(disk.clone()).unwrap();
    let first = put(&engine, b"a", b"1");
    engine.commit(first).unwrap();
    let free = engine.statistics().free_segments;
    disk.fail(Operation::Write, 0, u64::MAX, Fault::WriteFault);
    for number in 0..20_u64 {
        let sequence = put(&engine, &number.to_le_bytes(), b"value");
        assert_eq!(engine.commit(sequence), Err(StoreError::Device));
    }
    disk.heal();
    let last = put(&engine, b"b", b"2");
    assert_eq!(engine.commit(last), Ok(last));
    // Those that were tried in vain are given back one by one.
    engine.clean(true).unwrap();
    for _ in 0..3 {
        let sequence = put(&engine, b"c", b"3");
        engine.commit(sequence).unwrap();
    }
    assert_eq!(engine.statistics().free_segments, free);
    let all = content(&engine);
    drop(engine);
    assert_eq!(content(&open(disk).unwrap()), all);
}

/// A disk that is full but for a few segments, and an engine that dies again and again, in the middle of anything: each life begins
/// a segment, and they don't run out.
#[test]
fn repeated_kills_on_a_full_disk() {
    let disk = SimulatedDisk::new(4 << 20);
    let mut random = fastrand::Rng::with_seed(1);
    let mut model = BTreeMap::new();
    let (mut refused, mut written) = (0, 0);
    for life in 0..150_u64 {
        let engine = open(disk.clone()).unwrap();
        assert!(content(&engine) == model, "life {life}");
        for number in 0..random.u64(1..if life == 0 { 5000 } else { 60 }) {
            let key = random.u64(..4000).to_le_bytes();
            let value = bytes(life << 32 | number, random.usize(..2000));
            let entry = match random.u8(..8) {
                0 => Entry::Delete { key: &key },
                _ => Entry::Put {
                    key: &key,
                    value: &value,
                },
            };
            // Each is durable before the next, so that the model knows what is left of this life.
            match append(&engine, &[entry]).and_then(|sequence| engine.commit(sequence)) {
                Ok(_) => {
                    written += 1;
                    match entry {
                        Entry::Put { .. } => drop(model.insert(key.to_vec(), value)),
                        _ => drop(model.remove(&key[..])),
                    }
                }
                Err(error) => {
                    assert_eq!(error, StoreError::Full);
                    refused += 1;
                }
            }
        }
        // Dead in the middle of cleaning: its copies are there, and the segment isn't free yet.
        if life % 3 == 0 {
            disk.fail(Operation::Write, random.u64(..6), u64::MAX, Fault::Gone);
            let _ = engine.clean(true);
            disk.heal();
        }
    }
    assert!(
        refused > 100 && written > 1000,
        "{refused} refused, {written} written"
    );
    // Deletions are taken whatever happens, and make room.
    let engine = open(disk).unwrap();
    let keys: Vec<_> = model.keys().cloned().collect();
    for key in &keys {
        append(&engine, &[Entry::Delete { key }]).unwrap();
    }
    engine.commit(u64::MAX).unwrap();
    put(&engine, b"after", &bytes(1, 2000));
    assert_eq!(content(&engine).len(), 1);
    assert_sound(&engine);
}

#[test]
fn repeated_reads_need_no_disk() {
    let disk = SimulatedDisk::new(4 << 20);
    let engine = open(disk.clone()).unwrap();
    for number in 0..500_u64 {
        put(&engine, &number.to_le_bytes(), &bytes(number, 500));
    }
    engine.commit(u64::MAX).unwrap();
    drop(engine);
    let engine = open(disk.clone()).unwrap();
    let read_all = || {
        for number in 0..500_u64 {
            assert_eq!(read(&engine, &number.to_le_bytes()), Ok(bytes(number, 500)));
        }
        disk.0.lock().unwrap().reads
    };
    let first = read_all();
    assert_eq!(read_all(), first);
}

const KIND: [u8; 16] = [7; 16];

fn virtual_disk(queues: u16) -> &'static VirtualDisk {
    let geometry = Geometry {
        queues,
        kind: KIND,
        ..Geometry::of_bytes(16 << 20)
    };
    Box::leak(Box::new(VirtualDisk::new(geometry)))
}

fn partition(import: &'static str) -> Partition {
    let handle = domain_rt::connect::<dyn BlockDevice>(import, 1000).unwrap();
    Partition::find(import, handle, KIND).unwrap()
}

/// Through the real interface: answers in any order, late, with little room, from several threads, while the domain behind the handle
/// dies again and again.
#[test]
fn a_partition_carries_on_when_its_domain_dies() {
    host_platform::attach();
    let disk = virtual_disk(3);
    disk.set_faults(Faults::adverse(), 1);
    host_platform::provide_mortal::<dyn BlockDevice>("mortal-disk", disk);
    let engine = open(partition("mortal-disk")).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            host_platform::attach();
            let mut deaths = 0;
            while !is_done.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(3));
                host_platform::kill("mortal-disk");
                host_platform::provide_mortal::<dyn BlockDevice>("mortal-disk", disk);
                deaths += 1;
            }
            deaths
        });
        let workers: Vec<_> = (0..4_u64)
            .map(|thread| {
                let engine = &engine;
                scope.spawn(move || {
                    host_platform::attach();
                    for number in 0..300_u64 {
                        let key = [thread.to_le_bytes(), number.to_le_bytes()].concat();
                        let sequence = put(engine, &key, &bytes(number, 700));
                        engine.commit(sequence).unwrap();
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(killer.join().unwrap() > 0);
    });
    let all = content(&engine);
    assert_eq!(all.len(), 1200);
    drop(engine);
    assert_eq!(content(&open(partition("mortal-disk")).unwrap()), all);
}

/// Every size of logical blocks, with and without a cache that has to be flushed; cleaning and a restart included.
#[test]
fn every_kind_of_disk() {
    host_platform::attach();
    for (block_bytes, volatile_cache) in [(512, false), (1024, true), (4096, true), (4096, false)] {
        let bytes_in_all = 4 << 20;
        let geometry = Geometry {
            block_bytes,
            blocks: bytes_in_all / u64::from(block_bytes),
            volatile_cache,
            kind: KIND,
            ..Geometry::of_bytes(bytes_in_all)
        };
        let disk: &'static VirtualDisk = Box::leak(Box::new(VirtualDisk::new(geometry)));
        let import: &'static str = Box::leak(format!("disk-{block_bytes}-{volatile_cache}").into_boxed_str());
        host_platform::provide_mortal::<dyn BlockDevice>(import, disk);
        let engine = open(partition(import)).unwrap();
        let (mut model, mut random) = (BTreeMap::new(), fastrand::Rng::with_seed(1));
        for number in 0..8000_u64 {
            // Some are never written again, so that cleaning has to move them.
            let key = match number % 16 {
                0 => 1000 + number,
                _ => random.u64(..700),
            };
            let (key, value) = (key.to_le_bytes(), bytes(number, random.usize(..1200)));
            put(&engine, &key, &value);
            model.insert(key.to_vec(), value);
            if number % 40 == 0 {
                engine.commit(u64::MAX).unwrap();
            }
        }
        engine.commit(u64::MAX).unwrap();
        assert!(content(&engine) == model);
        assert!(engine.statistics().cleaned_bytes > 0);
        assert_eq!(engine.statistics().flushes > 0, volatile_cache);
        assert_sound(&engine);
        drop(engine);
        assert!(content(&open(partition(import)).unwrap()) == model);
    }
}

/// Disks that do what they shouldn't: nothing is read that wasn't written, and what can't be read is said to be damaged.
#[test]
fn lying_disks_are_found_out() {
    host_platform::attach();
    for seed in 0..20 {
        let disk = virtual_disk(1);
        let faults = Faults {
            torn: OneIn(300),
            lost: OneIn(300),
            misdirected: OneIn(300),
            corrupted_write: OneIn(300),
            corrupted_read: OneIn(300),
            failed_write: OneIn(100),
            failed_read: OneIn(100),
            ..Faults::adverse()
        };
        let import: &'static str = Box::leak(format!("lying-disk-{seed}").into_boxed_str());
        host_platform::provide_mortal::<dyn BlockDevice>(import, disk);
        let engine = open(partition(import)).unwrap();
        disk.set_faults(faults, seed);
        let mut written: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for number in 0..3000_u64 {
            let key = number % 500;
            put(&engine, &key.to_le_bytes(), &bytes(number, 600));
            written.entry(key).or_default().push(number);
            if number % 20 == 0 {
                // A disk that fails four times in a row is possible here.
                let _ = engine.commit(number);
            }
        }
        drop(engine);
        let Ok(engine) = open(partition(import)) else {
            continue;
        };
        for (key, numbers) in &written {
            if let Ok(value) = read(&engine, &key.to_le_bytes()) {
                assert!(numbers.iter().any(|&number| bytes(number, 600) == value));
            }
        }
    }
}
