//! `cargo xtask bench kv`: redis-benchmark against the appliance's store and against Debian's redis-server on Linux.
//!
//! Both run in the same lab, one after the other, on the same QEMU, card model and kind of disk, with the same `appendfsync`, and the same
//! redis-benchmark asks them from the client's namespace: SET and GET of 3-byte values over 50 connections, one request at a time (-P 1) and 16 (-P 16). Linux
//! keeps its append-only file on ext4. Instructions are the guest's, idle ones subtracted.

#![forbid(unsafe_code)]

mod load;
mod redis;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use lab::{Disk, Guest, Programs};
use linux_guest::peer;
use measure::{Figure, Machine, Sides, Table};
use provision::Program;

use load::{Load, Outcome};

/// The lab's name; another one than a person's own.
const NAME: &str = "bench-kv";
/// Instructions of a request that ours may take with `always` and -P 1.
const BUDGET_GET: f64 = 3000.0;
const BUDGET_SET: f64 = 4000.0;

/// Measures SET and GET, beside redis-server on Linux.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// When a write is durable.
    #[arg(long, default_value = "always")]
    appendfsync: Durability,
    /// Requests of each load with -P 1; 0 leaves them out.
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
    /// Requests of each load with -P 16; 0 leaves them out.
    #[arg(long, default_value_t = 200_000)]
    pipelined_requests: u64,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    connections: u32,
    /// CPUs of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Size of the disk.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = lab::parse_size)]
    disk_size: u64,
    #[command(flatten)]
    sides: Sides,
}

/// Redis' names of when a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Before its reply.
    Always,
    /// Within a second.
    Everysec,
    /// When the system likes.
    No,
}

impl Durability {
    /// As Redis writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::No => "no",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    measure::report(run(&arguments), arguments.json)
}

fn run(arguments: &Arguments) -> Result<Table> {
    let root = measure::root()?;
    measure::end_on_signals(&root, NAME)?;
    provision::ensure_programs(&[Program::REDIS_BENCHMARK, Program::REDIS_CLI, Program::MKFS_EXT4])?;
    let directory = root.join("target/lab").join(NAME);
    let programs = Programs::prepare(&root)?;
    let plan = measure::plan(&root)?;
    let disk = |name: &str| Disk {
        blank: true,
        ..Disk::new(directory.join(name), arguments.disk_size)
    };
    let start = |guest: Guest, disk: Disk| {
        let guest = Guest {
            disk: Some(disk),
            cpus: arguments.cpus,
            ..guest
        };
        Machine::start(&root, NAME, plan.clone(), &programs, guest)
    };
    let durability = arguments.appendfsync;
    let mut ours = None;
    if arguments.sides.has_ours() {
        let (guest, built) = measure::appliance(&root, NAME, |text| set_durability(text, durability))?;
        let guest = Guest {
            profile: arguments.sides.profile(),
            ..guest
        };
        let machine = start(guest, disk("ours.raw"))?;
        let images = arguments.sides.images(&built, &machine)?;
        ours = Some(load::all(
            &machine,
            "the appliance",
            &loads(arguments),
            images.as_ref(),
        )?);
    }
    let mut theirs = None;
    if arguments.sides.has_peer() {
        let disk = redis::disk(disk("peer.raw"))?;
        let guest = peer::guest(&directory, &plan, &[peer::Program::RedisServer])?;
        let machine = start(guest, disk)?;
        redis::start(&machine, durability)?;
        theirs = Some(load::all(
            &machine,
            "redis-server on Linux",
            &loads(arguments),
            None,
        )?);
    }
    Ok(table(&loads(arguments), ours, theirs, durability))
}

/// Every load, those that fill the store first.
fn loads(arguments: &Arguments) -> Vec<Load> {
    [(1, arguments.requests), (16, arguments.pipelined_requests)]
        .into_iter()
        .filter(|(_, requests)| *requests > 0)
        .flat_map(|(pipeline, requests)| {
            ["set", "get"].map(|test| Load {
                test,
                pipeline,
                requests,
                connections: arguments.connections,
            })
        })
        .collect()
}

/// The shipped configuration with another durability.
fn set_durability(text: String, durability: Durability) -> Result<String> {
    let line = |name: &str| format!("appendfsync = \"{name}\"");
    let before = ["always", "everysec", "no"]
        .map(line)
        .into_iter()
        .find(|line| text.contains(line.as_str()));
    ensure!(before.is_some(), "config/appliance.toml has no `appendfsync`");
    Ok(text.replace(&before.unwrap_or_default(), &line(durability.name())))
}

fn table(
    loads: &[Load],
    ours: Option<Vec<Outcome>>,
    theirs: Option<Vec<Outcome>>,
    durability: Durability,
) -> Table {
    let mut figures = Vec::new();
    for (index, load) in loads.iter().enumerate() {
        let find = |all: &Option<Vec<Outcome>>| all.as_ref().and_then(|all| all.get(index).copied());
        let (ours, peer) = (find(&ours), find(&theirs));
        let budget = match (load.test, load.pipeline, durability) {
            ("set", 1, Durability::Always) => Some(BUDGET_SET),
            ("get", 1, _) => Some(BUDGET_GET),
            _ => None,
        };
        let mut add = |quantity, unit, budget, of: fn(&Outcome) -> f64| {
            figures.push(Figure {
                name: load.to_string(),
                quantity,
                unit,
                ours: ours.as_ref().map(of),
                peer: peer.as_ref().map(of),
                budget,
            });
        };
        add("instructions", "instructions/req", budget, |outcome| {
            outcome.instructions_per_request
        });
        add("rate", "requests/s", None, |outcome| outcome.requests_per_second);
        add("latency_p50", "ms", None, |outcome| outcome.p50_ms);
        add("latency_p99", "ms", None, |outcome| outcome.p99_ms);
    }
    Table {
        peer: format!(
            "redis-server on Linux with ext4, appendfsync {}",
            durability.name()
        ),
        figures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_replaced_once_it_is_there() {
        let changed = set_durability(
            "a\nappendfsync = \"everysec\"\nb\n".to_owned(),
            Durability::Always,
        );
        assert_eq!(changed.unwrap(), "a\nappendfsync = \"always\"\nb\n");
        assert!(set_durability(String::new(), Durability::No).is_err());
    }
}
