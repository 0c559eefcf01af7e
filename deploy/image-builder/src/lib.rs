//! From the tree to what boots: a kernel image and a boot archive.
//!
//! The steps, each in a file of its own: read the manifest (crate `configuration`), generate a Cargo workspace with one
//! binary for each domain ([`generate`]), build it and the kernel with the flags in [`flags`], sign the images (crate
//! `sign`) and pack everything into the archive that the boot loader hands to the kernel ([`archive`]). Disk images are
//! not made here.

#![forbid(unsafe_code)]

pub mod archive;
mod cargo;
mod domain_image;
pub mod flags;
pub mod generate;
mod interface_hash;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use archive::BootArchive;
use configuration::appliance::Appliance;
use configuration::domains::Domains;
use generate::GeneratedWorkspace;
use progress::{Step, megabytes};
use sign::Key;

pub use domain_image::{DomainImage, DomainOptions, build_domain};
pub use interface_hash::InterfaceIdentity;

/// What to build, from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The project's root directory.
    pub root: PathBuf,
    /// The operator's file; `config/appliance.toml` below the root when `None`.
    pub appliance: Option<PathBuf>,
    /// Folder that httpd serves; `config/site` below the root when `None`.
    pub site: Option<PathBuf>,
    /// File with the signing key; the development key when `None`.
    pub key: Option<PathBuf>,
    /// Where the archive is written; `target/appliance/boot.tar` below the root when `None`.
    pub archive: Option<PathBuf>,
    /// Signed images for the spare slots, by domain: what `update NAME` can change to without an upload.
    pub spare: Vec<(String, PathBuf)>,
    /// The manifest of domains; `config/domains.toml` below the root when `None`.
    pub manifest: Option<PathBuf>,
    /// Builds an image that attacks itself, in place of a release.
    pub attack: Option<Attack>,
}

/// The manifest of a release, relative to the root.
const DOMAINS: &str = "config/domains.toml";

/// A build for tests of isolation: its domains fault on purpose.
#[derive(Clone, Debug)]
pub struct Attack {
    /// Its manifest, in place of config/domains.toml.
    pub manifest: PathBuf,
    /// Whether its kernel makes crossings fault on request.
    pub injector: bool,
}

impl Attack {
    /// What distinguishes its files from a release's.
    fn name(&self) -> &'static str {
        if self.injector { "inject" } else { "attack" }
    }
}

impl Options {
    /// A build of what is in the tree, with the development key.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            appliance: None,
            site: None,
            key: None,
            archive: None,
            spare: Vec::new(),
            manifest: None,
            attack: None,
        }
    }

    fn manifest(&self) -> PathBuf {
        match &self.attack {
            Some(attack) => attack.manifest.clone(),
            None => self.manifest.clone().unwrap_or_else(|| self.root.join(DOMAINS)),
        }
    }

    /// Name of the flavour; empty for a release.
    fn flavour(&self) -> &'static str {
        self.attack.as_ref().map_or("", Attack::name)
    }

    fn appliance_file(&self) -> PathBuf {
        self.appliance
            .clone()
            .unwrap_or_else(|| self.root.join("config/appliance.toml"))
    }

    fn signing_key(&self) -> Result<Key> {
        signing_key(self.key.as_deref())
    }
}

fn signing_key(path: Option<&Path>) -> Result<Key> {
    match path {
        Some(path) => Ok(Key::from_file(path)?),
        None => Ok(Key::development()),
    }
}

/// What a build has made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The kernel: an ELF that `qemu -kernel` and GRUB boot.
    pub kernel: PathBuf,
    /// The boot archive, for `-initrd` or as a boot loader's module.
    pub archive: PathBuf,
    /// Bytes of each signed domain image, by name.
    pub domains: BTreeMap<String, usize>,
    /// The ELF that each domain's image was made of, with symbols, by name.
    pub elves: BTreeMap<String, PathBuf>,
}

