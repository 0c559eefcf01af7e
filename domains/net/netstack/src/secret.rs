//! Numbers that outsiders can't guess: initial sequence numbers (RFC 6528), hash keys, ports.
//!
//! The secret is mixed from the machine's clocks at the start and stirred with the arrival times, in nanoseconds, of the first
//! frames. It is not a cryptographic random number generator and makes no keys; it keeps someone off the path from guessing
//! sequence numbers and from aiming at a hash chain.
//!
//! smoltcp draws an initial sequence number from the generator of an `Interface`, whose next outputs are a simple function of
//! its seed. [`seed_for`] inverts that function, so that the number of RFC 6528 comes out. If smoltcp changes its generator,
//! the test below fails; the sequence numbers would then still be a function of the secret.

use crate::demultiplex::FlowKey;
use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// Multiplier and increment of smoltcp's generator, and the multiplier's inverse modulo 2^64.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
const INVERSE: u64 = inverse(MULTIPLIER);

/// Newton's iteration doubles the right bits: an odd number is its own inverse in the lowest three.
const fn inverse(odd: u64) -> u64 {
    let mut result = odd;
    let mut round = 0;
    while round < 5 {
        result = result.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(result)));
        round += 1;
    }
    result
}

/// Times that the secret is stirred.
const STIR_LIMIT: u32 = 256;

/// The secret of one shard.
#[derive(Clone)]
pub struct Secret {
    key: [u64; 2],
    stirred: u32,
    drawn: u64,
}

impl Secret {
    /// One made of times and a number that differs by shard.
    pub fn new(now_ns: u64, unix_time_s: u64, shard: u16) -> Secret {
        let mut secret = Secret {
            key: [
                0x736f_6d65_7073_6575 ^ now_ns,
                0x646f_7261_6e64_6f6d ^ unix_time_s,
            ],
            stirred: 0,
            drawn: 0,
        };
        secret.mix(u64::from(shard));
        secret
    }

    fn mix(&mut self, value: u64) {
        self.key = [self.hash(&[value, 1]), self.hash(&[value, 2])];
    }

    /// Mixes in when something arrived; does nothing once enough did.
    #[inline]
    pub fn stir(&mut self, now_ns: u64) {
        if self.stirred < STIR_LIMIT {
            self.stirred += 1;
            self.mix(now_ns);
        }
    }

    fn hash(&self, words: &[u64]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        for word in words {
            hasher.write_u64(*word);
        }
        hasher.finish()
    }

    /// A number that was not drawn before.
    pub fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.hash(&[self.drawn, 3])
    }

    /// The initial sequence number of a connection: 4 µs ticks plus a keyed hash of the 4-tuple (RFC 6528, 3).
    pub fn initial_sequence(&self, key: &FlowKey, now_ns: u64) -> u32 {
        let hash = self.hash(&[
            key.local as u64,
            (key.local >> 64) as u64,
            key.remote as u64,
            (key.remote >> 64) as u64,
            u64::from(key.local_port) << 16 | u64::from(key.remote_port),
        ]);
        (hash as u32).wrapping_add((now_ns / 4000) as u32)
    }
}

fn output(state: u64) -> u32 {
    (state >> (29 - (state >> 61))) as u32
}

/// The seed that makes a new `Interface`'s second random number `sequence`; the first one it takes for itself, and again
/// if its low half is zero.
pub fn seed_for(sequence: u32) -> u64 {
    let mut low = 0;
    loop {
        // The top three bits are zero, so the output is the word shifted right by 29.
        let second = u64::from(sequence) << 29 | low;
        let first = second.wrapping_sub(INCREMENT).wrapping_mul(INVERSE);
        let taken = output(first);
        if (taken ^ taken >> 16) as u16 != 0 {
            return first.wrapping_sub(INCREMENT).wrapping_mul(INVERSE);
        }
        low += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::listening_set;
    use crate::device::{Capabilities, Exchange};
    use crate::shard::new_interface;
    use proptest::prelude::*;
    use smoltcp::iface::SocketSet;
    use smoltcp::socket::tcp;
    use smoltcp::time::Instant;
    use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

    /// Opens a connection in smoltcp and reads the sequence number of its SYN.
    fn opened_with(seed: u64) -> u32 {
        let capabilities = Capabilities::plain(1500);
        let mut interface = new_interface(capabilities, seed, Instant::ZERO);
        let (mut set, handle): (SocketSet<'static>, _) = listening_set(8192, 8192);
        let remote = IpEndpoint::new(IpAddress::v4(10, 0, 0, 1), 80);
        let local = IpListenEndpoint::from(IpEndpoint::new(IpAddress::v4(10, 0, 0, 2), 4000));
        set.get_mut::<tcp::Socket<'_>>(handle)
            .connect(interface.context(), remote, local)
            .expect("a closed socket connects");
        let mut out = [0; 1500];
        let mut device = Exchange::new(capabilities, None, &mut out);
        interface.poll_egress(Instant::ZERO, &mut device, &mut set);
        assert!(device.sent_bytes() >= 40);
        u32::from_be_bytes([out[24], out[25], out[26], out[27]])
    }

    proptest! {
        #[test]
        fn smoltcp_draws_the_wanted_sequence_number(sequence: u32) {
            prop_assert_eq!(opened_with(seed_for(sequence)), sequence);
        }
    }

    #[test]
    fn sequence_numbers_rise_with_time_and_differ_by_flow() {
        let secret = Secret::new(1, 2, 0);
        let key = FlowKey {
            local: 1,
            remote: 2,
            local_port: 3,
            remote_port: 4,
        };
        let first = secret.initial_sequence(&key, 0);
        assert_eq!(secret.initial_sequence(&key, 4_000_000), first.wrapping_add(1000));
        assert_ne!(
            secret.initial_sequence(
                &FlowKey {
                    remote_port: 5,
                    ..key
                },
                0
            ),
            first
        );
    }
}
