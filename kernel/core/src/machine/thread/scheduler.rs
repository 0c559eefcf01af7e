//! Which thread runs on a CPU: when one gets it, and when it loses it. How the CPU changes over is `switch.rs`'s.
//!
//! Threads are left and entered with interrupts off, and the scheduler's lock is released before the switch: only this CPU can run the thread that has
//! just been queued or parked.
//!
//! A thread that blocks while no other can run isn't left at all: the CPU is idle on that thread's stack (`idle.rs`), and goes on from there when
//! the thread is woken. Its deadline is kept apart from the queue's timers meanwhile.
//!
//! The timer is set for the next deadline, for the end of the slice while another thread waits, and for the next look of the
//! watch (`watch.rs`) while the CPU isn't idle; it is left alone when it would fire earlier than needed, and set anew then.

mod idle;
mod switch;

use super::super::cpu::{self, Cpu};
use super::super::interrupts::{self, InterruptContext, RESCHEDULE_VECTOR};
use super::super::sync::RawInterruptLock;
use super::super::{apic, clock};
use super::watch::{Moment, Watch, watch};
use super::{Saved, State, Thread, ThreadId, Wake, unpark};
use crate::sched::pace::{Pace, TICK_MS};
use crate::sched::queue::{PROMPT_SLICE_NS, RunQueue, SLICE_NS};
use crate::time::NEVER;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use lock_api::MutexGuard;
use x86_64::instructions::interrupts as processor;

pub(super) use idle::{idle_loop, reap};
pub(super) use switch::first_frame;
use switch::{enter, switch};

/// Pages of a reaper's stack.
pub const REAPER_STACK_PAGES: usize = 4;

/// A thread in a queue, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Queued(NonNull<Thread>);

// SAFETY: Threads are never freed and are Sync.
unsafe impl Send for Queued {}

impl Queued {
    fn thread(self) -> &'static Thread {
        // SAFETY: Made from a `&'static Thread`.
        unsafe { self.0.as_ref() }
    }
}

impl From<&'static Thread> for Queued {
    fn from(thread: &'static Thread) -> Self {
        Self(NonNull::from(thread))
    }
}

/// One CPU's share of the scheduler.
pub struct Scheduler {
    queue: RunQueue<Queued>,
    threads: usize,
    running: Option<Queued>,
    idle: Option<Queued>,
    /// The parked thread on whose stack the CPU is idle, until it is woken or another one runs.
    halted: Option<Queued>,
    /// Its deadline, which is in no other list.
    halted_until_ns: u64,
    reaper: Option<ThreadId>,
    /// Threads that have ended, whose stacks the reaper frees.
    ended: Vec<Queued>,
    /// When the running thread's slice began, and when it ends.
    slice_start_ns: u64,
    slice_end_ns: u64,
    /// Up to when what it uses has been added to what it has used.
    accounted_ns: u64,
    /// What the timer is set to.
    armed_ns: u64,
    busy_ns: u64,
    /// When the watch looks next, and whether it does so on an idle CPU.
    pace: Pace,
    watches_idle: bool,
}

impl Scheduler {
    /// A scheduler without threads.
    pub(in crate::machine) const fn new() -> Self {
        Self {
            queue: RunQueue::new(),
            threads: 0,
            running: None,
            idle: None,
            halted: None,
            halted_until_ns: NEVER,
            reaper: None,
            ended: Vec::new(),
            slice_start_ns: 0,
            slice_end_ns: NEVER,
            accounted_ns: 0,
            armed_ns: NEVER,
            busy_ns: 0,
            pace: Pace::new(),
            watches_idle: false,
        }
    }

    /// Makes room for one more thread, so that queueing it never allocates.
    pub(super) fn add_thread(&mut self) {
        self.threads += 1;
        self.queue.reserve(self.threads);
        self.ended.reserve(self.threads.saturating_sub(self.ended.len()));
    }

