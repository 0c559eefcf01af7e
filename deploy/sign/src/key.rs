//! The key that images are signed with.

use std::fs;
use std::path::{Path, PathBuf};

use ed25519_compact::{KeyPair, PublicKey, SecretKey, Seed};
use sha2::{Digest, Sha256};

/// An Ed25519 key pair with a name for messages.
pub struct Key {
    pair: KeyPair,
    name: String,
}

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read.
    #[error("the signing key {} can't be read: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no Ed25519 private key.
    #[error("{} holds neither an Ed25519 private key in PEM (PKCS #8) nor a 32-byte seed in hexadecimal", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
    },
}

impl Key {
    /// The key of everybody's development builds. Its seed is public, so it protects nothing: an appliance in use is
    /// built with a key of its operator's.
    pub fn development() -> Self {
        let seed: [u8; 32] =
            Sha256::digest(b"RedLeaf appliance: public development key, protects nothing").into();
        Self {
            pair: KeyPair::from_seed(Seed::new(seed)),
            name: "DEVELOPMENT".to_owned(),
        }
    }

    /// A key from a file: PEM as `openssl genpkey -algorithm ed25519` writes it, or 64 hexadecimal digits of seed.
    ///
    /// # Errors
    /// When the file can't be read or is neither.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::File {
            path: path.to_owned(),
            source,
        })?;
        let pair = parse(text.trim()).ok_or_else(|| KeyError::Format {
            path: path.to_owned(),
        })?;
        Ok(Self {
            pair,
            name: path.display().to_string(),
        })
    }

    /// What to call it: `DEVELOPMENT`, or its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        *self.pair.pk
    }

    /// The public half in hexadecimal, as the kernel's build takes it.
    pub fn public_hex(&self) -> String {
        self.public().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        // Deterministic (no noise), so that a build can be repeated bit by bit.
        *self.pair.sk.sign(message, None)
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.pair.pk
    }
}

fn parse(text: &str) -> Option<KeyPair> {
    if text.starts_with("-----BEGIN") {
        let secret = SecretKey::from_pem(text).ok()?;
        return Some(KeyPair {
            pk: secret.public_key(),
            sk: secret,
        });
    }
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut seed = [0; 32];
    for (index, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(KeyPair::from_seed(Seed::new(seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn a_hexadecimal_seed_gives_the_published_key() {
        let pair = parse("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        assert_eq!(pair.pk[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }

    #[test]
    fn pem_is_read_back() {
        let key = Key::development();
        let again = parse(&key.pair.sk.to_pem()).unwrap();
        assert_eq!(*again.pk, key.public());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "abc",
            &"g".repeat(64),
            &"é".repeat(32),
            "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
