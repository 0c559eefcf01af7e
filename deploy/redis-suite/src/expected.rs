//! What is expected of the suite: which files are run, which tests are left out, which fail, each with the reason.
//!
//! The list is `expected.toml`; docs/redis-tests.md tells it to people (`page.rs`). A run is good if exactly the tests fail that it names.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::output::FileResult;

const TEXT: &str = include_str!("../expected.toml");

/// The list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The files that are run, in their order.
    pub run: Vec<String>,
    /// The files that aren't.
    pub not_run: Vec<NotRun>,
    /// Tests that are left out because they would hang, or take the tests after them with them.
    #[serde(default)]
    pub left_out: Vec<Test>,
    /// Tests that fail.
    #[serde(default)]
    pub fails: Vec<Test>,
}

/// Files that have no test which applies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotRun {
    /// Their names.
    pub files: Vec<String>,
    /// Why not.
    pub why: String,
}

/// Tests of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// The file.
    pub file: String,
    /// Their names.
    pub tests: Vec<String>,
    /// Why they are here.
    pub why: String,
    /// They pass too, as chance or the machine has it.
    #[serde(default)]
    pub sometimes: bool,
}

impl Expected {
    /// Reads the list.
    ///
    /// # Errors
    /// When it is malformed, or says two things of a file.
    pub fn read() -> Result<Self> {
        let list: Self = toml::from_str(TEXT).context("expected.toml is malformed")?;
        for test in list.left_out.iter().chain(&list.fails) {
            ensure!(
                list.run.contains(&test.file),
                "expected.toml: {} isn't run",
                test.file
            );
        }
        for file in list.not_run.iter().flat_map(|not_run| &not_run.files) {
            ensure!(
                !list.run.contains(file),
                "expected.toml: {file} is run and not run"
            );
        }
        Ok(list)
    }

    /// The names of a file's tests that are left out.
    pub fn left_out(&self, file: &str) -> Vec<&str> {
        let of_file = self.left_out.iter().filter(|test| test.file == file);
        of_file.flat_map(|test| &test.tests).map(String::as_str).collect()
    }

    /// Where a file's result differs from what is expected, in words.
    pub fn surprises(&self, result: &FileResult) -> Vec<String> {
        let file = &result.file;
        let mut surprises = Vec::new();
        let of_file: Vec<&Test> = self.fails.iter().filter(|test| test.file == *file).collect();
        for failure in &result.failures {
            if !of_file.iter().any(|test| test.tests.contains(&failure.test)) {
                surprises.push(format!("{file}: {} fails: {}", failure.test, failure.why));
            }
        }
        if let Some(why) = &result.ended_early {
            surprises.push(format!("{file} ended early: {why}"));
            return surprises;
        }
        for test in of_file.iter().filter(|test| !test.sometimes) {
            for name in &test.tests {
                if !result.failures.iter().any(|failure| failure.test == *name) {
                    surprises.push(format!("{file}: {name} is expected to fail and doesn't"));
                }
            }
        }
        surprises
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Failure;

    fn expected() -> Expected {
        toml::from_str(
            "run = [\"unit/x\"]\nnot_run = []\n\
             [[fails]]\nfile = \"unit/x\"\ntests = [\"A\"]\nwhy = \"no clock\"\n\
             [[fails]]\nfile = \"unit/x\"\ntests = [\"B\"]\nwhy = \"chance\"\nsometimes = true\n",
        )
        .unwrap()
    }

    fn result(failed: &[&str], ended_early: Option<&str>) -> FileResult {
        let failure = |test: &&str| Failure {
            test: (*test).to_owned(),
            why: "Expected 1".to_owned(),
        };
        FileResult {
            file: "unit/x".to_owned(),
            passed: 1,
            skipped: 0,
            failures: failed.iter().map(failure).collect(),
            ended_early: ended_early.map(str::to_owned),
        }
    }

    #[test]
    fn a_run_is_good_if_what_is_listed_fails_and_nothing_else() {
        let surprises = |failed: &[&str], early| expected().surprises(&result(failed, early)).len();
        assert_eq!(surprises(&["A"], None), 0);
        assert_eq!(surprises(&["A", "B"], None), 0);
        assert_eq!(surprises(&["A", "C"], None), 1);
        assert_eq!(surprises(&[], None), 1);
        assert_eq!(surprises(&["A"], Some("late")), 1);
    }

    #[test]
    fn the_list_is_well_formed() {
        let list = Expected::read().unwrap();
        assert!(list.run.len() > 20);
    }
}
