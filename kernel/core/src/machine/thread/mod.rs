//! Threads: spawned onto a CPU, where they stay; preempted after a time slice; parked, woken, cancelled, put
//! to sleep.
//!
//! A thread is known by its number, which is never used again, so a late `unpark` or `cancel` reaches nobody
//! else. Blocking is `park_until` and nothing else: a wake that comes before the thread parks is kept (one
//! token, not a count), and a thread may be woken without reason, so callers check their condition in a loop.

mod inspect;
pub mod scheduler;
pub mod watch;

use super::cpu::{self, Cpu};
use super::fault;
use super::interrupts::InterruptContext;
use super::memory::{MapError, Stack};
use super::sync::InterruptLock;
use crate::memory::PAGE_SIZE;
use crate::sched::tokens::WakeTokens;
use crate::time::NEVER;
use abi::ThreadHeader;
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

pub use crate::sched::tokens::Wake;
pub(super) use inspect::running_for_report;
pub use inspect::{ThreadInformation, busy_ns, for_each, list, name_and_stack, with_stopped};

/// Most threads at a time, idle and reaper threads included.
pub const MAX_THREADS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 12;

/// Stack of a thread that doesn't ask for another size, in bytes.
pub const DEFAULT_STACK_BYTES: usize = 64 * 1024;

/// Longest thread name that is kept, in bytes.
const NAME_BYTES: usize = 32;

/// A thread's number: which slot of the table, and how often it has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadId(u64);

impl ThreadId {
    fn new(slot: usize, use_count: u64) -> Self {
        Self(use_count << SLOT_BITS | slot as u64)
    }

    /// The number as it is in `abi::ThreadHeader::id`; never 0.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The thread with this number, whether it lives or not.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    fn slot(self) -> usize {
        self.0 as usize & (MAX_THREADS - 1)
    }
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a CPU.
    Running,
    /// It waits for its turn.
    Ready,
    /// It waits for `unpark`, `cancel` or its deadline.
    Parked,
}

/// Where a thread's registers are while it doesn't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    /// Callee-saved registers on its own stack.
    OnStack,
    /// Everything, in its save area: it was preempted.
    Preempted,
}

/// What only the thread's CPU changes, under its scheduler's lock.
struct Inner {
    id: Option<ThreadId>,
    state: State,
    /// It is ready because it gave up the CPU itself.
    yielded: bool,
    /// It gave up the CPU for the holder of a lock since the watch looked at it last.
    locking: bool,
    saved: Saved,
    tokens: WakeTokens,
    idle: bool,
    /// It runs as soon as it is woken: see [`Builder::prompt`].
    prompt: bool,
    name: [u8; NAME_BYTES],
    name_length: usize,
    stack: Option<Stack>,
    entry: Entry,
    argument: usize,
    run_ns: u64,
}

/// What a thread runs: a function and one word for it. The thread ends when it returns.
pub type Entry = extern "C" fn(usize);

extern "C" fn no_entry(_: usize) {}

/// A thread. These blocks are used again for later threads and never freed, so a pointer to one is always
/// good to look at; whether it still is the thread that was meant is seen from its number.
#[repr(C)]
pub(in crate::machine) struct Thread {
    /// First, since `abi` finds the header at the address of the thread.
    header: ThreadHeader,
    cpu: AtomicU32,
    inner: UnsafeCell<Inner>,
    /// Where the registers are that were saved on the stack; written by the switch.
    stack_pointer: UnsafeCell<usize>,
    save_area: UnsafeCell<InterruptContext>,
}

// SAFETY: `inner` and `save_area` are reached only by holders of the lock of the scheduler of the thread's
// CPU, or by the thread itself with interrupts off on that CPU; everything else is atomic.
unsafe impl Sync for Thread {}
// SAFETY: As above.
unsafe impl Send for Thread {}

static TABLE: [AtomicPtr<Thread>; MAX_THREADS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_THREADS];

struct FreeSlots {
    /// Slots that have been used and are free again.
    free: alloc::vec::Vec<usize>,
    /// Slots from here on have never been used.
    next: usize,
    /// How many threads have been made.
    made: u64,
    /// Where the next thread without a wish goes.
    next_cpu: u32,
}

