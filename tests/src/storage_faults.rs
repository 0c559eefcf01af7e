//! What goes wrong with disks, tried one after the other under a load of writes: QEMU's block layer and controller do it (deploy/lab).
//!
//! Whatever the disk does, nothing panics, what was acknowledged is there, and the log says what happened. An error that the medium gives is passed up as an
//! error; a controller that lets commands hang, or finds its queues no more, is reset without a client's noticing, and a slow disk is only slow.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{CriticalWarning, DiskControl, DiskError, Operation};
use progress::Step;

use crate::context::Context;
use crate::kv_load::{KvLoad, check_no_error, check_reads, wait_until_loaded};
use crate::recovery::{deaths, kill};
use crate::running_lab::RunningLab;

/// How long a load goes on before the disk goes wrong, and after the log has told of it.
const CALM: Duration = Duration::from_millis(500);
const AFTERWARDS: Duration = Duration::from_secs(1);
/// A load ends after that even if nobody ends it.
const LONGEST_LOAD: Duration = Duration::from_secs(120);
/// How long it takes at most until the log tells of what was done.
const TELLING_LIMIT: Duration = Duration::from_secs(20);
/// So long a request is held back: less than the driver waits before it aborts a command, 10 s.
const HOLD: Duration = Duration::from_secs(4);
/// So long nothing can be read when a table is looked for.
const UNREADABLE: Duration = Duration::from_millis(1500);
/// How long it takes at most until a command that hangs has been aborted and the controller reset; after 12 s it is to be.
const RESET_LIMIT: Duration = Duration::from_secs(40);
/// What the driver says of a reset.
const RESETTING: &str = "resetting the NVMe controller";
/// Requests a second of a slow disk.
const SLOW_OPERATIONS: u64 = 60;

/// What is done to the disk.
struct Fault {
    name: &'static str,
    strike: fn(&RunningLab, &mut DiskControl) -> Result<()>,
    /// What the log must say of it; nothing is to be said when nothing is wrong but the time that it takes.
    told: Option<&'static str>,
    /// Whether no client may see it.
    hidden: bool,
    /// Domains that it kills.
    kills: u64,
}

