//! Domains of the storage path that are killed under a load of writes with `appendfsync always` (issue "NVMe behind a shadow that loses nothing").
//!
//! The driver's death is nobody's business above its shadow: no client sees an error. The engine's and the server's make clients connect again at most. In
//! each case all that was acknowledged is there afterwards, and nothing else.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use progress::Step;

use crate::context::Context;
use crate::kv_load::{KvLoad, check_no_error, check_reads, wait_until_loaded};
use crate::recovery::kill;
use crate::running_lab::RunningLab;

/// From one kill to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Before the first and behind the last kill.
const CALM: Duration = Duration::from_millis(500);

/// A round: who is killed, and whether clients may notice.
struct Round {
    name: &'static str,
    victims: &'static [&'static str],
    clients_notice: bool,
}

const ROUNDS: [Round; 5] = [
    Round {
        name: "nvme",
        victims: &["nvme"],
        clients_notice: false,
    },
    Round {
        name: "path",
        victims: &["block-shadow", "partitions"],
        clients_notice: false,
    },
    Round {
        name: "engine",
        victims: &["kv-engine"],
        clients_notice: false,
    },
    Round {
        name: "server",
        victims: &["kv-server"],
        clients_notice: true,
    },
    Round {
        name: "any",
        victims: &["nvme", "block-shadow", "partitions", "kv-engine", "kv-server"],
        clients_notice: true,
    },
];

/// The test.
pub fn lose_nothing(context: &Context) -> Result<()> {
    provision::ensure_programs(&[provision::Program::REDIS_CLI])?;
    let lab = context.boot_store("storage-kills", None)?;
    lab.judge(rounds(context, &lab))
}

fn rounds(context: &Context, lab: &RunningLab) -> Result<()> {
    wait_until_loaded(lab)?;
    let mut random = Rng::with_seed(context.attacks.seed);
    let mut loads = Vec::new();
    for round in &ROUNDS {
        let mut load = KvLoad::new(
            context,
            &format!("kills-{}", round.name),
            Duration::from_secs(context.storage.seconds),
        )?;
        load.reconnect = round.clients_notice;
        let step = Step::start(format!("Killing {} under writes", round.victims.join(", ")));
        let mut kills = 0;
        let summary = load.run(lab, || {
            kills = kill_under_load(lab, round, &load, &mut random)?;
            Ok(())
        })?;
        step.note("looking for every key");
        if round.clients_notice {
            check_reads(&summary)?;
        } else {
            check_no_error(&summary)?;
        }
        let acknowledged = load.verify(lab)?;
        ensure!(acknowledged > 0, "no write was acknowledged: {summary}");
        step.done(format!(
            "{kills} kills, {acknowledged} acknowledged writes, all there"
        ));
        context.figure(&format!("{}_kills", round.name), kills, "");
        context.figure(&format!("{}_acknowledged", round.name), acknowledged, "writes");
        context.figure(
            &format!("{}_longest_wait", round.name),
            summary["longest_ms"].as_u64().unwrap_or_default(),
            "ms",
        );
        loads.push(load);
    }
    // What was written in a round outlived all later ones.
    for load in &loads {
        load.verify(lab)?;
    }
    Ok(())
}

fn kill_under_load(lab: &RunningLab, round: &Round, load: &KvLoad, random: &mut Rng) -> Result<u64> {
    let started = Instant::now();
    let until = started + load.time.saturating_sub(CALM);
    let mut next = started + CALM;
    let mut kills = 0;
    loop {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if Instant::now() >= until {
            return Ok(kills);
        }
        if let Some(victim) = random.choice(round.victims) {
            kill(lab, victim)?;
            kills += 1;
        }
        next += PERIOD;
    }
}
