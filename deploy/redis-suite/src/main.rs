//! Redis' own test suite in external mode against a server that runs already: counts per file, every failure by name, and whether they are those that
//! are expected (`expected.toml`).
//!
//! The suite is that of Debian's source package, fetched into the cache when it is first run; nothing of it is in this tree. Each file runs by
//! itself, so that one that ends early takes nothing else with it. What is left out, because it tests other things than the server's commands: tests that need a server
//! of their own, Redis' debugging commands, its replication or its files.

#![forbid(unsafe_code)]

mod expected;
mod output;
mod page;
mod suite;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use progress::Step;
use provision::Program;
use serde_json::json;

use expected::Expected;
use output::FileResult;
use suite::{Limits, Suite};

/// Runs Redis' test suite against a running server.
///
/// Ends with 0 if exactly the tests fail that are known to and docs/redis-tests.md explains, with 1 if not, with 2 if it can't be run.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The server. All its data is deleted.
    #[arg(long)]
    to: SocketAddr,
    /// Only these files (`unit/type/string` …).
    files: Vec<String>,
    /// Seconds that a file may take.
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// Seconds that a test may be without progress.
    #[arg(long, default_value_t = 180)]
    test_limit: u64,
    /// Also tests that are marked as slow.
    #[arg(long)]
    slow: bool,
    /// Keep the suite's own output in this folder, a file for each.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Write the tables of this page (docs/redis-tests.md) anew; with all files.
    #[arg(long, value_name = "PAGE", conflicts_with = "files")]
    page: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Only fetch what is needed.
    #[arg(long)]
    prepare: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was as expected.
fn run(arguments: &Arguments) -> Result<bool> {
    ensure!(
        arguments.limit > 0 && arguments.test_limit > 0,
        "a limit of 0 seconds lets nothing run"
    );
    provision::ensure_programs(&[Program::TCL, Program::REDIS_CLI, Program::REDIS_BENCHMARK])?;
    let expected = Expected::read()?;
    let limits = Limits {
        file: Duration::from_secs(arguments.limit),
        test: Duration::from_secs(arguments.test_limit),
    };
    let suite = Suite::prepare(arguments.to, limits, arguments.slow)?;
    if arguments.prepare {
        return Ok(true);
    }
    let files = if arguments.files.is_empty() {
        &expected.run
    } else {
        &arguments.files
    };
    let mut results = Vec::new();
    let mut surprises = Vec::new();
    for file in files {
        let step = Step::start(file);
        let (result, text) = suite.run(file, &expected.left_out(file))?;
        if let Some(folder) = &arguments.keep {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("{}.log", file.replace('/', "-"))), text)?;
        }
        let new = expected.surprises(&result);
        if new.is_empty() {
            step.done(result.words());
        } else {
            step.failed(result.words());
        }
        surprises.extend(new);
        results.push(result);
    }
    if let Some(page) = &arguments.page {
        page::write(page, &results, &expected)?;
    }
    if arguments.json {
        print_json(&results, &surprises);
    } else {
        print(&results, &surprises);
    }
    Ok(surprises.is_empty())
}

fn sums(results: &[FileResult]) -> (usize, usize, usize) {
    let sum = |count: fn(&FileResult) -> usize| results.iter().map(count).sum();
    (
        sum(|result| result.passed),
        sum(|result| result.failures.len()),
        sum(|result| result.skipped),
    )
}

fn print_json(results: &[FileResult], surprises: &[String]) {
    let (passed, failed, skipped) = sums(results);
    println!(
        "{}",
        json!({ "passed": passed, "failed": failed, "skipped": skipped, "files": results, "surprises": surprises })
    );
}

fn print(results: &[FileResult], surprises: &[String]) {
    println!("{:<28} {:>6} {:>6} {:>7}", "file", "passed", "failed", "skipped");
    for result in results {
        let failed = result.failures.len();
        println!(
            "{:<28} {:>6} {failed:>6} {:>7}",
            result.file, result.passed, result.skipped
        );
        for failure in &result.failures {
            println!("    {}: {}", failure.test, failure.why);
        }
        if let Some(ending) = &result.ended_early {
            println!("    ended early: {ending}");
        }
    }
    let (passed, failed, skipped) = sums(results);
    println!("{:<28} {passed:>6} {failed:>6} {skipped:>7}", "all");
    if surprises.is_empty() {
        println!("As expected: docs/redis-tests.md explains each failure.");
        return;
    }
    println!("\nNot as expected:");
    for surprise in surprises {
        println!("  {surprise}");
    }
}
