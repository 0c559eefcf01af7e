//! Receive-side scaling: which queue a flow's frames come to (datasheet 7.1.2.8).
//!
//! The key is the same in each life of the driver, so that connections stay on their CPU over a restart. It doesn't hide which
//! flows share a queue; it only spreads them.

use crate::registers as r;
use dma::Mmio;

/// RSS without virtual machines, over the addresses and, for TCP and UDP, the ports, of IPv4 and IPv6.
pub const MRQC_VALUE: u32 = 1 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23;

/// The key that Microsoft's verification suite for RSS is computed with, so that hashes can be checked against published ones.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Entries of the redirection table.
const ENTRIES: u32 = 128;

/// Spreads flows over the first `queues` queues.
pub fn set_up(registers: &Mmio, queues: u16) {
    for (index, bytes) in (0..).zip(KEY.as_chunks::<4>().0) {
        registers.write(r::RSSRK + index * 4, u32::from_le_bytes(*bytes));
    }
    for index in 0..ENTRIES / 4 {
        registers.write(r::RETA + index * 4, redirection(index, queues));
    }
    registers.write(r::MRQC, MRQC_VALUE);
}

/// Four entries of the redirection table from `4 * index` on, round robin.
fn redirection(index: u32, queues: u16) -> u32 {
    let queues = u32::from(queues.max(1));
    (0..4).fold(0, |word, entry| {
        word | ((index * 4 + entry) % queues) << (entry * 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_gets_its_share() {
        for queues in 1..=16u16 {
            let mut shares = [0u32; 16];
            for index in 0..ENTRIES / 4 {
                for queue in redirection(index, queues).to_le_bytes() {
                    shares[usize::from(queue)] += 1;
                }
            }
            let (used, unused) = shares.split_at(usize::from(queues));
            assert!(unused.iter().all(|share| *share == 0));
            assert!(used.iter().max() <= used.iter().min().map(|least| least + 1).as_ref());
        }
    }
}
