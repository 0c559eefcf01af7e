//! The part of isolation that runs: domains, their threads, handles and deaths.

mod archive;
mod black_box;
mod death;
mod device;
mod domain;
mod fault;
mod interrupt;
mod leaks;
mod loader;
mod memory;
mod proxy;
mod sys;
mod thread;
mod update;
mod watch;

pub use crate::archive::ArchiveError;
pub use archive::boot_file;
pub use black_box::{NamedFrame, named, with_black_box};
pub use death::{Death, death, is_cancelled, kill, kill_by_order, reap, wait_death};
pub use domain::{Cause, Domain, Figures, Reaped, State, domain, domain_name, domains};
pub use leaks::{Census, Held, census, held};
pub use loader::{StartError, start};
pub use memory::shared_usage;
pub use proxy::{check_imports, export_kernel_object, register_factories};
pub use update::{
    Images, ReplaceError, Replaced, Source, images, replace, revert, settle, upload_abandon, upload_begin,
    upload_finish, upload_part,
};

use abi::manifest::SystemManifest;
use core::fmt;

/// The appliance can't boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The boot archive is missing or damaged.
    Archive(ArchiveError),
    /// The archive has no system manifest.
    NoManifest,
    /// The manifest's signature doesn't fit.
    ManifestSignature,
    /// The manifest can't be read.
    BadManifest,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Archive(error) => error.fmt(f),
            BootError::NoManifest => f.write_str("the boot archive has no system manifest"),
            BootError::ManifestSignature => {
                f.write_str("the system manifest is not signed with this kernel's key")
            }
            BootError::BadManifest => f.write_str("the system manifest can't be read"),
        }
    }
}

/// What this kernel was built with; the loader holds every image to it.
pub static EXPECTED: spin::Once<crate::image::Expected<'static>> = spin::Once::new();

/// Reads the boot archive and makes the table of domains. None of them runs yet.
pub fn initialise(bytes: &'static [u8], expected: crate::image::Expected<'static>) -> Result<(), BootError> {
    // SAFETY: The kernel's own functions.
    unsafe { abi::install(&sys::TABLE) };
    archive::initialise(bytes).map_err(BootError::Archive)?;
    let file = boot_file("manifest").ok_or(BootError::NoManifest)?;
    let manifest = verified_manifest(file, &expected)?;
    EXPECTED.call_once(|| expected);
    domain::initialise(manifest);
    death::initialise();
    watch::initialise();
    Ok(())
}

/// The manifest of a signed file: postcard bytes, then the signature of them.
fn verified_manifest(
    file: &[u8],
    expected: &crate::image::Expected<'_>,
) -> Result<SystemManifest, BootError> {
    let split = file
        .len()
        .checked_sub(abi::image::SIGNATURE_BYTES)
        .ok_or(BootError::ManifestSignature)?;
    let (body, signature) = file.split_at(split);
    let signature = signature.try_into().map_err(|_| BootError::ManifestSignature)?;
    ed25519_compact::PublicKey::new(expected.public_key)
        .verify(body, &ed25519_compact::Signature::new(signature))
        .map_err(|_| BootError::ManifestSignature)?;
    postcard::from_bytes(body).map_err(|_| BootError::BadManifest)
}
