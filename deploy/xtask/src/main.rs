//! `cargo xtask`: one command for everything a developer or operator does with the tree.
//!
//! Each subcommand has a file; what they do is in libraries beside this crate (image-builder, lab, rules, provision), so
//! that tests and benchmarks use the same code.

#![forbid(unsafe_code)]

mod bench;
mod beside;
mod build;
mod cargo;
mod domain;
mod fuzz;
mod lab_command;
mod lab_disk;
mod run;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Builds, runs, tests and measures the RedLeaf appliance.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot the appliance in the lab network with its serial console on this terminal (Ctrl-A X ends it).
    Run(run::Arguments),
    /// Everything CI runs: format, lints, rules, host tests, end-to-end tests.
    Test(test::Arguments),
    /// Build the kernel image and the boot archive.
    Build(build::Arguments),
    /// Build the signed image of one domain, to update a running appliance with.
    Domain(domain::Arguments),
    /// The appliance and its network in the background.
    Lab(lab_command::Arguments),
    /// Measurements, with the peer in the same run.
    Bench(bench::Arguments),
    /// The parsers of untrusted bytes under libFuzzer, for a while (nightly compiler).
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let outcome = root().and_then(|root| match Arguments::parse().command {
        Command::Run(arguments) => run::run(&root, &arguments),
        Command::Test(arguments) => test::run(&root, &arguments),
        Command::Build(arguments) => build::run(&root, &arguments),
        Command::Domain(arguments) => domain::run(&root, &arguments),
        Command::Lab(arguments) => lab_command::run(&root, &arguments),
        Command::Bench(arguments) => bench::run(&root, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&root, &arguments),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The project's root: the directory above `deploy/xtask`, where this was built.
fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("the project's root can't be found")
}
