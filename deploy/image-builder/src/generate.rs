//! The generated Cargo workspace: one binary for each package that the manifest's domains are built from.
//!
//! A domain's author writes a library with a `start` function. The binary around it (entry point, allocator, panic
//! handler: macro `domain_rt::entry!`) is the same for all of them and is made here, in `target/domains-src/`, with the
//! root's own lock file and profile, so that domains are built from exactly the versions that are tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::flags::PROFILE;

/// Where the generated workspace is, and which of its packages is which domain's.
pub struct GeneratedWorkspace {
    /// Its directory.
    pub directory: PathBuf,
    /// Generated package (and binary) → the domains that run it.
    pub members: BTreeMap<String, Vec<String>>,
}

/// The generated package (and binary) of a package that domains are built from.
fn package_name(package: &str) -> String {
    format!("domain-{package}")
}

/// Writes the workspace of a flavour (empty for a release) from each domain's package; files that would not change are left alone, so that Cargo sees no work where there is none.
///
/// # Errors
/// When a domain's package is not in the project or a file can't be written.
pub fn workspace(
    root: &Path,
    packages: &BTreeMap<String, String>,
    flavour: &str,
) -> Result<GeneratedWorkspace> {
    // Directories of their own, so that one flavour's build doesn't undo the other's.
    let separator = if flavour.is_empty() { "" } else { "-" };
    let directory = root.join(format!("target/domains-src{separator}{flavour}"));
    let mut members: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (domain, package) in packages {
        members.entry(package).or_default().push(domain.clone());
    }
    let members = members
        .into_iter()
        .map(|(package, domains)| Member {
            name: package_name(package),
            package,
            domains,
        })
        .collect();
    write_workspace(root, directory, members)
}

/// Writes a workspace of its own for one image of `domain`, built from `package`, so that the boot archive's images are not touched.
///
/// # Errors
/// As [`workspace`].
pub fn single(root: &Path, domain: &str, package: &str) -> Result<GeneratedWorkspace> {
    let members = vec![Member {
        name: format!("update-{domain}"),
        package,
        domains: vec![domain.to_owned()],
    }];
    write_workspace(root, root.join("target/update-src"), members)
}

/// A generated package.
struct Member<'a> {
    /// Its name, and its binary's.
    name: String,
    /// The project's package that it is built from.
    package: &'a str,
    /// The domains that run it.
    domains: Vec<String>,
}

fn write_workspace(root: &Path, directory: PathBuf, members: Vec<Member<'_>>) -> Result<GeneratedWorkspace> {
    let packages = cargo::packages(root)?;
    for member in &members {
        let Some(home) = packages.get(member.package) else {
            bail!(
                "domain `{}` is to be built from the package `{}`, which doesn't exist",
                member.domains.join("`, `"),
                member.package
            );
        };
        write_member(root, &directory.join(&member.name), member, home)?;
    }
    let names: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
    remove_others(&directory, &names)?;
    write(&directory.join("Cargo.toml"), &workspace_file(root, &names)?)?;
    copy_lock(root, &directory)?;
    Ok(GeneratedWorkspace {
        directory,
        members: members
            .into_iter()
            .map(|member| (member.name, member.domains))
            .collect(),
    })
}

fn write_member(root: &Path, directory: &Path, member: &Member<'_>, home: &Path) -> Result<()> {
    let Member { name, package, .. } = member;
    let manifest = format!(
        "# Generated from config/domains.toml.\n[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         publish = false\n\n[dependencies]\ndomain-rt = {{ path = {runtime:?}, features = [\"image\"] }}\n\
         freestanding = {{ path = {freestanding:?} }}\n{package} = {{ path = {home:?} }}\n",
        runtime = root.join("kernel/domain-rt"),
        freestanding = root.join("kernel/freestanding"),
    );
    let library = package.replace('-', "_");
    let program = format!(
        "//! Generated from config/domains.toml: the image of a domain.\n#![no_std]\n#![no_main]\n\nextern crate freestanding as _;\n\n\
         domain_rt::entry!({library}::start);\n"
    );
    write(&directory.join("Cargo.toml"), &manifest)?;
    write(&directory.join("src/main.rs"), &program)
}

/// The workspace's own manifest, with the profile that the root defines.
fn workspace_file(root: &Path, members: &[String]) -> Result<String> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    let manifest: toml::Table = text
        .parse()
        .with_context(|| format!("{} can't be parsed", path.display()))?;
    let profile = manifest
        .get("profile")
        .and_then(|profiles| profiles.get(PROFILE))
        .with_context(|| format!("{} defines no profile `{PROFILE}`", path.display()))?;
    let workspace = toml::Table::from_iter([
        ("resolver".to_owned(), toml::Value::from("3")),
        ("members".to_owned(), toml::Value::from(members.to_vec())),
    ]);
    let profiles = toml::Table::from_iter([(PROFILE.to_owned(), profile.clone())]);
    let file = toml::Table::from_iter([
        ("workspace".to_owned(), toml::Value::from(workspace)),
        ("profile".to_owned(), toml::Value::from(profiles)),
    ]);
    Ok(format!("# Generated from config/domains.toml.\n{file}"))
}

/// Copies the root's lock file when that has changed; Cargo then drops from the copy what the domains don't use, which
/// is why the two are not compared with each other.
fn copy_lock(root: &Path, directory: &Path) -> Result<()> {
    let path = root.join("Cargo.lock");
    let Ok(lock) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let seen = directory.join("root.lock");
    if fs::read_to_string(&seen).is_ok_and(|before| before == lock) && directory.join("Cargo.lock").exists() {
        return Ok(());
    }
    write(&directory.join("Cargo.lock"), &lock)?;
    write(&seen, &lock)
}

/// Removes what an earlier manifest left behind.
fn remove_others(directory: &Path, members: &[String]) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !members.contains(&name) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("{} can't be removed", entry.path().display()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_the_roots() {
        let root = tempfile::tempdir().unwrap();
        fs::write(
            root.path().join("Cargo.toml"),
            "[profile.firmware]\ninherits = \"release\"\npanic = \"abort\"\n",
        )
        .unwrap();
        let text = workspace_file(root.path(), &["domain-init".to_owned()]).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["profile"]["firmware"]["panic"].as_str(), Some("abort"));
        assert_eq!(table["workspace"]["members"][0].as_str(), Some("domain-init"));
    }

    #[test]
    fn a_file_that_is_as_wanted_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        write(&path, "text").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        write(&path, "text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    }
}
