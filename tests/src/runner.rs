//! Runs tests and says what came of them.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};

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

/// Runs those whose name contains one of `names`, or all; ends with a line `N passed, N failed`.
pub fn run(tests: &[Test], context: &Context, names: &[String], list: bool) -> Result<ExitCode> {
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|test| names.is_empty() || names.iter().any(|name| test.name.contains(name.as_str())))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no test has a name with {}",
        names.join(" or ")
    );
    if list {
        for test in chosen {
            println!("{:<20} {}", test.name, test.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = 0_usize;
    for test in &chosen {
        eprintln!("▶ {}: {}", test.name, test.about);
        let started = Instant::now();
        let outcome = (test.run)(context);
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("✓ {} ({seconds:.1} s)", test.name),
            Err(error) => {
                failed += 1;
                println!("✗ {} ({seconds:.1} s)\n{error:#}", test.name);
            }
        }
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
