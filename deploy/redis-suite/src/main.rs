//! Redis' own test suite in external mode against a server that runs already: counts per file, and every failure by name.
//!
//! The suite is that of Debian's source package, fetched into the cache when it is first run; nothing of it is in this tree. Each file runs by
//! itself, so that one that ends early takes nothing else with it. What is left out, because it tests other things than the server's commands: tests that need a server
//! of their own, Redis' debugging commands, its replication or its files.

#![forbid(unsafe_code)]

mod output;
mod suite;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use progress::Step;
use provision::Program;

use output::FileResult;
use suite::{FILES, Suite};

/// Runs Redis' test suite against a running server.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The server.
    #[arg(long)]
    to: SocketAddr,
    /// Only these files (`unit/type/string` …).
    files: Vec<String>,
    /// Seconds that a file may take.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Also tests that are marked as slow.
    #[arg(long)]
    slow: bool,
    /// Keep the suite's own output in this folder, a file for each.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Only fetch what is needed.
    #[arg(long)]
    prepare: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(results) => {
            if arguments.json {
                println!("{}", output::json(&results));
            } else {
                print(&results);
            }
            let failed = results.iter().any(|result| !result.is_good());
            ExitCode::from(u8::from(failed))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<FileResult>> {
    provision::ensure_programs(&[Program::TCL, Program::REDIS_CLI, Program::REDIS_BENCHMARK])?;
    let suite = Suite::prepare(arguments.to, Duration::from_secs(arguments.limit), arguments.slow)?;
    if arguments.prepare {
        return Ok(Vec::new());
    }
    let files: Vec<&str> = if arguments.files.is_empty() {
        FILES.to_vec()
    } else {
        arguments.files.iter().map(String::as_str).collect()
    };
    let mut results = Vec::new();
    for file in files {
        let step = Step::start(file);
        let (result, text) = suite.run(file)?;
        if let Some(folder) = &arguments.keep {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("{}.log", file.replace('/', "-"))), text)?;
        }
        let words = result.words();
        if result.is_good() {
            step.done(words);
        } else {
            step.failed(words);
        }
        results.push(result);
    }
    Ok(results)
}

fn print(results: &[FileResult]) {
    for result in results {
        println!("{:<28} {}", result.file, result.words());
        for failure in &result.failures {
            println!("    {failure}");
        }
        if let Some(ending) = &result.ended_early {
            println!("    ended early: {ending}");
        }
    }
    let passed: usize = results.iter().map(|result| result.passed).sum();
    let failed: usize = results.iter().map(|result| result.failures.len()).sum();
    println!("{passed} passed, {failed} failed");
}
