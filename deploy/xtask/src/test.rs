//! `cargo xtask test`: everything CI runs, step by step, with the time each took.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use rules::{Project, Violation};

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
}

const HOST: &str = "host";
const END_TO_END: &str = "end-to-end";

const STEPS: [Step; 9] = [
    Step {
        name: "format",
        about: "rustfmt changes nothing",
        run: format,
    },
    Step {
        name: "lints",
        about: "no warning from rustc or clippy",
        run: lints,
    },
    Step {
        name: "unsafe",
        about: "no `unsafe` outside kernel/, and none inside without its argument",
        run: unsafe_gate,
    },
    Step {
        name: "layers",
        about: "every crate depends only on what its layer may",
        run: layers,
    },
    Step {
        name: "dependencies",
        about: "every registry crate on the appliance has its reason",
        run: dependencies,
    },
    Step {
        name: "planted",
        about: "the three rules notice violations planted in a copy",
        run: planted,
    },
    Step {
        name: HOST,
        about: "unit and property tests on this machine",
        run: host,
    },
    Step {
        name: "models",
        about: "what several CPUs touch, in every order that the model checker tries",
        run: models,
    },
    Step {
        name: END_TO_END,
        about: "the image booted in the lab",
        run: end_to_end,
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
        |step: &Step| arguments.only.is_empty() || arguments.only.iter().any(|name| name == step.name);
    let chosen: Vec<&Step> = STEPS.iter().filter(|step| is_chosen(step)).collect();
    let boots = chosen.iter().any(|step| step.name == END_TO_END);
    let mut images = None;
    let mut results: Vec<(&str, bool, Duration)> = Vec::new();
    for step in chosen {
        eprintln!("── {}: {}", step.name, step.about);
        let started = Instant::now();
        if step.name == HOST && boots {
            images = build_images(root);
        }
        // An error of one step must not hide what the others would say.
        let passed = (step.run)(root).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
        results.push((step.name, passed, started.elapsed()));
    }

    if let Some(mut images) = images {
        // It has ended by now, unless the tests that wait for it could not be run.
        images.wait()?;
    }
    eprintln!();
    for (name, passed, time) in &results {
        println!(
            "{} {name:<14} {:>7.1} s",
            if *passed { "✓" } else { "✗" },
            time.as_secs_f64()
        );
    }
    let failed = results.iter().filter(|(_, passed, _)| !passed).count();
    println!("steps: {} passed, {failed} failed", results.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn format(root: &Path) -> Result<bool> {
    succeeds(cargo(root).args(["fmt", "--all", "--check"]))
}

fn lints(root: &Path) -> Result<bool> {
    succeeds(cargo(root).args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
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

/// The end-to-end tests are a program, not `#[test]`s: they need an image, a lab and minutes, and say how far they are.
fn end_to_end(root: &Path) -> Result<bool> {
    let programs = lab::build_test_programs(root)?;
    succeeds(
        Command::new(programs.join("tests"))
            .current_dir(root)
            .arg("--programs")
            .arg(&programs),
    )
}

/// Begins to build the images that the end-to-end tests boot, with what the host's tests leave of the CPUs: some of them use one, or wait.
///
/// What goes wrong is left to the tests to say, which build what they find not built.
fn build_images(root: &Path) -> Option<Child> {
    let programs = lab::build_test_programs(root).ok()?;
    let (niceness, program) = (["-n", "19"], programs.join("tests"));
    Command::new("nice")
        .args(niceness)
        .arg(program)
        .arg("--build")
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn report(violations: &[Violation]) -> bool {
    for violation in violations {
        eprintln!("error: {violation}");
    }
    violations.is_empty()
}
