//! Live updates over a kernel that is played, through the real proxies.

use crate::tests::{Fixture, Kernel, Start, fixture};
use crate::update::Service;
use interface::kernel::{DeathCause, DomainName, DomainState};
use interface::update::{
    Build, DomainImages, ImageControl, ImagePart, ImageSource, PART_BYTES, Replaced, UpdateError,
    UpdateOutcome, UpdateRecord, Updates, Uploads,
};
use rref::{RRef, Text};
use std::sync::Mutex;

/// Length of a trial here: longer than any test, unless the test makes it short.
const LONG_MS: u32 = 600_000;

#[derive(Default)]
struct Shelf {
    /// Of domain `a`: the builds by name.
    current: Option<&'static str>,
    previous: Option<&'static str>,
    uploaded: Option<&'static str>,
    spare: Option<&'static str>,
    trial_ms: u32,
    starting_looks: u32,
}

/// The kernel's images of domain `a`, which is at index 1.
pub struct Images {
    kernel: &'static Kernel,
    shelf: Mutex<Shelf>,
}

impl Images {
    pub fn new(kernel: &'static Kernel) -> Images {
        Images {
            kernel,
            shelf: Mutex::new(Shelf {
                current: Some("one"),
                trial_ms: LONG_MS,
                ..Shelf::default()
            }),
        }
    }

    fn set(&self, change: impl FnOnce(&mut Shelf)) {
        change(&mut self.shelf.lock().unwrap());
    }

    fn builds(&self) -> (Option<&'static str>, Option<&'static str>) {
        let shelf = self.shelf.lock().unwrap();
        (shelf.current, shelf.previous)
    }
}

impl ImageControl for Images {
    fn images(&self, index: u16) -> Result<DomainImages, UpdateError> {
        assert_eq!(index, 1);
        let shelf = self.shelf.lock().unwrap();
        Ok(DomainImages {
            current: shelf.current.map(Build::new),
            previous: shelf.previous.map(Build::new),
            uploaded: shelf.uploaded.map(Build::new),
            has_spare: shelf.spare.is_some(),
            trial_ms: shelf.trial_ms,
        })
    }

    fn upload_begin(&self, index: u16, bytes: u32) -> Result<u64, UpdateError> {
        assert_eq!((index, bytes), (1, 5));
        Ok(7)
    }

    fn upload_part(&self, upload: u64, offset: u32, part: &RRef<ImagePart>) -> Result<(), UpdateError> {
        assert_eq!((upload, offset, part.length, part.data[0]), (7, 0, 5, b'x'));
        Ok(())
    }

    fn upload_finish(&self, upload: u64) -> Result<Build, UpdateError> {
        assert_eq!(upload, 7);
        Err(UpdateError::Refused(Text::new("it has no signature")))
    }

    fn upload_abandon(&self, _upload: u64) -> Result<(), UpdateError> {
        Err(UpdateError::NoUpload)
    }

    fn replace(&self, index: u16, source: ImageSource) -> Result<Replaced, UpdateError> {
        let mut shelf = self.shelf.lock().unwrap();
        if shelf.starting_looks > 0 {
            shelf.starting_looks -= 1;
            return Err(UpdateError::WrongState(DomainState::Starting));
        }
        let candidate = match source {
            ImageSource::Spare => shelf.spare,
            ImageSource::Upload => shelf.uploaded.take(),
        };
        let candidate = candidate.ok_or(UpdateError::NothingStaged)?;
        if candidate == "bad" {
            return Err(UpdateError::Refused(Text::new("it was changed")));
        }
        if shelf.current == Some(candidate) {
            return Err(UpdateError::SameImage(Build::new(candidate)));
        }
        let from = shelf.current.replace(candidate);
        shelf.previous = shelf.previous.or(from);
        let mut machine = self.kernel.machine.lock().unwrap();
        let status = machine.domains[usize::from(index)].status;
        let killed = status.state == DomainState::Running;
        if killed {
            self.kernel
                .die(&mut machine, usize::from(index), DeathCause::Updated);
        }
        Ok(Replaced {
            from: from.map(Build::new),
            to: Build::new(candidate),
            generation: status.generation,
            killed,
        })
    }

    fn revert(&self, _index: u16) -> Result<Build, UpdateError> {
        let mut shelf = self.shelf.lock().unwrap();
        let previous = shelf.previous.take().ok_or(UpdateError::NothingStaged)?;
        shelf.current = Some(previous);
        Ok(Build::new(previous))
    }

    fn settle(&self, _index: u16) -> Result<(), UpdateError> {
        self.shelf.lock().unwrap().previous = None;
        Ok(())
    }
}

