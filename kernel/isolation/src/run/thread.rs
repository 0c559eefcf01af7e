//! Threads of domains: how they get in, how they wait, how they get out.
//!
//! A domain's thread starts in the kernel, enters its domain the way a crossing does, and so has a continuation in the kernel to
//! come back to when the domain dies. While it waits in the kernel it can be called off.

use super::black_box;
use super::death;
use super::domain::{Domain, is_live};
use crate::black_box::EventKind;
use crate::elf::PAGE_BYTES;
use abi::sys::{RawBytes, wake};
use abi::thread::phase;
use abi::{Continuation, OwnerId, ThreadHeader, current};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, compiler_fence};
use kernel::machine::memory::Stack;
use kernel::machine::sync::InterruptLock;
use kernel::machine::thread::{self as machine, Builder, ThreadId, Wake};
use rref::RpcError;
use rref::crossing::enter;

/// Pages of a domain thread's stack. A crossing runs on the caller's, so it must do for a whole chain of domains.
pub const STACK_PAGES: usize = 32;

/// What a domain's code runs first on a new thread.
pub type Entry = extern "C" fn(*mut u8);

struct Start {
    domain: &'static Domain,
    incarnation: OwnerId,
    entry: Entry,
    argument: *mut u8,
}

/// Starts a thread in `incarnation`; its number, or `None` without memory or quota. A `prompt` one needn't wait for its turn.
pub fn spawn(
    domain: &'static Domain,
    incarnation: OwnerId,
    name: &str,
    cpu: Option<u32>,
    prompt: bool,
    (entry, argument): (Entry, *mut u8),
) -> Option<u64> {
    if !domain.charge(STACK_PAGES as u64) {
        black_box::trace(
            incarnation,
            EventKind::Refused,
            format_args!("thread {name}: quota"),
        );
        return None;
    }
    let start = Box::into_raw(Box::new(Start {
        domain,
        incarnation,
        entry,
        argument,
    }));
    domain.threads.fetch_add(1, Ordering::Relaxed);
    let prepare = |header: &ThreadHeader, stack: &Stack| header.limit_stack(stack.bottom() as u64);
    let mut builder = Builder::new(name)
        .stack_bytes(STACK_PAGES * PAGE_BYTES)
        .prepare(&prepare)
        .prompt(prompt);
    if let Some(cpu) = cpu {
        builder = builder.cpu(cpu);
    }
    let spawned = builder.spawn(main, start.addr());
    match &spawned {
        Ok(id) => black_box::trace(
            incarnation,
            EventKind::ThreadStarted,
            format_args!("{} {name}", id.number()),
        ),
        Err(error) => black_box::trace(
            incarnation,
            EventKind::Refused,
            format_args!("thread {name}: {error}"),
        ),
    }
    if spawned.is_err() {
        // SAFETY: No thread was made, so nobody else has it.
        drop(unsafe { Box::from_raw(start) });
        domain.threads.fetch_sub(1, Ordering::Relaxed);
        domain.discharge(STACK_PAGES as u64);
    }
    spawned.ok().map(ThreadId::number)
}

extern "C" fn main(argument: usize) {
    // SAFETY: `spawn` leaked it for this thread.
    let start = unsafe { Box::from_raw(argument as *mut Start) };
    let id = current().id.load(Ordering::Relaxed);
    ROSTER.lock().push((id, start.incarnation));
    run(&start);
    ROSTER.lock().retain(|(other, _)| *other != id);
    if start.domain.header.is_live(start.incarnation) {
        let id = current().id.load(Ordering::Relaxed);
        black_box::trace(start.incarnation, EventKind::ThreadEnded, format_args!("{id}"));
    }
    start.domain.threads.fetch_sub(1, Ordering::Relaxed);
    start.domain.discharge(STACK_PAGES as u64);
}

