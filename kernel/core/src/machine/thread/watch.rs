//! The watch: looks at every thread of a CPU that has one to run, every few milliseconds (`sched::pace`).
//!
//! What it looks for is up to who sets it. Looks come while the CPU runs a thread, and while it is idle only as long as the last look asked for it;
//! they are never made up for. So what they stand for is time that a thread had or slept, whatever the machine or its host did otherwise.

use abi::ThreadHeader;
use core::sync::atomic::{AtomicPtr, Ordering};

/// How a look finds a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It runs, and was interrupted before the instruction at this address.
    At(u64),
    /// It gave up the CPU for others, and would run.
    Yielded,
    /// It waits for a lock of its domain: runs or would run, and gave up the CPU for the holder since the last look.
    Locking,
    /// It is parked.
    Parked,
}

/// What a look at a thread has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// `report` is to be called.
    pub report: bool,
    /// The thread is to be looked at again even if its CPU is idle.
    pub waits: bool,
    /// The thread may be found to hang soon: the CPU is to be looked at closely.
    pub close: bool,
}

/// A look at a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, nanoseconds since boot.
    pub now_ns: u64,
    /// The time that it stands for, milliseconds.
    pub ms: u32,
}

/// What is done at a look.
pub struct Watch {
    /// Looks at a thread that runs or is parked, and stands still meanwhile. Runs in interrupt context with the scheduler's lock held: it must be
    /// short, and not wake threads, allocate or log.
    pub look: fn(&ThreadHeader, Found, Moment) -> Sight,
    /// Runs after a CPU was looked at if one of its threads asked for it, in interrupt context, with no lock held.
    pub report: fn(),
}

static WATCH: AtomicPtr<Watch> = AtomicPtr::new(core::ptr::null_mut());

/// Begins to watch.
pub fn set_watch(watch: &'static Watch) {
    WATCH.store(core::ptr::from_ref(watch).cast_mut(), Ordering::Release);
}

/// The watch, if there is one.
pub(super) fn watch() -> Option<&'static Watch> {
    // SAFETY: Null, or what `set_watch` got.
    unsafe { WATCH.load(Ordering::Acquire).as_ref() }
}
