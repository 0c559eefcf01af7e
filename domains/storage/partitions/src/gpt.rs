//! A disk's partition table: GUID Partition Table (UEFI specification 2.10, section 5.3).
//!
//! The table is there twice, at the start and at the end of the disk, each copy with checksums. One that is damaged is written again from the
//! other; a change is written to the copy at the end first, so that at every moment one of them is whole. Reading and writing
//! blocks is [`Medium`]'s business.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};
use crc::{CRC_32_ISO_HDLC, Crc};
use gpt_disk_types::{
    Crc32, GptHeader, GptHeaderRevision, GptHeaderSignature, GptPartitionEntry, GptPartitionType, Guid,
    LbaLe, MasterBootRecord, U32Le,
};
use interface::partition::TableState;
use thiserror::Error;

/// Partitions begin and end at multiples of this.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;
/// Bytes at each end of a disk that must be zeros for it to be blank: file systems and volume managers have their marks there.
const BLANK_BYTES: u64 = 1 << 20;
/// Entries of a new table: the least that the specification allows.
const ENTRIES: u32 = 128;
/// Bytes of an array of entries at most.
const ARRAY_LIMIT_BYTES: u64 = 1 << 20;
const ENTRY_BYTES: usize = size_of::<GptPartitionEntry>();
const HEADER_BYTES: usize = size_of::<GptHeader>();
/// Offset of a header's own checksum.
const HEADER_CRC_OFFSET: usize = 16;
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The disk failed to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the disk failed")]
pub struct MediumError;

/// A disk's blocks.
pub trait Medium {
    /// Bytes in a block: a power of two from 512 to 4,096.
    fn block_bytes(&self) -> usize;

    /// Blocks.
    fn blocks(&self) -> u64;

    /// Reads whole blocks.
    fn read(&mut self, first: u64, data: &mut [u8]) -> Result<(), MediumError>;

    /// Writes whole blocks.
    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), MediumError>;

    /// Makes what was written durable.
    fn flush(&mut self) -> Result<(), MediumError>;
}

/// Why a partition can't be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddError {
    /// No free stretch is that long; bytes of the longest.
    #[error("no free stretch is that long: the longest has {0} bytes")]
    NoSpace(u64),
    /// All entries are in use.
    #[error("the table is full")]
    Full,
    /// The name doesn't fit.
    #[error("the name is too long")]
    Name,
}

/// What was found where a disk's table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// How the table is.
    pub state: TableState,
    /// The table, if there is one.
    pub table: Option<Table>,
    /// Both copies could be read. If not, what is said here is by the other one.
    pub is_all_read: bool,
}

/// A partition, as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number of its entry, from 1.
    pub number: u16,
    /// Type GUID.
    pub kind: [u8; 16],
    /// Its own GUID.
    pub guid: [u8; 16],
    /// First block.
    pub first: u64,
    /// Blocks.
    pub blocks: u64,
    /// Its name.
    pub name: String,
}

/// A table in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    block_bytes: usize,
    guid: Guid,
    first_usable: u64,
    last_usable: u64,
    /// Where the copies' headers and arrays are.
    primary: Place,
    backup: Place,
    entry_bytes: usize,
    entries: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    header: u64,
    array: u64,
}

/// One copy that passed all checks.
struct Copy {
    header: GptHeader,
    entries: Vec<u8>,
}

impl Table {
    /// An empty table for a disk; `None` if that is too small.
    pub fn new(block_bytes: usize, blocks: u64, guid: [u8; 16]) -> Option<Table> {
        let entries = vec![0; ENTRIES as usize * ENTRY_BYTES];
        let array_blocks = entries.len().div_ceil(block_bytes) as u64;
        let first_usable = 2 + array_blocks;
        let last_usable = blocks.checked_sub(2 + array_blocks)?;
        let backup = Place {
            header: blocks - 1,
            array: last_usable + 1,
        };
        (last_usable > first_usable).then_some(Table {
            block_bytes,
            guid: Guid::from_bytes(guid),
            first_usable,
            last_usable,
            primary: Place { header: 1, array: 2 },
            backup,
            entry_bytes: ENTRY_BYTES,
            entries,
        })
    }

