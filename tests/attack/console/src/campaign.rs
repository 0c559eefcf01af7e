//! Campaigns: one injection after the other, each judged.
//!
//! A campaign tries crossings of a workload that are still to be tried (`coverage.rs`), in their order. The next is armed when the last one's domain
//! runs again, for a crossing that is some way after that: what is passed over meanwhile is left for the next campaign.

use crate::coverage::Coverage;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use attack_interface::injector::{Crossings, Injected, Injection, Injector, InjectorError};
use domain_rt::clock::NEVER;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, ThreadId};
use domain_rt::{Handle, StartError, clock};
use interface::holdings::{Holdings, LeakReport};
use interface::kernel::{
    DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus, MemoryStatus,
};

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// How long a wait for a death lasts before the order is looked at again.
const LOOK_NS: u64 = 10 * MS;
/// An injection that no death has followed by then was not detected.
const DETECTION_LIMIT_NS: u64 = 10_000 * MS;
/// How long a domain may take to run again.
const RECOVERY_LIMIT_NS: u64 = 10_000 * MS;
/// Problems whose words are kept.
const PROBLEMS_KEPT: usize = 8;

/// How to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The fault; `None` for all by turns, from one crossing to the next.
    pub injection: Option<Injection>,
    /// Crossings from one that faulted to the next that may.
    pub gap: u64,
    /// Begin to count anew. Not a command of its own: the first crossings would pass between the two.
    pub anew: bool,
}

impl Order {
    /// What a crossing is to do.
    fn injection(&self, crossing: u64) -> Injection {
        let kinds = Injection::ALL;
        let [turn, ..] = kinds;
        self.injection.unwrap_or_else(|| {
            let index = usize::try_from(crossing % kinds.len() as u64).unwrap_or_default();
            kinds.get(index).copied().unwrap_or(turn)
        })
    }
}

/// What a campaign showed.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Crossings that were made to fault.
    pub tried: u64,
    /// How many of them were still to be tried.
    pub covered: u64,
    /// Those that ended in the death of the callee, of the right cause.
    pub detected: u64,
    /// Those after which the callee ran again.
    pub recovered: u64,
    /// Longest time from the fault to the death, nanoseconds.
    pub slowest_detection_ns: u64,
    /// What that death was.
    pub slowest: String,
    /// Longest time from the death until the domain ran again, nanoseconds.
    pub slowest_recovery_ns: u64,
    /// How many things went wrong.
    pub problems: u64,
    /// The first of them in words.
    pub words: Vec<String>,
}

impl Results {
    fn problem(&mut self, words: String) {
        self.problems += 1;
        if self.words.len() < PROBLEMS_KEPT {
            self.words.push(words);
        }
    }
}

/// The campaign that is under way, and who makes it.
pub struct Campaigns {
    control: Handle<dyn DomainControl>,
    injector: Handle<dyn Injector>,
    names: Vec<DomainName>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    order: Option<Order>,
    /// A campaign is under way: the thread has not noticed yet that its order was withdrawn, or has an injection in hand.
    busy: bool,
    worker: Option<ThreadId>,
    coverage: Coverage,
    results: Results,
}

impl State {
    fn note_tried(&mut self, injected: &Injected) {
        self.results.tried += 1;
        self.results.covered += u64::from(self.coverage.tried(injected.crossing));
    }
}

impl Campaigns {
    /// No campaign yet.
    pub fn new(
        control: Handle<dyn DomainControl>,
        injector: Handle<dyn Injector>,
    ) -> Result<Campaigns, StartError> {
        let mut names = Vec::new();
        for status in interface::kernel::domains(&*control) {
            let status =
                status.map_err(|error| StartError::new(format_args!("the list of domains: {error}")))?;
            names.push(status.name);
        }
        Ok(Campaigns {
            control,
            injector,
            names,
            state: Mutex::default(),
        })
    }

    /// Says which crossings are to be tried; false if a campaign is under way.
    pub fn cover(&self, coverage: Coverage) -> bool {
        let mut state = self.state.lock();
        if !state.busy {
            state.coverage = coverage;
        }
        !state.busy
    }

    /// Crossings that are still to be tried, and whether one of them comes after those of the workload so far.
    pub fn left(&self) -> (u64, bool) {
        let kind = self.state.lock().coverage.kind();
        let count = self.count(kind);
        let state = self.state.lock();
        (state.coverage.left(), state.coverage.next(count).is_some())
    }

