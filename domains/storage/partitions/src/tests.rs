//! The domain over a virtual disk, through real proxies: tables, bounds, answers for the right user.

use crate::config::Config;
use crate::disks::Disks;
use crate::router::{Router, extents};
use interface::block::{BlockDevice, BlockError, WaitResult};
use interface::partition::{DiskError, NewPartition, SCRATCH_PARTITION, STORE_PARTITION, TableState};
use proptest::prelude::*;
use rref::block::{Fault, Operation, Progress};
use rref::{Block, BlockBatch, OwnerId, RRef, Text};
use std::collections::HashMap;
use virtual_disk::{Faults, Geometry, VirtualDisk};

const MIB: u64 = 1 << 20;
/// The domain itself, as the disk's user.
const OWN: OwnerId = OwnerId::new(40, 1);

fn disk(import: &str, mib: u64) -> &'static VirtualDisk {
    host_platform::attach();
    let disk: &'static VirtualDisk = Box::leak(Box::new(VirtualDisk::new(Geometry::of_bytes(mib * MIB))));
    host_platform::provide::<dyn BlockDevice>(import, disk);
    disk
}

fn disks(import: &'static str, config: Config) -> Disks {
    let disks = Disks::new(Router::new(import), config, OWN);
    disks.look();
    disks
}

fn initialising() -> Config {
    Config {
        initialise_blank_disks: true,
        scratch_mib: 4,
        ram_disk_mib: None,
    }
}

fn partition(name: &str, mib: u64) -> NewPartition {
    NewPartition {
        kind: SCRATCH_PARTITION,
        name: Text::new(name),
        bytes: mib * MIB,
    }
}

fn request(operation: Operation, unit: u16, address: u64, byte: u8) -> RRef<Block> {
    let mut block = Block::allocate().unwrap();
    block.request(operation, address, u32::from(operation != Operation::Flush) * 8);
    block.unit = unit;
    block.data_mut().fill(byte);
    block
}

fn batch(requests: Vec<RRef<Block>>) -> BlockBatch {
    let mut batch = BlockBatch::new().unwrap();
    for request in requests {
        assert!(batch.push(request).is_ok());
    }
    batch
}

fn exchange(disks: &Disks, user: OwnerId, requests: Vec<RRef<Block>>) -> Vec<RRef<Block>> {
    let answers = disks
        .router
        .exchange(0, user, batch(requests), extents(&disks.units, user));
    let mut answers = answers.unwrap();
    core::iter::from_fn(|| answers.pop_front()).collect()
}

/// The same by the call that waits.
fn exchange_until(disks: &Disks, user: OwnerId, requests: Vec<RRef<Block>>) -> Vec<RRef<Block>> {
    let extents = extents(&disks.units, user);
    let answers = disks.router.exchange_until(0, user, batch(requests), extents, 0);
    let mut answers = answers.unwrap();
    core::iter::from_fn(|| answers.pop_front()).collect()
}

#[test]
fn a_blank_disk_gets_a_partition_for_the_store_if_the_operator_wants_that() {
    disk("wanted", 64);
    let untouched = disks("wanted", Config::default());
    let info = untouched.disk_info(0).unwrap().unwrap();
    assert_eq!((info.table, info.partitions), (TableState::Blank, 0));
    assert_eq!(untouched.units.count(), 0);
    assert_eq!(untouched.disk_info(1), Ok(None));

    let made = disks("wanted", initialising());
    assert_eq!(made.disk_info(0).unwrap().unwrap().table, TableState::Whole);
    let scratch = made.unit(0).unwrap();
    let store = made.unit(1).unwrap();
    assert_eq!((scratch.kind, scratch.blocks), (SCRATCH_PARTITION, 4 * 2048));
    assert_eq!((store.kind, store.blocks), (STORE_PARTITION, 58 * 2048));
    assert_eq!((store.name.as_str(), store.volatile_cache), ("store", true));
    assert!(matches!(
        made.unit(2),
        Err(BlockError::NoUnit { unit: 2, units: 2 })
    ));

    // The next incarnation finds it.
    let found = disks("wanted", initialising());
    let of = |disks: &Disks| {
        disks
            .partition_info(0, 1)
            .unwrap()
            .map(|info| (info.guid, info.first))
    };
    assert_eq!(of(&found), of(&made));
    assert_eq!(found.disk_info(0).unwrap().unwrap().table, TableState::Whole);
}

