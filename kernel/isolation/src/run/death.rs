//! The death of a domain (docs/soundness.md, invariants 5 to 7).
//!
//! [`kill`] is the one place where every kind of death enters: a panic, an order, a CPU exception. It marks the incarnation dead, then asks
//! every thread to look at its chain at the next safe moment: a thread in domain code is stopped by an interrupt at whatever
//! instruction it is at, one in trusted code goes on to the end of it, one that waits is called off. A thread whose running domain
//! is dead is unwound to the continuation of whoever called that domain; one that is deeper in another domain returns from there first.
//!
//! [`reap`] waits until no thread has the incarnation on its chain, and gives back what it held. Devices stop first.

use super::black_box;
use super::domain::{Cause, Domain, Reaped, State, domain_name, domain_of};
use super::fault;
use super::memory;
use super::thread::{Change, WaitTicket, is_dead, is_on_chain, wake_waiters};
use crate::black_box::EventKind;
use crate::requests::{self, Requests};
use abi::sys::wake;
use abi::{OwnerId, ThreadHeader, current};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use kernel::machine::interrupts::{self, InterruptContext};
use kernel::machine::paging as memory_map;
use kernel::machine::sync::InterruptLock;
use kernel::machine::thread::{self as machine, ThreadId};
use kernel::machine::{clock, smp};
use rref::Text;
use rref::crossing::resume;

/// Deaths that are kept.
const KEPT: usize = 1024;

/// A death, as it is kept.
#[derive(Clone, Debug)]
pub struct Death {
    /// Counts deaths from 1.
    pub number: u64,
    /// Index of the domain in the manifest.
    pub domain: u16,
    /// The incarnation.
    pub generation: u64,
    /// Why.
    pub cause: Cause,
    /// Message and place.
    pub detail: String,
    /// When, nanoseconds since boot.
    pub at_ns: u64,
    /// When the next incarnation was running; 0 while none is.
    pub recovered_ns: u64,
}

struct Deaths {
    count: u64,
    kept: VecDeque<Death>,
}

static DEATHS: InterruptLock<Deaths> = InterruptLock::new(Deaths {
    count: 0,
    kept: VecDeque::new(),
});

/// Makes interrupts look for deaths. Called once, before any domain runs.
pub fn initialise() {
    interrupts::set_return_hook(on_interrupt_return);
    interrupts::set_exception_handler(fault::exception_in_domain);
}

/// Kills `incarnation`; false if it was dead already.
pub fn kill(incarnation: OwnerId, cause: Cause, detail: &str) -> bool {
    let Some(domain) = domain_of(incarnation) else {
        return false;
    };
    let was_starting = {
        let mut life = domain.life.lock();
        let dead = domain
            .header
            .live
            .compare_exchange(incarnation.0, 0, Ordering::SeqCst, Ordering::SeqCst);
        if dead.is_err() {
            return false;
        }
        // Before anybody can begin to reap: a thread without a request counts as one that has looked (`wait_until_left`).
        request_checks();
        domain.cost.died_ns.store(clock::now_ns(), Ordering::Relaxed);
        core::mem::replace(&mut life.state, State::Dying) == State::Starting
    };
    record(domain, incarnation, cause, detail);
    // The supervisor waits for the death: it can stop the devices while the rest of this goes on. `reap` looks after the threads itself.
    wake_waiters(Change::Death);
    if was_starting {
        wake_waiters(Change::Start);
    }
    // From here on no thread enters the domain: it would see the mark, or be seen (`rref::crossing`). The broadcast is the fence for
    // threads that run on other CPUs; its return goes through the hook, which looks at their chains.
    smp::broadcast_and_wait();
    let mut inside = Inside::new();
    inside.look(incarnation);
    inside.send_out();
    black_box::tell_dependents(incarnation, format_args!("{cause:?}: {detail}"));
    // Last: whoever restarts it needn't wait for the serial port.
    log::error!(
        "domain {} generation {} died: {cause:?}: {detail}",
        domain.manifest.name,
        incarnation.generation()
    );
    true
}

/// How often it is looked whether an image has been loaded that is to be killed.
const LOADING_PAUSE_NS: u64 = 100_000;

