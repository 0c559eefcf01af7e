//! What outlives its domain: Maglev is killed, and established flows stay where they were; the driver is killed, and what it was to
//! send is sent.
//!
//! A flow whose backend is drained would go elsewhere if it were forgotten, so some backends are drained first: those flows are
//! where they are only because the table knows them. What the operator has changed must outlive the death too.

use std::net::SocketAddr;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use progress::Step;
use serde_json::Value;

use crate::balancing::check_state;
use crate::context::{Context, SPARE_BACKEND};
use crate::recovery::{deaths, generation, kill};
use crate::running_lab::{Held, RunningLab};
use crate::serving::{DOWNLOAD_LIMIT, LARGE_FILE};

/// Flows that are open all the time.
const CONNECTIONS: u64 = 1_000;
const DATAGRAM_FLOWS: u64 = 100;
/// Connections that come after each death, to see that they are balanced.
const NEW_CONNECTIONS: u64 = 200;
const AT_ONCE: u32 = 50;
const KILLS: u64 = 10;
/// Kills without waiting for anything in between.
const QUICK_KILLS: u64 = 3;
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// Services of the configuration, and the backend that is drained in both.
const SERVICE: &str = "web";
const DRAINED: &str = "backend1";
const BALANCER: &str = "maglev";

/// When the card stops within a download, and how long it stays so: longer than netstack's retransmission timeout, and shorter than
/// what the driver takes for a hang.
const DOWNLOAD_RUNS: Duration = Duration::from_millis(400);
const CARD_STOPS: Duration = Duration::from_millis(1_500);

/// The flows of this test.
struct Flows {
    vip: SocketAddr,
    connections: Held,
    datagrams: Held,
    kills: u64,
}

/// One kill, then ten, then some at once: nothing moves.
pub fn maglev_keeps_flows(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let vip = lab.vip()?;
        let mut flows = Flows {
            vip,
            connections: lab.hold(vip, CONNECTIONS)?,
            datagrams: lab.hold_datagrams(lab.service("udp", false)?, DATAGRAM_FLOWS)?,
            kills: 0,
        };
        flows.ask("before anything happens")?;
        let datagram_service = name_of_datagram_service(&lab.console_json("maglev --json")?)?;
        change_backends(lab, &datagram_service)?;
        flows.ask("after the operator's changes")?;
        flows.new_ones_are_balanced(lab)?;
        let held_bytes = shared_bytes(lab)?;

        let step = Step::start(format!("Killing {BALANCER} {KILLS} times"));
        for number in 0..KILLS {
            step.note(format!("{number}"));
            flows.kill(lab, 1)?;
            flows.ask(&format!("after kill {}", number + 1))?;
            check_changes(lab)?;
        }
        step.done(format!(
            "0 of {CONNECTIONS} connections and {DATAGRAM_FLOWS} UDP flows moved"
        ));
        flows.new_ones_are_balanced(lab)?;

        let step = Step::start(format!("Killing {BALANCER} {QUICK_KILLS} times at once"));
        flows.kill(lab, QUICK_KILLS)?;
        flows.ask("after kills at once")?;
        check_changes(lab)?;
        step.done("");

        let step = Step::start(format!("Killing everything around {BALANCER}, and then it"));
        for neighbour in ["classifier", "ixgbe", "nic-shadow"] {
            kill(lab, neighbour)?;
            flows.kill(lab, 1)?;
            flows.ask(&format!("after {neighbour} and {BALANCER} were killed"))?;
        }
        step.done("");
        flows.new_ones_are_balanced(lab)?;
        ensure!(
            shared_bytes(lab)? == held_bytes,
            "{BALANCER} held {held_bytes} bytes of shared memory before the kills and {} after",
            shared_bytes(lab)?
        );
        context.figure("kills", flows.kills, "");
        context.figure("moved_connections", 0, "of 1,000 after each kill");
        context.figure("moved_udp_flows", 0, "of 100 after each kill");
        restarts(context, lab, flows.kills)?;
        restore_backends(lab, &datagram_service)
    })
}

/// The card stops, so that frames pile up in the driver; it is killed, and its successor sends them.
pub fn driver_leaves_frames(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let site = context.site()?;
        let step = Step::start("Killing ixgbe with frames in its rings");
        let download = thread::scope(|scope| {
            let download = scope.spawn(|| lab.download(&lab.url(LARGE_FILE), DOWNLOAD_LIMIT));
            sleep(DOWNLOAD_RUNS);
            let interrupted = lab.nic(&["stop-dma"]).and_then(|_| {
                sleep(CARD_STOPS);
                kill(lab, "ixgbe")
            });
            // Whatever came of it, the download needs the card.
            let started = lab.nic(&["start-dma"]);
            let download = download
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the download's thread panicked")));
            interrupted?;
            started?;
            download
        })?;
        site.check(&download)?;
        let log = lab.console("log 200")?;
        let frames: u64 = log
            .lines()
            .filter_map(|line| {
                line.split("nic-shadow: ")
                    .nth(1)?
                    .split(" frames that the last generation")
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .sum();
        ensure!(frames > 0, "the shadow had no frames to send again:\n{log}");
        step.done(format!("{frames} frames were sent by its successor"));
        context.figure("frames_sent_again", frames, "");
        Ok(())
    })
}

