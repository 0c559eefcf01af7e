//! When a dead domain is started again: at once, after a delay, or not until the operator says so.
//!
//! Pure logic over the times of deaths. Restarts within the window are counted: the first `immediate` have no delay, each
//! further one waits twice as long as the one before, from the floor to the ceiling; more than `budget` hold the domain.

use alloc::collections::VecDeque;
use interface::kernel::DomainStatus;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;
/// Shortest delay once there is one: a floor of 0 must not make a crash loop that takes a whole CPU.
const SHORTEST_DELAY_MS: u32 = 1;
/// Doublings after which every delay is at its ceiling (2^32 ms is more than a `u32` holds).
const DOUBLINGS: usize = 32;

/// A domain's policy, as the manifest gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Restarts in the window at no delay.
    pub immediate: u32,
    /// First delay, milliseconds.
    pub floor_ms: u32,
    /// Longest delay, milliseconds.
    pub ceiling_ms: u32,
    /// Restarts in the window after which it is held; 0 for never.
    pub budget: u32,
    /// The window, milliseconds.
    pub window_ms: u32,
}

impl From<&DomainStatus> for Policy {
    fn from(status: &DomainStatus) -> Policy {
        Policy {
            immediate: status.restart_immediate,
            floor_ms: status.backoff_floor_ms,
            ceiling_ms: status.backoff_ceiling_ms,
            budget: status.restart_budget,
            window_ms: status.window_ms,
        }
    }
}

/// What to do about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this many milliseconds; 0 for at once.
    Restart {
        /// The delay.
        delay_ms: u32,
    },
    /// Leave it down until the operator releases it.
    Hold,
}

/// The deaths of one domain that still count.
#[derive(Debug, Default)]
pub struct History {
    deaths_ns: VecDeque<u64>,
}

impl History {
    /// Notes a death at `now_ns` and says what to do about it.
    pub fn death(&mut self, policy: &Policy, now_ns: u64) -> Decision {
        let window_ns = u64::from(policy.window_ms).saturating_mul(MS);
        while let Some(oldest_ns) = self.deaths_ns.front()
            && now_ns.saturating_sub(*oldest_ns) > window_ns
        {
            self.deaths_ns.pop_front();
        }
        self.deaths_ns.push_back(now_ns);
        let count = self.deaths_ns.len();
        // More than this many make no difference to any decision.
        let limit = (policy.immediate as usize + DOUBLINGS).max(policy.budget as usize) + 1;
        if count > limit {
            self.deaths_ns.pop_front();
        }
        if policy.budget != 0 && count > policy.budget as usize {
            return Decision::Hold;
        }
        let Some(delayed) = count.checked_sub(policy.immediate as usize + 1) else {
            return Decision::Restart { delay_ms: 0 };
        };
        let floor_ms = policy.floor_ms.max(SHORTEST_DELAY_MS);
        let ceiling_ms = policy.ceiling_ms.max(floor_ms);
        let delay_ms = u64::from(floor_ms) << delayed.min(DOUBLINGS - 1);
        Decision::Restart {
            delay_ms: delay_ms.min(u64::from(ceiling_ms)) as u32,
        }
    }

    /// Forgets what was: the operator released the domain.
    pub fn clear(&mut self) {
        self.deaths_ns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        immediate: 3,
        floor_ms: 10,
        ceiling_ms: 100,
        budget: 9,
        window_ms: 60_000,
    };

    fn decisions(policy: &Policy, at_ms: impl IntoIterator<Item = u64>) -> Vec<Decision> {
        let mut history = History::default();
        at_ms
            .into_iter()
            .map(|ms| history.death(policy, ms * MS))
            .collect()
    }

    #[test]
    fn a_crash_loop_goes_from_immediate_over_doubling_delays_to_held() {
        let delays = decisions(&POLICY, 0..10)
            .into_iter()
            .map(|decision| match decision {
                Decision::Restart { delay_ms } => Some(delay_ms),
                Decision::Hold => None,
            });
        let expected = [0, 0, 0, 10, 20, 40, 80, 100, 100].map(Some);
        assert!(delays.eq(expected.into_iter().chain([None])));
    }

    #[test]
    fn deaths_out_of_the_window_do_not_count() {
        let once_in_half_a_window = (0..100).map(|number| number * 30_001);
        assert!(
            decisions(&POLICY, once_in_half_a_window)
                .iter()
                .all(|decision| *decision == Decision::Restart { delay_ms: 0 })
        );
    }

    #[test]
    fn a_release_begins_anew() {
        let mut history = History::default();
        for _ in 0..20 {
            history.death(&POLICY, 0);
        }
        assert_eq!(history.death(&POLICY, 0), Decision::Hold);
        history.clear();
        assert_eq!(history.death(&POLICY, 0), Decision::Restart { delay_ms: 0 });
    }

    #[test]
    fn a_floor_of_nothing_still_slows_a_crash_loop_down() {
        let policy = Policy {
            immediate: 0,
            floor_ms: 0,
            ceiling_ms: 0,
            budget: 0,
            ..POLICY
        };
        assert_eq!(decisions(&policy, [0]), [Decision::Restart { delay_ms: 1 }]);
    }

    proptest! {
        /// In one window delays never shrink, stay between floor and ceiling, and only a budget holds.
        #[test]
        fn delays_grow_within_their_bounds(
            immediate in 0u32..8, floor_ms in 0u32..50, ceiling_ms in 0u32..10_000, budget in 0u32..40, deaths in 1usize..80,
        ) {
            let policy = Policy { immediate, floor_ms, ceiling_ms, budget, window_ms: 1_000 };
            let mut last_ms = 0;
            for (index, decision) in decisions(&policy, (0..deaths as u64).map(|_| 5)).into_iter().enumerate() {
                let count = index as u32 + 1;
                match decision {
                    Decision::Hold => prop_assert!(budget != 0 && count > budget),
                    Decision::Restart { delay_ms } => {
                        prop_assert!(budget == 0 || count <= budget);
                        prop_assert_eq!(delay_ms == 0, count <= immediate);
                        prop_assert!(delay_ms >= last_ms);
                        prop_assert!(delay_ms <= ceiling_ms.max(floor_ms).max(1));
                        last_ms = delay_ms;
                    }
                }
            }
        }

        /// However long a crash loop lasts, its history is bounded.
        #[test]
        fn the_history_is_bounded(times_ms in proptest::collection::vec(0u64..100_000, 0..500)) {
            let mut times_ms = times_ms;
            times_ms.sort_unstable();
            let mut history = History::default();
            for time_ms in times_ms {
                history.death(&POLICY, time_ms * MS);
                prop_assert!(history.deaths_ns.len() <= 3 + DOUBLINGS + 1);
            }
        }
    }
}
