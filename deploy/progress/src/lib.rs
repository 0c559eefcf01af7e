//! Progress for whoever waits: one [`Step`] for each thing that may take longer than a second.
//!
//! On a terminal a step is a spinner with its running time that becomes one line when it ends; elsewhere (a log of CI) it
//! is a line when it starts and one when it ends. Everything goes to standard error, so that standard output belongs to a
//! command's result. Steps that nobody should see (`--json` with a quiet caller) are made by [`Step::hidden`].

#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Work in progress, shown to the person who waits for it. Dropped unfinished, it ends as failed.
pub struct Step {
    title: String,
    started: Instant,
    display: Display,
    ended: bool,
}

enum Display {
    Spinner(ProgressBar),
    Lines,
    Hidden,
}

impl Step {
    /// Begins a step; `title` says what is being done, as in "Fetching QEMU".
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        let display = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            Display::Spinner(bar)
        } else {
            eprintln!("… {title}");
            Display::Lines
        };
        Self {
            title,
            started: Instant::now(),
            display,
            ended: false,
        }
    }

    /// A step that shows nothing, for callers that must stay quiet.
    pub fn hidden(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            started: Instant::now(),
            display: Display::Hidden,
            ended: false,
        }
    }

    /// Says how far it is; only shown on a terminal, so it may be called often.
    pub fn note(&self, message: impl Into<String>) {
        if let Display::Spinner(bar) = &self.display {
            bar.set_message(message.into());
        }
    }

    /// Ends the step; `result` is what is worth knowing about it, or empty.
    pub fn done(mut self, result: impl AsRef<str>) {
        self.end("✓", result.as_ref());
    }

    /// Ends the step as failed; the error itself is the caller's to report.
    pub fn failed(mut self, reason: impl AsRef<str>) {
        self.end("✗", reason.as_ref());
    }

    /// Time since the step began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn end(&mut self, sign: &str, result: &str) {
        self.ended = true;
        let seconds = self.started.elapsed().as_secs_f64();
        let separator = if result.is_empty() { "" } else { ": " };
        let line = format!("{sign} {}{separator}{result} ({seconds:.1} s)", self.title);
        match &self.display {
            Display::Spinner(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            Display::Lines => eprintln!("{line}"),
            Display::Hidden => {}
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("✗", "failed");
        }
    }
}

/// Bytes as a person reads them: `44.1 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(megabytes(44_100_000), "44.1 MB");
        assert_eq!(megabytes(0), "0.0 MB");
    }
}
