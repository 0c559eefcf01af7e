//! The cache directory in the user's home, and the lock that lets several runs share it.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::Error;

/// Where private copies and downloads are kept: `$XDG_CACHE_HOME/redleaf-appliance` or `~/.cache/redleaf-appliance`,
/// outside any clone; it is created if it doesn't exist.
///
/// # Errors
/// When no home is known or the directory can't be made.
pub fn cache_directory() -> Result<PathBuf, Error> {
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(path) if path.is_absolute() => path,
        _ => {
            let home = env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .ok_or(Error::NoCacheDirectory)?;
            PathBuf::from(home).join(".cache")
        }
    };
    let path = base.join("redleaf-appliance");
    fs::create_dir_all(&path).map_err(Error::file(&path))?;
    Ok(path)
}

/// Held while something in the cache is made; a second run waits for the first and then finds its result.
///
/// The lock goes with the process that holds it, so a killed run leaves none behind.
pub(crate) struct CacheLock(#[expect(dead_code, reason = "held for its lock, never read")] File);

impl CacheLock {
    pub(crate) fn acquire(directory: &Path, name: &str) -> Result<Self, Error> {
        let path = directory.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file(&path))?;
        file.lock().map_err(Error::file(&path))?;
        Ok(Self(file))
    }
}
