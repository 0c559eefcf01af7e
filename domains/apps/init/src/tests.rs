//! The supervisor over a kernel that is played, through the real proxies.

use crate::service::Service;
use crate::supervision::Supervision;
use crate::update_tests::Images;
use crate::workers::Workers;
use alloc::sync::Arc;
use domain_rt::{Handle, OwnerId, clock};
use interface::holdings::{Holdings, LeakReport};
use interface::kernel::{
    ControlError, DeathCause, DeathRecord, DomainControl, DomainName, DomainState, DomainStatus,
    MemoryStatus, Power, Reaped, ServiceError,
};
use interface::supervise::{Operator, Outage, SuperviseError, SupervisedStatus, Supervisor};
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
                while !machine.unblocked
                    && machine.domains[index as usize].status.state == DomainState::Starting
                {
                    machine = self.changed.wait(machine).unwrap();
                }
            }
            _ => {}
        }
        if machine.domains[index as usize].status.state != DomainState::Starting {
            return Err(ControlError::DiedAtStart);
        }
        machine.domains[index as usize].status.state = DomainState::Running;
        Ok(owner)
    }

    fn kill(&self, index: u16, cause: DeathCause) -> Result<(), ControlError> {
        let mut machine = self.machine.lock().unwrap();
        match machine
            .domains
            .get(index as usize)
            .map(|domain| domain.status.state)
        {
            None => Err(ControlError::NoDomain),
            Some(DomainState::Running | DomainState::Starting) => {
                self.die(&mut machine, index as usize, cause);
                Ok(())
            }
            Some(state) => Err(ControlError::WrongState(state)),
        }
    }

    fn holdings(&self, _index: u16) -> Result<Option<Holdings>, ControlError> {
        Ok(None)
    }

    fn leaks(&self) -> Result<LeakReport, ControlError> {
        Err(ControlError::OutOfMemory)
    }

    fn reap(&self, index: u16) -> Result<Reaped, ControlError> {
        let mut machine = self.machine.lock().unwrap();
        machine.reaps += 1;
        let domain = machine
            .domains
            .get_mut(index as usize)
            .ok_or(ControlError::NoDomain)?;
        if domain.status.state == DomainState::Dying {
            domain.status.state = DomainState::Dead;
        }
        Ok(Reaped::default())
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
    fixture_with_budget(name, immediate, floor_ms, 5, starts)
}

fn fixture_with_budget(
    name: &str,
    immediate: u32,
    floor_ms: u32,
    restart_budget: u32,
    starts: &[Start],
) -> Fixture {
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
                restart_budget,
                window_ms: 60_000,
                restart_cpu_permille: 20,
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

    fn release(&self, name: &str) -> Result<u64, SuperviseError> {
        self.service.release(DomainName::new(name))
    }

    fn start(&self, name: &str) -> Result<u64, SuperviseError> {
        self.service.start(DomainName::new(name))
    }

    fn stop(&self, name: &str) -> Result<(), SuperviseError> {
        self.service.stop(DomainName::new(name))
    }

    fn restart(&self, name: &str) -> Result<u64, SuperviseError> {
        self.service.restart(DomainName::new(name))
    }

    fn scripts(&self, index: usize, starts: &[Start]) {
        self.kernel.machine.lock().unwrap().domains[index]
            .starts
            .extend(starts);
    }

    /// Waits for what other threads are to do; the bound only ends a test that has failed.
    pub fn until(&self, what: &str, mut condition: impl FnMut(&Fixture) -> bool) {
        let begin = Instant::now();
        while !condition(self) {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "never: {what}; a is {:?}, b {:?}",
                self.status(1),
                self.status(2)
            );
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
    assert_eq!(fixture.start("a"), Err(SuperviseError::Held));
    assert_eq!(fixture.restart("a"), Err(SuperviseError::Held));
    assert_eq!(fixture.release("a"), Ok(7));
    assert!(fixture.runs(1, 7));
    assert!(!fixture.status(1).held);
    assert_eq!(fixture.release("a"), Err(SuperviseError::NotHeld));
    // Its deaths are forgotten: it is restarted at once again.
    fixture.kill("a").unwrap();
    fixture.until("a runs again", |fixture| fixture.runs(1, 8));
}

#[test]
fn a_stopped_domain_stays_down_until_it_is_started() {
    let fixture = fixture("stopped", 3, 10, &[]);
    fixture.stop("a").unwrap();
    let status = fixture.status(1);
    assert_eq!((status.domain.state, status.stopped), (DomainState::Dead, true));
    let death = fixture.service.death(0).unwrap().unwrap();
    assert_eq!(death.record.cause, DeathCause::Stopped);
    assert_eq!(fixture.stop("a"), Err(SuperviseError::AlreadyStopped));
    assert_eq!(fixture.kill("a"), Err(SuperviseError::NotRunning));
    assert_eq!(fixture.start("a"), Ok(2));
    assert!(fixture.runs(1, 2));
    assert!(!fixture.status(1).stopped);
    assert_eq!(fixture.start("a"), Err(SuperviseError::AlreadyRunning));
}

#[test]
fn restarts_by_order_are_not_counted() {
    let fixture = fixture("restarted", 1, 60_000, &[]);
    for generation in 2..20 {
        assert_eq!(fixture.restart("a"), Ok(generation));
    }
    fixture.kill("a").unwrap();
    fixture.until("a runs again at once", |fixture| fixture.runs(1, 20));
}

#[test]
fn a_restart_starts_what_is_stopped_or_waits() {
    let fixture = fixture("restart-down", 1, 60_000, &[]);
    fixture.stop("a").unwrap();
    assert_eq!(fixture.restart("a"), Ok(2));
    for generation in [2, 3] {
        fixture.until("b dies twice", |fixture| fixture.kill("b").is_ok());
        if generation == 2 {
            fixture.until("b runs again", |fixture| fixture.runs(2, 2));
        }
    }
    fixture.until("b waits", |fixture| {
        fixture.status(2).restart_at_ns > clock::now_ns()
    });
    assert_eq!(fixture.restart("b"), Ok(3));
    assert_eq!(fixture.status(2).restart_at_ns, 0);
}

#[test]
fn a_stop_ends_a_restart_that_waits() {
    let fixture = fixture("stop-waiting", 0, 50, &[]);
    fixture.kill("a").unwrap();
    fixture.until("a waits", |fixture| fixture.status(1).restart_at_ns > 0);
    fixture.stop("a").unwrap();
    assert_eq!(fixture.status(1).restart_at_ns, 0);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        fixture.status(1).domain.state,
        DomainState::Dead,
        "it is not started behind the operator's back"
    );
    assert_eq!(fixture.start("a"), Ok(2));
}

