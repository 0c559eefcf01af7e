//! The log ring, as lines of text.

use crate::table::seconds;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use domain_rt::Handle;
use interface::kernel::{LogLine, LogReader, ServiceError};

/// The ring, and how much of it the operator has seen.
pub struct LogView {
    reader: Handle<dyn LogReader>,
    /// First sequence number that isn't known to exist.
    next: u64,
}

impl LogView {
    /// A view of which everything written so far has been seen.
    pub fn new(reader: Handle<dyn LogReader>) -> LogView {
        let mut view = LogView { reader, next: 0 };
        // Without a log there is nothing to see.
        view.skip().ok();
        view
    }

    /// Goes over everything new without showing it; whether there was any.
    pub fn skip(&mut self) -> Result<bool, ServiceError> {
        let mut any = false;
        while let Some(line) = self.reader.line(self.next)? {
            self.next = line.sequence.saturating_add(1);
            any = true;
        }
        Ok(any)
    }

    /// The next line that wasn't seen.
    pub fn unseen(&mut self) -> Result<Option<LogLine>, ServiceError> {
        let line = self.reader.line(self.next)?;
        if let Some(line) = &line {
            self.next = line.sequence.saturating_add(1);
        }
        Ok(line)
    }

    /// The newest lines, oldest first.
    pub fn newest(&self, count: u32) -> Result<VecDeque<LogLine>, ServiceError> {
        let mut lines = VecDeque::new();
        let mut from = 0;
        while let Some(line) = self.reader.line(from)? {
            from = line.sequence.saturating_add(1);
            if lines.len() >= count as usize {
                lines.pop_front();
            }
            lines.push_back(line);
        }
        lines.truncate(count as usize);
        Ok(lines)
    }
}

/// A line as it is shown.
pub fn show(line: &LogLine) -> String {
    let level = match line.level {
        1 => "error",
        2 => "warn",
        3 => "info",
        4 => "debug",
        _ => "trace",
    };
    let domain = match line.domain.as_str() {
        "" => "kernel",
        domain => domain,
    };
    format!("[{:>10}] {level:<5} {domain}: {}", seconds(line.at_ns), line.text)
}
