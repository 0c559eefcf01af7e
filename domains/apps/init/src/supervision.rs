//! What the supervisor knows of each domain, and how it brings one back.
//!
//! Deaths come from the kernel in order; each is handled by one thread from its record to the successor's start (`workers.rs`
//! gives the threads). A domain's `epoch` decides when two of them want the same domain: whoever raised it last goes on.

use crate::policy::{Decision, History, Policy};
use crate::records::Records;
use crate::update::Updating;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use domain_rt::sync::Mutex;
use domain_rt::{Handle, StartError, clock, thread};
use interface::kernel::{ControlError, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus};
use interface::update::ImageControl;
use log::{error, info, warn};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// How often a start looks whether what is left of the last life is reaped, at distances of [`REAP_PAUSE_MS`].
const REAP_LOOKS: u32 = 1_000;
/// See [`REAP_LOOKS`], milliseconds.
const REAP_PAUSE_MS: u64 = 1;

/// One domain of the manifest.
pub struct Domain {
    name: DomainName,
    policy: Policy,
    state: Mutex<Progress>,
}

/// What changes of a domain.
#[derive(Clone, Copy, Default)]
pub struct Situation {
    /// Restarts since boot.
    pub restarts: u64,
    /// Held for the operator.
    pub held: bool,
    /// Its image was refused.
    pub refused: bool,
    /// When it is to be started again; 0 for no such time.
    pub restart_at_ns: u64,
}

#[derive(Default)]
struct Progress {
    situation: Situation,
    history: History,
    epoch: u64,
}

/// Every domain, and the kernel's control of them.
pub struct Supervision {
    /// The kernel.
    pub control: Handle<dyn DomainControl>,
    /// The death records.
    pub records: Mutex<Records>,
    /// Updates and their trials.
    pub updating: Updating,
    domains: Box<[Domain]>,
}

#[allow(
    clippy::result_large_err,
    reason = "the kernel's errors carry their text by value, as all that crosses; no start is hot"
)]
impl Supervision {
    /// Reads the manifest from the kernel.
    pub fn new(
        control: Handle<dyn DomainControl>,
        images: Handle<dyn ImageControl>,
    ) -> Result<Supervision, StartError> {
        let mut domains = Vec::new();
        for index in 0..u16::MAX {
            let status = control
                .status(index)
                .map_err(|error| StartError::new(format_args!("the list of domains: {error}")))?;
            let Some(status) = status else { break };
            domains.push(Domain {
                name: status.name,
                policy: Policy::from(&status),
                state: Mutex::default(),
            });
        }
        Ok(Supervision {
            control,
            records: Mutex::default(),
            // The loop that made them counts in `u16`.
            updating: Updating::new(images, domains.len() as u16),
            domains: domains.into_boxed_slice(),
        })
    }

    /// Domains of the manifest, the supervisor among them.
    pub fn count(&self) -> u16 {
        // The loop that made them counts in `u16`.
        self.domains.len() as u16
    }

    /// Index of a domain by its name.
    pub fn find(&self, name: &DomainName) -> Option<u16> {
        self.domains
            .iter()
            .position(|domain| domain.name == *name)
            .map(|index| index as u16)
    }

    /// Name of a domain; empty when there is none of this index.
    pub fn name(&self, index: u16) -> DomainName {
        self.domain(index).map_or(DomainName::EMPTY, |domain| domain.name)
    }

    /// What the supervisor knows of a domain.
    pub fn situation(&self, index: u16) -> Situation {
        self.domain(index)
            .map_or(Situation::default(), |domain| domain.state.lock().situation)
    }

    /// The kernel's view of a domain.
    pub fn status(&self, index: u16) -> Result<Option<DomainStatus>, ControlError> {
        self.control.status(index)
    }

    fn domain(&self, index: u16) -> Option<&Domain> {
        self.domains.get(usize::from(index))
    }

    /// Starts a domain for the first time.
    ///
    /// One that dies in its start has a death record, and comes back through [`Supervision::recover`].
    pub fn boot(&self, index: u16) -> Result<(), ControlError> {
        let Some(domain) = self.domain(index) else {
            return Err(ControlError::NoDomain);
        };
        let result = self.control.start(index).map(drop);
        match &result {
            Err(ControlError::BadImage(_)) => domain.state.lock().situation.refused = true,
            Err(ControlError::OutOfMemory) => domain.state.lock().situation.held = true,
            _ => {}
        }
        result
    }

    /// Starts a domain that is down at the operator's wish; its restart policy begins anew.
    pub fn release(&self, index: u16) -> Result<(), ControlError> {
        let Some(domain) = self.domain(index) else {
            return Err(ControlError::NoDomain);
        };
        {
            let mut progress = domain.state.lock();
            progress.epoch += 1;
            progress.history.clear();
            progress.situation.held = false;
            progress.situation.restart_at_ns = 0;
        }
        let result = self.start(index, domain);
        match &result {
            Ok(generation) => {
                self.updating.runs(index, *generation, None);
                info!(
                    "{}: started as generation {generation} by the operator",
                    domain.name
                );
            }
            Err(reason) => error!("{}: not started: {reason}", domain.name),
        }
        if matches!(result, Err(ControlError::OutOfMemory)) {
            domain.state.lock().situation.held = true;
        }
        result.map(drop)
    }