#[test]
fn a_disk_that_is_not_blank_is_never_touched() {
    let disk = disk("foreign", 64);
    let blocks = 64 * 2048;
    for block in [0, 2, 2047, blocks - 1] {
        disk.abandon().unwrap();
        let device = Router::new("foreign");
        let answers = device
            .exchange(
                0,
                OWN,
                batch(vec![request(Operation::WriteZeroes, 0, 0, 0)]),
                |_| {
                    Some(crate::units::Extent {
                        disk: 0,
                        first: 0,
                        blocks,
                    })
                },
            )
            .unwrap();
        assert_eq!(answers.get(0).unwrap().progress(), Progress::Done);
        let mut foreign = request(Operation::Write, 0, block, 9);
        foreign.count = 1;
        disk.exchange(0, batch(vec![foreign])).unwrap();
        let before = disk.image();
        let disks = disks("foreign", initialising());
        assert_eq!(disks.disk_info(0).unwrap().unwrap().table, TableState::Foreign);
        assert_eq!(
            disks.create_table(0),
            Err(DiskError::NotBlank(TableState::Foreign))
        );
        assert!(disk.image() == before, "block {block}");
        let mut wipe = request(Operation::WriteZeroes, 0, block, 0);
        wipe.count = 1;
        disk.exchange(0, batch(vec![wipe])).unwrap();
    }
}

#[test]
fn an_operator_makes_and_deletes_partitions() {
    disk("operator", 64);
    let disks = disks("operator", Config::default());
    assert_eq!(
        disks.create_partition(0, &partition("early", 1)),
        Err(DiskError::NoTable(TableState::Blank))
    );
    assert_eq!(disks.create_table(7), Err(DiskError::NoDisk(7)));
    disks.create_table(0).unwrap();
    assert_eq!(disks.create_table(0), Err(DiskError::NotBlank(TableState::Whole)));
    let changes = disks.changes();
    let first = disks.create_partition(0, &partition("first", 10)).unwrap();
    let second = disks.create_partition(0, &partition("second", 0)).unwrap();
    assert_eq!(
        (first.number, first.unit, second.number, second.unit),
        (1, 0, 2, 1)
    );
    assert!(disks.changes() > changes);
    assert_eq!(
        disks.create_partition(0, &partition("third", 1)),
        Err(DiskError::NoSpace(0))
    );
    let nothing = NewPartition {
        kind: [0; 16],
        ..partition("nothing", 1)
    };
    assert_eq!(disks.create_partition(0, &nothing), Err(DiskError::Malformed));

    // The host domain lives, and has used the first one.
    let user = host_platform::host_domain();
    exchange(&disks, user, vec![request(Operation::Read, first.unit, 0, 0)]);
    assert_eq!(disks.delete_partition(0, 1), Err(DiskError::InUse));
    disks.delete_partition(0, 2).unwrap();
    assert_eq!(disks.delete_partition(0, 2), Err(DiskError::NoPartition(2)));
    assert_eq!(
        disks.unit(second.unit).unwrap().blocks,
        0,
        "the number stays empty"
    );
    let answers = exchange(&disks, user, vec![request(Operation::Write, second.unit, 0, 1)]);
    assert_eq!(answers[0].fault(), Some(Fault::OutOfRange));
    let third = disks.create_partition(0, &partition("third", 5)).unwrap();
    assert_eq!((third.number, third.unit), (2, 2));
    // It is on the disk, and after a look everything is where it was.
    let again = self::disks("operator", Config::default());
    assert_eq!(
        again.partition_info(0, 1).unwrap().map(|info| info.guid),
        Some(third.guid)
    );
}

/// Reads that fail when the disk is first seen: the table is looked at again until it is there, and nothing is made in its place.
#[test]
fn a_table_that_cannot_be_read_at_first_is_found_later() {
    let disk = disk("hidden", 64);
    let made = disks("hidden", initialising());
    let guid = |disks: &Disks| disks.partition_info(0, 1).unwrap().map(|info| info.guid);
    let (image, expected) = (disk.image(), guid(&made));
    assert!(expected.is_some());
    let failing = Faults {
        failed_read: virtual_disk::OneIn::ALWAYS,
        ..Faults::default()
    };
    disk.set_faults(failing, 1);
    let found = disks("hidden", initialising());
    let table = |disks: &Disks| disks.disk_info(0).unwrap().unwrap().table;
    assert_eq!((table(&found), found.units.count()), (TableState::Unreadable, 0));
    disk.set_faults(Faults::default(), 1);
    look_until(&found, |disks| table(disks) == TableState::Whole, 1000);
    assert_eq!(
        (guid(&found), found.unit(1).unwrap().kind),
        (expected, STORE_PARTITION)
    );
    assert!(disk.image() == image);
    assert_eq!(found.look(), domain_rt::clock::NEVER);
}

