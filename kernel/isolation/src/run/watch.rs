//! Deadlines and heartbeats: domains that hang, found by the timer (docs/soundness.md, invariant 6).
//!
//! Nothing of this is in a crossing but two stores into its continuation. The kernel's watch looks at the threads of a CPU that run or are parked, every
//! 5 ms and every millisecond when a deadline comes near, and counts in each continuation of their chains what the look stands for (`sched::patience`). A thread
//! that waits for its turn isn't counted, nor is time in which the CPU wasn't there. A call that has had its time is handed to a kernel thread, since
//! nobody is killed in an interrupt.
//!
//! Which domain it is: the callee of the innermost crossing that took too long. Those around it get their time again, to answer to its
//! death. A domain that has no deadline and keeps a thread of a dead one gets [`GRACE_MS`].

use super::black_box;
use super::death;
use super::domain::{Cause, Domain, domain_name, domain_of};
use super::thread::is_dead;
use crate::black_box::EventKind;
use abi::thread::{LOOKS_KEPT, phase};
use abi::{Continuation, Deadline, Method, OwnerId, ThreadHeader};
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::machine::sync::InterruptLock;
use kernel::machine::thread::watch::{Found, Moment, Sight, Watch, set_watch};
use kernel::machine::thread::{self as machine, Builder, ThreadId};
use kernel::sched::patience::{allow_for, is_near, is_over, share};
use rref::Text;

/// How long a callee without a deadline may keep a thread that a dead domain is on the chain of, milliseconds.
const GRACE_MS: u32 = 100;
/// Verdicts that wait to be carried out, at most: one for each CPU and look is a lot. More are found again at the next.
const VERDICTS: usize = 32;
/// What `Look::place` is where the thread had no place. No code is at these addresses.
const PARKED: u64 = 0;
const YIELDED: u64 = 1;
const LOCKING: u64 = 2;
/// What `Continuation::seen` is when its callee has been handed over.
const HANDED_OVER: u32 = u32::MAX;
/// What it counts to at most: a call without a deadline may take weeks.
const SEEN_LIMIT: u32 = HANDED_OVER - 1;

/// A domain that is to die.
#[derive(Clone, Copy)]
struct Verdict {
    owner: OwnerId,
    why: Why,
    limit_ms: u32,
    thread: u64,
    /// The newest looks at the thread, the oldest first: when, and where it was.
    looks: [(u64, u64); LOOKS_KEPT],
}

