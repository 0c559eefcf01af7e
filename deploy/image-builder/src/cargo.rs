//! Calls of Cargo: builds for the appliance, and what it knows of packages.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use sign::Key;

use crate::flags::{PROFILE, TARGET, domain_flags, kernel_flags, write_empty_libraries};
use crate::generate::GeneratedWorkspace;
use crate::interface_hash::InterfaceIdentity;

/// The Cargo that runs this, or the one on the path.
fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// Where builds for the appliance go; apart from the host's, whose flags differ.
fn target_directory(root: &Path) -> PathBuf {
    root.join("target/appliance")
}

/// Where the kernel is built: not with the domains, since Cargo keeps a crate built with one set of flags, and would build all of them anew each time.
fn kernel_directory(root: &Path) -> PathBuf {
    target_directory(root).join("kernel")
}

fn build(
    root: &Path,
    directory: &Path,
    flags: &[String],
    configure: impl FnOnce(&mut Command),
) -> Result<()> {
    let mut command = cargo();
    command
        .current_dir(directory)
        .args([
            "build",
            "--quiet",
            "--target",
            TARGET,
            "--profile",
            PROFILE,
            "--target-dir",
        ])
        .arg(if directory == root {
            kernel_directory(root)
        } else {
            target_directory(root)
        })
        // Flags with blanks survive in this form; it also keeps a user's RUSTFLAGS out of what is signed.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // Those that describe the calling Cargo's own package would make build scripts run again each time.
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME");
    configure(&mut command);
    let status = command.status().context("cargo can't be run")?;
    if !status.success() {
        bail!("the build failed; what the compiler said is above");
    }
    Ok(())
}

/// Builds all domains in one call; returns each domain's ELF.
pub(crate) fn build_domains(
    root: &Path,
    workspace: &GeneratedWorkspace,
) -> Result<BTreeMap<String, PathBuf>> {
    let empty_libraries = target_directory(root).join("no-libraries");
    write_empty_libraries(&empty_libraries)
        .with_context(|| format!("{} can't be written", empty_libraries.display()))?;
    build(
        root,
        &workspace.directory,
        &domain_flags(root, &empty_libraries),
        |_| {},
    )?;
    let output = target_directory(root).join(TARGET).join(PROFILE);
    Ok(workspace
        .members
        .iter()
        .flat_map(|(package, domains)| {
            let elf = output.join(package);
            domains.iter().map(move |domain| (domain.clone(), elf.clone()))
        })
        .collect())
}

/// Builds the kernel, which has the public key and the identity of the interfaces built in, and writes its function names into
/// it. A flavour other than a release's, which is empty, is a feature of the firmware.
pub(crate) fn build_kernel(
    root: &Path,
    key: &Key,
    identity: &InterfaceIdentity,
    flavour: &str,
) -> Result<PathBuf> {
    build(root, root, &kernel_flags(root), |command| {
        command
            .args(["--package", "firmware", "--bin", "appliance"])
            .args(["--features", flavour])
            .env("APPLIANCE_PUBLIC_KEY", key.public_hex())
            .env("APPLIANCE_INTERFACE_HASH", identity.hash_hex())
            .env("APPLIANCE_COMPILER", &identity.compiler)
            .env("APPLIANCE_FLAGS", &identity.flags);
    })?;
    // On a copy, since Cargo's own output is linked to what it keeps for the next build.
    let linked = kernel_directory(root)
        .join(TARGET)
        .join(PROFILE)
        .join("appliance");
    let kernel = target_directory(root).join(crate::named("kernel", flavour, "elf"));
    let partial = target_directory(root).join(format!("kernel.partial-{}", std::process::id()));
    fs::copy(&linked, &partial).with_context(|| format!("{} can't be copied", linked.display()))?;
    embed_symbols::embed(&partial)?;
    fs::rename(&partial, &kernel).with_context(|| format!("{} can't be written", kernel.display()))?;
    Ok(kernel)
}

fn metadata(directory: &Path) -> Result<Metadata> {
    MetadataCommand::new()
        .current_dir(directory)
        .exec()
        .with_context(|| format!("cargo metadata failed in {}", directory.display()))
}

/// The project's packages: name → directory.
pub(crate) fn packages(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let metadata = metadata(root)?;
    Ok(metadata
        .workspace_packages()
        .iter()
        .filter_map(|package| {
            let home = package.manifest_path.parent()?;
            Some((package.name.to_string(), home.as_std_path().to_owned()))
        })
        .collect())
}

/// What each domain's image links: domain → `name version` of each crate, sorted, without the generated package itself.
pub(crate) fn crates_of(workspace: &GeneratedWorkspace) -> Result<BTreeMap<String, Vec<String>>> {
    let metadata = metadata(&workspace.directory)?;
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo metadata resolved nothing")?;
    let mut result = BTreeMap::new();
    for member in metadata.workspace_packages() {
        let Some(domains) = workspace.members.get(member.name.as_str()) else {
            continue;
        };
        let mut seen = BTreeSet::new();
        let mut waiting = vec![&member.id];
        while let Some(id) = waiting.pop() {
            let Some(node) = resolve.nodes.iter().find(|node| node.id == *id) else {
                continue;
            };
            for dependency in &node.deps {
                let linked = dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal);
                if linked && seen.insert(&dependency.pkg) {
                    waiting.push(&dependency.pkg);
                }
            }
        }
        let mut crates: Vec<String> = seen
            .iter()
            .filter_map(|id| metadata.packages.iter().find(|package| package.id == **id))
            // Procedural macros run in the compiler and leave nothing of their own in the image.
            .filter(|package| !package.targets.iter().any(|target| target.is_proc_macro()))
            .map(|package| format!("{} {}", package.name, package.version))
            .collect();
        crates.sort();
        result.extend(domains.iter().map(|domain| (domain.clone(), crates.clone())));
    }
    Ok(result)
}
