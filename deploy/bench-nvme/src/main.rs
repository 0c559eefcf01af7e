//! `cargo xtask bench nvme`: 4 KiB random reads and writes, one and 32 under way at a time, the appliance beside Linux.
//!
//! Both run in the same lab, one after the other, on the same QEMU and the same disk file, which is filled first, so that no read meets a hole. The
//! appliance's figures are those of its console's `disk bench`, Linux' those of fio with io_uring and O_DIRECT. Both work on the scratch
//! partition that the appliance made. Instructions are the guest's, idle ones subtracted; of fio also those of a run that makes one
//! request, its start.

#![forbid(unsafe_code)]

mod appliance;
mod fio;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use lab::{Disk, Guest, Programs};
use linux_guest::peer;
use measure::{Figure, Machine, Sides, Table};
use progress::Step;

/// The lab's name; another one than a person's own.
const NAME: &str = "bench-nvme";
/// Instructions of an operation that ours may take.
const BUDGET: f64 = 1500.0;
/// Operations and how many are under way at a time.
const LOADS: [(Kind, u32); 4] = [
    (Kind::Read, 1),
    (Kind::Read, 32),
    (Kind::Write, 1),
    (Kind::Write, 32),
];

/// Measures 4 KiB random reads and writes, beside Linux.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Size of the disk.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = lab::parse_size)]
    disk_size: u64,
    /// Bytes of the disk's logical block, 512 or 4096.
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    disk_block: u32,
    #[command(flatten)]
    sides: Sides,
}

/// What is done with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reading
    Read,
    /// Writing
    Write,
}

/// What a load gave.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Operations a second.
    pub operations_per_second: f64,
    /// Guest instructions of each.
    pub instructions_per_operation: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// Latency that one in a hundred exceeds, in microseconds.
    pub p99_us: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    measure::report(run(&arguments), arguments.json)
}

fn run(arguments: &Arguments) -> Result<Table> {
    let root = measure::root()?;
    measure::end_on_signals(&root, NAME)?;
    let directory = root.join("target/lab").join(NAME);
    let programs = Programs::prepare(&root)?;
    let plan = measure::plan(&root)?;
    let disk = Disk {
        logical_block_bytes: arguments.disk_block,
        ..Disk::new(directory.join("measured.raw"), arguments.disk_size)
    };
    fill(&disk)?;
    let start = |guest: Guest| {
        let guest = Guest {
            disk: Some(disk.clone()),
            ..guest
        };
        Machine::start(&root, NAME, plan.clone(), &programs, guest)
    };
    let seconds = arguments.seconds;
    let mut ours = None;
    if arguments.sides.has_ours() {
        let (guest, built) = measure::appliance(&root, NAME, Ok)?;
        let machine = start(Guest {
            profile: arguments.sides.profile(),
            ..guest
        })?;
        let images = arguments.sides.images(&built, &machine)?;
        appliance::prepare(&machine)?;
        ours = Some(each("the appliance", |kind, depth| {
            appliance::measure(&machine, kind, depth, seconds, images.as_ref())
        })?);
    }
    let mut theirs = None;
    if arguments.sides.has_peer() {
        let machine = start(peer::guest(&directory, &plan, &[peer::Program::Fio])?)?;
        let target = fio::target(&machine)?;
        theirs = Some(each("Linux", |kind, depth| {
            fio::measure(&machine, &target, kind, depth, seconds)
        })?);
    }
    Ok(table(ours, theirs))
}

fn each(whose: &str, measure: impl Fn(Kind, u32) -> Result<Outcome>) -> Result<Vec<Outcome>> {
    LOADS
        .iter()
        .map(|&(kind, depth)| {
            let step = Step::start(format!("{} on {whose}", title(kind, depth)));
            let outcome = measure(kind, depth)?;
            step.done(format!(
                "{:.0} IOPS, {:.0} instructions each",
                outcome.operations_per_second, outcome.instructions_per_operation
            ));
            Ok(outcome)
        })
        .collect()
}

fn title(kind: Kind, depth: u32) -> String {
    let kind = match kind {
        Kind::Read => "random read",
        Kind::Write => "random write",
    };
    format!("{kind}, depth {depth}")
}

fn table(ours: Option<Vec<Outcome>>, theirs: Option<Vec<Outcome>>) -> Table {
    let mut figures = Vec::new();
    for (index, &(kind, depth)) in LOADS.iter().enumerate() {
        let find = |all: &Option<Vec<Outcome>>| all.as_ref().and_then(|all| all.get(index).copied());
        let (ours, peer) = (find(&ours), find(&theirs));
        let mut add = |quantity, unit, budget, of: fn(&Outcome) -> f64| {
            figures.push(Figure {
                name: title(kind, depth),
                quantity,
                unit,
                ours: ours.as_ref().map(of),
                peer: peer.as_ref().map(of),
                budget,
            });
        };
        add("instructions", "instructions/IO", Some(BUDGET), |outcome| {
            outcome.instructions_per_operation
        });
        add("rate", "IO/s", None, |outcome| outcome.operations_per_second);
        add("latency_p50", "us", None, |outcome| outcome.p50_us);
        add("latency_p99", "us", None, |outcome| outcome.p99_us);
    }
    Table {
        peer: "Linux, fio with io_uring and O_DIRECT".to_owned(),
        figures,
    }
}

/// Makes the disk, blank at both ends, where partition tables are, and full of noise between them.
fn fill(disk: &Disk) -> Result<()> {
    const EDGE: u64 = 1 << 20;
    const PIECE: usize = 1 << 20;
    let step = Step::start("Filling the disk");
    let context = || format!("{} can't be written", disk.file.display());
    Disk {
        blank: true,
        ..disk.clone()
    }
    .prepare()?;
    let file = File::options()
        .write(true)
        .open(&disk.file)
        .with_context(context)?;
    let mut noise = vec![0; PIECE];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    let mut to = &file;
    std::io::Seek::seek(&mut to, std::io::SeekFrom::Start(EDGE))?;
    for _ in 0..disk.bytes.saturating_sub(2 * EDGE) / PIECE as u64 {
        to.write_all(&noise).with_context(context)?;
    }
    file.sync_all().with_context(context)?;
    step.done(disk.file.display().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_disk_is_blank_where_tables_are() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path().join("disk"), 4 << 20);
        fill(&disk).unwrap();
        let bytes = std::fs::read(&disk.file).unwrap();
        assert_eq!(bytes.len(), 4 << 20);
        assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0));
        assert!(bytes[3 << 20..].iter().all(|byte| *byte == 0));
        assert!(bytes[1 << 20..3 << 20].iter().any(|byte| *byte != 0));
    }

    #[test]
    fn every_load_has_its_figures() {
        let outcome = Outcome {
            operations_per_second: 10.0,
            instructions_per_operation: 2000.0,
            p50_us: 1.0,
            p99_us: 2.0,
        };
        let table = table(Some(vec![outcome; LOADS.len()]), None);
        assert_eq!(table.figures.len(), LOADS.len() * 4);
        assert!(table.to_string().contains("OVER"));
    }
}