struct Rig {
    fixture: Fixture,
    updates: Service,
}

fn rig(name: &str, starts: &[Start]) -> Rig {
    let fixture = fixture(name, 50, 1, starts);
    Rig {
        updates: Service::new(fixture.supervision.clone()),
        fixture,
    }
}

impl Rig {
    fn update(&self, source: Option<ImageSource>) -> Result<UpdateRecord, UpdateError> {
        self.updates.update(DomainName::new("a"), source)
    }

    fn outcome(&self, number: u64) -> UpdateOutcome {
        self.updates.record(number).unwrap().unwrap().outcome
    }

    fn until_on_trial(&self, number: u64) {
        self.fixture.until("it is on trial", |_| {
            matches!(self.outcome(number), UpdateOutcome::OnTrial { .. })
        });
    }

    fn spare(&self, build: &'static str) {
        self.fixture.images.set(|shelf| shelf.spare = Some(build));
    }

    fn die(&self, cause: DeathCause) {
        let mut machine = self.fixture.kernel.machine.lock().unwrap();
        self.fixture.kernel.die(&mut machine, 1, cause);
    }
}

#[test]
fn an_image_that_lives_is_kept_and_the_old_one_given_up() {
    let rig = rig("update-kept", &[]);
    rig.spare("two");
    rig.fixture.images.set(|shelf| shelf.trial_ms = 1);
    let record = rig.update(None).unwrap();
    assert_eq!(
        (record.number, record.from, record.to),
        (1, Some(Build::new("one")), Build::new("two"))
    );
    rig.fixture
        .until("it is kept", |_| rig.outcome(1) == UpdateOutcome::Kept);
    assert!(rig.fixture.runs(1, 2));
    assert_eq!(rig.fixture.images.builds(), (Some("two"), None));
    assert!(rig.updates.record(1).unwrap().unwrap().restart_ns > 0);
    // Its later deaths are its own.
    rig.die(DeathCause::Panic);
    rig.fixture.until("it is back", |fixture| fixture.runs(1, 3));
    assert_eq!(rig.fixture.images.builds(), (Some("two"), None));
}

#[test]
fn one_that_dies_on_trial_makes_place_for_the_old_one() {
    let rig = rig("update-dies", &[]);
    rig.spare("two");
    rig.update(None).unwrap();
    rig.until_on_trial(1);
    rig.die(DeathCause::Exception(14));
    rig.fixture
        .until("the old one is back", |fixture| fixture.runs(1, 3));
    assert_eq!(rig.fixture.images.builds(), (Some("one"), None));
    assert_eq!(
        rig.outcome(1),
        UpdateOutcome::RolledBack(Text::new("page fault: played"))
    );
    // The same image can be tried again.
    rig.update(None).unwrap();
    rig.until_on_trial(2);
}

#[test]
fn one_that_dies_in_its_start_or_has_no_memory_is_rolled_back() {
    let rig = rig("update-start", &[]);
    for (number, start) in [(1, Start::Dies), (2, Start::NoMemory), (3, Start::Refused)] {
        rig.spare("two");
        rig.fixture.kernel.machine.lock().unwrap().domains[1]
            .starts
            .push_back(start);
        rig.update(None).unwrap();
        rig.fixture.until("it is rolled back", |fixture| {
            matches!(rig.outcome(number), UpdateOutcome::RolledBack(_))
                && fixture.status(1).domain.state == DomainState::Running
        });
        assert_eq!(rig.fixture.images.builds(), (Some("one"), None));
    }
    assert!(!rig.fixture.status(1).held);
}

#[test]
fn updates_in_a_row_go_back_to_the_last_that_proved_itself() {
    let rig = rig("update-row", &[]);
    rig.spare("two");
    rig.update(None).unwrap();
    rig.until_on_trial(1);
    rig.spare("three");
    rig.update(None).unwrap();
    rig.until_on_trial(2);
    assert_eq!(rig.outcome(1), UpdateOutcome::Superseded);
    rig.die(DeathCause::Panic);
    rig.fixture.until("it is rolled back", |fixture| {
        matches!(rig.outcome(2), UpdateOutcome::RolledBack(_)) && fixture.runs(1, 4)
    });
    assert_eq!(rig.fixture.images.builds(), (Some("one"), None));
    assert_eq!(rig.updates.count(), Ok(2));
}

