//! Tests of the disk: what is answered, what reads give, and what a power cut leaves.

use super::*;
use crate::faults::OneIn;
use proptest::prelude::*;
use std::collections::HashMap;

const BLOCKS: u64 = 256;

fn disk(volatile_cache: bool) -> VirtualDisk {
    host_platform::attach();
    VirtualDisk::new(Geometry {
        volatile_cache,
        ..Geometry::of_bytes(BLOCKS * 512)
    })
}

fn request(operation: Operation, address: u64, count: u32, byte: u8) -> RRef<Block> {
    let mut block = Block::allocate().unwrap();
    block.request(operation, address, count);
    block.data_mut().fill(byte);
    block.cookie = address;
    block
}

fn batch(requests: Vec<RRef<Block>>) -> BlockBatch {
    let mut batch = BlockBatch::new().unwrap();
    for request in requests {
        assert!(batch.push(request).is_ok());
    }
    batch
}

/// Hands requests over until all are answered.
fn run(disk: &VirtualDisk, requests: Vec<RRef<Block>>) -> Vec<RRef<Block>> {
    let count = requests.len();
    let mut waiting = requests;
    let mut answered = Vec::new();
    while answered.len() < count {
        let mut answers = disk.exchange(0, batch(core::mem::take(&mut waiting))).unwrap();
        while let Some(answer) = answers.pop_front() {
            match answer.progress() {
                Progress::Submitted => waiting.push(answer),
                _ => answered.push(answer),
            }
        }
        disk.wait(0, u64::MAX).unwrap();
    }
    answered
}

fn write(disk: &VirtualDisk, address: u64, count: u32, byte: u8) {
    let answers = run(disk, vec![request(Operation::Write, address, count, byte)]);
    assert_eq!(answers[0].progress(), Progress::Done);
}

fn first_byte(image: &Image, block: u64) -> u8 {
    image.block(block).map_or(0, |bytes| bytes[0])
}

#[test]
fn what_was_written_is_read() {
    let disk = disk(true);
    write(&disk, 3, 8, 7);
    let answers = run(&disk, vec![request(Operation::Read, 4, 2, 0)]);
    assert!(answers[0].data()[..1024].iter().all(|byte| *byte == 7));
    assert!(answers[0].data()[1024..].iter().all(|byte| *byte == 0));
    run(&disk, vec![request(Operation::WriteZeroes, 4, 100, 0)]);
    assert_eq!(disk.image().written(), [3]);
}

#[test]
fn requests_beyond_the_end_fail() {
    let disk = disk(true);
    for (operation, address, count) in [
        (Operation::Read, BLOCKS, 1),
        (Operation::Write, BLOCKS - 1, 2),
        (Operation::Deallocate, u64::MAX, 2),
        (Operation::Write, 0, 0),
        (Operation::Read, 0, 9),
    ] {
        let answers = run(&disk, vec![request(operation, address, count, 0)]);
        assert_eq!(
            answers[0].fault(),
            Some(Fault::OutOfRange),
            "{operation:?} {address} {count}"
        );
    }
}

#[test]
fn a_flush_covers_what_was_answered_before_it_was_handed_over() {
    let disk = disk(true);
    disk.record();
    write(&disk, 0, 1, 1);
    let both = vec![
        request(Operation::Write, 1, 1, 2),
        request(Operation::Flush, 0, 0, 0),
    ];
    run(&disk, both);
    let durable = disk.recording().durable_at(disk.point());
    assert_eq!((first_byte(&durable, 0), first_byte(&durable, 1)), (1, 0));
    run(&disk, vec![request(Operation::Flush, 0, 0, 0)]);
    let durable = disk.recording().durable_at(disk.point());
    assert_eq!((first_byte(&durable, 0), first_byte(&durable, 1)), (1, 2));
}

#[test]
fn a_forced_write_is_durable_and_may_pass_others() {
    let disk = disk(true);
    write(&disk, 0, 1, 1);
    let mut forced = request(Operation::Write, 1, 1, 2);
    forced.set_force_unit_access(true);
    run(&disk, vec![forced]);
    let durable = disk.recording().durable_at(disk.point());
    assert_eq!((first_byte(&durable, 0), first_byte(&durable, 1)), (0, 2));
}

#[test]
fn what_is_durable_needs_no_memory_of_its_own() {
    let disk = disk(true);
    for round in 0..100 {
        write(&disk, round, 1, 1);
        run(&disk, vec![request(Operation::Flush, 0, 0, 0)]);
        assert!(disk.point() <= 1);
    }
    assert_eq!(disk.recording().durable_at(0), disk.image());
}

#[test]
fn cuts_take_and_tear_some_of_what_is_not_durable() {
    let disk = disk(true);
    disk.record();
    write(&disk, 0, 8, 1);
    let counts: Vec<usize> = (0..200)
        .map(|seed| disk.recording().cut_at(1, seed).written().len())
        .collect();
    assert!(counts.contains(&0), "lost");
    assert!(counts.contains(&8), "kept");
    assert!(counts.iter().any(|count| (1..8).contains(count)), "torn");
    let seeds_of_none = (0..200).filter(|seed| !disk.recording().cut_at(0, *seed).written().is_empty());
    assert!(seeds_of_none.count() > 0, "it was under way before it was done");
}

