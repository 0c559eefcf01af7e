//! The `[storage]` section of config/appliance.toml. The rest of the file is other domains'.

use alloc::string::{String, ToString};
use serde::Deserialize;

/// What the operator's file says of disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A disk that is blank gets a partition table and a partition for the store, which takes all of it but for `scratch_mib`. Others are never
    /// touched.
    pub initialise_blank_disks: bool,
    /// Mebibytes of such a disk for a partition that measurements may overwrite; none for 0.
    pub scratch_mib: u32,
    /// Size of the RAM disk, where the manifest has one; the RAM disk itself reads it.
    pub ram_disk_mib: Option<u32>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    storage: Config,
}

impl Config {
    /// Reads the section; without one nothing is created. The error is toml's message, which names the line and shows it.
    pub fn from_toml(text: &str) -> Result<Config, String> {
        toml::from_str::<File>(text)
            .map(|file| file.storage)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_section_no_disk_is_touched() {
        assert_eq!(
            Config::from_toml("[network]\nmtu = 1500\n"),
            Ok(Config::default())
        );
        assert!(!Config::default().initialise_blank_disks);
    }

    #[test]
    fn the_section_is_read_and_checked() {
        let config = Config::from_toml("[storage]\ninitialise_blank_disks = true\nscratch_mib = 64\n");
        assert_eq!(
            config,
            Ok(Config {
                initialise_blank_disks: true,
                scratch_mib: 64,
                ram_disk_mib: None
            })
        );
        let error = Config::from_toml("[storage]\ncolour = 3\n").unwrap_err();
        assert!(error.contains("colour") && error.contains("line 2"), "{error}");
    }
}
