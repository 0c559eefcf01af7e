//! The supervisor over a kernel that is played, through the real proxies.

use crate::service::Service;
use crate::supervision::Supervision;
use crate::update_tests::Images;
use crate::workers::Workers;
use alloc::sync::Arc;
use domain_rt::{Handle, OwnerId, clock};
use interface::kernel::{
    ControlError, DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus,
    MemoryStatus, Power, ServiceError,
};
use interface::supervise::{Outage, SuperviseError, SupervisedStatus, Supervisor};
use interface::update::ImageControl;
use rref::Text;
use std::collections::VecDeque;
use std::string::ToString;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How one start of a domain goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Start {
    Dies,
    Refused,
    NoMemory,
    /// Returns when the test says so.
    Blocks,
}

pub struct Played {
    pub status: DomainStatus,
    /// What the next starts do; none: they work.
    pub starts: VecDeque<Start>,
}

#[derive(Default)]
pub struct Machine {
    pub domains: Vec<Played>,
    deaths: Vec<DeathRecord>,
    unblocked: bool,
    reaps: u32,
}

#[derive(Default)]
pub struct Kernel {
    pub machine: Mutex<Machine>,
    changed: Condvar,
}

impl Kernel {
    pub fn die(&self, machine: &mut Machine, index: usize, cause: DeathCause) {
        let status = &mut machine.domains[index].status;
        status.state = DomainState::Dying;
        let record = DeathRecord {
            number: machine.deaths.len() as u64 + 1,
            domain: index as u16,
            generation: status.generation,
            cause,
            detail: Text::new("played"),
            at_ns: clock::now_ns(),
            recovered_ns: 0,
        };
        machine.deaths.push(record);
        self.changed.notify_all();
    }
}

impl DomainControl for Kernel {
    fn status(&self, index: u16) -> Result<Option<DomainStatus>, ControlError> {
        let machine = self.machine.lock().unwrap();
        Ok(machine.domains.get(index as usize).map(|domain| domain.status))
    }

    fn start(&self, index: u16) -> Result<OwnerId, ControlError> {
        let mut machine = self.machine.lock().unwrap();
        let Some(domain) = machine.domains.get_mut(index as usize) else {
            return Err(ControlError::NoDomain);
        };
        match domain.status.state {
            DomainState::Stopped | DomainState::Dead => {}
            state => return Err(ControlError::WrongState(state)),
        }
        let script = domain.starts.pop_front();
        match script {
            Some(Start::Refused) => return Err(ControlError::BadImage(Text::new("a flipped byte"))),
            Some(Start::NoMemory) => return Err(ControlError::OutOfMemory),
            _ => {}
        }
        domain.status.generation += 1;
        domain.status.state = DomainState::Starting;
        let owner = OwnerId::new(index + 1, domain.status.generation);
        match script {
            Some(Start::Dies) => {
                self.die(&mut machine, index as usize, DeathCause::Panic);
                return Err(ControlError::DiedAtStart);
            }
            Some(Start::Blocks) => {
                while !machine.unblocked {
                    machine = self.changed.wait(machine).unwrap();
                }
            }
            _ => {}
        }
        machine.domains[index as usize].status.state = DomainState::Running;
        Ok(owner)
    }

    fn kill(&self, index: u16) -> Result<(), ControlError> {
        let mut machine = self.machine.lock().unwrap();
        match machine
            .domains
            .get(index as usize)
            .map(|domain| domain.status.state)
        {
            None => Err(ControlError::NoDomain),
            Some(DomainState::Running) => {
                self.die(&mut machine, index as usize, DeathCause::Killed);
                Ok(())
            }
            Some(state) => Err(ControlError::WrongState(state)),
        }
    }

    fn reap(&self, index: u16) -> Result<(), ControlError> {
        let mut machine = self.machine.lock().unwrap();
        machine.reaps += 1;
        let domain = machine
            .domains
            .get_mut(index as usize)
            .ok_or(ControlError::NoDomain)?;
        if domain.status.state == DomainState::Dying {
            domain.status.state = DomainState::Dead;
        }
        Ok(())
    }

    fn wait_death(&self, after: u64, _deadline_ns: u64) -> Result<Option<DeathRecord>, ControlError> {
        let mut machine = self.machine.lock().unwrap();
        loop {
            // The newest, so that the supervisor has to ask for those between.
            if let Some(record) = machine.deaths.last().filter(|record| record.number > after) {
                return Ok(Some(*record));
            }
            machine = self.changed.wait(machine).unwrap();
        }
    }

