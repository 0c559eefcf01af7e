//! CRC-32C (RFC 3720, section 12.1: the Castagnoli polynomial) for safe code.
//!
//! CPUs with SSE 4.2 have an instruction that does eight bytes at a time; others get the tables of the `crc` crate. Which it is, is found
//! out at the first call. A checksum is built up piece by piece: that of `ab` is `extend(extend(0, a), b)`.
#![cfg_attr(not(test), no_std)]

use core::sync::atomic::{AtomicU8, Ordering};
use crc::{CRC_32_ISCSI, Crc, Table};

static TABLES: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Not looked yet, no, yes.
static HARDWARE: AtomicU8 = AtomicU8::new(0);

/// The checksum of what `crc` is the checksum of, followed by `bytes`; 0 is that of nothing.
#[inline]
pub fn extend(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if HARDWARE.load(Ordering::Relaxed) == 2 || (HARDWARE.load(Ordering::Relaxed) == 0 && detect()) {
        // SAFETY: The CPU has SSE 4.2: `detect` has seen its bit.
        return unsafe { by_instruction(crc, bytes) };
    }
    by_tables(crc, bytes)
}

#[cfg(target_arch = "x86_64")]
#[cold]
fn detect() -> bool {
    const SSE_4_2: u32 = 1 << 20;
    let has = core::arch::x86_64::__cpuid(1).ecx & SSE_4_2 != 0;
    HARDWARE.store(1 + u8::from(has), Ordering::Relaxed);
    has
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(crc: u32, bytes: &[u8]) -> u32 {
    use core::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u16, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = u64::from(!crc);
    for word in words {
        state = _mm_crc32_u64(state, u64::from_le_bytes(*word));
    }
    let mut state = state as u32;
    let mut rest = rest;
    if let Some((four, behind)) = rest.split_first_chunk() {
        state = _mm_crc32_u32(state, u32::from_le_bytes(*four));
        rest = behind;
    }
    if let Some((two, behind)) = rest.split_first_chunk() {
        state = _mm_crc32_u16(state, u16::from_le_bytes(*two));
        rest = behind;
    }
    if let Some(&byte) = rest.first() {
        state = _mm_crc32_u8(state, byte);
    }
    !state
}

fn by_tables(crc: u32, bytes: &[u8]) -> u32 {
    // The algorithm is reflected, and `crc` takes its start value the other way round.
    let mut digest = TABLES.digest_with_initial((!crc).reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 3720, B.4.
    #[test]
    fn known_values() {
        for way in [extend, by_tables] {
            assert_eq!(way(0, &[]), 0);
            assert_eq!(way(0, &[0; 32]), 0x8a91_36aa);
            assert_eq!(way(0, &[0xff; 32]), 0x62a8_ab43);
            assert_eq!(way(0, b"123456789"), 0xe306_9283);
        }
    }

    proptest! {
        /// The instruction and the tables agree, however the bytes are cut.
        #[test]
        fn both_ways_agree(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(extend(0, &bytes), by_tables(0, &bytes));
            prop_assert_eq!(extend(extend(0, a), b), by_tables(by_tables(0, a), b));
            prop_assert_eq!(extend(extend(0, a), b), extend(0, &bytes));
        }
    }
}
