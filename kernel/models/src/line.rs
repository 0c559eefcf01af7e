//! An interrupt against the driver's thread that waits for it (`isolation/src/line.rs`).
//!
//! A driver looks for work, and waits for the interrupt when there is none. Work that came is always found.

use super::parking::Thread;
use super::real::tokens::Wake;
use super::{real, weak, x86};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

const DRIVER: u64 = 7;
const PREEMPTIONS: usize = 3;

/// One end of an interrupt and the other.
trait Line: Default + Send + Sync + 'static {
    fn raise(&self) -> Option<u64>;
    fn wait(&self, driver: &Thread);
}

impl Line for real::line::LineState {
    fn raise(&self) -> Option<u64> {
        self.raise()
    }

    fn wait(&self, driver: &Thread) {
        self.wait(DRIVER, Wake::Woken, || driver.park());
    }
}

impl Line for weak::line::LineState {
    fn raise(&self) -> Option<u64> {
        self.raise()
    }

    fn wait(&self, driver: &Thread) {
        self.wait(DRIVER, Wake::Woken, || driver.park());
    }
}

/// A driver that looks whether the interrupt came before it says that it waits.
#[derive(Default)]
struct LooksTooEarly {
    fired: x86::AtomicBool,
    waiter: x86::AtomicU64,
}

impl Line for LooksTooEarly {
    fn raise(&self) -> Option<u64> {
        self.fired.store(true, Ordering::SeqCst);
        Some(self.waiter.load(Ordering::SeqCst)).filter(|&waiter| waiter != 0)
    }

    fn wait(&self, driver: &Thread) {
        let came = self.fired.swap(false, Ordering::SeqCst);
        self.waiter.store(DRIVER, Ordering::SeqCst);
        if !came {
            driver.park();
        }
        self.waiter.store(0, Ordering::SeqCst);
    }
}

/// A wait that forgets interrupts of before it.
#[derive(Default)]
struct Forgets(real::line::LineState);

impl Line for Forgets {
    fn raise(&self) -> Option<u64> {
        self.0.raise()
    }

    fn wait(&self, driver: &Thread) {
        self.0.wait(0, (), || ());
        Line::wait(&self.0, driver);
    }
}

fn model<L: Line>() {
    struct Shared<L> {
        line: L,
        driver: Thread,
        work: [AtomicBool; 2],
    }
    let shared = Arc::new(Shared {
        line: L::default(),
        driver: Thread::new(1),
        work: [AtomicBool::new(false), AtomicBool::new(false)],
    });
    let device = shared.clone();
    let interrupts = thread::spawn(move || {
        for work in &device.work {
            work.store(true, Ordering::Release);
            if device.line.raise() == Some(DRIVER) {
                device.driver.unpark();
            }
        }
        device.driver.waker_ends();
    });
    for work in &shared.work {
        while !work.load(Ordering::Acquire) {
            shared.line.wait(&shared.driver);
        }
    }
    interrupts.join().expect("the device");
}

#[test]
fn no_interrupt_is_lost() {
    super::check(PREEMPTIONS, model::<real::line::LineState>);
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_driver_that_looks_before_it_says_that_it_waits_is_found() {
    super::check(PREEMPTIONS, model::<LooksTooEarly>);
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_wait_that_forgets_is_found() {
    super::check(PREEMPTIONS, model::<Forgets>);
}

#[test]
#[should_panic(expected = "waits for ever")]
fn accesses_that_are_no_barriers_are_found() {
    super::check(PREEMPTIONS, model::<weak::line::LineState>);
}