    pub(super) fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// Queues a parked thread whose wake has been sent; the CPU that has to be interrupted for it, if any.
    pub(super) fn wake(
        &mut self,
        cpu: &'static Cpu,
        thread: &'static Thread,
        inner: &mut super::Inner,
    ) -> Option<&'static Cpu> {
        if self.halted == Some(thread.into()) {
            self.end_halt();
        } else {
            self.queue.stop_timer(thread.into());
        }
        self.enqueue(cpu, thread, inner)
    }

    /// The CPU is idle from here on, on the stack of the running thread, which is parked until `deadline_ns`.
    #[inline]
    fn begin_halt(&mut self, cpu: &Cpu, idle: Queued, deadline_ns: u64, now_ns: u64) {
        self.account(now_ns);
        self.halted = self.running;
        self.halted_until_ns = deadline_ns;
        self.set_running(cpu, idle, now_ns);
        // All else that the timer is needed for, it was needed for already.
        if deadline_ns < self.armed_ns {
            self.armed_ns = deadline_ns;
            clock::arm_timer(now_ns, deadline_ns);
        }
    }

    /// The CPU was idle on `thread`'s stack, and goes on with it: no other thread is ready.
    #[inline]
    fn go_on(&mut self, cpu: &Cpu, thread: Queued, now_ns: u64) {
        self.end_halt();
        self.leave_idle(now_ns);
        self.set_running(cpu, thread, now_ns);
        if self.armed_ns > self.pace.due_ns() {
            self.arm(now_ns);
        }
    }

    /// The thread on whose stack the CPU is idle is an ordinary one from here on; its deadline.
    #[inline]
    fn end_halt(&mut self) -> u64 {
        self.halted = None;
        core::mem::replace(&mut self.halted_until_ns, NEVER)
    }

    fn enqueue(
        &mut self,
        cpu: &'static Cpu,
        thread: &'static Thread,
        inner: &mut super::Inner,
    ) -> Option<&'static Cpu> {
        // Only the first thread in the queue changes anything for the CPU: it leaves its idle loop, or its
        // slices begin to end.
        let first = inner.prompt || !self.queue.has_ready();
        self.queue_ready(thread.into(), inner);
        if first && core::ptr::eq(cpu, cpu::current()) {
            // An idle CPU's interrupt returns to the idle loop, which takes the thread at once.
            if self.running == self.idle {
                return None;
            }
            if !inner.prompt {
                self.arm(clock::now_ns());
                return None;
            }
            // This CPU interrupts itself: sooner than a timer would that is due, and a timer of an emulator's comes from another thread of its.
        }
        first.then_some(cpu)
    }

    /// Lets a runnable thread run before the others of its CPU; the CPU that has to be interrupted for it, if any. The running thread of this CPU goes
    /// on until it waits.
    pub(super) fn hurry(&mut self, cpu: &'static Cpu, thread: &'static Thread) -> Option<&'static Cpu> {
        let is_here = core::ptr::eq(cpu, cpu::current());
        // An idle CPU was interrupted when it got something to do.
        if !self.queue.move_first(thread.into()) || is_here || self.running == self.idle {
            return None;
        }
        self.slice_end_ns = 0;
        Some(cpu)
    }

    /// Puts a thread into the queue: at its end, or, if it is prompt, at its front, with the running thread's slice over.
    fn queue_ready(&mut self, thread: Queued, inner: &mut super::Inner) {
        inner.state = State::Ready;
        inner.yielded = false;
        if inner.prompt {
            self.queue.push_first(thread);
            self.slice_end_ns = 0;
        } else {
            self.queue.push(thread);
        }
    }

    /// Takes the next thread to run, the idle one if there is no other, and starts its slice.
    fn take_next(&mut self, cpu: &Cpu, now_ns: u64) -> Option<Queued> {
        let next = self.queue.pop().or(self.idle)?;
        self.account(now_ns);
        if self.running == self.idle {
            self.leave_idle(now_ns);
        }
        self.set_running(cpu, next, now_ns);
        self.arm(now_ns);
        Some(next)
    }

    /// Out of idleness.
    #[inline]
    fn leave_idle(&mut self, now_ns: u64) {
        self.watches_idle = true;
        self.pace.resume(now_ns);
    }

    /// Starts a thread's slice.
    #[inline]
    fn set_running(&mut self, cpu: &Cpu, thread: Queued, now_ns: u64) {
        self.running = Some(thread);
        let thread = thread.thread();
        // SAFETY: The thread is on this CPU, whose lock is held (`self` is behind it).
        let inner = unsafe { &mut *thread.inner.get() };
        inner.state = State::Running;
        let slice_ns = if inner.prompt { PROMPT_SLICE_NS } else { SLICE_NS };
        self.slice_start_ns = now_ns;
        self.slice_end_ns = now_ns.saturating_add(slice_ns);
        self.accounted_ns = now_ns;
        cpu.current
            .store(core::ptr::from_ref(&thread.header).cast_mut(), Ordering::Relaxed);
    }

    /// Adds what the running thread has used since that was done last.
    fn account(&mut self, now_ns: u64) {
        let Some(running) = self.running else { return };
        // SAFETY: As in `take_next`.
        let inner = unsafe { &mut *running.thread().inner.get() };
        let used = self.unaccounted_ns(now_ns);
        self.accounted_ns = now_ns;
        inner.run_ns += used;
        if !inner.idle {
            self.busy_ns += used;
        }
    }

    /// What the running thread has used and isn't added yet. A busy CPU is looked at every [`TICK_MS`]; where that comes late, the host has run something else,
    /// and that is nobody's use.
    fn unaccounted_ns(&self, now_ns: u64) -> u64 {
        let passed_ns = now_ns.saturating_sub(self.accounted_ns);
        match watch() {
            Some(_) if self.running != self.idle => passed_ns.min(u64::from(TICK_MS) * 1_000_000),
            _ => passed_ns,
        }
    }

    /// Sets the timer if it would fire too late.
    fn arm(&mut self, now_ns: u64) {
        let is_idle = self.running == self.idle;
        let mut next = self
            .queue
            .next_event(if is_idle { NEVER } else { self.slice_end_ns });
        if (!is_idle || self.watches_idle) && watch().is_some() {
            next = next.min(self.pace.due_ns());
        }
        next = next.min(self.halted_until_ns);
        if next < self.armed_ns {
            self.armed_ns = next;
            clock::arm_timer(now_ns, next);
        }
    }

    /// Looks at this CPU's threads if it is time; the watch if it has something to report.
    fn look(&mut self, cpu: &Cpu, now_ns: u64, rip: u64) -> Option<&'static Watch> {
        let is_idle = self.running == self.idle;
        if is_idle && !self.watches_idle {
            return None;
        }
        let ms = self.pace.look(now_ns)?;
        let watch = watch()?;
        self.account(now_ns);
        let (mut report, mut waits, mut close) = (false, false, false);
        // SAFETY: `self` is behind the lock of this CPU, which runs this in an interrupt.
        unsafe {
            super::inspect::for_each_on(cpu, rip, |header, found| {
                let sight = (watch.look)(header, found, Moment { now_ns, ms });
                report |= sight.report;
                waits |= sight.waits;
                close |= sight.close;
            });
        }
        self.pace.go_on(now_ns, close);
        // A thread that runs now may come to wait before the next look.
        self.watches_idle = waits || !is_idle;
        report.then_some(watch)
    }

    /// Whether the deadline of the thread has come on whose stack the CPU is idle.
    fn halt_has_expired(&self, now_ns: u64) -> bool {
        self.halted_until_ns <= now_ns
    }

    /// Queues the threads whose deadline has come.
    fn expire(&mut self, now_ns: u64) {
        while let Some(thread) = self.queue.pop_expired(now_ns) {
            // SAFETY: As in `take_next`.
            let inner = unsafe { &mut *thread.thread().inner.get() };
            inner.tokens.send(true, Wake::TimedOut);
            self.queue_ready(thread, inner);
        }
        if self.halt_has_expired(now_ns)
            && let Some(thread) = self.halted
        {
            self.end_halt();
            // SAFETY: As in `take_next`.
            let inner = unsafe { &mut *thread.thread().inner.get() };
            inner.tokens.send(true, Wake::TimedOut);
            self.queue_ready(thread, inner);
        }
    }
}