    /// Reads a disk's table, and writes a copy that is damaged again if `may_repair`. One that can't be read isn't written: nobody knows what it is,
    /// and it may be read the next time.
    ///
    /// # Errors
    /// When what was read is no table, and not all could be read that would tell what it is.
    pub fn load(medium: &mut impl Medium, may_repair: bool) -> Result<Loaded, MediumError> {
        let without = |state| Loaded {
            state,
            table: None,
            is_all_read: true,
        };
        if medium.blocks() < 3 {
            return Ok(without(TableState::Foreign));
        }
        let end = medium.blocks() - 1;
        let primary = Copy::read(medium, 1);
        let elsewhere = match &primary {
            Ok(Some(copy)) => copy.header.alternate_lba.to_u64(),
            _ => end,
        };
        let backup = Copy::read(medium, elsewhere);
        let is_all_read = primary.is_ok() && backup.is_ok();
        let (primary, backup) = (primary.unwrap_or_default(), backup.unwrap_or_default());
        let (copy, is_whole) = match (&primary, &backup) {
            // Of two that are whole the first is the one that counts: the other is one change ahead, of which nobody has heard.
            (Some(primary), Some(backup)) => (primary, primary.is_same(backup)),
            (Some(copy), None) | (None, Some(copy)) => (copy, false),
            (None, None) if !is_all_read => return Err(MediumError),
            (None, None) if is_blank(medium)? => return Ok(without(TableState::Blank)),
            (None, None) => return Ok(without(TableState::Foreign)),
        };
        let Some(table) = Table::from_copies(copy, primary.as_ref(), backup.as_ref(), medium) else {
            return Ok(without(TableState::Foreign));
        };
        let state = if is_whole {
            TableState::Whole
        } else if may_repair && is_all_read && table.store(medium).is_ok() {
            TableState::Repaired
        } else {
            TableState::Degraded
        };
        Ok(Loaded {
            state,
            table: Some(table),
            is_all_read,
        })
    }

    /// The table in `copy`; `None` if there is no place for the other one.
    fn from_copies(
        copy: &Copy,
        primary: Option<&Copy>,
        backup: Option<&Copy>,
        medium: &impl Medium,
    ) -> Option<Table> {
        let array_blocks = copy.entries.len().div_ceil(medium.block_bytes()) as u64;
        let place = |copy: &Copy| Place {
            header: copy.header.my_lba.to_u64(),
            array: copy.header.partition_entry_lba.to_u64(),
        };
        let end = medium.blocks() - 1;
        let primary = primary.map_or(Place { header: 1, array: 2 }, place);
        let backup = match backup {
            Some(backup) => place(backup),
            None => Place {
                header: end,
                array: end.checked_sub(array_blocks)?,
            },
        };
        let table = Table {
            block_bytes: medium.block_bytes(),
            guid: copy.header.disk_guid,
            first_usable: copy.header.first_usable_lba.to_u64(),
            last_usable: copy.header.last_usable_lba.to_u64(),
            primary,
            backup,
            entry_bytes: copy.header.size_of_partition_entry.to_u32() as usize,
            entries: copy.entries.clone(),
        };
        let has_room = primary.array + array_blocks <= table.first_usable
            && backup.array > table.last_usable
            && backup.array + array_blocks <= backup.header;
        has_room.then_some(table)
    }

    /// Writes both copies, the one at the end first.
    pub fn store(&self, medium: &mut impl Medium) -> Result<(), MediumError> {
        for (place, other) in [(self.backup, self.primary), (self.primary, self.backup)] {
            let mut array = self.entries.clone();
            array.resize(array.len().next_multiple_of(self.block_bytes), 0);
            medium.write(place.array, &array)?;
            let mut block = vec![0; self.block_bytes];
            let header = self.header(place, other);
            block
                .iter_mut()
                .zip(bytes_of(&header))
                .for_each(|(to, from)| *to = *from);
            medium.write(place.header, &block)?;
            medium.flush()?;
        }
        Ok(())
    }

    /// Writes what keeps programs that don't know GPT away (section 5.2.3 "Protective MBR").
    pub fn store_protection(&self, medium: &mut impl Medium) -> Result<(), MediumError> {
        let record = MasterBootRecord::protective_mbr(medium.blocks());
        let mut block = vec![0; self.block_bytes];
        block
            .iter_mut()
            .zip(bytes_of(&record))
            .for_each(|(to, from)| *to = *from);
        medium.write(0, &block)
    }

