//! Looking at threads: what is known of each, those that stand still, and those that a report is about.

use super::super::cpu::{self, Cpu};
use super::super::interrupts::InterruptContext;
use super::super::memory::Stack;
use super::watch::Found;
use super::{NAME_BYTES, SLOTS, Saved, State, TABLE, Thread, ThreadId, scheduler, with_thread};
use abi::ThreadHeader;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// What is known of a thread.
#[derive(Clone, Debug)]
pub struct ThreadInformation {
    /// Its number.
    pub id: ThreadId,
    /// Its CPU.
    pub cpu: u32,
    /// What it is doing.
    pub state: State,
    /// Its name.
    pub name: alloc::string::String,
    /// CPU time it has had, nanoseconds, without the slice that is running.
    pub run_ns: u64,
    /// Whether this is the CPU's idle thread.
    pub idle: bool,
    /// Pages of its stack.
    pub stack_pages: usize,
}

/// All threads.
pub fn list() -> alloc::vec::Vec<ThreadInformation> {
    let mut all = alloc::vec::Vec::new();
    for_each(|id, _, _| all.push(id));
    let describe = |id| {
        with_thread(id, |cpu, _, _, inner| {
            (
                cpu.index(),
                inner.state,
                inner.name,
                inner.name_length,
                inner.run_ns,
                inner.idle,
                inner.stack.as_ref().map_or(0, Stack::pages),
            )
        })
        .map(
            |(cpu, state, name, length, run_ns, idle, stack_pages)| ThreadInformation {
                id,
                cpu,
                state,
                name: alloc::string::String::from_utf8_lossy(&name[..length]).into_owned(),
                run_ns,
                idle,
                stack_pages,
            },
        )
    };
    all.into_iter().filter_map(describe).collect()
}

/// Calls `f` with every thread that lives: number, header, state. `f` runs with the lock of the thread's
/// scheduler held and interrupts off: it must be short, and not wake, cancel or make threads, allocate, or
/// log.
pub fn for_each(mut f: impl FnMut(ThreadId, &ThreadHeader, State)) {
    let used = SLOTS.lock().next;
    for slot in TABLE.iter().take(used) {
        // SAFETY: Blocks in the table are never freed.
        let Some(thread) = (unsafe { slot.load(Ordering::Acquire).as_ref() }) else {
            continue;
        };
        let guard = scheduler::lock_of(thread);
        // SAFETY: The lock of the thread's CPU is held.
        let inner = unsafe { &*thread.inner.get() };
        if let Some(id) = inner.id {
            f(id, &thread.header, inner.state);
        }
        drop(guard);
    }
}

/// Calls `f` with every thread of the CPU that runs or is parked. One that yielded counts as running: unlike one that was preempted, or was
/// woken, it would only ask for the CPU to give it up again. `rip` is where the running one was interrupted.
///
/// # Safety
/// The lock of the CPU's scheduler is held, on that CPU, with interrupts off.
pub(super) unsafe fn for_each_on(cpu: &Cpu, rip: u64, mut f: impl FnMut(&ThreadHeader, Found)) {
    let used = SLOTS.lock().next;
    for slot in TABLE.iter().take(used) {
        // SAFETY: Blocks in the table are never freed.
        let Some(thread) = (unsafe { slot.load(Ordering::Acquire).as_ref() }) else {
            continue;
        };
        if thread.cpu.load(Ordering::Acquire) != cpu.index() {
            continue;
        }
        // SAFETY: It is a thread of the CPU whose lock is held, by the caller's promise; one that gets another CPU does so under this lock.
        let inner = unsafe { &mut *thread.inner.get() };
        let found = match inner.state {
            State::Running if inner.locking => Found::Locking,
            State::Ready if inner.yielded && inner.locking => Found::Locking,
            // It may never be seen running, though it does nothing else: others get its share.
            State::Ready if inner.yielded => Found::Yielded,
            State::Ready => continue,
            State::Running => Found::At(rip),
            State::Parked => Found::Parked,
        };
        if inner.id.is_some() {
            inner.locking = false;
            f(&thread.header, found);
        }
    }
}

/// Runs `f` with the header of a thread while it can't run or end, and with its saved context if it was
/// preempted; `None` if it has ended or runs. The same conditions as for [`for_each`].
pub fn with_stopped<R>(
    id: ThreadId,
    f: impl FnOnce(&ThreadHeader, State, Option<&mut InterruptContext>) -> R,
) -> Option<R> {
    with_thread(id, |_, _, thread, inner| {
        if inner.state == State::Running {
            return None;
        }
        // SAFETY: The thread doesn't run and its scheduler's lock is held, so nobody else uses the save area.
        let context = (inner.saved == Saved::Preempted).then(|| unsafe { &mut *thread.save_area.get() });
        Some(f(&thread.header, inner.state, context))
    })
    .flatten()
}

/// Total CPU time that threads other than the idle ones have had, by CPU, in nanoseconds.
pub fn busy_ns(cpu: u32) -> u64 {
    cpu::get(cpu).map_or(0, |cpu| cpu.scheduler.lock().busy_ns())
}

/// Name of the thread behind `header`, and the addresses of its stack (none for an idle thread). Takes no lock.
///
/// # Safety
/// `header` is of a thread that can't end meanwhile: it is the running one, or interrupted on this CPU, or about to be resumed on it.
pub unsafe fn name_and_stack(header: &ThreadHeader) -> (&'static str, Range<usize>) {
    let slot = ThreadId(header.id.load(Ordering::Relaxed)).slot();
    let block = TABLE.get(slot).map(|entry| entry.load(Ordering::Acquire));
    // SAFETY: Blocks in the table are never freed.
    let thread = block.and_then(|block| unsafe { block.as_ref() });
    match thread.filter(|thread| core::ptr::eq(&raw const thread.header, header)) {
        // SAFETY: Name and stack don't change as long as the thread lives, by the caller's promise until this has returned; only these are
        // read, and by themselves.
        Some(thread) => unsafe {
            let inner = thread.inner.get();
            let name: &'static [u8; NAME_BYTES] = &(*inner).name;
            let stack = &(*inner).stack;
            let name = name.get(..(*inner).name_length).unwrap_or_default();
            let range = stack.as_ref().map_or(0..0, |stack| stack.bottom()..stack.top());
            (core::str::from_utf8(name).unwrap_or("?"), range)
        },
        None => ("?", 0..0),
    }
}

/// The running thread and its name, for a fault report: takes no lock.
pub(in crate::machine) fn running_for_report() -> Option<(&'static ThreadHeader, &'static str)> {
    let header = cpu::current().current_header();
    // SAFETY: Every header is the first field of a thread block, which is never freed; other CPUs are
    // stopped.
    let thread = unsafe { header.cast::<Thread>().as_ref() }?;
    // SAFETY: As above.
    let inner = unsafe { &*thread.inner.get() };
    let name = core::str::from_utf8(&inner.name[..inner.name_length]).unwrap_or("?");
    Some((&thread.header, name))
}
