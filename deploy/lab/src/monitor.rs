//! QEMU's monitor (QMP): one command, one answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long QEMU may take to answer; a drained queue can be slow on a throttled disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the monitor. QEMU serves one at a time.
pub(crate) struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects.
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("QEMU's monitor {} can't be reached", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Self {
            reader: BufReader::new(stream),
        };
        let greeting = monitor.line()?;
        ensure!(
            greeting.get("QMP").is_some(),
            "QEMU's monitor greets with {greeting}"
        );
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Executes a command and gives what it returns; events that come meanwhile are passed over.
    pub(crate) fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let text = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.reader
            .get_mut()
            .write_all(text.as_bytes())
            .with_context(|| format!("QEMU's monitor doesn't take `{command}`"))?;
        loop {
            let mut answer = self.line().with_context(|| format!("no answer to `{command}`"))?;
            if let Some(error) = answer.get("error") {
                bail!(
                    "QEMU refuses `{command}`: {}",
                    error["desc"].as_str().unwrap_or_default()
                );
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// Executes a command of the human monitor, which reports an error only in its text.
    pub(crate) fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.ask("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        ensure!(!line.is_empty(), "QEMU's monitor was closed");
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn events_are_passed_over_and_errors_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let answers = "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"X\"}\n{\"return\":5}\n{\"error\":{\"desc\":\"never\"}}\n";
            stream.write_all(answers.as_bytes()).unwrap();
            // Open until the client has gone.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let mut monitor = Monitor::open(&path).unwrap();
        assert_eq!(monitor.ask("first", &json!({})).unwrap(), 5);
        let error = monitor.ask("second", &json!({})).unwrap_err().to_string();
        assert!(error.contains("second") && error.contains("never"), "{error}");
        drop(monitor);
        server.join().unwrap();
    }
}
