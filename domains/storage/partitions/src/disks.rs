//! The disks, their tables, and what is done to these: by the configuration at a blank disk's first sight, and by an operator.

use crate::access::Disk;
use crate::config::Config;
use crate::gpt::{AddError, Loaded, Medium, Partition, Table};
use crate::router::Router;
use crate::units::{Extent, Units};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{clock, thread};
use interface::block::{BlockDeviceInfo, BlockError, UnitInfo};
use interface::partition::{
    DiskError, DiskInfo, NewPartition, PartitionInfo, SCRATCH_PARTITION, STORE_PARTITION, TableState,
};
use log::{debug, info, warn};
use rref::{OwnerId, Text};

/// Name of the store's partition, when it is made here.
const STORE_NAME: &str = "store";
/// Name of the partition for measurements, when it is made here.
const SCRATCH_NAME: &str = "scratch";
/// How long calls wait for the first look at the disks to end, milliseconds.
const FIRST_LOOK_MS: u64 = 5_000;
/// How long after a table that couldn't be read the next look at it comes, milliseconds; twice as long after each.
const FIRST_RETRY_MS: u64 = 250;
const LAST_RETRY_MS: u64 = 60_000;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// A disk, as it is known.
struct Known {
    info: UnitInfo,
    state: TableState,
    table: Option<Table>,
    partitions: Vec<(Partition, u16)>,
    /// All of the table could be read that there is of it: no other look is needed.
    is_settled: bool,
}

/// When tables that couldn't be read are looked at again.
#[derive(Clone, Copy)]
struct Retry {
    at_ns: u64,
    delay_ms: u64,
}

/// The disks.
pub struct Disks {
    pub router: Router,
    pub units: Units,
    config: Config,
    /// This domain.
    user: OwnerId,
    known: Mutex<Vec<Known>>,
    /// What the device below said of itself last.
    device: Mutex<Option<BlockDeviceInfo>>,
    /// One change at a time, also while the lists above are not locked.
    change: Mutex<()>,
    /// Counts up when units come, go or change.
    changes: AtomicU32,
    has_looked: AtomicBool,
    /// There is something that is to be looked at again.
    retry: Mutex<Option<Retry>>,
}

impl Disks {
    /// No disks yet.
    pub fn new(router: Router, config: Config, user: OwnerId) -> Disks {
        Disks {
            router,
            units: Units::new(),
            config,
            user,
            known: Mutex::new(Vec::new()),
            device: Mutex::new(None),
            change: Mutex::new(()),
            changes: AtomicU32::new(0),
            has_looked: AtomicBool::new(false),
            retry: Mutex::new(None),
        }
    }

    /// Counts up when units come, go or change.
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// What the device below is, once the first look at it is over.
    pub fn device(&self) -> Result<BlockDeviceInfo, BlockError> {
        let deadline_ns = clock::now_ns().saturating_add(FIRST_LOOK_MS * MS);
        while !self.has_looked.load(Ordering::Acquire) && clock::now_ns() < deadline_ns {
            thread::sleep_ms(1);
        }
        self.device.lock().ok_or(BlockError::NoDevice)
    }

    /// Looks whether the device or its disks have changed, and reads the tables if so; and those again that couldn't be read. When the next look
    /// should come at the latest, as `clock::now_ns` counts.
    pub fn look(&self) -> u64 {
        let found = self.router.device().and_then(|device| device.info());
        match &found {
            Ok(info) if self.device.lock().map(|known| known.changes) != Some(info.changes) => {
                self.read_all(*info);
                self.plan_retry();
            }
            Ok(_) => {
                let is_due = |retry: Retry| clock::now_ns() >= retry.at_ns;
                if self.retry.lock().is_some_and(is_due) {
                    self.read_unsettled();
                    self.plan_retry();
                }
            }
            Err(BlockError::NoDevice) if !self.has_looked.load(Ordering::Relaxed) => {
                debug!("there is no storage device");
            }
            Err(_) => {}
        }
        self.has_looked.store(true, Ordering::Release);
        self.retry.lock().map_or(clock::NEVER, |retry| retry.at_ns)
    }

    /// Plans another look if there is something left to read.
    fn plan_retry(&self) {
        let is_settled = self.known.lock().iter().all(|disk| disk.is_settled);
        let mut retry = self.retry.lock();
        let delay_ms = retry.map_or(FIRST_RETRY_MS, |before| (before.delay_ms * 2).min(LAST_RETRY_MS));
        *retry = (!is_settled).then(|| Retry {
            at_ns: clock::now_ns().saturating_add(delay_ms * MS),
            delay_ms,
        });
    }