#[test]
fn a_stop_ends_a_start_that_blocks() {
    let fixture = fixture("stop-starting", 3, 1, &[]);
    fixture.scripts(1, &[Start::Blocks]);
    fixture.kill("a").unwrap();
    fixture.until("a starts", |fixture| {
        fixture.status(1).domain.state == DomainState::Starting
    });
    fixture.stop("a").unwrap();
    assert_eq!(fixture.status(1).domain.state, DomainState::Dead);
    assert!(fixture.status(1).stopped);
}

#[test]
fn a_start_while_it_dies_waits_for_the_end_of_it() {
    let fixture = fixture_with_budget("start-dying", 0, 60_000, 0, &[]);
    for generation in 2..50 {
        fixture.kill("a").unwrap();
        // Dying, dead or waiting: whatever the other thread has reached.
        assert_eq!(fixture.start("a"), Ok(generation));
        assert!(fixture.runs(1, generation));
        fixture.until("the death is handled", |fixture| {
            fixture.status(1).restart_at_ns == 0 && fixture.service.deaths() == Ok(generation - 1)
        });
    }
}

#[test]
fn requests_that_overlap_end_in_the_last_one() {
    let fixture = fixture_with_budget("overlap", 1_000, 1, 0, &[]);
    for _ in 0..50 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                host_platform::attach();
                let _ = fixture.stop("a");
            });
            scope.spawn(|| {
                host_platform::attach();
                let _ = fixture.restart("a");
            });
            scope.spawn(|| {
                host_platform::attach();
                let _ = fixture.kill("a");
            });
        });
        let stopped = fixture.status(1).stopped;
        fixture.until("it is as the last wish has it", |fixture| {
            let running = fixture.status(1).domain.state == DomainState::Running;
            let dead = fixture.status(1).domain.state == DomainState::Dead;
            if stopped { dead } else { running }
        });
        if stopped {
            fixture.start("a").unwrap();
        }
    }
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
    assert_eq!(fixture.start("b"), Ok(3));
    assert!(fixture.runs(2, 3), "the operator needs not wait for the delay");
}

#[test]
fn a_refused_image_is_skipped_and_said() {
    let fixture = fixture("refused", 3, 1, &[Start::Refused, Start::Refused]);
    let status = fixture.status(1);
    assert!(status.refused);
    assert_eq!(status.domain.generation, 0);
    assert!(fixture.runs(2, 1), "the rest boots");
    assert_eq!(fixture.start("a"), Err(SuperviseError::Refused));
    assert_eq!(fixture.start("a"), Ok(1));
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
    assert_eq!(fixture.release("b"), Err(SuperviseError::NotHeld));
    assert_eq!(fixture.start("b"), Err(SuperviseError::AlreadyRunning));
    assert_eq!(fixture.stop("init"), Err(SuperviseError::Supervisor));
    assert_eq!(fixture.restart("init"), Err(SuperviseError::Supervisor));
    assert_eq!(fixture.start("init"), Err(SuperviseError::AlreadyRunning));
    assert!(fixture.service.domain(3).unwrap().is_none());
    assert_eq!(fixture.service.memory(), Err(SuperviseError::Refused));
    assert_eq!(fixture.supervision.name(9).to_string(), "");
}
