//! Whole dialogues, over a console and domains that are played, through the real proxies.

use crate::death_report_tests::Boxes;
use crate::disk_tests::{Device, Partitions};
use crate::network_tests::{Balance, Card};
use crate::nvme_tests::Disk;
use crate::session::Session;
use crate::update_tests::Images;
use domain_rt::{Handle, OwnerId};
use interface::balance::Balancer;
use interface::black_box::{BlackBoxes, DeathCounts};
use interface::block::BlockDevice;
use interface::holdings::{FINDINGS, FrameUses, Holdings, LeakReport};
use interface::kernel::{
    DeathCause, DeathRecord, DomainName, DomainState, DomainStatus, LogLine, LogReader, MemoryStatus, Power,
    SerialConsole, ServiceError,
};
use interface::net::NetDevice;
use interface::partition::Disks;
use interface::storage_health::StorageHealth;
use interface::supervise::{Operator, Outage, SuperviseError, SupervisedDeath, SupervisedStatus, Supervisor};
use interface::update::Updates;
use rref::Text;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Terminal {
    input: Mutex<VecDeque<Vec<u8>>>,
    output: Mutex<String>,
    shows_log: Mutex<Vec<bool>>,
    log: Mutex<Vec<LogLine>>,
}

impl SerialConsole for Terminal {
    fn read(&self, _deadline_ns: u64) -> Result<(u8, [u8; 64]), ServiceError> {
        let mut bytes = [0; 64];
        let input = self.input.lock().unwrap().pop_front().unwrap_or_default();
        bytes[..input.len()].copy_from_slice(&input);
        Ok((input.len() as u8, bytes))
    }

    fn write(&self, text: Text<512>) -> Result<(), ServiceError> {
        self.output.lock().unwrap().push_str(text.as_str());
        Ok(())
    }

    fn show_log(&self, on: bool) -> Result<(), ServiceError> {
        self.shows_log.lock().unwrap().push(on);
        Ok(())
    }
}

impl LogReader for Terminal {
    fn line(&self, from: u64) -> Result<Option<LogLine>, ServiceError> {
        let log = self.log.lock().unwrap();
        Ok(log.iter().find(|line| line.sequence >= from).copied())
    }
}

impl Power for Terminal {
    fn reboot(&self) -> Result<(), ServiceError> {
        self.output.lock().unwrap().push_str("[reboot]");
        Ok(())
    }

    fn power_off(&self) -> Result<(), ServiceError> {
        Err(ServiceError::Cancelled)
    }
}

/// Two domains: `ixgbe` runs, `maglev` is held.
#[derive(Default)]
struct Domains {
    killed: Mutex<Vec<String>>,
}

impl Supervisor for Domains {
    fn domain(&self, index: u16) -> Result<Option<SupervisedStatus>, SuperviseError> {
        let Some(name) = ["ixgbe", "maglev"].get(usize::from(index)) else {
            return Ok(None);
        };
        Ok(Some(SupervisedStatus {
            domain: DomainStatus {
                name: DomainName::new(name),
                state: if index == 0 {
                    DomainState::Running
                } else {
                    DomainState::Dead
                },
                generation: 7,
                threads: 2,
                memory_bytes: 3 << 20,
                shared_bytes: 512,
                crossings: 1_000_000,
                restart_immediate: 0,
                backoff_floor_ms: 0,
                backoff_ceiling_ms: 0,
                restart_budget: 0,
                window_ms: 0,
                restart_cpu_permille: 20,
            },
            restarts: 6,
            restart_cpu_ns: 0,
            held: index == 1,
            stopped: false,
            refused: false,
            restart_at_ns: 0,
        }))
    }

