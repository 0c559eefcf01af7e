//! The lookup table: consistent hashing by the paper's population algorithm (Maglev, NSDI 2016, section 3.4).
//!
//! Every backend has a permutation of the table's entries, given by two hashes of its name; backends take turns claiming
//! the next free entry of their permutation until the table is full. So shares differ by at most one entry, and a change
//! of one backend moves few entries of the others. Weights change how often a backend gets a turn. Knows nothing of
//! flows' state (`connection_table.rs`) or of what an entry's number stands for (`snapshot.rs`).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::hash::NameHasher;

/// The number of a backend in the balancer's list: an index, unique among the backends that exist at one time.
pub type BackendSlot = u16;

/// The slot that no backend has.
pub const NO_BACKEND: BackendSlot = BackendSlot::MAX;

/// Table entries by default: the paper's "small" table, at most 1 % apart in share for up to 650 backends.
pub const DEFAULT_TABLE_SIZE: u32 = 65_537;

/// A table's number of entries: a prime, so that every skip generates a whole permutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u32);

/// A table size that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableSizeError {
    /// Not a prime; the next one up is given.
    #[error("{size} is not a prime; the next prime is {next}")]
    NotPrime {
        /// The size asked for.
        size: u32,
        /// The smallest prime above it.
        next: u32,
    },
    /// Outside of [`TableSize::SMALLEST`] to [`TableSize::LARGEST`].
    #[error("{size} is not between {smallest} and {largest}", smallest = TableSize::SMALLEST, largest = TableSize::LARGEST)]
    OutOfRange {
        /// The size asked for.
        size: u32,
    },
}

impl TableSize {
    /// The smallest table, good for the paper's example and for nothing else.
    pub const SMALLEST: u32 = 7;
    /// The largest: a prime near 2^24, 32 MiB a VIP.
    pub const LARGEST: u32 = 16_777_213;

    /// Checks a size that an operator asks for.
    ///
    /// # Errors
    /// When it is not a prime or out of range.
    pub fn new(size: u32) -> Result<Self, TableSizeError> {
        if !(Self::SMALLEST..=Self::LARGEST).contains(&size) {
            return Err(TableSizeError::OutOfRange { size });
        }
        if is_prime(size) {
            return Ok(Self(size));
        }
        // LARGEST is itself a prime, so the search ends there at the latest.
        let next = (size..=Self::LARGEST)
            .find(|&candidate| is_prime(candidate))
            .unwrap_or(Self::LARGEST);
        Err(TableSizeError::NotPrime { size, next })
    }

    /// The number of entries.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self(DEFAULT_TABLE_SIZE)
    }
}

fn is_prime(number: u32) -> bool {
    let number = u64::from(number);
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// A backend as the population algorithm sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What stands in the entries it gets.
    pub slot: BackendSlot,
    /// Its unique name: all that its permutation depends on.
    pub name: &'a str,
    /// Its share relative to the others'; 0 gets no entry.
    pub weight: u16,
}

/// A full table: every entry has a backend, or none has one because there was no candidate. A clone is the same table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupTable {
    /// Shared by those that hold it, and never changed.
    entries: Arc<[BackendSlot]>,
}

/// A backend's way through the table.
struct Preference {
    slot: BackendSlot,
    /// The entry it asks for next.
    position: u32,
    skip: u32,
    weight: u32,
    /// Turns saved up, in units of 1/(largest weight).
    credit: u32,
}