impl Flows {
    fn ask(&mut self, when: &str) -> Result<()> {
        let outcome = self.connections.ask()?;
        outcome.check_all(CONNECTIONS).with_context(|| when.to_owned())?;
        let outcome = self.datagrams.ask()?;
        outcome
            .check_all(DATAGRAM_FLOWS)
            .with_context(|| format!("UDP, {when}"))
    }

    /// Kills the balancer and waits for the last of its successors.
    fn kill(&mut self, lab: &RunningLab, times: u64) -> Result<()> {
        for _ in 0..times {
            let before = generation(lab, BALANCER)?;
            kill(lab, BALANCER)?;
            let until = Instant::now() + RETURN_LIMIT;
            while generation(lab, BALANCER)? == before {
                ensure!(Instant::now() < until, "{BALANCER} doesn't come back");
                sleep(Duration::from_millis(20));
            }
            self.kills += 1;
        }
        Ok(())
    }

    fn new_ones_are_balanced(&self, lab: &RunningLab) -> Result<()> {
        let outcome = lab.connections(self.vip, NEW_CONNECTIONS, AT_ONCE)?;
        outcome.check_all(NEW_CONNECTIONS)?;
        ensure!(
            !outcome.by_server.contains_key(DRAINED) && outcome.by_server.len() == 4,
            "new connections should reach the four backends that aren't drained: {:?}",
            outcome.by_server
        );
        Ok(())
    }
}

fn name_of_datagram_service(services: &Value) -> Result<String> {
    services
        .as_array()
        .into_iter()
        .flatten()
        .find(|service| {
            service["protocol"] == "udp"
                && service["address"]
                    .as_str()
                    .is_some_and(|address| !address.contains(':'))
        })
        .and_then(|service| service["name"].as_str())
        .map(str::to_owned)
        .context("the balancer has no UDP service")
}

fn change_backends(lab: &RunningLab, datagram_service: &str) -> Result<()> {
    let nodes = lab.report().nodes;
    let spare = nodes
        .get(SPARE_BACKEND)
        .with_context(|| format!("there is no {SPARE_BACKEND}"))?;
    lab.console(&format!("maglev drain {SERVICE} {DRAINED}"))?;
    lab.console(&format!("maglev drain {datagram_service} {DRAINED}"))?;
    lab.console(&format!("maglev add {SERVICE} {SPARE_BACKEND} {}", spare.ipv4))?;
    check_changes(lab)
}

fn check_changes(lab: &RunningLab) -> Result<()> {
    check_state(lab, DRAINED, Some("draining"))?;
    check_state(lab, SPARE_BACKEND, Some("active"))
}

fn restore_backends(lab: &RunningLab, datagram_service: &str) -> Result<()> {
    lab.console(&format!("maglev activate {SERVICE} {DRAINED}"))?;
    lab.console(&format!("maglev activate {datagram_service} {DRAINED}"))?;
    lab.console(&format!("maglev remove {SERVICE} {SPARE_BACKEND}"))?;
    check_state(lab, DRAINED, Some("active"))?;
    check_state(lab, SPARE_BACKEND, None)
}

/// Shared memory that the balancer has.
fn shared_bytes(lab: &RunningLab) -> Result<u64> {
    lab.console_json("domains --json")?
        .as_array()
        .into_iter()
        .flatten()
        .find(|domain| domain["name"] == BALANCER)
        .and_then(|domain| domain["shared_bytes"].as_u64())
        .with_context(|| format!("`domains` doesn't say what {BALANCER} holds"))
}

/// How long it took from its deaths to its being up again.
fn restarts(context: &Context, lab: &RunningLab, kills: u64) -> Result<()> {
    // Those of the others are among them.
    let list = deaths(lab, kills + 3)?.list;
    let mut times: Vec<f64> = list
        .iter()
        .filter(|death| death["name"] == BALANCER)
        .filter_map(|death| death["restart_ns"].as_f64())
        .map(|nanoseconds| nanoseconds / 1e6)
        .collect();
    times.sort_by(f64::total_cmp);
    ensure!(
        times.len() as u64 == kills,
        "{kills} kills left {} records",
        times.len()
    );
    context.figure(
        "restart_p50_ms",
        times.get(times.len() / 2).copied().unwrap_or_default(),
        "ms",
    );
    context.figure("restart_max_ms", times.last().copied().unwrap_or_default(), "ms");
    Ok(())
}
