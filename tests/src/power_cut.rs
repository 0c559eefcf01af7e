//! Power cuts: the disk's writes are logged under a load, and the log is replayed to points at which power can fail (package power-cut).
//!
//! Then the same is done to the appliance itself once: QEMU is killed under the load, started again on the same disk, and asked for every key.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use progress::Step;
use serde_json::Value;

use crate::context::Context;
use crate::kv_load::{KvLoad, check_no_error, check_reads, wait_until_loaded};
use crate::running_lab::RunningLab;

/// Of the load that is logged, at most: a log holds all that was written.
const LOGGED: Duration = Duration::from_secs(10);
/// Until QEMU is killed, and what is left of the load then.
const UNTIL_CUT: Duration = Duration::from_secs(2);

/// The test.
pub fn loses_nothing(context: &Context) -> Result<()> {
    provision::ensure_programs(&[provision::Program::REDIS_CLI])?;
    let program = context.program("power-cut")?;
    let log = context.directory().join("power-cut.log");
    let mut lab = context.boot_store("power-cut", Some(log.clone()))?;
    wait_until_loaded(&lab)?;

    let time = LOGGED.min(Duration::from_secs(context.storage.seconds));
    let mut load = KvLoad::new(context, "power-cut", time)?;
    load.mark = Some(log.clone());
    let step = Step::start("Logging the disk's writes under a load");
    let summary = load.run(&lab, || Ok(()))?;
    lab.judge(check_no_error(&summary))?;
    step.done(format!("{} acknowledged writes", summary["acknowledged"]));
    // Before anything else is written: this record alone says what may be on the disk.
    lab.cut_power()?;
    let mut command = Command::new(program);
    command
        .arg("--log")
        .arg(&log)
        .arg("--record")
        .arg(load.record())
        .args(["--points", &context.storage.points.to_string(), "--json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().context("power-cut can't be run")?;
    let outcome: Value =
        serde_json::from_slice(&output.stdout).map_err(|_| anyhow!("power-cut failed: {}", output.status))?;
    for name in ["requests", "barriers", "points", "cuts", "acknowledged"] {
        context.figure(name, outcome[name].clone(), "");
    }
    ensure!(
        output.status.success(),
        "a power cut loses what was acknowledged: {}",
        outcome["problems"]
    );
    ensure!(
        outcome["points"].as_u64() > Some(1) && outcome["acknowledged"].as_u64() > Some(0),
        "nothing was tried: {outcome}"
    );

    let step = Step::start("Cutting the appliance's power under a load");
    lab.power_on(None)?;
    wait_until_loaded(&lab)?;
    load.verify(&lab)?;
    let mut under_cut = KvLoad::new(context, "under-cut", UNTIL_CUT * 2)?;
    // Nobody tells the client that its server is gone.
    under_cut.patience = UNTIL_CUT;
    cut_under(&under_cut, &mut lab)?;
    lab.power_on(None)?;
    wait_until_loaded(&lab)?;
    let acknowledged = under_cut.verify(&lab)? + load.verify(&lab)?;
    step.done(format!("{acknowledged} acknowledged writes, all there"));
    Ok(())
}

/// Cuts the power while the load runs, which ends with its connections.
fn cut_under(load: &KvLoad, lab: &mut RunningLab) -> Result<()> {
    let running = load.start(lab)?;
    thread::sleep(UNTIL_CUT);
    lab.cut_power()?;
    check_reads(&running.finish()?)
}