    fn header(&self, place: Place, other: Place) -> GptHeader {
        let lba = LbaLe::from_u64;
        let mut header = GptHeader {
            signature: GptHeaderSignature::EFI_COMPATIBLE_PARTITION_TABLE_HEADER,
            revision: GptHeaderRevision::VERSION_1_0,
            header_size: U32Le::from_u32(HEADER_BYTES as u32),
            header_crc32: Crc32(U32Le::from_u32(0)),
            reserved: U32Le::from_u32(0),
            my_lba: lba(place.header),
            alternate_lba: lba(other.header),
            first_usable_lba: lba(self.first_usable),
            last_usable_lba: lba(self.last_usable),
            disk_guid: self.guid,
            partition_entry_lba: lba(place.array),
            number_of_partition_entries: U32Le::from_u32((self.entries.len() / self.entry_bytes) as u32),
            size_of_partition_entry: U32Le::from_u32(self.entry_bytes as u32),
            partition_entry_array_crc32: checksum(&self.entries),
        };
        header.header_crc32 = checksum(bytes_of(&header));
        header
    }

    /// The disk's own GUID.
    pub fn guid(&self) -> [u8; 16] {
        self.guid.to_bytes()
    }

    /// The partitions, by number; entries that name blocks outside of what is usable, or a block that an earlier one has, are left out.
    pub fn partitions(&self) -> Vec<Partition> {
        let mut partitions: Vec<Partition> = Vec::new();
        for (index, bytes) in self.entries.chunks_exact(self.entry_bytes).enumerate() {
            let Some(entry) = bytes
                .get(..ENTRY_BYTES)
                .map(pod_read_unaligned::<GptPartitionEntry>)
            else {
                continue;
            };
            let (first, last) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
            let is_inside = self.first_usable <= first && first <= last && last <= self.last_usable;
            let overlaps = partitions
                .iter()
                .any(|other| first < other.first + other.blocks && other.first <= last);
            if !entry.is_used() || !is_inside || overlaps {
                continue;
            }
            partitions.push(Partition {
                number: index as u16 + 1,
                kind: { entry.partition_type_guid }.0.to_bytes(),
                guid: { entry.unique_partition_guid }.to_bytes(),
                first,
                blocks: last - first + 1,
                name: { entry.name }.chars().collect(),
            });
        }
        partitions
    }

    /// The longest stretch between partitions, aligned: its first block and its length.
    pub fn longest_free(&self) -> (u64, u64) {
        let step = (ALIGNMENT_BYTES / self.block_bytes as u64).max(1);
        // Every entry in use counts here, also those that `partitions` leaves out.
        let mut taken: Vec<(u64, u64)> = self
            .entries
            .chunks_exact(self.entry_bytes)
            .filter_map(|bytes| {
                bytes
                    .get(..ENTRY_BYTES)
                    .map(pod_read_unaligned::<GptPartitionEntry>)
            })
            .filter(GptPartitionEntry::is_used)
            .map(|entry| (entry.starting_lba.to_u64(), entry.ending_lba.to_u64()))
            .collect();
        taken.push((self.last_usable + 1, u64::MAX));
        taken.sort_unstable();
        let (mut next, mut best) = (self.first_usable, (0, 0));
        for (first, last) in taken {
            let start = next.checked_next_multiple_of(step).unwrap_or(u64::MAX);
            let blocks = first.saturating_sub(start) / step * step;
            if blocks > best.1 {
                best = (start, blocks);
            }
            next = next.max(last.saturating_add(1));
        }
        best
    }

    /// Adds a partition of `bytes` where there is most room, of all that room for 0; its number.
    pub fn add(&mut self, kind: [u8; 16], guid: [u8; 16], name: &str, bytes: u64) -> Result<u16, AddError> {
        let (first, free) = self.longest_free();
        let block_bytes = self.block_bytes as u64;
        let blocks = match bytes {
            0 => free,
            _ => bytes
                .checked_next_multiple_of(ALIGNMENT_BYTES)
                .map_or(u64::MAX, |bytes| bytes / block_bytes),
        };
        if blocks == 0 || blocks > free {
            return Err(AddError::NoSpace(free.saturating_mul(block_bytes)));
        }
        let mut entry = GptPartitionEntry::zeroed();
        entry.partition_type_guid = GptPartitionType(Guid::from_bytes(kind));
        entry.unique_partition_guid = Guid::from_bytes(guid);
        entry.starting_lba = LbaLe::from_u64(first);
        entry.ending_lba = LbaLe::from_u64(first + blocks - 1);
        entry.name = name.parse().map_err(|_| AddError::Name)?;
        let unused = |bytes: &&mut [u8]| {
            bytes
                .get(..16)
                .is_some_and(|kind| kind.iter().all(|byte| *byte == 0))
        };
        let mut slots = self.entries.chunks_exact_mut(self.entry_bytes).enumerate();
        let (index, slot) = slots.find(|(_, slot)| unused(slot)).ok_or(AddError::Full)?;
        slot.fill(0);
        slot.iter_mut()
            .zip(bytes_of(&entry))
            .for_each(|(to, from)| *to = *from);
        Ok(index as u16 + 1)
    }

