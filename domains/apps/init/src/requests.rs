//! What operators ask for: stop, start, restart, release.
//!
//! They may ask at any moment of a domain's life, also several of them at once; `progress.rs` makes the last wish win. These run on
//! threads of the domain that asks, and give up when that dies: what was wished for stays wished for.

use crate::supervision::{Domain, Supervision, pause};
use interface::kernel::{ControlError, DeathCause, DomainState};
use interface::supervise::SuperviseError;
use log::{error, info};

/// How often a request looks whether what it asked for is so, a millisecond apart.
const LOOKS: u32 = 10_000;

impl Supervision {
    /// Stops a domain; returns when all that it held is given back.
    pub fn stop(&self, index: u16) -> Result<(), SuperviseError> {
        let domain = self.domain(index).ok_or(SuperviseError::NoDomain)?;
        let is_new = domain.progress.lock().stop();
        loop {
            // Looked at first: a start that ends in between is then either seen here or killed. One that has begun may still come after
            // this kill, and is killed next time.
            let is_starting = domain.progress.lock().is_starting();
            // Fails if nothing runs, which is what is wanted.
            let _ = self.control.kill(index, DeathCause::Stopped);
            if !is_starting {
                break;
            }
            if !pause() {
                return Err(SuperviseError::StillLeaving);
            }
        }
        for _ in 0..LOOKS {
            let state = self.state(index)?;
            match state {
                DomainState::Dead | DomainState::Stopped if is_new => {
                    info!("{}: stopped by the operator", domain.name);
                    return Ok(());
                }
                DomainState::Dead | DomainState::Stopped => return Err(SuperviseError::AlreadyStopped),
                DomainState::Dying => {}
                // Whoever came later has started it.
                DomainState::Running | DomainState::Starting => return Err(SuperviseError::Overtaken),
            }
            if !pause() {
                break;
            }
        }
        Err(SuperviseError::StillLeaving)
    }

    /// Starts a domain that is stopped or waits for its restart.
    pub fn start_by_order(&self, index: u16) -> Result<u64, SuperviseError> {
        let domain = self.domain(index).ok_or(SuperviseError::NoDomain)?;
        let epoch = {
            let mut progress = domain.progress.lock();
            if progress.situation().held {
                return Err(SuperviseError::Held);
            }
            if self.live_generation(index).is_some() {
                return Err(SuperviseError::AlreadyRunning);
            }
            progress.want_up()
        };
        self.bring_up(index, domain, epoch)
    }

    /// Starts a held domain; its deaths are forgotten.
    pub fn release(&self, index: u16) -> Result<u64, SuperviseError> {
        let domain = self.domain(index).ok_or(SuperviseError::NoDomain)?;
        let epoch = {
            let mut progress = domain.progress.lock();
            if !progress.situation().held {
                return Err(SuperviseError::NotHeld);
            }
            progress.release()
        };
        let result = self.bring_up(index, domain, epoch);
        if result == Err(SuperviseError::Refused) {
            domain.progress.lock().hold();
        }
        result
    }

    /// Stops a domain and starts it at once; starts it if it is down.
    pub fn restart(&self, index: u16) -> Result<u64, SuperviseError> {
        let domain = self.domain(index).ok_or(SuperviseError::NoDomain)?;
        let epoch = {
            let mut progress = domain.progress.lock();
            if progress.situation().held {
                return Err(SuperviseError::Held);
            }
            progress.want_up()
        };
        let before = self.live_generation(index);
        match self.control.kill(index, DeathCause::Restarted) {
            // Who handles that death starts it.
            Ok(()) => self.wait_up(index, domain, before.unwrap_or(0)),
            Err(_) => self.bring_up(index, domain, epoch),
        }
    }

    /// Starts a domain whose image was changed while it was down; the last one's deaths are forgotten.
    pub fn start_updated(&self, index: u16) -> Result<u64, SuperviseError> {
        let domain = self.domain(index).ok_or(SuperviseError::NoDomain)?;
        let epoch = domain.progress.lock().release();
        self.bring_up(index, domain, epoch)
    }

    fn bring_up(&self, index: u16, domain: &Domain, epoch: u64) -> Result<u64, SuperviseError> {
        match self.start(index, domain, epoch) {
            Ok(Some(generation)) => {
                self.updating.runs(index, generation, None);
                info!(
                    "{}: started as generation {generation} by the operator",
                    domain.name
                );
                Ok(generation)
            }
            // A death that was handled meanwhile, or another request, goes on.
            Ok(None) => self.wait_up(index, domain, 0),
            Err(ControlError::DiedAtStart) => Err(SuperviseError::DiedAtStart),
            Err(ControlError::WrongState(DomainState::Dying)) => Err(SuperviseError::StillLeaving),
            Err(reason) => {
                error!("{}: not started: {reason}", domain.name);
                self.updating.start_failed(index, domain.name, &reason);
                Err(SuperviseError::Refused)
            }
        }
    }

    /// Waits until a generation after `before` runs.
    fn wait_up(&self, index: u16, domain: &Domain, before: u64) -> Result<u64, SuperviseError> {
        for _ in 0..LOOKS {
            let status = self.control.status(index).map_err(|_| SuperviseError::Refused)?;
            if let Some(status) = status
                && status.state == DomainState::Running
                && status.generation > before
            {
                return Ok(status.generation);
            }
            let situation = domain.progress.lock().situation();
            if situation.stopped {
                return Err(SuperviseError::Overtaken);
            }
            if situation.held {
                return Err(SuperviseError::Held);
            }
            if situation.refused {
                return Err(SuperviseError::Refused);
            }
            if !pause() {
                break;
            }
        }
        Err(SuperviseError::StillStarting)
    }

    fn state(&self, index: u16) -> Result<DomainState, SuperviseError> {
        match self.control.status(index) {
            Ok(Some(status)) => Ok(status.state),
            Ok(None) => Err(SuperviseError::NoDomain),
            Err(_) => Err(SuperviseError::Refused),
        }
    }
}