#[derive(Clone, Copy)]
enum Why {
    Deadline(&'static Method),
    Grace,
    Start,
    Heartbeat,
}

static PENDING: InterruptLock<heapless::Vec<Verdict, VERDICTS>> = InterruptLock::new(heapless::Vec::new());
/// The thread that carries verdicts out.
static EXECUTOR: AtomicU64 = AtomicU64::new(0);

static WATCH: Watch = Watch { look, report };

/// Begins to watch. Called once, before any domain runs.
pub fn initialise() {
    // Prompt: a loop of the domain's mustn't keep its own death waiting.
    let executor = machine::spawn(Builder::new("watch").cpu(0).prompt(true), || {
        loop {
            while let Some(verdict) = take() {
                carry_out(&verdict);
            }
            machine::park();
        }
    });
    match executor {
        Ok(id) => EXECUTOR.store(id.number(), Ordering::Release),
        Err(error) => panic!("no thread for the watch: {error}"),
    }
    set_watch(&WATCH);
}

fn report() {
    machine::unpark(ThreadId::from_number(EXECUTOR.load(Ordering::Acquire)));
}

fn take() -> Option<Verdict> {
    let mut pending = PENDING.lock();
    (!pending.is_empty()).then(|| pending.remove(0))
}

fn carry_out(verdict: &Verdict) {
    let Verdict {
        owner,
        why,
        limit_ms,
        thread,
        ref looks,
    } = *verdict;
    let name = domain_name(owner);
    let (cause, detail) = match why {
        Why::Deadline(method) => (
            Cause::Deadline,
            Text::<200>::format(format_args!(
                "{}.{} of {name} took longer than {limit_ms} ms",
                method.interface, method.name
            )),
        ),
        Why::Grace => (
            Cause::Deadline,
            Text::format(format_args!(
                "{name} kept a thread of a dead domain for more than {limit_ms} ms"
            )),
        ),
        Why::Start => (
            Cause::StartTimeout,
            Text::format(format_args!("its start took longer than {limit_ms} ms")),
        ),
        Why::Heartbeat => (
            Cause::Heartbeat,
            Text::format(format_args!(
                "its code ran on thread {thread} for {limit_ms} ms without progress"
            )),
        ),
    };
    let last_ns = looks.iter().map(|&(at_ns, _)| at_ns).max().unwrap_or_default();
    for &(at_ns, place) in looks.iter().filter(|(at_ns, _)| *at_ns != 0) {
        let place = describe(place);
        let before_us = (last_ns - at_ns) / 1000;
        let (ms, tenths) = (before_us / 1000, before_us / 100 % 10);
        black_box::trace_at(
            at_ns,
            owner,
            EventKind::Watched,
            format_args!("{ms}.{tenths} ms before, {thread}: {place}"),
        );
    }
    death::kill(owner, cause, detail.as_str());
}

/// Where a look found a thread, in words.
fn describe(place: u64) -> Text<72> {
    match place {
        PARKED => Text::new("waiting in the kernel"),
        YIELDED => Text::new("giving up the CPU for others"),
        LOCKING => Text::new("waiting for a lock that another thread holds"),
        address => {
            let at = black_box::function_at(address);
            Text::format(format_args!(
                "{}: {} + {:#x}",
                at.domain,
                at.function.as_str(),
                at.offset
            ))
        }
    }
}

/// Keeps a look for whoever wants to know where the time went.
fn keep(thread: &ThreadHeader, found: Found, now_ns: u64) {
    let number = thread.looks.load(Ordering::Relaxed);
    thread.looks.store(number.wrapping_add(1), Ordering::Relaxed);
    if let Some(look) = thread.newest_looks.get(number as usize % LOOKS_KEPT) {
        let place = match found {
            Found::At(address) => address,
            Found::Yielded => YIELDED,
            Found::Locking => LOCKING,
            Found::Parked => PARKED,
        };
        look.at_ns.store(now_ns, Ordering::Relaxed);
        look.place.store(place, Ordering::Relaxed);
    }
}

/// The newest looks at a thread, the oldest first.
fn kept(thread: &ThreadHeader) -> [(u64, u64); LOOKS_KEPT] {
    let number = thread.looks.load(Ordering::Relaxed) as usize;
    let mut looks = [(0, 0); LOOKS_KEPT];
    let count = number.min(LOOKS_KEPT);
    for (age, place) in (1..=count).rev().zip(looks.iter_mut()) {
        if let Some(look) = thread.newest_looks.get((number - age) % LOOKS_KEPT) {
            *place = (
                look.at_ns.load(Ordering::Relaxed),
                look.place.load(Ordering::Relaxed),
            );
        }
    }
    looks
}

/// How long a call of `method` may take, milliseconds; `None` for as long as it likes.
fn deadline_ms(domain: &Domain, method: &Method) -> Option<u32> {
    let manifest = &domain.manifest;
    let own = manifest
        .deadlines
        .iter()
        .find(|own| own.method == method.name && own.interface == method.interface);
    let ms = match (own, method.deadline) {
        (Some(own), _) => own.ms,
        (None, Deadline::Ms(ms)) => ms,
        (None, Deadline::Never) => 0,
        (None, Deadline::Default) => manifest.deadline_ms,
    };
    (ms != 0).then_some(ms)
}

/// Whether a deadline bounds the stay in the callee, or it is the kernel.
fn is_bounded(record: &Continuation) -> bool {
    match (domain_of(record.callee), record.method()) {
        (Some(domain), Some(method)) => deadline_ms(domain, method).is_some(),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// The continuations of a thread, innermost first.
///
/// # Safety
/// The chain stands still as long as the result is used.
unsafe fn chain(thread: &ThreadHeader) -> impl Iterator<Item = &Continuation> {
    let mut next = thread.top.load(Ordering::Relaxed).cast_const();
    core::iter::from_fn(move || {
        // SAFETY: Null, or a record on the thread's chain, by the caller's promise.
        let record = unsafe { next.as_ref() }?;
        next = record.previous;
        Some(record)
    })
}

fn look(thread: &ThreadHeader, found: Found, moment: Moment) -> Sight {
    let mut sight = Sight::default();
    keep(thread, found, moment.now_ns);
    let share = share(moment.ms, found == Found::Locking);
    // SAFETY: The watch looks at threads that stand still.
    let records = || unsafe { chain(thread) };
    // The outermost continuation whose callee is dead: whoever is further in keeps a thread of it.
    let dead = records().filter(|record| is_dead(record.callee)).last();
    let orphaned = match dead {
        Some(_) => thread.orphaned.load(Ordering::Relaxed).saturating_add(share),
        None => 0,
    };
    thread.orphaned.store(orphaned, Ordering::Relaxed);
    sight.close = is_near(orphaned, GRACE_MS);
    if found == Found::Parked || records().next().is_some_and(is_bounded) {
        thread.stalled.store(0, Ordering::Relaxed);
    }
    let mut is_inside = dead.is_some();
    let mut has_expired = false;
    for (index, record) in records().enumerate() {
        if dead.is_some_and(|dead| core::ptr::eq(dead, record)) {
            is_inside = false;
        }
        let seen = record.seen.load(Ordering::Relaxed);
        if seen == HANDED_OVER || is_dead(record.callee) {
            sight.waits = true;
            continue;
        }
        let Some(domain) = domain_of(record.callee) else {
            // The kernel, which needs no deadline.
            continue;
        };
        if has_expired {
            record.seen.store(0, Ordering::Relaxed);
            continue;
        }
        let verdict = match record.method() {
            Some(method) => {
                let seen = seen.saturating_add(share).min(SEEN_LIMIT);
                record.seen.store(seen, Ordering::Relaxed);
                match deadline_ms(domain, method) {
                    Some(limit_ms) => {
                        sight.waits = true;
                        let seen = allow_for(seen, index);
                        sight.close |= is_near(seen, limit_ms);
                        is_over(seen, limit_ms).then_some((Why::Deadline(method), limit_ms))
                    }
                    None => {
                        sight.waits |= is_inside;
                        let stalled = match index {
                            0 => stalled_ms(thread, (found, share), domain, seen),
                            _ => None,
                        };
                        match stalled {
                            Some(limit_ms) => Some((Why::Heartbeat, limit_ms)),
                            None => {
                                (is_inside && is_over(orphaned, GRACE_MS)).then_some((Why::Grace, GRACE_MS))
                            }
                        }
                    }
                }
            }
            None => {
                let verdict = look_at_own(thread, (found, share), domain, record, index == 0);
                sight.waits |= thread.phase.load(Ordering::Relaxed) == phase::STARTING;
                verdict
            }
        };
        let Some((why, limit_ms)) = verdict else {
            continue;
        };
        let verdict = Verdict {
            owner: record.callee,
            why,
            limit_ms,
            thread: thread.id.load(Ordering::Relaxed),
            looks: kept(thread),
        };
        if PENDING.lock().push(verdict).is_ok() {
            record.seen.store(HANDED_OVER, Ordering::Relaxed);
            thread.orphaned.store(0, Ordering::Relaxed);
            sight.report = true;
            has_expired = true;
        }
    }
    sight
}

/// Looks at what the domain whose thread it is does with it: start in time, and make progress. `is_innermost` if it is in its own code.
fn look_at_own(
    thread: &ThreadHeader,
    (found, share): (Found, u32),
    domain: &Domain,
    record: &Continuation,
    is_innermost: bool,
) -> Option<(Why, u32)> {
    match thread.phase.load(Ordering::Relaxed) {
        phase::STARTING => {
            let seen = record.seen.load(Ordering::Relaxed);
            let seen = seen.saturating_add(share).min(SEEN_LIMIT);
            record.seen.store(seen, Ordering::Relaxed);
            let limit_ms = domain.manifest.start_ms;
            return (limit_ms != 0 && is_over(seen, limit_ms)).then_some((Why::Start, limit_ms));
        }
        0 => {}
        // It waits for a provider.
        _ => return None,
    }
    if !is_innermost {
        return None;
    }
    stalled_ms(thread, (found, share), domain, u32::MAX).map(|limit_ms| (Why::Heartbeat, limit_ms))
}

/// Counts a look for the heartbeat of the domain whose code a thread is in, where no deadline bounds its stay: the limit, if it has made no
/// progress for longer. `seen` is the count of its stay.
fn stalled_ms(
    thread: &ThreadHeader,
    (found, share): (Found, u32),
    domain: &Domain,
    seen: u32,
) -> Option<u32> {
    if found == Found::Parked {
        return None;
    }
    let stalled = thread.stalled.load(Ordering::Relaxed).saturating_add(share);
    thread.stalled.store(stalled, Ordering::Relaxed);
    let limit_ms = domain.manifest.heartbeat_ms;
    (limit_ms != 0 && is_over(stalled.min(seen), limit_ms)).then_some(limit_ms)
}
