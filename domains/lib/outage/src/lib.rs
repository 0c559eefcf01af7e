//! Outages: how long a shadow had no driver, measured and reported to the supervisor.
//!
//! An outage ends with the first thing that the dead driver's successor carried out: a packet, a request. It begins with the death,
//! or, where nobody may notice one for long, when something first had to wait for it. The shadow's path only notes times; a
//! thread of its own looks up when the driver died and tells the supervisor.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::clock::{self, NEVER};
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, ThreadId, Wake};
use domain_rt::{Handle, OwnerId};
use interface::kernel::DomainName;
use interface::supervise::{Outage, SuperviseError, Supervisor};
use log::warn;

/// Measurements that wait for the reporter at most; further ones are dropped.
const WAITING_LIMIT: usize = 64;
/// Deaths that are searched for the one measured, from the newest.
const SEARCH_LIMIT: u32 = 64;
/// How long the reporter waits for the supervisor, milliseconds: it starts before the shadow.
const SUPERVISOR_WAIT_MS: u64 = 1_000;

/// A driver's death and what followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// The incarnation that died.
    pub dead: OwnerId,
    /// When the outage began.
    pub since: Since,
    /// When the successor had carried out something.
    pub end_ns: u64,
}

impl Measurement {
    /// How long it was, given when the driver died, if that is known. Never 0.
    pub fn duration_ns(&self, died_ns: Option<u64>) -> u64 {
        let begin_ns = match self.since {
            Since::Death { seen_ns } => died_ns.unwrap_or(seen_ns),
            Since::Wait { met_ns } => met_ns,
        };
        self.end_ns.saturating_sub(begin_ns).max(1)
    }
}

/// The beginning of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The driver's death, whose time the supervisor knows.
    Death {
        /// When the shadow saw it, for the case that the supervisor's record is gone.
        seen_ns: u64,
    },
    /// Something met the death and had to wait.
    Wait {
        /// When it did.
        met_ns: u64,
    },
}

/// The outage that lasts, and those that are over but not reported.
#[derive(Default)]
pub struct Outages {
    /// When something first met the death of the driver that was last known; 0 if nothing did.
    met_ns: AtomicU64,
    open: Mutex<Option<(OwnerId, Since)>>,
    over: Mutex<VecDeque<Measurement>>,
    /// Number of the reporter's thread; 0 before it runs.
    reporter: AtomicU64,
}

impl Outages {
    /// `dead` has a successor: its outage began with its death.
    pub fn begin(&self, dead: OwnerId) {
        self.open(
            dead,
            Since::Death {
                seen_ns: clock::now_ns(),
            },
        );
    }

    /// Something met a dead driver and has to wait for the next.
    pub fn meet(&self, now_ns: u64) {
        self.met_ns
            .compare_exchange(0, now_ns.max(1), Ordering::Relaxed, Ordering::Relaxed)
            .ok();
    }

    /// `dead` has a successor: its outage began when something met its death; if nothing did, there was none.
    pub fn begin_if_met(&self, dead: OwnerId) {
        let met_ns = self.met_ns.swap(0, Ordering::Relaxed);
        if met_ns != 0 {
            self.open(dead, Since::Wait { met_ns });
        }
    }

    /// An outage that spans two deaths is the first one's: that is how long nothing was carried out.
    fn open(&self, dead: OwnerId, since: Since) {
        self.open.lock().get_or_insert((dead, since));
    }

    /// Whether the successor has yet to carry out something.
    pub fn is_open(&self) -> bool {
        self.open.lock().is_some()
    }

    /// Something was carried out at `now_ns`: the outage, if one lasts, is over.
    pub fn end(&self, now_ns: u64) {
        let Some((dead, since)) = self.open.lock().take() else {
            return;
        };
        {
            let mut over = self.over.lock();
            if over.len() < WAITING_LIMIT {
                over.push_back(Measurement {
                    dead,
                    since,
                    end_ns: now_ns,
                });
            }
        }
        let reporter = self.reporter.load(Ordering::Acquire);
        if reporter != 0 {
            thread::unpark(ThreadId::from_number(reporter));
        }
    }

    /// The oldest measurement that nobody took yet.
    pub fn take(&self) -> Option<Measurement> {
        self.over.lock().pop_front()
    }

