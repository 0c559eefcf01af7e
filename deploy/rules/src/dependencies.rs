//! The allow-list: every registry crate that gets onto the appliance, with the reason why it is trusted.
//!
//! What is linked is asked of `cargo tree` for exactly the packages that run there, because features that host tools turn
//! on don't count. Procedural macros run in the compiler and need not be listed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::project::{Layer, Project};
use crate::violation::Violation;

/// The list, relative to the root.
pub const LIST: &str = "docs/dependencies.toml";
/// Packages of kernel/ that serve tools on the host and never get onto the appliance.
const HOST_ONLY: [&str; 4] = ["guest-memory", "host-platform", "instruction-counter", "tap"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    dependency: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    why: String,
}

/// Checks that each linked registry crate is on the list, and that the list has no entry without need or reason.
///
/// # Errors
/// When the list can't be read or Cargo fails.
pub fn check(project: &Project) -> Result<Vec<Violation>> {
    let listed = read_list(&project.root)?;
    let linked = linked(project)?;
    let violation = |message: String| Violation {
        file: PathBuf::from(LIST),
        line: None,
        message,
    };
    let mut violations: Vec<Violation> = linked
        .iter()
        .filter(|name| !listed.contains_key(*name))
        .map(|name| violation(format!("`{name}` is linked into the appliance and not listed")))
        .collect();
    for (name, why) in &listed {
        if !linked.contains(name) {
            violations.push(violation(format!("`{name}` is listed and not linked")));
        } else if why.trim().is_empty() {
            violations.push(violation(format!("`{name}` has no reason")));
        }
    }
    Ok(violations)
}

fn read_list(root: &Path) -> Result<BTreeMap<String, String>> {
    let path = root.join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    let list: List = toml::from_str(&text).with_context(|| format!("{} can't be parsed", path.display()))?;
    Ok(list
        .dependency
        .into_iter()
        .map(|entry| (entry.name, entry.why))
        .collect())
}

/// Names of the registry crates that the appliance's packages link.
///
/// # Errors
/// When Cargo fails.
pub fn linked(project: &Project) -> Result<BTreeSet<String>> {
    let subjects: Vec<&str> = project
        .packages
        .iter()
        .filter(|package| !matches!(package.layer, Some(Layer::Host) | None) && !package.procedural_macro)
        .map(|package| package.name.as_str())
        .filter(|name| !HOST_ONLY.contains(name))
        .collect();
    if subjects.is_empty() {
        return Ok(BTreeSet::new());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(&project.root).args([
        "tree",
        "--all-features",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
    ]);
    for subject in &subjects {
        command.args(["--package", subject]);
    }
    let output = command.output().context("cargo can't be run")?;
    if !output.status.success() {
        bail!(
            "cargo tree failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| project.package(name).is_none())
        .map(str::to_owned)
        .collect())
}