/// Builds kernel and boot archive.
///
/// # Errors
/// When the configuration is wrong (with file and line), something doesn't compile, or a file can't be read or written.
pub fn build(options: &Options) -> Result<Built> {
    let root = &options.root;
    refuse_rule_breakers(root)?;
    let appliance_file = options.appliance_file();
    Appliance::read(&appliance_file)?;
    let domains = Domains::read(&options.manifest())?;
    let key = options.signing_key()?;
    let flavour = options.flavour();
    let identity = InterfaceIdentity::of(root, flavour)?;

    let step = Step::start(format!("Building {} domains", domains.packages.len()));
    let mut elves = BTreeMap::new();
    let mut crates = BTreeMap::new();
    for workspace in workspaces(options, &domains)? {
        let linked = cargo::crates_of(&workspace)?;
        if options.attack.is_none() {
            refuse_attackers(&linked)?;
        }
        crates.extend(linked);
        elves.extend(cargo::build_domains(root, &workspace)?);
    }
    elves.retain(|name, _| domains.packages.contains_key(name));
    step.done("");

    let step = Step::start("Building the kernel");
    let kernel = cargo::build_kernel(root, &key, &identity, flavour)?;
    step.done("");

    let step = Step::start("Packing the boot archive");
    let mut archive = BootArchive::new();
    archive.add("manifest", sign::sign_manifest(&domains.system, &key))?;
    archive.add("config/appliance.toml", read(&appliance_file)?)?;
    let signer = domain_image::Signer {
        key: &key,
        identity: &identity,
        label: None,
    };
    let mut sizes = BTreeMap::new();
    for (name, path) in &elves {
        let linked = crates.get(name).cloned().unwrap_or_default();
        let (image, _) = signer.sign(name, path, linked)?;
        sizes.insert(name.clone(), image.len());
        archive.add(&format!("domains/{name}"), image)?;
    }
    for (name, path) in &options.spare {
        if !elves.contains_key(name) {
            bail!("a spare image is for a domain of config/domains.toml, and `{name}` is none");
        }
        archive.add(&format!("spare/{name}"), read(path)?)?;
    }
    let site = options.site.clone().unwrap_or_else(|| root.join("config/site"));
    archive.add_folder("site", &site)?;
    if let Some(seconds) = archive::last_change(&site)? {
        archive.add("site.time", format!("{seconds}\n").into_bytes())?;
    }
    let path = options
        .archive
        .clone()
        .unwrap_or_else(|| root.join("target/appliance").join(named("boot", flavour, "tar")));
    let bytes = archive.write(&path)?;
    step.done(format!(
        "{}, signed with the key {}",
        megabytes(bytes),
        key.name()
    ));
    Ok(Built {
        kernel,
        archive: path,
        domains: sizes,
        elves,
    })
}

/// The workspaces that the domains' images are built from; where two have a domain, the later one's is meant. What an attack image has of the shipped
/// domains is built with these, so that it is built once.
fn workspaces(options: &Options, domains: &Domains) -> Result<Vec<GeneratedWorkspace>> {
    let root = &options.root;
    let flavour = options.flavour();
    if options.attack.is_none() {
        return Ok(vec![generate::workspace(root, &domains.packages, flavour)?]);
    }
    let shipped = Domains::read(&root.join(DOMAINS))?.packages;
    let own: BTreeMap<String, String> = domains
        .packages
        .iter()
        .filter(|(name, package)| shipped.get(*name) != Some(package))
        .map(|(name, package)| (name.clone(), package.clone()))
        .collect();
    let mut workspaces = Vec::new();
    if own.len() < domains.packages.len() {
        workspaces.push(generate::workspace(root, &shipped, "")?);
    }
    if !own.is_empty() {
        workspaces.push(generate::workspace(root, &own, flavour)?);
    }
    Ok(workspaces)
}

/// Builds the kernel alone, for what needs no domains, such as its self-test.
///
/// # Errors
/// As [`build`].
pub fn build_kernel(options: &Options) -> Result<PathBuf> {
    let step = Step::start("Building the kernel");
    let flavour = options.flavour();
    let identity = InterfaceIdentity::of(&options.root, flavour)?;
    let kernel = cargo::build_kernel(&options.root, &options.signing_key()?, &identity, flavour)?;
    step.done("");
    Ok(kernel)
}

/// Writes the workspace that the domain images are built from, and returns its directory.
///
/// # Errors
/// When config/domains.toml is wrong or the workspace can't be written.
pub fn generate_domains(root: &Path) -> Result<PathBuf> {
    let domains = Domains::read(&root.join(DOMAINS))?;
    Ok(generate::workspace(root, &domains.packages, "")?.directory)
}

/// A file's name: that of a release's, or with the flavour in it.
fn named(stem: &str, flavour: &str, extension: &str) -> String {
    if flavour.is_empty() {
        format!("{stem}.{extension}")
    } else {
        format!("{stem}-{flavour}.{extension}")
    }
}

/// A release has no code that faults on purpose, whatever a manifest says.
fn refuse_attackers(crates: &BTreeMap<String, Vec<String>>) -> Result<()> {
    let library = format!("{} ", rules::layers::ATTACK_LIBRARY);
    for (domain, linked) in crates {
        if linked.iter().any(|name| name.starts_with(&library)) {
            bail!(
                "domain `{domain}` links the crate that raises faults on purpose: it can't be part of a release"
            );
        }
    }
    Ok(())
}

/// Nothing is built or signed from a tree that breaks the rules which isolation rests on (docs/soundness.md, invariant 1): the same
/// check as `cargo xtask test --only unsafe` and `layers`.
fn refuse_rule_breakers(root: &Path) -> Result<()> {
    let project = rules::Project::read(root)?;
    let mut violations = rules::unsafe_code::check(&project)?;
    violations.extend(rules::layers::check(&project));
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    bail!(
        "nothing is built from a tree that breaks these rules:\n{}",
        lines.join("\n")
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} can't be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_raises_no_faults_on_purpose() {
        let linking = |name: &str| BTreeMap::from([("victim".to_owned(), vec![name.to_owned()])]);
        assert!(refuse_attackers(&linking("attack 0.1.0")).is_err());
        assert!(refuse_attackers(&linking("attackless 0.1.0")).is_ok());
    }

    #[test]
    fn an_attack_build_leaves_a_releases_files_alone() {
        assert_eq!(named("kernel", "", "elf"), "kernel.elf");
        assert_eq!(named("kernel", "inject", "elf"), "kernel-inject.elf");
    }
}
