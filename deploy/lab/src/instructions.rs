//! Reads the instruction counter of an appliance that was started with one.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Instructions executed since the start, at a moment.
#[derive(Clone, Debug)]
pub struct InstructionReading {
    /// When it was taken.
    pub at: Instant,
    /// Totals of each CPU.
    pub per_cpu: Vec<u64>,
    /// Totals of each block of code over all CPUs, by its address; empty unless a profile is being made.
    pub blocks: BTreeMap<u64, u64>,
}

#[derive(Deserialize)]
struct Line {
    instructions: Vec<u64>,
    #[serde(default)]
    blocks: Vec<(u64, u64)>,
}

impl InstructionReading {
    /// Reads the counter behind the lab's socket `instructions`.
    ///
    /// # Errors
    /// When the counter can't be reached or doesn't answer as it should.
    pub fn take(socket: &Path) -> Result<Self> {
        let context = || format!("the instruction counter {} can't be read", socket.display());
        let mut stream = UnixStream::connect(socket).with_context(context)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).with_context(context)?;
        let line: Line = serde_json::from_str(&text).with_context(context)?;
        Ok(Self {
            at: Instant::now(),
            per_cpu: line.instructions,
            blocks: line.blocks.into_iter().collect(),
        })
    }

    /// Over all CPUs.
    pub fn total(&self) -> u64 {
        self.per_cpu.iter().sum()
    }

    /// Instructions since an earlier reading.
    pub fn since(&self, before: &Self) -> u64 {
        self.total().saturating_sub(before.total())
    }

    /// Instructions of each block since an earlier reading.
    pub fn blocks_since(&self, before: &Self) -> BTreeMap<u64, u64> {
        self.blocks
            .iter()
            .map(|(address, count)| {
                let earlier = before.blocks.get(address).copied().unwrap_or_default();
                (*address, count.saturating_sub(earlier))
            })
            .collect()
    }

    /// Seconds since an earlier reading.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        self.at.duration_since(before.at).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn totals_are_read_and_subtracted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("counter");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            for line in [
                "{\"instructions\":[10,20]}\n",
                "{\"instructions\":[15,40],\"blocks\":[[4096,7]]}\n",
            ] {
                listener.accept().unwrap().0.write_all(line.as_bytes()).unwrap();
            }
        });
        let before = InstructionReading::take(&path).unwrap();
        let after = InstructionReading::take(&path).unwrap();
        server.join().unwrap();
        assert_eq!(before.total(), 30);
        assert_eq!(after.since(&before), 25);
        assert_eq!(after.blocks_since(&before), BTreeMap::from([(4096, 7)]));
    }
}
