//! Somebody who types at the console as fast as the shell answers, and keeps typing when the shell itself is killed.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long an answer may take; a shell that was killed comes back within it.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a new shell says first.
const BANNER: &str = "This is RedLeaf.";

/// What came of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// The domain was alive.
    Done,
    /// It was down, and so wasn't killed once more.
    WasDown,
}

/// A connection to the console that stays open. While it is, nobody else can have one.
pub struct Typist {
    stream: UnixStream,
    text: String,
}

impl Typist {
    /// Takes the console.
    pub fn open(console: &Path) -> Result<Self> {
        let stream = UnixStream::connect(console).context("the console can't be reached")?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self {
            stream,
            text: String::new(),
        })
    }

    /// Kills a domain.
    pub fn kill(&mut self, domain: &str) -> Result<Kill> {
        self.text.clear();
        self.stream.write_all(format!("kill {domain}\r").as_bytes())?;
        let killed = format!("{domain} is killed.");
        // The shell that is told to kill itself can't say that it has.
        let last_words: &[&str] = if domain == "shell" {
            &[&killed, BANNER]
        } else {
            &[&killed]
        };
        let until = Instant::now() + PATIENCE;
        loop {
            if last_words.iter().any(|words| self.text.contains(words)) {
                return Ok(Kill::Done);
            }
            if self.text.contains("The domain is not running.") {
                return Ok(Kill::WasDown);
            }
            if Instant::now() > until {
                bail!(
                    "`kill {domain}` was not answered; the console says:\n{}",
                    self.text
                );
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => bail!("the console was closed"),
            Ok(length) => {
                let bytes = bytes.get(..length).unwrap_or_default();
                self.text.push_str(&String::from_utf8_lossy(bytes));
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error).context("the console is gone"),
        }
    }
}
