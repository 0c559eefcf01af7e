//! Numbers that outsiders can't guess: initial sequence numbers (RFC 6528), hash keys, ports.
//!
//! The secret is mixed from the machine's clocks at the start and stirred with the arrival times, in nanoseconds, of the first
//! frames. It is not a cryptographic random number generator and makes no keys; it keeps someone off the path from guessing
//! sequence numbers and from aiming at a hash chain.
//!
//! smoltcp draws an initial sequence number from the generator of an `Interface`, whose next outputs are a simple function of
//! its seed. [`Draws`] inverts that function, so that the number of RFC 6528 comes out. Should smoltcp change its generator, the
//! test below fails; sequence numbers are then still a function of the secret, and connections keep their sockets.

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

/// Random numbers at most that a new `Interface` may take for itself.
const DRAW_LIMIT: u32 = 8;

/// How many random numbers a new `Interface` takes for itself before the first connection's; depends on the features that smoltcp is built
/// with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws(u32);

impl Draws {
    /// Finds the number out: `opened_with` opens a connection in an interface of a seed, and says its sequence number. `None` when there
    /// is no such number, and sequence numbers can't be chosen.
    pub fn find(opened_with: impl Fn(u64) -> Option<u32>) -> Option<Draws> {
        (0..DRAW_LIMIT).map(Draws).find(|draws| {
            [0x0123_4567, 0xfedc_ba98]
                .iter()
                .all(|wanted| opened_with(draws.seed_for(*wanted)) == Some(*wanted))
        })
    }

    /// The seed that makes a new `Interface`'s first connection start at `sequence`.
    ///
    /// A number that an interface takes for itself is taken again when it is zero, cut to 8 or 16 bits; so those are avoided.
    pub fn seed_for(self, sequence: u32) -> u64 {
        let mut low = 0;
        'search: loop {
            // The top three bits are zero, so the output is the word shifted right by 29.
            let mut state = u64::from(sequence) << 29 | low;
            low += 1;
            for _ in 0..self.0 {
                state = before(state);
                let taken = output(state);
                if (taken ^ taken >> 16) as u16 == 0 || taken as u8 == 0 {
                    continue 'search;
                }
            }
            return before(state);
        }
    }
}

fn before(state: u64) -> u64 {
    state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::opened_with;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn smoltcp_draws_the_wanted_sequence_number(sequence: u32) {
            let draws = Draws::find(opened_with).expect("smoltcp's generator is as it was");
            prop_assert_eq!(opened_with(draws.seed_for(sequence)), Some(sequence));
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
