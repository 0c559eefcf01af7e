//! The boot archive: a USTAR file that the boot loader puts into memory beside the kernel.
//!
//! It holds the compiled system manifest (`manifest`), domain images (`domains/NAME`), others to update to
//! (`spare/NAME`), the operator's configuration (`config/…`) and the site (`site/…`). It is never written nor freed.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use tar_no_std::TarArchiveRef;

/// Files of the archive by path.
pub struct BootArchive {
    files: Vec<(String, &'static [u8])>,
}

/// The archive can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveError;

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the boot archive is missing or damaged")
    }
}

impl BootArchive {
    /// Reads the archive's index.
    pub fn new(bytes: &'static [u8]) -> Result<BootArchive, ArchiveError> {
        let archive = TarArchiveRef::new(bytes).map_err(|_| ArchiveError)?;
        let mut files = Vec::new();
        for entry in archive.entries() {
            let name = entry.filename();
            let name = name.as_str().map_err(|_| ArchiveError)?;
            files.push((String::from(name.trim_start_matches("./")), entry.data()));
        }
        if files.is_empty() {
            return Err(ArchiveError);
        }
        Ok(BootArchive { files })
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&'static [u8]> {
        self.files
            .iter()
            .find(|(name, _)| name == path)
            .map(|(_, content)| *content)
    }

    /// The path of the `index`-th file.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.files.get(index).map(|(name, _)| name.as_str())
    }
}
