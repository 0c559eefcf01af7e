//! How long a call may take before its callee is taken for hung, in the time that looks of the watch stand for.
//!
//! A thread that waits for a lock of its domain counts for a quarter: the one that holds the lock is the one that takes long, and may be waiting for its
//! turn on a CPU, which isn't counted at all. It does count, since it may wait for itself.

use super::pace::TICK_MS;

/// Units in a millisecond of a count.
const UNITS: u32 = 4;

/// What a look that stands for `ms` adds to the counts of a thread.
pub fn share(ms: u32, waits_for_lock: bool) -> u32 {
    ms.saturating_mul(if waits_for_lock { 1 } else { UNITS })
}

/// A count without a look for each of `calls` further in: one that came between two entries mustn't make the caller the first of two with the same deadline.
pub fn allow_for(count: u32, calls: usize) -> u32 {
    let calls = u32::try_from(calls).unwrap_or(u32::MAX);
    count.saturating_sub(calls.saturating_mul(TICK_MS * UNITS))
}

/// Whether a count is more than so many milliseconds, whenever in its period the first look came.
pub fn is_over(count: u32, limit_ms: u32) -> bool {
    u64::from(count) >= (u64::from(limit_ms) + u64::from(TICK_MS)) * u64::from(UNITS)
}

/// Whether a count is so near to a limit that looks are to be close: a quarter of it, and two looks.
pub fn is_near(count: u32, limit_ms: u32) -> bool {
    let near = u64::from(limit_ms / 4).max(u64::from(2 * TICK_MS)) * u64::from(UNITS);
    u64::from(count) >= near
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::pace::CLOSE_MS;

    /// Looks until a limit is over, and the time that they stand for.
    fn until_over(limit_ms: u32, waits_for_lock: bool) -> (u32, u32) {
        let (mut count, mut looks, mut ms) = (0, 0, 0);
        while !is_over(count, limit_ms) {
            let period = if is_near(count, limit_ms) {
                CLOSE_MS
            } else {
                TICK_MS
            };
            count += share(period, waits_for_lock);
            looks += 1;
            ms += period;
        }
        (looks, ms)
    }

    #[test]
    fn a_loop_is_found_within_two_looks_of_its_deadline() {
        for limit_ms in [1, 5, 7, 20, 50, 100, 1000] {
            let (_, ms) = until_over(limit_ms, false);
            assert!(
                (limit_ms + TICK_MS..=limit_ms + 2 * TICK_MS).contains(&ms),
                "{ms} of {limit_ms} ms"
            );
        }
    }

    #[test]
    fn most_of_a_deadline_is_looked_at_closely() {
        assert_eq!(until_over(20, false), (2 + 15, 25));
        assert_eq!(until_over(100, false), (5 + 80, 105));
    }

    #[test]
    fn who_waits_for_a_lock_has_four_times_as_long() {
        for limit_ms in [20, 100, 1000] {
            let (_, ms) = until_over(limit_ms, true);
            assert!(
                (4 * limit_ms..=4 * (limit_ms + 2 * TICK_MS)).contains(&ms),
                "{ms} of {limit_ms} ms"
            );
        }
    }

    #[test]
    fn a_caller_is_not_the_first_of_two_with_the_same_deadline() {
        let inner = share(50, false);
        assert_eq!(allow_for(inner + share(TICK_MS, false), 1), inner);
        assert_eq!(allow_for(0, 3), 0);
    }

    #[test]
    fn counts_do_not_overflow() {
        assert!(is_over(u32::MAX - 1, 80_000));
        assert!(!is_over(0, u32::MAX));
        assert_eq!(share(u32::MAX, false), u32::MAX);
    }
}
