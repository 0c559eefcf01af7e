//! Heads that were seen before, and what they were answered with.
//!
//! A client on a persistent connection sends the same head over and over, and so do clients of one kind: what differs is most often
//! the target alone. Where a head's answer depends on nothing but its bytes and the site, it is kept, and the next such head is found
//! by comparing bytes instead of being parsed. A parser that stops at a head's end gives the same for every text that begins
//! with that head, so a hit is what parsing would have given.

use crate::answer::Answer;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;

/// Heads kept, a power of two.
const SLOTS: usize = 256;
/// Longer heads aren't kept: 256 of them bound what a shard spends.
const LONGEST: usize = 1024;
/// Bytes that choose the slot: method, target and version of a short request.
const PREFIX: usize = 32;

struct Known {
    head: Vec<u8>,
    answer: Answer,
}

/// The heads that one shard has seen lately.
pub struct Repeats {
    slots: RefCell<Box<[Option<Known>]>>,
}

impl Default for Repeats {
    fn default() -> Self {
        Repeats::new()
    }
}

impl Repeats {
    /// None yet.
    pub fn new() -> Repeats {
        let slots: Vec<_> = (0..SLOTS).map(|_| None).collect();
        Repeats {
            slots: RefCell::new(slots.into()),
        }
    }

    /// Answer and length of the known head that `bytes` begin with.
    #[inline]
    pub fn find(&self, bytes: &[u8]) -> Option<(Answer, usize)> {
        let slots = self.slots.try_borrow().ok()?;
        let known = slots.get(slot(bytes)?)?.as_ref()?;
        bytes
            .starts_with(&known.head)
            .then_some((known.answer, known.head.len()))
    }

    /// Keeps a head with an answer that depends on nothing else.
    #[cold]
    pub fn keep(&self, head: &[u8], answer: Answer) {
        if head.len() <= LONGEST
            && let (Some(slot), Ok(mut slots)) = (slot(head), self.slots.try_borrow_mut())
            && let Some(slot) = slots.get_mut(slot)
        {
            let known = slot.get_or_insert(Known {
                head: Vec::new(),
                answer,
            });
            known.head.clear();
            known.head.extend_from_slice(head);
            known.answer = answer;
        }
    }
}

#[inline]
fn slot(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<PREFIX>()?;
    let (words, _) = prefix.as_chunks::<8>();
    let hash = words.iter().fold(0u64, |hash, word| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    Some((hash >> 56) as usize & (SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: appliance\r\n\r\n";

    #[test]
    fn a_head_is_found_at_the_front_of_more_and_nowhere_else() {
        let repeats = Repeats::new();
        let answer = Answer::last(Status::NotFound);
        assert_eq!(repeats.find(HEAD), None);
        repeats.keep(HEAD, answer);
        assert_eq!(repeats.find(HEAD), Some((answer, HEAD.len())));
        assert_eq!(repeats.find(&[HEAD, b"GET"].concat()), Some((answer, HEAD.len())));
        for length in 0..HEAD.len() {
            assert_eq!(repeats.find(&HEAD[..length]), None);
        }
        for index in 0..HEAD.len() {
            let mut other = HEAD.to_vec();
            other[index] ^= 1;
            assert_eq!(repeats.find(&other), None);
        }
    }

    #[test]
    fn a_long_head_is_not_kept() {
        let repeats = Repeats::new();
        let long = [b'x'; LONGEST + 1];
        repeats.keep(&long, Answer::last(Status::NotFound));
        assert_eq!(repeats.find(&long), None);
    }
}
