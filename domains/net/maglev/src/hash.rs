//! The balancer's keyed hash functions.
//!
//! Two kinds, both keyed by one seed that all balancers of a cluster share, so that they choose the same backends and
//! nobody without the seed can aim at one: SipHash for backends' names, where quality counts and time does not, and a
//! folded multiplication for packets. The latter is no cryptographic function: it keeps those who don't see the
//! balancer's memory from preparing collisions, and a collision that happens costs balance, never correctness, because
//! the connection table is bounded and verifies what it finds.

use siphasher::sip::SipHasher24;

use crate::packet::{Addresses, FlowKey, FragmentKey, Protocol};

/// The secret that a cluster of balancers shares: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSeed(pub [u8; 16]);

impl core::fmt::Debug for HashSeed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("HashSeed(secret)")
    }
}

impl HashSeed {
    /// A 64-bit key for one use of the seed, independent of the keys for other uses.
    fn derive(&self, purpose: &[u8]) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(purpose)
    }

    fn name_hasher(&self, low: &[u8], high: &[u8]) -> SipHasher24 {
        SipHasher24::new_with_keys(self.derive(low), self.derive(high))
    }
}

/// The two hash functions on a backend's name, the paper's h1 and h2 (section 3.4).
#[derive(Clone, Copy, Debug)]
pub struct NameHasher {
    offset: SipHasher24,
    skip: SipHasher24,
}

impl NameHasher {
    /// The functions that belong to `seed`.
    #[must_use]
    pub fn new(seed: &HashSeed) -> Self {
        Self {
            offset: seed.name_hasher(b"table offset 0", b"table offset 1"),
            skip: seed.name_hasher(b"table skip 0", b"table skip 1"),
        }
    }

    /// The hash that gives a backend's first choice of table entry.
    #[must_use]
    pub fn offset(&self, name: &str) -> u64 {
        self.offset.hash(name.as_bytes())
    }

    /// The hash that gives the distance from each choice to the next.
    #[must_use]
    pub fn skip(&self, name: &str) -> u64 {
        self.skip.hash(name.as_bytes())
    }
}

/// The hash function on a packet's addresses and ports.
#[derive(Clone, Copy)]
pub struct FlowHasher {
    keys: [u64; 4],
}

impl core::fmt::Debug for FlowHasher {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("FlowHasher(secret)")
    }
}

/// Upper and lower half of the 128-bit product, folded into one word.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

// The last word of a key tells the kinds of key apart; a flow's has its protocol there.
const FRAGMENT: u64 = 1 << 8;
const HOST_PAIR: u64 = 2 << 8;

impl FlowHasher {
    /// The function that belongs to `seed`.
    #[must_use]
    pub fn new(seed: &HashSeed) -> Self {
        Self {
            keys: [
                seed.derive(b"flow 0"),
                seed.derive(b"flow 1"),
                seed.derive(b"flow 2"),
                // Odd, so that the last multiplication loses nothing of its other factor's low half.
                seed.derive(b"flow 3") | 1,
            ],
        }
    }

    /// The four key words, for an implementation elsewhere that must agree with this one.
    #[must_use]
    pub fn keys(&self) -> [u64; 4] {
        self.keys
    }

    /// Hash of a flow: addresses, ports, protocol. All 64 bits are equally good.
    #[inline(always)]
    #[must_use]
    pub fn flow(&self, flow: &FlowKey) -> u64 {
        let ports = u64::from(flow.source_port) << 48 | u64::from(flow.destination_port) << 32;
        self.mix(&flow.addresses, ports | u64::from(flow.protocol.number()))
    }

    /// Hash of the datagram that a fragment belongs to.
    #[must_use]
    pub fn fragment(&self, key: &FragmentKey) -> u64 {
        self.mix(
            &key.addresses,
            u64::from(key.identification) << 32 | FRAGMENT | u64::from(key.protocol.number()),
        )
    }

    /// Hash of a pair of hosts and a protocol: all that is known of a later fragment whose first one wasn't seen.
    #[must_use]
    pub fn host_pair(&self, addresses: &Addresses, protocol: Protocol) -> u64 {
        self.mix(addresses, HOST_PAIR | u64::from(protocol.number()))
    }

    #[inline(always)]
    fn mix(&self, addresses: &Addresses, tail: u64) -> u64 {
        let [first, second, third, fourth] = self.keys;
        let state = match *addresses {
            Addresses::V4 { source, destination } => {
                let pair = u64::from(source) << 32 | u64::from(destination);
                fold(pair ^ first, tail ^ second)
            }
            Addresses::V6 { source, destination } => {
                let source = fold((source >> 64) as u64 ^ first, source as u64 ^ second);
                let destination = fold((destination >> 64) as u64 ^ second, destination as u64 ^ third);
                fold(source ^ first, destination.rotate_left(32) ^ tail ^ third)
            }
        };
        fold(state ^ third, fourth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: u32, source_port: u16) -> FlowKey {
        FlowKey {
            addresses: Addresses::V4 {
                source,
                destination: 0x0a52_6364,
            },
            source_port,
            destination_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    /// A cluster agrees only because the functions depend on the seed alone.
    #[test]
    fn seed_decides_everything() {
        let (one, other) = (HashSeed([7; 16]), HashSeed([8; 16]));
        let flow = key(0x0a00_0001, 4000);
        assert_eq!(
            FlowHasher::new(&one).flow(&flow),
            FlowHasher::new(&one).flow(&flow)
        );
        assert_ne!(
            FlowHasher::new(&one).flow(&flow),
            FlowHasher::new(&other).flow(&flow)
        );
        let (a, b) = (NameHasher::new(&one), NameHasher::new(&other));
        assert_ne!(a.offset("backend1"), b.offset("backend1"));
        assert_ne!(a.offset("backend1"), a.skip("backend1"));
    }

    /// Neighbouring ports must spread evenly over both ends of the hash, since low bits choose the bucket and high bits
    /// the table entry: with 65,536 flows in 256 classes, chi squared has mean 255 and deviation 22.6.
    #[test]
    fn neighbouring_flows_spread_evenly() {
        let hasher = FlowHasher::new(&HashSeed([3; 16]));
        for shift in [0, 24, 56] {
            let mut classes = [0_u32; 256];
            for port in 0..=u16::MAX {
                let class = (hasher.flow(&key(0xc0a8_0001, port)) >> shift) as u8;
                classes[usize::from(class)] += 1;
            }
            let chi_squared: f64 = classes
                .iter()
                .map(|&n| (f64::from(n) - 256.0).powi(2) / 256.0)
                .sum();
            assert!(chi_squared < 255.0 + 6.0 * 22.6, "shift {shift}: {chi_squared}");
        }
    }
}
