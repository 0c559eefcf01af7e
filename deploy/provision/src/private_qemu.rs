//! A private copy of QEMU, unpacked from Debian packages into the cache.
//!
//! Needs no root and installs nothing on the host: apt, with a state directory of its own, downloads QEMU from the
//! backports of Debian 13 with all its libraries and checks the archive's signatures; `dpkg-deb` unpacks them; what an x86
//! guest doesn't need is left out. The copy runs through its own loader, so the host's libraries don't matter.
//!
//! The copy is made in a directory beside its final one and renamed when it has been seen to work, so a half-made copy is
//! never used; a lock lets two runs share the work. `provision.json` in it records the packages and their SHA-256.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use progress::{Step, megabytes};
use serde::{Deserialize, Serialize};

use crate::apt::{Apt, checksums};
use crate::cache::{CacheLock, cache_directory};
use crate::command::{find_program, run};
use crate::error::Error;
use crate::mirror::debian_mirror;
use crate::qemu::{QemuPaths, QemuVersion, check};

/// Raised when the way a copy is made changes, so that older copies are made again.
const RECIPE: u32 = 1;

const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-utils", "ovmf"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const PROGRAMS: [&str; 2] = ["qemu-system-x86_64", "qemu-img"];

/// What a finished copy says about itself.
#[derive(Serialize, Deserialize)]
struct Record {
    recipe: u32,
    /// Package file → SHA-256 in hexadecimal.
    packages: BTreeMap<String, String>,
}

/// The private copy, made if there is none.
pub(crate) fn get() -> Result<QemuPaths, Error> {
    let cache = cache_directory()?;
    let home = cache.join(format!("qemu-private-{RECIPE}"));
    let _lock = CacheLock::acquire(&cache, "qemu-private")?;
    if let Some(paths) = usable(&home) {
        return Ok(paths);
    }
    make(&cache, &home)
}

/// The copy at `home`, if it is whole and runs.
fn usable(home: &Path) -> Option<QemuPaths> {
    let record: Record = serde_json::from_slice(&fs::read(home.join("provision.json")).ok()?).ok()?;
    if record.recipe != RECIPE {
        return None;
    }
    let version = check(&home.join(PROGRAMS[0])).ok()?;
    Some(paths(home, version))
}

fn paths(home: &Path, version: QemuVersion) -> QemuPaths {
    let uefi = home.join("root/usr/share/OVMF");
    let uefi = (uefi.join("OVMF_CODE_4M.fd"), uefi.join("OVMF_VARS_4M.fd"));
    QemuPaths {
        system: home.join(PROGRAMS[0]),
        image_tool: Some(home.join(PROGRAMS[1])),
        uefi: (uefi.0.exists() && uefi.1.exists()).then_some(uefi),
        version,
    }
}

fn make(cache: &Path, home: &Path) -> Result<QemuPaths, Error> {
    for (program, package) in [("apt-get", "apt"), ("dpkg-deb", "dpkg")] {
        find_program(program).ok_or_else(|| Error::NoProgram {
            program: program.to_owned(),
            package,
        })?;
    }
    let mirror = debian_mirror()?;
    // Removed when dropped, so a failure leaves nothing behind.
    let work = tempfile::Builder::new()
        .prefix("qemu-private.partial-")
        .tempdir_in(cache)
        .map_err(Error::file(cache))?;

    let step = Step::start("Fetching a private QEMU (the system has none with vfio-user-pci; some 45 MB)");
    let apt = Apt::new(work.path(), &mirror, &["trixie", "trixie-backports"], &step)?;
    let archives = apt.packages(&PACKAGES, Some("trixie-backports"), &step)?;
    let record = Record {
        recipe: RECIPE,
        packages: checksums(&archives)?,
    };
    let bytes: u64 = archives
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|data| data.len())
        .sum();
    step.done(format!("{} packages, {}", archives.len(), megabytes(bytes)));

    let step = Step::start("Unpacking QEMU");
    let copy = work.path().join("copy");
    let full = work.path().join("full");
    for directory in [&copy, &full] {
        fs::create_dir(directory).map_err(Error::file(directory))?;
    }
    for (count, archive) in archives.iter().enumerate() {
        step.note(format!("{count} of {}", archives.len()));
        run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&full))?;
    }
    forget_host_modules(&full.join("usr/bin/qemu-system-x86_64"))?;
    step.note("keeping what an x86 guest needs");
    keep_needed(&full, &copy.join("root"))?;
    write_launchers(&copy)?;
    let version = check(&copy.join(PROGRAMS[0]))?;
    let record_path = copy.join("provision.json");
    let text = serde_json::to_vec_pretty(&record).map_err(|error| Error::File {
        path: record_path.clone(),
        source: error.into(),
    })?;
    fs::write(&record_path, text).map_err(Error::file(&record_path))?;

    if home.exists() {
        fs::remove_dir_all(home).map_err(Error::file(home))?;
    }
    fs::rename(&copy, home).map_err(Error::file(home))?;
    step.done(format!("QEMU {version} in {}", home.display()));
    Ok(paths(home, version))
}

