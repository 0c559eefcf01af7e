//! A lock for state that threads of a domain share.
//!
//! A waiter looks on for a moment, which is how long a holder on another CPU usually has it, and then lets other threads run, since the
//! holder may be a preempted thread of this CPU. A lock dies with its domain; it can't be left held by a thread that was unwound, because that only
//! happens when its domain is dead.

use spin::mutex::SpinMutex;
pub use spin::mutex::SpinMutexGuard as MutexGuard;

/// Looks at a lock that is held, each after the processor's pause for such loops, before other threads of the CPU get their turn.
const LOOKS: u32 = 64;

/// Mutual exclusion; waiters yield the CPU.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    inner: SpinMutex<T>,
}

impl<T> Mutex<T> {
    /// A lock around `value` that nobody holds.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            inner: SpinMutex::new(value),
        }
    }

    /// Waits until nobody else holds it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.inner.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        }
    }

    /// Holds it if nobody else does.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.inner.try_lock()
    }

    /// The value of a lock that nobody else can hold.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> MutexGuard<'_, T> {
        loop {
            for _ in 0..LOOKS {
                core::hint::spin_loop();
                if !self.inner.is_locked()
                    && let Some(guard) = self.inner.try_lock()
                {
                    return guard;
                }
            }
            (abi::sys().thread_yield_to_holder)();
        }
    }
}
