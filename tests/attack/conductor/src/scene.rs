//! The domains of the image, as the conductor watches and reaches them.

use crate::MS;
use crate::figures::Figures;
use crate::orders::StartOrders;
use crate::position::Place;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use attack_interface::victim::{Grabbed, Victim};
use domain_rt::{Handle, StartError, clock, thread};
use interface::kernel::{DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus};

/// How long all domains may take to run.
const RUN_LIMIT_NS: u64 = 20_000 * MS;
/// How long what is held may take to be what it was: threads end in their own time.
const SETTLE_LIMIT_NS: u64 = 300 * MS;
/// Between two looks.
const LOOK_MS: u64 = 1;
/// Domains that hold more as they learn: the supervisor (deaths) and the conductor.
const GROWING: [&str; 2] = ["init", "conductor"];

impl Place {
    /// Name in the manifest.
    pub fn domain(self) -> &'static str {
        match self {
            Place::A => "victim-a",
            Place::B => "victim-b",
            Place::C => "victim-c",
        }
    }

    /// The conductor's import.
    fn import(self) -> &'static str {
        match self {
            Place::A => "a",
            Place::B => "b",
            Place::C => "c",
        }
    }
}

/// All that the conductor works with.
pub struct Scene {
    /// The kernel.
    pub control: Handle<dyn DomainControl>,
    /// For starts.
    pub orders: Arc<StartOrders>,
    names: Vec<DomainName>,
    growing: Vec<u16>,
    last_death: u64,
}

impl Scene {
    /// Reads the manifest from the kernel.
    pub fn new(control: Handle<dyn DomainControl>, orders: Arc<StartOrders>) -> Result<Scene, StartError> {
        let mut names = Vec::new();
        for status in interface::kernel::domains(&*control) {
            let status =
                status.map_err(|error| StartError::new(format_args!("the list of domains: {error}")))?;
            names.push(status.name);
        }
        let growing = (0..)
            .zip(&names)
            .filter(|(_, name)| GROWING.contains(&name.as_str()))
            .map(|(index, _)| index)
            .collect();
        Ok(Scene {
            control,
            orders,
            names,
            growing,
            last_death: 0,
        })
    }

    /// Index of a victim in the manifest.
    pub fn index(&self, place: Place) -> Result<u16, String> {
        (0..)
            .zip(&self.names)
            .find(|(_, name)| name.as_str() == place.domain())
            .map(|(index, _)| index)
            .ok_or_else(|| format!("the manifest has no {}", place.domain()))
    }

    /// Name of a domain.
    pub fn name(&self, index: u16) -> DomainName {
        self.names
            .get(usize::from(index))
            .copied()
            .unwrap_or(DomainName::EMPTY)
    }

    /// The kernel's view of a domain.
    pub fn status(&self, index: u16) -> Result<DomainStatus, String> {
        match self.control.status(index) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("there is no domain {index}")),
            Err(error) => Err(format!("{error}")),
        }
    }

    /// Crossings into a victim so far.
    pub fn crossings(&self, place: Place) -> Result<u64, String> {
        Ok(self.status(self.index(place)?)?.crossings)
    }

    /// A handle to a victim's live incarnation.
    pub fn connect(&self, place: Place) -> Result<Handle<dyn Victim>, String> {
        domain_rt::connect(place.import(), 2_000).map_err(|error| format!("{}: {error}", place.domain()))
    }

    /// Lets the first victim grab for more than it is granted.
    pub fn grab(&self) -> Result<Grabbed, String> {
        let victim = self.connect(Place::A)?;
        victim.grab().map_err(|error| format!("{error}"))
    }

    /// Waits until every domain runs; false if that takes too long.
    pub fn wait_until_all_run(&self) -> bool {
        let limit_ns = clock::now_ns() + RUN_LIMIT_NS;
        let runs = |index: u16| {
            self.status(index)
                .is_ok_and(|status| status.state == DomainState::Running)
        };
        while !(0..self.names.len() as u16).all(runs) {
            if clock::now_ns() > limit_ns {
                return false;
            }
            thread::sleep_ms(LOOK_MS);
        }
        true
    }

    /// Waits until a victim runs in a generation after `generation`.
    pub fn wait_until_runs_after(&self, index: u16, generation: u64) -> Result<(), String> {
        let limit_ns = clock::now_ns() + RUN_LIMIT_NS;
        loop {
            let status = self.status(index)?;
            if status.state == DomainState::Running && status.generation > generation {
                return Ok(());
            }
            if clock::now_ns() > limit_ns {
                return Err(format!(
                    "{} doesn't come back: it is {:?}",
                    status.name, status.state
                ));
            }
            thread::sleep_ms(LOOK_MS);
        }
    }

    /// Kills a victim by order.
    pub fn kill(&self, place: Place) -> Result<(), String> {
        self.control
            .kill(self.index(place)?, DeathCause::Killed)
            .map_err(|error| format!("{} can't be killed: {error}", place.domain()))
    }

    /// Passes over deaths so far.
    pub fn forget_deaths(&mut self) {
        while self.next_death(0).is_some() {}
    }

    /// The next death, waiting for it until `deadline_ns`.
    pub fn next_death(&mut self, deadline_ns: u64) -> Option<DeathRecord> {
        let newest = self.control.wait_death(self.last_death, deadline_ns).ok()??;
        // Several may have come since.
        let next = if newest.number > self.last_death + 1 {
            self.control
                .death(self.last_death + 1)
                .ok()
                .flatten()
                .unwrap_or(newest)
        } else {
            newest
        };
        self.last_death = next.number;
        Some(next)
    }

    /// What everybody holds now.
    pub fn figures(&self) -> Result<Figures, String> {
        Figures::now(&*self.control, &self.growing).map_err(|error| format!("{error}"))
    }

    /// Waits until everybody holds what they held; what is different if they don't.
    pub fn wait_for_figures(&self, wanted: &Figures) -> Result<(), String> {
        let limit_ns = clock::now_ns() + SETTLE_LIMIT_NS;
        loop {
            let now = self.figures()?;
            if now == *wanted {
                return Ok(());
            }
            if clock::now_ns() > limit_ns {
                return Err(wanted.difference(&now));
            }
            thread::sleep_ms(LOOK_MS);
        }
    }

    /// What everybody holds, once that has stopped changing.
    pub fn settled_figures(&self) -> Result<Figures, String> {
        let limit_ns = clock::now_ns() + SETTLE_LIMIT_NS;
        let mut before = self.figures()?;
        loop {
            thread::sleep_ms(2 * LOOK_MS);
            let now = self.figures()?;
            if now == before || clock::now_ns() > limit_ns {
                return Ok(now);
            }
            before = now;
        }
    }
}
