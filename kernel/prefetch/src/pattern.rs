//! Comparing some bits of 32 bytes with known ones at once: whether a packet's headers say what those of the packet before said.
//!
//! Field by field it takes a load, a comparison and a branch for each; the compiler doesn't join fields that lie apart.

/// Bits that [`Pattern::BYTES`] bytes are to have.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Pattern {
    mask: [u8; 32],
    wanted: [u8; 32],
}

impl Pattern {
    /// Length of what is compared.
    pub const BYTES: usize = 32;

    /// What nothing matches.
    pub const NOTHING: Pattern = Pattern {
        mask: [0; 32],
        wanted: [1; 32],
    };

    /// What has the bits of `bytes` wherever `mask` has ones.
    #[must_use]
    pub fn of(bytes: &[u8; 32], mask: &[u8; 32]) -> Pattern {
        Pattern {
            mask: *mask,
            wanted: core::array::from_fn(|index| bytes[index] & mask[index]),
        }
    }

    /// Whether `bytes` have these bits.
    #[inline(always)]
    #[must_use]
    pub fn matches(&self, bytes: &[u8; 32]) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{
                __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8,
            };
            // SAFETY: All of these are part of SSE2, which every x86-64 CPU has; the loads are of 16 bytes each, at the beginning and in the
            // middle of arrays of 32, and need no alignment.
            unsafe {
                let half = |bytes: &[u8; 32], half: usize| {
                    _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>().add(half))
                };
                let equal = |number: usize| {
                    let masked = _mm_and_si128(half(bytes, number), half(&self.mask, number));
                    _mm_cmpeq_epi8(masked, half(&self.wanted, number))
                };
                _mm_movemask_epi8(_mm_and_si128(equal(0), equal(1))) == 0xffff
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let pairs = bytes.iter().zip(&self.mask).zip(&self.wanted);
            pairs.fold(0, |other, ((byte, mask), wanted)| other | (byte & mask ^ wanted)) == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    /// Every bit that the mask has counts, and no other does.
    #[test]
    fn bits_of_the_mask_count() {
        let bytes: [u8; 32] = core::array::from_fn(|index| (index as u8).wrapping_mul(37) ^ 0x5a);
        let mask: [u8; 32] = core::array::from_fn(|index| (index as u8).wrapping_mul(73) ^ 0x0f);
        let pattern = Pattern::of(&bytes, &mask);
        assert!(pattern.matches(&bytes));
        for (index, mask) in mask.iter().enumerate() {
            for bit in 0..8 {
                let mut changed = bytes;
                changed[index] ^= 1 << bit;
                assert_eq!(
                    pattern.matches(&changed),
                    mask >> bit & 1 == 0,
                    "byte {index}, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn nothing_matches_nothing() {
        for byte in 0..=u8::MAX {
            assert!(!Pattern::NOTHING.matches(&[byte; 32]));
        }
    }
}