static SLOTS: InterruptLock<FreeSlots> = InterruptLock::new(FreeSlots {
    free: alloc::vec::Vec::new(),
    next: 0,
    made: 0,
    next_cpu: 0,
});

/// Why a thread couldn't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// There are [`MAX_THREADS`] already.
    TooMany,
    /// There is no CPU of that number.
    NoSuchCpu(u32),
    /// No memory for its stack.
    Memory(MapError),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are {MAX_THREADS} threads already"),
            Self::NoSuchCpu(cpu) => write!(f, "there is no CPU {cpu}"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

/// What is done with a new thread before it can run.
type Prepare = dyn Fn(&ThreadHeader, &Stack);

/// How a thread is to be.
pub struct Builder<'a> {
    name: &'a str,
    cpu: Option<u32>,
    stack_bytes: usize,
    prompt: bool,
    prepare: Option<&'a Prepare>,
}

impl<'a> Builder<'a> {
    /// A thread with the default stack, on whichever CPU comes next.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            cpu: None,
            stack_bytes: DEFAULT_STACK_BYTES,
            prompt: false,
            prepare: None,
        }
    }

    /// Pins it to a CPU.
    pub fn cpu(mut self, cpu: u32) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Gives it a stack of this many bytes (rounded up to pages), with a guard page below.
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Lets it run as soon as it is made or woken, before the thread that has the CPU ends its slice. For threads that others wait for and that
    /// seldom run: once it runs it takes turns like any other, longer ones.
    pub fn prompt(mut self, prompt: bool) -> Self {
        self.prompt = prompt;
        self
    }

    /// Calls `prepare` with the new thread's header and stack before it can run.
    pub fn prepare(mut self, prepare: &'a Prepare) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Makes the thread and lets it run.
    pub fn spawn(self, entry: Entry, argument: usize) -> Result<ThreadId, SpawnError> {
        let cpu = match self.cpu {
            Some(cpu) => cpu,
            None => {
                let mut slots = SLOTS.lock();
                slots.next_cpu = slots.next_cpu.wrapping_add(1);
                slots.next_cpu % cpu::count()
            }
        };
        let target = cpu::get(cpu).ok_or(SpawnError::NoSuchCpu(cpu))?;
        let stack =
            Stack::allocate(self.stack_bytes.div_ceil(PAGE_SIZE).max(1)).map_err(SpawnError::Memory)?;
        let (thread, id) =
            make(self.name, target, Some(stack), entry, argument, self.prompt).ok_or(SpawnError::TooMany)?;
        if let Some(prepare) = self.prepare {
            // SAFETY: The thread isn't in any queue yet, so only this function uses it.
            let inner = unsafe { &*thread.inner.get() };
            if let Some(stack) = &inner.stack {
                prepare(&thread.header, stack);
            }
        }
        scheduler::make_ready(target, thread);
        Ok(id)
    }
}

/// Runs a closure as a thread.
pub fn spawn(builder: Builder<'_>, f: impl FnOnce() + Send + 'static) -> Result<ThreadId, SpawnError> {
    type Boxed = Box<dyn FnOnce() + Send>;
    extern "C" fn run(argument: usize) {
        // SAFETY: `spawn` made this word out of a box, for this call alone.
        let f = unsafe { Box::from_raw(argument as *mut Boxed) };
        f();
    }
    let boxed: Box<Boxed> = Box::new(Box::new(f));
    let argument = Box::into_raw(boxed);
    builder.spawn(run, argument.addr()).inspect_err(|_| {
        // SAFETY: No thread was made, so the box is still this function's.
        drop(unsafe { Box::from_raw(argument) });
    })
}

