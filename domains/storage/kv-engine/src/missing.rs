//! Why the store has no partition, in the words of its operator: no disk, a disk whose table can't be read, or none of its type.
//!
//! A disk whose table can't be read has no partitions either, for as long as that lasts; only the domain that reads the tables can tell the
//! two apart, so it is asked.

use crate::device::FindError;
use core::ops::Deref;
use interface::block::BlockError;
use interface::key_value::StoreError;
use interface::partition::{Disks, TableState};

/// Disks that are looked at.
const DISK_LIMIT: u16 = 1024;

/// The reason, by what the search said; `disks` gives who knows the tables, if anybody does.
pub(crate) fn reason<D: Deref<Target = dyn Disks>>(
    error: FindError,
    disks: impl FnOnce() -> Option<D>,
) -> StoreError {
    match error {
        FindError::Device(BlockError::NoDevice) => StoreError::NoDisk,
        FindError::Device(BlockError::Dead(_) | BlockError::Lost) => StoreError::Unreachable,
        FindError::Device(_) => StoreError::Device,
        FindError::NoPartition => disks().map_or(StoreError::NoPartition, |disks| look(&*disks)),
    }
}

fn look(disks: &dyn Disks) -> StoreError {
    for index in 0..DISK_LIMIT {
        match disks.disk(index) {
            Ok(Some(disk)) if disk.table == TableState::Unreadable => return StoreError::UnreadableTable,
            Ok(Some(_)) => {}
            Ok(None) if index == 0 => return StoreError::NoDisk,
            Ok(None) => break,
            Err(_) => return StoreError::Unreachable,
        }
    }
    StoreError::NoPartition
}

#[cfg(test)]
mod tests {
    use super::*;
    use interface::block::BlockDevice;
    use interface::partition::{DiskError, DiskInfo, NewPartition, PartitionInfo};
    use rref::{RpcError, Text};
    use virtual_disk::{Geometry, VirtualDisk};

    /// Disks of which only the tables matter.
    struct Tables(Result<Vec<TableState>, DiskError>);

    impl Disks for Tables {
        fn disk(&self, index: u16) -> Result<Option<DiskInfo>, DiskError> {
            let tables = self.0.as_ref().map_err(|&error| error)?;
            Ok(tables.get(usize::from(index)).map(|&table| DiskInfo {
                model: Text::EMPTY,
                name: Text::EMPTY,
                block_bytes: 512,
                blocks: 4096,
                read_only: false,
                table,
                guid: [0; 16],
                partitions: 0,
                free_blocks: 0,
            }))
        }

        fn partition(&self, _: u16, _: u16) -> Result<Option<PartitionInfo>, DiskError> {
            Ok(None)
        }

        fn create_table(&self, disk: u16) -> Result<(), DiskError> {
            Err(DiskError::NoDisk(disk))
        }

        fn create_partition(&self, disk: u16, _: NewPartition) -> Result<PartitionInfo, DiskError> {
            Err(DiskError::NoDisk(disk))
        }

        fn delete_partition(&self, disk: u16, _: u16) -> Result<(), DiskError> {
            Err(DiskError::NoDisk(disk))
        }
    }

    fn boxed(tables: Result<Vec<TableState>, DiskError>) -> Box<dyn Disks> {
        Box::new(Tables(tables))
    }

    #[test]
    fn a_table_that_cannot_be_read_is_not_taken_for_one_without_the_partition() {
        let with = |tables| reason(FindError::NoPartition, || Some(boxed(Ok(tables))));
        assert_eq!(with(vec![]), StoreError::NoDisk);
        assert_eq!(with(vec![TableState::Foreign]), StoreError::NoPartition);
        assert_eq!(
            with(vec![TableState::Whole, TableState::Unreadable]),
            StoreError::UnreadableTable
        );
        assert_eq!(with(vec![TableState::Whole; 2]), StoreError::NoPartition);
    }

    /// Only a proxy makes one.
    fn error_of_a_dead_domain() -> RpcError {
        host_platform::attach();
        let disk: &'static VirtualDisk = Box::leak(Box::new(VirtualDisk::new(Geometry::of_bytes(1 << 20))));
        host_platform::provide_mortal::<dyn BlockDevice>("dead-disk", disk);
        let handle = domain_rt::connect::<dyn BlockDevice>("dead-disk", 1000).unwrap();
        host_platform::kill("dead-disk");
        match handle.info() {
            Err(BlockError::Dead(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_device_that_does_not_answer_is_no_missing_partition() {
        let nobody = || None::<Box<dyn Disks>>;
        assert_eq!(reason(FindError::NoPartition, nobody), StoreError::NoPartition);
        let device = |error| reason(FindError::Device(error), nobody);
        assert_eq!(device(BlockError::NoDevice), StoreError::NoDisk);
        assert_eq!(device(BlockError::Failed), StoreError::Device);
        let dead = error_of_a_dead_domain();
        // Never `Dead`, which would say that the store itself had died.
        assert_eq!(device(BlockError::Dead(dead)), StoreError::Unreachable);
        let silent = || Some(boxed(Err(DiskError::Dead(dead))));
        assert_eq!(reason(FindError::NoPartition, silent), StoreError::Unreachable);
    }
}
