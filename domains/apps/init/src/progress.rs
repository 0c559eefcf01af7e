//! Where the supervisor is with one domain: what is wanted of it, and who may act on it.
//!
//! Several threads may want the same domain: the one that handles its death, another that handles its next death, operators. Pure
//! logic decides between them: whoever came last has the newest epoch, and a start that isn't of the newest epoch is given up
//! before it begins. A start that has begun can't be called back; who wants the domain down waits for it, and kills what it started.

use crate::policy::{Decision, History, Policy};
use interface::kernel::DeathCause;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// What others may know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Restarts since boot.
    pub restarts: u64,
    /// What all deaths and the starts before them have cost, nanoseconds of CPU time.
    pub cost_ns: u64,
    /// Held for the operator.
    pub held: bool,
    /// Stopped by the operator.
    pub stopped: bool,
    /// Its image was refused.
    pub refused: bool,
    /// When it is to be started again; 0 for no such time.
    pub restart_at_ns: u64,
}

/// What is to be done about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Start it again after this many milliseconds; 0 for at once.
    Restart {
        /// The delay.
        delay_ms: u32,
        /// Of this epoch.
        epoch: u64,
    },
    /// Leave it down until the operator releases it.
    Hold,
    /// The operator wants it down.
    StayDown,
    /// Somebody has started it already.
    Superseded,
}

/// One domain's state.
#[derive(Debug, Default)]
pub struct Progress {
    situation: Situation,
    history: History,
    epoch: u64,
    /// Starts that have begun and not ended.
    starting: u32,
    /// The newest generation that was started.
    generation: u64,
}

impl Progress {
    /// What others may know.
    pub fn situation(&self) -> Situation {
        self.situation
    }

    /// A generation died, and all that it held is given back: what to do. `now_ns` is the time, and `cost_ns` the CPU time that its life
    /// has cost.
    pub fn died(
        &mut self,
        policy: &Policy,
        (generation, cause): (u64, DeathCause),
        now_ns: u64,
        cost_ns: u64,
    ) -> Plan {
        self.situation.cost_ns = self.situation.cost_ns.saturating_add(cost_ns);
        let by_order = matches!(
            cause,
            DeathCause::Stopped | DeathCause::Restarted | DeathCause::Updated
        );
        let decision = if by_order {
            Decision::Restart { delay_ms: 0 }
        } else {
            self.history.death(policy, now_ns, cost_ns)
        };
        if self.situation.stopped {
            return Plan::StayDown;
        }
        if self.generation > generation {
            return Plan::Superseded;
        }
        self.epoch += 1;
        match decision {
            Decision::Hold => {
                self.situation.held = true;
                self.situation.restart_at_ns = 0;
                Plan::Hold
            }
            Decision::Restart { delay_ms } => {
                self.situation.restart_at_ns = now_ns.saturating_add(u64::from(delay_ms) * MS);
                Plan::Restart {
                    delay_ms,
                    epoch: self.epoch,
                }
            }
        }
    }

    /// The operator wants it down. False if that is so already.
    pub fn stop(&mut self) -> bool {
        let is_new = !self.situation.stopped;
        self.situation.stopped = true;
        self.situation.held = false;
        self.situation.restart_at_ns = 0;
        self.epoch += 1;
        is_new
    }

    /// The operator wants it up; the epoch to start it in.
    pub fn want_up(&mut self) -> u64 {
        self.situation.stopped = false;
        self.situation.restart_at_ns = 0;
        self.epoch += 1;
        self.epoch
    }

    /// The operator wants a held domain up, whatever it did; the epoch to start it in.
    pub fn release(&mut self) -> u64 {
        self.history.clear();
        self.situation.held = false;
        self.want_up()
    }

    /// Begins the start of `epoch`; false if it is not wanted any more. Each start that began ends by [`Progress::end`].
    pub fn begin(&mut self, epoch: u64) -> bool {
        if self.epoch != epoch {
            return false;
        }
        self.situation.restart_at_ns = 0;
        self.starting += 1;
        true
    }

    /// A start has ended, with this generation if it has worked.
    pub fn end(&mut self, started: Option<u64>) {
        self.starting = self.starting.saturating_sub(1);
        let Some(generation) = started else { return };
        self.situation.refused = false;
        self.situation.held = false;
        self.situation.restart_at_ns = 0;
        if generation > self.generation {
            if self.generation > 0 {
                self.situation.restarts += 1;
            }
            self.generation = generation;
        }
    }

    /// Whether a start has begun and not ended.
    pub fn is_starting(&self) -> bool {
        self.starting > 0
    }

