//! The death records: what died, why, and how long nobody did its work.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use interface::black_box::DeathCounts;
use interface::kernel::{DeathRecord, DomainName};
use interface::supervise::{Outage, SupervisedDeath};

/// Deaths that are kept; older ones are forgotten.
pub const KEPT: usize = 1024;

/// The newest deaths, oldest first, and counts of all.
#[derive(Default)]
pub struct Records {
    deaths: VecDeque<SupervisedDeath>,
    total: u64,
    /// By the domain's index in the manifest; a domain that never died may have none.
    counts: Vec<DeathCounts>,
}

impl Records {
    /// Adds a death.
    pub fn add(&mut self, record: DeathRecord, name: DomainName) {
        if self.deaths.len() >= KEPT {
            self.deaths.pop_front();
        }
        self.deaths.push_back(SupervisedDeath {
            record,
            name,
            outage_ns: 0,
        });
        self.total += 1;
        if let Some(counts) = self.counts_mut(record.domain) {
            counts.add(record.cause);
        }
    }

    /// Counts of a domain's deaths.
    pub fn counts(&self, domain: u16) -> DeathCounts {
        let counts = self.counts.get(usize::from(domain));
        counts.copied().unwrap_or_default()
    }

    fn counts_mut(&mut self, domain: u16) -> Option<&mut DeathCounts> {
        let index = usize::from(domain);
        if self.counts.len() <= index {
            self.counts.resize_with(index + 1, DeathCounts::default);
        }
        self.counts.get_mut(index)
    }

    /// The death with this number.
    pub fn numbered(&self, number: u64) -> Option<SupervisedDeath> {
        let mut newest = self.deaths.iter().rev();
        newest.find(|death| death.record.number == number).copied()
    }

    /// The `back`-th newest, from 0.
    pub fn newest(&self, back: u32) -> Option<SupervisedDeath> {
        let index = self.deaths.len().checked_sub(back as usize + 1)?;
        self.deaths.get(index).copied()
    }

    /// Deaths since boot.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Notes when the domain whose death had this number ran again.
    pub fn recovered(&mut self, number: u64, recovered_ns: u64) {
        let found = self
            .deaths
            .iter_mut()
            .rev()
            .find(|death| death.record.number == number);
        if let Some(death) = found {
            death.record.recovered_ns = recovered_ns;
            let (domain, took_ns) = (
                death.record.domain,
                recovered_ns.saturating_sub(death.record.at_ns),
            );
            if let Some(counts) = self.counts_mut(domain) {
                counts.restarts.add(took_ns);
            }
        }
    }

    /// Notes what a shadow measured; false when the death isn't kept, or has a measurement already.
    pub fn outage(&mut self, outage: &Outage) -> bool {
        let found = self
            .deaths
            .iter_mut()
            .rev()
            .find(|death| death.name == outage.domain && death.record.generation == outage.generation);
        match found {
            Some(death) if death.outage_ns == 0 => {
                death.outage_ns = outage.outage_ns;
                let domain = death.record.domain;
                if let Some(counts) = self.counts_mut(domain) {
                    counts.outages.add(outage.outage_ns);
                }
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interface::kernel::DeathCause;
    use rref::Text;

    fn record(number: u64) -> DeathRecord {
        DeathRecord {
            number,
            domain: 1,
            generation: number,
            cause: DeathCause::Killed,
            detail: Text::EMPTY,
            at_ns: number,
            recovered_ns: 0,
        }
    }

    fn full(count: u64) -> Records {
        let mut records = Records::default();
        for number in 1..=count {
            records.add(record(number), DomainName::new("ixgbe"));
        }
        records
    }

    #[test]
    fn the_newest_are_kept() {
        let records = full(KEPT as u64 + 10);
        assert_eq!(records.total(), KEPT as u64 + 10);
        assert_eq!(
            records.newest(0).map(|death| death.record.number),
            Some(KEPT as u64 + 10)
        );
        assert_eq!(
            records.newest(KEPT as u32 - 1).map(|death| death.record.number),
            Some(11)
        );
        assert_eq!(records.newest(KEPT as u32), None);
    }

    #[test]
    fn deaths_are_counted_by_domain_and_cause_and_their_times_added_up() {
        let mut records = full(3);
        records.recovered(2, 2 + 3_000_000);
        records.recovered(3, 3 + 40_000_000_000);
        let counts = records.counts(1);
        assert_eq!(counts.causes[DeathCause::Killed.index()], 3);
        assert_eq!(counts.causes.iter().sum::<u64>(), 3);
        assert_eq!(
            (counts.restarts.count, counts.restarts.sum_ns),
            (2, 40_003_000_000)
        );
        assert_eq!(
            counts.restarts.buckets.iter().sum::<u64>(),
            1,
            "one is above all bounds"
        );
        assert_eq!(records.counts(0), DeathCounts::default());
        assert_eq!(records.counts(7), DeathCounts::default());
        assert_eq!(records.numbered(2).map(|death| death.record.number), Some(2));
        assert_eq!(records.numbered(4), None);
    }

    #[test]
    fn a_measurement_goes_to_its_own_death_once() {
        let mut records = full(3);
        let mut outage = Outage {
            domain: DomainName::new("ixgbe"),
            generation: 2,
            outage_ns: 7,
        };
        assert!(records.outage(&outage));
        outage.outage_ns = 8;
        assert!(
            !records.outage(&outage),
            "the first packet is measured, not the second"
        );
        outage.generation = 9;
        assert!(!records.outage(&outage), "nobody died in this generation");
        let outages = [0, 1, 2].map(|back| records.newest(back).map(|death| death.outage_ns));
        assert_eq!(outages, [Some(0), Some(7), Some(0)]);
    }
}
