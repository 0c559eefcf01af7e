//! What outlives the domain besides the connection tables: who the backends are, and what the operator did to them.
//!
//! Remembered flows name backends by slot and incarnation, and flows are named by a keyed hash; so a table means something only with
//! the [`Roster`] of its time. It is kept in shared memory that goes to the next incarnation, in two copies with a checksum, of which
//! the older one is overwritten: a death in the middle of that leaves the newer one. A pulse beside it says when the domain was last
//! alive, and how often in a row it died young: what was left could be the reason, and then it is given up.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use rref::{OutOfMemory, SharedSlice, Tag};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::connection_table::LONGEST_TIMEOUT_SECONDS;
use crate::packet::MacAddress;

/// Changes with the meaning of [`Roster`]'s encoding and of the pulse.
const LAYOUT: u16 = 1;
const ROSTER: Tag = Tag::new(*b"MGLR", LAYOUT, 0);
const PULSE: Tag = Tag::new(*b"MGLP", LAYOUT, 0);

/// Bytes of one copy: more than the most backends with the longest names take.
const COPY_BYTES: usize = 512 << 10;
/// Before a copy's encoding: sequence number, length and checksum of these and it.
const HEAD_BYTES: usize = 24;

/// Lives in a row that end young before what was left is given up.
const YOUNG_DEATHS: u64 = 4;

/// A VIP as far as its index must mean the same: name, address, port, and whether it is TCP.
pub type VipIdentity = (String, IpAddr, u16, bool);

/// A backend in its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Index of its VIP.
    pub vip: u16,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
    /// Whether it is being drained.
    pub draining: bool,
}

/// All that remembered flows refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The key of the hash functions.
    pub seed: [u8; 16],
    /// Entries of the lookup tables.
    pub table_size: u32,
    /// The VIPs, in the order of their indices.
    pub vips: Vec<VipIdentity>,
    /// Incarnation and tenant of each slot.
    pub slots: Vec<(u16, Option<Tenant>)>,
    /// Where backends were found last.
    pub neighbours: Vec<(IpAddr, MacAddress)>,
    /// Where forwarded frames come from.
    pub source_mac: MacAddress,
}

/// What an earlier incarnation left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Its roster.
    pub roster: Option<Roster>,
    /// Whether its connection tables are young enough to be used.
    pub tables: bool,
    /// It was left, and is not used because that many incarnations in a row died with it.
    pub young_deaths: u64,
}

/// The memory that outlives the domain.
pub struct Kept {
    copies: SharedSlice<u8>,
    /// Of the newest copy.
    sequence: u64,
    pulse: SharedSlice<u64>,
}

/// Index in the pulse: when the domain was last alive, in seconds.
const ALIVE_SECONDS: usize = 0;
/// Index in the pulse: incarnations in a row, this one included, that have not grown old yet.
const YOUNG: usize = 1;
const PULSE_WORDS: usize = 2;

impl Kept {
    /// The memory, an earlier incarnation's if there was one, and what that left in it.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn open(now_seconds: u64) -> Result<(Kept, Left), OutOfMemory> {
        let old =
            SharedSlice::inherit(ROSTER).filter(|copies: &SharedSlice<u8>| copies.len() == 2 * COPY_BYTES);
        let old_pulse =
            SharedSlice::inherit(PULSE).filter(|pulse: &SharedSlice<u64>| pulse.len() == PULSE_WORDS);
        // Others, of another size, are of no use.
        while SharedSlice::<u8>::inherit(ROSTER).is_some() {}
        while SharedSlice::<u8>::inherit(PULSE).is_some() {}
        let mut copies = match old {
            Some(old) => old,
            None => SharedSlice::zeroed(2 * COPY_BYTES)?,
        };
        let mut pulse = match old_pulse {
            Some(old) => old,
            None => SharedSlice::zeroed(PULSE_WORDS)?,
        };
        copies.bequeath(ROSTER);
        pulse.bequeath(PULSE);
        let mut kept = Kept {
            copies,
            sequence: 0,
            pulse,
        };
        let mut left = Left::default();
        if let Some((sequence, roster)) = kept.newest() {
            kept.sequence = sequence;
            let young = kept.word(YOUNG);
            if young >= YOUNG_DEATHS {
                left.young_deaths = young;
                kept.set_word(YOUNG, 0);
            } else {
                let age = now_seconds.checked_sub(kept.word(ALIVE_SECONDS));
                left.roster = Some(roster);
                left.tables = age.is_some_and(|age| age <= u64::from(LONGEST_TIMEOUT_SECONDS));
            }
        }
        kept.set_word(YOUNG, kept.word(YOUNG).saturating_add(1));
        kept.set_word(ALIVE_SECONDS, now_seconds);
        Ok((kept, left))
    }

    /// Does what the death of the host's domain would.
    #[cfg(test)]
    pub(crate) fn die(self) {
        host_platform::leave(self.copies);
        host_platform::leave(self.pulse);
    }

    /// Says that the domain is alive and well; called about once a second, and not before it has done some work.
    pub fn beat(&mut self, now_seconds: u64) {
        self.set_word(ALIVE_SECONDS, now_seconds);
        self.set_word(YOUNG, 0);
    }

    fn word(&self, index: usize) -> u64 {
        self.pulse.get(index).copied().unwrap_or_default()
    }

    fn set_word(&mut self, index: usize, value: u64) {
        if let Some(word) = self.pulse.get_mut(index) {
            *word = value;
        }
    }

    /// Keeps a new roster in place of the one before; false if it is too large, which none is that `control` makes.
    pub fn save(&mut self, roster: &Roster) -> bool {
        let sequence = self.sequence + 1;
        let mut copies = self.copies.chunks_exact_mut(COPY_BYTES);
        // Not the newest one.
        let copy = copies.nth((sequence % 2) as usize);
        let Some((head, body)) = copy.and_then(|copy| copy.split_first_chunk_mut::<HEAD_BYTES>()) else {
            return false;
        };
        let Ok(body) = postcard::to_slice(roster, body) else {
            return false;
        };
        *head = head_of(sequence, body);
        self.sequence = sequence;
        true
    }

    /// The newest copy that is whole, with its number.
    fn newest(&self) -> Option<(u64, Roster)> {
        let copies = self.copies.chunks_exact(COPY_BYTES).filter_map(read);
        let (sequence, body) = copies.max_by_key(|(sequence, _)| *sequence)?;
        Some((sequence, postcard::from_bytes(body).ok()?))
    }
}

/// Number and encoding of a copy, if it is whole.
fn read(copy: &[u8]) -> Option<(u64, &[u8])> {
    let (head, body) = copy.split_first_chunk::<HEAD_BYTES>()?;
    let (sequence, rest) = head.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    let sequence = u64::from_le_bytes(*sequence);
    let body = body.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    (sequence != 0 && *head == head_of(sequence, body)).then_some((sequence, body))
}

fn head_of(sequence: u64, body: &[u8]) -> [u8; HEAD_BYTES] {
    let checksum = SipHasher24::new_with_keys(sequence, body.len() as u64).hash(body);
    let mut head = [0; HEAD_BYTES];
    let words = [sequence, body.len() as u64, checksum];
    for (bytes, word) in head.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    head
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Kept")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
