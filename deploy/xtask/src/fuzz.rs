//! `cargo xtask fuzz`: the parsers of untrusted bytes under libFuzzer, for a while.
//!
//! Needs a nightly compiler, for fuzzing alone, and `cargo-fuzz`, which is installed if it is missing. Inputs are collected under
//! `target/fuzz`; those worth keeping go to `fuzz/corpus`, where the tests of the stable compiler run them.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo::{cargo, succeeds};

#[derive(Args)]
pub struct Arguments {
    /// Fuzz only this target; all, one after the other, without it. `--list` names them.
    target: Option<String>,
    /// How long each target is fuzzed.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// List the targets.
    #[arg(long)]
    list: bool,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let targets = targets(root)?;
    if arguments.list {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&String> = match &arguments.target {
        None => targets.iter().collect(),
        Some(name) => match targets.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!("there is no target `{name}`; `cargo xtask fuzz --list` names them"),
        },
    };
    check_tools(root)?;
    let mut failed = Vec::new();
    for target in chosen {
        eprintln!("── {target}: {} s", arguments.seconds);
        if !fuzz(root, target, arguments.seconds)? {
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}; the inputs are in fuzz/artifacts", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The programs of the package `fuzz/`, by name.
fn targets(root: &Path) -> Result<Vec<String>> {
    let programs = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&programs).with_context(|| format!("{} can't be read", programs.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// A command of the nightly compiler's Cargo.
fn nightly(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    // What runs this has set the stable compiler for its children.
    command
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .current_dir(root)
        .arg("+nightly");
    command
}

fn check_tools(root: &Path) -> Result<()> {
    let quietly = |command: &mut Command| {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !quietly(nightly(root).arg("--version")) {
        bail!("libFuzzer needs a nightly compiler: `rustup toolchain install nightly`");
    }
    if !quietly(nightly(root).args(["fuzz", "--version"])) {
        eprintln!("… Installing cargo-fuzz");
        if !succeeds(cargo(root).args(["install", "--quiet", "--locked", "cargo-fuzz"]))? {
            bail!("cargo-fuzz can't be installed: `cargo install cargo-fuzz`");
        }
    }
    Ok(())
}

fn fuzz(root: &Path, target: &str, seconds: u32) -> Result<bool> {
    let collected = root.join("target/fuzz").join(target);
    fs::create_dir_all(&collected).with_context(|| format!("{} can't be made", collected.display()))?;
    succeeds(
        nightly(root)
            .args(["fuzz", "run", "--fuzz-dir", "fuzz", target])
            .arg(&collected)
            .arg(root.join("fuzz/corpus").join(target))
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            // Threads and handles of the host's stand-in for the kernel live as long as the process.
            .args(["-detect_leaks=0", "-rss_limit_mb=4096", "-print_final_stats=1"]),
    )
}
