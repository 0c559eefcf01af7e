//! Signatures of what the kernel loads (docs/soundness.md, invariant 9).
//!
//! Two things are signed with one Ed25519 key: each domain image ([`sign_image`], format in [`abi::image`]) and the
//! compiled system manifest ([`sign_manifest`]: the postcard of [`abi::manifest::SystemManifest`], then 64 bytes of
//! signature over it). The kernel has the public half built in and does its own verification; [`read_image`] is for
//! tools and tests on the host. What goes into a manifest is the image builder's business.

#![forbid(unsafe_code)]

mod image;
mod key;

pub use image::{ImageError, SignedImage, read_image, read_manifest, sign_image, sign_manifest};
pub use key::{Key, KeyError};