const FAULTS: [Fault; 12] = [
    Fault {
        name: "write-error",
        strike: |_, disk| disk.fail_once(Operation::Write, 3, DiskError::Input),
        told: Some("a write at"),
        hidden: false,
        kills: 0,
    },
    Fault {
        name: "flush-error",
        strike: |_, disk| disk.fail_once(Operation::Flush, 2, DiskError::Input),
        told: Some("a flush"),
        hidden: false,
        kills: 0,
    },
    Fault {
        name: "no-space",
        strike: |_, disk| disk.fail_once(Operation::Write, 2, DiskError::NoSpace),
        told: Some("a write at"),
        hidden: false,
        kills: 0,
    },
    Fault {
        name: "errors-for-a-while",
        strike: |_, disk| {
            disk.fail_all(Operation::Write, DiskError::Input)?;
            thread::sleep(Duration::from_millis(300));
            disk.heal()
        },
        told: Some("a write at"),
        hidden: false,
        kills: 0,
    },
    Fault {
        name: "read-error",
        // What the load writes and reads is in memory too; this reads the disk itself. The store's cleaning may be faster and get the error.
        strike: |lab, disk| {
            disk.fail_once(Operation::Read, 3, DiskError::Input)?;
            lab.console("disk bench read depth 1 seconds 1").map(drop)
        },
        told: Some("a read at"),
        hidden: true,
        kills: 0,
    },
    Fault {
        name: "slow",
        strike: |_, disk| {
            disk.slow(SLOW_OPERATIONS)?;
            thread::sleep(Duration::from_secs(1));
            disk.heal()
        },
        told: None,
        hidden: true,
        kills: 0,
    },
    Fault {
        name: "held-command",
        strike: |_, disk| {
            disk.hold_next(Operation::Write)?;
            thread::sleep(HOLD);
            disk.release()
        },
        told: None,
        hidden: true,
        kills: 0,
    },
    Fault {
        name: "hung-command",
        strike: |lab, disk| {
            let before = resets(lab)?;
            disk.hang(Operation::Write)?;
            wait_for_resets(lab, before + 1)?;
            disk.heal()
        },
        told: Some("isn't answered; aborting it"),
        hidden: true,
        kills: 0,
    },
    Fault {
        name: "queues-out-of-reach",
        strike: |lab, disk| {
            let before = resets(lab)?;
            disk.deny_memory()?;
            wait_for_resets(lab, before + 1)
        },
        told: Some("it reports a fatal error"),
        hidden: true,
        kills: 0,
    },
    Fault {
        name: "smart-warning",
        strike: |_, disk| disk.warn(&[CriticalWarning::Spare]),
        told: Some("the NVMe controller warns"),
        hidden: true,
        kills: 0,
    },
    // Nothing can be read when the partition table is looked for: it is, again and again.
    Fault {
        name: "table-unreadable",
        strike: |lab, disk| {
            disk.fail_all(Operation::Read, DiskError::Input)?;
            kill(lab, "partitions")?;
            thread::sleep(UNREADABLE);
            disk.heal()
        },
        told: Some("can't be read"),
        hidden: false,
        kills: 1,
    },
    // The same at a start of the whole store; clients are told.
    Fault {
        name: "start-unreadable",
        strike: |lab, disk| {
            disk.fail_all(Operation::Read, DiskError::Input)?;
            for name in ["partitions", "kv-engine", "kv-server"] {
                kill(lab, name)?;
            }
            thread::sleep(UNREADABLE);
            let answer = redis(lab, "get k")?;
            disk.heal()?;
            ensure!(
                answer.starts_with("LOADING") || answer.starts_with("MISCONF"),
                "a read that waits for the disk is answered {answer:?}"
            );
            Ok(())
        },
        told: Some("no store: a disk's partition table can't be read"),
        hidden: false,
        kills: 3,
    },
];

/// How often the driver has reset its controller, as the log tells.
fn resets(lab: &RunningLab) -> Result<usize> {
    let log = storage_log(lab)?;
    Ok(log.iter().filter(|line| line.contains(RESETTING)).count())
}

