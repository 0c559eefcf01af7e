//! Live updates: what the operator and an uploader ask for, and the way of a new image from its start to the end of its trial.
//!
//! The kernel verifies and changes images (`interface::update::ImageControl`), a restart is `supervision`'s, and `trial` says what a
//! death means; this brings them together. A domain's trial has a lock of its own, so that an update of one holds up no restart of
//! another.

use crate::SELF;
use crate::supervision::{MS, Supervision, pause};
use crate::trial::{History, Trial, Verdict, Watch, reason};
use alloc::boxed::Box;
use alloc::sync::Arc;
use domain_rt::clock::NEVER;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, ThreadId};
use domain_rt::{Handle, clock};
use interface::kernel::{ControlError, DeathCause, DeathRecord, DomainName, DomainState};
use interface::supervise::SuperviseError;
use interface::update::{
    Build, DomainImages, ImageControl, ImagePart, ImageSource, Replaced, UpdateError, UpdateOutcome,
    UpdateRecord,
};
use log::{error, info, warn};
use rref::{RRef, Text};

/// How often an update looks whether a domain that is just being started can be replaced, a millisecond apart.
const START_LOOKS: u32 = 1_000;

/// The trials and the record of updates.
pub struct Updating {
    images: Handle<dyn ImageControl>,
    history: Mutex<History>,
    /// By index in the manifest.
    watches: Box<[Mutex<Watch>]>,
    /// The thread that ends trials; made with the first update.
    timekeeper: Mutex<Option<ThreadId>>,
}

impl Updating {
    /// No update yet of any of `domains` domains.
    pub fn new(images: Handle<dyn ImageControl>, domains: u16) -> Updating {
        Updating {
            images,
            history: Mutex::default(),
            watches: (0..domains).map(|_| Mutex::default()).collect(),
            timekeeper: Mutex::default(),
        }
    }

    fn watch(&self, index: u16) -> Option<&Mutex<Watch>> {
        self.watches.get(usize::from(index))
    }

    /// Whether the restart policy decides what follows a death. If not, the next start is from the right image already.
    pub fn is_ordinary(&self, index: u16, name: DomainName, record: &DeathRecord) -> bool {
        // Not under the lock: the update may still be busy, and its successor needn't wait for that.
        if record.cause == DeathCause::Updated {
            return false;
        }
        let Some(watch) = self.watch(index) else {
            return true;
        };
        // Held until the old image is back, so that no other update comes in between.
        let mut watch = watch.lock();
        match watch.death(record) {
            Verdict::Ordinary => true,
            Verdict::Updated => false,
            Verdict::Failed { number } => !self.roll_back(index, name, number, reason(record)),
        }
    }

    /// A start has failed without a death; whether it was a new image's, and the next start is from the one before.
    pub fn start_failed(&self, index: u16, name: DomainName, error: &ControlError) -> bool {
        let Some(watch) = self.watch(index) else {
            return false;
        };
        let mut watch = watch.lock();
        watch
            .failed()
            .is_some_and(|number| self.roll_back(index, name, number, Text::format(format_args!("{error}"))))
    }

    fn roll_back(&self, index: u16, name: DomainName, number: u64, reason: Text<120>) -> bool {
        match self.images.revert(index) {
            Ok(build) => {
                self.history.lock().note(number, |record| {
                    record.outcome = UpdateOutcome::RolledBack(reason)
                });
                warn!("{name}: update {number} is rolled back to build {build}: {reason}");
                true
            }
            Err(error) => {
                // The domain had no image that could be run before.
                warn!("{name}: update {number} failed and can't be rolled back: {reason} ({error})");
                false
            }
        }
    }

    /// Notes that an incarnation runs. `down_since_ns` is when the one before died, if one did.
    pub fn runs(&self, index: u16, generation: u64, down_since_ns: Option<u64>) {
        let now_ns = clock::now_ns();
        let Some(trial) = self
            .watch(index)
            .and_then(|watch| watch.lock().runs(generation, now_ns))
        else {
            return;
        };
        self.history.lock().note(trial.number, |record| {
            record.outcome = UpdateOutcome::OnTrial {
                until_ns: trial.until_ns.unwrap_or(now_ns),
            };
            if record.restart_ns == 0 {
                record.restart_ns = down_since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
            }
        });
        if let Some(timekeeper) = *self.timekeeper.lock() {
            thread::unpark(timekeeper);
        }
    }

    /// Ends the trials whose time has come; when the next one does.
    fn end_trials(&self, name: impl Fn(u16) -> DomainName) -> u64 {
        let now_ns = clock::now_ns();
        let mut next_ns = NEVER;
        for (watch, index) in self.watches.iter().zip(0..) {
            let (ended, until_ns) = {
                let mut watch = watch.lock();
                let ended = watch.due(now_ns);
                if ended.is_some()
                    && let Err(error) = self.images.settle(index)
                {
                    error!("{}: the old image can't be given up: {error}", name(index));
                }
                (ended, watch.until_ns())
            };
            next_ns = next_ns.min(until_ns.unwrap_or(NEVER));
            if let Some(number) = ended {
                self.history
                    .lock()
                    .note(number, |record| record.outcome = UpdateOutcome::Kept);
                info!("{}: update {number} has lived through its trial", name(index));
            }
        }
        next_ns
    }
}

/// The life of the thread that ends trials.
fn keep_time(supervision: &Supervision) {
    loop {
        let next_ns = supervision.updating.end_trials(|index| supervision.name(index));
        thread::park_until(next_ns);
    }
}

