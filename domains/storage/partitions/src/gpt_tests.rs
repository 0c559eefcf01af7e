//! Tests of `gpt.rs`: what is written is read, by whichever copy is whole, and nothing in a table leads astray.

use super::*;
use interface::partition::{SCRATCH_PARTITION, STORE_PARTITION};
use proptest::prelude::*;

#[derive(Clone)]
struct Memory {
    block_bytes: usize,
    bytes: Vec<u8>,
    /// Writes that are still carried out.
    writes_left: usize,
    /// Blocks that can't be read.
    unreadable: Vec<u64>,
}

/// What is found where all can be read.
fn read(state: TableState, table: Option<Table>) -> Result<Loaded, MediumError> {
    Ok(Loaded {
        state,
        table,
        is_all_read: true,
    })
}

impl Memory {
    fn new(block_bytes: usize, bytes: usize) -> Memory {
        Memory {
            block_bytes,
            bytes: vec![0; bytes],
            writes_left: usize::MAX,
            unreadable: Vec::new(),
        }
    }
}

impl Medium for Memory {
    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn blocks(&self) -> u64 {
        (self.bytes.len() / self.block_bytes) as u64
    }

    fn read(&mut self, first: u64, data: &mut [u8]) -> Result<(), MediumError> {
        let blocks = first..first + (data.len() / self.block_bytes) as u64;
        if self.unreadable.iter().any(|block| blocks.contains(block)) {
            return Err(MediumError);
        }
        let start = first as usize * self.block_bytes;
        data.copy_from_slice(self.bytes.get(start..start + data.len()).ok_or(MediumError)?);
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), MediumError> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(MediumError)?;
        let start = first as usize * self.block_bytes;
        self.bytes
            .get_mut(start..start + data.len())
            .ok_or(MediumError)?
            .copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        Ok(())
    }
}

const MIB: usize = 1 << 20;

fn disk(block_bytes: usize) -> (Memory, Table) {
    let mut medium = Memory::new(block_bytes, 16 * MIB);
    let mut table = Table::new(block_bytes, medium.blocks(), [7; 16]).unwrap();
    assert_eq!(
        table.add(SCRATCH_PARTITION, [1; 16], "scratch", 3 * MIB as u64),
        Ok(1)
    );
    assert_eq!(table.add(STORE_PARTITION, [2; 16], "störe", 0), Ok(2));
    table.store_protection(&mut medium).unwrap();
    table.store(&mut medium).unwrap();
    (medium, table)
}

#[test]
fn a_table_is_read_as_it_was_written() {
    for block_bytes in [512, 1024, 4096] {
        let (mut medium, table) = disk(block_bytes);
        assert_eq!(
            Table::load(&mut medium, true),
            read(TableState::Whole, Some(table.clone()))
        );
        let partitions = table.partitions();
        let in_mib = |blocks: u64| blocks * block_bytes as u64 / MIB as u64;
        assert_eq!(partitions[0].kind, SCRATCH_PARTITION);
        assert_eq!(
            (in_mib(partitions[0].first), in_mib(partitions[0].blocks)),
            (1, 3)
        );
        assert_eq!(
            (in_mib(partitions[1].first), in_mib(partitions[1].blocks)),
            (4, 11)
        );
        assert_eq!(partitions[1].name, "störe");
        assert_eq!(partitions[1].guid, [2; 16]);
        assert_eq!(table.longest_free().1, 0);
    }
}

/// Fields at the places that the specification gives them (tables 5-5 and 5-6), with the checksums that other implementations compute.
#[test]
fn the_layout_is_that_of_the_specification() {
    let (medium, _) = disk(512);
    let header = &medium.bytes[512..512 + 92];
    assert_eq!(&header[..8], b"EFI PART");
    assert_eq!(header[8..16], [0, 0, 1, 0, 92, 0, 0, 0]);
    assert_eq!(header[24..32], 1u64.to_le_bytes());
    assert_eq!(header[32..40], (16 * MIB as u64 / 512 - 1).to_le_bytes());
    assert_eq!(header[40..48], 34u64.to_le_bytes());
    assert_eq!(header[72..80], 2u64.to_le_bytes());
    assert_eq!(header[80..88], [128, 0, 0, 0, 128, 0, 0, 0]);
    let entry = &medium.bytes[1024..1024 + 128];
    assert_eq!(entry[..16], SCRATCH_PARTITION);
    assert_eq!(entry[32..40], 2048u64.to_le_bytes());
    assert_eq!(entry[40..48], (2048 + 3 * 2048 - 1u64).to_le_bytes());
    assert_eq!(entry[56..60], *b"s\0c\0");
    assert_eq!(medium.bytes[510..512], [0x55, 0xaa]);
    assert_eq!(medium.bytes[446 + 4], 0xee);
    assert_eq!(CHECKSUM.checksum(b"123456789"), 0xcbf4_3926);
}

#[test]
fn a_damaged_copy_is_written_again_from_the_other() {
    let (whole, table) = disk(512);
    let end = whole.bytes.len();
    for damaged in [512 + 20, 1024 + 40, end - 512 + 60, end - 512 * 33 + 3] {
        let mut medium = whole.clone();
        medium.bytes[damaged] ^= 0x40;
        let untouched = medium.clone();
        assert_eq!(
            Table::load(&mut medium, false),
            read(TableState::Degraded, Some(table.clone())),
            "byte {damaged}"
        );
        assert!(medium.bytes == untouched.bytes, "nothing is written unasked");
        assert_eq!(
            Table::load(&mut medium, true).unwrap().state,
            TableState::Repaired
        );
        assert!(medium.bytes == whole.bytes);
    }
}

