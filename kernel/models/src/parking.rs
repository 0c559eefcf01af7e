//! Threads that wait, as the scheduler lets them (`begin_park`, `unpark` and `cancel` of `machine/thread`), with the kernel's own tokens.
//!
//! A run queue is left out: a woken thread runs at once. A deadline never comes. The model knows who may still wake the thread, so that
//! one which waits for ever is a failure and not a hang.

use super::real::tokens::{Wake, WakeTokens};
use loom::sync::{Condvar, Mutex};

struct Inner {
    tokens: WakeTokens,
    parked: bool,
    /// Those that have not yet done all that they do.
    wakers: usize,
}

/// A thread's block: what its scheduler's lock protects.
pub struct Thread {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Thread {
    /// A thread that `wakers` others may wake.
    pub fn new(wakers: usize) -> Thread {
        Thread {
            inner: Mutex::new(Inner {
                tokens: WakeTokens::new(),
                parked: false,
                wakers,
            }),
            changed: Condvar::new(),
        }
    }

    /// `park_until(NEVER)`.
    pub fn park(&self) -> Wake {
        let mut inner = self.inner.lock().expect("the lock");
        if let Some(wake) = inner.tokens.take() {
            return wake;
        }
        inner.parked = true;
        while inner.parked {
            if inner.wakers == 0 {
                drop(inner);
                panic!("a thread waits for ever");
            }
            inner = self.changed.wait(inner).expect("the lock");
        }
        inner.tokens.wake()
    }

    fn send(&self, wake: Wake) {
        let mut inner = self.inner.lock().expect("the lock");
        let parked = inner.parked;
        if inner.tokens.send(parked, wake) {
            inner.parked = false;
            self.changed.notify_one();
        }
    }

    pub fn unpark(&self) {
        self.send(Wake::Woken);
    }

    pub fn cancel(&self) {
        self.send(Wake::Cancelled);
    }

    /// One of those that may wake it has done all that it does.
    pub fn waker_ends(&self) {
        let mut inner = self.inner.lock().expect("the lock");
        inner.wakers -= 1;
        self.changed.notify_one();
    }
}