/// Enters the domain and comes back when its code returns, or when it dies. The same steps as `rref::crossing::cross`.
fn run(start: &Start) {
    let thread = current();
    let previous = thread.top.load(Ordering::Relaxed);
    let mut record = Continuation::new(previous, start.incarnation, None);
    compiler_fence(Ordering::SeqCst);
    thread.top.store(&raw mut record, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if start.domain.header.is_live(start.incarnation) {
        // SAFETY: `record` lives on this frame, which outlives the call; the frames below are the domain's.
        let outcome: Result<(), RpcError> = unsafe { enter(start, (), run_entry) };
        // Returned or died: the thread ends either way.
        outcome.ok();
        // Before it is off the chain, which `reap` waits for.
        let cost = &start.domain.cost;
        cost.threads_ns
            .fetch_add(machine::own_run_ns(), Ordering::Relaxed);
    }
    compiler_fence(Ordering::SeqCst);
    thread.top.store(previous, Ordering::Relaxed);
}

fn run_entry(start: &Start, (): ()) -> Result<(), RpcError> {
    (start.entry)(start.argument);
    Ok(())
}

/// Threads that have begun in a domain and have not ended, by number.
static ROSTER: InterruptLock<Vec<(u64, OwnerId)>> = InterruptLock::new(Vec::new());

/// Every thread that has begun in a domain and has not ended: its number, and the incarnation that started it.
pub fn roster() -> Vec<(u64, OwnerId)> {
    ROSTER.lock().clone()
}

/// Threads that wait for a change in the table of domains, by number.
pub fn waiters() -> Vec<u64> {
    WAITERS.lock().iter().map(|(id, _)| *id).collect()
}

/// Blocks until an unpark, the deadline, or the death of a domain on the chain; an `abi::sys::wake` code.
pub fn park(deadline_ns: u64) -> u32 {
    // For the watch: it makes progress.
    current().stalled.store(0, Ordering::Relaxed);
    loop {
        if death::chain_is_broken(current()) {
            return wake::CANCELLED;
        }
        match machine::park_until(deadline_ns) {
            Wake::Woken => return wake::WOKEN,
            Wake::TimedOut => return wake::TIMED_OUT,
            // A death somewhere: look whether it concerns this thread.
            Wake::Cancelled => {}
        }
    }
}

/// Runs `wait` so that its time isn't counted for the start of the domain whose thread this is.
pub fn waiting_for_others<R>(wait: impl FnOnce() -> R) -> R {
    let phase = &current().phase;
    phase.fetch_or(phase::CONNECTING, Ordering::Relaxed);
    let result = wait();
    phase.fetch_and(!phase::CONNECTING, Ordering::Relaxed);
    result
}

/// What changes in the table of domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One has died.
    Death,
    /// One runs, offers something more, or has died while it started.
    Start,
}

/// Threads that wait for a change in the table of domains.
static WAITERS: InterruptLock<Vec<(u64, Change)>> = InterruptLock::new(Vec::new());

/// Registers the running thread as a waiter before it looks, so that a change in between is not missed.
pub struct WaitTicket(u64);

impl WaitTicket {
    /// Registers the running thread.
    pub fn new(change: Change) -> WaitTicket {
        let id = current().id.load(Ordering::Relaxed);
        WAITERS.lock().push((id, change));
        WaitTicket(id)
    }

    /// Waits for a change; an `abi::sys::wake` code.
    pub fn wait(self, deadline_ns: u64) -> u32 {
        park(deadline_ns)
    }
}

impl Drop for WaitTicket {
    fn drop(&mut self) {
        let mut waiters = WAITERS.lock();
        if let Some(index) = waiters.iter().position(|(id, _)| *id == self.0) {
            waiters.swap_remove(index);
        }
    }
}

/// Wakes every thread that waits for such a change.
pub fn wake_waiters(change: Change) {
    let waiters = WAITERS.lock();
    for (id, _) in waiters.iter().filter(|(_, awaited)| *awaited == change) {
        let id = ThreadId::from_number(*id);
        machine::unpark(id);
        // What waited for it has been held up for long enough.
        machine::hurry(id);
    }
}

/// The text of a range that a trusted library passed.
pub fn text(raw: &RawBytes) -> &str {
    if raw.data.is_null() {
        return "";
    }
    // SAFETY: Trusted libraries pass ranges of live strings and wait for the call to return.
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(raw.data, raw.length) }).unwrap_or("?")
}

/// Whether a domain that is `dead` runs on `thread`, or made one of the crossings on its chain.
///
/// # Safety
/// `thread` can't run while this looks: it is the calling thread, or interrupted on this CPU, or not on any CPU.
pub unsafe fn is_on_chain(thread: &ThreadHeader, dead: impl Fn(OwnerId) -> bool) -> bool {
    let mut record = thread.top.load(Ordering::Relaxed).cast_const();
    while !record.is_null() {
        // SAFETY: Records live on the thread's stack while they are on its chain, and the chain stands still.
        let current = unsafe { &*record };
        if dead(current.callee) {
            return true;
        }
        record = current.previous;
    }
    false
}

/// Whether an incarnation other than the kernel is dead.
pub fn is_dead(owner: OwnerId) -> bool {
    !is_live(owner)
}
