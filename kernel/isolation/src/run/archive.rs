//! The boot archive of this machine.

use crate::archive::{ArchiveError, BootArchive};
use spin::Once;

static ARCHIVE: Once<BootArchive> = Once::new();

pub fn initialise(bytes: &'static [u8]) -> Result<(), ArchiveError> {
    let archive = BootArchive::new(bytes)?;
    ARCHIVE.call_once(|| archive);
    Ok(())
}

/// The file at `path`; it is never freed nor written.
pub fn boot_file(path: &str) -> Option<&'static [u8]> {
    ARCHIVE.get()?.file(path)
}

/// The path of the `index`-th file.
pub fn boot_file_name(index: usize) -> Option<&'static str> {
    ARCHIVE.get()?.name(index)
}