/// Takes a slot and fills it. The thread is in no queue.
fn make(
    name: &str,
    cpu: &'static Cpu,
    stack: Option<Stack>,
    entry: Entry,
    argument: usize,
    prompt: bool,
) -> Option<(&'static Thread, ThreadId)> {
    let mut slots = SLOTS.lock();
    let slot = match slots.free.pop() {
        Some(slot) => slot,
        None if slots.next < MAX_THREADS => {
            slots.next += 1;
            let used = slots.next;
            slots.free.reserve(used);
            slots.next - 1
        }
        None => return None,
    };
    slots.made += 1;
    let id = ThreadId::new(slot, slots.made);
    drop(slots);
    let mut inner = Inner {
        id: Some(id),
        state: State::Ready,
        yielded: false,
        locking: false,
        saved: Saved::OnStack,
        tokens: WakeTokens::new(),
        idle: stack.is_none(),
        prompt,
        name: [0; NAME_BYTES],
        name_length: name.len().min(NAME_BYTES),
        stack,
        entry,
        argument,
        run_ns: 0,
    };
    inner.name[..inner.name_length].copy_from_slice(&name.as_bytes()[..inner.name_length]);
    let stack_pointer = inner.stack.as_ref().map_or(0, scheduler::first_frame);
    let header = ThreadHeader::new(id.number(), cpu.index());
    let existing = TABLE[slot].load(Ordering::Acquire);
    // SAFETY: Blocks in the table are never freed.
    let thread = match unsafe { existing.as_ref() } {
        Some(thread) => {
            // Under the lock of its new CPU, so that nobody who looks at the old thread sees half of the new
            // one.
            let guard = scheduler::lock_of(thread);
            // SAFETY: The slot was free: the old thread has ended and is in no queue; the lock keeps late
            // callers of `unpark` out. The header is read by the thread itself only, through the words of
            // `abi`, so nobody reads it now.
            unsafe {
                *thread.inner.get() = inner;
                *thread.stack_pointer.get() = stack_pointer;
                core::ptr::from_ref(&thread.header).cast_mut().write(header);
            }
            thread.cpu.store(cpu.index(), Ordering::Release);
            drop(guard);
            thread
        }
        None => {
            let thread = Box::leak(Box::new(Thread {
                header,
                cpu: AtomicU32::new(cpu.index()),
                inner: UnsafeCell::new(inner),
                stack_pointer: UnsafeCell::new(stack_pointer),
                save_area: UnsafeCell::new(InterruptContext::EMPTY),
            }));
            TABLE[slot].store(thread, Ordering::Release);
            thread
        }
    };
    cpu.scheduler.lock().add_thread();
    Some((thread, id))
}

/// Runs `f` with the thread of this number, under its scheduler's lock; `None` if it has ended.
fn with_thread<R>(
    id: ThreadId,
    f: impl FnOnce(&'static Cpu, &mut scheduler::Scheduler, &'static Thread, &mut Inner) -> R,
) -> Option<R> {
    let thread = TABLE.get(id.slot())?.load(Ordering::Acquire);
    // SAFETY: Blocks in the table are never freed.
    let thread: &'static Thread = unsafe { thread.as_ref() }?;
    loop {
        let index = thread.cpu.load(Ordering::Acquire);
        let cpu = cpu::get(index)?;
        let mut scheduler = cpu.scheduler.lock();
        if thread.cpu.load(Ordering::Acquire) != index {
            // The slot went to a thread on another CPU in between.
            continue;
        }
        // SAFETY: The lock of the thread's CPU is held.
        let inner = unsafe { &mut *thread.inner.get() };
        return (inner.id == Some(id)).then(|| f(cpu, &mut scheduler, thread, inner));
    }
}

/// The running thread's number.
pub fn current_id() -> ThreadId {
    ThreadId(abi::current().id.load(Ordering::Relaxed))
}

/// Waits until the thread is woken ([`unpark`]), cancelled ([`cancel`]), or the deadline passes ([`NEVER`]
/// for none). A wake or cancellation that came since the last time is taken at once, a cancellation first.
///
/// Call it with interrupts on and no lock held.
pub fn park_until(deadline_ns: u64) -> Wake {
    scheduler::park(deadline_ns)
}

/// Waits until [`unpark`] or [`cancel`].
pub fn park() -> Wake {
    park_until(NEVER)
}

