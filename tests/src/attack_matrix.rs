//! The matrix of attacks and positions: every kind of fault, wherever the victim is, is one domain's death and costs nothing else.
//!
//! The work is done in the machine, by the conductor of tests/attack; this boots that image, reads what the conductor says of each
//! cell, and shows the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use image_builder::archive::BootArchive;
use image_builder::{Attack, Built, Options};
use progress::Step;

use crate::bare_machine::run_until;
use crate::context::Context;

/// Where the conductor reads what to try.
const PLAN: &str = "attack/plan";
/// CPUs of the machine: positions on another CPU need two.
const CPUS: u32 = 2;
/// What the conductor's lines begin with.
const MARK: &str = "matrix: ";

/// What the conductor said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Positions in the order of their trial.
    positions: Vec<String>,
    /// Attacks in the order of their trial.
    attacks: Vec<String>,
    cells: BTreeMap<(String, String), Cell>,
    is_complete: bool,
}

/// What one cell showed.
#[derive(Debug, PartialEq, Eq)]
enum Cell {
    Green,
    Inapplicable,
    Red(String),
}

/// Boots the attack image and expects every cell to be green.
pub fn is_green(context: &Context) -> Result<()> {
    let built = build(context)?;
    let archive = with_plan(context, &built.archive)?;
    let step = Step::start("Attacking every position");
    let serial = run_until(context, &built.kernel, &archive, CPUS, |serial| {
        let said = read(serial);
        step.note(format!("{} cells", said.cells.len()));
        said.is_complete || serial.contains("matrix: ended early")
    })?;
    let report = read(&serial);
    let count = |wanted: fn(&Cell) -> bool| report.cells.values().filter(|cell| wanted(cell)).count();
    let green = count(|cell| *cell == Cell::Green);
    let red = count(|cell| matches!(cell, Cell::Red(_)));
    let deaths = serial.matches(" died: ").count();
    step.done(format!("{green} green, {red} red"));
    let table = report.table();
    eprint!("{table}");
    fs::create_dir_all(context.directory())?;
    fs::write(context.directory().join("attack-matrix.txt"), &table)?;
    fs::write(context.directory().join("attack-matrix.log"), &serial)?;
    context.figure("cells", report.cells.len(), "");
    context.figure("green", green, "");
    context.figure("red", red, "");
    context.figure("inapplicable", count(|cell| *cell == Cell::Inapplicable), "");
    context.figure("deaths", deaths, "");
    for ((position, attack), cell) in &report.cells {
        if let Cell::Red(reason) = cell {
            eprintln!("  {position}/{attack}: {reason}");
        }
    }
    ensure!(green > 0, "no cell was tried:\n{serial}");
    ensure!(
        serial.contains("matrix: refusals green"),
        "a victim got what its manifest entry doesn't grant, or was not asked to grab for it"
    );
    ensure!(
        red == 0 && report.is_complete,
        "{red} cells are red, and the matrix was{} completed; the log is {}",
        if report.is_complete { "" } else { " not" },
        context.directory().join("attack-matrix.log").display()
    );
    Ok(())
}

/// The image with victims and conductor.
pub fn build(context: &Context) -> Result<Built> {
    image_builder::build(&Options {
        attack: Some(Attack {
            manifest: context.root.join("tests/attack/domains.toml"),
            injector: false,
        }),
        ..Options::new(&context.root)
    })
}

/// The archive with the plan that was asked for.
fn with_plan(context: &Context, archive: &Path) -> Result<PathBuf> {
    let Some(plan) = &context.attacks.plan else {
        return Ok(archive.to_path_buf());
    };
    let text = fs::read(plan).with_context(|| format!("{} can't be read", plan.display()))?;
    let mut changed = BootArchive::read(archive)?;
    changed.add(PLAN, text)?;
    let path = context.directory().join("attack-matrix.tar");
    changed.write(&path)?;
    Ok(path)
}

/// Reads the conductor's lines.
fn read(serial: &str) -> Report {
    let mut report = Report::default();
    for line in serial.lines() {
        let Some((_, said)) = line.split_once(MARK) else {
            continue;
        };
        if said.starts_with("done, ") {
            report.is_complete = true;
            continue;
        }
        let Some((name, rest)) = said.split_once(' ') else {
            continue;
        };
        let Some((position, attack)) = name.split_once('/') else {
            continue;
        };
        let cell = match rest.split_once(' ').map_or(rest, |(word, _)| word) {
            "green" => Cell::Green,
            "inapplicable" => Cell::Inapplicable,
            _ => Cell::Red(rest.trim_start_matches("red: ").to_owned()),
        };
        if !report.positions.iter().any(|known| known == position) {
            report.positions.push(position.to_owned());
        }
        if !report.attacks.iter().any(|known| known == attack) {
            report.attacks.push(attack.to_owned());
        }
        report
            .cells
            .insert((position.to_owned(), attack.to_owned()), cell);
    }
    report
}

impl Report {
    /// Attacks down, positions across by number, and what the numbers mean.
    fn table(&self) -> String {
        let width = self.attacks.iter().map(String::len).max().unwrap_or(0);
        let mut text = format!("  {:width$}", "");
        for number in 1..=self.positions.len() {
            let _ = write!(text, " {number:>2}");
        }
        text.push('\n');
        for attack in &self.attacks {
            let _ = write!(text, "  {attack:width$}");
            for position in &self.positions {
                let sign = match self.cells.get(&(position.clone(), attack.clone())) {
                    Some(Cell::Green) => '✓',
                    Some(Cell::Inapplicable) => '·',
                    Some(Cell::Red(_)) => '✗',
                    None => '?',
                };
                let _ = write!(text, "  {sign}");
            }
            text.push('\n');
        }
        for (number, name) in (1..).zip(&self.positions) {
            let _ = writeln!(text, "  {number:>2} {name}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: &str = "[1.0] conductor: matrix: begins with seed 1\r
[1.1] conductor: matrix: called/panic green 12 ms\r
[1.2] conductor: matrix: called/sleep red: not dead: [\"victim-a\"]\r
[1.3] conductor: matrix: own-thread/sleep inapplicable\r
";

    #[test]
    fn the_conductors_lines_are_read() {
        let report = read(SERIAL);
        assert_eq!(report.positions, ["called", "own-thread"]);
        assert_eq!(report.attacks, ["panic", "sleep"]);
        let cell = |position: &str, attack: &str| report.cells.get(&(position.to_owned(), attack.to_owned()));
        assert_eq!(cell("called", "panic"), Some(&Cell::Green));
        assert_eq!(cell("own-thread", "sleep"), Some(&Cell::Inapplicable));
        assert_eq!(
            cell("called", "sleep"),
            Some(&Cell::Red("not dead: [\"victim-a\"]".to_owned()))
        );
        assert!(!report.is_complete);
        assert!(read("x matrix: done, 1 green, 0 red, 0 inapplicable").is_complete);
    }

    #[test]
    fn the_table_has_a_sign_for_each_cell() {
        let table = read(SERIAL).table();
        assert!(table.contains("  panic  ✓  ?\n"), "{table}");
        assert!(table.contains("  sleep  ✗  ·\n"), "{table}");
    }
}