/// Kills the incarnation of `domain` that lives, or is being loaded; false if there is none.
pub fn kill_by_order(domain: &Domain, cause: Cause) -> bool {
    loop {
        if let Some(incarnation) = domain.header.live()
            && kill(incarnation, cause, "by order")
        {
            return true;
        }
        // Loading is the kernel's work, which ends: with a life, or with another state.
        if domain.life.lock().state != State::Starting || is_cancelled() {
            return false;
        }
        machine::sleep_until(clock::now_ns() + LOADING_PAUSE_NS);
    }
}

fn record(domain: &Domain, incarnation: OwnerId, cause: Cause, detail: &str) {
    black_box::trace(incarnation, EventKind::Died, format_args!("{cause:?}: {detail}"));
    let mut deaths = DEATHS.lock();
    deaths.count += 1;
    let number = deaths.count;
    if deaths.kept.len() == KEPT {
        deaths.kept.pop_front();
    }
    deaths.kept.push_back(Death {
        number,
        domain: incarnation.slot() - 1,
        generation: incarnation.generation(),
        cause,
        detail: detail.into(),
        at_ns: clock::now_ns(),
        recovered_ns: 0,
    });
    drop(deaths);
    black_box::open(number, incarnation, domain);
}

/// Notes that a domain runs again.
pub fn recovered(domain: u16) {
    let now = clock::now_ns();
    let mut deaths = DEATHS.lock();
    if let Some(death) = deaths.kept.iter_mut().rev().find(|death| death.domain == domain)
        && death.recovered_ns == 0
    {
        death.recovered_ns = now;
    }
}

/// The death of this number, if it is kept.
pub fn death(number: u64) -> Option<Death> {
    let deaths = DEATHS.lock();
    deaths.kept.iter().find(|death| death.number == number).cloned()
}

/// Waits for a death with a number above `after`, until `deadline_ns`.
pub fn wait_death(after: u64, deadline_ns: u64) -> Option<Death> {
    loop {
        let ticket = WaitTicket::new(Change::Death);
        let found = DEATHS
            .lock()
            .kept
            .iter()
            .find(|death| death.number > after)
            .cloned();
        if found.is_some() || clock::now_ns() >= deadline_ns || ticket.wait(deadline_ns) == wake::CANCELLED {
            return found;
        }
    }
}

/// Asks every thread to look at its chain.
fn request_checks() {
    static REQUESTS: Requests = Requests::new(AtomicU32::new(0));
    let number = REQUESTS.next();
    machine::for_each(|_, header, _| header.pending.store(number, Ordering::SeqCst));
}

/// Whether a domain on the chain of `thread` is dead. Takes back the request to look if none is.
///
/// `thread` is the running one, or the one that was interrupted on this CPU.
pub fn chain_is_broken(thread: &ThreadHeader) -> bool {
    // SAFETY: The thread doesn't run on meanwhile: it is this code's own, or interrupted on this CPU.
    requests::look(&thread.pending, || unsafe { is_on_chain(thread, is_dead) })
}

/// Whether the running thread should give up what it waits for: a domain on its chain is dead.
pub fn is_cancelled() -> bool {
    chain_is_broken(current())
}

/// Unwinds the running thread if its running domain is dead. Called at the end of trusted code.
// Not inlined: its frame is where the thread's stack begins in the black box.
#[inline(never)]
pub extern "C" fn check_death() {
    let thread = current();
    if chain_is_broken(thread) && is_dead(thread.owner()) {
        unwind(thread)
    }
}

/// Unwinds the running thread out of `owner`, its running domain, which is dead by what this thread has done or by somebody else's hand.
pub fn leave(owner: OwnerId) -> ! {
    let thread = current();
    // Whoever killed it may not have come to the requests yet, so they aren't asked.
    if thread.owner() != owner || !is_dead(owner) {
        panic!("{} is to be left and lives", domain_name(owner));
    }
    unwind(thread)
}

#[inline(always)]
fn unwind(thread: &ThreadHeader) -> ! {
    black_box::unwound();
    reset_floating_point();
    let top = thread.top.load(Ordering::Relaxed);
    // SAFETY: `top` is the innermost continuation of this thread; it is not null, because only the kernel, which doesn't die,
    // runs without one. The frames that are abandoned are a dead domain's, and proxies' that hold nothing (`cross`).
    unsafe { resume(top) }
}

/// The modes of the floating-point units as the ABI wants them (System V, 3.2.1): the domain that is left may have changed them.
fn reset_floating_point() {
    let mode: u32 = 0x1f80;
    // SAFETY: The default modes are what all compiled code counts on; the x87 stack is empty between functions.
    unsafe {
        core::arch::asm!("fninit", "ldmxcsr [{mode}]", mode = in(reg) &raw const mode, options(nostack, readonly));
    }
}

