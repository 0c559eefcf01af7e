//! Runs tests and says what came of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;

/// How much of a failure is told once more at the end.
const FAILURE_LINES: usize = 6;
const FAILURE_LINE_CHARACTERS: usize = 600;

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
    let mut times = Vec::new();
    let mut failures = String::new();
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
                failures += &failure(test.name, error);
            }
        }
        times.push((seconds, test.name));
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
    // At the end once more: of a long run that is what a person looks at.
    print!("{}{failures}", by_time(times));
    println!("{} passed, {failed} failed", chosen.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line for each test, the longest first.
fn by_time(mut times: Vec<(f64, &str)>) -> String {
    times.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let line = |(seconds, name): &(f64, &str)| format!("{seconds:>8.1} s  {name}\n");
    times.iter().map(line).collect()
}

/// What became of a test that failed, its first lines: pages of a domain's log may follow them.
fn failure(name: &str, error: &str) -> String {
    let lines = error.lines().take(FAILURE_LINES);
    lines.fold(format!("✗ {name}\n"), |told, line| {
        let line: String = line.chars().take(FAILURE_LINE_CHARACTERS).collect();
        told + "    " + &line + "\n"
    })
}

fn write(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_a_few_lines() {
        assert_eq!(failure("short", "why"), "✗ short\n    why\n");
        let long = failure("long", &"a\n".repeat(100));
        assert_eq!(long.lines().count(), 1 + FAILURE_LINES);
    }

    #[test]
    fn the_longest_test_comes_first() {
        let table = by_time(vec![(1.25, "short"), (70.0, "long"), (2.0, "middle")]);
        assert_eq!(table, "    70.0 s  long\n     2.0 s  middle\n     1.2 s  short\n");
    }
}
