//! All points, one after the other: the store must open at each, and hold what was acknowledged by then and nothing that was never written.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kv_engine::engine::{Engine, Limits};
use kv_engine::open::Options;
use kv_load::oracle::Oracle;
use progress::Step;
use serde::Serialize;

use crate::content;
use crate::disk::MediumDisk;
use crate::partition::{self, Place};
use crate::replay::{Cut, Medium, Replay};
use crate::write_log::WriteLog;

/// What to try.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Points between flushes and forced writes at most, spread over the log; 0 for all.
    pub points: usize,
    /// At each, so many cuts with unflushed writes dropped, torn and reordered.
    pub seeds: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
}

/// What was tried.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Requests in the log.
    pub requests: usize,
    /// Flushes and forced writes in it.
    pub barriers: usize,
    /// Points with nothing but what was durable.
    pub points: u64,
    /// Cuts with a part of the rest.
    pub cuts: u64,
    /// Acknowledged writes that were there, over all points.
    pub acknowledged: u64,
    /// What was wrong: at which point, and what; at most [`MOST_PROBLEMS`].
    pub problems: Vec<String>,
}

/// Problems that are kept.
pub const MOST_PROBLEMS: usize = 20;
const LIMITS: Limits = Limits {
    index_bytes: 64 << 20,
    cache_bytes: 1 << 20,
};

/// Tries the points of `log` against the record of what was acknowledged.
///
/// # Errors
/// When a file can't be read, or the disk never had a store.
pub fn run(log: &Path, oracle: &Oracle, plan: Plan) -> Result<Outcome> {
    host_platform::attach();
    let log = WriteLog::open(log)?;
    let barriers = Replay::barriers(&log);
    let mut outcome = Outcome {
        requests: log.entries.len(),
        barriers,
        ..Outcome::default()
    };
    ensure!(barriers > 0, "the log has no flush and no forced write");
    let place = place(&log, plan.block_bytes)?;
    let every = if plan.points == 0 {
        1
    } else {
        barriers.div_ceil(plan.points).max(1)
    };
    let step = Step::start("Cutting the power");
    let mut replay = Replay::new(&log);
    let mut barrier = 0;
    loop {
        // The last one always.
        if barrier % every == 0 || barrier == barriers {
            try_point(&replay, oracle, plan, place, barrier, &mut outcome)?;
            step.note(format!("{barrier} of {barriers}"));
        }
        if outcome.problems.len() >= MOST_PROBLEMS || !replay.advance()? {
            break;
        }
        barrier += 1;
    }
    let words = format!(
        "{} points, {} of them with unflushed writes",
        outcome.points + outcome.cuts,
        outcome.cuts
    );
    if outcome.problems.is_empty() {
        step.done(words);
    } else {
        step.failed(words);
    }
    Ok(outcome)
}

fn try_point(
    replay: &Replay<'_>,
    oracle: &Oracle,
    plan: Plan,
    place: Place,
    barrier: usize,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut judge = |cut: Cut, what: String| match open(cut.medium, oracle, cut.mark, place, plan.block_bytes)
    {
        Ok(()) => outcome.acknowledged += oracle.acknowledged_by(cut.mark) as u64,
        Err(error) if outcome.problems.len() < MOST_PROBLEMS => {
            outcome.problems.push(format!("{what}: {error:#}"));
        }
        Err(_) => {}
    };
    judge(replay.durable()?, format!("behind barrier {barrier}"));
    for seed in 0..plan.seeds {
        judge(
            replay.cut(seed)?,
            format!("behind barrier {barrier}, seed {seed}"),
        );
    }
    outcome.points += 1;
    outcome.cuts += plan.seeds;
    Ok(())
}

/// Opens the store and judges it.
fn open(medium: Medium, oracle: &Oracle, mark: u64, place: Place, block_bytes: u32) -> Result<()> {
    let disk = MediumDisk::new(medium, place, block_bytes);
    let options = Options {
        limits: LIMITS,
        segment_bytes: None,
        random: || fastrand::u64(..),
    };
    let engine = match Engine::open(disk, options, |_| {}) {
        Ok(engine) => engine,
        Err(error) => bail!("the store doesn't open: {error}"),
    };
    let strings = content::strings(&engine)?;
    for key in oracle.keys() {
        let found = strings.get(key.as_bytes()).map(Vec::as_slice);
        if let Err(wrong) = oracle.check(key, found, mark) {
            bail!("{wrong}");
        }
    }
    for (key, value) in &strings {
        let key = String::from_utf8_lossy(key);
        if let Err(wrong) = oracle.check(&key, Some(value), 0) {
            bail!("{wrong}");
        }
    }
    Ok(())
}

/// Where the store is, by the disk as it was in the end.
fn place(log: &WriteLog, block_bytes: u32) -> Result<Place> {
    let mut replay = Replay::new(log);
    while replay.advance()? {}
    partition::find(&replay.durable()?.medium, block_bytes).context("the disk has no partition for the store")
}
