//! Where on a disk the store is, by its partition table (UEFI specification, "GUID Partition Table (GPT) Disk Layout").
//!
//! Only what a disk that the appliance has made needs: the primary table, unchecked. `domains/storage/partitions` is the place for the rest.

use interface::partition::STORE_PARTITION;

use crate::replay::{Medium, SECTOR_BYTES};

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte on the disk.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Finds the store's partition on a disk with blocks of `block_bytes`.
pub fn find(medium: &Medium, block_bytes: u32) -> Option<Place> {
    const SIGNATURE: &[u8] = b"EFI PART";
    const MOST_ENTRIES: u32 = 1024;
    let block_bytes = u64::from(block_bytes);
    let header = read(medium, block_bytes, SECTOR_BYTES);
    if header.get(..8)? != SIGNATURE {
        return None;
    }
    let long = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let short = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let table = long(&header, 72)?.checked_mul(block_bytes)?;
    let (count, size) = (short(&header, 80)?.min(MOST_ENTRIES), short(&header, 84)?);
    if !(128..=4096).contains(&size) {
        return None;
    }
    (0..u64::from(count)).find_map(|index| {
        let at = table.checked_add(index * u64::from(size))?;
        let sectors = read(
            medium,
            at / SECTOR_BYTES as u64 * SECTOR_BYTES as u64,
            2 * SECTOR_BYTES,
        );
        let entry = sectors.get(usize::try_from(at).ok()? % SECTOR_BYTES..)?;
        if entry.get(..16)? != STORE_PARTITION {
            return None;
        }
        let (first, last) = (long(entry, 32)?, long(entry, 40)?);
        Some(Place {
            start: first.checked_mul(block_bytes)?,
            bytes: (last.checked_add(1)?.checked_sub(first)?).checked_mul(block_bytes)?,
        })
    })
}

fn read(medium: &Medium, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    medium.read(at / SECTOR_BYTES as u64, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_found_among_others() {
        for block_bytes in [512_u32, 4096] {
            let block = u64::from(block_bytes);
            let mut medium = Medium::default();
            let mut header = vec![0; SECTOR_BYTES];
            header[..8].copy_from_slice(b"EFI PART");
            header[72..80].copy_from_slice(&2_u64.to_le_bytes());
            header[80..84].copy_from_slice(&128_u32.to_le_bytes());
            header[84..88].copy_from_slice(&128_u32.to_le_bytes());
            medium.write(block / 512, &header);
            let mut table = vec![0; SECTOR_BYTES];
            table[128..144].copy_from_slice(&STORE_PARTITION);
            table[160..168].copy_from_slice(&100_u64.to_le_bytes());
            table[168..176].copy_from_slice(&199_u64.to_le_bytes());
            medium.write(2 * block / 512, &table);
            assert_eq!(
                find(&medium, block_bytes),
                Some(Place {
                    start: 100 * block,
                    bytes: 100 * block
                })
            );
        }
    }

    #[test]
    fn a_blank_disk_has_none() {
        assert_eq!(find(&Medium::default(), 512), None);
    }
}
