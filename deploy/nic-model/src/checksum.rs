//! Internet checksums (RFC 1071) and the Ethernet frame check sequence (IEEE 802.3, 3.2.9).

/// One's-complement sum of 16-bit words, added to `sum`; an odd last byte is padded with zero.
pub fn add(sum: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut wide = u64::from(sum);
    for word in words {
        let value = u64::from_be_bytes(*word);
        wide += (value >> 32) + (value & 0xFFFF_FFFF);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let value = u64::from_be_bytes(last);
    wide += (value >> 32) + (value & 0xFFFF_FFFF);
    while wide >> 32 != 0 {
        wide = (wide & 0xFFFF_FFFF) + (wide >> 32);
    }
    let folded = (wide & 0xFFFF) + (wide >> 16);
    ((folded & 0xFFFF) + (folded >> 16)) as u32
}

/// The sum folded to 16 bits, not complemented.
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    ((once & 0xFFFF) + (once >> 16)) as u16
}

/// Ethernet's 32-bit frame check sequence, in the order in which its bytes are sent.
pub fn frame_check(frame: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in frame {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0xEDB8_8320 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(frame_check(b"123456789"), 0xCBF4_3926u32.to_le_bytes());
        // RFC 1071, section 3.
        assert_eq!(
            fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    proptest! {
        #[test]
        fn sum_is_that_of_the_words(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in any::<u16>()) {
            let mut slow = u64::from(start);
            for pair in bytes.chunks(2) {
                slow += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
            }
            while slow >> 16 != 0 {
                slow = (slow & 0xFFFF) + (slow >> 16);
            }
            prop_assert_eq!(u64::from(fold(add(u32::from(start), &bytes))), slow);
        }
    }
}