/// Where one copy can't be read the other counts, and nothing is written: what is there may be right.
#[test]
fn an_unreadable_copy_is_left_alone() {
    let (whole, table) = disk(512);
    let end = whole.blocks() - 1;
    for unreadable in [1, 2, 33, end, end - 1, end - 32] {
        let mut medium = whole.clone();
        medium.unreadable.push(unreadable);
        let found = Loaded {
            state: TableState::Degraded,
            table: Some(table.clone()),
            is_all_read: false,
        };
        assert_eq!(Table::load(&mut medium, true), Ok(found), "block {unreadable}");
        assert!(medium.bytes == whole.bytes);
        // When it can be read again all is well.
        medium.unreadable.clear();
        assert_eq!(
            Table::load(&mut medium, true),
            read(TableState::Whole, Some(table.clone()))
        );
        // Without the other copy nobody knows what this disk is: not blank in any case.
        let other = if unreadable < 100 { end } else { 1 };
        medium.unreadable = vec![unreadable];
        medium.bytes[other as usize * 512..][..512].fill(0);
        assert_eq!(Table::load(&mut medium, true), Err(MediumError));
    }
}

#[test]
fn a_change_that_is_cut_off_was_made_or_was_not() {
    let (before, table) = disk(512);
    let mut changed = table.clone();
    assert!(changed.remove(1));
    assert!(!changed.remove(1));
    for writes in 0..=4 {
        let mut medium = before.clone();
        medium.writes_left = writes;
        assert_eq!(changed.store(&mut medium).is_ok(), writes == 4);
        medium.writes_left = usize::MAX;
        let found = Table::load(&mut medium, true).unwrap().table.unwrap();
        assert!(found == table || found == changed, "after {writes} writes");
        assert_eq!(Table::load(&mut medium, true).unwrap().state, TableState::Whole);
    }
}

#[test]
fn blank_is_told_from_foreign() {
    let mut medium = Memory::new(512, 16 * MIB);
    assert_eq!(Table::load(&mut medium, true), read(TableState::Blank, None));
    for byte in [0, 1080, MIB - 1, 15 * MIB, 16 * MIB - 1] {
        let mut medium = medium.clone();
        medium.bytes[byte] = 1;
        let before = medium.clone();
        assert_eq!(
            Table::load(&mut medium, true),
            read(TableState::Foreign, None),
            "byte {byte}"
        );
        assert!(medium.bytes == before.bytes);
    }
    assert_eq!(
        Table::load(&mut Memory::new(4096, 8192), true),
        read(TableState::Foreign, None)
    );
    assert_eq!(Table::new(4096, 8, [0; 16]), None);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut table = Table::new(512, 64 * MIB as u64 / 512, [0; 16]).unwrap();
    assert_eq!(
        table.add(STORE_PARTITION, [1; 16], "large", 1 << 40),
        Err(AddError::NoSpace(62 * MIB as u64))
    );
    assert_eq!(
        table.add(STORE_PARTITION, [1; 16], "most", u64::MAX),
        Err(AddError::NoSpace(62 * MIB as u64))
    );
    assert_eq!(
        table.add(STORE_PARTITION, [1; 16], &"n".repeat(40), 1),
        Err(AddError::Name)
    );
    for number in 1..=62 {
        assert_eq!(table.add(STORE_PARTITION, [1; 16], "", 1), Ok(number));
    }
    assert_eq!(
        table.add(STORE_PARTITION, [1; 16], "", 1),
        Err(AddError::NoSpace(0))
    );
    assert!(table.remove(3) && table.remove(5) && table.remove(6));
    assert_eq!(table.longest_free(), (5 * 2048, 2 * 2048));
}

proptest! {
    /// Whatever is on the disk: no panic, and every partition that is told of lies on the disk, and on no other.
    #[test]
    fn no_table_leads_astray(
        fields in proptest::collection::vec((0usize..600, any::<u64>(), 0u8..8), 0..12), fix: bool, small: bool
    ) {
        let (mut medium, table) = disk(512);
        for (at, value, shift) in fields {
            let value = value >> (8 * u32::from(shift));
            let at = 512 + at;
            medium.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if fix {
            // As a wrong tool would write it: the checksums are right.
            let array = CHECKSUM.checksum(&medium.bytes[1024..1024 + 128 * 128]).to_le_bytes();
            medium.bytes[512 + 88..512 + 92].copy_from_slice(&array);
            medium.bytes[512 + 16..512 + 20].fill(0);
            let header = CHECKSUM.checksum(&medium.bytes[512..512 + 92]).to_le_bytes();
            medium.bytes[512 + 16..512 + 20].copy_from_slice(&header);
        }
        if small {
            medium.bytes.truncate(MIB);
        }
        let blocks = medium.blocks();
        let Loaded { state, table: found, .. } = Table::load(&mut medium, true).unwrap();
        if let Some(found) = found {
            let partitions = found.partitions();
            for (index, partition) in partitions.iter().enumerate() {
                prop_assert!(partition.first >= 2 && partition.first + partition.blocks < blocks);
                let is_apart = |other: &Partition| {
                    other.first + other.blocks <= partition.first || partition.first + partition.blocks <= other.first
                };
                prop_assert!(partitions[..index].iter().all(is_apart));
            }
            let (first, free) = found.longest_free();
            prop_assert!(first + free <= blocks);
            prop_assert!(fix || small || found == table);
        } else {
            prop_assert_ne!(state, TableState::Blank);
        }
    }
}