/// The thread that runs on this CPU.
fn running(cpu: &Cpu) -> &'static Thread {
    // SAFETY: Once the scheduler runs, the CPU's current header is always the first field of a thread block,
    // and these are never freed.
    unsafe { &*cpu.current_header().cast::<Thread>() }
}

/// Locks the scheduler of a thread's CPU.
pub(super) fn lock_of(thread: &Thread) -> MutexGuard<'static, RawInterruptLock, Scheduler> {
    loop {
        let index = thread.cpu.load(Ordering::Acquire);
        if let Some(cpu) = cpu::prepared(index) {
            let guard = cpu.scheduler.lock();
            if thread.cpu.load(Ordering::Acquire) == index {
                return guard;
            }
        }
    }
}

/// Makes the code that is running the idle thread of this CPU.
pub(super) fn start(cpu: &'static Cpu, idle: &'static Thread) {
    let mut scheduler = cpu.scheduler.lock();
    scheduler.idle = Some(idle.into());
    scheduler.running = scheduler.idle;
    cpu.current
        .store(core::ptr::from_ref(&idle.header).cast_mut(), Ordering::Relaxed);
}

/// Names the thread that frees this CPU's ended threads, and lets it run.
pub(super) fn set_reaper(cpu: &'static Cpu, thread: &'static Thread, id: ThreadId) {
    cpu.scheduler.lock().reaper = Some(id);
    make_ready(cpu, thread);
}