/// Sleeps until the time has come, or the thread is cancelled. Wakes in between are used up.
pub fn sleep_until(deadline_ns: u64) -> Wake {
    loop {
        match park_until(deadline_ns) {
            Wake::Woken => {}
            other => return other,
        }
    }
}

/// Lets the other runnable threads of this CPU run first; a prompt one ([`Builder::prompt`]) only those up to the first that isn't prompt.
pub fn yield_now() {
    scheduler::yield_now(false);
}

/// The same for a thread that waits for a lock, which one of them may hold.
pub fn yield_to_holder() {
    scheduler::yield_now(true);
}

/// Wakes a thread, or makes its next [`park_until`] return at once; false if it has ended. From anywhere,
/// interrupt handlers included.
pub fn unpark(id: ThreadId) -> bool {
    if cpu::current().halted.wake(id.number()) {
        return true;
    }
    let wake = |cpu, scheduler: &mut scheduler::Scheduler, thread, inner: &mut Inner| {
        let parked = inner.state == State::Parked;
        let runs = inner.tokens.send(parked, Wake::Woken);
        runs.then(|| scheduler.wake(cpu, thread, inner)).flatten()
    };
    notify(with_thread(id, wake))
}

/// Makes a thread's [`park_until`], the running or the next one, return [`Wake::Cancelled`]; false if it has
/// ended.
pub fn cancel(id: ThreadId) -> bool {
    let wake = |cpu, scheduler: &mut scheduler::Scheduler, thread, inner: &mut Inner| {
        let parked = inner.state == State::Parked;
        let runs = inner.tokens.send(parked, Wake::Cancelled);
        runs.then(|| scheduler.wake(cpu, thread, inner)).flatten()
    };
    notify(with_thread(id, wake))
}

/// Lets a thread that waits for its turn have it next: on another CPU at once, on this one when the caller waits. For threads that somebody is held up by.
pub fn hurry(id: ThreadId) {
    let hurry = |cpu, scheduler: &mut scheduler::Scheduler, thread, inner: &mut Inner| {
        (inner.state == State::Ready)
            .then(|| scheduler.hurry(cpu, thread))
            .flatten()
    };
    notify(with_thread(id, hurry));
}

/// Takes back a cancellation that the thread hasn't noticed yet.
pub fn clear_cancellation(id: ThreadId) {
    with_thread(id, |_, _, _, inner| inner.tokens.clear_cancellation());
}

fn notify(found: Option<Option<&'static Cpu>>) -> bool {
    if let Some(Some(cpu)) = found {
        scheduler::interrupt_for_work(cpu);
    }
    found.is_some()
}

/// Ends the running thread. Its stack is given back; what it owned otherwise isn't.
pub fn exit() -> ! {
    scheduler::exit()
}

/// CPU time that the running thread has had, with the slice that is running, in nanoseconds.
pub fn own_run_ns() -> u64 {
    scheduler::own_run_ns()
}

/// Makes the idle thread of the boot CPU, out of the code that is running, and its reaper.
pub(super) fn start_first_cpu() {
    start_other_cpu(cpu::current());
}

/// Makes the idle thread of this CPU, out of the code that is running, and its reaper.
pub(super) fn start_other_cpu(cpu: &'static Cpu) {
    let Some((idle, _)) = make("idle", cpu, None, no_entry, 0, false) else {
        fault::stop(format_args!("no thread slot for an idle thread"))
    };
    scheduler::start(cpu, idle);
    let stack = match Stack::allocate(scheduler::REAPER_STACK_PAGES) {
        Ok(stack) => stack,
        Err(error) => fault::stop(format_args!("no stack for a reaper: {error}")),
    };
    match make("reaper", cpu, Some(stack), scheduler::reap, 0, false) {
        Some((thread, id)) => scheduler::set_reaper(cpu, thread, id),
        None => fault::stop(format_args!("no thread slot for a reaper")),
    }
}

/// Runs other threads when there are any, and stops the processor when there are none.
pub(super) fn become_idle() -> ! {
    scheduler::idle_loop()
}
