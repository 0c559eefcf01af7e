//! The medium as the engine's disk.

use std::sync::{Mutex, PoisonError};

use kv_engine::disk::{Disk, DiskError, Shape};
use rref::RRef;
use rref::block::{Block, Fault, Operation};

use crate::partition::Place;
use crate::replay::{Medium, SECTOR_BYTES};

/// A partition of a medium.
pub struct MediumDisk {
    medium: Mutex<Medium>,
    place: Place,
    block_bytes: u32,
}

impl MediumDisk {
    /// The partition at `place` of `medium`, whose logical blocks have `block_bytes`.
    pub fn new(medium: Medium, place: Place, block_bytes: u32) -> Self {
        Self {
            medium: Mutex::new(medium),
            place,
            block_bytes,
        }
    }

    fn carry_out(&self, medium: &mut Medium, block: &mut Block) -> Result<(), Fault> {
        let bytes = u64::from(block.count) * u64::from(self.block_bytes);
        let at = block
            .address
            .checked_mul(u64::from(self.block_bytes))
            .ok_or(Fault::OutOfRange)?;
        if at.checked_add(bytes).is_none_or(|end| end > self.place.bytes) {
            return Err(Fault::OutOfRange);
        }
        let sector = (self.place.start + at) / SECTOR_BYTES as u64;
        let length = usize::try_from(bytes).map_err(|_| Fault::OutOfRange)?;
        match block.operation() {
            Some(Operation::Read) => {
                let data = block.data_mut().get_mut(..length).ok_or(Fault::OutOfRange)?;
                medium.read(sector, data);
            }
            Some(Operation::Write) => {
                medium.write(sector, block.data().get(..length).ok_or(Fault::OutOfRange)?);
            }
            Some(Operation::Flush) => {}
            Some(Operation::WriteZeroes | Operation::Deallocate) => {
                for number in 0..bytes / SECTOR_BYTES as u64 {
                    medium.write(sector + number, &[0; SECTOR_BYTES]);
                }
            }
            None => return Err(Fault::Unsupported),
        }
        Ok(())
    }
}

impl Disk for MediumDisk {
    fn shape(&self) -> Shape {
        Shape {
            block_bytes: self.block_bytes,
            blocks: self.place.bytes / u64::from(self.block_bytes),
            volatile_cache: true,
            forced_writes: true,
            deallocate: false,
        }
    }

    fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        let mut medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        for block in requests {
            match self.carry_out(&mut medium, block) {
                Ok(()) => block.complete(),
                Err(fault) => block.fail(fault, 0),
            }
        }
        Ok(())
    }
}
