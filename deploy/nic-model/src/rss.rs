//! Receive-side scaling: the Toeplitz hash over addresses and ports, and the table from it to a queue (datasheet 7.1.2.8).

use crate::headers::{Headers, Network, Transport};
use crate::register_file::RegisterFile;
use crate::registers as r;

/// MRQC.MRQE: RSS alone, without virtualisation or traffic classes.
const MODE_RSS: u32 = 1;
const FIELD_TCP_IPV4: u32 = 1 << 16;
const FIELD_IPV4: u32 = 1 << 17;
const FIELD_IPV6: u32 = 1 << 20;
const FIELD_TCP_IPV6: u32 = 1 << 21;
const FIELD_UDP_IPV4: u32 = 1 << 22;
const FIELD_UDP_IPV6: u32 = 1 << 23;

/// Hash of a frame, what it covers, and the queue it leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssResult {
    /// The hash; zero when none was computed.
    pub hash: u32,
    /// RSS type of the receive descriptor (datasheet table 7-16); zero when no hash was computed.
    pub kind: u8,
    /// Queue number, 0 to 15.
    pub queue: u16,
}

/// Bytes of the longest input: two IPv6 addresses and two ports.
const LONGEST_INPUT: usize = 36;

/// A hash key, as a table of what each value of each four bits of the input contributes: frames are hashed one by one, keys
/// change rarely.
pub struct RssKey {
    contributions: Box<[[u32; 16]; 2 * LONGEST_INPUT]>,
}

impl RssKey {
    /// Prepares a 40-byte key.
    pub fn new(key: &[u8; 40]) -> Self {
        let bit = |at: usize| u32::from(key.get(at / 8).copied().unwrap_or(0) >> (7 - at % 8) & 1);
        // The 32 bits of the key that start at a bit of the input.
        let window = |at: usize| (at..at + 32).fold(0, |bits, at| bits << 1 | bit(at));
        let mut contributions = Box::new([[0; 16]; 2 * LONGEST_INPUT]);
        for (position, values) in contributions.iter_mut().enumerate() {
            let windows: [u32; 4] = std::array::from_fn(|i| window(4 * position + i));
            for (value, contribution) in values.iter_mut().enumerate() {
                let chosen = windows
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| value >> (3 - i) & 1 != 0);
                *contribution = chosen.fold(0, |sum, (_, window)| sum ^ window);
            }
        }
        Self { contributions }
    }

    /// The key that RSSRK holds.
    pub fn of(registers: &RegisterFile) -> Self {
        let mut key = [0; 40];
        for (i, word) in key.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&registers.get(r::RSSRK + 4 * i as u32).to_le_bytes());
        }
        Self::new(&key)
    }

    /// The Toeplitz hash of the input's parts, one behind the other.
    pub fn hash(&self, input: &[&[u8]]) -> u32 {
        let bytes = input.iter().flat_map(|part| part.iter());
        let (pairs, _) = self.contributions.as_chunks::<2>();
        bytes.zip(pairs).fold(0, |hash, (byte, [high, low])| {
            hash ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 0xF)]
        })
    }
}

/// Hashes a frame as MRQC says and looks its queue up in RETA.
pub fn classify(registers: &RegisterFile, key: &RssKey, headers: &Headers, frame: &[u8]) -> RssResult {
    let mrqc = registers.get(r::MRQC);
    if mrqc & 0xF != MODE_RSS {
        return RssResult::default();
    }
    let (Some(network), Some((source, destination))) = (headers.network, headers.addresses(frame)) else {
        return RssResult::default();
    };
    let ports = frame
        .get(headers.transport_at..headers.transport_at + 4)
        .unwrap_or(&[]);
    let enabled = |field: u32| mrqc & field != 0;
    let (kind, with_ports) = match (network, headers.transport) {
        (Network::V4 { .. }, Some(Transport::Tcp)) if enabled(FIELD_TCP_IPV4) => (1, true),
        (Network::V4 { .. }, Some(Transport::Udp)) if enabled(FIELD_UDP_IPV4) => (7, true),
        (Network::V4 { .. }, _) if enabled(FIELD_IPV4) => (2, false),
        (Network::V6 { .. }, Some(Transport::Tcp)) if enabled(FIELD_TCP_IPV6) => (3, true),
        (Network::V6 { .. }, Some(Transport::Udp)) if enabled(FIELD_UDP_IPV6) => (8, true),
        (Network::V6 { .. }, _) if enabled(FIELD_IPV6) => (5, false),
        _ => return RssResult::default(),
    };
    let hash = key.hash(&[source, destination, if with_ports { ports } else { &[] }]);
    let entry = hash & 0x7F;
    let queue = registers.get(r::RETA + (entry & !3)) >> (8 * (entry & 3)) & 0xF;
    RssResult {
        hash,
        kind,
        queue: queue as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{parse, samples};

    /// The verification suite that the datasheet repeats (7.1.2.8.3): key and hashes.
    #[test]
    fn verification_suite() {
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
            0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
            0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let (source, destination) = ([66, 9, 149, 187], [161, 142, 100, 80]);
        let key = RssKey::new(&key);
        assert_eq!(key.hash(&[&source, &destination]), 0x323e_8fc2);
        let ports = [2794u16.to_be_bytes(), 1766u16.to_be_bytes()].concat();
        assert_eq!(key.hash(&[&source, &destination, &ports]), 0x51cc_c178);
        let parse = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("address").octets();
        let (source, destination) = (parse("3ffe:2501:200:1fff::7"), parse("3ffe:2501:200:3::1"));
        assert_eq!(key.hash(&[&source, &destination]), 0x2cc1_8cd5);
        let ports = [2794u16.to_be_bytes(), 1766u16.to_be_bytes()].concat();
        assert_eq!(key.hash(&[&source, &destination, &ports]), 0x4020_7d3d);
    }

    #[test]
    fn hash_leads_to_the_queue_of_its_entry() {
        let mut registers = RegisterFile::new();
        registers.set(r::MRQC, MODE_RSS | FIELD_UDP_IPV4);
        for i in 0..10 {
            registers.set(r::RSSRK + 4 * i, 0x1234_5679u32.wrapping_mul(i + 1));
        }
        for i in 0..32 {
            registers.set(r::RETA + 4 * i, 0x0302_0100);
        }
        let frame = samples::udp(4000, b"x");
        let key = RssKey::of(&registers);
        let result = classify(&registers, &key, &parse(&frame, 0x8100), &frame);
        assert_eq!(result.kind, 7);
        assert_eq!(u32::from(result.queue), result.hash & 3);
        registers.set(r::MRQC, 0);
        assert_eq!(
            classify(&registers, &key, &parse(&frame, 0x8100), &frame),
            RssResult::default()
        );
    }
}
