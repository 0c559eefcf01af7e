//! Wakes that come before their thread waits for them.
//!
//! The logic of `park`, `unpark` and `cancel` in the machine's threads, under their scheduler's lock; `kernel/models` checks it with
//! several CPUs.

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke the thread.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// Give up what this was waiting for.
    Cancelled,
}

/// What a thread has been sent and has not taken yet: one wake and one cancellation, each a token and not a count.
#[derive(Debug)]
pub struct WakeTokens {
    woken: bool,
    cancelled: bool,
    /// What the wait that is going on, or the last one, returns.
    wake: Wake,
}

impl WakeTokens {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            woken: false,
            cancelled: false,
            wake: Wake::Woken,
        }
    }

    /// What came since the last wait, a cancellation first. The thread parks only if this is `None`.
    pub fn take(&mut self) -> Option<Wake> {
        if core::mem::take(&mut self.cancelled) {
            return Some(Wake::Cancelled);
        }
        core::mem::take(&mut self.woken).then_some(Wake::Woken)
    }

    /// Sends `wake`: to the wait of a thread that is `parked`, which must then run again, or to its next one. True if it must run.
    pub fn send(&mut self, parked: bool, wake: Wake) -> bool {
        if parked {
            self.wake = wake;
            return true;
        }
        match wake {
            Wake::Woken => self.woken = true,
            Wake::Cancelled => self.cancelled = true,
            // A deadline is of one wait, and that is over.
            Wake::TimedOut => {}
        }
        false
    }

    /// Takes back a cancellation that the thread hasn't noticed yet.
    pub fn clear_cancellation(&mut self) {
        self.cancelled = false;
    }

    /// What the wait that was going on returns.
    pub fn wake(&self) -> Wake {
        self.wake
    }
}

impl Default for WakeTokens {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_early_is_kept_once_each_and_cancellation_is_first() {
        let mut tokens = WakeTokens::new();
        assert_eq!(tokens.take(), None);
        for _ in 0..2 {
            assert!(!tokens.send(false, Wake::Woken));
            assert!(!tokens.send(false, Wake::Cancelled));
        }
        assert_eq!(tokens.take(), Some(Wake::Cancelled));
        assert_eq!(tokens.take(), Some(Wake::Woken));
        assert_eq!(tokens.take(), None);
    }

    #[test]
    fn a_late_deadline_is_nothing_to_the_next_wait() {
        let mut tokens = WakeTokens::new();
        assert!(!tokens.send(false, Wake::TimedOut));
        assert_eq!(tokens.take(), None);
    }
}
