//! Domain images: what the signed manifest at the end of an ELF file says.
//!
//! Layout of an image file: the ELF as far as it is loaded, the table of its functions (`kernel::symbols`, for the reports of deaths), the
//! manifest (postcard), then a trailer of [`TRAILER_BYTES`]: [`MAGIC`], the manifest's length (u32, little endian), and the Ed25519 signature
//! of everything before the trailer.

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
    /// What tells this image from others of the domain, for people: version and a digest of the code, or a name given to the build;
    /// at most 48 bytes are shown.
    pub build: String,
    /// Public key of the signer, so that a refusal can say whether the image was changed or signed by somebody else.
    pub signer: [u8; 32],
    /// SHA-256 over the sources of interface/ and the trusted libraries, compiler and flags.
    pub interface_hash: [u8; 32],
    /// `rustc --version`.
    pub compiler: String,
    /// Code generation flags.
    pub flags: String,
    /// Length of the table of functions behind the ELF, in bytes; 0 for none.
    pub symbol_bytes: u32,
    /// Crates linked, `name version`.
    pub crates: Vec<String>,
}