    fn death(&self, back: u32) -> Result<Option<SupervisedDeath>, SuperviseError> {
        Ok((back < 2).then(|| SupervisedDeath {
            record: DeathRecord {
                number: 2 - u64::from(back),
                domain: 0,
                generation: 6,
                cause: DeathCause::Panic,
                detail: Text::new("index out of bounds at receive.rs:7"),
                at_ns: 12_345_000_000,
                recovered_ns: 12_349_500_000,
            },
            name: DomainName::new("ixgbe"),
            outage_ns: if back == 0 { 0 } else { 6_000_000 },
        }))
    }

    fn numbered_death(&self, number: u64) -> Result<Option<SupervisedDeath>, SuperviseError> {
        match number {
            1 | 2 => self.death(2 - number as u32),
            _ => Ok(None),
        }
    }

    fn death_counts(&self, _index: u16) -> Result<Option<DeathCounts>, SuperviseError> {
        Ok(None)
    }

    fn deaths(&self) -> Result<u64, SuperviseError> {
        Ok(2)
    }

    fn holdings(&self, index: u16) -> Result<Option<Holdings>, SuperviseError> {
        Ok((index < 2).then_some(Holdings {
            image_pages: 10,
            heap_pages: 16,
            stack_pages: 64,
            threads: 2,
            handles: 3,
            shared_objects: 8,
            shared_bytes: 512,
            ..Holdings::default()
        }))
    }

    fn report_outage(&self, _outage: Outage) -> Result<(), SuperviseError> {
        Ok(())
    }

    fn memory(&self) -> Result<MemoryStatus, SuperviseError> {
        Ok(MemoryStatus {
            total_pages: 262_144,
            free_pages: 200_000,
            shared_used_bytes: 4096,
            shared_pages: 16,
            uses: FrameUses {
                shared_heap: 16,
                ..FrameUses::default()
            },
        })
    }
}

impl Operator for Domains {
    fn kill(&self, name: DomainName) -> Result<(), SuperviseError> {
        self.killed.lock().unwrap().push(name.as_str().into());
        match name.as_str() {
            "ixgbe" => Ok(()),
            "init" => Err(SuperviseError::Supervisor),
            _ => Err(SuperviseError::NoDomain),
        }
    }

    fn start(&self, _name: DomainName) -> Result<u64, SuperviseError> {
        Err(SuperviseError::AlreadyRunning)
    }

    fn stop(&self, name: DomainName) -> Result<(), SuperviseError> {
        match name.as_str() {
            "shell" => Err(SuperviseError::Yourself),
            _ => Ok(()),
        }
    }

    fn restart(&self, _name: DomainName) -> Result<u64, SuperviseError> {
        Ok(8)
    }

    fn release(&self, _name: DomainName) -> Result<u64, SuperviseError> {
        Err(SuperviseError::NotHeld)
    }

    fn leaks(&self) -> Result<LeakReport, SuperviseError> {
        let mut findings = [Text::EMPTY; FINDINGS];
        findings[0] = Text::new("3 pages of stacks belong to nobody");
        Ok(LeakReport {
            found: 1,
            findings,
            total_pages: 262_144,
            free_pages: 200_000,
            uses: FrameUses::default(),
            kernel_heap_used_bytes: 1_000,
            domain_threads: 30,
            kernel_threads: 5,
            shared_objects: 8,
        })
    }

    fn kill_supervisor(&self) -> Result<(), SuperviseError> {
        Ok(())
    }
}

pub struct Fixture {
    terminal: &'static Terminal,
    domains: &'static Domains,
    pub disk: &'static Disk,
    pub session: Session,
    _serial: MutexGuard<'static, ()>,
}

