//! Counters over all incarnations of the driver.
//!
//! A driver counts from its start. What the dead ones counted is known up to the last reading of each: no reading can be had from the dead.

use domain_rt::OwnerId;
use interface::block::BlockStatistics;

/// What is known of the incarnations before, and of the last one that was read.
#[derive(Default)]
pub struct Counters {
    before: BlockStatistics,
    last: Option<(OwnerId, BlockStatistics)>,
}

impl Counters {
    /// Takes a reading of one incarnation, gives the sum over all.
    pub fn add(&mut self, incarnation: OwnerId, reading: BlockStatistics) -> BlockStatistics {
        if let Some((of, last)) = self.last
            && of != incarnation
        {
            self.before = sum(&self.before, &last);
        }
        self.last = Some((incarnation, reading));
        sum(&self.before, &reading)
    }

    /// The sum as far as it is known, when there is nobody to read.
    pub fn known(&self) -> BlockStatistics {
        self.last
            .map_or(self.before, |(_, last)| sum(&self.before, &last))
    }
}

fn sum(a: &BlockStatistics, b: &BlockStatistics) -> BlockStatistics {
    BlockStatistics {
        reads: a.reads.wrapping_add(b.reads),
        read_bytes: a.read_bytes.wrapping_add(b.read_bytes),
        writes: a.writes.wrapping_add(b.writes),
        written_bytes: a.written_bytes.wrapping_add(b.written_bytes),
        flushes: a.flushes.wrapping_add(b.flushes),
        discards: a.discards.wrapping_add(b.discards),
        commands: a.commands.wrapping_add(b.commands),
        errors: a.errors.wrapping_add(b.errors),
        timeouts: a.timeouts.wrapping_add(b.timeouts),
        aborts: a.aborts.wrapping_add(b.aborts),
        resets: a.resets.wrapping_add(b.resets),
        interrupts: a.interrupts.wrapping_add(b.interrupts),
        restarts: a.restarts.wrapping_add(b.restarts),
        replayed: a.replayed.wrapping_add(b.replayed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(writes: u64) -> BlockStatistics {
        BlockStatistics {
            writes,
            ..BlockStatistics::default()
        }
    }

    #[test]
    fn a_new_driver_counts_on_from_the_last_reading_of_the_old() {
        let mut counters = Counters::default();
        let (first, second) = (OwnerId::new(2, 1), OwnerId::new(2, 2));
        assert_eq!(counters.add(first, reading(5)).writes, 5);
        assert_eq!(counters.add(first, reading(9)).writes, 9);
        assert_eq!(counters.add(second, reading(1)).writes, 10);
        assert_eq!(counters.known().writes, 10);
    }
}
