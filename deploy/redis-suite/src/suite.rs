//! The suite's files and how one is run.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::output::{self, Failure, FileResult, Run};

/// Debian's release whose Redis it is.
const SUITE: &str = "bookworm";
const CACHE_NAME: &str = "redis-source";

/// What needs more than a server that runs: Redis' debugging commands, replicas, its files, a limit of memory that is Redis' own.
const LEFT_OUT: [&str; 8] = [
    "-needs:debug",
    "-needs:pfdebug",
    "-needs:repl",
    "-needs:save",
    "-needs:reset",
    "-needs:config-maxmemory",
    "-needs:config-resetstat",
    "-cluster",
];

/// A file is begun anew without the test that was stuck, so many times.
const STUCK_LIMIT: usize = 4;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file.
    pub file: Duration,
    /// A test, without any progress.
    pub test: Duration,
}

/// A copy of the suite that runs against a server.
pub struct Suite {
    work: TempDir,
    to: SocketAddr,
    limits: Limits,
    slow: bool,
}

impl Suite {
    /// Fetches the suite if it isn't in the cache, and makes a working copy.
    ///
    /// # Errors
    /// When it can't be had.
    pub fn prepare(to: SocketAddr, limits: Limits, slow: bool) -> Result<Self> {
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
            limits,
            slow,
        })
    }

    /// Runs one file without the tests in `left_out`; gives what came of it, and all that the suite wrote. A test that is stuck counts as failed, and
    /// the file is run again without it.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn run(&self, file: &str, left_out: &[&str]) -> Result<(FileResult, String)> {
        let mut left_out: Vec<String> = left_out.iter().map(|test| (*test).to_owned()).collect();
        let mut stuck: Vec<Failure> = Vec::new();
        let mut log = String::new();
        loop {
            let (run, text) = self.run_once(file, &left_out)?;
            log.push_str(&text);
            match run.stuck {
                Some(test) if !test.is_empty() && stuck.len() < STUCK_LIMIT => {
                    left_out.push(test.clone());
                    stuck.push(Failure {
                        test,
                        why: format!("nothing happened for {} s", self.limits.test.as_secs()),
                    });
                }
                _ => {
                    let mut result = run.result;
                    result.skipped = result.skipped.saturating_sub(stuck.len());
                    result.failures.extend(stuck);
                    return Ok((result, log));
                }
            }
        }
    }

    fn run_once(&self, file: &str, left_out: &[String]) -> Result<(Run, String)> {
        // A test that was ended may have left the server paused.
        Command::new("redis-cli")
            .args(["-h", &self.to.ip().to_string()])
            .args(["-p", &self.to.port().to_string(), "client", "unpause"])
            .stdout(Stdio::null())
            .status()
            .context("redis-cli can't be run")?;
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
            // A command that isn't there fails its test, not the file.
            .arg("--durable")
            .args(["--timeout", &self.limits.test.as_secs().to_string()])
            .args(["--tags", &tags.join(" "), "--single", file])
            .args(left_out.iter().flat_map(|test| ["--skiptest", test]))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Its processes end with it.
            .process_group(0)
            .spawn()
            .context("the suite can't be run")?;
        let until = Instant::now() + self.limits.file;
        let mut late = false;
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                late = true;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Also when it ended by itself: a client of it that waits for an answer would stay.
        Command::new("kill")
            .args(["-9", "--", &format!("-{}", child.id())])
            .stderr(Stdio::null())
            .status()
            .context("the suite's processes can't be ended")?;
        child.wait()?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let run = output::parse(file, &text, late.then_some(self.limits.file));
        Ok((run, text))
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