impl LookupTable {
    /// Populates a table of `size` entries.
    ///
    /// Takes time in proportion to size × ln(size) on average; the order of `candidates` decides who goes first in each
    /// round, so callers keep it stable.
    #[must_use]
    pub fn build(size: TableSize, hasher: &NameHasher, candidates: &[Candidate<'_>]) -> Self {
        let modulus = u64::from(size.get());
        let preferences = candidates
            .iter()
            .filter(|candidate| candidate.weight > 0)
            .map(|candidate| Preference {
                slot: candidate.slot,
                position: (hasher.offset(candidate.name) % modulus) as u32,
                skip: (hasher.skip(candidate.name) % (modulus - 1) + 1) as u32,
                weight: u32::from(candidate.weight),
                credit: 0,
            });
        Self {
            entries: populate(size.get(), preferences.collect()).into(),
        }
    }

    /// The table of other candidates with the same names, weights and order: `slots` has, for each slot of this table's, the one of theirs.
    #[must_use]
    pub fn with_slots(&self, slots: &[BackendSlot]) -> Self {
        let other = |slot: &BackendSlot| slots.get(usize::from(*slot)).copied().unwrap_or(NO_BACKEND);
        Self {
            entries: self.entries.iter().map(other).collect(),
        }
    }

    /// The backend for a flow, [`NO_BACKEND`] when there is none.
    ///
    /// Scales the hash to the table instead of dividing by the table's size: as even, and a multiplication is cheaper.
    #[inline(always)]
    #[must_use]
    pub fn backend(&self, flow_hash: u64) -> BackendSlot {
        let index = (u128::from(flow_hash) * self.entries.len() as u128) >> 64;
        self.entries.get(index as usize).copied().unwrap_or(NO_BACKEND)
    }

    /// All entries, for reports on balance and disruption.
    #[must_use]
    pub fn entries(&self) -> &[BackendSlot] {
        &self.entries
    }

    /// How many entries differ from those of `other`; tables of different sizes differ in all.
    #[must_use]
    pub fn difference(&self, other: &Self) -> usize {
        if self.entries.len() != other.entries.len() {
            return self.entries.len().max(other.entries.len());
        }
        self.entries
            .iter()
            .zip(other.entries.iter())
            .filter(|(ours, theirs)| ours != theirs)
            .count()
    }
}

fn populate(size: u32, mut preferences: Vec<Preference>) -> Vec<BackendSlot> {
    let mut entries = vec![NO_BACKEND; size as usize];
    let Some(largest_weight) = preferences.iter().map(|preference| preference.weight).max() else {
        return entries;
    };
    let mut free = size;
    loop {
        for preference in &mut preferences {
            preference.credit += preference.weight;
            if preference.credit < largest_weight {
                continue;
            }
            preference.credit -= largest_weight;
            claim(&mut entries, preference);
            free -= 1;
            if free == 0 {
                return entries;
            }
        }
    }
}

/// Gives the backend the first entry of its permutation that is still free. There must be one.
fn claim(entries: &mut [BackendSlot], preference: &mut Preference) {
    let size = entries.len() as u32;
    loop {
        let wanted = preference.position;
        // Both are below `size`, which is below 2^24, so the sum fits; a subtraction is cheaper than a division.
        preference.position += preference.skip;
        if preference.position >= size {
            preference.position -= size;
        }
        if let Some(entry @ &mut NO_BACKEND) = entries.get_mut(wanted as usize) {
            *entry = preference.slot;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;
    use crate::hash::HashSeed;

    fn names(count: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("backend-{index}.example.net"))
            .collect()
    }

    fn build(size: u32, seed: u8, names: &[String], weight: impl Fn(usize) -> u16) -> LookupTable {
        let candidates: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| Candidate {
                slot: index as u16,
                name,
                weight: weight(index),
            })
            .collect();
        let size = TableSize::new(size).expect("a prime");
        LookupTable::build(size, &NameHasher::new(&HashSeed([seed; 16])), &candidates)
    }

    fn shares(table: &LookupTable, count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        for &slot in table.entries() {
            shares[usize::from(slot)] += 1;
        }
        shares
    }

    /// Entries that changed though their backend stayed: the disruption beyond the unavoidable one.
    fn extra_changes(before: &LookupTable, after: &LookupTable, removed: impl Fn(u16) -> bool) -> usize {
        let pairs = before.entries().iter().zip(after.entries());
        pairs.filter(|(old, new)| old != new && !removed(**old)).count()
    }

    /// The worked example of the paper, table 1: three backends with given permutations, and the second removed.
    #[test]
    fn paper_example() {
        let preference = |slot, position, skip| Preference {
            slot,
            position,
            skip,
            weight: 1,
            credit: 0,
        };
        let before = populate(
            7,
            vec![preference(0, 3, 4), preference(1, 0, 2), preference(2, 3, 1)],
        );
        assert_eq!(before, [1, 0, 1, 0, 2, 2, 0]);
        let after = populate(7, vec![preference(0, 3, 4), preference(2, 3, 1)]);
        assert_eq!(after, [0, 0, 0, 0, 2, 2, 2]);
    }

    #[test]
    fn sizes_are_primes() {
        assert_eq!(TableSize::new(65_537).map(TableSize::get), Ok(65_537));
        assert_eq!(
            TableSize::new(65_536),
            Err(TableSizeError::NotPrime {
                size: 65_536,
                next: 65_537
            })
        );
        assert_eq!(TableSize::new(5), Err(TableSizeError::OutOfRange { size: 5 }));
        assert_eq!(
            TableSize::new(u32::MAX),
            Err(TableSizeError::OutOfRange { size: u32::MAX })
        );
        assert!(TableSize::new(TableSize::LARGEST).is_ok());
    }

    #[test]
    fn without_candidates_no_flow_has_a_backend() {
        let table = build(65_537, 0, &names(3), |_| 0);
        assert_eq!(table.backend(0), NO_BACKEND);
        assert_eq!(table.backend(u64::MAX), NO_BACKEND);
    }

    /// With 100 backends and 65,537 entries, removing one moves at most 0.8 % of the entries beyond its own; with 1,000
    /// likewise.
    #[test]
    fn removing_one_backend_moves_few_others() {
        for (count, seeds) in [(100_u16, 0..6_u8), (1_000, 0..3)] {
            let names = names(usize::from(count));
            for seed in seeds {
                let before = build(65_537, seed, &names, |_| 1);
                let victim = u16::from(seed) * 7 + 1;
                let after = build(65_537, seed, &names, |index| {
                    u16::from(index != usize::from(victim))
                });
                let extra = extra_changes(&before, &after, |slot| slot == victim);
                assert!(
                    extra * 1_000 <= 65_537 * 8,
                    "{count} backends, seed {seed}: {extra} extra changes"
                );
                assert!(after.entries().iter().all(|&slot| slot != victim));
            }
        }
    }

    /// Four backends, the lab's case: removing one moves at most 1 % of the rest.
    #[test]
    fn removing_one_of_four_moves_at_most_one_percent() {
        let names = names(4);
        for seed in 0..20 {
            let before = build(65_537, seed, &names, |_| 1);
            let after = build(65_537, seed, &names, |index| u16::from(index != 2));
            let extra = extra_changes(&before, &after, |slot| slot == 2);
            assert!(extra * 100 <= 65_537, "seed {seed}: {extra} extra changes");
        }
    }

    /// Removing 5 % of 100 backends: 0.9 % measured, 1.5 % allowed.
    #[test]
    fn removing_five_percent_moves_few_others() {
        let names = names(100);
        let before = build(65_537, 1, &names, |_| 1);
        let after = build(65_537, 1, &names, |index| u16::from(index % 20 != 0));
        let extra = extra_changes(&before, &after, |slot| slot % 20 == 0);
        assert!(extra * 1_000 <= 65_537 * 15, "{extra} extra changes");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Equal weights: shares differ by at most one entry, whatever the names, the seed and the prime.
        #[test]
        fn equal_weights_share_equally(
            seed: u8, count in 1_usize..200, size in prop::sample::select(vec![251_u32, 4_093, 16_381, 65_537]),
        ) {
            let shares = shares(&build(size, seed, &names(count), |_| 1), count);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{least}..{most}");
        }

        /// Unequal weights: every share is within one round of its due.
        #[test]
        fn weights_share_in_proportion(seed: u8, weights in prop::collection::vec(0_u16..100, 1..60)) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let table = build(65_537, seed, &names(weights.len()), |index| weights[index]);
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (share, &weight) in shares(&table, weights.len()).into_iter().zip(&weights) {
                let due = 65_537.0 * f64::from(weight) / total;
                prop_assert!((share as f64 - due).abs() <= 2.0 + due * 0.001, "{share} entries, {due} due");
            }
        }

        /// The table depends on nothing but its input: two balancers of a cluster agree.
        #[test]
        fn tables_are_reproducible(seed: u8, count in 1_usize..50) {
            let names = names(count);
            let (one, other) = (build(4_093, seed, &names, |_| 3), build(4_093, seed, &names, |_| 3));
            prop_assert_eq!(one.difference(&other), 0);
        }
    }
}
