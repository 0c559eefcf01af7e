//! A machine for models: domains that are alive or not, one thread with its chain of continuations, the CPU that it runs on, and one
//! shared object.
//!
//! Stands for what is assembly, interrupts or the running kernel: `isolation/src/run/death.rs` and `kernel/core/src/machine/smp.rs`
//! (killing, reaping, broadcasts), the interrupt's return hook. On x86 each load is an acquire and each store a release, as long as the
//! compiler leaves them in order, for which the kernel has its compiler fences; that is how plain accesses are written here.

use super::real::membarrier::{Broadcasts, Listener};
use super::real::requests::{self, Requests};
use super::x86::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::cell::Cell;

/// What the kernel does, and what it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Kernel,
    /// A crossing looks whether the callee lives, and then pushes its record.
    LooksBeforePushing,
    /// A crossing gives its arguments away before it has looked whether the callee lives.
    GivesBeforeLooking,
    /// A death interrupts no CPU.
    NoBroadcast,
    /// Reaping waits for no thread.
    ReapsAtOnce,
    /// Reaping may begin before threads have been asked to look at their chains.
    DyingBeforeRequests,
    /// Shared objects go back before threads have left.
    ReclaimsBeforeLeaving,
}

/// An owner's name: a domain, or nobody.
pub type Owner = u64;
pub const NOBODY: Owner = 0;
/// The domain whose thread it is.
pub const CALLER: Owner = 1;
/// The domain that it calls.
pub const CALLEE: Owner = 2;

/// The thread left its dead domain's code and goes on where that domain was called.
pub struct Unwound;

pub struct Machine {
    variant: Variant,
    live: [AtomicBool; 2],
    dying: [Mutex<bool>; 2],
    died: Condvar,
    memory: [UnsafeCell<u32>; 2],
    /// How much of the thread's chain there is: the domain that runs is the one of this name.
    top: AtomicU64,
    pending: AtomicU32,
    requests: Requests,
    broadcasts: Broadcasts,
    listener: Listener,
    interrupts_sent: AtomicU64,
    /// Of the shared object.
    owner: AtomicU64,
}

fn index(domain: Owner) -> usize {
    (domain - 1) as usize
}

impl Machine {
    pub fn new(variant: Variant) -> Machine {
        Machine {
            variant,
            live: [AtomicBool::new(true), AtomicBool::new(true)],
            dying: [Mutex::new(false), Mutex::new(false)],
            died: Condvar::new(),
            memory: [UnsafeCell::new(0), UnsafeCell::new(0)],
            top: AtomicU64::new(0),
            pending: AtomicU32::new(0),
            requests: Requests::new(AtomicU32::new(0)),
            broadcasts: Broadcasts::new(AtomicU64::new(0)),
            listener: Listener::default(),
            interrupts_sent: AtomicU64::new(0),
            owner: AtomicU64::new(NOBODY),
        }
    }

    pub fn is_live(&self, domain: Owner) -> bool {
        self.live[index(domain)].load(Ordering::Acquire)
    }

    /// `broadcast_and_wait`.
    fn broadcast(&self) {
        if self.variant == Variant::NoBroadcast {
            return;
        }
        let number = self.broadcasts.begin();
        if !self.listener.is_idle() {
            self.interrupts_sent.fetch_add(1, Ordering::SeqCst);
        }
        while !self.listener.has_answered(number) && !self.listener.is_idle() {
            thread::yield_now();
        }
    }

    /// `kill`, without what concerns parked threads.
    pub fn kill(&self, domain: Owner) {
        self.mark_dead(domain);
        self.broadcast();
    }

    /// The first part of `kill`, up to its broadcast.
    pub fn mark_dead(&self, domain: Owner) {
        {
            let mut dying = self.dying[index(domain)].lock().expect("the lock");
            let killed =
                self.live[index(domain)].compare_exchange(true, false, Ordering::SeqCst, Ordering::SeqCst);
            assert_eq!(killed, Ok(true), "killed once");
            if self.variant != Variant::DyingBeforeRequests {
                self.request_checks();
            }
            *dying = true;
            self.died.notify_all();
        }
        if self.variant == Variant::DyingBeforeRequests {
            self.request_checks();
        }
    }

    fn request_checks(&self) {
        self.pending.store(self.requests.next(), Ordering::SeqCst);
    }

