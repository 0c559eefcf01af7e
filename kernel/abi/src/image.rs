//! Domain images: what the signed manifest at the end of an ELF file says.
//!
//! Layout of an image file: the ELF, the manifest (postcard), then a [`Trailer`] of fixed size. The signature covers
//! everything before it.

extern crate alloc;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Ends every signed image.
pub const MAGIC: [u8; 8] = *b"RLIMAGE1";
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of the trailer: magic, manifest length (u32, little endian), signature.
pub const TRAILER_BYTES: usize = 8 + 4 + SIGNATURE_BYTES;

/// What an image claims about itself; the kernel compares it with its own before it loads anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    /// The domain's name in config/domains.toml.
    pub name: String,
    /// SHA-256 over the sources of interface/ and the trusted libraries, compiler and flags.
    pub interface_hash: [u8; 32],
    /// `rustc --version`.
    pub compiler: String,
    /// Code generation flags.
    pub flags: String,
    /// Crates linked, `name version`.
    pub crates: Vec<String>,
}