#[test]
fn refusals_change_nothing_and_say_why() {
    let rig = rig("update-refused", &[]);
    let name = DomainName::new;
    assert_eq!(
        rig.updates.update(name("init"), None),
        Err(UpdateError::Supervisor)
    );
    assert_eq!(
        rig.updates.update(name("nobody"), None),
        Err(UpdateError::NoDomain)
    );
    assert_eq!(rig.update(None), Err(UpdateError::NothingStaged));
    assert_eq!(
        rig.update(Some(ImageSource::Upload)),
        Err(UpdateError::NothingStaged)
    );
    rig.spare("bad");
    assert_eq!(
        rig.update(None),
        Err(UpdateError::Refused(Text::new("it was changed")))
    );
    rig.spare("one");
    assert_eq!(rig.update(None), Err(UpdateError::SameImage(Build::new("one"))));
    assert!(rig.fixture.runs(1, 1), "nothing was stopped");
    assert_eq!(rig.updates.count(), Ok(0));
}

#[test]
fn what_was_uploaded_goes_before_the_spare_slot() {
    let rig = rig("update-upload", &[]);
    rig.spare("two");
    rig.fixture.images.set(|shelf| shelf.uploaded = Some("uploaded"));
    assert_eq!(rig.update(None).unwrap().to, Build::new("uploaded"));
    rig.until_on_trial(1);
    assert_eq!(
        rig.update(Some(ImageSource::Spare)).unwrap().to,
        Build::new("two")
    );
}

#[test]
fn one_that_is_just_being_started_is_waited_for() {
    let rig = rig("update-starting", &[]);
    rig.spare("two");
    rig.fixture.images.set(|shelf| shelf.starting_looks = 3);
    rig.update(None).unwrap();
    rig.until_on_trial(1);
}

#[test]
fn a_held_domain_is_updated_and_started() {
    let rig = rig("update-held", &[Start::Dies; 6]);
    // It dies at every start.
    rig.fixture.until("it is held", |fixture| fixture.status(1).held);
    rig.spare("two");
    let record = rig.update(None).unwrap();
    assert!(matches!(record.outcome, UpdateOutcome::OnTrial { .. }));
    assert_eq!(record.restart_ns, 0, "there was nothing to end");
    assert!(rig.fixture.runs(1, 7));
    assert!(!rig.fixture.status(1).held);
}

#[test]
fn a_stopped_domain_stays_down_with_another_image() {
    let rig = rig("update-stopped", &[]);
    rig.fixture.supervision.stop(1).unwrap();
    rig.spare("two");
    rig.update(None).unwrap();
    assert_eq!(rig.outcome(1), UpdateOutcome::AtNextStart);
    assert_eq!(rig.fixture.status(1).domain.state, DomainState::Dead);
    rig.fixture.supervision.start_by_order(1).unwrap();
    rig.until_on_trial(1);
    rig.die(DeathCause::Panic);
    rig.fixture.until("it is rolled back", |fixture| {
        matches!(rig.outcome(1), UpdateOutcome::RolledBack(_)) && fixture.runs(1, 3)
    });
    assert_eq!(rig.fixture.images.builds(), (Some("one"), None));
}

#[test]
fn a_restart_by_order_is_no_failure() {
    let rig = rig("update-restart", &[]);
    rig.spare("two");
    rig.update(None).unwrap();
    rig.until_on_trial(1);
    rig.fixture.supervision.restart(1).unwrap();
    rig.until_on_trial(1);
    assert_eq!(rig.fixture.images.builds(), (Some("two"), Some("one")));
}

#[test]
fn updates_do_not_count_against_the_restart_budget() {
    let rig = rig("update-budget", &[]);
    // The played policy holds after five restarts.
    for number in 1..=10 {
        rig.spare(if number % 2 == 0 { "two" } else { "three" });
        rig.update(None).unwrap();
        rig.until_on_trial(number);
    }
    assert!(!rig.fixture.status(1).held);
    assert!(rig.fixture.runs(1, 11));
}

#[test]
fn uploads_are_passed_on_by_name() {
    let rig = rig("update-uploads", &[]);
    let uploads: &dyn Uploads = &rig.updates;
    assert_eq!(
        uploads.begin(DomainName::new("init"), 5),
        Err(UpdateError::Supervisor)
    );
    assert_eq!(uploads.begin(DomainName::new("a"), 5), Ok(7));
    let part = ImagePart {
        length: 5,
        data: [b'x'; PART_BYTES],
    };
    uploads.part(7, 0, &RRef::new(part).unwrap()).unwrap();
    assert_eq!(
        uploads.finish(7),
        Err(UpdateError::Refused(Text::new("it has no signature")))
    );
    assert_eq!(uploads.abandon(7), Err(UpdateError::NoUpload));
}