/// A disk whose table can't be read any more keeps its partitions.
#[test]
fn partitions_stay_when_their_table_cannot_be_read_again() {
    let disk = disk("dim", 64);
    let disks = disks("dim", initialising());
    let before = disks.partition_info(0, 1).unwrap();
    let failing = Faults {
        failed_read: virtual_disk::OneIn::ALWAYS,
        ..Faults::default()
    };
    disk.set_faults(failing, 1);
    disk.change();
    let changes = disks.changes();
    look_until(&disks, |disks| disks.changes() != changes, 10);
    assert_eq!(disks.partition_info(0, 1).unwrap(), before);
    disk.set_faults(Faults::default(), 1);
    look_until(&disks, |disks| disks.look() == domain_rt::clock::NEVER, 1000);
    assert_eq!(disks.partition_info(0, 1).unwrap(), before);
}

/// Reads that fail now and then don't hide a disk.
#[test]
fn passing_failures_are_not_noticed() {
    for seed in 0..20 {
        let import: &'static str = Box::leak(format!("flickers-{seed}").into_boxed_str());
        let disk = disk(import, 64);
        disks(import, initialising());
        let failing = Faults {
            failed_read: virtual_disk::OneIn(20),
            ..Faults::default()
        };
        disk.set_faults(failing, seed);
        let found = disks(import, initialising());
        look_until(&found, |disks| disks.look() == domain_rt::clock::NEVER, 1000);
        assert_eq!(found.disk_info(0).unwrap().unwrap().table, TableState::Whole);
        assert_eq!(found.unit(1).unwrap().kind, STORE_PARTITION);
    }
}

/// Looks at the disks, when they say that they want it, until something is so; at most so many times.
fn look_until(disks: &Disks, is_so: impl Fn(&Disks) -> bool, most: u32) {
    for _ in 0..most {
        if is_so(disks) {
            return;
        }
        domain_rt::thread::sleep_ms(10);
        disks.look();
    }
}

#[test]
fn requests_stay_within_their_partition_and_come_back_as_they_were_asked() {
    let disk = disk("bounds", 64);
    let disks = disks("bounds", initialising());
    let user = OwnerId::new(5, 1);
    let blocks = disks.unit(0).unwrap().blocks;
    for (unit, address, fault) in [
        (0, 0, None),
        (0, blocks - 8, None),
        (0, blocks - 7, Some(Fault::OutOfRange)),
        (0, u64::MAX - 3, Some(Fault::OutOfRange)),
        (9, 0, Some(Fault::OutOfRange)),
        (u16::MAX, 0, Some(Fault::OutOfRange)),
    ] {
        let before = disk.image();
        let answers = exchange(&disks, user, vec![request(Operation::Write, unit, address, 7)]);
        assert_eq!(answers[0].fault(), fault, "unit {unit}, block {address}");
        assert_eq!((answers[0].unit, answers[0].address), (unit, address));
        assert_eq!(disk.image() == before, fault.is_some());
    }
    let first = disks.partition_info(0, 0).unwrap().unwrap().first;
    assert!(disk.image().block(first).is_some_and(|bytes| bytes[0] == 7));
    let flush = exchange(&disks, user, vec![request(Operation::Flush, 1, 0, 0)]);
    assert_eq!((flush[0].progress(), flush[0].unit), (Progress::Done, 1));
}

#[test]
fn the_next_incarnation_of_a_user_begins_when_nothing_of_the_last_is_under_way() {
    let disk = disk("heritage", 64);
    let disks = disks("heritage", initialising());
    let slow = Faults {
        slow: virtual_disk::OneIn::ALWAYS,
        slow_turns: 30,
        ..Faults::default()
    };
    disk.set_faults(slow, 3);
    let (old, new) = (OwnerId::new(5, 1), OwnerId::new(5, 2));
    for place in 0..20 {
        exchange(&disks, old, vec![request(Operation::Write, 1, place * 8, 1)]);
    }
    assert_ne!(disks.router.under_way(), 0);
    disk.set_faults(Faults::default(), 3);
    let answers = exchange(&disks, new, vec![request(Operation::Write, 1, 0, 2)]);
    assert_eq!(disks.router.under_way(), 0);
    assert_eq!((answers.len(), answers[0].progress()), (1, Progress::Done));
    let first = disks.partition_info(0, 1).unwrap().unwrap().first;
    assert!(disk.image().block(first).is_some_and(|bytes| bytes[0] == 2));
    disks.router.abandon(new).unwrap();
}