/// On the way back from every interrupt, and before a preempted thread goes on: unwinds it if its running domain is dead.
fn on_interrupt_return(thread: &ThreadHeader, context: &mut InterruptContext) {
    // Looked at in trusted code too: `reap` counts on it.
    if !chain_is_broken(thread) {
        return;
    }
    if !memory_map::is_kernel_code(context.rip) && is_dead(thread.owner()) {
        redirect(thread, context);
    }
}

/// Makes an interrupted thread go on in `resume` of its innermost continuation.
fn redirect(thread: &ThreadHeader, context: &mut InterruptContext) {
    black_box::unwound_from(thread, context);
    let top = thread.top.load(Ordering::Relaxed);
    context.rip = resume as *const () as u64;
    context.rdi = top as u64;
    fault::make_sane(context);
}

/// Waits until every thread has left the dying incarnation of `domain` and gives back all that it held; what it has cost. `None` if it
/// isn't dying.
pub fn reap(domain: &'static Domain) -> Option<Reaped> {
    let before_ns = machine::own_run_ns();
    let (incarnation, holdings) = {
        let mut life = domain.life.lock();
        if life.state != State::Dying {
            return None;
        }
        life.state = State::Reaping;
        (
            OwnerId::new(domain.header.slot, life.generation),
            core::mem::take(&mut life.holdings),
        )
    };
    let super::domain::Holdings {
        devices,
        handles,
        exports,
        pages,
    } = holdings;
    // The supervisor may have seen the record of this death before `kill` has got to its own requests, and a thread without one would
    // count as having left.
    request_checks();
    wait_until_left(incarnation);
    // From here on no device of its touches memory. Not before: a thread could have started it again.
    devices.stop();
    drop(handles);
    drop(exports);
    // A death that comes meanwhile leaves something to this domain at most: that isn't charged, until it is counted afresh.
    domain.shared_charged.store(0, Ordering::Relaxed);
    domain.refusals.clear();
    // Before the rings go: they say what was sent.
    let (reclaimed, freed_bytes) = memory::reclaim(domain, incarnation, &devices);
    black_box::reclaimed(incarnation, reclaimed.owned as u64, freed_bytes);
    drop(devices);
    let private: usize = pages.iter().map(kernel::machine::memory::Frames::count).sum();
    drop(pages);
    domain.discharge(private as u64);
    let cost = &domain.cost;
    let reap_ns = machine::own_run_ns().saturating_sub(before_ns);
    let died_ns = cost.died_ns.load(Ordering::Relaxed);
    let reaped = Reaped {
        threads_ns: cost.threads_ns.load(Ordering::Relaxed),
        kernel_ns: cost.load_ns.load(Ordering::Relaxed) + reap_ns,
        lived_ns: died_ns.saturating_sub(cost.started_ns.load(Ordering::Relaxed)),
    };
    domain.life.lock().state = State::Dead;
    log::debug!(
        "domain {} generation {} reaped: {} shared objects, {} bytes of them left to its heir, {private} pages",
        domain.manifest.name,
        incarnation.generation(),
        reclaimed.owned,
        reclaimed.left_bytes,
    );
    Some(reaped)
}

/// Between two looks whether a domain has been left: at first, then doubled each time up to the longest.
const FIRST_PAUSE_NS: u64 = 20_000;
const LONGEST_PAUSE_NS: u64 = 1_000_000;
/// Pauses up to this one aren't slept: a CPU that halts takes longer to come back, and so does a thread that waits for a timer.
const LONGEST_SPIN_NS: u64 = 2 * FIRST_PAUSE_NS;

/// Waits until no thread has `incarnation` on its chain. It is dead, so a thread that has not, never will have.
fn wait_until_left(incarnation: OwnerId) {
    // This thread was asked, too. It answers now, so that nobody calls off its own waits below.
    chain_is_broken(current());
    let mut inside = Inside::new();
    // Those that wait begin to leave while the CPUs are asked.
    inside.look(incarnation);
    inside.send_out();
    // Threads on CPUs look at their own chains, and take back the request if nothing dead is on it. From here on what a thread does that hasn't seen the
    // mark is seen by `look`.
    smp::broadcast_and_wait();
    let mut pause_ns = FIRST_PAUSE_NS;
    loop {
        inside.look(incarnation);
        if !inside.any {
            return;
        }
        inside.send_out();
        let until_ns = clock::now_ns() + pause_ns;
        let is_short = pause_ns <= LONGEST_SPIN_NS;
        match (is_short, inside.any_here) {
            // To one of those: what is ready of them is next.
            (true, true) => machine::yield_now(),
            (true, false) => {
                while clock::now_ns() < until_ns {
                    core::hint::spin_loop();
                }
            }
            (false, _) => {
                machine::sleep_until(until_ns);
            }
        }
        if !is_short {
            // For those that trusted code had seen alive, and that have entered it since. Not each time: it waits for every CPU that isn't idle.
            smp::broadcast_and_wait();
        }
        pause_ns = (pause_ns * 2).min(LONGEST_PAUSE_NS);
    }
}

