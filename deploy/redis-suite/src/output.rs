//! What the suite prints, counted.

use std::time::Duration;

use serde::Serialize;

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name; [`BETWEEN_TESTS`] for code of the file that belongs to none.
    pub test: String,
    /// What the suite says of it.
    pub why: String,
}

/// Stands for the name of a test where the suite's own code between tests failed. The rest of its block isn't run.
pub const BETWEEN_TESTS: &str = "(between tests)";

/// What came of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileResult {
    /// The file.
    pub file: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that were passed over, by their tags or because they are left out.
    pub skipped: usize,
    /// Tests that failed.
    pub failures: Vec<Failure>,
    /// Why the file wasn't run to its end, if it wasn't.
    pub ended_early: Option<String>,
}

impl FileResult {
    /// In words.
    pub fn words(&self) -> String {
        let early = if self.ended_early.is_some() {
            ", ended early"
        } else {
            ""
        };
        format!(
            "{} passed, {} failed, {} skipped{early}",
            self.passed,
            self.failures.len(),
            self.skipped
        )
    }
}

/// One run of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it came to.
    pub result: FileResult,
    /// The test during which nothing happened any more, so that the suite gave up.
    pub stuck: Option<String>,
}

/// Counts; `late` is the time that a run which was ended had taken.
pub fn parse(file: &str, text: &str, late: Option<Duration>) -> Run {
    let plain = without_colours(text);
    let mut result = FileResult {
        file: file.to_owned(),
        passed: 0,
        skipped: 0,
        failures: Vec::new(),
        ended_early: late.map(|time| format!("not done after {} s", time.as_secs())),
    };
    let mut stuck = None;
    let mut complete = false;
    let mut lines = plain.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("[ok]:") {
            result.passed += 1;
        } else if line.starts_with("[skip]:") || line.starts_with("[ignore]:") {
            result.skipped += 1;
        } else if let Some(failure) = line.strip_prefix("[err]:") {
            let next = lines.peek().map(|next| next.trim()).unwrap_or_default();
            result.failures.push(read_failure(failure.trim(), next));
        } else if let Some(what) = line.strip_prefix("[exception]:") {
            let why = what.trim().trim_start_matches("Executing test client: ");
            result.ended_early.get_or_insert(why.to_owned());
        } else if line.starts_with("[TIMEOUT]:") {
            let state = lines.peek().copied().unwrap_or_default();
            let (_, test) = state.split_once("(IN PROGRESS) ").unwrap_or_default();
            stuck = Some(test.trim().to_owned());
            result
                .ended_early
                .get_or_insert("nothing happened any more".to_owned());
        } else if line.contains(" done]:") || line.contains("All tests passed without errors") {
            complete = true;
        } else if line.contains("!!! WARNING The following tests failed") {
            // What follows repeats what was told before.
            break;
        }
    }
    if !complete && result.ended_early.is_none() {
        let last = plain.lines().rfind(|line| !line.trim().is_empty());
        result.ended_early = Some(last.unwrap_or("nothing was printed").to_owned());
    }
    Run { result, stuck }
}

fn read_failure(line: &str, next: &str) -> Failure {
    match line.rsplit_once(" in tests/") {
        Some((test, _)) => Failure {
            test: test.to_owned(),
            why: next.to_owned(),
        },
        None => Failure {
            test: BETWEEN_TESTS.to_owned(),
            why: format!("{line} {next}").trim().to_owned(),
        },
    }
}

fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted() {
        let text = "[ready]: 1\n\u{1b}[0;32m[ok]\u{1b}[0m: SET (3 ms)\n[err]: GET in tests/unit/x.tcl\nExpected 1\n[ignore]: slow\n\
                    [1/1 done]: unit/x (1 seconds)\n!!! WARNING The following tests failed:\n[err]: GET in tests/unit/x.tcl\n";
        let Run { result, stuck } = parse("unit/x", text, None);
        assert_eq!((result.passed, result.skipped), (1, 1));
        let failure = Failure {
            test: "GET".to_owned(),
            why: "Expected 1".to_owned(),
        };
        assert_eq!(result.failures, [failure]);
        assert_eq!((result.ended_early, stuck), (None, None));
    }

    #[test]
    fn code_between_tests_can_fail() {
        let run = parse(
            "unit/x",
            "[err]: wn command\nwhile executing\n[1/1 done]: unit/x\n",
            None,
        );
        assert_eq!(run.result.failures[0].test, BETWEEN_TESTS);
        assert_eq!(run.result.failures[0].why, "wn command while executing");
        assert_eq!(run.result.ended_early, None);
    }

    #[test]
    fn a_test_that_is_stuck_is_named() {
        let text = "[ok]: SET (3 ms)\n[TIMEOUT]: clients state report follows.\nsock1 => (IN PROGRESS) BLPOP, twice\nThe End\n";
        let run = parse("unit/x", text, None);
        assert_eq!(run.stuck.as_deref(), Some("BLPOP, twice"));
        assert!(run.result.ended_early.is_some());
    }

    #[test]
    fn a_file_that_breaks_off_is_no_success() {
        let early = |text: &str, late| parse("unit/x", text, late).result.ended_early;
        assert!(
            early(
                "[ok]: SET\n[exception]: Executing test client: I/O error.\n",
                None
            )
            .is_some()
        );
        assert!(early("[ok]: SET\n", None).is_some());
        assert!(early("", Some(Duration::from_secs(5))).is_some_and(|why| why.contains("5 s")));
    }
}
