//! `disk`, over disks that are played.

use crate::tests::fixture;
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use interface::partition::{
    DiskError, DiskInfo, Disks, NewPartition, PartitionInfo, SCRATCH_PARTITION, STORE_PARTITION, TableState,
};
use rref::block::Operation;
use rref::{BlockBatch, Text};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// One disk with two partitions.
pub struct Partitions;

fn partition(number: u16, kind: [u8; 16], name: &str) -> PartitionInfo {
    PartitionInfo {
        disk: 0,
        number,
        unit: number - 1,
        kind,
        guid: [number as u8; 16],
        first: 2048 * u64::from(number),
        blocks: 2048 * 64,
        in_use: number == 2,
        name: Text::new(name),
    }
}

impl Disks for Partitions {
    fn disk(&self, index: u16) -> Result<Option<DiskInfo>, DiskError> {
        let disk = |table, free_blocks| DiskInfo {
            model: Text::new("Played"),
            name: Text::new("S1-1"),
            block_bytes: 512,
            blocks: 1 << 22,
            read_only: false,
            table,
            guid: [1; 16],
            partitions: 2,
            free_blocks,
        };
        Ok(match index {
            0 => Some(disk(TableState::Whole, 4096)),
            1 => Some(disk(TableState::Blank, 0)),
            _ => None,
        })
    }

    fn partition(&self, disk: u16, index: u16) -> Result<Option<PartitionInfo>, DiskError> {
        Ok(match (disk, index) {
            (0, 0) => Some(partition(1, SCRATCH_PARTITION, "scratch")),
            (0, 1) => Some(partition(2, STORE_PARTITION, "store")),
            _ => None,
        })
    }

    fn create_table(&self, disk: u16) -> Result<(), DiskError> {
        match disk {
            1 => Ok(()),
            0 => Err(DiskError::NotBlank(TableState::Whole)),
            _ => Err(DiskError::NoDisk(disk)),
        }
    }

    fn create_partition(&self, _: u16, new: NewPartition) -> Result<PartitionInfo, DiskError> {
        match new.bytes {
            0 => Ok(partition(3, new.kind, new.name.as_str())),
            _ => Err(DiskError::NoSpace(2 << 20)),
        }
    }

    fn delete_partition(&self, _: u16, number: u16) -> Result<(), DiskError> {
        match number {
            1 => Ok(()),
            2 => Err(DiskError::InUse),
            _ => Err(DiskError::NoPartition(number)),
        }
    }
}

/// What was written to it, by block.
static MEDIUM: Mutex<BTreeMap<usize, Box<[u8; 4096]>>> = Mutex::new(BTreeMap::new());

/// Its units: requests are done at once, but for writes to the store, which must not be.
pub struct Device;

impl BlockDevice for Device {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        Ok(BlockDeviceInfo {
            units: 2,
            queues: 4,
            queue_depth: 64,
            changes: 0,
            model: Text::EMPTY,
        })
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        Ok(UnitInfo {
            block_bytes: 512,
            blocks: 2048,
            volatile_cache: true,
            forced_writes: true,
            read_only: false,
            deallocate: true,
            atomic_blocks: 1,
            transfer_blocks: 256,
            kind: [SCRATCH_PARTITION, STORE_PARTITION][usize::from(unit % 2)],
            name: Text::EMPTY,
        })
    }

    fn exchange(&self, _: u16, mut requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        for request in requests.iter_mut() {
            assert_eq!(request.unit, 0, "only the partition for measurements");
            assert!(request.address + 8 <= 2048 && request.address.is_multiple_of(8));
            let place = request.address as usize;
            let mut medium = MEDIUM.lock().unwrap();
            match request.operation() {
                Some(Operation::Read) => {
                    if let Some(page) = medium.get(&place) {
                        *request.data_mut() = **page;
                    }
                }
                Some(Operation::Write) => drop(medium.insert(place, Box::new(*request.data()))),
                _ => {}
            }
            request.complete();
        }
        Ok(requests)
    }

    fn exchange_until(&self, queue: u16, requests: BlockBatch, _: u64) -> Result<BlockBatch, BlockError> {
        self.exchange(queue, requests)
    }

    fn wait(&self, _: u16, _: u64) -> Result<WaitResult, BlockError> {
        Ok(WaitResult::TimedOut)
    }

    fn abandon(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        Ok(BlockStatistics::default())
    }
}

#[test]
fn disks_and_partitions_are_shown() {
    let mut fixture = fixture();
    let text = fixture.session.answer("disk");
    assert!(
        text.contains("disk 0: Played S1-1, 2.0 GiB in blocks of 512 bytes, GPT"),
        "{text}"
    );
    assert!(text.contains("store") && text.contains("yes"), "{text}");
    assert!(
        text.ends_with("`disk table 1` writes an empty partition table to it."),
        "{text}"
    );
    let json = fixture.json("disk --json");
    assert_eq!(json[0]["partitions"][1]["type"], "store");
    assert_eq!(
        json[0]["partitions"][1]["type_guid"],
        "1f6b083e-fd61-4752-afa6-5240914ac220"
    );
    assert_eq!(json[0]["partitions"][0]["bytes"], 64 << 20);
    assert_eq!(json[1]["table"], "blank");
}

#[test]
fn changes_are_made_or_refused_in_a_sentence() {
    let mut fixture = fixture();
    let mut says = |line: &str, expected: &str| {
        let answer = fixture.session.answer(line);
        assert!(
            answer.contains(expected) && answer.ends_with('.'),
            "{line}: {answer}"
        );
    };
    says("disk table 1", "Disk 1 has an empty partition table");
    says("disk table 0", "The disk is not blank (GPT)");
    says("disk table 9", "There is no disk 9");
    says(
        "disk create 0 store",
        "Partition 3 of disk 0, `store`, has 64.0 MiB",
    );
    says("disk create 0 scratch 64", "the longest free stretch has 2 MiB");
    says("disk delete 0 1", "is deleted");
    says("disk delete 0 2", "The partition is in use");
    says("disk delete 0 7", "There is no partition 7");
}

#[test]
fn a_measurement_stays_where_it_may_write_and_counts_what_it_did() {
    let mut fixture = fixture();
    for line in [
        "disk bench write depth 3 block 8192 seconds 1 --json",
        "disk bench read depth 1 seconds 1 sequential --json",
    ] {
        let json = fixture.json(line);
        assert!(
            json["operations"].as_u64().is_some_and(|count| count > 0),
            "{json}"
        );
        assert_eq!(json["errors"], 0);
        assert!(json["p99_9_ns"].as_u64() <= json["longest_ns"].as_u64());
    }
}

#[test]
fn what_was_written_is_compared_with_what_is_read() {
    let mut fixture = fixture();
    let json = fixture.json("disk verify depth 7 seconds 1 --json");
    assert!(json["writes"].as_u64().is_some_and(|count| count > 256), "{json}");
    assert!(json["flushes"].as_u64().is_some_and(|count| count > 0), "{json}");
    assert_eq!(
        (&json["places"], &json["stale"], &json["wrong"]),
        (&256.into(), &0.into(), &0.into())
    );
}
