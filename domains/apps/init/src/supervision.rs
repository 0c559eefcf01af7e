//! What the supervisor knows of each domain, and how it brings one back.
//!
//! Deaths come from the kernel in order; each is handled by one thread from its record to the successor's start (`workers.rs`
//! gives the threads). `progress.rs` decides when two of them, or an operator (`requests.rs`), want the same domain.

use crate::policy::{self, Policy};
use crate::progress::{Plan, Progress, Situation};
use crate::records::Records;
use crate::update::Updating;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use domain_rt::sync::Mutex;
use domain_rt::thread::Wake;
use domain_rt::{Handle, StartError, clock, thread};
use interface::kernel::{
    ControlError, DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus, Reaped,
};
use interface::update::ImageControl;
use log::{error, info, warn};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// How often a start looks whether what is left of the last life is reaped, at distances of [`PAUSE_MS`].
const REAP_LOOKS: u32 = 1_000;
/// Pause between two looks at the kernel's view of a domain, milliseconds.
const PAUSE_MS: u64 = 1;

/// One domain of the manifest.
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    policy: Policy,
    /// Where the supervisor is with it.
    pub progress: Mutex<Progress>,
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
        for status in interface::kernel::domains(&*control) {
            let status =
                status.map_err(|error| StartError::new(format_args!("the list of domains: {error}")))?;
            domains.push(Domain {
                name: status.name,
                policy: Policy::from(&status),
                progress: Mutex::default(),
            });
        }
        Ok(Supervision {
            control,
            records: Mutex::default(),
            // They are numbered in `u16`.
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
            .map_or(Situation::default(), |domain| domain.progress.lock().situation())
    }

    /// The kernel's view of a domain.
    pub fn status(&self, index: u16) -> Result<Option<DomainStatus>, ControlError> {
        self.control.status(index)
    }

    /// A domain by its index.
    pub fn domain(&self, index: u16) -> Option<&Domain> {
        self.domains.get(usize::from(index))
    }

    /// Starts a domain for the first time; false if the operator has stopped it before.
    ///
    /// One that dies in its start has a death record, and comes back through [`Supervision::recover`].
    pub fn boot(&self, index: u16) -> Result<bool, ControlError> {
        let Some(domain) = self.domain(index) else {
            return Err(ControlError::NoDomain);
        };
        let result = self.start(index, domain, 0);
        if matches!(result, Err(ControlError::OutOfMemory)) {
            domain.progress.lock().hold();
        }
        result.map(|generation| generation.is_some())
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
        // Whatever comes next, what it held is given back now.
        let reaped = self.control.reap(index).unwrap_or_else(|error| {
            warn!("{}: could not be reaped: {error}", domain.name);
            Reaped::default()
        });
        let cost_ns = policy::cost_ns(&reaped);
        let mut cause = match self.updating.is_ordinary(index, domain.name, &record) {
            true => record.cause,
            // Also of an image that has failed: the next start is from another one.
            false => DeathCause::Updated,
        };
        loop {
            let death = (record.generation, cause);
            let plan = domain
                .progress
                .lock()
                .died(&domain.policy, death, clock::now_ns(), cost_ns);
            say(domain, &record, plan);
            let Plan::Restart { delay_ms, epoch } = plan else {
                return;
            };
            if delay_ms > 0 {
                thread::sleep_ms(u64::from(delay_ms));
            }
            match self.start(index, domain, epoch) {
                Ok(Some(generation)) => {
                    self.updating.runs(index, generation, Some(record.at_ns));
                    return self.recovered(domain, &record, generation);
                }
                Ok(None) => return,
                Err(error @ (ControlError::OutOfMemory | ControlError::BadImage(_)))
                    if self.updating.start_failed(index, domain.name, &error) =>
                {
                    cause = DeathCause::Updated;
                }
                Err(ControlError::OutOfMemory) => warn!("{}: no memory to start it", domain.name),
                Err(ControlError::BadImage(reason)) => {
                    error!("{}: refused: {reason}", domain.name);
                    return;
                }
                // That death has a record of its own.
                Err(ControlError::DiedAtStart) => return,
                Err(error) => {
                    error!("{}: not restarted: {error}", domain.name);
                    return;
                }
            }
        }
    }

    /// Starts a domain, waiting until its last life is reaped: by whoever handles that death, and by nobody else.
    /// Gives the new generation, or none if another wish than that of `epoch` has come.
    pub fn start(&self, index: u16, domain: &Domain, epoch: u64) -> Result<Option<u64>, ControlError> {
        if !domain.progress.lock().begin(epoch) {
            return Ok(None);
        }
        let result = self.start_begun(index);
        let mut progress = domain.progress.lock();
        progress.end(result.as_ref().ok().copied());
        if matches!(result, Err(ControlError::BadImage(_))) {
            progress.refuse();
        }
        result.map(Some)
    }

    fn start_begun(&self, index: u16) -> Result<u64, ControlError> {
        for _ in 0..REAP_LOOKS {
            match self.control.start(index) {
                Ok(owner) => return Ok(owner.generation()),
                Err(ControlError::WrongState(DomainState::Dying)) => {
                    if !pause() {
                        break;
                    }
                }
                // Somebody was faster, or the wait for it was called off while it was starting.
                Err(
                    error @ (ControlError::WrongState(DomainState::Starting | DomainState::Running)
                    | ControlError::DiedAtStart),
                ) => return self.live_generation(index).ok_or(error),
                Err(error) => return Err(error),
            }
        }
        Err(ControlError::WrongState(DomainState::Dying))
    }

    /// The generation that lives now, if one does.
    pub fn live_generation(&self, index: u16) -> Option<u64> {
        let status = self.control.status(index).ok().flatten()?;
        matches!(status.state, DomainState::Starting | DomainState::Running).then_some(status.generation)
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

/// Waits for a moment; false if the thread must go back to its caller, who is dead.
pub fn pause() -> bool {
    let until_ns = clock::now_ns().saturating_add(PAUSE_MS * MS);
    loop {
        match thread::park_until(until_ns) {
            Wake::TimedOut => return true,
            Wake::Woken => {}
            Wake::Cancelled => return false,
        }
    }
}

/// Logs what is done about a death.
fn say(domain: &Domain, record: &DeathRecord, plan: Plan) {
    let cause = Cause(record);
    let (name, generation) = (domain.name, record.generation);
    match plan {
        // The kernel has said that it died, and a line takes the serial port longer than the restart takes.
        Plan::Restart { delay_ms: 0, .. } | Plan::Superseded => {}
        Plan::Restart { delay_ms, .. } => {
            warn!("{name}: generation {generation} died: {cause}; restarting in {delay_ms} ms");
        }
        Plan::StayDown => info!("{name}: generation {generation} died: {cause}; `start {name}` starts it"),
        Plan::Hold => error!(
            "{name}: generation {generation} died: {cause}; held after too many deaths, `release {name}` starts it"
        ),
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
