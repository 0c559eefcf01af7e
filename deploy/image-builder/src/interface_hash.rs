//! The identity that a domain image and the kernel must share: the contracts' sources, the compiler and its flags.
//!
//! Layouts of exchanged types follow from exactly these, so equal hashes mean that both sides agree on every one.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::flags::CODE_GENERATION;

/// Sources that decide how two images talk: the contracts, and the trusted libraries that give them their form.
const SOURCES: [&str; 4] = [
    "interface/src",
    "kernel/abi/src",
    "kernel/idl/src",
    "kernel/rref/src",
];

/// What attack images talk by, beside the rest.
const ATTACK_SOURCES: [&str; 2] = ["tests/attack/interface/src", "kernel/attack/src"];

/// What an image was built against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceIdentity {
    /// SHA-256 over sources, compiler and flags.
    pub hash: [u8; 32],
    /// `rustc --version`.
    pub compiler: String,
    /// Code generation flags.
    pub flags: String,
}

impl InterfaceIdentity {
    /// Computes it for the tree at `root` and a flavour of it, which is empty for a release.
    ///
    /// # Errors
    /// When a source can't be read or rustc can't be run.
    pub fn of(root: &Path, flavour: &str) -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let output = Command::new(rustc)
            .arg("-vV")
            .current_dir(root)
            .output()
            .context("rustc can't be run")?;
        ensure!(output.status.success(), "rustc -vV failed");
        let verbose = String::from_utf8_lossy(&output.stdout).into_owned();
        let compiler = verbose.lines().next().unwrap_or_default().to_owned();
        let flags = CODE_GENERATION.join(" ");
        Ok(Self {
            hash: hash(root, flavour, &verbose, &flags)?,
            compiler,
            flags,
        })
    }

    /// The hash in hexadecimal.
    pub fn hash_hex(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn hash(root: &Path, flavour: &str, compiler: &str, flags: &str) -> Result<[u8; 32]> {
    let mut files = Vec::new();
    let attack: &[&str] = if flavour.is_empty() { &[] } else { &ATTACK_SOURCES };
    for source in SOURCES.iter().chain(attack) {
        collect(&root.join(source), &mut files)?;
    }
    // By name, so that neither the file system's order nor the place of the clone matters.
    files.sort();
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for path in &files {
        let name = path.strip_prefix(root).unwrap_or(path);
        let text = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
        part(name.as_os_str().as_encoded_bytes());
        part(&text);
    }
    part(compiler.as_bytes());
    part(flags.as_bytes());
    Ok(digest.finalize().into())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("{} can't be read", directory.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("interface/src")).unwrap();
        fs::write(root.path().join("interface/src/lib.rs"), text).unwrap();
        root
    }

    #[test]
    fn the_place_of_the_tree_does_not_matter_but_its_content_compiler_and_flags_do() {
        let (one, same, other) = (tree("a"), tree("a"), tree("b"));
        let of = |root: &tempfile::TempDir, compiler, flags| hash(root.path(), "", compiler, flags).unwrap();
        assert_eq!(of(&one, "c", "f"), of(&same, "c", "f"));
        assert_ne!(of(&one, "c", "f"), of(&other, "c", "f"));
        assert_ne!(of(&one, "c", "f"), of(&one, "d", "f"));
        assert_ne!(of(&one, "c", "f"), of(&one, "c", "g"));
        assert_ne!(of(&one, "cf", ""), of(&one, "c", "f"));
    }

    #[test]
    fn a_renamed_file_is_another_interface() {
        let (one, other) = (tree("a"), tree("a"));
        fs::rename(
            other.path().join("interface/src/lib.rs"),
            other.path().join("interface/src/net.rs"),
        )
        .unwrap();
        assert_ne!(
            hash(one.path(), "", "", "").unwrap(),
            hash(other.path(), "", "", "").unwrap()
        );
    }
}
