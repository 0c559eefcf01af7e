//! The signed image: ELF, manifest, trailer.

use abi::image::{ImageManifest, MAGIC, SIGNATURE_BYTES, TRAILER_BYTES};
use abi::manifest::SystemManifest;
use ed25519_compact::{PublicKey, Signature};

use crate::Key;

/// What is wrong with an image or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is no trailer: the file was never signed, or was cut short.
    #[error("it carries no signature")]
    Unsigned,
    /// The signature isn't this key's over this content.
    #[error("the signature doesn't match the content and the key")]
    BadSignature,
    /// The lengths or the manifest make no sense, though the signature is right.
    #[error("the manifest can't be read")]
    BadManifest,
}

/// A domain image taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedImage<'bytes> {
    /// The ELF file, and its table of functions behind it.
    pub elf: &'bytes [u8],
    /// What it says of itself.
    pub manifest: ImageManifest,
}

/// Appends manifest and trailer to an ELF (with its table of functions behind it, as long as the manifest says); the manifest's `signer` becomes this key's public half.
///
/// # Panics
/// Never in practice: a manifest is strings and bytes, which always have an encoding, and far below 4 GiB.
pub fn sign_image(elf: &[u8], manifest: ImageManifest, key: &Key) -> Vec<u8> {
    let manifest = ImageManifest {
        signer: key.public(),
        ..manifest
    };
    let manifest = postcard::to_allocvec(&manifest).expect("a manifest has an encoding");
    let length = u32::try_from(manifest.len()).expect("a manifest is small");
    let mut image = Vec::with_capacity(elf.len() + manifest.len() + TRAILER_BYTES);
    image.extend_from_slice(elf);
    image.extend_from_slice(&manifest);
    let signature = key.sign(&image);
    image.extend_from_slice(&MAGIC);
    image.extend_from_slice(&length.to_le_bytes());
    image.extend_from_slice(&signature);
    image
}

/// Checks an image's signature and takes it apart.
///
/// # Errors
/// Says which part is wrong; the manifest is looked at only after the signature was found good.
pub fn read_image<'bytes>(image: &'bytes [u8], key: &Key) -> Result<SignedImage<'bytes>, ImageError> {
    let (rest, signature) = image
        .split_last_chunk::<SIGNATURE_BYTES>()
        .ok_or(ImageError::Unsigned)?;
    let (rest, length) = rest.split_last_chunk::<4>().ok_or(ImageError::Unsigned)?;
    let signed = rest.strip_suffix(&MAGIC).ok_or(ImageError::Unsigned)?;
    verify(key.public_key(), signed, signature)?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = signed.len().checked_sub(length).ok_or(ImageError::BadManifest)?;
    let (elf, manifest) = signed.split_at(start);
    let manifest = postcard::from_bytes(manifest).map_err(|_| ImageError::BadManifest)?;
    Ok(SignedImage { elf, manifest })
}

/// The compiled system manifest with its signature behind it.
///
/// # Panics
/// Never in practice: see [`sign_image`].
pub fn sign_manifest(manifest: &SystemManifest, key: &Key) -> Vec<u8> {
    let mut bytes = postcard::to_allocvec(manifest).expect("a manifest has an encoding");
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

/// Checks a system manifest's signature and decodes it.
///
/// # Errors
/// As [`read_image`].
pub fn read_manifest(bytes: &[u8], key: &Key) -> Result<SystemManifest, ImageError> {
    let (body, signature) = bytes
        .split_last_chunk::<SIGNATURE_BYTES>()
        .ok_or(ImageError::Unsigned)?;
    verify(key.public_key(), body, signature)?;
    postcard::from_bytes(body).map_err(|_| ImageError::BadManifest)
}

fn verify(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), ImageError> {
    key.verify(message, &Signature::new(*signature))
        .map_err(|_| ImageError::BadSignature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> ImageManifest {
        ImageManifest {
            name: "ixgbe".to_owned(),
            build: "0.1.0+5d".to_owned(),
            signer: Key::development().public(),
            interface_hash: [7; 32],
            compiler: "rustc 1.95.0".to_owned(),
            flags: "-C relocation-model=pic".to_owned(),
            symbol_bytes: 0,
            crates: vec!["ixgbe 0.1.0".to_owned()],
        }
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let key = Key::development();
        let image = sign_image(b"\x7fELF", manifest(), &key);
        let read = read_image(&image, &key).unwrap();
        assert_eq!(read.elf, b"\x7fELF");
        assert_eq!(read.manifest, manifest());
    }

    #[test]
    fn no_single_flipped_byte_passes() {
        let key = Key::development();
        let image = sign_image(b"\x7fELF and some code", manifest(), &key);
        for index in 0..image.len() {
            let mut changed = image.clone();
            changed[index] ^= 0x10;
            assert!(read_image(&changed, &key).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_cut_or_unsigned_file_says_so() {
        let key = Key::development();
        assert_eq!(read_image(b"\x7fELF", &key), Err(ImageError::Unsigned));
        assert_eq!(read_image(&[0x7f; 500], &key), Err(ImageError::Unsigned));
        assert_eq!(read_manifest(&[1; 10], &key), Err(ImageError::Unsigned));
    }

    #[test]
    fn another_key_is_told_from_no_signature() {
        let directory = std::env::temp_dir().join(format!("sign-test-{}", std::process::id()));
        std::fs::write(
            &directory,
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        )
        .unwrap();
        let other = Key::from_file(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let image = sign_image(b"\x7fELF", manifest(), &other);
        assert_eq!(
            read_image(&image, &Key::development()),
            Err(ImageError::BadSignature)
        );
    }

    #[test]
    fn system_manifests_are_signed_too() {
        let key = Key::development();
        let system = SystemManifest { domains: Vec::new() };
        let mut bytes = sign_manifest(&system, &key);
        assert_eq!(read_manifest(&bytes, &key), Ok(system));
        bytes[0] ^= 1;
        assert_eq!(read_manifest(&bytes, &key), Err(ImageError::BadSignature));
    }
}
