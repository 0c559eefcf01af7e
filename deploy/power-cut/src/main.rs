//! Replays a disk's write log to points at which power can fail, and opens the store at each.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use kv_load::oracle::Oracle;
use kv_load::record;
use power_cut::check::{self, Outcome, Plan};

/// Tries every power cut in a disk's write log (`-blockdev driver=blklogwrites`).
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The write log.
    #[arg(long)]
    log: PathBuf,
    /// What clients wrote and what was acknowledged (`kv-load run --mark LOG`).
    #[arg(long)]
    record: PathBuf,
    /// Points between flushes and forced writes at most, spread over the log; 0 for all.
    #[arg(long, default_value_t = 0)]
    points: usize,
    /// Cuts at each point with writes that are not durable dropped, torn and reordered.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Bytes of the disk's logical block.
    #[arg(long, default_value_t = 512)]
    block_bytes: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(outcome) => {
            print(&arguments, &outcome);
            if outcome.problems.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Outcome> {
    let oracle = Oracle::new(&record::read(&arguments.record)?);
    let plan = Plan {
        points: arguments.points,
        seeds: arguments.seeds,
        block_bytes: arguments.block_bytes,
    };
    check::run(&arguments.log, &oracle, plan)
}

fn print(arguments: &Arguments, outcome: &Outcome) {
    if arguments.json {
        match serde_json::to_string(outcome) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("error: {error}"),
        }
        return;
    }
    println!(
        "{} requests, of them {} flushes and forced writes",
        outcome.requests, outcome.barriers
    );
    println!(
        "{} points, and {} more with a part of what was not durable",
        outcome.points, outcome.cuts
    );
    println!(
        "{} times an acknowledged write was to be there",
        outcome.acknowledged
    );
    for problem in &outcome.problems {
        println!("PROBLEM {problem}");
    }
}
