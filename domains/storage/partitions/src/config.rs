//! The `[storage]` section of config/appliance.toml. The rest of the file is other domains'.

use serde::Deserialize;
use settings::{Section, SettingsError};

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

/// Reads the section; without one nothing is created.
///
/// # Errors
/// The first mistake found.
pub fn read(text: &str) -> Result<Config, SettingsError> {
    Ok(Section::new("storage", text).parse::<File>()?.storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_section_no_disk_is_touched() {
        assert_eq!(read("[network]\nmtu = 1500\n"), Ok(Config::default()));
        assert!(!Config::default().initialise_blank_disks);
    }

    #[test]
    fn the_section_is_read_and_checked() {
        let config = read("[storage]\ninitialise_blank_disks = true\nscratch_mib = 64\n");
        assert_eq!(
            config,
            Ok(Config {
                initialise_blank_disks: true,
                scratch_mib: 64,
                ram_disk_mib: None
            })
        );
        let error = read("[storage]\ncolour = 3\n").unwrap_err();
        assert_eq!((error.line, error.key.as_str()), (2, "colour"), "{error}");
    }
}