#[test]
fn silent_faults_are_answered_as_done() {
    for faults in [
        Faults {
            lost: OneIn::ALWAYS,
            ..Faults::default()
        },
        Faults {
            misdirected: OneIn::ALWAYS,
            ..Faults::default()
        },
        Faults {
            corrupted_write: OneIn::ALWAYS,
            ..Faults::default()
        },
        Faults {
            torn: OneIn::ALWAYS,
            ..Faults::default()
        },
    ] {
        let disk = disk(true);
        write(&disk, 0, 8, 1);
        let expected = disk.image();
        let disk = self::disk(true);
        disk.set_faults(faults, 1);
        write(&disk, 0, 8, 1);
        assert_ne!(disk.image(), expected, "{faults:?}");
    }
}

#[test]
fn planned_faults_hit_the_request_that_was_meant() {
    let disk = disk(true);
    disk.fail_after(2, Operation::Write, Fault::NoSpace);
    disk.fail_after(0, Operation::Flush, Fault::Internal);
    let faults: Vec<Option<Fault>> = (0..4)
        .map(|address| run(&disk, vec![request(Operation::Write, address, 1, 1)])[0].fault())
        .collect();
    assert_eq!(faults, [None, None, Some(Fault::NoSpace), None]);
    assert_eq!(
        run(&disk, vec![request(Operation::Flush, 0, 0, 0)])[0].fault(),
        Some(Fault::Internal)
    );
    disk.remove();
    assert_eq!(
        disk.exchange(0, batch(Vec::new())).map(|answers| answers.len()),
        Err(BlockError::NoDevice)
    );
}

#[test]
fn nothing_of_what_was_abandoned_happens_later() {
    let disk = disk(true);
    let faults = Faults {
        slow: OneIn::ALWAYS,
        slow_turns: 100,
        ..Faults::default()
    };
    disk.set_faults(faults, 5);
    for address in 0..8 {
        let answers = disk
            .exchange(0, batch(vec![request(Operation::Write, address, 1, 1)]))
            .unwrap();
        assert!(answers.is_empty(), "slow");
    }
    disk.abandon().unwrap();
    let image = disk.image();
    assert!((1..8).contains(&image.written().len()), "some were carried out");
    assert_eq!(disk.wait(0, 0), Ok(WaitResult::TimedOut));
    assert!(disk.exchange(0, batch(Vec::new())).unwrap().is_empty());
    assert_eq!(disk.image(), image);
}

proptest! {
    /// With all that the interface allows, every request is answered once, reads give what was answered as written before, and a cut at any point
    /// leaves each block as one of the writes that were not overwritten durably.
    #[test]
    fn it_is_a_disk(seed: u64, cached: bool, steps in proptest::collection::vec((0u8..6, 0u64..32, 1u32..9), 1..60)) {
        let disk = disk(cached);
        disk.record();
        disk.set_faults(Faults::adverse(), seed);
        // By block: the newest byte, and the point after it.
        let mut newest: HashMap<u64, u8> = HashMap::new();
        let mut durable: Vec<(usize, HashMap<u64, u8>)> = vec![(0, HashMap::new())];
        for (number, chunk) in steps.chunks(12).enumerate() {
            // Requests of a call to the same place would be in no order.
            let mut taken = [false; 40];
            let mut requests = Vec::new();
            for (kind, address, count) in chunk {
                let range = *address as usize..*address as usize + *count as usize;
                if *kind == 5 {
                    requests.push(request(Operation::Flush, 0, 0, 0));
                } else if !taken[range.clone()].iter().any(|taken| *taken) {
                    taken[range].fill(true);
                    let operation = if *kind < 2 { Operation::Read } else { Operation::Write };
                    requests.push(request(operation, *address, *count, number as u8 + 1));
                }
            }
            let before = newest.clone();
            let count = requests.len();
            let answers = run(&disk, requests);
            prop_assert_eq!(answers.len(), count);
            for answer in &answers {
                prop_assert_eq!(answer.progress(), Progress::Done);
                for index in 0..u64::from(answer.count) {
                    let block = answer.address + index;
                    match answer.operation() {
                        Some(Operation::Read) => prop_assert_eq!(
                            answer.data()[index as usize * 512],
                            before.get(&block).copied().unwrap_or(0)
                        ),
                        _ => { newest.insert(block, number as u8 + 1); }
                    }
                }
            }
            if cached {
                run(&disk, vec![request(Operation::Flush, 0, 0, 0)]);
            }
            durable.push((disk.point(), newest.clone()));
        }
        let recording = disk.recording();
        for point in 0..=recording.points() {
            let cut = recording.cut_at(point, seed ^ point as u64);
            let (_, promised) = durable.iter().rev().find(|(at, _)| *at <= point).expect("there is one at 0");
            for block in 0..40 {
                let found = first_byte(&cut, block);
                prop_assert!(found >= promised.get(&block).copied().unwrap_or(0), "block {} at {}", block, point);
            }
        }
        prop_assert_eq!(recording.image_at(recording.points()), disk.image());
        prop_assert_eq!(recording.images().last(), Some(disk.image()));
    }
}
