//! `cargo xtask bench kv-recovery`: how long the store takes to open, by the amount of data in it.
//!
//! For each amount a blank disk is given its partitions by the appliance, the store on it is filled by the engine on this machine (strings of zeros, so that
//! the file stays sparse), and the appliance is booted on it. It tells how long the engine took to open and how long the server after it to answer commands
//! (the end of `LOADING`), and how much was read for both. Beside that stands how long the same appliance takes to read all of the data in order.

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
use progress::Step;
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
    /// The engine's opening.
    open_ms: f64,
    open_read_bytes: f64,
    /// From there until the server answers all commands.
    loading_ms: f64,
    loading_read_bytes: f64,
    /// Reading in order, bytes a second.
    sequential: f64,
}

impl Opening {
    /// Until all commands are answered, milliseconds.
    fn ready_ms(&self) -> f64 {
        self.open_ms + self.loading_ms
    }

    /// How long reading all of the data in order takes, milliseconds.
    fn reading_it_all_ms(&self) -> f64 {
        self.bytes as f64 / self.sequential * 1e3
    }

    /// Of that, the share that passes until all commands are answered.
    fn share(&self) -> f64 {
        self.ready_ms() / self.reading_it_all_ms()
    }

    fn json(&self) -> Value {
        json!({
            "data": { "value": self.bytes, "unit": "bytes" },
            "keys": self.keys,
            "opening": { "value": self.open_ms, "unit": "ms" },
            "opening_read": { "value": self.open_read_bytes, "unit": "bytes" },
            "loading": { "value": self.loading_ms, "unit": "ms" },
            "loading_read": { "value": self.loading_read_bytes, "unit": "bytes" },
            "ready": { "value": self.ready_ms(), "unit": "ms" },
            "sequential_read": { "value": self.sequential, "unit": "bytes/s" },
            "reading_it_all": { "value": self.reading_it_all_ms(), "unit": "ms" },
            "share_of_reading_it_all": self.share(),
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
        "{:>8} {:>8} {:>12} {:>9} {:>12} {:>9} {:>12} {:>14} {:>16} {:>6}",
        "data",
        "keys",
        "opening",
        "read",
        "loading",
        "read",
        "ready after",
        "sequential",
        "reading it all",
        "share"
    );
    for opening in openings {
        println!(
            "{:>6} G {:>8} {:>9.0} ms {:>7.1} M {:>9.0} ms {:>7.1} M {:>9.0} ms {:>9.0} MB/s {:>13.0} ms {:>6.2}",
            opening.bytes >> 30,
            opening.keys,
            opening.open_ms,
            opening.open_read_bytes / 1e6,
            opening.loading_ms,
            opening.loading_read_bytes / 1e6,
            opening.ready_ms(),
            opening.sequential / 1e6,
            opening.reading_it_all_ms(),
            opening.share()
        );
    }
}

fn run(arguments: &Arguments) -> Result<Vec<Opening>> {
    let root = measure::root()?;
    measure::end_on_signals(&root, NAME)?;
    let programs = Programs::prepare(&root)?;
    let plan = measure::plan(&root)?;
    let (guest, _) = measure::appliance(&root, NAME, Ok)?;
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
    let loading_ms = loaded(&machine, keys)?;
    let statistics = statistics(&machine)?;
    let number = |name: &str| {
        statistics[name]
            .as_f64()
            .with_context(|| format!("`kv --json` tells no `{name}`: {statistics}"))
    };
    let result = Opening {
        bytes,
        keys,
        open_ms: number("open_ms")?,
        open_read_bytes: number("open_read_bytes")?,
        loading_ms,
        loading_read_bytes: number("scan_read_bytes")?,
        sequential: sequential(&machine)?,
    };
    drop(machine);
    // Minutes on some file systems: each record of it is an extent of its own.
    let step = Step::start("Removing the disk's file");
    std::fs::remove_file(&file)?;
    step.done("");
    Ok(result)
}

/// Waits until the server answers all commands, with that many keys; how long that took it, in milliseconds.
fn loaded(machine: &Machine, keys: u64) -> Result<f64> {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = machine.console("log 1000")?;
        if let Some((found, took_ms)) = said.lines().find_map(ready) {
            ensure!(found == keys, "the server has {found} keys, not {keys}");
            return Ok(took_ms);
        }
        ensure!(Instant::now() < until, "the server isn't ready:\n{said}");
        sleep(Duration::from_millis(200));
    }
}

/// The keys and the milliseconds of the line that the server logs when it is ready.
fn ready(line: &str) -> Option<(u64, f64)> {
    let (_, rest) = line.split_once("ready: ")?;
    let (keys, rest) = rest.split_once(" keys of ")?;
    let (_, rest) = rest.split_once("read in ")?;
    let (took_ms, _) = rest.split_once(" ms")?;
    Some((keys.parse().ok()?, took_ms.parse().ok()?))
}

/// What the store says of itself.
fn statistics(machine: &Machine) -> Result<Value> {
    let said = machine.console("kv --json")?;
    said.lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("`kv` answered no JSON:\n{said}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_server_that_is_ready() {
        let line = "[    1.2] kv-server: ready: 1048 keys of 68120 entries, read in 312 ms";
        assert_eq!(ready(line), Some((1048, 312.0)));
        assert_eq!(ready("kv-server: loading: 5 of 9 entries"), None);
    }
}
