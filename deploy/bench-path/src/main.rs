//! `cargo xtask bench path`: what the whole path costs, counted in guest instructions.
//!
//! Boots the appliance in a lab of its own with the instruction counter, and measures three things one after the other: an
//! idle appliance, HTTP requests for a file of 612 bytes over 20 connections (wrk), and 64-byte UDP packets through a VIP. What
//! an idle appliance executes is subtracted. Rates are those of this machine under emulation and only for comparison side
//! by side; instructions are what the budgets are about (docs/specification.md).

#![forbid(unsafe_code)]

mod http;
mod report;
mod setup;
mod udp;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use lab::InstructionReading;
use measure::Images;
use progress::Step;

use report::{Idle, Report};
use setup::Bench;

/// Counts guest instructions of an HTTP request and of a balanced packet.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Seconds of each load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Also say which functions of which image the instructions are executed in.
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// How many of the hottest blocks of code a profile lists.
    #[arg(long, default_value_t = 40)]
    blocks: usize,
    /// CPUs of the appliance.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(report) if arguments.json => {
            println!("{}", report.to_json());
            ExitCode::SUCCESS
        }
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Report> {
    let root = root()?;
    let bench = setup::start(&root, arguments.cpus, arguments.profile)?;
    let result = measure_all(&bench, arguments);
    bench.lab.down();
    result
}

fn measure_all(bench: &Bench, arguments: &Arguments) -> Result<Report> {
    let Bench {
        lab, node, counter, ..
    } = bench;
    let images = match arguments.profile {
        true => Some(Images::of(&bench.built, &lab.report().serial, arguments.blocks)?),
        false => None,
    };
    let idle = idle(counter)?;
    let http = http::measure(lab, counter, &idle, arguments.seconds, images.as_ref())?;
    let udp = udp::measure(lab, node, counter, &idle, arguments.seconds, images.as_ref())?;
    Ok(Report {
        cpus: arguments.cpus,
        idle,
        http,
        udp,
    })
}

/// What the appliance executes when nobody wants anything of it.
fn idle(counter: &Path) -> Result<Idle> {
    let step = Step::start("Measuring the idle appliance");
    // What the boot has left to do is not idling.
    sleep(Duration::from_secs(2));
    let before = InstructionReading::take(counter)?;
    sleep(Duration::from_secs(5));
    let after = InstructionReading::take(counter)?;
    let instructions_per_second = after.since(&before) as f64 / after.seconds_since(&before);
    step.done(format!("{instructions_per_second:.0} instructions/s"));
    Ok(Idle {
        instructions_per_second,
    })
}

/// Instructions of a load, without those of an idle appliance in the same time, for each of `units`.
fn per_unit(before: &InstructionReading, after: &InstructionReading, idle: &Idle, units: u64) -> f64 {
    let own = after.since(before) as f64 - idle.instructions_per_second * after.seconds_since(before);
    if units == 0 {
        f64::NAN
    } else {
        own.max(0.0) / units as f64
    }
}

/// The project's root: the directory above `deploy/bench-path`, where this was built.
fn root() -> Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    home.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("the project's root can't be found")
}
