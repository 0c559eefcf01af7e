//! What the suite prints, counted.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// What came of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileResult {
    /// The file.
    pub file: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that were passed over.
    pub skipped: usize,
    /// Tests that failed: name and why.
    pub failures: Vec<String>,
    /// Why the file wasn't run to its end, if it wasn't.
    pub ended_early: Option<String>,
}

impl FileResult {
    /// Whether all that was run passed.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.ended_early.is_none()
    }

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

/// Counts; `late` is the time that a run which was ended had taken.
pub fn parse(file: &str, text: &str, late: Option<Duration>) -> FileResult {
    let plain = without_colours(text);
    let mut result = FileResult {
        file: file.to_owned(),
        passed: 0,
        skipped: 0,
        failures: Vec::new(),
        ended_early: late.map(|time| format!("not done after {} s", time.as_secs())),
    };
    let mut complete = false;
    let mut lines = plain.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("[ok]:") {
            result.passed += 1;
        } else if line.starts_with("[skip]:") || line.starts_with("[ignore]:") {
            result.skipped += 1;
        } else if let Some(failure) = line.strip_prefix("[err]:") {
            // The list at the end repeats what was told before.
            let why = lines.peek().map(|next| next.trim()).unwrap_or_default();
            let failure = format!("{}: {why}", failure.trim());
            result.failures.push(failure);
        } else if let Some(what) = line.strip_prefix("[exception]:") {
            let why = lines.peek().map(|next| next.trim()).unwrap_or_default();
            result
                .ended_early
                .get_or_insert(format!("{}: {why}", what.trim()));
        } else if line.starts_with("[done]:") || line.contains("All tests passed without errors") {
            complete = true;
        } else if line.contains("!!! WARNING The following tests failed") {
            complete = true;
            break;
        }
    }
    if !complete && result.ended_early.is_none() {
        let last = plain.lines().rfind(|line| !line.trim().is_empty());
        result.ended_early = Some(last.unwrap_or("nothing was printed").to_owned());
    }
    result
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

/// One object for scripts.
pub fn json(results: &[FileResult]) -> Value {
    let passed: usize = results.iter().map(|result| result.passed).sum();
    let failed: usize = results.iter().map(|result| result.failures.len()).sum();
    json!({ "passed": passed, "failed": failed, "files": results })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted() {
        let text = "[ready]: 1\n\u{1b}[0;32m[ok]\u{1b}[0m: SET (3 ms)\n[err]: GET in tests/unit/x.tcl\nExpected 1\n[ignore]: slow\n\
                    [1/1 done]: unit/x (1 seconds)\n!!! WARNING The following tests failed:\n[err]: GET in tests/unit/x.tcl\n";
        let result = parse("unit/x", text, None);
        assert_eq!((result.passed, result.skipped), (1, 1));
        assert_eq!(result.failures, ["GET in tests/unit/x.tcl: Expected 1"]);
        assert_eq!(result.ended_early, None);
    }

    #[test]
    fn a_file_that_breaks_off_is_no_success() {
        let result = parse(
            "unit/x",
            "[ok]: SET\n[exception]: Executing test client: I/O error.\n",
            None,
        );
        assert!(!result.is_good());
        assert!(parse("unit/x", "[ok]: SET\n", None).ended_early.is_some());
        assert!(
            parse("unit/x", "", Some(Duration::from_secs(5)))
                .ended_early
                .unwrap()
                .contains("5 s")
        );
    }
}
