//! Threads of a domain. They end with it.

use abi::sys::{RawBytes, wake};
use abi::{current, sys};
use alloc::boxed::Box;
use core::sync::atomic::Ordering;

/// Number of a thread, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(u64);

impl ThreadId {
    /// The number, for a call to a domain that is to wake this thread.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The thread of a number that another domain gave. It may have ended: [`unpark`] then says so.
    pub fn from_number(number: u64) -> ThreadId {
        ThreadId(number)
    }
}

/// Why [`park_until`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// [`unpark`] was called, now or before.
    Woken,
    /// The deadline came.
    TimedOut,
    /// A domain that this thread came through is dead: return to the caller at once, waiting is over.
    Cancelled,
}

/// Memory or the domain's quota doesn't allow another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError;

type Body = Box<dyn FnOnce() + Send>;

extern "C" fn run(argument: *mut u8) {
    // SAFETY: `spawn` leaked exactly this type to this argument, once.
    let body = unsafe { Box::from_raw(argument.cast::<Body>()) };
    body();
}

/// Starts a thread of this domain, on `cpu` or wherever the kernel likes.
pub fn spawn(
    name: &str,
    cpu: Option<u16>,
    body: impl FnOnce() + Send + 'static,
) -> Result<ThreadId, SpawnError> {
    let boxed: Box<Body> = Box::new(Box::new(body));
    let argument = Box::into_raw(boxed);
    let id = (sys().thread_spawn)(
        RawBytes::of(name),
        cpu.map_or(u32::MAX, u32::from),
        run,
        argument.cast(),
    );
    if id == 0 {
        // SAFETY: No thread was made, so the argument is still ours.
        drop(unsafe { Box::from_raw(argument) });
        return Err(SpawnError);
    }
    Ok(ThreadId(id))
}

/// The running thread.
pub fn id() -> ThreadId {
    ThreadId(current().id.load(Ordering::Relaxed))
}

/// The CPU that this thread runs on; it stays there.
pub fn cpu() -> u16 {
    current().cpu.load(Ordering::Relaxed) as u16
}

/// CPUs of the machine.
pub fn cpu_count() -> u16 {
    (sys().cpu_count)() as u16
}

/// Blocks until [`unpark`] or `deadline_ns` (`clock::now_ns` time). An unpark before the park is not lost.
pub fn park_until(deadline_ns: u64) -> Wake {
    match (sys().thread_park)(deadline_ns) {
        wake::WOKEN => Wake::Woken,
        wake::TIMED_OUT => Wake::TimedOut,
        _ => Wake::Cancelled,
    }
}

/// Wakes a thread; false when it has ended.
pub fn unpark(thread: ThreadId) -> bool {
    (sys().thread_unpark)(thread.0)
}

/// Blocks for `milliseconds`, or until a cancellation.
pub fn sleep_ms(milliseconds: u64) {
    let deadline = crate::clock::now_ns().saturating_add(milliseconds.saturating_mul(1_000_000));
    while park_until(deadline) == Wake::Woken {}
}

/// Says that the running thread makes progress, for one that computes for long between waits and crossings: a thread that shows none for the
/// manifest's `heartbeat_ms` ends its domain.
pub fn heartbeat() {
    current().stalled.store(0, Ordering::Relaxed);
}

/// Lets other threads of this CPU run.
pub fn yield_now() {
    (sys().thread_yield)();
}
