//! The fault injector's decisions, and its control by a domain (tests/attack/interface). Only in builds that attack themselves.
//!
//! `rref::inject` asks at each crossing; here crossings are counted by kind, and the one that is armed is told to fault.

use attack_interface::injector::{Crossings, Injected, Injection, Injector, InjectorError};
use kernel::machine::clock;
use kernel::machine::sync::InterruptLock;
use rref::{OwnerId, Text, inject};

/// Kinds of crossings that are told apart.
const KIND_LIMIT: usize = 64;
/// Slots of the kernel and the supervisor, into which nothing is injected.
const EXEMPT_SLOTS: core::ops::RangeInclusive<u16> = 0..=1;

/// Crossings of one interface into one domain.
#[derive(Clone, Copy)]
struct Kind {
    /// The interface's type.
    interface: &'static str,
    slot: u16,
    count: u64,
}

struct Armed {
    kind: Option<usize>,
    /// The count at which it is due.
    at: u64,
    injection: Injection,
}

struct State {
    kinds: [Kind; KIND_LIMIT],
    used: usize,
    /// Crossings of all kinds.
    total: u64,
    armed: Option<Armed>,
    newest: Option<Injected>,
}

static STATE: InterruptLock<State> = InterruptLock::new(State {
    kinds: [const {
        Kind {
            interface: "",
            slot: 0,
            count: 0,
        }
    }; KIND_LIMIT],
    used: 0,
    total: 0,
    armed: None,
    newest: None,
});

/// Begins to count.
pub fn start() {
    inject::set_hook(decide);
}

/// Counts a crossing, and says whether and how it faults.
fn decide(interface: &'static str, callee: OwnerId) -> Option<inject::Injected> {
    if EXEMPT_SLOTS.contains(&callee.slot()) {
        return None;
    }
    let mut state = STATE.lock();
    let index = state.kind(interface, callee.slot())?;
    state.total += 1;
    let kind = state.kinds.get_mut(index)?;
    kind.count += 1;
    let of_kind = kind.count;
    let armed = state.armed.as_ref()?;
    let count = match armed.kind {
        None => state.total,
        Some(wanted) if wanted == index => of_kind,
        Some(_) => return None,
    };
    if count < armed.at {
        return None;
    }
    let injection = state.armed.take()?.injection;
    state.newest = Some(Injected {
        number: state.newest.map_or(0, |newest| newest.number) + 1,
        interface: Text::new(short_name(interface)),
        domain: callee.slot().saturating_sub(1),
        generation: callee.generation(),
        crossing: count,
        injection,
        at_ns: clock::now_ns(),
    });
    Some(match injection {
        Injection::Panic => inject::Injected::Panic,
        Injection::Hang => inject::Injected::Hang,
        Injection::PageFault => inject::Injected::PageFault,
    })
}

impl State {
    /// Index of a kind, which may be new.
    fn kind(&mut self, interface: &'static str, slot: u16) -> Option<usize> {
        let known = self
            .kinds
            .iter()
            .take(self.used)
            .position(|kind| kind.slot == slot && kind.interface == interface);
        if known.is_some() {
            return known;
        }
        let index = self.used;
        *self.kinds.get_mut(index)? = Kind {
            interface,
            slot,
            count: 0,
        };
        self.used += 1;
        Some(index)
    }
}

/// `Trait` of `dyn path::to::Trait`.
fn short_name(interface: &str) -> &str {
    interface.rsplit(':').next().unwrap_or(interface)
}

/// The control, as an interface.
pub struct Control;

impl Injector for Control {
    fn reset(&self) -> Result<(), InjectorError> {
        let mut state = STATE.lock();
        state.armed = None;
        state.total = 0;
        for kind in &mut state.kinds {
            kind.count = 0;
        }
        Ok(())
    }

    fn crossings(&self, index: u16) -> Result<Option<Crossings>, InjectorError> {
        let state = STATE.lock();
        let kind = state.kinds.iter().take(state.used).nth(usize::from(index));
        Ok(kind.map(|kind| Crossings {
            interface: Text::new(short_name(kind.interface)),
            domain: kind.slot.saturating_sub(1),
            count: kind.count,
        }))
    }

    fn arm(&self, kind: Option<u16>, number: u64, injection: Injection) -> Result<(), InjectorError> {
        let mut state = STATE.lock();
        if state.used == KIND_LIMIT {
            // Crossings may have gone uncounted.
            return Err(InjectorError::TooManyKinds);
        }
        state.armed = Some(Armed {
            kind: kind.map(usize::from),
            at: number,
            injection,
        });
        Ok(())
    }

    fn total(&self) -> Result<u64, InjectorError> {
        Ok(STATE.lock().total)
    }

    fn disarm(&self) -> Result<bool, InjectorError> {
        Ok(STATE.lock().armed.take().is_some())
    }

    fn newest(&self) -> Result<Option<Injected>, InjectorError> {
        Ok(STATE.lock().newest)
    }
}