    /// `reap`: when the supervisor has heard of the death.
    pub fn reap(&self, domain: Owner) {
        let mut dying = self.dying[index(domain)].lock().expect("the lock");
        while !*dying {
            dying = self.died.wait(dying).expect("the lock");
        }
        drop(dying);
        if self.variant == Variant::ReclaimsBeforeLeaving {
            self.reclaim(domain);
        }
        if self.variant != Variant::ReapsAtOnce {
            self.wait_until_left();
        }
        self.memory[index(domain)].with_mut(|_| ());
        if self.variant != Variant::ReclaimsBeforeLeaving {
            self.reclaim(domain);
        }
    }

    /// `wait_until_left`. The thread runs on another CPU from its beginning to its end.
    fn wait_until_left(&self) {
        loop {
            self.broadcast();
            // Some looks come without another broadcast.
            for _ in 0..2 {
                let has_looked = self.pending.load(Ordering::SeqCst) == 0;
                if has_looked || self.top.load(Ordering::SeqCst) == 0 {
                    return;
                }
                thread::yield_now();
            }
        }
    }

    /// `SharedHeap::reclaim`.
    fn reclaim(&self, dead: Owner) {
        if self.owner.load(Ordering::Relaxed) == dead {
            self.free();
        }
    }

    /// `SharedHeap::allocate`.
    pub fn allocate(&self, owner: Owner) {
        self.owner.store(owner, Ordering::Release);
    }

    /// `SharedHeap::free`.
    pub fn free(&self) {
        let before = self.owner.swap(NOBODY, Ordering::Relaxed);
        assert_ne!(before, NOBODY, "the object is freed twice");
    }

    pub fn owner(&self) -> Owner {
        self.owner.load(Ordering::Relaxed)
    }
}

/// The thread, and the CPU that it runs on.
pub struct Thread<'a> {
    machine: &'a Machine,
    interrupts_taken: Cell<u64>,
}

impl<'a> Thread<'a> {
    pub fn new(machine: &'a Machine) -> Thread<'a> {
        Thread {
            machine,
            interrupts_taken: Cell::new(0),
        }
    }

    fn runs(&self) -> Owner {
        self.machine.top.load(Ordering::Relaxed)
    }

    /// `chain_is_broken`.
    fn chain_is_broken(&self) -> bool {
        requests::look(&self.machine.pending, || {
            (1..=self.runs()).any(|domain| !self.machine.is_live(domain))
        })
    }

    fn must_leave(&self) -> bool {
        self.chain_is_broken() && self.runs() != 0 && !self.machine.is_live(self.runs())
    }

    /// An interrupt, if one was sent: `broadcast_received`, `on_interrupt_return`, and the answer.
    fn interrupt(&self, in_domain: bool) -> Result<(), Unwound> {
        let sent = self.machine.interrupts_sent.load(Ordering::Acquire);
        if sent == self.interrupts_taken.replace(sent) {
            return Ok(());
        }
        let number = self.machine.broadcasts.newest();
        let leaves = self.must_leave() && in_domain;
        self.machine.listener.answer(number);
        if leaves { Err(Unwound) } else { Ok(()) }
    }

    /// Between two instructions of trusted code.
    pub fn trusted(&self) {
        // Never unwound here.
        self.interrupt(false).ok();
    }

    /// One step of the running domain's code.
    pub fn domain_code(&self) -> Result<(), Unwound> {
        self.interrupt(true)?;
        self.machine.memory[index(self.runs())].with(|_| ());
        self.interrupt(true)
    }

    /// The end of trusted code: `check_death`.
    pub fn end_of_trusted(&self) -> Result<(), Unwound> {
        if self.machine.pending.load(Ordering::Relaxed) != 0 && self.must_leave() {
            return Err(Unwound);
        }
        Ok(())
    }

    fn push(&self, domain: Owner) {
        self.machine.top.store(domain, Ordering::Release);
    }

    /// `end` of a crossing, without its look for deaths.
    pub fn pop(&self, domain: Owner) {
        self.machine.top.store(domain - 1, Ordering::Release);
    }

    /// The beginning of a crossing: whether the callee lives; `give` is what it gives to it.
    pub fn enter(&self, domain: Owner, give: impl Fn()) -> bool {
        let variant = self.machine.variant;
        let early = variant == Variant::LooksBeforePushing && self.machine.is_live(domain);
        self.trusted();
        self.push(domain);
        self.trusted();
        if variant == Variant::GivesBeforeLooking {
            give();
        }
        let live = early || self.machine.is_live(domain);
        self.trusted();
        if live && variant != Variant::GivesBeforeLooking {
            give();
        }
        live
    }

    /// The thread has ended, and its CPU has nothing else.
    pub fn ends(&self) {
        self.machine.listener.enter_idle();
    }
}
