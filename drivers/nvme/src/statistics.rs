//! What a queue counts.

use interface::block::BlockStatistics;
use interface::storage_health::{LATENCY_BUCKETS, LatencyHistogram};
use rref::block::{Block, Operation};

/// One queue's counters.
#[derive(Clone, Copy)]
pub struct Counters {
    /// What users see of them.
    pub totals: BlockStatistics,
    /// How long commands took.
    pub latency: LatencyHistogram,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            totals: BlockStatistics::default(),
            latency: LatencyHistogram {
                counts: [0; LATENCY_BUCKETS],
                longest_ns: 0,
            },
        }
    }
}

impl Counters {
    /// A request is done, which moved `bytes` if it moves any.
    #[inline(always)]
    pub fn done(&mut self, operation: Operation, bytes: u64) {
        let totals = &mut self.totals;
        match operation {
            Operation::Read => {
                totals.reads += 1;
                totals.read_bytes += bytes;
            }
            Operation::Write => {
                totals.writes += 1;
                totals.written_bytes += bytes;
            }
            Operation::Flush => totals.flushes += 1,
            Operation::WriteZeroes | Operation::Deallocate => totals.discards += 1,
        }
    }

    /// A command was answered after `ns`.
    #[inline(always)]
    pub fn answered(&mut self, ns: u64) {
        let bucket = (ns | 1).ilog2() as usize;
        if let Some(count) = self.latency.counts.get_mut(bucket.min(LATENCY_BUCKETS - 1)) {
            *count += 1;
        }
        self.latency.longest_ns = self.latency.longest_ns.max(ns);
    }

    /// Adds them to those of other queues.
    pub fn add_to(&self, total: &mut Counters) {
        let (from, to) = (&self.totals, &mut total.totals);
        to.reads += from.reads;
        to.read_bytes += from.read_bytes;
        to.writes += from.writes;
        to.written_bytes += from.written_bytes;
        to.flushes += from.flushes;
        to.discards += from.discards;
        to.commands += from.commands;
        to.errors += from.errors;
        to.timeouts += from.timeouts;
        to.aborts += from.aborts;
        for (to, from) in total.latency.counts.iter_mut().zip(self.latency.counts) {
            *to += from;
        }
        total.latency.longest_ns = total.latency.longest_ns.max(self.latency.longest_ns);
    }
}

/// Bytes that a read or write moves in blocks of `block_bytes`.
#[inline(always)]
pub fn moved_bytes(block: &Block, block_bytes: u32) -> u64 {
    u64::from(block.count) * u64::from(block_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket() {
        let mut counters = Counters::default();
        for ns in [0, 1, 2, 1023, 1024, u64::MAX] {
            counters.answered(ns);
        }
        let mut total = Counters::default();
        counters.add_to(&mut total);
        counters.add_to(&mut total);
        let counts = total.latency.counts;
        assert_eq!((counts[0], counts[1], counts[9], counts[10]), (4, 2, 2, 2));
        assert_eq!(counts[LATENCY_BUCKETS - 1], 2);
        assert_eq!(total.latency.longest_ns, u64::MAX);
    }
}