    fn disk(&self, unit: u16, info: UnitInfo) -> Disk<'_> {
        Disk {
            router: &self.router,
            user: self.user,
            unit,
            info,
        }
    }

    /// Reads all tables; partitions that are still there keep their units.
    fn read_all(&self, device: BlockDeviceInfo) {
        let _alone = self.change.lock();
        let mut found = Vec::new();
        let mut all_answered = true;
        for unit in 0..device.units {
            let answer = self.router.device().and_then(|device| device.unit(unit));
            match answer {
                Ok(info) => found.push((unit, self.read(unit, info, None))),
                Err(error) => {
                    warn!("disk {unit} doesn't say what it is: {error}");
                    all_answered = false;
                }
            }
        }
        // What was known stays in use until all is read.
        let mut known = self.known.lock();
        let mut old = core::mem::take(&mut *known);
        for (unit, mut disk) in found {
            if let Some(place) = old.iter().position(|before| before.info.name == disk.info.name) {
                let before = old.swap_remove(place);
                disk = self.succeed(unit, disk, before);
            } else {
                self.number(unit, &mut disk, Vec::new());
            }
            known.push(disk);
        }
        drop(known);
        for (partition, unit) in old.into_iter().flat_map(|disk| disk.partitions) {
            info!("partition `{}` (unit {unit}) is gone", partition.name);
            self.units.remove(unit);
        }
        *self.device.lock() = Some(BlockDeviceInfo {
            // Another count than the device's has the next look read all again.
            changes: if all_answered {
                device.changes
            } else {
                !device.changes
            },
            ..device
        });
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads those tables again of which something couldn't be read.
    fn read_unsettled(&self) {
        let _alone = self.change.lock();
        let unsettled: Vec<(u16, UnitInfo, TableState)> = (0..)
            .zip(self.known.lock().iter())
            .filter(|(_, disk)| !disk.is_settled)
            .map(|(unit, disk)| (unit, disk.info, disk.state))
            .collect();
        for (unit, info, state) in unsettled {
            let disk = self.read(unit, info, Some(state));
            let mut known = self.known.lock();
            let Some(place) = known.get_mut(usize::from(unit)) else {
                continue;
            };
            let is_news = disk.state != state || disk.is_settled;
            let empty = Known {
                info,
                state,
                table: None,
                partitions: Vec::new(),
                is_settled: true,
            };
            let before = core::mem::replace(place, empty);
            *place = self.succeed(unit, disk, before);
            drop(known);
            if is_news {
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What is known of a disk after it was read again. A table that can't be read now is still there.
    fn succeed(&self, unit: u16, mut disk: Known, before: Known) -> Known {
        let is_same =
            disk.info.blocks == before.info.blocks && disk.info.block_bytes == before.info.block_bytes;
        if disk.state == TableState::Unreadable && before.table.is_some() && is_same {
            return Known {
                info: disk.info,
                is_settled: false,
                ..before
            };
        }
        self.number(unit, &mut disk, before.partitions);
        disk
    }

    /// Reads one disk's table; makes one if the disk is blank and the configuration says so. `before` is what it was in the look before this one.
    fn read(&self, unit: u16, info: UnitInfo, before: Option<TableState>) -> Known {
        let mut disk = self.disk(unit, info);
        let loaded = Table::load(&mut disk, !info.read_only);
        let Loaded {
            mut state,
            mut table,
            is_all_read,
        } = loaded.unwrap_or(Loaded {
            state: TableState::Unreadable,
            table: None,
            is_all_read: false,
        });
        if state == TableState::Repaired {
            warn!("disk {unit}: one copy of the partition table was damaged, and is written again");
        }
        if state == TableState::Blank && self.config.initialise_blank_disks && !info.read_only {
            table = self.initialise(&mut disk);
            if table.is_some() {
                state = TableState::Whole;
                info!("disk {unit} was blank: it has a partition for the store now");
            }
        }
        let partitions = table.as_ref().map(Table::partitions).unwrap_or_default();
        if before != Some(state) {
            info!(
                "disk {unit}: {} MiB in blocks of {}, {state}, {} partitions",
                info.blocks / ((1 << 20) / u64::from(info.block_bytes.max(1)).min(1 << 20)),
                info.block_bytes,
                partitions.len()
            );
            if !is_all_read {
                warn!("disk {unit}: the partition table or a copy of it can't be read; that is tried again");
            }
        }
        Known {
            info,
            state,
            table,
            partitions: partitions
                .into_iter()
                .map(|partition| (partition, u16::MAX))
                .collect(),
            is_settled: is_all_read,
        }
    }

    fn initialise(&self, disk: &mut Disk<'_>) -> Option<Table> {
        let mut table = Table::new(disk.block_bytes(), disk.blocks(), random_guid())?;
        if self.config.scratch_mib != 0 {
            let bytes = u64::from(self.config.scratch_mib) << 20;
            let added = table.add(SCRATCH_PARTITION, random_guid(), SCRATCH_NAME, bytes);
            if let Err(error) = added {
                warn!("disk {}: no partition for measurements: {error}", disk.unit);
            }
        }
        let added = table.add(STORE_PARTITION, random_guid(), STORE_NAME, 0);
        if let Err(error) = added {
            warn!("disk {}: no partition for the store: {error}", disk.unit);
            return None;
        }
        let stored = table.store_protection(disk).and_then(|()| table.store(disk));
        stored.ok().map(|()| table)
    }

    /// Gives each partition its unit: that which it had, if it is where it was.
    fn number(&self, disk: u16, known: &mut Known, mut before: Vec<(Partition, u16)>) {
        for (partition, unit) in &mut known.partitions {
            let same = before.iter().position(|(other, unit)| {
                let is_there = self.units.extent(*unit).is_some_and(|extent| extent.disk == disk);
                is_there
                    && (other.guid, other.first, other.blocks)
                        == (partition.guid, partition.first, partition.blocks)
            });
            *unit = match same {
                Some(place) => before.swap_remove(place).1,
                None => {
                    let extent = Extent {
                        disk,
                        first: partition.first,
                        blocks: partition.blocks,
                    };
                    self.units.add(extent).unwrap_or_else(|| {
                        warn!("partition `{}` can't be used: no number is left", partition.name);
                        u16::MAX
                    })
                }
            };
        }
        for (partition, unit) in before {
            info!("partition `{}` (unit {unit}) is gone", partition.name);
            self.units.remove(unit);
        }
    }

    /// What a unit is, as a device.
    pub fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        // Until the first look is over there are none.
        self.device()?;
        let units = self.units.count();
        if unit >= units {
            return Err(BlockError::NoUnit { unit, units });
        }
        let known = self.known.lock();
        let found = known.iter().find_map(|disk| {
            let (partition, _) = disk.partitions.iter().find(|(_, number)| *number == unit)?;
            Some(UnitInfo {
                blocks: partition.blocks,
                kind: partition.kind,
                name: Text::new(&partition.name),
                ..disk.info
            })
        });
        Ok(found.unwrap_or(UnitInfo {
            // The number of a partition that is gone.
            block_bytes: 512,
            blocks: 0,
            volatile_cache: false,
            forced_writes: true,
            read_only: true,
            deallocate: false,
            atomic_blocks: 1,
            transfer_blocks: 1,
            kind: [0; 16],
            name: Text::EMPTY,
        }))
    }

    fn describe(&self, disk: u16, partition: &Partition, unit: u16) -> PartitionInfo {
        let user = self.units.user(unit);
        PartitionInfo {
            disk,
            number: partition.number,
            unit,
            kind: partition.kind,
            guid: partition.guid,
            first: partition.first,
            blocks: partition.blocks,
            in_use: user != OwnerId::NONE && user != self.user && domain_rt::is_live(user),
            name: Text::new(&partition.name),
        }
    }

    /// The `index`-th disk.
    pub fn disk_info(&self, index: u16) -> Result<Option<DiskInfo>, DiskError> {
        let device = match self.device() {
            Err(BlockError::NoDevice) => return Ok(None),
            result => result?,
        };
        let known = self.known.lock();
        Ok(known.get(usize::from(index)).map(|disk| DiskInfo {
            model: device.model,
            name: disk.info.name,
            block_bytes: disk.info.block_bytes,
            blocks: disk.info.blocks,
            read_only: disk.info.read_only,
            table: disk.state,
            guid: disk.table.as_ref().map_or([0; 16], Table::guid),
            partitions: disk.partitions.len() as u16,
            free_blocks: disk.table.as_ref().map_or(0, |table| table.longest_free().1),
        }))
    }

    /// The `index`-th partition of a disk.
    pub fn partition_info(&self, disk: u16, index: u16) -> Result<Option<PartitionInfo>, DiskError> {
        self.device()?;
        let known = self.known.lock();
        let on_disk = known.get(usize::from(disk)).ok_or(DiskError::NoDisk(disk))?;
        let found = on_disk.partitions.get(usize::from(index));
        Ok(found.map(|(partition, unit)| self.describe(disk, partition, *unit)))
    }

    /// What is known of a disk that can be written to: its unit, and its table.
    fn writable(&self, disk: u16) -> Result<(UnitInfo, TableState, Option<Table>), DiskError> {
        self.device()?;
        let known = self.known.lock();
        let found = known.get(usize::from(disk)).ok_or(DiskError::NoDisk(disk))?;
        if found.info.read_only {
            return Err(DiskError::ReadOnly);
        }
        Ok((found.info, found.state, found.table.clone()))
    }

    /// Puts a table that is on the disk now in the place of the one that was.
    fn replace(&self, disk: u16, table: Table) {
        let mut known = self.known.lock();
        if let Some(found) = known.get_mut(usize::from(disk)) {
            let before = core::mem::take(&mut found.partitions);
            found.partitions = table
                .partitions()
                .into_iter()
                .map(|partition| (partition, u16::MAX))
                .collect();
            self.number(disk, found, before);
            found.state = TableState::Whole;
            found.table = Some(table);
            found.is_settled = true;
        }
        drop(known);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes an empty table to a blank disk.
    pub fn create_table(&self, disk: u16) -> Result<(), DiskError> {
        let _alone = self.change.lock();
        let (info, _, _) = self.writable(disk)?;
        let mut medium = self.disk(disk, info);
        // What is known may be old, and this can't be undone.
        let found = Table::load(&mut medium, false).map_err(|_| DiskError::Failed)?;
        if found.state != TableState::Blank {
            return Err(DiskError::NotBlank(found.state));
        }
        let table =
            Table::new(medium.block_bytes(), medium.blocks(), random_guid()).ok_or(DiskError::TableFull)?;
        table
            .store_protection(&mut medium)
            .and_then(|()| table.store(&mut medium))
            .map_err(|_| DiskError::Failed)?;
        self.replace(disk, table);
        Ok(())
    }

    /// Adds a partition.
    pub fn create_partition(&self, disk: u16, new: &NewPartition) -> Result<PartitionInfo, DiskError> {
        if new.kind == [0; 16] {
            return Err(DiskError::Malformed);
        }
        let _alone = self.change.lock();
        let (info, state, table) = self.writable(disk)?;
        let mut table = table.ok_or(DiskError::NoTable(state))?;
        let number = table
            .add(new.kind, random_guid(), new.name.as_str(), new.bytes)
            .map_err(|error| match error {
                AddError::NoSpace(bytes) => DiskError::NoSpace(bytes),
                AddError::Full => DiskError::TableFull,
                AddError::Name => DiskError::Malformed,
            })?;
        table
            .store(&mut self.disk(disk, info))
            .map_err(|_| DiskError::Failed)?;
        self.replace(disk, table);
        let known = self.known.lock();
        let on_disk = known.get(usize::from(disk)).ok_or(DiskError::NoDisk(disk))?;
        let found = on_disk.partitions.iter().find(|(of, _)| of.number == number);
        let (partition, unit) = found.ok_or(DiskError::NoPartition(number))?;
        Ok(self.describe(disk, partition, *unit))
    }

    /// Takes a partition out.
    pub fn delete_partition(&self, disk: u16, number: u16) -> Result<(), DiskError> {
        let _alone = self.change.lock();
        let (info, state, table) = self.writable(disk)?;
        let mut table = table.ok_or(DiskError::NoTable(state))?;
        let is_used = {
            let known = self.known.lock();
            let on_disk = known.get(usize::from(disk)).ok_or(DiskError::NoDisk(disk))?;
            let found = on_disk.partitions.iter().find(|(of, _)| of.number == number);
            let (partition, unit) = found.ok_or(DiskError::NoPartition(number))?;
            self.describe(disk, partition, *unit).in_use
        };
        if is_used {
            return Err(DiskError::InUse);
        }
        if !table.remove(number) {
            return Err(DiskError::NoPartition(number));
        }
        table
            .store(&mut self.disk(disk, info))
            .map_err(|_| DiskError::Failed)?;
        self.replace(disk, table);
        Ok(())
    }
}

/// A GUID of random bits (version 4).
fn random_guid() -> [u8; 16] {
    let bits = u128::from(clock::entropy()) << 64 | u128::from(clock::entropy());
    gpt_disk_types::Guid::from_random_bytes(bits.to_le_bytes()).to_bytes()
}
