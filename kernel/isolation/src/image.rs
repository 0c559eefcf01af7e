//! Which domain images may be loaded (docs/soundness.md, invariant 9).
//!
//! An image is an ELF file with a manifest and an Ed25519 signature at its end (`abi::image`). It must be signed with the key
//! that this kernel was built with, be the domain that the system manifest asks for, and come from the same interfaces,
//! compiler and flags as the kernel. Everything else is refused, with the reason.

use abi::image::{ImageManifest, MAGIC, SIGNATURE_BYTES, TRAILER_BYTES};
use alloc::string::String;
use core::fmt;
use ed25519_compact::{PublicKey, Signature};

/// What this kernel was built with, and so what an image must have been built with.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Ed25519 public key of whoever may sign.
    pub public_key: [u8; 32],
    /// SHA-256 over interfaces, trusted libraries, compiler and flags.
    pub interface_hash: [u8; 32],
    /// `rustc --version`.
    pub compiler: &'a str,
}

/// Why an image is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// There is no image of this name in the boot archive.
    Missing,
    /// It has no signature.
    Unsigned,
    /// It is signed with another key than this kernel's.
    OtherKey {
        /// The first bytes of the key that it names.
        signer: [u8; 4],
    },
    /// Its signature doesn't fit its bytes.
    Changed,
    /// Its manifest can't be read.
    BadManifest,
    /// It is another domain's image.
    OtherDomain(String),
    /// It was built against other interfaces, or with other flags.
    OtherInterfaces,
    /// It was built with another compiler.
    OtherCompiler(String),
    /// Its ELF file is not what a domain image is.
    BadElf(&'static str),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Missing => f.write_str("there is no such image in the boot archive"),
            ImageError::Unsigned => f.write_str("it has no signature"),
            ImageError::OtherKey { signer: [a, b, c, d] } => {
                write!(f, "it is signed with another key ({a:02x}{b:02x}{c:02x}{d:02x}…)")
            }
            ImageError::Changed => f.write_str("it was changed after it was signed"),
            ImageError::BadManifest => f.write_str("its manifest can't be read"),
            ImageError::OtherDomain(name) => write!(f, "it is the image of domain {name}"),
            ImageError::OtherInterfaces => f.write_str("its interface hash is not this kernel's"),
            ImageError::OtherCompiler(version) => write!(f, "it was built with another compiler ({version})"),
            ImageError::BadElf(what) => write!(f, "its ELF file can't be loaded: {what}"),
        }
    }
}

/// What is in a signed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// The ELF file.
    pub elf: &'a [u8],
    /// The table of its functions (`kernel::symbols`); may be empty.
    pub symbols: &'a [u8],
    /// What its signer calls it.
    pub build: String,
    /// Its signature. Ed25519 signatures are deterministic (RFC 8032), so equal ones of one key are of equal images.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// The content of a signed image of the domain `name`.