/// The exported objects: [`Updates`](interface::update::Updates) and [`Uploads`](interface::update::Uploads).
#[derive(Clone)]
pub struct Service {
    supervision: Arc<Supervision>,
}

impl Service {
    /// A service of `supervision`.
    pub fn new(supervision: Arc<Supervision>) -> Service {
        Service { supervision }
    }

    fn images(&self) -> &dyn ImageControl {
        &*self.supervision.updating.images
    }

    fn find(&self, name: &DomainName) -> Result<u16, UpdateError> {
        self.supervision.find(name).ok_or(UpdateError::NoDomain)
    }

    /// A domain that can be updated.
    fn find_replaceable(&self, name: &DomainName) -> Result<u16, UpdateError> {
        match self.find(name)? {
            SELF => Err(UpdateError::Supervisor),
            index => Ok(index),
        }
    }

    /// There is a thread that ends trials, or there is no update.
    fn ensure_timekeeper(&self) -> Result<(), UpdateError> {
        let mut timekeeper = self.supervision.updating.timekeeper.lock();
        if timekeeper.is_none() {
            let supervision = self.supervision.clone();
            let spawned = thread::spawn("trials", None, move || keep_time(&supervision));
            *timekeeper = Some(spawned.map_err(|_| UpdateError::OutOfMemory)?);
        }
        Ok(())
    }

    fn replace(&self, index: u16, source: ImageSource) -> Result<Replaced, UpdateError> {
        let starting = UpdateError::WrongState(DomainState::Starting);
        for _ in 0..START_LOOKS {
            match self.images().replace(index, source) {
                Err(error) if error == starting => {
                    // A caller that has died meanwhile gets no answer, and no update.
                    if !pause() {
                        break;
                    }
                }
                result => return result,
            }
        }
        Err(starting)
    }

    /// Changes the image and begins its trial.
    fn begin(
        &self,
        index: u16,
        name: DomainName,
        source: ImageSource,
        trial_ms: u32,
    ) -> Result<(Replaced, UpdateRecord), UpdateError> {
        let updating = &self.supervision.updating;
        let watch = updating.watch(index).ok_or(UpdateError::NoDomain)?;
        // Held until the trial has begun, so that the new image doesn't run before.
        let mut watch = watch.lock();
        let at_ns = clock::now_ns();
        let replaced = self.replace(index, source)?;
        let mut history = updating.history.lock();
        let record = history.begin(name, source, &replaced, at_ns);
        let superseded = watch.begin(Trial {
            number: record.number,
            after_generation: replaced.generation,
            length_ns: u64::from(trial_ms) * MS,
            until_ns: None,
        });
        if let Some(number) = superseded {
            history.note(number, |record| record.outcome = UpdateOutcome::Superseded);
        }
        Ok((replaced, record))
    }

    /// Starts a domain that was down when its image was changed, unless the operator wants it down.
    fn start(&self, index: u16, number: u64) -> Result<(), UpdateError> {
        if self.supervision.situation(index).stopped {
            self.supervision
                .updating
                .history
                .lock()
                .note(number, |record| record.outcome = UpdateOutcome::AtNextStart);
            return Ok(());
        }
        match self.supervision.start_updated(index) {
            Err(SuperviseError::Refused) => Err(UpdateError::NotStarted),
            // It runs, or is being started by somebody else, or its death will be judged.
            _ => Ok(()),
        }
    }
}

impl interface::update::Updates for Service {
    fn images(&self, name: DomainName) -> Result<DomainImages, UpdateError> {
        self.images().images(self.find(&name)?)
    }

    fn update(&self, name: DomainName, source: Option<ImageSource>) -> Result<UpdateRecord, UpdateError> {
        let index = self.find_replaceable(&name)?;
        let images = self.images().images(index)?;
        let source = match source {
            Some(source) => source,
            None if images.uploaded.is_some() => ImageSource::Upload,
            None if images.has_spare => ImageSource::Spare,
            None => return Err(UpdateError::NothingStaged),
        };
        self.ensure_timekeeper()?;
        let begun = self.begin(index, name, source, images.trial_ms);
        let (replaced, record) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                warn!("{name}: not updated: {error}");
                return Err(error);
            }
        };
        info!(
            "{name}: update {} to build {} from the {source}",
            record.number, record.to
        );
        if !replaced.killed {
            self.start(index, record.number)?;
        }
        let now = self.supervision.updating.history.lock().get(record.number);
        Ok(now.unwrap_or(record))
    }

    fn record(&self, number: u64) -> Result<Option<UpdateRecord>, UpdateError> {
        Ok(self.supervision.updating.history.lock().get(number))
    }

    fn count(&self) -> Result<u64, UpdateError> {
        Ok(self.supervision.updating.history.lock().total())
    }
}

impl interface::update::Uploads for Service {
    fn begin(&self, name: DomainName, bytes: u32) -> Result<u64, UpdateError> {
        self.images().upload_begin(self.find_replaceable(&name)?, bytes)
    }

    fn part(&self, upload: u64, offset: u32, part: &RRef<ImagePart>) -> Result<(), UpdateError> {
        self.images().upload_part(upload, offset, part)
    }

    fn finish(&self, upload: u64) -> Result<Build, UpdateError> {
        self.images().upload_finish(upload)
    }

    fn abandon(&self, upload: u64) -> Result<(), UpdateError> {
        self.images().upload_abandon(upload)
    }
}
