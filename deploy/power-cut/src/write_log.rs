//! The log that QEMU's `blklogwrites` keeps of a disk's writes.
//!
//! The format is that of the Linux kernel's device-mapper target log-writes (Documentation/admin-guide/device-mapper/log-writes.rst and
//! drivers/md/dm-log-writes.c): a superblock in the first sector, then for each request a sector that begins with its place, length and flags, and
//! the data in whole sectors behind it; all numbers little-endian. A discard has no data.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1 << 0;
const FORCED: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;
/// Sectors are powers of two in this range, in bytes.
const SECTORS: std::ops::RangeInclusive<u64> = 512..=65_536;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its data goes on the disk, in bytes.
    pub offset: u64,
    /// Bytes that it writes or discards.
    pub length: u64,
    /// Where its data is in the log, in bytes.
    pub data: u64,
    /// Where it ends in the log, in bytes.
    pub end: u64,
    /// What was written before is durable when it has been carried out.
    pub flush: bool,
    /// Its own data is durable when it has been carried out.
    pub forced: bool,
    /// The range reads as zeros afterwards; it has no data.
    pub discard: bool,
}

/// A log.
pub struct WriteLog {
    file: File,
    /// Bytes of a sector.
    pub sector_bytes: u64,
    /// Its entries.
    pub entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the log's entries, without their data: as many as are whole, also of a log whose superblock hasn't caught up.
    ///
    /// # Errors
    /// When the file can't be read or is no such log.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("{} can't be read", path.display());
        let file = File::open(path).with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        let head = read(&file, 0, 28).with_context(context)?;
        ensure!(
            number(&head, 0) == MAGIC && number(&head, 8) == VERSION,
            "{} is no write log",
            path.display()
        );
        let sector_bytes = number(&head, 24) & 0xffff_ffff;
        ensure!(
            SECTORS.contains(&sector_bytes) && sector_bytes.is_power_of_two(),
            "{} has sectors of {sector_bytes} bytes",
            path.display()
        );
        let mut entries = Vec::new();
        let mut at = sector_bytes;
        while at + sector_bytes <= length {
            let head = read(&file, at, 32).with_context(context)?;
            let Some(entry) = entry(&head, at, sector_bytes, length) else {
                break;
            };
            at = entry.end;
            if number(&head, 16) & MARK == 0 {
                entries.push(entry);
            }
        }
        Ok(Self {
            file,
            sector_bytes,
            entries,
        })
    }

    /// An entry's data.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        if entry.discard {
            return Ok(vec![0; usize::try_from(entry.length)?]);
        }
        read(&self.file, entry.data, usize::try_from(entry.length)?).context("the write log can't be read")
    }
}

/// The entry that begins at `at`, when it is a whole one; a sector of zeros, which a log that was cut short ends in, is none.
fn entry(head: &[u8], at: u64, sector_bytes: u64, log_bytes: u64) -> Option<Entry> {
    let (sector, sectors, flags, data_bytes) = (
        number(head, 0),
        number(head, 8),
        number(head, 16),
        number(head, 24),
    );
    if sectors == 0 && flags == 0 {
        return None;
    }
    let discard = flags & DISCARD != 0;
    let length = sectors.checked_mul(sector_bytes)?;
    let data = at + sector_bytes;
    // Only a mark says how long its data is.
    let stored = match (discard, flags & MARK != 0) {
        (true, _) => 0,
        (false, true) => data_bytes,
        (false, false) => length,
    };
    let end = data.checked_add(stored.checked_next_multiple_of(sector_bytes)?)?;
    (end <= log_bytes && flags <= FLUSH | FORCED | DISCARD | MARK).then_some(Entry {
        offset: sector.checked_mul(sector_bytes)?,
        length,
        data,
        end,
        flush: flags & FLUSH != 0,
        forced: flags & FORCED != 0,
        discard,
    })
}

fn read(file: &File, at: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The little-endian number at `at`, or zero where there is none; the superblock's last is half as long.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    for (to, from) in eight.iter_mut().zip(bytes.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(u64, u64, u64, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in [MAGIC, VERSION, entries.len() as u64, 512] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.resize(512, 0);
        for (sector, sectors, flags, data) in entries {
            let start = bytes.len();
            for value in [*sector, *sectors, *flags, 0] {
                bytes.extend(value.to_le_bytes());
            }
            bytes.resize(start + 512, 0);
            bytes.extend(*data);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes
    }

    fn open(bytes: &[u8]) -> Result<WriteLog> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        WriteLog::open(file.path())
    }

    #[test]
    fn entries_are_read_with_their_data() {
        let data = [7; 1024];
        let log = open(&log(&[
            (2, 2, 0, &data),
            (0, 0, FLUSH, &[]),
            (8, 4, DISCARD, &[]),
            (0, 1, FORCED, &[9; 512]),
        ]))
        .unwrap();
        assert_eq!(log.entries.len(), 4);
        assert_eq!((log.entries[0].offset, log.entries[0].length), (1024, 1024));
        assert_eq!(log.data(&log.entries[0]).unwrap(), data);
        assert!(log.entries[1].flush && log.entries[1].length == 0);
        assert_eq!(log.data(&log.entries[2]).unwrap(), vec![0; 2048]);
        assert!(log.entries[3].forced);
        assert_eq!(log.entries[3].end, 512 * 8);
    }

    #[test]
    fn a_log_that_was_cut_short_ends_with_its_last_whole_entry() {
        let mut bytes = log(&[(0, 1, 0, &[1; 512]), (1, 1, 0, &[2; 512])]);
        bytes.truncate(512 * 4 + 100);
        assert_eq!(open(&bytes).unwrap().entries.len(), 1);
        bytes.truncate(512 * 3);
        bytes.resize(512 * 10, 0);
        assert_eq!(open(&bytes).unwrap().entries.len(), 1);
    }

    #[test]
    fn something_else_is_refused() {
        assert!(open(&[0; 4096]).is_err());
        assert!(open(b"short").is_err());
        let mut bytes = log(&[]);
        bytes[24] = 3;
        assert!(open(&bytes).is_err());
    }
}
