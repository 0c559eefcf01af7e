//! The guest's parts: Debian's kernel with its modules, and a static busybox, fetched through apt and kept in a cache.
//!
//! apt checks the archive's signatures. A SHA-256 list written beside the packages shows later that the cache is whole.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNEL_META_PACKAGE: &str = "linux-image-amd64";
const BUSYBOX_PACKAGE: &str = "busybox-static";
const CHECKSUMS: &str = "SHA256SUMS";

/// Unpacked packages.
pub struct Assets {
    root: PathBuf,
    /// Version of the kernel, as its module folder is called.
    pub kernel_version: String,
}

impl Assets {
    /// The kernel image.
    pub fn kernel(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.kernel_version))
    }

    /// The busybox program, which runs on this machine, too.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// The folder with the kernel's modules.
    pub fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.kernel_version)
    }
}

/// Folder for what can be fetched again: `$XDG_CACHE_HOME` or `~/.cache`, then the project's name.
pub fn default_cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    Ok(base.join("redleaf-appliance"))
}

/// Makes sure that the parts are there; `say` is told of what takes time.
pub fn provide(cache: &Path, say: &dyn Fn(&str)) -> Result<Assets> {
    let folder = cache.join("linux-guest");
    let root = folder.join("root");
    if let Ok(assets) = check(&folder, &root) {
        return Ok(assets);
    }
    fs::create_dir_all(cache).with_context(|| format!("can't make {}", cache.display()))?;
    // Put together beside its final place, so that a cache that exists is a whole one.
    let fresh = cache.join(format!("linux-guest.{}", std::process::id()));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(fresh.join("root"))?;
    let kernel = kernel_package()?;
    say(&format!("fetching {kernel} and {BUSYBOX_PACKAGE} (70 MB)"));
    run(Command::new("apt-get")
        .args([
            "-q",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            &kernel,
            BUSYBOX_PACKAGE,
        ])
        .current_dir(&fresh))?;
    say("unpacking them");
    let mut sums = String::new();
    for package in packages(&fresh)? {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(fresh.join("root")))?;
        let name = package
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        sums.push_str(&format!("{}  {name}\n", file_sum(&package)?));
    }
    fs::write(fresh.join(CHECKSUMS), sums)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&fresh, &folder).with_context(|| format!("can't put {} into its place", folder.display()))?;
    check(&folder, &root)
}

/// Accepts a cache whose packages have the noted checksums and whose parts are there.
fn check(folder: &Path, root: &Path) -> Result<Assets> {
    let sums = fs::read_to_string(folder.join(CHECKSUMS))?;
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").context("malformed checksum list")?;
        if file_sum(&folder.join(name))? != sum {
            bail!("{name} in the cache is damaged");
        }
    }
    let mut versions = fs::read_dir(root.join("lib/modules"))?;
    let entry = versions.next().context("no modules in the kernel's package")??;
    let kernel_version = entry.file_name().to_string_lossy().into_owned();
    let assets = Assets {
        root: root.to_owned(),
        kernel_version,
    };
    for part in [assets.kernel(), assets.busybox()] {
        if !part.is_file() {
            bail!("{} is missing", part.display());
        }
    }
    Ok(assets)
}

/// The package that the kernel's meta-package stands for at present.
fn kernel_package() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "--important", KERNEL_META_PACKAGE])
        .output()
        .context("apt-cache can't be run; this check needs Debian or Ubuntu")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"));
    match found {
        Some(name) => Ok(name.to_owned()),
        None => bail!("apt doesn't know {KERNEL_META_PACKAGE}; run `apt-get update` first"),
    }
}

fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            list.push(path);
        }
    }
    list.sort();
    Ok(list)
}

fn file_sum(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("can't run {:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{:?} failed: {}",
        command.get_program(),
        text.lines().last().unwrap_or("no message")
    );
}
