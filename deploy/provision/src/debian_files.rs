//! Debian packages, unpacked into the cache and not installed: for guests, and for what only some measurement needs.
//!
//! A folder is made beside its final place and renamed when it is whole; `SHA256SUMS.json` in it records what it was made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use progress::Step;

use crate::apt::{Apt, checksums};
use crate::cache::{CacheLock, cache_directory};
use crate::command::{find_program, run};
use crate::error::Error;
use crate::mirror::debian_mirror;

/// Raised when the way a folder is made changes, so that older ones are made again.
const RECIPE: u32 = 1;
const RECORD: &str = "SHA256SUMS.json";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Unpacked packages with everything that they depend on.
#[derive(Clone, Debug)]
pub struct PackageFiles {
    /// The folder that stands for the root directory.
    pub root: PathBuf,
}

impl PackageFiles {
    /// Where a program, given by its place below `/`, finds its libraries: files below [`PackageFiles::root`].
    ///
    /// # Errors
    /// When the loader can't tell.
    pub fn libraries(&self, program: &str) -> Result<Vec<PathBuf>, Error> {
        let folder = self.root.join(LIBRARIES);
        let loader = [
            &folder,
            &self.root.join("lib/x86_64-linux-gnu"),
            &self.root.join("lib64"),
        ]
        .map(|folder| folder.join(LOADER))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoProgram {
            program: LOADER.to_owned(),
            package: "libc6",
        })?;
        // The last is where a package keeps libraries that only its own find, fio's support for Ceph among them.
        let search = [
            &folder,
            &self.root.join("lib/x86_64-linux-gnu"),
            &folder.join("ceph"),
        ]
        .map(|path| path.display().to_string())
        .join(":");
        let listing = run(Command::new(&loader)
            .args(["--inhibit-cache", "--library-path", &search, "--list"])
            .arg(self.root.join(program)))?;
        let mut libraries: Vec<PathBuf> = listing
            .split_whitespace()
            .map(PathBuf::from)
            .filter(|path| path.starts_with(&self.root))
            .collect();
        libraries.push(loader);
        libraries.sort();
        libraries.dedup();
        Ok(libraries)
    }
}

/// Packages of a Debian release with what they depend on, unpacked once into the folder `name` of the cache.
///
/// # Errors
/// When they can't be fetched or unpacked.
pub fn debian_packages(name: &str, suite: &str, packages: &[&str]) -> Result<PackageFiles, Error> {
    let folder = made(name, |work, step| {
        let apt = Apt::new(work, &debian_mirror()?, &[suite], step)?;
        let archives = apt.packages(packages, None, step)?;
        let root = work.join("copy/root");
        fs::create_dir_all(&root).map_err(Error::file(&root))?;
        for (count, archive) in archives.iter().enumerate() {
            step.note(format!("unpacking {count} of {}", archives.len()));
            run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&root))?;
        }
        Ok(archives)
    })?;
    Ok(PackageFiles {
        root: folder.join("root"),
    })
}

/// The source of a package of a Debian release, as its authors published it, unpacked once into the folder `name` of the cache.
///
/// # Errors
/// When it can't be fetched or unpacked.
pub fn debian_source(name: &str, suite: &str, package: &str) -> Result<PathBuf, Error> {
    let folder = made(name, |work, step| {
        let apt = Apt::new(work, &debian_mirror()?, &[suite], step)?;
        let archives = apt.source(package, step)?;
        let root = work.join("copy/root");
        fs::create_dir_all(&root).map_err(Error::file(&root))?;
        let original = archives
            .iter()
            .filter(|path| path.to_string_lossy().contains(".orig.tar."));
        for archive in original.filter(|path| !path.to_string_lossy().ends_with(".asc")) {
            run(Command::new("tar")
                .args(["--strip-components=1", "-xf"])
                .arg(archive)
                .arg("-C")
                .arg(&root))?;
        }
        Ok(archives)
    })?;
    Ok(folder.join("root"))
}

/// The folder, made by `make` (as `copy` in its working directory) when it isn't there.
fn made(
    name: &str,
    make: impl FnOnce(&Path, &Step) -> Result<Vec<PathBuf>, Error>,
) -> Result<PathBuf, Error> {
    let cache = cache_directory()?;
    let home = cache.join(format!("{name}-{RECIPE}"));
    let _lock = CacheLock::acquire(&cache, name)?;
    if home.join(RECORD).is_file() {
        return Ok(home);
    }
    for (program, package) in [("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("tar", "tar")] {
        find_program(program).ok_or_else(|| Error::NoProgram {
            program: program.to_owned(),
            package,
        })?;
    }
    // Removed when dropped, so a failure leaves nothing behind.
    let work = tempfile::Builder::new()
        .prefix(&format!("{name}.partial-"))
        .tempdir_in(&cache)
        .map_err(Error::file(&cache))?;
    let step = Step::start(format!("Fetching {name} from Debian's archive"));
    let archives = make(work.path(), &step)?;
    let copy = work.path().join("copy");
    let record = copy.join(RECORD);
    let text = serde_json::to_vec_pretty(&checksums(&archives)?).map_err(|error| Error::File {
        path: record.clone(),
        source: error.into(),
    })?;
    fs::write(&record, text).map_err(Error::file(&record))?;
    fs::rename(&copy, &home).map_err(Error::file(&home))?;
    step.done(format!("{} files, in {}", archives.len(), home.display()));
    Ok(home)
}