    /// Begins a campaign; false if one is under way.
    pub fn begin(&self, order: Order) -> bool {
        let mut state = self.state.lock();
        if state.busy {
            return false;
        }
        state.results = Results::default();
        state.order = Some(order);
        state.busy = true;
        if let Some(worker) = state.worker {
            thread::unpark(worker);
        }
        true
    }

    /// Ends the campaign and gives its results, once the last injection is judged.
    pub fn end(&self) -> Results {
        self.state.lock().order = None;
        while self.state.lock().busy {
            thread::sleep_ms(1);
        }
        self.state.lock().results.clone()
    }

    /// Begins to count crossings anew.
    pub fn reset(&self) -> Result<(), InjectorError> {
        self.injector.reset()
    }

    /// Kinds of crossings, counted.
    pub fn kinds(&self) -> Vec<Crossings> {
        (0..u16::MAX)
            .map_while(|index| self.injector.crossings(index).ok().flatten())
            .collect()
    }

    /// Name of a domain.
    pub fn name(&self, index: u16) -> DomainName {
        self.names
            .get(usize::from(index))
            .copied()
            .unwrap_or(DomainName::EMPTY)
    }

    /// Every domain as the kernel sees it.
    pub fn domains(&self) -> Vec<DomainStatus> {
        (0..u16::MAX)
            .map_while(|index| self.control.status(index).ok().flatten())
            .collect()
    }

    /// Kills a domain by order; whether it was alive.
    pub fn kill(&self, name: &str) -> bool {
        let index = self.names.iter().position(|known| known.as_str() == name);
        index
            .and_then(|index| u16::try_from(index).ok())
            .is_some_and(|index| self.control.kill(index, DeathCause::Killed).is_ok())
    }

    /// The machine's memory.
    pub fn memory(&self) -> Option<MemoryStatus> {
        self.control.memory().ok()
    }

    /// What a domain holds; `None` past the last.
    pub fn holdings(&self, index: u16) -> Option<Holdings> {
        self.control.holdings(index).ok().flatten()
    }

    /// Compares holdings with the allocators.
    pub fn leaks(&self) -> Option<LeakReport> {
        self.control.leaks().ok()
    }

    /// The life of the thread that makes campaigns.
    pub fn run(&self) {
        self.state.lock().worker = Some(thread::id());
        loop {
            let order = self.state.lock().order;
            match order {
                Some(order) => {
                    self.carry_out(order);
                    self.state.lock().busy = false;
                }
                None => {
                    self.state.lock().busy = false;
                    thread::park_until(NEVER);
                }
            }
        }
    }

    fn carry_out(&self, order: Order) {
        let mut last_death = self.newest_death();
        let mut handled = self.newest_injection().map_or(0, |injected| injected.number);
        let armed = if order.anew {
            self.injector.reset().and_then(|()| self.arm(order, 0))
        } else {
            self.arm(order, 0)
        };
        if let Err(error) = armed {
            self.state.lock().results.problem(format!("{error}"));
            self.state.lock().order = None;
            return;
        }
        loop {
            let ends = self.state.lock().order != Some(order);
            if ends {
                // What was armed and did not come is no longer wanted; what did come is judged.
                self.injector.disarm().ok();
            }
            let injected = self
                .newest_injection()
                .filter(|injected| injected.number > handled);
            let death = self.next_death(last_death);
            if let Some(death) = &death {
                last_death = death.number;
            }
            match (injected, death) {
                (None, None) if ends => return,
                (None, None) => continue,
                (None, Some(death)) => {
                    // It may have been injected between the two looks.
                    let late = self
                        .newest_injection()
                        .filter(|injected| injected.number > handled && is_of(&death, injected));
                    match late {
                        Some(injected) => {
                            handled = injected.number;
                            self.judge(&injected, &death);
                        }
                        None => {
                            self.unexpected(&death);
                            continue;
                        }
                    }
                }
                (Some(injected), Some(death)) if is_of(&death, &injected) => {
                    handled = injected.number;
                    self.judge(&injected, &death);
                }
                (Some(_), Some(death)) => {
                    self.unexpected(&death);
                    continue;
                }
                (Some(injected), None) => {
                    if clock::now_ns() < injected.at_ns + DETECTION_LIMIT_NS {
                        continue;
                    }
                    handled = injected.number;
                    let mut state = self.state.lock();
                    state.note_tried(&injected);
                    state.results.problem(format!(
                        "a {} in {} of {} generation {} was not detected",
                        injected.injection,
                        injected.interface,
                        self.name(injected.domain),
                        injected.generation
                    ));
                }
            }
            if !ends && let Err(error) = self.arm(order, order.gap) {
                self.state.lock().results.problem(format!("{error}"));
            }
        }
    }

