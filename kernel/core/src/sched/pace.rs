//! When the watch looks at a CPU's threads, and for how much time of theirs a look stands.
//!
//! A CPU may be late for a look: its host runs something else, a device is slow to answer an access, interrupts are off. It did nothing for its threads
//! meanwhile, so a look stands for the time that it was meant to come after and no more. The shorter that is, the less of the CPU's absence is taken for
//! time of its threads: [`TICK_MS`] do while nothing is suspected, and [`CLOSE_MS`] when something is.

/// Time between two looks, milliseconds.
pub const TICK_MS: u32 = 5;
/// The same while a thread is suspected to hang.
pub const CLOSE_MS: u32 = 1;

/// One CPU's looks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    due_ns: u64,
    period_ms: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// The first look is due at once.
    pub const fn new() -> Self {
        Self {
            due_ns: 0,
            period_ms: TICK_MS,
        }
    }

    /// When the next look is due.
    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// A CPU that was idle begins to run threads: a look that didn't come isn't made up for.
    pub fn resume(&mut self, now_ns: u64) {
        if self.due_ns <= now_ns {
            self.begin(now_ns, TICK_MS);
        }
    }

    /// The time that a look at `now_ns` stands for, milliseconds; `None` if none is due.
    pub fn look(&self, now_ns: u64) -> Option<u32> {
        (now_ns >= self.due_ns).then_some(self.period_ms)
    }

    /// A look has been made: when the next one is due. `close` if it has shown something to suspect.
    pub fn go_on(&mut self, now_ns: u64, close: bool) {
        self.begin(now_ns, if close { CLOSE_MS } else { TICK_MS });
    }

    fn begin(&mut self, now_ns: u64, period_ms: u32) {
        self.period_ms = period_ms;
        self.due_ns = now_ns.saturating_add(u64::from(period_ms) * 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// What the looks of `wall_ns` stand for, milliseconds, on a CPU that has a turn of `on_ns` after every `off_ns`; and how long it ran.
    fn counted(close: bool, (on_ns, off_ns): (u64, u64), wall_ns: u64) -> (u64, u64) {
        let mut pace = Pace::new();
        pace.go_on(0, close);
        let (mut counted, mut ran_ns, mut turn_ns) = (0, 0, off_ns);
        while turn_ns < wall_ns {
            let end_ns = turn_ns + on_ns;
            let mut now_ns = turn_ns.max(pace.due_ns());
            while now_ns < end_ns {
                counted += u64::from(pace.look(now_ns).unwrap());
                pace.go_on(now_ns, close);
                now_ns = pace.due_ns();
            }
            ran_ns += on_ns;
            turn_ns = end_ns + off_ns;
        }
        (counted, ran_ns / MS)
    }

    #[test]
    fn a_cpu_that_was_away_is_charged_one_period() {
        let mut pace = Pace::new();
        pace.go_on(0, false);
        assert_eq!(pace.look(5 * MS - 1), None);
        assert_eq!(pace.look(80 * MS), Some(TICK_MS));
        pace.go_on(80 * MS, true);
        assert_eq!(pace.look(81 * MS), Some(CLOSE_MS));
        pace.go_on(81 * MS, true);
        assert_eq!(pace.look(161 * MS), Some(CLOSE_MS));
        pace.go_on(161 * MS, false);
        assert_eq!(pace.due_ns(), 166 * MS);
    }

    #[test]
    fn idle_time_is_not_made_up_for() {
        let mut pace = Pace::new();
        pace.resume(100 * MS);
        assert_eq!(pace.look(100 * MS), None);
        assert_eq!(pace.due_ns(), 105 * MS);
        pace.resume(104 * MS);
        assert_eq!(pace.due_ns(), 105 * MS);
    }

    /// A host that gives a CPU a quarter of the time, 3 ms at a time: far between, all of it is charged to the threads; close, what they had.
    #[test]
    fn close_looks_tell_absence_from_work() {
        let turns = (3 * MS, 9 * MS);
        let (far, ran) = counted(false, turns, 1200 * MS);
        assert!(far > ran + ran / 2, "{far} of {ran} ms");
        let (close, ran) = counted(true, turns, 1200 * MS);
        assert!(close <= ran + ran / 20, "{close} of {ran} ms");
    }

    proptest! {
        /// A loop on a CPU that is there all the time is charged all of it, whatever the period; one that isn't, never more than one period a turn too much.
        #[test]
        fn what_a_loop_is_charged(on_ms in 1u64..20, off_ms in 0u64..50) {
            let wall_ns = 500 * MS;
            let turns = wall_ns / ((on_ms + off_ms) * MS) + 1;
            for (close, period) in [(false, u64::from(TICK_MS)), (true, u64::from(CLOSE_MS))] {
                let (charged, ran) = counted(close, (on_ms * MS, off_ms * MS), wall_ns);
                prop_assert!(charged <= ran + turns * period);
                if off_ms == 0 {
                    prop_assert!(charged + 2 * period >= 500);
                }
            }
        }
    }
}
