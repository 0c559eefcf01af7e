//! The allow-list: every registry crate that gets onto the appliance, with the reason why it is trusted.
//!
//! What is linked is asked of `cargo tree` for exactly what runs there, the kernel's image and the generated domain images,
//! because features that host tools or tests turn on don't count. Procedural macros run in the compiler and need not be listed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::project::Project;
use crate::violation::Violation;

/// The list, relative to the root.
pub const LIST: &str = "docs/dependencies.toml";
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
/// When the list can't be read.
pub fn check(root: &Path, linked: &BTreeSet<String>) -> Result<Vec<Violation>> {
    let listed = read_list(root)?;
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

/// Names of the registry crates that a package links, or all packages of the workspace in `directory` when none is named.
///
/// # Errors
/// When Cargo fails.
pub fn linked(project: &Project, directory: &Path, package: Option<&str>) -> Result<BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .current_dir(directory)
        .args(["tree", "--edges", "normal,no-proc-macro", "--prefix", "none"]);
    match package {
        Some(package) => command.args(["--package", package]),
        None => command.arg("--workspace"),
    };
    let output = command.output().context("cargo can't be run")?;
    if !output.status.success() {
        bail!(
            "cargo tree failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        // `name version`, and for packages that are not a registry's, where they are.
        .filter(|line| !line.contains("(/"))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| project.package(name).is_none())
        .map(str::to_owned)
        .collect())
}
