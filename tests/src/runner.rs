//! Runs tests and says what came of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;

/// A test.
pub struct Test {
    /// Its name, to run it alone by.
    pub name: &'static str,
    /// What it promises.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Context) -> Result<()>,
}

/// Which tests to run, and what to leave behind.
pub struct Selection {
    /// Parts of names; all tests when empty.
    pub names: Vec<String>,
    /// Only list them.
    pub list: bool,
    /// Where the figures go, as JSON.
    pub json: Option<PathBuf>,
}

/// Runs those that are chosen; ends with a line `N passed, N failed`.
pub fn run(tests: &[Test], context: &Context, selection: &Selection) -> Result<ExitCode> {
    let Selection { names, list, json } = selection;
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|test| names.is_empty() || names.iter().any(|name| test.name.contains(name.as_str())))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no test has a name with {}; --list shows all",
        names.join(" or ")
    );
    if *list {
        for test in chosen {
            println!("{:<20} {}", test.name, test.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = 0_usize;
    let mut results = Vec::new();
    for test in &chosen {
        eprintln!("▶ {}: {}", test.name, test.about);
        let started = Instant::now();
        let outcome = (test.run)(context);
        let seconds = started.elapsed().as_secs_f64();
        let figures = context.take_figures();
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        match &error {
            None => println!("✓ {} ({seconds:.1} s)", test.name),
            Some(error) => {
                failed += 1;
                println!("✗ {} ({seconds:.1} s)\n{error}", test.name);
            }
        }
        results.push(json!({
            "name": test.name,
            "passed": error.is_none(),
            "seconds": seconds,
            "figures": figures,
            "error": error,
        }));
    }
    context.end_appliance();
    if let Some(path) = json {
        write(
            path,
            &json!({ "passed": chosen.len() - failed, "failed": failed, "tests": results }),
        )?;
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("{} can't be written", path.display()))
}