    /// Arms the next crossing that is to be tried, at least `gap` after those that the workload has made.
    fn arm(&self, order: Order, gap: u64) -> Result<(), InjectorError> {
        let kind = self.state.lock().coverage.kind();
        let from = self.count(kind) + gap;
        let next = self.state.lock().coverage.next(from);
        match next {
            Some(next) => self.injector.arm(kind, next, order.injection(next)),
            None => Ok(()),
        }
    }

    /// An injection and the death that followed it.
    fn judge(&self, injected: &Injected, death: &DeathRecord) {
        let is_right = match injected.injection {
            Injection::Panic => death.cause == DeathCause::Panic,
            Injection::PageFault => death.cause == DeathCause::Exception(14),
            Injection::Hang => matches!(death.cause, DeathCause::Deadline | DeathCause::Heartbeat),
        };
        let name = self.name(death.domain);
        let recovered = self.wait_until_runs(death);
        let mut state = self.state.lock();
        state.note_tried(injected);
        let results = &mut state.results;
        if is_right {
            results.detected += 1;
            let took_ns = death.at_ns.saturating_sub(injected.at_ns);
            if took_ns >= results.slowest_detection_ns {
                results.slowest_detection_ns = took_ns;
                results.slowest = format!(
                    "a {} in {} of {name}: {}: {}",
                    injected.injection, injected.interface, death.cause, death.detail
                );
            }
        } else {
            results.problem(format!(
                "a {} in {} of {name} ended in {}: {}",
                injected.injection, injected.interface, death.cause, death.detail
            ));
        }
        match recovered {
            Some(took_ns) => {
                results.recovered += 1;
                results.slowest_recovery_ns = results.slowest_recovery_ns.max(took_ns);
            }
            None => results.problem(format!("{name} doesn't run again")),
        }
    }

    fn unexpected(&self, death: &DeathRecord) {
        let words = format!(
            "{} generation {} died too: {}: {}",
            self.name(death.domain),
            death.generation,
            death.cause,
            death.detail
        );
        self.state.lock().results.problem(words);
    }

    /// How long after the death its domain ran again.
    fn wait_until_runs(&self, death: &DeathRecord) -> Option<u64> {
        let limit_ns = clock::now_ns() + RECOVERY_LIMIT_NS;
        loop {
            let status = self.control.status(death.domain).ok().flatten()?;
            if status.state == DomainState::Running && status.generation > death.generation {
                return Some(clock::now_ns().saturating_sub(death.at_ns));
            }
            if clock::now_ns() > limit_ns {
                return None;
            }
            thread::sleep_ms(1);
        }
    }

    /// Crossings of a kind, or of all, since they are counted.
    fn count(&self, kind: Option<u16>) -> u64 {
        match kind {
            Some(index) => self
                .injector
                .crossings(index)
                .ok()
                .flatten()
                .map_or(0, |kind| kind.count),
            None => self.injector.total().unwrap_or(0),
        }
    }

    fn newest_injection(&self) -> Option<Injected> {
        self.injector.newest().ok().flatten()
    }

    fn newest_death(&self) -> u64 {
        let mut newest = 0;
        while let Ok(Some(death)) = self.control.wait_death(newest, 0) {
            newest = death.number;
        }
        newest
    }

    /// The death after `last`, waiting for it a little.
    fn next_death(&self, last: u64) -> Option<DeathRecord> {
        let deadline_ns = clock::now_ns() + LOOK_NS;
        self.control.wait_death(last, deadline_ns).ok().flatten()
    }
}

/// Whether a death is of the incarnation that was injected into.
fn is_of(death: &DeathRecord, injected: &Injected) -> bool {
    death.domain == injected.domain && death.generation == injected.generation
}