/// Queues a thread that has just been made.
pub(super) fn make_ready(cpu: &'static Cpu, thread: &'static Thread) {
    let interrupt = {
        let mut scheduler = cpu.scheduler.lock();
        // SAFETY: The lock of the thread's CPU is held.
        let inner = unsafe { &mut *thread.inner.get() };
        scheduler.enqueue(cpu, thread, inner)
    };
    if let Some(cpu) = interrupt {
        interrupt_for_work(cpu);
    }
}

/// Makes another CPU look at its queue.
pub(super) fn interrupt_for_work(cpu: &'static Cpu) {
    apic::send(cpu.apic_id, apic::Message::Vector(RESCHEDULE_VECTOR));
}

/// See [`super::park_until`].
pub(super) fn park(deadline_ns: u64) -> Wake {
    assert!(processor::are_enabled(), "a thread parks with interrupts off");
    processor::disable();
    let cpu = cpu::current();
    let thread = running(cpu);
    let wake = match begin_park(cpu, thread, deadline_ns) {
        Ok(next) => {
            match next {
                Some(next) => switch(thread, next),
                None => idle::halt(cpu, thread),
            }
            // SAFETY: The thread runs, with interrupts off, so nobody else uses this field.
            unsafe { (*thread.inner.get()).tokens.wake() }
        }
        Err(wake) => wake,
    };
    processor::enable();
    wake
}

/// Parks the running thread; the thread to switch to, `None` if the CPU becomes idle on this one's stack, or why it needn't wait.
fn begin_park(cpu: &'static Cpu, thread: &'static Thread, deadline_ns: u64) -> Result<Option<Queued>, Wake> {
    let mut scheduler = cpu.scheduler.lock();
    // SAFETY: The lock of the thread's CPU is held.
    let inner = unsafe { &mut *thread.inner.get() };
    if let Some(wake) = inner.tokens.take() {
        return Err(wake);
    }
    let now = clock::now_ns();
    if deadline_ns <= now {
        return Err(Wake::TimedOut);
    }
    inner.state = State::Parked;
    if scheduler.queue.has_ready() {
        scheduler.queue.start_timer(deadline_ns, thread.into());
        return Ok(scheduler.take_next(cpu, now));
    }
    if let Some(idle) = scheduler.idle {
        cpu.halted.begin(thread.header.id.load(Ordering::Relaxed));
        scheduler.begin_halt(cpu, idle, deadline_ns, now);
    }
    Ok(None)
}

/// See [`super::yield_now`] and, for one that is `locking`, [`super::yield_to_holder`].
pub(super) fn yield_now(locking: bool) {
    let were_enabled = processor::are_enabled();
    processor::disable();
    let cpu = cpu::current();
    let thread = running(cpu);
    let next = {
        let mut scheduler = cpu.scheduler.lock();
        let now = clock::now_ns();
        scheduler.expire(now);
        // SAFETY: The lock of the CPU is held whose threads these are, and each is looked at by itself.
        let inner_of = |thread: &'static Thread| unsafe { &mut *thread.inner.get() };
        let inner = inner_of(thread);
        inner.locking |= locking;
        if scheduler.queue.has_ready() {
            inner.state = State::Ready;
            inner.yielded = true;
            if inner.prompt {
                // Not behind the next one only: two prompt threads that wait for a lock would take turns for ever before the holder's.
                let is_usual = |other: Queued| !inner_of(other.thread()).prompt;
                scheduler.queue.push_behind_first(thread.into(), is_usual);
            } else {
                scheduler.queue.push(thread.into());
            }
            scheduler.take_next(cpu, now)
        } else {
            None
        }
    };
    if let Some(next) = next {
        switch(thread, next);
    }
    if were_enabled {
        processor::enable();
    }
}

