//! `cargo xtask bench NAME`: runs the package `bench-NAME` under deploy/.
//!
//! A benchmark is a program of its own that understands `--json`; with it, it prints one object with every figure, its
//! unit, and the peer's.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo::{cargo, succeeds};

#[derive(Args)]
pub struct Arguments {
    /// Which measurement; without one, the list.
    name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// More arguments for the measurement.
    #[arg(last = true)]
    rest: Vec<String>,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let known = names(root)?;
    let Some(name) = &arguments.name else {
        println!("{}", known.join("\n"));
        return Ok(ExitCode::SUCCESS);
    };
    if !known.contains(name) {
        bail!("there is no benchmark `{name}`; there are: {}", known.join(", "));
    }
    let mut command = cargo(root);
    command.args([
        "run",
        "--quiet",
        "--profile",
        profile(name),
        "--package",
        &format!("bench-{name}"),
        "--",
    ]);
    if arguments.json {
        command.arg("--json");
    }
    Ok(if succeeds(command.args(&arguments.rest))? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Code that is measured on the host is built exactly like the appliance's own; these measure what QEMU executes, so nothing is
/// gained by the long link.
fn profile(name: &str) -> &'static str {
    if ["path", "nvme", "kv", "kv-recovery"].contains(&name) {
        "release"
    } else {
        "firmware"
    }
}

fn names(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("deploy");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .with_context(|| format!("{} can't be read", directory.display()))?
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("bench-")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}
