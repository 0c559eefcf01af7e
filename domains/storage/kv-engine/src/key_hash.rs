//! How keys are known to the index: FNV-1a with 128 bits, begun with a secret of the store.
//!
//! The index holds no keys. It knows one by 74 bits: 64 of the hash choose the slot and are kept there, and
//! [`CHECK_BITS`](crate::place::CHECK_BITS) more are kept beside the place. Two keys of a store with 2^24 of them agree in all of that with a
//! probability of 2^-27, and nobody outside knows the secret to look for such keys. A read compares the key itself.

use crate::place::CHECK_BITS;

/// FNV-1a's prime for 128 bits is 2^88 + 315 (draft-eastlake-fnv, section 5).
const PRIME_LOW: u64 = 0x13b;
const PRIME_SHIFT: u32 = 88 - 64;

/// What the index knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash {
    /// Chooses the slot, and is kept there.
    pub slot: u64,
    /// Kept with the place: [`CHECK_BITS`] bits.
    pub check: u16,
}

/// The secret that hashes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Upper half.
    pub high: u64,
    /// Lower half.
    pub low: u64,
}

impl Secret {
    /// The hash of a key.
    #[inline(always)]
    pub fn hash(self, key: &[u8]) -> KeyHash {
        self.after(key).fold()
    }

    /// The state of the hash that was begun with this one, behind `bytes`.
    #[inline(always)]
    fn after(self, bytes: &[u8]) -> Secret {
        let Secret { mut high, mut low } = self;
        for &byte in bytes {
            low ^= u64::from(byte);
            let product = u128::from(low) * u128::from(PRIME_LOW);
            high = high
                .wrapping_mul(PRIME_LOW)
                .wrapping_add((product >> 64) as u64)
                .wrapping_add(low << PRIME_SHIFT);
            low = product as u64;
        }
        Secret { high, low }
    }

    /// What is kept of the state at a key's end.
    #[inline(always)]
    fn fold(self) -> KeyHash {
        let Secret { high, low } = self;
        // The lowest bits of each half depend on few of the key's; folding brings the best ones to where the table looks.
        let folded = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        KeyHash {
            slot: folded ^ folded >> 32,
            check: (high >> (64 - CHECK_BITS)) as u16,
        }
    }

    /// The hash of a piece of a long value.
    pub fn piece(self, value: u64, number: u32) -> KeyHash {
        let mut name = [0; 12];
        let (to_value, to_number) = name.split_at_mut(8);
        to_value.copy_from_slice(&value.to_le_bytes());
        to_number.copy_from_slice(&number.to_le_bytes());
        // Another beginning than the keys', so that no key is a piece.
        Secret {
            high: self.low,
            low: !self.high,
        }
        .hash(&name)
    }
}

/// Words of eight bytes whose states a [`Hasher`] remembers.
const REMEMBERED: usize = 4;

/// Hashes keys one after the other, as [`Secret::hash`] does. Keys of one application mostly begin alike: what a key has in common with the one before,
/// in whole words, isn't hashed again.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    secret: Secret,
    /// The last key's first words, each with the state behind it; those before `known`.
    words: [([u8; 8], Secret); REMEMBERED],
    known: usize,
}

impl Hasher {
    /// A hasher that begins with this secret.
    pub fn new(secret: Secret) -> Hasher {
        Hasher {
            secret,
            words: [([0; 8], secret); REMEMBERED],
            known: 0,
        }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&mut self, key: &[u8]) -> KeyHash {
        let (mut state, mut rest, mut index) = (self.secret, key, 0);
        while let Some((word, behind)) = rest.split_first_chunk::<8>()
            && let Some((known, after)) = self.words.get_mut(index)
        {
            index += 1;
            if index <= self.known && u64::from_le_bytes(*known) == u64::from_le_bytes(*word) {
                state = *after;
            } else {
                state = state.after(word);
                (*known, *after) = (*word, state);
                self.known = index;
            }
            rest = behind;
        }
        state.after(rest).fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What keys have in common changes no hash, whatever came before.
        #[test]
        fn a_hasher_agrees_with_its_secret(
            keys in prop::collection::vec((0_usize..60, 0_usize..60, any::<u8>()), 1..30)
        ) {
            let secret = Secret { high: 8, low: 9 };
            let mut hasher = Hasher::new(secret);
            for (bytes, changed, to) in keys {
                let mut key = vec![b'k'; bytes];
                if let Some(byte) = key.get_mut(changed) {
                    *byte = to;
                }
                prop_assert_eq!(hasher.hash(&key), secret.hash(&key));
            }
        }
    }

    /// FNV-1a's own test: the state after "a", from its own offset basis.
    #[test]
    fn agrees_with_128_bit_arithmetic() {
        let prime = (1_u128 << 88) + 0x13b;
        for key in [&b""[..], b"a", b"foobar", &[0xff; 100]] {
            let mut expected = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
            let secret = Secret {
                high: (expected >> 64) as u64,
                low: expected as u64,
            };
            for &byte in key {
                expected = (expected ^ u128::from(byte)).wrapping_mul(prime);
            }
            let (high, low) = ((expected >> 64) as u64, expected as u64);
            let folded = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let hash = secret.hash(key);
            assert_eq!(hash.slot, folded ^ folded >> 32);
            assert_eq!(u64::from(hash.check), high >> (64 - CHECK_BITS));
        }
    }

    /// Numbered keys of eight bytes, the worst that a server's clients usually send, spread over a table as random numbers would.
    #[test]
    fn numbered_keys_spread() {
        let secret = Secret { high: 3, low: 5 };
        let mut buckets = vec![0_u32; 1 << 12];
        for number in 0..1_u64 << 16 {
            buckets[secret.hash(&number.to_le_bytes()).slot as usize & 0xfff] += 1;
        }
        let most = buckets.iter().max().copied().unwrap_or_default();
        assert!(most < 48, "a bucket has {most} of 16 expected");
    }
}