    fn death(&self, number: u64) -> Result<Option<DeathRecord>, ControlError> {
        let machine = self.machine.lock().unwrap();
        Ok(machine.deaths.get(number as usize - 1).copied())
    }

    fn memory(&self) -> Result<MemoryStatus, ControlError> {
        Err(ControlError::OutOfMemory)
    }
}

struct Switch;

impl Power for Switch {
    fn reboot(&self) -> Result<(), ServiceError> {
        panic!("nothing here is a reason to reboot");
    }

    fn power_off(&self) -> Result<(), ServiceError> {
        Err(ServiceError::Cancelled)
    }
}

pub struct Fixture {
    pub kernel: &'static Kernel,
    pub images: &'static Images,
    pub supervision: Arc<Supervision>,
    service: Service,
}

/// A machine of `init` and domains `a` and `b`, with the given starts of `a`.
pub fn fixture(name: &str, immediate: u32, floor_ms: u32, starts: &[Start]) -> Fixture {
    host_platform::attach();
    let kernel: &'static Kernel = Box::leak(Box::default());
    for (index, domain) in ["init", "a", "b"].into_iter().enumerate() {
        kernel.machine.lock().unwrap().domains.push(Played {
            status: DomainStatus {
                name: DomainName::new(domain),
                state: if index == 0 {
                    DomainState::Running
                } else {
                    DomainState::Stopped
                },
                generation: u64::from(index == 0),
                threads: 1,
                memory_bytes: 0,
                shared_bytes: 0,
                crossings: 0,
                restart_immediate: immediate,
                backoff_floor_ms: floor_ms,
                backoff_ceiling_ms: 60_000,
                restart_budget: 5,
                window_ms: 60_000,
            },
            starts: VecDeque::new(),
        });
    }
    kernel.machine.lock().unwrap().domains[1].starts.extend(starts);
    host_platform::provide::<dyn DomainControl>(name, kernel);
    let power = std::format!("{name}-power");
    host_platform::provide::<dyn Power>(&power, &Switch);
    let control = Handle::connect(name, OwnerId::NONE, 0).unwrap();
    let images: &'static Images = Box::leak(Box::new(Images::new(kernel)));
    let images_name = std::format!("{name}-images");
    host_platform::provide::<dyn ImageControl>(&images_name, images);
    let images_handle = Handle::connect(&images_name, OwnerId::NONE, 0).unwrap();
    let supervision = Arc::new(Supervision::new(control, images_handle).unwrap());
    Workers::start(
        supervision.clone(),
        Handle::connect(&power, OwnerId::NONE, 0).unwrap(),
    )
    .unwrap();
    crate::boot(&supervision);
    Fixture {
        kernel,
        images,
        service: Service::new(supervision.clone()),
        supervision,
    }
}

impl Fixture {
    pub fn status(&self, index: u16) -> SupervisedStatus {
        self.service.domain(index).unwrap().unwrap()
    }

    pub fn kill(&self, name: &str) -> Result<(), SuperviseError> {
        self.service.kill(DomainName::new(name))
    }

    fn release(&self, name: &str) -> Result<(), SuperviseError> {
        self.service.release(DomainName::new(name))
    }