    /// Takes a partition out; false if there is none of that number.
    pub fn remove(&mut self, number: u16) -> bool {
        let index = usize::from(number).wrapping_sub(1);
        let slot = self.entries.chunks_exact_mut(self.entry_bytes).nth(index);
        slot.is_some_and(|slot| {
            let was_used = slot.iter().any(|byte| *byte != 0);
            slot.fill(0);
            was_used
        })
    }
}

impl Copy {
    /// The copy whose header is in block `header`; `None` if it isn't whole (section 5.3.2 lists the checks).
    fn read(medium: &mut impl Medium, header: u64) -> Result<Option<Copy>, MediumError> {
        let (block_bytes, blocks) = (medium.block_bytes(), medium.blocks());
        if header >= blocks {
            return Ok(None);
        }
        let mut block = vec![0; block_bytes];
        medium.read(header, &mut block)?;
        let Some(place) = checked_header(&block, header, blocks) else {
            return Ok(None);
        };
        let bytes = place.number_of_partition_entries.to_u32() as usize
            * place.size_of_partition_entry.to_u32() as usize;
        let mut entries = vec![0; bytes.next_multiple_of(block_bytes)];
        medium.read(place.partition_entry_lba.to_u64(), &mut entries)?;
        entries.truncate(bytes);
        let is_whole = checksum(&entries) == place.partition_entry_array_crc32;
        Ok(is_whole.then_some(Copy {
            header: place,
            entries,
        }))
    }

    fn is_same(&self, other: &Copy) -> bool {
        self.entries == other.entries
            && { self.header.disk_guid } == { other.header.disk_guid }
            && self.header.first_usable_lba == other.header.first_usable_lba
            && self.header.last_usable_lba == other.header.last_usable_lba
            && self.header.size_of_partition_entry == other.header.size_of_partition_entry
            && self.header.my_lba == other.header.alternate_lba
    }
}

/// A header that is whole and says nothing that can't be, of a disk of so many blocks.
fn checked_header(block: &[u8], my_lba: u64, blocks: u64) -> Option<GptHeader> {
    let header: GptHeader = pod_read_unaligned(block.get(..HEADER_BYTES)?);
    let length = header.header_size.to_u32() as usize;
    let mut covered = block.get(..length)?.to_vec();
    covered.get_mut(HEADER_CRC_OFFSET..HEADER_CRC_OFFSET + 4)?.fill(0);
    let entry_bytes = u64::from(header.size_of_partition_entry.to_u32());
    let array_bytes = entry_bytes * u64::from(header.number_of_partition_entries.to_u32());
    let array_end = header
        .partition_entry_lba
        .to_u64()
        .checked_add(array_bytes.div_ceil(block.len() as u64))?;
    let (first, last) = (header.first_usable_lba.to_u64(), header.last_usable_lba.to_u64());
    let is_right = header.is_signature_valid()
        && header.revision == GptHeaderRevision::VERSION_1_0
        && length >= HEADER_BYTES
        && checksum(&covered) == header.header_crc32
        && header.my_lba.to_u64() == my_lba
        && entry_bytes >= ENTRY_BYTES as u64
        && entry_bytes.is_power_of_two()
        && (1..=ARRAY_LIMIT_BYTES).contains(&array_bytes)
        && array_end <= blocks
        && header.partition_entry_lba.to_u64() >= 2
        && first <= last
        && last < blocks;
    is_right.then_some(header)
}

fn checksum(bytes: &[u8]) -> Crc32 {
    Crc32(U32Le::from_u32(CHECKSUM.checksum(bytes)))
}

/// Whether both ends of the disk are zeros.
fn is_blank(medium: &mut impl Medium) -> Result<bool, MediumError> {
    let (block_bytes, blocks) = (medium.block_bytes(), medium.blocks());
    let count = (BLANK_BYTES / block_bytes as u64).min(blocks);
    let mut bytes = vec![0; count as usize * block_bytes];
    for first in [0, blocks - count] {
        medium.read(first, &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[path = "gpt_tests.rs"]
mod tests;
