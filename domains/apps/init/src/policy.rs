//! When a dead domain is started again: at once, after a delay, or not until the operator says so.
//!
//! Pure logic over the times and costs of deaths. Restarts within the window are counted: the first `immediate` have no delay, each
//! further one waits twice as long as the one before, from the floor to the ceiling; more than `budget` hold the domain.
//!
//! A crash loop never takes more than the policy's share of a CPU, over any window: what the restarts without delay cost is
//! limited to half of that share of the window, and each other one waits until its cost is the other half of the time since then.

use alloc::collections::VecDeque;
use interface::kernel::{DomainStatus, Reaped};

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
    /// Share of one CPU that a crash loop may take, per thousand; 0 for no limit.
    pub cpu_permille: u32,
}

impl From<&DomainStatus> for Policy {
    fn from(status: &DomainStatus) -> Policy {
        Policy {
            immediate: status.restart_immediate,
            floor_ms: status.backoff_floor_ms,
            ceiling_ms: status.backoff_ceiling_ms,
            budget: status.restart_budget,
            window_ms: status.window_ms,
            cpu_permille: status.restart_cpu_permille,
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

/// A domain that lived longer has done work: its threads' time is then no cost of a crash loop, nanoseconds.
const WORKED_NS: u64 = 1_000 * MS;

/// CPU time, in nanoseconds, that a death and the start before it have cost.
pub fn cost_ns(reaped: &Reaped) -> u64 {
    let threads_ns = if reaped.lived_ns <= WORKED_NS {
        reaped.threads_ns
    } else {
        0
    };
    threads_ns.saturating_add(reaped.kernel_ns)
}

#[derive(Debug)]
struct Death {
    at_ns: u64,
    /// What it cost, if its restart had no delay.
    immediate_cost_ns: u64,
}

/// The deaths of one domain that still count.
#[derive(Debug, Default)]
pub struct History {
    deaths: VecDeque<Death>,
}

impl History {
    /// Notes a death at `now_ns`, which with the life before it has cost `cost_ns` of CPU time, and says what to do about it.
    pub fn death(&mut self, policy: &Policy, now_ns: u64, cost_ns: u64) -> Decision {
        let window_ns = u64::from(policy.window_ms).saturating_mul(MS);
        while let Some(oldest) = self.deaths.front()
            && now_ns.saturating_sub(oldest.at_ns) > window_ns
        {
            self.deaths.pop_front();
        }
        self.deaths.push_back(Death {
            at_ns: now_ns,
            immediate_cost_ns: 0,
        });
        let count = self.deaths.len();
        // More than this many make no difference to any decision.
        let limit = (policy.immediate as usize + DOUBLINGS).max(policy.budget as usize) + 1;
        if count > limit {
            self.deaths.pop_front();
        }
        if policy.budget != 0 && count > policy.budget as usize {
            return Decision::Hold;
        }
        let delayed = count.checked_sub(policy.immediate as usize + 1);
        if delayed.is_none() && self.affords(policy, window_ns, cost_ns) {
            return Decision::Restart { delay_ms: 0 };
        }
        let floor_ms = policy.floor_ms.max(SHORTEST_DELAY_MS);
        let ceiling_ms = policy.ceiling_ms.max(floor_ms);
        let backoff_ms = u64::from(floor_ms) << delayed.unwrap_or(0).min(DOUBLINGS - 1);
        // Time in which the cost is half of the share: 2000 = 1000 permille, twice.
        let share_ms = match policy.cpu_permille {
            0 => 0,
            permille => cost_ns.saturating_mul(2_000) / u64::from(permille) / MS,
        };
        let delay_ms = backoff_ms.min(u64::from(ceiling_ms)).max(share_ms);
        Decision::Restart {
            delay_ms: u32::try_from(delay_ms).unwrap_or(u32::MAX),
        }
    }

    /// Whether a restart without delay is within half of the share; notes its cost if so.
    fn affords(&mut self, policy: &Policy, window_ns: u64, cost_ns: u64) -> bool {
        if policy.cpu_permille == 0 {
            return true;
        }
        let spent_ns = self
            .deaths
            .iter()
            .fold(cost_ns, |sum, death| sum.saturating_add(death.immediate_cost_ns));
        if spent_ns > window_ns / 2_000 * u64::from(policy.cpu_permille) {
            return false;
        }
        if let Some(newest) = self.deaths.back_mut() {
            newest.immediate_cost_ns = cost_ns;
        }
        true
    }

    /// Forgets what was: the operator released the domain.
    pub fn clear(&mut self) {
        self.deaths.clear();
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
        cpu_permille: 20,
    };

    fn decisions(policy: &Policy, at_ms: impl IntoIterator<Item = u64>) -> Vec<Decision> {
        let mut history = History::default();
        at_ms
            .into_iter()
            .map(|ms| history.death(policy, ms * MS, 0))
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
            history.death(&POLICY, 0, 0);
        }
        assert_eq!(history.death(&POLICY, 0, 0), Decision::Hold);
        history.clear();
        assert_eq!(history.death(&POLICY, 0, 0), Decision::Restart { delay_ms: 0 });
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

    #[test]
    fn long_lives_cost_only_what_the_kernel_did_for_them() {
        let reaped = |lived_ms: u64| Reaped {
            threads_ns: 5 * MS,
            kernel_ns: MS,
            lived_ns: lived_ms * MS,
        };
        assert_eq!(cost_ns(&reaped(3)), 6 * MS);
        assert_eq!(cost_ns(&reaped(30_000)), MS);
    }

    proptest! {
        /// A domain that dies as soon as it is started, at whatever cost each time, never takes more than its share of a window.
        #[test]
        fn a_crash_loop_stays_within_its_share(
            immediate in 0u32..50, permille in 1u32..200, costs_us in proptest::collection::vec(1u64..200_000, 1..300),
        ) {
            let policy = Policy { immediate, budget: 0, cpu_permille: permille, ..POLICY };
            let mut history = History::default();
            let mut now_ns = 0;
            let mut lives: Vec<(u64, u64)> = Vec::new();
            for cost_us in costs_us {
                let cost_ns = cost_us * 1_000;
                now_ns += cost_ns;
                lives.push((now_ns, cost_ns));
                if let Decision::Restart { delay_ms } = history.death(&policy, now_ns, cost_ns) {
                    now_ns += u64::from(delay_ms) * MS;
                }
            }
            let window_ns = u64::from(POLICY.window_ms) * MS;
            for (index, (from_ns, _)) in lives.iter().enumerate() {
                let within = lives.iter().skip(index).take_while(|(at_ns, _)| at_ns - from_ns < window_ns);
                let costs: Vec<u64> = within.map(|(_, cost_ns)| *cost_ns).collect();
                let spent_ns: u64 = costs.iter().sum();
                // What a window begins and ends with is in it with its whole cost, and a delay is rounded down to a millisecond.
                let edges_ns = costs.first().unwrap_or(&0) + costs.last().unwrap_or(&0);
                let share_ns = window_ns / 1_000 * u64::from(permille);
                prop_assert!(spent_ns <= share_ns + edges_ns + costs.len() as u64 * MS, "{spent_ns} of {share_ns}");
            }
        }

        /// In one window delays never shrink, stay between floor and ceiling, and only a budget holds.
        #[test]
        fn delays_grow_within_their_bounds(
            immediate in 0u32..8, floor_ms in 0u32..50, ceiling_ms in 0u32..10_000, budget in 0u32..40, deaths in 1usize..80,
        ) {
            let policy = Policy { immediate, floor_ms, ceiling_ms, budget, window_ms: 1_000, cpu_permille: 0 };
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
                history.death(&POLICY, time_ms * MS, 0);
                prop_assert!(history.deaths.len() <= 3 + DOUBLINGS + 1);
            }
        }
    }
}
