//! Outages: from the moment when a request meets the driver's death to the first one that its successor has carried out.
//!
//! So only outages that some request had to wait for. The way of requests only notes the time; a thread of its own tells the supervisor.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::clock::NEVER;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, ThreadId, Wake};
use domain_rt::{Handle, OwnerId};
use interface::kernel::DomainName;
use interface::supervise::{Outage, SuperviseError, Supervisor};
use log::warn;

/// Measurements that wait for the reporter at most; further ones are dropped.
const WAITING_LIMIT: usize = 64;
/// How long the reporter waits for the supervisor, milliseconds: it starts before the shadow.
const SUPERVISOR_WAIT_MS: u64 = 1_000;

/// A driver's death and what followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// The incarnation that died.
    pub dead: OwnerId,
    /// When a request met that.
    pub met_ns: u64,
    /// When the successor had carried out the first request.
    pub first_done_ns: u64,
}

/// The outage that lasts, and those that are over but not reported.
#[derive(Default)]
pub struct Outages {
    open: Mutex<Option<(OwnerId, u64)>>,
    over: Mutex<VecDeque<Measurement>>,
    /// When a request first met the death of the driver that was last known; 0 if none did.
    met_ns: AtomicU64,
    /// Number of the reporter's thread; 0 before it runs.
    reporter: AtomicU64,
}

impl Outages {
    /// A request met a dead driver.
    pub fn meet(&self, now_ns: u64) {
        self.met_ns
            .compare_exchange(0, now_ns.max(1), Ordering::Relaxed, Ordering::Relaxed)
            .ok();
    }

    /// There is a driver again. If a request met the death of the one before, `dead`, its outage has begun. One that died before its successor had carried out anything is not reported: its outage is part of this one.
    pub fn begin(&self, dead: OwnerId) {
        let met_ns = self.met_ns.swap(0, Ordering::Relaxed);
        if met_ns != 0 {
            // An outage that spans two deaths is the first one's: that is how long nothing was carried out.
            self.open.lock().get_or_insert((dead, met_ns));
        }
    }

    /// Whether the first request is still to come.
    pub fn is_open(&self) -> bool {
        self.open.lock().is_some()
    }

    /// A request was carried out at `now_ns`: the outage, if one lasts, is over.
    pub fn end(&self, now_ns: u64) {
        let Some((dead, met_ns)) = self.open.lock().take() else {
            return;
        };
        {
            let mut over = self.over.lock();
            if over.len() < WAITING_LIMIT {
                over.push_back(Measurement {
                    dead,
                    met_ns,
                    first_done_ns: now_ns,
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
    supervisor.report_outage(Outage {
        domain,
        generation: measurement.dead.generation(),
        outage_ns: measurement
            .first_done_ns
            .saturating_sub(measurement.met_ns)
            .max(1),
    })
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
