//! Interrupts of claimed devices: from an MSI-X entry to the thread that waits.
//!
//! An entry stays routed to its CPU when its driver dies, without anybody at its end: programming it is slow, and the next driver wants the
//! same. Until then the device raises none, or nobody hears it: its death brought it to rest (`device.rs`).

use super::thread;
use crate::line::LineState;
use abi::current;
use abi::sys::wake;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::machine::pci::{Function, Interrupt, PciError};
use kernel::machine::sync::InterruptLock;
use kernel::machine::thread::ThreadId;

/// An interrupt that may be waited for.
pub struct Line {
    state: LineState,
    /// How often it came.
    count: AtomicU64,
}

impl Line {
    /// It came. Runs in interrupt context.
    fn raise(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(waiter) = self.state.raise() {
            kernel::machine::thread::unpark(ThreadId::from_number(waiter));
        }
    }

    /// Waits for it, unless it came since the last wait; an `abi::sys::wake` code.
    pub fn wait(&self, deadline_ns: u64) -> u32 {
        let me = current().id.load(Ordering::Relaxed);
        self.state.wait(me, wake::WOKEN, || thread::park(deadline_ns))
    }
}

/// Who is at the end of a route.
type End = InterruptLock<Option<Arc<Line>>>;

/// An entry of a device that is routed to a CPU.
struct Route {
    function: &'static Function,
    entry: u16,
    cpu: u32,
    end: Arc<End>,
    _interrupt: Interrupt,
}

/// All that were ever made: at most one for each entry of each claimed device.
static ROUTES: InterruptLock<Vec<Route>> = InterruptLock::new(Vec::new());

/// Routes that somebody can wait for.
pub fn attached() -> usize {
    let routes = ROUTES.lock();
    routes.iter().filter(|route| route.end.lock().is_some()).count()
}

/// A driver's hold on an interrupt: it ends with this.
pub struct Attached {
    line: Arc<Line>,
    end: Arc<End>,
}

impl Attached {
    /// Where the [`Line`] is that can be waited for, as long as this lives.
    pub fn address(&self) -> u64 {
        Arc::as_ptr(&self.line).expose_provenance() as u64
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut end = self.end.lock();
        // Unless the entry was attached to once more meanwhile.
        let last = end.take_if(|line| Arc::ptr_eq(line, &self.line));
        drop(end);
        drop(last);
    }
}

/// Routes an entry of `function` to `cpu`.
pub fn attach(function: &'static Function, entry: u16, cpu: u32) -> Result<Attached, PciError> {
    let line = Arc::new(Line {
        state: LineState::default(),
        count: AtomicU64::new(0),
    });
    let is_it = |route: &Route| core::ptr::eq(route.function, function) && route.entry == entry;
    let old = {
        let mut routes = ROUTES.lock();
        let place = routes.iter().position(is_it);
        if let Some(route) = place.and_then(|place| routes.get(place))
            && route.cpu == cpu
        {
            let end = route.end.clone();
            drop(routes);
            let before = end.lock().replace(line.clone());
            drop(before);
            return Ok(Attached { line, end });
        }
        place.map(|place| routes.swap_remove(place))
    };
    // Masked before it is routed anew.
    drop(old);
    let end: Arc<End> = Arc::new(InterruptLock::new(Some(line.clone())));
    let raised = end.clone();
    let interrupt = function.route_interrupt(entry, cpu, move || {
        if let Some(line) = raised.lock().as_ref() {
            line.raise();
        }
    })?;
    ROUTES.lock().push(Route {
        function,
        entry,
        cpu,
        end: end.clone(),
        _interrupt: interrupt,
    });
    Ok(Attached { line, end })
}