/// Debian's QEMU has its module directory compiled in, so with another QEMU on the host it would load that one's modules
/// and abort. The string is replaced by a path of the same length that doesn't exist.
fn forget_host_modules(program: &Path) -> Result<(), Error> {
    const OLD: &[u8] = b"/usr/lib/x86_64-linux-gnu/qemu\0";
    const NEW: &[u8] = b"/nonexistent/qemu-modules\0\0\0\0\0\0";
    const { assert!(OLD.len() == NEW.len()) };

    let mut bytes = fs::read(program).map_err(Error::file(program))?;
    let mut position = 0;
    while let Some(rest) = bytes.get_mut(position..).filter(|rest| rest.len() >= OLD.len()) {
        let Some(found) = rest.windows(OLD.len()).position(|window| window == OLD) else {
            break;
        };
        if let Some(place) = rest.get_mut(found..found + OLD.len()) {
            place.copy_from_slice(NEW);
        }
        position += found + OLD.len();
    }
    fs::write(program, bytes).map_err(Error::file(program))
}

/// Copies the programs, the libraries their loader asks for, and the firmware an x86 guest needs.
fn keep_needed(full: &Path, kept: &Path) -> Result<(), Error> {
    let libraries = full.join(LIBRARIES);
    let loader = libraries.join("ld-linux-x86-64.so.2");
    let mut wanted: BTreeSet<PathBuf> = [loader.clone()].into();
    for program in PROGRAMS {
        let listing = run(Command::new(&loader)
            .args(["--inhibit-cache", "--library-path"])
            .arg(&libraries)
            .arg("--list")
            .arg(full.join("usr/bin").join(program)))?;
        wanted.extend(
            listing
                .split_whitespace()
                .map(PathBuf::from)
                .filter(|path| path.starts_with(&libraries)),
        );
    }
    for library in &wanted {
        if let Some(name) = library.file_name() {
            copy_file(library, &kept.join(LIBRARIES).join(name))?;
        }
    }
    for program in PROGRAMS {
        copy_file(
            &full.join("usr/bin").join(program),
            &kept.join("usr/bin").join(program),
        )?;
    }
    for directory in [
        "usr/share/seabios",
        "usr/share/OVMF",
        "usr/lib/ipxe/qemu",
        "usr/share/qemu/keymaps",
    ] {
        copy_tree(&full.join(directory), &kept.join(directory))?;
    }
    let data = full.join("usr/share/qemu");
    let small = |name: &str| [".bin", ".rom"].iter().any(|end| name.ends_with(end));
    for entry in fs::read_dir(&data).map_err(Error::file(&data))?.flatten() {
        let name = entry.file_name();
        // Links into packages for other machines dangle; they are not needed.
        if small(&name.to_string_lossy()) && entry.path().is_file() {
            copy_file(&entry.path(), &kept.join("usr/share/qemu").join(&name))?;
        }
    }
    Ok(())
}

pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(Error::file(parent))?;
    }
    fs::copy(from, to).map(drop).map_err(Error::file(from))
}

/// Copies a directory's files, following links; one that isn't there or leads nowhere is passed over.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let target = to.join(entry.file_name());
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else if path.is_file() {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Scripts that run the programs through the copy's own loader, with nothing of the host's C library.
fn write_launchers(copy: &Path) -> Result<(), Error> {
    for program in PROGRAMS {
        let firmware = if program.starts_with("qemu-system") {
            " -L \"$root/usr/share/qemu\" -L \"$root/usr/share/seabios\" -L \"$root/usr/lib/ipxe/qemu\""
        } else {
            ""
        };
        let text = format!(
            "#!/bin/sh\n# Runs the private QEMU through its own loader.\n\
             root=$(dirname \"$(readlink -f \"$0\")\")/root\nlibraries=$root/{LIBRARIES}\n\
             export QEMU_MODULE_DIR=\"$libraries/qemu\" GCONV_PATH=\"$libraries/gconv\" LC_ALL=C\n\
             exec \"$libraries/ld-linux-x86-64.so.2\" --inhibit-cache --library-path \"$libraries\" \
             \"$root/usr/bin/{program}\"{firmware} \"$@\"\n"
        );
        let path = copy.join(program);
        fs::write(&path, text).map_err(Error::file(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::file(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_directory_is_replaced_everywhere_and_nothing_else_changes() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        let path = b"/usr/lib/x86_64-linux-gnu/qemu\0";
        let content = [
            b"head\0".as_slice(),
            path,
            b"middle",
            path,
            b"/usr/lib/x86_64-linux-gnu/qemu/other\0",
        ]
        .concat();
        fs::write(&program, &content).unwrap();

        forget_host_modules(&program).unwrap();

        let changed = fs::read(&program).unwrap();
        assert_eq!(changed.len(), content.len());
        assert!(!changed.windows(path.len()).any(|window| window == path));
        assert!(changed.ends_with(b"/usr/lib/x86_64-linux-gnu/qemu/other\0"));
        assert_eq!(
            changed
                .windows(12)
                .filter(|window| window == b"/nonexistent")
                .count(),
            2
        );
    }

    #[test]
    fn a_copy_without_a_record_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        assert!(usable(directory.path()).is_none());
        fs::write(directory.path().join("provision.json"), "{").unwrap();
        assert!(usable(directory.path()).is_none());
    }
}
