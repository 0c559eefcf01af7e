//! `cargo xtask test`: everything CI runs, step by step, with the time each took.
//!
//! The end-to-end tests wait much of their time, for machines more than for CPUs. What only computes goes on beside them, with what they leave of
//! the CPUs (`beside.rs`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use rules::{Project, Violation};

use crate::beside::{Images, Steps};
use crate::cargo::{cargo, succeeds};

#[derive(Args)]
pub struct Arguments {
    /// Run only these steps (may be given several times); `--list` names them.
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// List the steps.
    #[arg(long)]
    list: bool,
}

/// A step: its name, what it shows, and how it is run.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Path) -> Result<bool>,
    /// Whether it only computes, and so may run beside the end-to-end tests.
    computes: bool,
}

/// What came of a step.
pub struct Outcome {
    /// The step.
    pub name: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub time: Duration,
}

const HOST: &str = "host";
const END_TO_END: &str = "end-to-end";

const STEPS: [Step; 9] = [
    Step {
        name: "format",
        about: "rustfmt changes nothing",
        run: format,
        computes: false,
    },
    Step {
        name: "lints",
        about: "no warning from rustc or clippy",
        run: lints,
        computes: true,
    },
    Step {
        name: "unsafe",
        about: "no `unsafe` outside kernel/, and none inside without its argument",
        run: unsafe_gate,
        computes: false,
    },
    Step {
        name: "layers",
        about: "every crate depends only on what its layer may",
        run: layers,
        computes: false,
    },
    Step {
        name: "dependencies",
        about: "every registry crate on the appliance has its reason",
        run: dependencies,
        computes: false,
    },
    Step {
        name: "planted",
        about: "the three rules notice violations planted in a copy",
        run: planted,
        computes: false,
    },
    Step {
        name: HOST,
        about: "unit and property tests on this machine",
        run: host,
        computes: false,
    },
    Step {
        name: "models",
        about: "what several CPUs touch, in every order that the model checker tries",
        run: models,
        computes: true,
    },
    Step {
        name: END_TO_END,
        about: "the image booted in the lab",
        // With what runs beside it.
        run: |root| end_to_end(root, None, Vec::new(), &mut Vec::new()),
        computes: false,
    },
];

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for step in &STEPS {
            println!("{:<14} {}", step.name, step.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        bail!("there is no step `{unknown}`; `cargo xtask test --list` names them");
    }
    let is_chosen =
        |step: &&Step| arguments.only.is_empty() || arguments.only.iter().any(|name| name == step.name);
    let boots = STEPS.iter().filter(is_chosen).any(|step| step.name == END_TO_END);
    let (beside, first): (Vec<&Step>, Vec<&Step>) = STEPS
        .iter()
        .filter(is_chosen)
        .partition(|step| boots && step.computes);
    let mut images = None;
    let mut outcomes = Vec::new();
    for step in first {
        eprintln!("── {}: {}", step.name, step.about);
        let started = Instant::now();
        if step.name == HOST && boots {
            images = Images::begin(root);
        }
        let outcome = if step.name == END_TO_END {
            let names = beside.iter().map(|step| step.name).collect();
            end_to_end(root, images.take(), names, &mut outcomes)
        } else {
            (step.run)(root)
        };
        // An error of one step must not hide what the others would say.
        let passed = outcome.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
        outcomes.push(Outcome {
            name: step.name,
            passed,
            time: started.elapsed(),
        });
    }
    eprintln!();
    for Outcome { name, passed, time } in &outcomes {
        println!(
            "{} {name:<14} {:>7.1} s",
            if *passed { "✓" } else { "✗" },
            time.as_secs_f64()
        );
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    println!("steps: {} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn format(root: &Path) -> Result<bool> {
    succeeds(cargo(root).args(["fmt", "--all", "--check"]))
}

/// All crates for this machine, and the kernel as it boots: what touches hardware is in no other build.
fn lints(root: &Path) -> Result<bool> {
    let nothing = "0".repeat(64);
    let clippy = |chosen: &[&str]| {
        succeeds(
            cargo(root)
                .args(["clippy", "--quiet"])
                .args(chosen)
                .args(["--", "-D", "warnings"])
                // What a build for a boot is told; nobody boots this.
                .env("APPLIANCE_PUBLIC_KEY", &nothing)
                .env("APPLIANCE_INTERFACE_HASH", &nothing)
                .env("APPLIANCE_COMPILER", "")
                .env("APPLIANCE_FLAGS", ""),
        )
    };
    let everything = clippy(&["--workspace", "--all-targets"])?;
    // A target, as for a boot: without one, build scripts would be built for `panic = "abort"` too.
    let kernel = clippy(&[
        "--profile",
        "firmware",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--package",
        "firmware",
        "--package",
        "isolation",
        "--package",
        "kernel",
    ])?;
    Ok(everything && kernel)
}

fn unsafe_gate(root: &Path) -> Result<bool> {
    let project = Project::read(root)?;
    let mut violations = rules::unsafe_code::check(&project)?;
    violations.extend(rules::census::check(&project)?);
    let places: usize = rules::census::count(&project)?.values().sum();
    eprintln!("{places} places in kernel/ need an argument");
    Ok(report(&violations))
}

fn layers(root: &Path) -> Result<bool> {
    Ok(report(&rules::layers::check(&Project::read(root)?)))
}

fn dependencies(root: &Path) -> Result<bool> {
    Ok(report(&rules::dependencies::check(root, &linked(root)?)?))
}

/// Registry crates in the kernel's image and in the domains' images.
fn linked(root: &Path) -> Result<BTreeSet<String>> {
    let project = Project::read(root)?;
    let mut linked = rules::dependencies::linked(&project, root, Some("firmware"))?;
    let images = image_builder::generate_domains(root)?;
    linked.extend(rules::dependencies::linked(&project, &images, None)?);
    Ok(linked)
}

fn planted(root: &Path) -> Result<bool> {
    let mut passed = true;
    for outcome in rules::planted::check(root, &linked(root)?)? {
        eprintln!("{} {}", if outcome.noticed { "✓" } else { "✗" }, outcome.what);
        passed &= outcome.noticed;
    }
    Ok(passed)
}

fn host(root: &Path) -> Result<bool> {
    succeeds(cargo(root).args([
        "test",
        "--quiet",
        "--workspace",
        "--exclude",
        "models",
        "--no-fail-fast",
    ]))
}

fn models(root: &Path) -> Result<bool> {
    succeeds(cargo(root).args(["test", "--quiet", "--package", "models"]))
}

/// The end-to-end tests are a program, not `#[test]`s: they need an image, a lab and minutes, and say how far they are. Steps of the names `beside` run
/// beside it, and add their outcomes to `outcomes`.
fn end_to_end(
    root: &Path,
    images: Option<Images>,
    beside: Vec<&'static str>,
    outcomes: &mut Vec<Outcome>,
) -> Result<bool> {
    let programs = match lab::build_test_programs(root) {
        Ok(programs) => programs,
        Err(error) => {
            // What was to run beside them is run all the same.
            outcomes.extend(Steps::begin(root, images, beside).end());
            return Err(error);
        }
    };
    // Not before: Cargo builds one thing at a time.
    let beside = Steps::begin(root, images, beside);
    let passed = succeeds(
        Command::new(programs.join("tests"))
            .current_dir(root)
            .arg("--programs")
            .arg(&programs),
    );
    outcomes.extend(beside.end());
    passed
}

fn report(violations: &[Violation]) -> bool {
    for violation in violations {
        eprintln!("error: {violation}");
    }
    violations.is_empty()
}