pub fn verify<'a>(file: &'a [u8], name: &str, expected: &Expected<'_>) -> Result<Verified<'a>, ImageError> {
    let (body, trailer) = file
        .split_at_checked(file.len().wrapping_sub(TRAILER_BYTES))
        .ok_or(ImageError::Unsigned)?;
    let (magic, rest) = trailer
        .split_at_checked(MAGIC.len())
        .ok_or(ImageError::Unsigned)?;
    if magic != MAGIC {
        return Err(ImageError::Unsigned);
    }
    let (length, signature) = rest.split_at_checked(4).ok_or(ImageError::Unsigned)?;
    let length = <[u8; 4]>::try_from(length)
        .map(u32::from_le_bytes)
        .map_err(|_| ImageError::Unsigned)?;
    let signature: [u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| ImageError::Unsigned)?;

    let key = PublicKey::new(expected.public_key);
    let genuine = key.verify(body, &Signature::new(signature)).is_ok();
    // What the manifest says is believed only of a genuine image; of others it only words the refusal.
    let parts = body
        .len()
        .checked_sub(length as usize)
        .and_then(|start| body.split_at_checked(start));
    let manifest = parts.and_then(|(_, manifest)| postcard::from_bytes::<ImageManifest>(manifest).ok());
    if !genuine {
        return Err(match manifest {
            Some(manifest) if manifest.signer != expected.public_key => {
                let [a, b, c, d, ..] = manifest.signer;
                ImageError::OtherKey { signer: [a, b, c, d] }
            }
            _ => ImageError::Changed,
        });
    }
    let (Some((content, _)), Some(manifest)) = (parts, manifest) else {
        return Err(ImageError::BadManifest);
    };
    if manifest.name != name {
        return Err(ImageError::OtherDomain(manifest.name));
    }
    if manifest.compiler != expected.compiler {
        return Err(ImageError::OtherCompiler(manifest.compiler));
    }
    if manifest.interface_hash != expected.interface_hash {
        return Err(ImageError::OtherInterfaces);
    }
    let (elf, symbols) = content
        .len()
        .checked_sub(manifest.symbol_bytes as usize)
        .and_then(|length| content.split_at_checked(length))
        .ok_or(ImageError::BadManifest)?;
    Ok(Verified {
        elf,
        symbols,
        build: manifest.build,
        signature,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use ed25519_compact::{KeyPair, Seed};

    const COMPILER: &str = "rustc 1.95.0";

    fn key(seed: u8) -> KeyPair {
        KeyPair::from_seed(Seed::new([seed; 32]))
    }

    fn expected(seed: u8) -> Expected<'static> {
        Expected {
            public_key: *key(seed).pk,
            interface_hash: [9; 32],
            compiler: COMPILER,
        }
    }

    fn signed(change: impl FnOnce(&mut ImageManifest), seed: u8) -> Vec<u8> {
        let mut manifest = ImageManifest {
            name: "httpd".into(),
            build: "0.1.0+2b".into(),
            signer: *key(seed).pk,
            interface_hash: [9; 32],
            compiler: COMPILER.into(),
            flags: String::new(),
            symbol_bytes: 0,
            crates: vec![],
        };
        change(&mut manifest);
        let mut file = b"\x7fELF and so on".to_vec();
        let manifest = postcard::to_allocvec(&manifest).expect("plain data");
        file.extend(&manifest);
        let signature = key(seed).sk.sign(&file, None);
        file.extend(MAGIC);
        file.extend((manifest.len() as u32).to_le_bytes());
        file.extend(*signature);
        file
    }

    #[test]
    fn a_genuine_image_is_accepted_and_gives_its_elf() {
        let content = |symbol_bytes| {
            let image = signed(|manifest| manifest.symbol_bytes = symbol_bytes, 1);
            verify(&image, "httpd", &expected(1)).map(|found| {
                assert_eq!(found.build, "0.1.0+2b");
                (found.elf.to_vec(), found.symbols.to_vec())
            })
        };
        assert_eq!(content(0), Ok((b"\x7fELF and so on".to_vec(), vec![])));
        assert_eq!(content(3), Ok((b"\x7fELF and so".to_vec(), b" on".to_vec())));
        assert_eq!(content(15), Err(ImageError::BadManifest), "more than there is");
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let file = signed(|_| {}, 1);
        for position in 0..file.len() {
            let mut changed = file.clone();
            changed[position] ^= 0x10;
            assert!(
                verify(&changed, "httpd", &expected(1)).is_err(),
                "byte {position}"
            );
        }
    }

    #[test]
    fn each_refusal_says_which() {
        let mut flipped = signed(|_| {}, 1);
        flipped[5] ^= 1;
        assert_eq!(verify(&flipped, "httpd", &expected(1)), Err(ImageError::Changed));
        assert!(matches!(
            verify(&signed(|_| {}, 2), "httpd", &expected(1)),
            Err(ImageError::OtherKey { .. })
        ));
        let mut file = signed(|_| {}, 1);
        file.truncate(file.len() - TRAILER_BYTES);
        assert_eq!(verify(&file, "httpd", &expected(1)), Err(ImageError::Unsigned));
        let other = signed(|manifest| manifest.interface_hash = [8; 32], 1);
        assert_eq!(
            verify(&other, "httpd", &expected(1)),
            Err(ImageError::OtherInterfaces)
        );
        let other = signed(|manifest| manifest.compiler = "rustc 1.0".into(), 1);
        assert!(matches!(
            verify(&other, "httpd", &expected(1)),
            Err(ImageError::OtherCompiler(_))
        ));
        assert!(matches!(
            verify(&signed(|_| {}, 1), "shell", &expected(1)),
            Err(ImageError::OtherDomain(_))
        ));
    }

    #[test]
    fn a_signer_that_claims_our_key_is_still_refused() {
        let file = signed(|manifest| manifest.signer = *key(1).pk, 2);
        assert_eq!(verify(&file, "httpd", &expected(1)), Err(ImageError::Changed));
    }

    #[test]
    fn short_files_are_unsigned() {
        for length in 0..TRAILER_BYTES + 2 {
            assert_eq!(
                verify(&vec![0; length], "httpd", &expected(1)),
                Err(ImageError::Unsigned)
            );
        }
    }
}
