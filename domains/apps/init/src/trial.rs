//! When an updated image has proved itself: the record of updates, and what a death means while one is on trial.
//!
//! Pure logic. An image that dies before it has run for its trial time makes place for the one before; a stop or restart by the operator
//! says nothing against it, and its trial begins anew with the next start. One update of a domain can follow another during a trial:
//! the image to go back to is then still the last one that has proved itself, and the kernel keeps that.

use alloc::collections::VecDeque;
use interface::kernel::{DeathCause, DeathRecord, DomainName};
use interface::update::{ImageSource, Replaced, UpdateOutcome, UpdateRecord};
use rref::Text;

/// Updates that are remembered; older ones are forgotten.
pub const KEPT: usize = 64;

/// The newest updates, oldest first.
#[derive(Default)]
pub struct History {
    updates: VecDeque<UpdateRecord>,
    total: u64,
}

impl History {
    /// Adds an update that has just begun.
    pub fn begin(
        &mut self,
        name: DomainName,
        source: ImageSource,
        replaced: &Replaced,
        at_ns: u64,
    ) -> UpdateRecord {
        if self.updates.len() >= KEPT {
            self.updates.pop_front();
        }
        self.total += 1;
        let record = UpdateRecord {
            number: self.total,
            name,
            from: replaced.from,
            to: replaced.to,
            source,
            at_ns,
            restart_ns: 0,
            outcome: UpdateOutcome::Starting,
        };
        self.updates.push_back(record);
        record
    }

    /// The update of this number, if it is kept.
    pub fn get(&self, number: u64) -> Option<UpdateRecord> {
        self.updates
            .iter()
            .find(|update| update.number == number)
            .copied()
    }

    /// Updates since boot.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Changes what is kept of an update.
    pub fn note(&mut self, number: u64, change: impl FnOnce(&mut UpdateRecord)) {
        if let Some(update) = self.updates.iter_mut().find(|update| update.number == number) {
            change(update);
        }
    }
}

/// An image that has not proved itself yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Number of the update.
    pub number: u64,
    /// The newest incarnation that is not of the new image.
    pub after_generation: u64,
    /// How long it has to live, nanoseconds.
    pub length_ns: u64,
    /// Until when; `None` while it is not running.
    pub until_ns: Option<u64>,
}

/// What a death means for an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the restart policy decides.
    Ordinary,
    /// It was the update's own doing: the next image starts at once.
    Updated,
    /// The new image has failed: the one before comes back at once.
    Failed {
        /// The update's number.
        number: u64,
    },
}

/// A domain's trial, if there is one.
#[derive(Debug, Default)]
pub struct Watch(Option<Trial>);

impl Watch {
    /// Begins a trial; gives the number of the update whose trial this ends.
    pub fn begin(&mut self, trial: Trial) -> Option<u64> {
        self.0.replace(trial).map(|before| before.number)
    }

    /// Notes that an incarnation runs; gives the update's number if it is the first of a new image, or was stopped meanwhile.
    pub fn runs(&mut self, generation: u64, now_ns: u64) -> Option<Trial> {
        let trial = self
            .0
            .as_mut()
            .filter(|trial| generation > trial.after_generation && trial.until_ns.is_none())?;
        trial.until_ns = Some(now_ns.saturating_add(trial.length_ns));
        Some(*trial)
    }

    /// Judges a death.
    pub fn death(&mut self, record: &DeathRecord) -> Verdict {
        if record.cause == DeathCause::Updated {
            return Verdict::Updated;
        }
        let Some(trial) = self
            .0
            .as_mut()
            .filter(|trial| record.generation > trial.after_generation)
        else {
            return Verdict::Ordinary;
        };
        if trial.until_ns.is_some_and(|until_ns| record.at_ns >= until_ns) {
            // It has proved itself; `due` will say so.
            return Verdict::Ordinary;
        }
        if matches!(record.cause, DeathCause::Stopped | DeathCause::Restarted) {
            trial.until_ns = None;
            return Verdict::Ordinary;
        }
        let number = trial.number;
        self.0 = None;
        Verdict::Failed { number }
    }

