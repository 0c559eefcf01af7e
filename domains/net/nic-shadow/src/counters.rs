//! Counters over all incarnations of the driver.
//!
//! A driver counts from its start. What the dead ones counted is known up to the last reading of each, so frames between that and
//! the death are missing: no reading can be had from the dead, and reading a device costs too much to do it for every batch.

use domain_rt::OwnerId;
use interface::net::NetStatistics;

/// What is known of the incarnations before, and of the last one that was read.
#[derive(Default)]
pub struct Counters {
    before: NetStatistics,
    last: Option<(OwnerId, NetStatistics)>,
}

impl Counters {
    /// Takes a reading of one incarnation, gives the sum over all.
    pub fn add(&mut self, incarnation: OwnerId, reading: NetStatistics) -> NetStatistics {
        if let Some((of, last)) = self.last
            && of != incarnation
        {
            self.before = sum(&self.before, &last);
        }
        self.last = Some((incarnation, reading));
        sum(&self.before, &reading)
    }

    /// The sum as far as it is known, when there is nobody to read.
    pub fn known(&self) -> NetStatistics {
        self.last
            .map_or(self.before, |(_, last)| sum(&self.before, &last))
    }
}

fn sum(a: &NetStatistics, b: &NetStatistics) -> NetStatistics {
    NetStatistics {
        received_frames: a.received_frames.wrapping_add(b.received_frames),
        received_bytes: a.received_bytes.wrapping_add(b.received_bytes),
        received_multicast: a.received_multicast.wrapping_add(b.received_multicast),
        transmitted_frames: a.transmitted_frames.wrapping_add(b.transmitted_frames),
        transmitted_bytes: a.transmitted_bytes.wrapping_add(b.transmitted_bytes),
        receive_missed: a.receive_missed.wrapping_add(b.receive_missed),
        crc_errors: a.crc_errors.wrapping_add(b.crc_errors),
        length_errors: a.length_errors.wrapping_add(b.length_errors),
        checksum_errors: a.checksum_errors.wrapping_add(b.checksum_errors),
        transmit_full: a.transmit_full.wrapping_add(b.transmit_full),
        transmit_hangs: a.transmit_hangs.wrapping_add(b.transmit_hangs),
        interrupts: a.interrupts.wrapping_add(b.interrupts),
        restarts: a.restarts.wrapping_add(b.restarts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(received_frames: u64) -> NetStatistics {
        NetStatistics {
            received_frames,
            ..NetStatistics::default()
        }
    }

    #[test]
    fn a_new_driver_counts_on_from_the_last_reading_of_the_old() {
        let mut counters = Counters::default();
        let (first, second) = (OwnerId::new(2, 1), OwnerId::new(2, 2));
        assert_eq!(counters.add(first, reading(5)).received_frames, 5);
        assert_eq!(counters.add(first, reading(9)).received_frames, 9);
        assert_eq!(counters.add(second, reading(1)).received_frames, 10);
        assert_eq!(counters.add(second, reading(4)).received_frames, 13);
        assert_eq!(counters.known().received_frames, 13);
    }
}