/// Imports are the process's, so tests take turns.
pub fn fixture() -> Fixture {
    static SERIAL: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
    let serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    host_platform::attach();
    let terminal: &'static Terminal = Box::leak(Box::default());
    let domains: &'static Domains = Box::leak(Box::default());
    host_platform::provide::<dyn SerialConsole>("console", terminal);
    host_platform::provide::<dyn LogReader>("log", terminal);
    host_platform::provide::<dyn Power>("power", terminal);
    host_platform::provide::<dyn Supervisor>("supervisor", domains);
    host_platform::provide::<dyn Updates>("updates", &Images);
    host_platform::provide::<dyn Operator>("operator", domains);
    host_platform::provide::<dyn BlackBoxes>("black_boxes", &Boxes);
    let disk: &'static Disk = Box::leak(Box::default());
    host_platform::provide::<dyn StorageHealth>("storage", disk);
    host_platform::provide::<dyn Disks>("disks", &Partitions);
    host_platform::provide::<dyn BlockDevice>("partitions", &Device);
    host_platform::provide::<dyn NetDevice>("nic", &Card);
    host_platform::provide_mortal::<dyn Balancer>("balancer", &Balance);
    Fixture {
        terminal,
        domains,
        disk,
        session: Session::new(
            Handle::connect("console", OwnerId::NONE, 0).unwrap(),
            Handle::connect("log", OwnerId::NONE, 0).unwrap(),
            Handle::connect("power", OwnerId::NONE, 0).unwrap(),
        ),
        _serial: serial,
    }
}

impl Fixture {
    /// Types bytes; what the terminal shows for them.
    pub fn types(&mut self, bytes: &[u8]) -> String {
        for piece in bytes.chunks(64) {
            self.terminal.input.lock().unwrap().push_back(piece.to_vec());
            self.session.serve().unwrap();
        }
        core::mem::take(&mut *self.terminal.output.lock().unwrap())
    }

    fn logs(&self, sequence: u64, text: &str) {
        self.terminal.log.lock().unwrap().push(LogLine {
            sequence,
            at_ns: 1_500_000_000,
            cpu: 0,
            level: 2,
            domain: DomainName::new("init"),
            text: Text::new(text),
        });
    }

    pub fn json(&mut self, line: &str) -> Value {
        serde_json::from_str(&self.session.answer(line)).unwrap()
    }
}

#[test]
fn a_command_is_echoed_answered_and_followed_by_the_prompt() {
    let mut fixture = fixture();
    assert_eq!(fixture.types(b"\r"), "\r\nredleaf> ");
    assert_eq!(
        fixture.types(b"kill ixgbe\r"),
        "kill ixgbe\r\nixgbe is killed.\r\nredleaf> "
    );
    assert_eq!(*fixture.domains.killed.lock().unwrap(), ["ixgbe"]);
}

#[test]
fn tables_are_for_people_and_json_for_scripts() {
    let mut fixture = fixture();
    let table = fixture.session.answer("domains");
    assert!(table.starts_with("NAME "), "{table}");
    assert!(table.contains("held"), "{table}");
    assert_eq!(table.lines().count(), 3);
    let json = fixture.json("domains --json");
    assert_eq!(json[0]["name"], "ixgbe");
    assert_eq!(json[0]["generation"], 7);
    assert_eq!(json[1]["held"], true);
    assert_eq!(json[1]["build"], "0.1.0+aa");

    let json = fixture.json("deaths last 10 --json");
    assert_eq!(json["total"], 2);
    assert_eq!(json["deaths"][0]["restart_ns"], 4_500_000);
    assert_eq!(json["deaths"][0]["outage_ns"], Value::Null);
    assert_eq!(json["deaths"][1]["outage_ns"], 6_000_000);
    let deaths = fixture.session.answer("deaths");
    assert!(deaths.contains("4.500"), "{deaths}");
    assert!(deaths.contains("\n2 of 2 deaths since boot;"), "{deaths}");

    assert_eq!(
        fixture.session.answer("stop maglev"),
        "maglev is stopped; `start maglev` starts it."
    );
    assert_eq!(
        fixture.session.answer("restart maglev"),
        "maglev is restarted: generation 8 runs."
    );
    assert_eq!(fixture.json("restart maglev --json")["name"], "maglev");
    let one = fixture.session.answer("domains ixgbe");
    assert!(one.contains("8, 512 B"), "{one}");
    assert_eq!(fixture.json("domains ixgbe --json")["holdings"]["handles"], 3);
    assert_eq!(fixture.json("holdings --json")["maglev"]["threads"], 2);
    assert_eq!(fixture.session.answer("holdings").lines().count(), 3);
    let leaks = fixture.session.answer("leaks");
    assert!(
        leaks.starts_with("3 pages of stacks belong to nobody."),
        "{leaks}"
    );
    assert_eq!(fixture.json("leaks --json")["found"], 1);

    assert_eq!(fixture.json("memory --json")["free_pages"], 200_000);
    assert!(fixture.session.answer("memory").contains("781.2 MiB"));
    assert_eq!(fixture.json("nic --json")["received_frames"], 42);
    assert!(fixture.session.answer("nic").contains("up, 10000 Mbit/s"));
    let json = fixture.json("maglev --json");
    assert_eq!(json[0]["backends"][1]["name"], "b2");
    let maglev = fixture.session.answer("maglev show");
    assert!(maglev.contains("50.0 %"), "{maglev}");
    assert!(fixture.session.answer("uptime").starts_with("up "));
}

