//! The suite's files and how one is run.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::output::{self, FileResult};

/// Debian's release whose Redis it is.
const SUITE: &str = "bookworm";
const CACHE_NAME: &str = "redis-source";

/// The files that test commands which the appliance has.
pub const FILES: [&str; 26] = [
    "unit/auth",
    "unit/protocol",
    "unit/keyspace",
    "unit/scan",
    "unit/info",
    "unit/type/string",
    "unit/type/incr",
    "unit/type/list",
    "unit/type/list-2",
    "unit/type/list-3",
    "unit/type/set",
    "unit/type/zset",
    "unit/type/hash",
    "unit/type/stream",
    "unit/type/stream-cgroups",
    "unit/sort",
    "unit/expire",
    "unit/other",
    "unit/multi",
    "unit/quit",
    "unit/pubsub",
    "unit/introspection",
    "unit/introspection-2",
    "unit/bitops",
    "unit/bitfield",
    "unit/pause",
];

/// What needs more than a server that runs: Redis' debugging commands, replicas, its files, a limit of memory that is Redis' own.
const LEFT_OUT: [&str; 7] = [
    "-needs:debug",
    "-needs:repl",
    "-needs:save",
    "-needs:reset",
    "-needs:config-maxmemory",
    "-needs:config-resetstat",
    "-cluster",
];

/// A copy of the suite that runs against a server.
pub struct Suite {
    work: TempDir,
    to: SocketAddr,
    limit: Duration,
    slow: bool,
}

impl Suite {
    /// Fetches the suite if it isn't in the cache, and makes a working copy.
    ///
    /// # Errors
    /// When it can't be had.
    pub fn prepare(to: SocketAddr, limit: Duration, slow: bool) -> Result<Self> {
        let source = provision::debian_source(CACHE_NAME, SUITE, "redis")?;
        let work = tempfile::tempdir().context("a working directory can't be made")?;
        copy(&source.join("tests"), &work.path().join("tests"))?;
        fs::copy(source.join("runtest"), work.path().join("runtest"))?;
        // Where the suite looks for the programs.
        let programs = work.path().join("src");
        fs::create_dir(&programs)?;
        for name in ["redis-cli", "redis-benchmark"] {
            if let Some(path) = provision::find_program(name) {
                std::os::unix::fs::symlink(path, programs.join(name))?;
            }
        }
        Ok(Self {
            work,
            to,
            limit,
            slow,
        })
    }

    /// Runs one file; gives what came of it, and all that the suite wrote.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn run(&self, file: &str) -> Result<(FileResult, String)> {
        let log = self.work.path().join("output");
        let output = fs::File::create(&log)?;
        let mut tags: Vec<&str> = LEFT_OUT.to_vec();
        if !self.slow {
            tags.push("-slow");
        }
        let mut child = Command::new("sh")
            .arg("runtest")
            .current_dir(self.work.path())
            .args(["--host", &self.to.ip().to_string()])
            .args(["--port", &self.to.port().to_string()])
            .args(["--ignore-encoding", "--ignore-digest", "--clients", "1"])
            .args(["--timeout", &self.limit.as_secs().to_string()])
            .args(["--tags", &tags.join(" "), "--single", file])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Its processes end with it.
            .process_group(0)
            .spawn()
            .context("the suite can't be run")?;
        let until = Instant::now() + self.limit;
        let mut late = false;
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                late = true;
                Command::new("kill")
                    .args(["-9", "--", &format!("-{}", child.id())])
                    .status()
                    .context("a late run can't be ended")?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok((output::parse(file, &text, late.then_some(self.limit)), text))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{} can't be read", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