#[test]
fn a_device_that_fails_tells_every_user_of_the_queue() {
    let disk = disk("fails", 64);
    let disks = disks("fails", initialising());
    let (one, other) = (OwnerId::new(5, 1), OwnerId::new(6, 1));
    exchange(&disks, one, vec![request(Operation::Read, 1, 0, 0)]);
    exchange(&disks, other, vec![request(Operation::Read, 1, 0, 0)]);
    disk.remove();
    for user in [one, other, one] {
        let answer = disks
            .router
            .exchange(0, user, batch(Vec::new()), extents(&disks.units, user));
        assert_eq!(answer.err(), Some(BlockError::NoDevice));
    }
}

#[test]
fn who_loses_requests_with_the_device_hears_of_it_and_others_go_on() {
    host_platform::attach();
    let medium =
        || -> &'static VirtualDisk { Box::leak(Box::new(VirtualDisk::new(Geometry::of_bytes(64 * MIB)))) };
    let first = medium();
    host_platform::provide_mortal::<dyn BlockDevice>("dies", first);
    let disks = disks("dies", initialising());
    let slow = Faults {
        slow: virtual_disk::OneIn::ALWAYS,
        slow_turns: 30,
        ..Faults::default()
    };
    let (one, other, third) = (OwnerId::new(5, 1), OwnerId::new(6, 1), OwnerId::new(7, 1));
    exchange(&disks, other, Vec::new());
    first.set_faults(slow, 1);
    for user in [one, third] {
        while exchange(&disks, user, vec![request(Operation::Write, 1, 0, 1)]).len() == 1 {}
    }
    host_platform::kill("dies");
    let ask = |user, requests| {
        let extents = extents(&disks.units, user);
        disks
            .router
            .exchange(0, user, batch(requests), extents)
            .map(|answers| answers.len())
    };
    assert_eq!(
        ask(third, vec![request(Operation::Write, 1, 8, 1)]),
        Err(BlockError::Lost)
    );
    host_platform::provide_mortal::<dyn BlockDevice>("dies", medium());
    assert_eq!(disks.router.wait(0, one, 0), Ok(WaitResult::Ready));
    assert_eq!(ask(one, Vec::new()), Err(BlockError::Lost));
    for user in [one, other, third] {
        assert_eq!(ask(user, vec![request(Operation::Write, 1, 0, 2)]), Ok(1));
    }
    // Nothing is under way: the death isn't noticed but by a look whether it lives.
    host_platform::kill("dies");
    host_platform::provide_mortal::<dyn BlockDevice>("dies", medium());
    assert_eq!(ask(other, vec![request(Operation::Write, 1, 0, 3)]), Ok(1));
}

#[test]
fn without_a_device_there_are_no_disks() {
    host_platform::attach();
    let disks = disks("nothing", initialising());
    assert_eq!(disks.disk_info(0), Ok(None));
    assert_eq!(disks.device(), Err(BlockError::NoDevice));
    assert!(disks.unit(0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Three users of one queue, a device that answers in any order and late, and has little room: each gets its own answers, each once.
    #[test]
    fn everybody_gets_its_own_answers(seed: u64, steps in proptest::collection::vec((0u16..3, 0u64..20), 1..60)) {
        let disk = disk("users", 64);
        let disks = disks("users", initialising());
        disk.set_faults(Faults::adverse(), seed);
        let mut under_way: HashMap<u64, u16> = HashMap::new();
        let mut back: [Vec<RRef<Block>>; 3] = Default::default();
        let mut cookie = 0;
        let end = (0..300).map(|number| (number % 3, 0));
        for (number, (slot, count)) in steps.into_iter().chain(end).enumerate() {
            let user = OwnerId::new(10 + slot, 1);
            let mut requests = core::mem::take(&mut back[usize::from(slot)]);
            for place in 0..count {
                if requests.len() < 32 {
                    cookie += 1;
                    let mut block = request(Operation::Write, slot % 2, place * 8, slot as u8);
                    block.cookie = cookie;
                    under_way.insert(cookie, slot);
                    requests.push(block);
                }
            }
            let answers = match number % 2 {
                0 => exchange(&disks, user, requests),
                _ => exchange_until(&disks, user, requests),
            };
            for answer in answers {
                if answer.progress() == Progress::Submitted {
                    back[usize::from(slot)].push(answer);
                } else {
                    prop_assert_eq!(answer.progress(), Progress::Done);
                    prop_assert_eq!(answer.unit, slot % 2);
                    prop_assert_eq!(under_way.remove(&answer.cookie), Some(slot));
                }
            }
            prop_assert_ne!(disks.router.wait(0, user, 0), Ok(WaitResult::Cancelled));
        }
        prop_assert!(under_way.is_empty(), "{:?}", under_way);
    }
}
