//! Counters over all incarnations of the driver.
//!
//! Requests are counted here ([`Tally`]), each when it is given back. What only a driver can count, its commands and what it does to its device, it counts from its
//! start; of the dead ones that is known up to the last reading: none can be had from the dead.

use domain_rt::OwnerId;
use interface::block::BlockStatistics;
use rref::Block;
use rref::block::{Operation, Progress};

/// Requests that were given back.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    reads: u64,
    read_blocks: u64,
    writes: u64,
    written_blocks: u64,
    flushes: u64,
    discards: u64,
    errors: u64,
}

impl Tally {
    /// Counts an answer; what had no room is none.
    #[inline]
    pub fn add(&mut self, answer: &Block) {
        match (answer.progress(), answer.operation()) {
            (Progress::Submitted, _) => {}
            (Progress::Failed, _) | (_, None) => self.errors += 1,
            (Progress::Done, Some(Operation::Read)) => {
                self.reads += 1;
                self.read_blocks += u64::from(answer.count);
            }
            (Progress::Done, Some(Operation::Write)) => {
                self.writes += 1;
                self.written_blocks += u64::from(answer.count);
            }
            (Progress::Done, Some(Operation::Flush)) => self.flushes += 1,
            (Progress::Done, Some(_)) => self.discards += 1,
        }
    }

    /// Adds these numbers, of blocks of so many bytes, to statistics in which they are not counted.
    pub fn add_to(&self, statistics: &mut BlockStatistics, block_bytes: u64) {
        statistics.reads += self.reads;
        statistics.read_bytes += self.read_blocks * block_bytes;
        statistics.writes += self.writes;
        statistics.written_bytes += self.written_blocks * block_bytes;
        statistics.flushes += self.flushes;
        statistics.discards += self.discards;
        statistics.errors += self.errors;
    }
}

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

/// The sum of what only drivers count.
fn sum(a: &BlockStatistics, b: &BlockStatistics) -> BlockStatistics {
    BlockStatistics {
        commands: a.commands.wrapping_add(b.commands),
        timeouts: a.timeouts.wrapping_add(b.timeouts),
        aborts: a.aborts.wrapping_add(b.aborts),
        resets: a.resets.wrapping_add(b.resets),
        interrupts: a.interrupts.wrapping_add(b.interrupts),
        ..BlockStatistics::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(commands: u64) -> BlockStatistics {
        BlockStatistics {
            commands,
            ..BlockStatistics::default()
        }
    }

    #[test]
    fn a_new_driver_counts_on_from_the_last_reading_of_the_old() {
        let mut counters = Counters::default();
        let (first, second) = (OwnerId::new(2, 1), OwnerId::new(2, 2));
        assert_eq!(counters.add(first, reading(5)).commands, 5);
        assert_eq!(counters.add(first, reading(9)).commands, 9);
        assert_eq!(counters.add(second, reading(1)).commands, 10);
        assert_eq!(counters.known().commands, 10);
    }
}
