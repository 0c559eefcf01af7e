//! Finds what the host tools need, installs what is missing, and says clearly what to do when it can't.
//!
//! Three kinds of things: programs from Debian packages ([`ensure_programs`], through apt when root); a QEMU that has
//! `vfio-user-pci` ([`qemu`]: the system's when it is new enough, else a private copy in the user's cache that needs no
//! privilege and touches no package of the host); and packages that are only unpacked into that cache ([`debian_packages`], [`debian_source`]). Nothing here knows what the programs are used for.

#![forbid(unsafe_code)]

mod apt;
mod cache;
mod command;
mod debian_files;
mod error;
mod mirror;
mod packages;
mod private_qemu;
mod qemu;

pub use cache::cache_directory;
pub use command::find_program;
pub use debian_files::{PackageFiles, debian_packages, debian_source};
pub use error::Error;
pub use mirror::{DebianMirror, debian_mirror};
pub use packages::{Program, ensure_programs};
pub use qemu::{QemuPaths, QemuVersion, qemu};
