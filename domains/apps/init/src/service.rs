//! The `Supervisor` and `Operator` interfaces: what the shell, the metrics and the shadows ask.

use crate::SELF;
use crate::supervision::Supervision;
use alloc::sync::Arc;
use interface::black_box::DeathCounts;
use interface::holdings::{Holdings, LeakReport};
use interface::kernel::{ControlError, DeathCause, DomainName, DomainState, MemoryStatus};
use interface::supervise::{Operator, Outage, SuperviseError, SupervisedDeath, SupervisedStatus, Supervisor};
use log::{debug, warn};

/// The exported object.
pub struct Service {
    supervision: Arc<Supervision>,
}

impl Service {
    /// A service of `supervision`.
    pub fn new(supervision: Arc<Supervision>) -> Service {
        Service { supervision }
    }

    fn find(&self, name: &DomainName) -> Result<u16, SuperviseError> {
        self.supervision.find(name).ok_or(SuperviseError::NoDomain)
    }

    /// A domain that may be killed.
    fn mortal(&self, name: &DomainName) -> Result<u16, SuperviseError> {
        match self.find(name)? {
            SELF => Err(SuperviseError::Supervisor),
            index => Ok(index),
        }
    }
}

impl Supervisor for Service {
    fn domain(&self, index: u16) -> Result<Option<SupervisedStatus>, SuperviseError> {
        if index >= self.supervision.count() {
            return Ok(None);
        }
        let Some(domain) = self.supervision.status(index).map_err(refusal)? else {
            return Ok(None);
        };
        let situation = self.supervision.situation(index);
        Ok(Some(SupervisedStatus {
            domain,
            restarts: situation.restarts,
            restart_cpu_ns: situation.cost_ns,
            held: situation.held,
            stopped: situation.stopped,
            refused: situation.refused,
            restart_at_ns: situation.restart_at_ns,
        }))
    }

    fn holdings(&self, index: u16) -> Result<Option<Holdings>, SuperviseError> {
        self.supervision.control.holdings(index).map_err(refusal)
    }

    fn death(&self, back: u32) -> Result<Option<SupervisedDeath>, SuperviseError> {
        Ok(self.supervision.records.lock().newest(back))
    }

    fn numbered_death(&self, number: u64) -> Result<Option<SupervisedDeath>, SuperviseError> {
        Ok(self.supervision.records.lock().numbered(number))
    }

    fn death_counts(&self, index: u16) -> Result<Option<DeathCounts>, SuperviseError> {
        let is_one = index < self.supervision.count();
        Ok(is_one.then(|| self.supervision.records.lock().counts(index)))
    }

    fn deaths(&self) -> Result<u64, SuperviseError> {
        Ok(self.supervision.records.lock().total())
    }

    fn report_outage(&self, outage: Outage) -> Result<(), SuperviseError> {
        if self.supervision.records.lock().outage(&outage) {
            let us = outage.outage_ns / 1_000;
            debug!(
                "{}: out of use for {}.{:03} ms by the death of generation {}",
                outage.domain,
                us / 1_000,
                us % 1_000,
                outage.generation
            );
        }
        Ok(())
    }

    fn memory(&self) -> Result<MemoryStatus, SuperviseError> {
        self.supervision.control.memory().map_err(refusal)
    }
}

impl Operator for Service {
    fn kill(&self, name: DomainName) -> Result<(), SuperviseError> {
        let index = self.mortal(&name)?;
        match self.supervision.control.kill(index, DeathCause::Killed) {
            Ok(()) => Ok(()),
            Err(ControlError::WrongState(_)) => Err(SuperviseError::NotRunning),
            Err(error) => {
                warn!("{name}: not killed: {error}");
                Err(refusal(error))
            }
        }
    }

    fn start(&self, name: DomainName) -> Result<u64, SuperviseError> {
        self.supervision.start_by_order(self.find(&name)?)
    }

    fn stop(&self, name: DomainName) -> Result<(), SuperviseError> {
        let index = self.mortal(&name)?;
        if domain_rt::caller().slot() == index + 1 {
            return Err(SuperviseError::Yourself);
        }
        self.supervision.stop(index)
    }

    fn restart(&self, name: DomainName) -> Result<u64, SuperviseError> {
        self.supervision.restart(self.mortal(&name)?)
    }

    fn release(&self, name: DomainName) -> Result<u64, SuperviseError> {
        self.supervision.release(self.mortal(&name)?)
    }

    fn leaks(&self) -> Result<LeakReport, SuperviseError> {
        self.supervision.control.leaks().map_err(refusal)
    }

    fn kill_supervisor(&self) -> Result<(), SuperviseError> {
        warn!("the operator kills the supervisor");
        self.supervision
            .control
            .kill(SELF, DeathCause::Killed)
            .map_err(refusal)
    }
}

/// What the caller learns of the kernel's refusal; the rest is in the log.
fn refusal(error: ControlError) -> SuperviseError {
    match error {
        ControlError::NoDomain => SuperviseError::NoDomain,
        ControlError::WrongState(DomainState::Running | DomainState::Starting) => {
            SuperviseError::AlreadyRunning
        }
        ControlError::Dead(error) => SuperviseError::Dead(error),
        _ => SuperviseError::Refused,
    }
}
