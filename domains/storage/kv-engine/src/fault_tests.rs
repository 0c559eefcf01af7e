//! Disks that fail: what was committed stays, what can be read is read, and a commit says when it isn't one.

use crate::device::Partition;
use crate::simulated_disk::SimulatedDisk;
use crate::tests::{append, assert_sound, bytes, content, open, put, read};
use interface::block::BlockDevice;
use interface::key_value::{Entry, StoreError};
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