/// Waits until it has done so `wanted` times, and the controller is back.
fn wait_for_resets(lab: &RunningLab, wanted: usize) -> Result<()> {
    let until = Instant::now() + RESET_LIMIT;
    while resets(lab)? < wanted || !lab.console("nvme")?.contains("ready") {
        ensure!(
            Instant::now() < until,
            "the controller wasn't reset within {} s",
            RESET_LIMIT.as_secs()
        );
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The test.
pub fn are_borne(context: &Context) -> Result<()> {
    provision::ensure_programs(&[provision::Program::REDIS_CLI])?;
    let lab = context.boot_store("storage-faults", None)?;
    lab.judge(faults(context, &lab))
}

fn faults(context: &Context, lab: &RunningLab) -> Result<()> {
    wait_until_loaded(lab)?;
    let mut loads = Vec::new();
    for fault in &FAULTS {
        let step = Step::start(format!("Disk fault {}", fault.name));
        let mut load = KvLoad::new(context, &format!("fault-{}", fault.name), LONGEST_LOAD)?;
        load.reconnect = true;
        load.ends_early = true;
        let deaths_before = deaths(lab, 1)?.total;
        let log_before = storage_log(lab)?;
        let summary = load.run(lab, || {
            thread::sleep(CALM);
            let mut disk = DiskControl::open(lab)?;
            (fault.strike)(lab, &mut disk)?;
            wait_until_told(lab, fault, &log_before)?;
            thread::sleep(AFTERWARDS);
            Ok(())
        })?;
        DiskControl::open(lab)?.heal()?;
        if fault.hidden {
            check_no_error(&summary).with_context(|| format!("clients noticed {}", fault.name))?;
        }
        check_reads(&summary)?;
        wait_until_loaded(lab)?;
        let acknowledged = load.verify(lab)?;
        let died = deaths(lab, 1)?.total - deaths_before;
        ensure!(
            died == fault.kills,
            "{died} domains died of {}, not {}",
            fault.name,
            fault.kills
        );
        ensure!(acknowledged > 0, "no write was acknowledged: {summary}");
        let log = storage_log(lab)?;
        let mut new = log.iter().filter(|line| !log_before.contains(line));
        let about = match fault.told {
            Some(told) => new.find(|line| line.contains(told)),
            None => new.next(),
        };
        ensure!(
            about.is_some() || fault.told.is_none(),
            "the log doesn't tell of {}: {log:?}",
            fault.name
        );
        step.done(format!(
            "{acknowledged} acknowledged writes, longest wait {} ms; replies {}; log: {}",
            summary["longest_ms"],
            summary["errors"],
            about.map_or("nothing", |line| line.trim())
        ));
        context.figure(
            &format!("{}_longest_wait", fault.name),
            summary["longest_ms"].as_u64().unwrap_or_default(),
            "ms",
        );
        loads.push(load);
    }
    // What was written under one fault outlived the others.
    for load in &loads {
        load.verify(lab)?;
    }
    removal(lab)
}

/// Waits until the log tells of a fault, if it is to, while the load goes on; whether it did in time is looked at afterwards.
fn wait_until_told(lab: &RunningLab, fault: &Fault, log_before: &[String]) -> Result<()> {
    let until = Instant::now() + TELLING_LIMIT;
    while let Some(told) = fault.told
        && Instant::now() < until
        && !storage_log(lab)?
            .iter()
            .any(|line| line.contains(told) && !log_before.contains(line))
    {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The controller is pulled out: the store says that it can't write, what is in memory is still read, and everything else goes on.
fn removal(lab: &RunningLab) -> Result<()> {
    let step = Step::start("Pulling the disk out");
    let log_before = storage_log(lab)?;
    let deaths_before = deaths(lab, 1)?.total;
    DiskControl::open(lab)?.pull()?;
    // Nobody knows what became of the write that finds out: its client gets an error, or loses its connection.
    let first = redis(lab, "set k v")?;
    ensure!(
        first.trim() != "OK",
        "a write was acknowledged though there is no disk"
    );
    // Of the next ones it is known.
    let answer = redis(lab, "set k v")?;
    ensure!(
        answer.starts_with("MISCONF") || answer.starts_with("ERR"),
        "a write without a disk is answered {answer:?}"
    );
    // The site has nothing to do with the disk.
    lab.run("client", "curl", &["-sS", "--fail", "-m", "10", &lab.url("")])?;
    let log = storage_log(lab)?;
    let line = log
        .iter()
        .find(|line| line.contains("nvme:") && !log_before.contains(line))
        .context("nothing in the log tells of the disk's removal")?;
    let died = deaths(lab, 1)?.total - deaths_before;
    ensure!(died == 0, "{died} domains died of the disk's removal");
    step.done(format!("{} ({})", answer.trim(), line.trim()));
    Ok(())
}

/// What redis-cli says of a command, whatever becomes of it.
fn redis(lab: &RunningLab, command: &str) -> Result<String> {
    let address = lab.store()?;
    let line = format!(
        "redis-cli -h {} -p {} {command} 2>&1 || true",
        address.ip(),
        address.port()
    );
    lab.run("client", "sh", &["-c", &line])
}

/// What the domains between store and disk have said: lines of the log ring, which the serial port shows only once nobody types.
fn storage_log(lab: &RunningLab) -> Result<Vec<String>> {
    let log = lab.console("log 1000")?;
    let about_storage = |line: &&str| {
        ["nvme:", "kv-engine:", "block-shadow:", "partitions:"]
            .iter()
            .any(|name| line.contains(name))
    };
    Ok(log.lines().filter(about_storage).map(str::to_owned).collect())
}