#[test]
fn errors_are_sentences() {
    let mut fixture = fixture();
    for (line, error) in [
        ("kill nobody", "There is no domain of this name."),
        (
            "kill init",
            "Without the supervisor the machine reboots; use `reboot`.",
        ),
        (
            "stop shell",
            "A domain can't stop itself: nobody would be there to start it again.",
        ),
        ("release ixgbe", "The domain is not held."),
        ("domains nobody", "There is no domain of this name."),
        ("start ixgbe", "The domain is running already."),
        ("maglev drain web b9", "The service has no backend of this name."),
        ("maglev add web b3 10.0.0.1 0", "A weight is from 1 to 1000."),
        ("shutdown", "There is no command shutdown. Try `help`."),
        ("poweroff", "The wait was cut short."),
    ] {
        assert_eq!(fixture.session.answer(line), error);
    }
    assert_eq!(
        fixture.session.answer("maglev drain web b1"),
        "b1 gets no new connections of web."
    );
}

#[test]
fn tab_completes_commands_domains_and_backends() {
    let mut fixture = fixture();
    assert_eq!(fixture.types(b"ki\t"), "kill ");
    assert_eq!(fixture.types(b"i\t\r"), "ixgbe \r\nixgbe is killed.\r\nredleaf> ");
    assert_eq!(fixture.types(b"maglev dr\tw\t"), "maglev drain web ");
    let choices = fixture.types(b"\t\t");
    assert!(choices.starts_with('b'), "{choices:?}");
    assert!(choices.contains("b1  b2"), "{choices:?}");
    assert!(choices.contains("\rredleaf> maglev drain web b"), "{choices:?}");
}

#[test]
fn the_log_waits_while_somebody_types_and_is_shown_after() {
    let mut fixture = fixture();
    fixture.logs(1, "before");
    let shown = fixture.types(b"x");
    assert!(
        shown.contains("\rredleaf> "),
        "the log went over the prompt: {shown:?}"
    );
    fixture.logs(2, "meanwhile");
    assert_eq!(fixture.types(b"y"), "y");
    fixture.session.serve().unwrap();
    let quiet = fixture.types(b"");
    assert!(quiet.contains("init: meanwhile"), "{quiet:?}");
    assert!(!quiet.contains("before"), "{quiet:?}");
    assert!(quiet.ends_with("\rredleaf> xy\x1b[K"), "{quiet:?}");
    assert_eq!(*fixture.terminal.shows_log.lock().unwrap(), [false, true]);
    assert!(fixture.session.answer("log 1").ends_with("warn  init: meanwhile"));
    assert_eq!(fixture.session.answer("log 9").lines().count(), 2);
}

#[test]
fn a_reboot_says_so_first() {
    let mut fixture = fixture();
    let shown = fixture.types(b"reboot\r");
    assert!(shown.contains("restarting\r\n[reboot]"), "{shown:?}");
}
