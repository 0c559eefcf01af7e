//! One domain's signed image: what it says of itself, and how one is made to update a running appliance with.

use std::fs;
use std::path::{Path, PathBuf};

use abi::image::ImageManifest;
use anyhow::{Context, Result, ensure};
use configuration::domains::Domains;
use progress::Step;
use sha2::{Digest, Sha256};
use sign::Key;

use crate::interface_hash::InterfaceIdentity;
use crate::{cargo, generate, read, refuse_attackers, refuse_rule_breakers, signing_key};

/// Longest name of a build, in bytes: what the appliance shows.
const BUILD_BYTES: usize = 48;
/// Bytes of the digest that tells two builds of one version apart.
const DIGEST_BYTES: usize = 4;

/// Who signs, and what images were built against.
pub(crate) struct Signer<'a> {
    pub key: &'a Key,
    pub identity: &'a InterfaceIdentity,
    /// Name of the build in place of version and digest.
    pub label: Option<&'a str>,
}

impl Signer<'_> {
    /// The signed image of the ELF file at `path`, and the build's name.
    ///
    /// # Errors
    /// When the file can't be read or is not what the linker makes.
    pub fn sign(&self, name: &str, path: &Path, crates: Vec<String>) -> Result<(Vec<u8>, String)> {
        let embed_symbols::Split { mut loaded, table } = embed_symbols::split(&read(path)?)
            .with_context(|| format!("{} can't be taken apart", path.display()))?;
        let build = self.label.map_or_else(|| build_name(&loaded), ToOwned::to_owned);
        loaded.extend_from_slice(&table);
        let manifest = ImageManifest {
            name: name.to_owned(),
            build: build.clone(),
            signer: self.key.public(),
            interface_hash: self.identity.hash,
            compiler: self.identity.compiler.clone(),
            flags: self.identity.flags.clone(),
            symbol_bytes: u32::try_from(table.len())?,
            crates,
        };
        Ok((sign::sign_image(&loaded, manifest, self.key), build))
    }
}

/// The project's version, which all its packages have, and the beginning of the code's SHA-256.
fn build_name(elf: &[u8]) -> String {
    let digest: String = Sha256::digest(elf)
        .iter()
        .take(DIGEST_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}+{digest}", env!("CARGO_PKG_VERSION"))
}

/// Which domain's image to build, and how.
#[derive(Clone, Debug)]
pub struct DomainOptions {
    /// The project's root directory.
    pub root: PathBuf,
    /// The domain, as config/domains.toml names it.
    pub name: String,
    /// Package that it is built from; the manifest's when `None`.
    pub package: Option<String>,
    /// Name of the build, at most 48 printable characters; version and digest of the code when `None`.
    pub label: Option<String>,
    /// File with the signing key; the development key when `None`.
    pub key: Option<PathBuf>,
    /// Where the image is written; `target/update/NAME.image` below the root when `None`.
    pub output: Option<PathBuf>,
}

/// An image that was built.
#[derive(Clone, Debug)]
pub struct DomainImage {
    /// Its file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: usize,
    /// The build's name.
    pub build: String,
}

/// Builds and signs the image of one domain.
///
/// # Errors
/// When there is no such domain, the label can't be one, something doesn't compile, or a file can't be read or written.
pub fn build_domain(options: &DomainOptions) -> Result<DomainImage> {
    let DomainOptions { root, name, .. } = options;
    refuse_rule_breakers(root)?;
    if let Some(label) = &options.label {
        let printable = label.chars().all(|c| c.is_ascii_graphic());
        ensure!(
            printable && (1..=BUILD_BYTES).contains(&label.len()),
            "`{label}` can't name a build: 1 to {BUILD_BYTES} printable ASCII characters without blanks"
        );
    }
    let domains = Domains::read(&root.join("config/domains.toml"))?;
    let package = domains
        .packages
        .get(name)
        .with_context(|| format!("config/domains.toml has no domain called `{name}`"))?;
    let package = options.package.as_ref().unwrap_or(package);
    let key = signing_key(options.key.as_deref())?;
    let identity = InterfaceIdentity::of(root, "")?;

    let step = Step::start(format!("Building domain {name} from {package}"));
    let workspace = generate::single(root, name, package)?;
    let mut crates = cargo::crates_of(&workspace)?;
    refuse_attackers(&crates)?;
    let elves = cargo::build_domains(root, &workspace)?;
    let elf = elves.get(name).context("the build made no image")?;
    let signer = Signer {
        key: &key,
        identity: &identity,
        label: options.label.as_deref(),
    };
    let (image, build) = signer.sign(name, elf, crates.remove(name).unwrap_or_default())?;
    let path = options
        .output
        .clone()
        .unwrap_or_else(|| root.join("target/update").join(format!("{name}.image")));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
    }
    fs::write(&path, &image).with_context(|| format!("{} can't be written", path.display()))?;
    step.done(format!("build {build}, signed with the key {}", key.name()));
    Ok(DomainImage {
        path,
        bytes: image.len(),
        build,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_named_by_its_code_and_fits() {
        let (one, other) = (build_name(b"one"), build_name(b"other"));
        assert_ne!(one, other);
        assert_eq!(one, build_name(b"one"));
        assert!(one.len() <= BUILD_BYTES && one.contains('+'), "{one}");
    }
}
