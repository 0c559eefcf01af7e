//! The appliance's NVMe disk: a file of this machine behind QEMU's controller.
//!
//! The nodes of QEMU's block graph have fixed names, so that [`crate::DiskControl`] can put filters between them while the machine runs: the device
//! is on [`DEVICE_NODE`], and that on [`FILE_NODE`], or on the write log's filter when every write is to be kept.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The node that the controller is on.
pub(crate) const DEVICE_NODE: &str = "disk";
/// The node of the file.
pub(crate) const FILE_NODE: &str = "disk-file";
/// The node of the filter that logs writes.
pub(crate) const LOG_NODE: &str = "disk-log";
/// The controller's name among QEMU's devices.
pub(crate) const DEVICE: &str = "nvme0";
/// The root port that it is behind.
pub(crate) const PORT: &str = "port1";

/// Hot-plugging by the ports themselves, not through ACPI: pulling the controller out needs it.
const NATIVE_HOTPLUG: [&str; 2] = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"];

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where its content is; made, sparse and blank, when it isn't there.
    pub file: PathBuf,
    /// Bytes of a disk that is made.
    pub bytes: u64,
    /// Bytes of a logical block: 512 or 4,096.
    pub logical_block_bytes: u32,
    /// Whether a file that is there is made blank first.
    pub blank: bool,
    /// Where every write is logged, in the order in which the controller made them, if they are to be logged (`power-cut` reads it).
    pub write_log: Option<PathBuf>,
    /// Whether a flush is passed on to this machine's own disk. Without it a power cut of the machine under the lab loses more; one of the lab's appliance doesn't.
    pub host_flush: bool,
}

impl Disk {
    /// A disk of `bytes` in `file`, with blocks of 512 bytes and no log.
    pub fn new(file: PathBuf, bytes: u64) -> Self {
        Self {
            file,
            bytes,
            logical_block_bytes: 512,
            blank: false,
            write_log: None,
            host_flush: true,
        }
    }

    /// Makes the files that aren't there.
    ///
    /// # Errors
    /// When that can't be done, or the size is none that a disk can have.
    pub fn prepare(&self) -> Result<()> {
        ensure!(
            matches!(self.logical_block_bytes, 512 | 4096),
            "a disk's logical block has 512 or 4096 bytes, not {}",
            self.logical_block_bytes
        );
        if self.blank || !self.file.exists() {
            ensure!(
                self.bytes >= 1 << 20 && self.bytes.is_multiple_of(4096),
                "{} bytes can't be a disk's size: at least 1 MiB, in whole blocks of 4 KiB",
                self.bytes
            );
            make_sparse(&self.file, self.bytes)?;
        }
        match &self.write_log {
            Some(log) => make_sparse(log, 0),
            None => Ok(()),
        }
    }

    /// QEMU's arguments for it.
    pub fn command_line(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut add = |flag: &str, value: Value| {
            words.extend([OsString::from(flag), OsString::from(value.to_string())]);
        };
        let cache = json!({ "direct": false, "no-flush": !self.host_flush });
        add(
            "-blockdev",
            json!({ "driver": "file", "node-name": FILE_NODE, "filename": self.file, "discard": "unmap", "cache": cache }),
        );
        let mut below = FILE_NODE;
        if let Some(log) = &self.write_log {
            add(
                "-blockdev",
                json!({ "driver": "file", "node-name": "disk-log-file", "filename": log, "cache": cache }),
            );
            // The log's superblock counts its entries; updated with each flush of the disk, it never lags behind what is durable.
            add(
                "-blockdev",
                json!({
                    "driver": "blklogwrites", "node-name": LOG_NODE, "file": FILE_NODE, "log": "disk-log-file",
                    "log-super-update-interval": 1,
                }),
            );
            below = LOG_NODE;
        }
        add(
            "-blockdev",
            json!({ "driver": "raw", "node-name": DEVICE_NODE, "file": below, "discard": "unmap", "cache": cache }),
        );
        words.extend(NATIVE_HOTPLUG.map(OsString::from));
        let mut add = |flag: &str, value: Value| {
            words.extend([OsString::from(flag), OsString::from(value.to_string())]);
        };
        add(
            "-device",
            json!({ "driver": "pcie-root-port", "id": PORT, "chassis": 2, "slot": 2 }),
        );
        add(
            "-device",
            json!({
                "driver": "nvme", "id": DEVICE, "bus": PORT, "serial": "LAB0001", "drive": DEVICE_NODE,
                "logical_block_size": self.logical_block_bytes, "physical_block_size": 4096,
            }),
        );
        words
    }
}

fn make_sparse(path: &Path, bytes: u64) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("{} can't be made", directory.display()))?;
    }
    File::create(path)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("the disk {} can't be made", path.display()))
}

/// A size as a person writes it: `512M`, `4G`, `1T`, or bytes.
///
/// # Errors
/// When it is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = match unit.to_ascii_uppercase() {
                'K' => 10,
                'M' => 20,
                'G' => 30,
                'T' => 40,
                _ => return Err(format!("`{text}` is no size: a number and K, M, G or T")),
            };
            (text.get(..at).unwrap_or_default(), shift)
        }
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is no size: a number and K, M, G or T"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        for wrong in ["", "G", "1X", "-1", "99999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn content_is_kept_unless_a_blank_disk_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(directory.path().join("deep/disk"), 1 << 20);
        disk.prepare().unwrap();
        assert_eq!(fs::metadata(&disk.file).unwrap().len(), 1 << 20);
        fs::write(&disk.file, "content").unwrap();
        disk.prepare().unwrap();
        assert_eq!(fs::read(&disk.file).unwrap(), b"content");
        disk.blank = true;
        disk.prepare().unwrap();
        assert!(fs::read(&disk.file).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path().join("disk"), 1000);
        assert!(disk.prepare().is_err());
        let blocks = Disk {
            logical_block_bytes: 1024,
            ..Disk::new(directory.path().join("disk"), 1 << 20)
        };
        assert!(blocks.prepare().is_err());
    }

    #[test]
    fn a_log_is_put_between_the_device_and_the_file() {
        let disk = Disk {
            write_log: Some("/tmp/log".into()),
            ..Disk::new("/tmp/disk".into(), 1 << 20)
        };
        let words: Vec<Value> = disk
            .command_line()
            .iter()
            .filter_map(|word| serde_json::from_str(word.to_str()?).ok())
            .collect();
        let node = |name: &str| words.iter().find(|word| word["node-name"] == name).unwrap();
        assert_eq!(node(DEVICE_NODE)["file"], LOG_NODE);
        assert_eq!(node(LOG_NODE)["file"], FILE_NODE);
    }
}
