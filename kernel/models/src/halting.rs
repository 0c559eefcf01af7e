//! A CPU that is idle on the stack of the thread that waits, against its own interrupts and wakes by other CPUs: `park`, `begin_park` and
//! `idle::halt` of `machine/thread/scheduler`, `unpark` of `machine/thread`, with the kernel's own word, tokens and line.
//!
//! An interrupt is taken by the CPU itself, between two instructions at which it lets interrupts in; the last of these is the halt, which one that
//! came before ends at once. The run queue is whether the thread is in it. Who may still interrupt is known, so that a halt for ever is a failure.

use super::real::halted::HaltedThread;
use super::real::line::LineState;
use super::real::tokens::{Wake, WakeTokens};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

const THREAD: u64 = 7;
const PREEMPTIONS: usize = 3;

/// The right way, or another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Kernel,
    /// Interrupts are let in before the word says whose stack it is.
    SaysSoTooLate,
    /// A thread that an interrupt has woken goes on without a look whether somebody else has queued it.
    DoesNotLook,
    /// The end of a halt by an interrupt is not looked for.
    Forgets,
}

/// What the scheduler's lock protects.
struct Scheduler {
    tokens: WakeTokens,
    parked: bool,
    halted: bool,
    queued: bool,
}

/// Interrupts on their way to the CPU.
struct Pending {
    device: bool,
    /// Of another CPU that has queued something.
    reschedule: bool,
    /// Those that may still interrupt.
    sources: usize,
}

struct Machine {
    variant: Variant,
    scheduler: Mutex<Scheduler>,
    word: HaltedThread,
    line: LineState,
    pending: Mutex<Pending>,
    came: Condvar,
    /// What the device and the other CPU have for the thread.
    work: [AtomicBool; 2],
}

impl Machine {
    fn new(variant: Variant) -> Machine {
        Machine {
            variant,
            scheduler: Mutex::new(Scheduler {
                tokens: WakeTokens::new(),
                parked: false,
                halted: false,
                queued: false,
            }),
            word: HaltedThread::default(),
            line: LineState::default(),
            pending: Mutex::new(Pending {
                device: false,
                reschedule: false,
                sources: 2,
            }),
            came: Condvar::new(),
            work: [AtomicBool::new(false), AtomicBool::new(false)],
        }
    }

    /// Raises interrupts, and ends a source of them.
    fn interrupt(&self, raise: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock().expect("the interrupts");
        raise(&mut pending);
        pending.sources -= 1;
        self.came.notify_one();
    }

    /// `unpark` as far as it takes the lock; whether the CPU has to be interrupted if it is another one's.
    fn unpark_locked(&self) -> bool {
        let mut scheduler = self.scheduler.lock().expect("the lock");
        let parked = scheduler.parked;
        let runs = scheduler.tokens.send(parked, Wake::Woken);
        if runs {
            scheduler.parked = false;
            scheduler.halted = false;
            scheduler.queued = true;
        }
        runs
    }

    /// Takes the interrupts that came.
    fn take_interrupts(&self) {
        let mut pending = self.pending.lock().expect("the interrupts");
        let device = core::mem::take(&mut pending.device);
        pending.reschedule = false;
        drop(pending);
        // `Line::raise` and `unpark`
        if device && self.line.raise() == Some(THREAD) && !self.word.wake(THREAD) {
            self.unpark_locked();
        }
    }

    fn halt(&self) {
        let mut pending = self.pending.lock().expect("the interrupts");
        while !pending.device && !pending.reschedule {
            if pending.sources == 0 {
                drop(pending);
                panic!("halted for ever");
            }
            pending = self.came.wait(pending).expect("the interrupts");
        }
        drop(pending);
        self.take_interrupts();
    }

    fn park(&self) -> Wake {
        self.take_interrupts();
        let mut scheduler = self.scheduler.lock().expect("the lock");
        if let Some(wake) = scheduler.tokens.take() {
            return wake;
        }
        scheduler.parked = true;
        scheduler.halted = true;
        if self.variant != Variant::SaysSoTooLate {
            self.word.begin(THREAD);
        }
        drop(scheduler);
        if self.variant == Variant::SaysSoTooLate {
            self.take_interrupts();
            self.word.begin(THREAD);
        }
        loop {
            self.halt();
            let mut scheduler = self.scheduler.lock().expect("the lock");
            if self.word.is_woken() && self.variant != Variant::Forgets {
                self.word.end();
                let halted = scheduler.halted || self.variant == Variant::DoesNotLook;
                scheduler.tokens.send(halted, Wake::Woken);
                if halted {
                    scheduler.halted = false;
                    scheduler.parked = false;
                    assert!(!scheduler.queued, "a thread runs and is queued");
                    return scheduler.tokens.wake();
                }
            }
            if core::mem::take(&mut scheduler.queued) {
                self.word.end();
                return scheduler.tokens.wake();
            }
        }
    }
}

fn model(variant: Variant) {
    let machine = Arc::new(Machine::new(variant));
    let device = {
        let machine = machine.clone();
        thread::spawn(move || {
            machine.work[0].store(true, Ordering::Release);
            machine.interrupt(|pending| pending.device = true);
        })
    };
    let other = {
        let machine = machine.clone();
        thread::spawn(move || {
            machine.work[1].store(true, Ordering::Release);
            let interrupts = machine.unpark_locked();
            machine.interrupt(|pending| pending.reschedule |= interrupts);
        })
    };
    // A driver's thread, which then waits as any other.
    while !machine.work[0].load(Ordering::Acquire) {
        machine.line.wait(THREAD, Wake::Woken, || machine.park());
    }
    while !machine.work[1].load(Ordering::Acquire) {
        machine.park();
    }
    device.join().expect("the device");
    other.join().expect("the other CPU");
}

#[test]
fn a_thread_on_whose_stack_the_cpu_halts_is_woken_once_by_each() {
    super::check(PREEMPTIONS, || model(Variant::Kernel));
}

#[test]
#[should_panic(expected = "halted for ever")]
fn a_word_that_is_written_with_interrupts_on_is_found() {
    super::check(PREEMPTIONS, || model(Variant::SaysSoTooLate));
}

#[test]
#[should_panic(expected = "runs and is queued")]
fn a_wake_that_does_not_look_for_others_is_found() {
    super::check(PREEMPTIONS, || model(Variant::DoesNotLook));
}

#[test]
#[should_panic(expected = "halted for ever")]
fn a_wake_that_is_not_looked_for_is_found() {
    super::check(PREEMPTIONS, || model(Variant::Forgets));
}