    /// Waits for what other threads are to do; the bound only ends a test that has failed.
    pub fn until(&self, what: &str, mut condition: impl FnMut(&Fixture) -> bool) {
        let begin = Instant::now();
        while !condition(self) {
            assert!(begin.elapsed() < Duration::from_secs(20), "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn runs(&self, index: u16, generation: u64) -> bool {
        let domain = self.status(index).domain;
        domain.state == DomainState::Running && domain.generation == generation
    }
}

#[test]
fn a_killed_domain_comes_back_as_the_next_generation() {
    let fixture = fixture("killed", 3, 10, &[]);
    fixture.kill("a").unwrap();
    fixture.until("a runs again", |fixture| {
        fixture.runs(1, 2)
            && fixture
                .service
                .death(0)
                .unwrap()
                .is_some_and(|death| death.record.recovered_ns != 0)
    });
    let death = fixture.service.death(0).unwrap().unwrap();
    assert_eq!(death.name, DomainName::new("a"));
    assert_eq!(death.record.generation, 1);
    assert!(death.record.recovered_ns >= death.record.at_ns);
    assert_eq!(fixture.status(1).restarts, 1);
    assert_eq!(fixture.service.deaths(), Ok(1));
    let outage = Outage {
        domain: DomainName::new("a"),
        generation: 1,
        outage_ns: 5,
    };
    fixture.service.report_outage(outage).unwrap();
    assert_eq!(fixture.service.death(0).unwrap().unwrap().outage_ns, 5);
    assert!(
        fixture.kernel.machine.lock().unwrap().reaps > 0,
        "what it held is given back"
    );
}

#[test]
fn a_crash_loop_is_held_until_it_is_released() {
    let fixture = fixture("loop", 2, 1, &[Start::Dies; 6]);
    fixture.until("a is held", |fixture| fixture.status(1).held);
    assert_eq!(
        fixture.service.deaths(),
        Ok(6),
        "the first start and five restarts"
    );
    assert_eq!(fixture.status(1).restart_at_ns, 0);
    assert!(fixture.runs(2, 1), "nobody else cares");
    fixture.release("a").unwrap();
    assert!(fixture.runs(1, 7));
    assert!(!fixture.status(1).held);
    assert_eq!(fixture.release("a"), Err(SuperviseError::AlreadyRunning));
}

#[test]
fn a_start_that_blocks_and_a_delay_hold_up_no_other_restart() {
    let fixture = fixture("blocked", 1, 60_000, &[]);
    fixture.kernel.machine.lock().unwrap().domains[1]
        .starts
        .push_back(Start::Blocks);
    fixture.kill("a").unwrap();
    fixture.until("a starts", |fixture| {
        fixture.status(1).domain.state == DomainState::Starting
    });
    fixture.kill("b").unwrap();
    fixture.until("b runs again", |fixture| fixture.runs(2, 2));
    // The second death of `b` waits a minute; `a`, unblocked, does not.
    fixture.kill("b").unwrap();
    fixture.until("b waits", |fixture| {
        fixture.status(2).restart_at_ns > clock::now_ns()
    });
    fixture.kernel.machine.lock().unwrap().unblocked = true;
    fixture.kernel.changed.notify_all();
    fixture.until("a runs again", |fixture| fixture.runs(1, 2));
    fixture.release("b").unwrap();
    assert!(fixture.runs(2, 3), "the operator needs not wait for the delay");
}

#[test]
fn a_refused_image_is_skipped_and_said() {
    let fixture = fixture("refused", 3, 1, &[Start::Refused, Start::Refused]);
    let status = fixture.status(1);
    assert!(status.refused);
    assert_eq!(status.domain.generation, 0);
    assert!(fixture.runs(2, 1), "the rest boots");
    assert_eq!(fixture.release("a"), Err(SuperviseError::Refused));
    fixture.release("a").unwrap();
    assert!(!fixture.status(1).refused, "the third image is a good one");
}

#[test]
fn a_restart_without_memory_is_tried_again() {
    let fixture = fixture("memory", 1, 1, &[]);
    fixture.kernel.machine.lock().unwrap().domains[1]
        .starts
        .extend([Start::NoMemory, Start::NoMemory]);
    fixture.kill("a").unwrap();
    fixture.until("a runs again", |fixture| fixture.runs(1, 2));
    assert_eq!(fixture.service.deaths(), Ok(1));
}

#[test]
fn deaths_that_came_together_are_all_recorded_in_order() {
    let fixture = fixture("together", 50, 1, &[]);
    {
        let mut machine = fixture.kernel.machine.lock().unwrap();
        fixture.kernel.die(&mut machine, 1, DeathCause::Exception(14));
        fixture.kernel.die(&mut machine, 2, DeathCause::Panic);
    }
    fixture.until("both are back", |fixture| {
        fixture.runs(1, 2) && fixture.runs(2, 2)
    });
    let mut numbers = [0, 1].map(|back| fixture.service.death(back).unwrap().unwrap().record.number);
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let fixture = fixture("requests", 3, 1, &[Start::NoMemory]);
    assert_eq!(fixture.kill("init"), Err(SuperviseError::Supervisor));
    assert_eq!(fixture.kill("nobody"), Err(SuperviseError::NoDomain));
    assert_eq!(fixture.kill("a"), Err(SuperviseError::NotRunning));
    assert_eq!(fixture.release("nobody"), Err(SuperviseError::NoDomain));
    assert_eq!(fixture.release("b"), Err(SuperviseError::AlreadyRunning));
    assert!(fixture.service.domain(3).unwrap().is_none());
    assert_eq!(fixture.service.memory(), Err(SuperviseError::Refused));
    assert_eq!(fixture.supervision.name(9).to_string(), "");
}