    #[cfg(test)]
    fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its image was refused.
    pub fn refuse(&mut self) {
        self.situation.refused = true;
    }

    /// It could not be started at all: it waits for the operator.
    pub fn hold(&mut self) {
        self.situation.held = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        immediate: 1,
        floor_ms: 10,
        ceiling_ms: 100,
        budget: 2,
        window_ms: 60_000,
        cpu_permille: 0,
    };

    fn started(progress: &mut Progress, generation: u64) {
        let epoch = progress.epoch();
        assert!(progress.begin(epoch));
        progress.end(Some(generation));
    }

    fn dies(progress: &mut Progress, generation: u64, cause: DeathCause) -> Plan {
        progress.died(&POLICY, (generation, cause), 0, 0)
    }

    #[test]
    fn deaths_by_order_are_not_counted() {
        let mut progress = Progress::default();
        for generation in 1..20 {
            started(&mut progress, generation);
            let plan = dies(&mut progress, generation, DeathCause::Restarted);
            assert!(matches!(plan, Plan::Restart { delay_ms: 0, .. }));
        }
        assert_eq!(progress.situation().restarts, 18);
    }

    #[test]
    fn a_stop_calls_off_a_restart_that_waits() {
        let mut progress = Progress::default();
        started(&mut progress, 1);
        dies(&mut progress, 1, DeathCause::Panic);
        let Plan::Restart { epoch, .. } = dies(&mut progress, 1, DeathCause::Panic) else {
            unreachable!("the second death of two is restarted")
        };
        assert!(progress.stop());
        assert!(!progress.stop(), "it is said once");
        assert!(!progress.begin(epoch));
        assert_eq!(progress.situation().restart_at_ns, 0);
    }

    #[test]
    fn a_death_of_what_is_to_stay_down_starts_nothing() {
        let mut progress = Progress::default();
        started(&mut progress, 1);
        progress.stop();
        assert_eq!(dies(&mut progress, 1, DeathCause::Stopped), Plan::StayDown);
        assert_eq!(dies(&mut progress, 1, DeathCause::Panic), Plan::StayDown);
    }

    #[test]
    fn a_start_after_a_stop_wins() {
        let mut progress = Progress::default();
        started(&mut progress, 1);
        progress.stop();
        let epoch = progress.want_up();
        // The death of the stop is handled only now: it is of no crash, and the domain is wanted.
        let plan = dies(&mut progress, 1, DeathCause::Stopped);
        assert!(matches!(plan, Plan::Restart { delay_ms: 0, .. }));
        assert!(!progress.begin(epoch), "one of them starts it");
    }

    #[test]
    fn a_late_death_does_not_hold_what_was_released() {
        let mut progress = Progress::default();
        started(&mut progress, 1);
        for _ in 0..2 {
            dies(&mut progress, 1, DeathCause::Panic);
        }
        let epoch = progress.release();
        assert!(progress.begin(epoch));
        progress.end(Some(2));
        assert_eq!(dies(&mut progress, 1, DeathCause::Panic), Plan::Superseded);
        assert!(!progress.situation().held);
    }

    proptest! {
        /// Whatever happens in whatever order: a stopped domain is neither held nor about to be restarted, and no start begins
        /// that is older than the last wish.
        #[test]
        fn the_last_wish_wins(steps in proptest::collection::vec((0u8..6, any::<bool>()), 1..200)) {
            let mut progress = Progress::default();
            let mut epochs = vec![0];
            let mut generation = 1;
            for (step, flag) in steps {
                match step {
                    0 => {
                        progress.stop();
                    }
                    1 => epochs.push(progress.want_up()),
                    2 => epochs.push(progress.release()),
                    3 => {
                        let cause = if flag { DeathCause::Panic } else { DeathCause::Stopped };
                        if let Plan::Restart { epoch, .. } = dies(&mut progress, generation, cause) {
                            epochs.push(epoch);
                        }
                    }
                    _ => {
                        let epoch = epochs[epochs.len() / if flag { 2 } else { 1 } - usize::from(!flag)];
                        let may = progress.begin(epoch);
                        prop_assert_eq!(may, epoch == progress.epoch());
                        if may {
                            prop_assert!(!progress.situation().stopped);
                            generation += 1;
                            progress.end(Some(generation));
                        }
                    }
                }
                let Situation { held, stopped, restart_at_ns, .. } = progress.situation();
                prop_assert!(!stopped || (!held && restart_at_ns == 0));
            }
        }
    }
}
