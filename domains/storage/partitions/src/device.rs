//! The interfaces that this domain offers. What they do is in `disks.rs` and `router.rs`.

use crate::disks::Disks;
use crate::router::extents;
use alloc::sync::Arc;
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use interface::partition::{self, DiskError, DiskInfo, NewPartition, PartitionInfo};
use rref::{BlockBatch, caller};

/// The partitions as a device.
pub struct Device(pub Arc<Disks>);

impl BlockDevice for Device {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        Ok(BlockDeviceInfo {
            changes: self.0.changes(),
            ..self.0.device()?
        })
        .map(|info| BlockDeviceInfo {
            units: self.0.units.count(),
            ..info
        })
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        self.0.unit(unit)
    }

    fn exchange(&self, queue: u16, requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        let user = caller();
        let extents = extents(&self.0.units, user);
        self.0.router.exchange(queue, user, requests, extents)
    }

    fn exchange_until(
        &self,
        queue: u16,
        requests: BlockBatch,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let user = caller();
        let extents = extents(&self.0.units, user);
        self.0
            .router
            .exchange_until(queue, user, requests, extents, deadline_ns)
    }

    fn wait(&self, queue: u16, deadline_ns: u64) -> Result<WaitResult, BlockError> {
        self.0.router.wait(queue, caller(), deadline_ns)
    }

    fn abandon(&self) -> Result<(), BlockError> {
        self.0.router.abandon(caller())
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        self.0.router.device()?.statistics()
    }
}

/// The disks as an operator sees them.
pub struct Operator(pub Arc<Disks>);

impl partition::Disks for Operator {
    fn disk(&self, index: u16) -> Result<Option<DiskInfo>, DiskError> {
        self.0.disk_info(index)
    }

    fn partition(&self, disk: u16, index: u16) -> Result<Option<PartitionInfo>, DiskError> {
        self.0.partition_info(disk, index)
    }

    fn create_table(&self, disk: u16) -> Result<(), DiskError> {
        self.0.create_table(disk)
    }

    fn create_partition(&self, disk: u16, partition: NewPartition) -> Result<PartitionInfo, DiskError> {
        self.0.create_partition(disk, &partition)
    }

    fn delete_partition(&self, disk: u16, number: u16) -> Result<(), DiskError> {
        self.0.delete_partition(disk, number)
    }
}
