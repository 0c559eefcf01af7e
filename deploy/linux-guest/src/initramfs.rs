//! The guest's root file system: an uncompressed cpio archive with busybox, modules and a start-up script.

use crate::assets::Assets;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the guest runs first: mounts, then lines from the console, each answered with its exit status.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty raw -echo
dmesg -n 1
ip link set lo up
echo '<<ready>>'
while read -r line; do
    eval "$line"
    echo "<<status $?>>"
done
poweroff -f
"#;

/// Modules that the guest loads besides those they depend on.
pub const MODULES: [&str; 2] = ["ixgbe", "8021q"];

/// An archive, and the order in which its modules have to be loaded.
pub struct Initramfs {
    /// The archive's bytes.
    pub archive: Vec<u8>,
    /// File names under `/modules`, for each of [`MODULES`], dependencies first.
    pub load_order: Vec<(String, Vec<String>)>,
}

/// Builds the archive.
pub fn build(assets: &Assets) -> Result<Initramfs> {
    build_with(assets, &MODULES, |_| INIT.to_owned(), &[])
}

/// Builds an archive with other modules, a start-up script made of their load order, and more files (place below `/`, mode, content).
pub fn build_with(
    assets: &Assets,
    modules: &[&str],
    init: impl FnOnce(&[(String, Vec<String>)]) -> String,
    files: &[(String, u32, Vec<u8>)],
) -> Result<Initramfs> {
    let available = find_modules(&assets.modules())?;
    let mut archive = Archive::default();
    for folder in ["bin", "modules"] {
        archive.add(folder, 0o040_755, &[]);
    }
    let busybox = fs::read(assets.busybox()).context("can't read busybox")?;
    archive.add("bin/busybox", 0o100_755, &busybox);
    let mut packed = BTreeSet::new();
    let mut load_order = Vec::new();
    for &module in modules {
        let mut order = Vec::new();
        resolve(module, &available, &mut order, 0)?;
        for path in &order {
            let name = file_name(path);
            if packed.insert(name.clone()) {
                archive.add(&format!("modules/{name}"), 0o100_644, &fs::read(path)?);
            }
        }
        load_order.push((
            module.to_owned(),
            order.iter().map(|path| file_name(path)).collect(),
        ));
    }
    archive.add("init", 0o100_755, init(&load_order).as_bytes());
    let mut folders = BTreeSet::new();
    for (name, mode, content) in files {
        for (at, _) in name.match_indices('/') {
            let folder = name.get(..at).unwrap_or_default();
            if folder != "bin" && folders.insert(folder) {
                archive.add(folder, 0o040_755, &[]);
            }
        }
        archive.add(name, *mode, content);
    }
    Ok(Initramfs {
        archive: archive.finish(),
        load_order,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Every module file below a folder.
fn find_modules(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Adds a module's file behind those it depends on.
fn resolve(name: &str, available: &[PathBuf], order: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    const DEEPEST: usize = 16;
    let wanted = name.replace('-', "_");
    let path = available.iter().find(|path| {
        path.file_stem()
            .is_some_and(|stem| stem.to_string_lossy().replace('-', "_") == wanted)
    });
    let Some(path) = path else {
        bail!("the kernel's package has no module {name} as a .ko file")
    };
    if order.contains(path) {
        return Ok(());
    }
    if depth > DEEPEST {
        bail!("modules depend on each other in a circle at {name}");
    }
    let bytes = fs::read(path)?;
    for dependency in dependencies(&bytes) {
        resolve(&dependency, available, order, depth + 1)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The `depends=` entry of a module's information section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module
        .get(start + KEY.len()..)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A cpio archive in the "newc" format.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_644, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..117], b"12345");
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn dependencies_are_read_from_the_information_section() {
        assert_eq!(
            dependencies(b"x\0depends=dca,mdio\0name=ixgbe\0"),
            ["dca", "mdio"]
        );
        assert!(dependencies(b"x\0depends=\0name=dca\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}