    /// Does what the policy says about a death: everything from the record to the successor.
    ///
    /// Blocks for the delay, and as long as the successor's start takes.
    pub fn recover(&self, record: DeathRecord) {
        let index = record.domain;
        let Some(domain) = self.domain(index) else {
            error!("a death of unknown domain {index} was reported");
            return;
        };
        self.records.lock().add(record, domain.name);
        let (mut epoch, mut decision) = match self.updating.is_ordinary(index, domain.name, &record) {
            true => domain.died(record.at_ns),
            false => domain.was_updated(),
        };
        let cause = Cause(&record);
        match decision {
            // The kernel has said that it died, and a line takes the serial port longer than the restart takes.
            Decision::Restart { delay_ms: 0 } => {}
            Decision::Restart { delay_ms } => warn!(
                "{}: generation {} died: {cause}; restarting in {delay_ms} ms",
                domain.name, record.generation
            ),
            Decision::Hold => error!(
                "{}: generation {} died: {cause}; held after too many deaths, `start {}` releases it",
                domain.name, record.generation, domain.name
            ),
        }
        // Whatever comes next, what it held is given back now.
        if let Err(error) = self.control.reap(index) {
            warn!("{}: could not be reaped: {error}", domain.name);
        }
        while let Decision::Restart { delay_ms } = decision {
            if delay_ms > 0 {
                thread::sleep_ms(u64::from(delay_ms));
            }
            if !domain.begin_restart(epoch) {
                return;
            }
            match self.start(index, domain) {
                Ok(generation) => {
                    self.updating.runs(index, generation, Some(record.at_ns));
                    return self.recovered(domain, &record, generation);
                }
                Err(error @ (ControlError::OutOfMemory | ControlError::BadImage(_)))
                    if self.updating.start_failed(index, domain.name, &error) =>
                {
                    (epoch, decision) = domain.was_updated();
                }
                Err(ControlError::OutOfMemory) => {
                    (epoch, decision) = domain.died(clock::now_ns());
                    warn!("{}: no memory to start it: {decision:?}", domain.name);
                }
                Err(ControlError::BadImage(reason)) => {
                    error!("{}: refused: {reason}", domain.name);
                    return;
                }
                // That death has a record of its own; and the operator may have been faster.
                Err(
                    ControlError::DiedAtStart
                    | ControlError::WrongState(DomainState::Starting | DomainState::Running),
                ) => return,
                Err(error) => {
                    error!("{}: not restarted: {error}", domain.name);
                    return;
                }
            }
        }
    }

    /// Starts a domain, waiting until its last life is reaped: by whoever handles that death, and by nobody else.
    /// Gives the new generation.
    fn start(&self, index: u16, domain: &Domain) -> Result<u64, ControlError> {
        for _ in 0..REAP_LOOKS {
            match self.control.start(index) {
                Ok(owner) => {
                    domain.state.lock().situation.refused = false;
                    return Ok(owner.generation());
                }
                Err(ControlError::WrongState(DomainState::Dying)) => thread::sleep_ms(REAP_PAUSE_MS),
                Err(error) => {
                    if matches!(error, ControlError::BadImage(_)) {
                        domain.state.lock().situation.refused = true;
                    }
                    return Err(error);
                }
            }
        }
        Err(ControlError::WrongState(DomainState::Dying))
    }

    fn recovered(&self, domain: &Domain, record: &DeathRecord, generation: u64) {
        let kernel_says = self.control.death(record.number).ok().flatten();
        let recovered_ns = kernel_says
            .map(|death| death.recovered_ns)
            .filter(|at_ns| *at_ns != 0)
            .unwrap_or_else(clock::now_ns);
        self.records.lock().recovered(record.number, recovered_ns);
        let took_us = recovered_ns.saturating_sub(record.at_ns) / 1_000;
        info!(
            "{}: generation {generation} runs, {}.{:03} ms after the death",
            domain.name,
            took_us / 1_000,
            took_us % 1_000
        );
    }
}

impl Domain {
    /// Notes a death at `at_ns`; gives the epoch in which it is handled, and what to do.
    fn died(&self, at_ns: u64) -> (u64, Decision) {
        let mut progress = self.state.lock();
        let decision = progress.history.death(&self.policy, at_ns);
        progress.epoch += 1;
        match decision {
            Decision::Hold => {
                progress.situation.held = true;
                progress.situation.restart_at_ns = 0;
            }
            Decision::Restart { delay_ms } => {
                progress.situation.restart_at_ns = clock::now_ns() + u64::from(delay_ms) * MS;
            }
        }
        (progress.epoch, decision)
    }

    /// Notes that the next start is from another image: at once, whatever became of the last one. As [`died`](Self::died).
    fn was_updated(&self) -> (u64, Decision) {
        let mut progress = self.state.lock();
        progress.history.clear();
        progress.epoch += 1;
        progress.situation.held = false;
        progress.situation.refused = false;
        progress.situation.restart_at_ns = clock::now_ns();
        (progress.epoch, Decision::Restart { delay_ms: 0 })
    }

    /// Whether the restart of `epoch` is still wanted; counts it if so.
    fn begin_restart(&self, epoch: u64) -> bool {
        let mut progress = self.state.lock();
        if progress.epoch != epoch {
            return false;
        }
        progress.situation.restart_at_ns = 0;
        progress.situation.restarts += 1;
        true
    }
}

/// A death's cause, for the log.
struct Cause<'a>(&'a DeathRecord);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.cause.fmt(f)?;
        if self.0.detail.as_str().is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.0.detail)
        }
    }
}