/// See [`super::own_run_ns`].
pub(super) fn own_run_ns() -> u64 {
    let were_enabled = processor::are_enabled();
    processor::disable();
    let cpu = cpu::current();
    let thread = running(cpu);
    let run_ns = {
        let scheduler = cpu.scheduler.lock();
        // SAFETY: The lock of the thread's CPU is held.
        let before = unsafe { (*thread.inner.get()).run_ns };
        before + scheduler.unaccounted_ns(clock::now_ns())
    };
    if were_enabled {
        processor::enable();
    }
    run_ns
}

/// See [`super::exit`].
pub(super) fn exit() -> ! {
    processor::disable();
    let cpu = cpu::current();
    let thread = running(cpu);
    let (reaper, idle) = {
        let mut scheduler = cpu.scheduler.lock();
        // SAFETY: The lock of the thread's CPU is held.
        let inner = unsafe { &mut *thread.inner.get() };
        inner.id = None;
        inner.state = State::Parked;
        scheduler.ended.push(thread.into());
        scheduler.threads -= 1;
        (scheduler.reaper, scheduler.idle)
    };
    if let Some(reaper) = reaper {
        unpark(reaper);
    }
    // The reaper is on this CPU, so it runs only after this thread's stack has been left.
    let next = cpu.scheduler.lock().take_next(cpu, clock::now_ns()).or(idle);
    match next {
        Some(next) => enter(next),
        None => super::fault::stop(format_args!("CPU {} has no idle thread", cpu.index())),
    }
}

/// The end of every interrupt: wakes whose time has come, switches to another thread if the slice is over,
/// and otherwise lets the return hook see the context before it resumes. `answered` is the broadcast that is
/// acknowledged by that; `fired` says that it was the timer's interrupt: that is set for nothing any more.
pub(in crate::machine) fn interrupt_exit(
    cpu: &'static Cpu,
    context: &mut InterruptContext,
    answered: Option<u64>,
    fired: bool,
) {
    let acknowledge = || {
        if let Some(number) = answered {
            cpu.listener.answer(number);
        }
    };
    let mut scheduler = cpu.scheduler.lock();
    if fired {
        scheduler.armed_ns = NEVER;
    }
    if scheduler.running.is_none() {
        return acknowledge();
    }
    let now = clock::now_ns();
    if let Some(watch) = scheduler.look(cpu, now, context.rip) {
        drop(scheduler);
        (watch.report)();
        scheduler = cpu.scheduler.lock();
    }
    let Some(current) = scheduler.running else {
        return acknowledge();
    };
    let is_idle = Some(current) == scheduler.idle;
    if is_idle && (scheduler.queue.has_ready() || scheduler.halt_has_expired(now)) {
        // The idle loop, which this returns to, does the rest.
        return acknowledge();
    }
    scheduler.expire(now);
    let thread = current.thread();
    if is_idle {
        scheduler.arm(now);
        return acknowledge();
    }
    if scheduler.queue.has_ready() && now >= scheduler.slice_end_ns {
        // SAFETY: The lock of the thread's CPU is held, and the thread doesn't run any more.
        let is_prompt = unsafe {
            thread.save_area.get().write(context.clone());
            let inner = &mut *thread.inner.get();
            inner.saved = Saved::Preempted;
            inner.state = State::Ready;
            inner.yielded = false;
            inner.prompt
        };
        if is_prompt && now < scheduler.slice_start_ns.saturating_add(PROMPT_SLICE_NS) {
            // For another prompt one; it isn't to wait for all the others too.
            scheduler.queue.push_second(current);
        } else {
            scheduler.queue.push(current);
        }
        if let Some(next) = scheduler.take_next(cpu, now) {
            drop(scheduler);
            acknowledge();
            enter(next);
        }
        return;
    }
    scheduler.arm(now);
    drop(scheduler);
    interrupts::run_return_hook(&thread.header, context);
    acknowledge();
}
