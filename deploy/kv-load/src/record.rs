//! The record of a load, a line for each event.
//!
//! `S KEY VERSION LENGTH` when a write is sent (`-` for a deletion), `A KEY VERSION MARK` when it was acknowledged. The mark is how far another log was
//! by then, such as the disk's write log in bytes: whatever is in that log from there on came after the acknowledgement.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A write was sent.
    Sent {
        /// The key.
        key: String,
        /// Counts up for each write of the key, from 1.
        version: u64,
        /// Bytes of the value; `None` for a deletion.
        length: Option<usize>,
    },
    /// It was acknowledged.
    Acknowledged {
        /// The key.
        key: String,
        /// The write's version.
        version: u64,
        /// How far the other log was.
        mark: u64,
    },
}

/// Writes a record.
///
/// # Errors
/// When the file can't be written.
pub fn write(path: &Path, events: &[Event]) -> Result<()> {
    let mut text = String::new();
    for event in events {
        // Writing into a string doesn't fail.
        let _ = match event {
            Event::Sent {
                key,
                version,
                length: Some(length),
            } => writeln!(text, "S {key} {version} {length}"),
            Event::Sent {
                key,
                version,
                length: None,
            } => writeln!(text, "S {key} {version} -"),
            Event::Acknowledged { key, version, mark } => writeln!(text, "A {key} {version} {mark}"),
        };
    }
    fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}

/// Reads a record.
///
/// # Errors
/// When the file can't be read or isn't one.
pub fn read(path: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            parse(line).with_context(|| format!("{}:{}: no event: {line}", path.display(), number + 1))
        })
        .collect()
}

fn parse(line: &str) -> Result<Event> {
    let words: Vec<&str> = line.split(' ').collect();
    let [kind, key, version, last] = words.as_slice() else {
        bail!("four words are needed")
    };
    let (key, version) = ((*key).to_owned(), version.parse()?);
    match *kind {
        "S" => Ok(Event::Sent {
            key,
            version,
            length: match *last {
                "-" => None,
                length => Some(length.parse()?),
            },
        }),
        "A" => Ok(Event::Acknowledged {
            key,
            version,
            mark: last.parse()?,
        }),
        _ => bail!("an event is S or A"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let events = [
            Event::Sent {
                key: "a".into(),
                version: 1,
                length: Some(10),
            },
            Event::Sent {
                key: "a".into(),
                version: 2,
                length: None,
            },
            Event::Acknowledged {
                key: "a".into(),
                version: 1,
                mark: 4096,
            },
        ];
        write(&path, &events).unwrap();
        assert_eq!(read(&path).unwrap(), events);
        fs::write(&path, "S a\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains(":1:"));
    }
}
