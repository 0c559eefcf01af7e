//! A load of writes on the store from the client, with a record of what was acknowledged (package kv-load).

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::context::Context;
use crate::running_lab::{RunningLab, finish};

/// How long a request may take, and the store until it answers again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A load and its record.
pub struct KvLoad {
    program: PathBuf,
    record: PathBuf,
    /// What keys begin with; no two loads on a store have the same.
    pub prefix: String,
    /// For how long, at most.
    pub time: Duration,
    /// Whether [`KvLoad::run`] ends it before that, as soon as what goes on beside it has ended.
    pub ends_early: bool,
    /// How long a request may take.
    pub patience: Duration,
    /// Whether broken connections are made again.
    pub reconnect: bool,
    /// The log whose length marks acknowledgements.
    pub mark: Option<PathBuf>,
}

impl KvLoad {
    /// A load of `time`, recorded under `name`.
    pub fn new(context: &Context, name: &str, time: Duration) -> Result<Self> {
        Ok(Self {
            program: context.program("kv-load")?,
            record: context.directory().join(format!("{name}.record")),
            prefix: format!("{name}-"),
            time,
            ends_early: false,
            patience: PATIENCE,
            reconnect: false,
            mark: None,
        })
    }

    /// The record's file.
    pub fn record(&self) -> &PathBuf {
        &self.record
    }

    /// Starts it.
    pub fn start(&self, lab: &RunningLab) -> Result<Running> {
        let mut command = lab.command_in("client", &self.program)?;
        command
            .args(["--to", &lab.store()?.to_string()])
            .args(["--patience-ms", &self.patience.as_millis().to_string()])
            .arg("--record")
            .arg(&self.record)
            .args(["run", "--prefix", &self.prefix])
            .args(["--duration-ms", &self.time.as_millis().to_string()]);
        if self.reconnect {
            command.arg("--reconnect");
        }
        if self.ends_early {
            command.arg("--until-input-ends");
        }
        if let Some(mark) = &self.mark {
            command.arg("--mark").arg(mark);
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kv-load can't be started")?;
        Ok(Running(child))
    }

    /// Runs it, and `meanwhile` beside it; gives what came of it.
    pub fn run(&self, lab: &RunningLab, meanwhile: impl FnOnce() -> Result<()>) -> Result<Value> {
        let running = self.start(lab)?;
        let outcome = meanwhile();
        let summary = running.finish();
        outcome?;
        summary
    }

    /// Fails unless the store holds all that was acknowledged, and nothing that was never written; gives how many writes were.
    pub fn verify(&self, lab: &RunningLab) -> Result<u64> {
        let mut command = lab.command_in("client", &self.program)?;
        command
            .args(["--to", &lab.store()?.to_string()])
            .args(["--patience-ms", &PATIENCE.as_millis().to_string()])
            .arg("--record")
            .arg(&self.record)
            .arg("verify")
            .stdin(Stdio::null());
        let verdict: Value = serde_json::from_str(&finish(command, "kv-load verify")?)?;
        let wrong = verdict["wrong"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(first) = wrong.first() {
            bail!(
                "{} of {} keys are wrong in the store; the first: {first}",
                wrong.len(),
                verdict["keys"]
            );
        }
        verdict["acknowledged"]
            .as_u64()
            .context("kv-load told no number of acknowledged writes")
    }
}

/// A load that runs.
pub struct Running(Child);

impl Running {
    /// Ends its input and waits for its end; gives what came of it.
    pub fn finish(self) -> Result<Value> {
        let output = self.0.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kv-load failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("what kv-load printed can't be read")
    }
}

/// Fails if a read gave what it mustn't.
pub fn check_reads(summary: &Value) -> Result<()> {
    let wrong = summary["wrong_reads"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    ensure!(
        wrong.is_empty(),
        "{} reads were wrong; the first: {}",
        wrong.len(),
        wrong.first().unwrap_or(&Value::Null)
    );
    Ok(())
}

/// Fails if a client saw an error or lost its connection.
pub fn check_no_error(summary: &Value) -> Result<()> {
    check_reads(summary)?;
    let errors = summary["errors"].as_object();
    ensure!(
        summary["broken"] == 0 && errors.is_some_and(serde_json::Map::is_empty),
        "clients saw errors: {} broken connections, replies {}",
        summary["broken"],
        summary["errors"]
    );
    ensure!(
        summary["acknowledged"] != 0,
        "no write was acknowledged: {summary}"
    );
    Ok(())
}

/// Waits until the store answers PING with PONG, not with an error.
pub fn wait_until_loaded(lab: &RunningLab) -> Result<()> {
    let address = lab.store()?;
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = lab.run(
            "client",
            "redis-cli",
            &[
                "-h",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
                "ping",
            ],
        );
        match answer {
            Ok(text) if text.trim() == "PONG" => return Ok(()),
            other if Instant::now() > until => bail!("the store doesn't answer: {other:?}"),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
