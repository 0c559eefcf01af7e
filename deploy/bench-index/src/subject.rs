//! Our side of the measurement: the engine's own index and hash.

use crate::workload::Workload;
use anyhow::{Result, ensure};
use kv_engine::index::Index;
use kv_engine::place::{CHECK_BITS, Place};
use side_by_side::{Round, processor_time_nanoseconds};

/// An index with the workload's keys.
pub struct Subject<'a> {
    workload: &'a Workload,
    index: Index,
}

impl<'a> Subject<'a> {
    /// Makes the index.
    pub fn new(workload: &'a Workload) -> Result<Self> {
        let mut index = Index::new(usize::MAX);
        let has_room = index.reserve(workload.keys.len()).is_ok();
        ensure!(has_room, "no memory for {} slots", workload.slots);
        ensure!(
            index.bytes() == workload.slots * kv_engine::index::SLOT_BYTES,
            "the index has not {} slots",
            workload.slots
        );
        for (number, key) in (1..).zip(&workload.keys) {
            let hash = workload.secret.hash(key);
            index.insert(hash.slot, number | u64::from(hash.check) << (64 - CHECK_BITS));
        }
        Ok(Self { workload, index })
    }

    /// Looks all keys up as often as `passes` says; the result is the sum of all words found.
    pub fn round(&self, passes: usize) -> Result<Round<1>> {
        let start = processor_time_nanoseconds()?;
        let mut checksum = 0_u64;
        for _ in 0..passes {
            checksum = checksum.wrapping_add(self.pass());
        }
        Ok(Round {
            nanoseconds: processor_time_nanoseconds()? - start,
            results: [checksum],
        })
    }

    #[inline(never)]
    fn pass(&self) -> u64 {
        let mut sum = 0_u64;
        for key in &self.workload.lookups {
            let hash = self.workload.secret.hash(key);
            let found = self
                .index
                .find(hash.slot, |word| Place::from_word(word).check() == hash.check);
            sum = sum.wrapping_add(found.unwrap_or(0));
        }
        sum
    }
}