/// What helps a thread out of a dead incarnation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The end of a wait, which it is in or may be about to begin.
    EndOfWait,
    /// The same; it leaves at once then.
    EndOfWaitAndTurn,
    /// Its turn: it leaves with its next instruction.
    Turn,
    /// Nothing: it is deeper in another domain, and comes when that lets it.
    Time,
}

/// Threads that have a dead incarnation on their chain, or may have.
struct Inside {
    /// Whether there are any, and any of this CPU.
    any: bool,
    any_here: bool,
    /// Those of them that aren't known to be on their way out.
    threads: Vec<(ThreadId, Way)>,
}

impl Inside {
    fn new() -> Inside {
        Inside {
            any: false,
            any_here: false,
            // `for_each` runs with locks held and must not allocate.
            threads: Vec::with_capacity(machine::MAX_THREADS),
        }
    }

    /// Looks at all threads.
    fn look(&mut self, incarnation: OwnerId) {
        let me = current();
        let here = me.cpu.load(Ordering::Relaxed);
        (self.any, self.any_here) = (false, false);
        self.threads.clear();
        machine::for_each(|id, header, state| {
            // A thread that is in no domain (an idle CPU's, say) has nothing to look at, and sees the mark before it enters one.
            if header.pending.load(Ordering::SeqCst) == 0 || header.top.load(Ordering::SeqCst).is_null() {
                return;
            }
            // A thread on another CPU is not looked at: it counts as inside until it has looked itself.
            let stands_still = core::ptr::eq(header, me) || state != machine::State::Running;
            // SAFETY: It is the running thread, or one that isn't on a CPU and can't be put on one while `for_each` holds its
            // scheduler's lock.
            if stands_still && !unsafe { is_on_chain(header, |owner| owner == incarnation) } {
                return;
            }
            self.any = true;
            self.any_here |= header.cpu.load(Ordering::Relaxed) == here;
            // Whoever is in a live domain takes turns with its other threads, as long as that may be.
            let leaves_at_once = stands_still && header.owner() == incarnation;
            let way = match (state == machine::State::Ready, leaves_at_once) {
                (false, false) => Way::EndOfWait,
                (false, true) => Way::EndOfWaitAndTurn,
                (true, true) => Way::Turn,
                (true, false) => Way::Time,
            };
            if self.threads.len() < self.threads.capacity() {
                self.threads.push((id, way));
            }
        });
    }

    /// Makes the waits of those that were seen return, so that they look at their chains, and lets those run before others that leave at once. Nobody else
    /// is woken: what isn't concerned needn't run now.
    fn send_out(&mut self) {
        for (id, way) in self.threads.drain(..) {
            if matches!(way, Way::EndOfWait | Way::EndOfWaitAndTurn) {
                machine::cancel(id);
            }
            if matches!(way, Way::EndOfWaitAndTurn | Way::Turn) {
                machine::hurry(id);
            }
        }
    }
}

/// A domain's panic: its death, then out of it.
#[inline(never)]
pub fn panic_in_domain(message: &str, file: &str, line: u32) -> ! {
    let owner = current().owner();
    if owner == OwnerId::KERNEL {
        panic!("{message} ({file}:{line})");
    }
    black_box::note_panic();
    // What `alloc` panics with when the private heap, whose last request was refused, has nothing.
    let quota = memory::private_quota(owner).filter(|_| message.starts_with("memory allocation of "));
    match quota {
        Some(detail) => fault::end(Cause::MemoryQuota, detail.as_str()),
        None => {
            // On the stack: what was on the heap would never be dropped.
            let detail = Text::<320>::format(format_args!("{message} ({file}:{line})"));
            fault::end(Cause::Panic, detail.as_str())
        }
    }
}
