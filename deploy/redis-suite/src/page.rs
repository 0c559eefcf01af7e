//! The tables of docs/redis-tests.md: counts of a run, and what `expected.toml` says.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::expected::{Expected, Test};
use crate::output::FileResult;

/// What comes before the tables is written by hand.
const COUNTS: &str = "## Files\n";
const REASONS: &str = "## Failures, and why\n";

/// Writes the tables anew after a run of all files.
///
/// # Errors
/// When the page can't be read or written.
pub fn write(path: &Path, results: &[FileResult], expected: &Expected) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    let (by_hand, _) = old.split_once(COUNTS).with_context(|| {
        format!(
            "{} has no part that begins with `{}`",
            path.display(),
            COUNTS.trim()
        )
    })?;
    let page = format!("{by_hand}{COUNTS}\n{}\n{}", counts(results), reasons(expected));
    fs::write(path, page).with_context(|| format!("{} can't be written", path.display()))
}

fn counts(results: &[FileResult]) -> String {
    let mut text = String::from("| file | passed | failed | skipped |\n|---|---:|---:|---:|\n");
    let mut sums = (0, 0, 0);
    for result in results {
        let failed = result.failures.len();
        sums = (sums.0 + result.passed, sums.1 + failed, sums.2 + result.skipped);
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {failed} | {} |",
            result.file, result.passed, result.skipped
        );
    }
    let _ = writeln!(text, "| all | {} | {} | {} |", sums.0, sums.1, sums.2);
    text
}

/// Everything from the heading of the failures on.
fn reasons(expected: &Expected) -> String {
    let mut text = format!("{REASONS}\n");
    text.push_str(&table(&expected.fails));
    text.push_str("\n## Left out, and why\n\n");
    text.push_str("These would hang, or take the tests after them with them.\n\n");
    text.push_str(&table(&expected.left_out));
    text.push_str("\n## Files that are not run\n\n| files | why |\n|---|---|\n");
    for not_run in &expected.not_run {
        let _ = writeln!(text, "| {} | {} |", not_run.files.join(", "), cell(&not_run.why));
    }
    text
}

fn table(tests: &[Test]) -> String {
    let mut text = String::from("| file | test | why |\n|---|---|---|\n");
    for test in tests {
        let names: Vec<String> = test.tests.iter().map(|name| cell(name)).collect();
        let sometimes = if test.sometimes { "Sometimes: " } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {sometimes}{} |",
            test.file,
            names.join("; "),
            cell(&test.why)
        );
    }
    text
}

/// Text that can stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes the list has the page say so: `redis-suite --to … --page docs/redis-tests.md`, or by hand.
    #[test]
    fn the_page_says_what_the_list_says() {
        let page = include_str!("../../../docs/redis-tests.md");
        let start = page.find(REASONS).unwrap();
        assert_eq!(&page[start..], reasons(&Expected::read().unwrap()));
    }

    #[test]
    fn the_page_has_every_file_that_is_run() {
        let page = include_str!("../../../docs/redis-tests.md");
        for file in Expected::read().unwrap().run {
            assert!(page.contains(&format!("| `{file}` |")), "{file}");
        }
    }
}