    /// The new image could not be started, without a death; the update's number if it was on trial.
    pub fn failed(&mut self) -> Option<u64> {
        self.0
            .take_if(|trial| trial.until_ns.is_none())
            .map(|trial| trial.number)
    }

    /// Ends a trial whose time has come; the update's number.
    pub fn due(&mut self, now_ns: u64) -> Option<u64> {
        self.0
            .take_if(|trial| trial.until_ns.is_some_and(|until_ns| until_ns <= now_ns))
            .map(|trial| trial.number)
    }

    /// When the trial ends, if it does.
    pub fn until_ns(&self) -> Option<u64> {
        self.0.and_then(|trial| trial.until_ns)
    }
}

/// Why an image failed, from its death.
pub fn reason(record: &DeathRecord) -> Text<120> {
    let detail = record.detail.as_str();
    match detail {
        "" => Text::format(format_args!("{}", record.cause)),
        detail => Text::format(format_args!("{}: {detail}", record.cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interface::update::Build;
    use proptest::prelude::*;

    const TRIAL: Trial = Trial {
        number: 1,
        after_generation: 4,
        length_ns: 100,
        until_ns: None,
    };

    fn death(generation: u64, cause: DeathCause, at_ns: u64) -> DeathRecord {
        DeathRecord {
            number: 1,
            domain: 1,
            generation,
            cause,
            detail: Text::new("at lib.rs:3"),
            at_ns,
            recovered_ns: 0,
        }
    }

    fn on_trial() -> Watch {
        let mut watch = Watch::default();
        assert_eq!(watch.begin(TRIAL), None);
        assert!(watch.runs(5, 1000).is_some());
        watch
    }

    #[test]
    fn a_death_on_trial_brings_the_old_image_back_whatever_it_is_of() {
        for cause in [
            DeathCause::Panic,
            DeathCause::Killed,
            DeathCause::Exception(14),
            DeathCause::Deadline,
        ] {
            let mut watch = on_trial();
            assert_eq!(watch.death(&death(5, cause, 1099)), Verdict::Failed { number: 1 });
            // The old one's deaths are its own again.
            assert_eq!(watch.death(&death(6, cause, 1100)), Verdict::Ordinary);
        }
    }

    #[test]
    fn a_death_before_it_runs_is_a_failure_too() {
        let mut watch = Watch::default();
        watch.begin(TRIAL);
        assert_eq!(
            watch.death(&death(5, DeathCause::Panic, 7)),
            Verdict::Failed { number: 1 }
        );
    }

    #[test]
    fn the_old_image_s_deaths_are_not_the_new_one_s_fault() {
        let mut watch = Watch::default();
        watch.begin(TRIAL);
        assert_eq!(watch.death(&death(4, DeathCause::Panic, 7)), Verdict::Ordinary);
        assert_eq!(watch.death(&death(4, DeathCause::Updated, 7)), Verdict::Updated);
        assert_eq!(watch.runs(4, 8), None, "an old incarnation");
        assert!(watch.runs(5, 9).is_some());
    }

    #[test]
    fn a_death_after_the_trial_is_the_policy_s() {
        let mut watch = on_trial();
        assert_eq!(watch.death(&death(5, DeathCause::Panic, 1100)), Verdict::Ordinary);
        assert_eq!(watch.due(1100), Some(1), "it was kept first");
        assert_eq!(watch.due(1100), None);
    }

    #[test]
    fn a_stop_interrupts_the_trial() {
        let mut watch = on_trial();
        assert_eq!(
            watch.death(&death(5, DeathCause::Stopped, 1050)),
            Verdict::Ordinary
        );
        assert_eq!(watch.due(5000), None, "the time that it is stopped doesn't count");
        assert!(watch.runs(6, 5000).is_some());
        assert_eq!(
            watch.death(&death(6, DeathCause::Panic, 5099)),
            Verdict::Failed { number: 1 }
        );
    }

    #[test]
    fn another_update_takes_the_trial_s_place() {
        let mut watch = on_trial();
        let second = Trial {
            number: 2,
            after_generation: 5,
            ..TRIAL
        };
        assert_eq!(watch.begin(second), Some(1));
        assert_eq!(
            watch.death(&death(5, DeathCause::Updated, 1050)),
            Verdict::Updated
        );
        assert!(watch.runs(6, 1060).is_some());
        assert_eq!(watch.until_ns(), Some(1160));
        assert_eq!(
            watch.death(&death(6, DeathCause::Panic, 1061)),
            Verdict::Failed { number: 2 }
        );
    }

    #[test]
    fn an_image_that_cannot_be_started_has_failed_once() {
        let mut watch = Watch::default();
        watch.begin(TRIAL);
        assert_eq!(watch.failed(), Some(1));
        assert_eq!(watch.failed(), None);
        assert_eq!(on_trial().failed(), None, "it was started");
    }

    fn replaced() -> Replaced {
        Replaced {
            from: None,
            to: Build::new("b"),
            generation: 1,
            killed: true,
        }
    }

    #[test]
    fn the_newest_updates_are_kept() {
        let mut history = History::default();
        for number in 1..=KEPT as u64 + 3 {
            let record = history.begin(DomainName::new("httpd"), ImageSource::Spare, &replaced(), number);
            assert_eq!(record.number, number);
        }
        assert_eq!(history.total(), KEPT as u64 + 3);
        assert_eq!(history.get(3), None);
        history.note(4, |record| record.outcome = UpdateOutcome::Kept);
        assert_eq!(
            history.get(4).map(|record| record.outcome),
            Some(UpdateOutcome::Kept)
        );
        history.note(3, |record| record.outcome = UpdateOutcome::Kept);
    }

    proptest! {
        /// Each trial ends once: kept, failed, or superseded by the next; and fails only by a death of the new image within its time.
        #[test]
        fn each_trial_ends_once(steps in proptest::collection::vec((0u8..5, 0u64..80), 0..80)) {
            let mut watch = Watch::default();
            let (mut now_ns, mut generation, mut number) = (0, 1, 0);
            let mut open: Option<u64> = None;
            let mut runs_since: Option<u64> = None;
            for (step, wait_ns) in steps {
                now_ns += wait_ns;
                match step {
                    0 => {
                        number += 1;
                        let before = watch.begin(Trial { number, after_generation: generation, ..TRIAL });
                        prop_assert_eq!(before, open);
                        open = Some(number);
                        generation += 1;
                        runs_since = None;
                    }
                    1 => if let Some(trial) = watch.runs(generation, now_ns) {
                        prop_assert_eq!(Some(trial.number), open);
                        runs_since = Some(now_ns);
                    },
                    2 | 3 => {
                        let cause = if step == 2 { DeathCause::Panic } else { DeathCause::Stopped };
                        match watch.death(&death(generation, cause, now_ns)) {
                            Verdict::Failed { number } => {
                                prop_assert_eq!(Some(number), open);
                                prop_assert!(cause == DeathCause::Panic);
                                prop_assert!(runs_since.is_none_or(|since| now_ns < since + TRIAL.length_ns));
                                open = None;
                            }
                            Verdict::Ordinary => {
                                if cause == DeathCause::Stopped
                                    && runs_since.is_some_and(|since| now_ns < since + TRIAL.length_ns)
                                {
                                    runs_since = None;
                                }
                            }
                            Verdict::Updated => prop_assert!(false),
                        }
                        generation += 1;
                    }
                    _ => if let Some(number) = watch.due(now_ns) {
                        prop_assert_eq!(Some(number), open);
                        prop_assert!(runs_since.is_some_and(|since| now_ns >= since + TRIAL.length_ns));
                        open = None;
                    },
                }
            }
        }
    }
}
