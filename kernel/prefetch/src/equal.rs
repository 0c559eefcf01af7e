//! Comparing all words of a hash bucket with one at once.
//!
//! Written as a loop in safe code this becomes comparisons one by one, or vector code that adds the results up lane by
//! lane: the compiler doesn't find the instruction that makes bits of a comparison's results.

/// Which of `words` equal `wanted`: a bit for each, the first one's lowest.
#[inline(always)]
#[must_use]
pub fn equal_words(words: &[u32; 6], wanted: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{
            _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set_epi32,
            _mm_set1_epi32, _mm_setzero_si128,
        };
        let [a, b, c, d, e, f] = words.map(u32::cast_signed);
        // SAFETY: All of these work on values alone and are part of SSE2, which every x86-64 CPU has.
        let bits = unsafe {
            let wanted = _mm_set1_epi32(wanted.cast_signed());
            // All bits of a lane are set or none is; narrowed to bytes, a lane's is one bit of the mask.
            let first = _mm_cmpeq_epi32(_mm_set_epi32(d, c, b, a), wanted);
            let second = _mm_cmpeq_epi32(_mm_set_epi32(0, 0, f, e), wanted);
            let halves = _mm_packs_epi32(first, second);
            _mm_movemask_epi8(_mm_packs_epi16(halves, _mm_setzero_si128()))
        };
        bits.cast_unsigned() & 0x3f
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let mut bits = 0;
        for (index, &word) in words.iter().enumerate() {
            bits |= u32::from(word == wanted) << index;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::equal_words;

    /// Every set of equal words gives its own bits, also for the value that the unused lanes hold.
    #[test]
    fn bits_are_the_equal_words() {
        for wanted in [0, 1, 7, 1 << 31, u32::MAX] {
            for set in 0..64_u32 {
                let words = core::array::from_fn(|index| {
                    if set >> index & 1 != 0 {
                        wanted
                    } else {
                        wanted ^ 1 << (5 * index)
                    }
                });
                assert_eq!(equal_words(&words, wanted), set, "{words:x?}");
            }
        }
    }
}