    /// Tells the supervisor of each outage that is over; the body of the reporter's thread.
    pub fn report(&self, import: &str) {
        self.reporter.store(thread::id().number(), Ordering::Release);
        let supervisor: Handle<dyn Supervisor> = match domain_rt::connect(import, SUPERVISOR_WAIT_MS) {
            Ok(supervisor) => supervisor,
            Err(error) => {
                warn!("outages will not be reported: {error}");
                return;
            }
        };
        loop {
            while let Some(measurement) = self.take() {
                if let Err(error) = report(&supervisor, &measurement) {
                    warn!("an outage could not be reported: {error}");
                }
            }
            if thread::park_until(NEVER) == Wake::Cancelled {
                return;
            }
        }
    }
}

/// Reports one measurement.
fn report(supervisor: &Handle<dyn Supervisor>, measurement: &Measurement) -> Result<(), SuperviseError> {
    let Some(domain) = name_of(supervisor, measurement.dead)? else {
        return Ok(());
    };
    let generation = measurement.dead.generation();
    let died_ns = match measurement.since {
        Since::Death { .. } => death_ns(supervisor, domain, generation)?,
        Since::Wait { .. } => None,
    };
    supervisor.report_outage(Outage {
        domain,
        generation,
        outage_ns: measurement.duration_ns(died_ns),
    })
}

/// When an incarnation died, from the supervisor's record.
fn death_ns(
    supervisor: &Handle<dyn Supervisor>,
    domain: DomainName,
    generation: u64,
) -> Result<Option<u64>, SuperviseError> {
    for back in 0..SEARCH_LIMIT {
        let Some(death) = supervisor.death(back)? else {
            break;
        };
        if death.name == domain && death.record.generation == generation {
            return Ok(Some(death.record.at_ns));
        }
    }
    Ok(None)
}

/// Name of a domain by its incarnation: the domain table has the manifest's order, after the kernel's slot 0.
fn name_of(
    supervisor: &Handle<dyn Supervisor>,
    incarnation: OwnerId,
) -> Result<Option<DomainName>, SuperviseError> {
    let Some(index) = incarnation.slot().checked_sub(1) else {
        return Ok(None);
    };
    Ok(supervisor.domain(index)?.map(|status| status.domain.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(generation: u64) -> OwnerId {
        OwnerId::new(3, generation)
    }

    #[test]
    fn an_outage_over_two_deaths_is_the_first_ones() {
        let outages = Outages::default();
        outages.meet(100);
        outages.meet(200);
        outages.begin_if_met(incarnation(1));
        outages.meet(300);
        outages.begin_if_met(incarnation(2));
        assert!(outages.is_open());
        outages.end(500);
        assert!(!outages.is_open());
        let measured = outages.take().unwrap();
        assert_eq!((measured.dead, measured.duration_ns(None)), (incarnation(1), 400));
        assert_eq!(outages.take(), None);
    }

    #[test]
    fn a_death_that_nothing_met_is_no_outage() {
        let outages = Outages::default();
        outages.begin_if_met(incarnation(1));
        assert!(!outages.is_open());
        outages.end(500);
        assert_eq!(outages.take(), None);
    }

    #[test]
    fn the_supervisors_time_of_death_counts_if_there_is_one() {
        host_platform::attach();
        let outages = Outages::default();
        outages.begin(incarnation(1));
        outages.end(u64::MAX);
        let measured = outages.take().unwrap();
        assert_eq!(measured.duration_ns(Some(u64::MAX - 7)), 7);
        assert_eq!(measured.duration_ns(Some(u64::MAX)), 1, "never none");
        assert!(
            matches!(measured.since, Since::Death { seen_ns } if measured.duration_ns(None) == u64::MAX - seen_ns)
        );
    }

    #[test]
    fn what_nobody_reports_does_not_pile_up() {
        host_platform::attach();
        let outages = Outages::default();
        for generation in 0..100 {
            outages.begin(incarnation(generation));
            outages.end(clock::now_ns());
        }
        let kept = core::iter::from_fn(|| outages.take()).count();
        assert_eq!(kept, WAITING_LIMIT);
    }
}
