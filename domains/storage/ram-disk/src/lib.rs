//! A storage device in its own memory: for tests, and to try the store on a machine without a disk.
//!
//! It takes the driver's place in config/domains.toml. What it holds lasts as long as the domain lives; it has one unit without a cache, whose size is
//! `ram_disk_mib` of the `[storage]` section in config/appliance.toml. Memory is taken as it is written to.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod disk;

use alloc::boxed::Box;
use disk::RamDisk;
use domain_rt::StartError;
use interface::block::BlockDevice;
use serde::Deserialize;
use settings::{Section, SettingsError};

/// Mebibytes without a word in the configuration.
const DEFAULT_MIB: u32 = 64;

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    storage: Keys,
}

/// The rest of the section is the partitions'.
#[derive(Deserialize)]
#[serde(default)]
struct Keys {
    ram_disk_mib: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Keys {
            ram_disk_mib: DEFAULT_MIB,
        }
    }
}

fn size_mib(text: &str) -> Result<u32, SettingsError> {
    Ok(Section::new("storage", text)
        .parse::<File>()?
        .storage
        .ram_disk_mib)
}

/// Starts the domain.
pub fn start() -> Result<(), StartError> {
    let size_mib = settings::at_start(size_mib)?;
    domain_rt::export::<dyn BlockDevice>(Box::new(RamDisk::new(u64::from(size_mib) << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_the_operators() {
        assert_eq!(size_mib("[network]\nmtu = 1500\n"), Ok(DEFAULT_MIB));
        assert_eq!(
            size_mib("[storage]\ninitialise_blank_disks = true\nram_disk_mib = 8\n"),
            Ok(8)
        );
    }
}
