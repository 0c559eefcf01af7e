//! `cargo xtask bench kv-recovery`: how long the store takes to open, by the amount of data in it.
//!
//! For each amount a blank disk is given its partitions by the appliance, the store on it is filled by the engine on this machine (strings of zeros, so that
//! the file stays sparse), and the appliance is booted on it. It tells how long opening took and how much was read for it; that rate is put beside the one
//! at which the same appliance reads the disk in order.

#![forbid(unsafe_code)]

mod fill;

use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lab::{Disk, Guest, Plan, Programs};
use measure::Machine;
use serde_json::{Value, json};

/// The lab's name; another one than a person's own.
const NAME: &str = "bench-kv-recovery";
/// Room on the disk besides the data.
const ROOM_BYTES: u64 = 2 << 30;
/// How long the store may take to open.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures how long the store takes to open.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Amounts of data.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "1G,4G,16G", value_parser = lab::parse_size)]
    sizes: Vec<u64>,
}

/// One amount.
struct Opening {
    bytes: u64,
    keys: u64,
    open_ms: f64,
    read_bytes: f64,
    /// Reading in order, bytes a second.
    sequential: f64,
}

impl Opening {
    /// Bytes a second while it opened.
    fn rate(&self) -> f64 {
        self.read_bytes / (self.open_ms / 1e3).max(1e-3)
    }

    fn json(&self) -> Value {
        json!({
            "data": { "value": self.bytes, "unit": "bytes" },
            "keys": self.keys,
            "opening": { "value": self.open_ms, "unit": "ms" },
            "read": { "value": self.read_bytes, "unit": "bytes" },
            "rate": { "value": self.rate(), "unit": "bytes/s" },
            "sequential_read": { "value": self.sequential, "unit": "bytes/s" },
            "share_of_sequential": self.rate() / self.sequential,
            "reading_it_all": { "value": self.bytes as f64 / self.sequential * 1e3, "unit": "ms" },
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(openings) if arguments.json => {
            let all: Vec<Value> = openings.iter().map(Opening::json).collect();
            println!("{}", json!({ "openings": all }));
            ExitCode::SUCCESS
        }
        Ok(openings) => {
            print(&openings);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(openings: &[Opening]) {
    println!(
        "{:>8} {:>8} {:>12} {:>12} {:>12} {:>14} {:>8} {:>16}",
        "data", "keys", "opening", "read", "rate", "sequential", "share", "reading it all"
    );
    for opening in openings {
        println!(
            "{:>6} G {:>8} {:>9.0} ms {:>10.1} M {:>8.0} MB/s {:>10.0} MB/s {:>8.2} {:>13.0} ms",
            opening.bytes >> 30,
            opening.keys,
            opening.open_ms,
            opening.read_bytes / 1e6,
            opening.rate() / 1e6,
            opening.sequential / 1e6,
            opening.rate() / opening.sequential,
            opening.bytes as f64 / opening.sequential * 1e3
        );
    }
}

fn run(arguments: &Arguments) -> Result<Vec<Opening>> {
    let root = measure::root()?;
    measure::end_on_signals(&root, NAME)?;
    let programs = Programs::prepare(&root)?;
    let plan = measure::plan(&root)?;
    let guest = measure::appliance(&root, NAME, Ok)?;
    arguments
        .sizes
        .iter()
        .map(|&bytes| opening(&root, &plan, &programs, &guest, bytes))
        .collect()
}

fn opening(root: &Path, plan: &Plan, programs: &Programs, guest: &Guest, bytes: u64) -> Result<Opening> {
    let file = root.join("target/lab").join(NAME).join("store.raw");
    let disk = |blank| Disk {
        blank,
        host_flush: false,
        ..Disk::new(file.clone(), bytes + bytes / 8 + ROOM_BYTES)
    };
    let boot = |blank| {
        let guest = Guest {
            disk: Some(disk(blank)),
            memory_mib: 2048,
            ..guest.clone()
        };
        Machine::start(root, NAME, plan.clone(), programs, guest)
    };
    drop(boot(true)?);
    // The store that the first boot made is empty; its partition is all that is wanted.
    let keys = fill::fill(&file, bytes)?;
    let machine = boot(false)?;
    let statistics = opened(&machine, keys)?;
    let number = |name: &str| {
        statistics[name]
            .as_f64()
            .with_context(|| format!("`kv --json` tells no `{name}`: {statistics}"))
    };
    let result = Opening {
        bytes,
        keys,
        open_ms: number("open_ms")?,
        read_bytes: number("open_read_bytes")?,
        sequential: sequential(&machine)?,
    };
    drop(machine);
    std::fs::remove_file(&file)?;
    Ok(result)
}

/// Waits until the store is open; what it says of itself.
fn opened(machine: &Machine, keys: u64) -> Result<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = machine.console("kv --json")?;
        let value = said
            .lines()
            .find_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(value) = value
            && value["keys"].as_u64() >= Some(keys)
        {
            return Ok(value);
        }
        ensure!(Instant::now() < until, "the store doesn't open:\n{said}");
        sleep(Duration::from_millis(200));
    }
}

/// Bytes a second of reads in order.
fn sequential(machine: &Machine) -> Result<f64> {
    let said = machine.console("disk bench read sequential depth 8 block 131072 seconds 3 --json")?;
    let value: Value = said
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("`disk bench` answered no JSON:\n{said}"))?;
    value["bytes_per_second"]
        .as_f64()
        .with_context(|| format!("`disk bench` told no rate: {value}"))
}
