//! The load balancer: shares, what draining and removing do to other flows, both families, TCP and UDP, a new backend.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use progress::Step;
use serde_json::Value;

use crate::context::{Context, SPARE_BACKEND};
use crate::running_lab::{Outcome, RunningLab};

/// Connections for the shares.
const FLOWS: u64 = 10_000;
/// Source port of the first: the lab keeps as many from here on free of connections that don't choose theirs.
const FIRST_PORT: u16 = 20_000;
/// Open together.
const AT_ONCE: u32 = 200;
/// How far a backend may be from its share.
const SHARE_TOLERANCE: f64 = 0.05;
/// Connections that are established while backends go.
const ESTABLISHED: u64 = 500;
/// Part of the flows that may change backend when another one goes.
const DISRUPTION: f64 = 0.01;
/// The service's name in the configuration, its backends, and the one that goes.
const SERVICE: &str = "web";
const BACKENDS: [&str; 4] = ["backend1", "backend2", "backend3", "backend4"];
const LEAVING: &str = "backend1";
/// Datagrams: source ports, and how many a second.
const DATAGRAM_FLOWS: u16 = 64;
const DATAGRAM_RATE: u64 = 2_000;
/// Datagrams that may be lost on a busy machine.
const DATAGRAM_LOSS: f64 = 0.01;

/// Shares, then a drain and a removal.
pub fn keeps_shares(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let vip = lab.vip()?;
        let before = flows(lab, vip, "Connecting")?;
        check_shares(context, &before)?;

        let mut held = lab.hold(vip, ESTABLISHED)?;
        let first = held.ask()?;
        first.check_all(ESTABLISHED)?;
        let leaving = first.by_server.get(LEAVING).copied().unwrap_or_default();

        let step = Step::start(format!("Draining {LEAVING}"));
        lab.console(&format!("maglev drain {SERVICE} {LEAVING}"))?;
        check_state(lab, LEAVING, Some("draining"))?;
        held.ask()?
            .check_all(ESTABLISHED)
            .with_context(|| format!("after {LEAVING} was drained"))?;
        let new = lab.connections(vip, 400, AT_ONCE)?;
        new.check_all(400)?;
        ensure!(
            !new.by_server.contains_key(LEAVING),
            "{LEAVING} is drained and gets new connections: {:?}",
            new.by_server
        );
        step.done(format!("none of {ESTABLISHED} connections moved"));
        context.figure("moved_by_drain", 0, "");

        let step = Step::start(format!("Removing {LEAVING}"));
        lab.console(&format!("maglev remove {SERVICE} {LEAVING}"))?;
        check_state(lab, LEAVING, None)?;
        let after_removal = held.ask()?;
        let lost = after_removal.failures() + after_removal.moved;
        let others = ESTABLISHED - leaving;
        let allowed = leaving + (others as f64 * DISRUPTION) as u64;
        ensure!(
            lost <= allowed,
            "of {ESTABLISHED} established connections {leaving} were {LEAVING}'s; its removal ended or moved {lost}: {after_removal:?}"
        );
        step.done(format!("{lost} of {ESTABLISHED} connections ended, {leaving} were its own"));
        context.figure("established_of_removed", leaving, "");
        context.figure("ended_by_removal", lost, "");
        drop(held);

        let after = flows(lab, vip, "Connecting from the same ports")?;
        check_disruption(context, &before, &after)?;

        let address = &lab.report().nodes[LEAVING].ipv4;
        lab.console(&format!("maglev add {SERVICE} {LEAVING} {address}"))?;
        let again = flows(lab, vip, "Connecting with it back")?;
        let moved = differences(&before, &again, |_| true);
        ensure!(
            moved == 0,
            "with {LEAVING} back the table should be what it was, but {moved} flows went elsewhere"
        );
        Ok(())
    })
}

fn flows(lab: &RunningLab, vip: SocketAddr, title: &str) -> Result<Outcome> {
    let step = Step::start(format!("{title}: {FLOWS} connections"));
    let outcome = lab.connections_from(vip, FLOWS, AT_ONCE, FIRST_PORT)?;
    outcome.check_all(FLOWS)?;
    step.done(by_server(&outcome.by_server));
    Ok(outcome)
}

fn by_server(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    parts.join(", ")
}

fn check_shares(context: &Context, outcome: &Outcome) -> Result<()> {
    let share = FLOWS as f64 / BACKENDS.len() as f64;
    let mut worst = 0.0_f64;
    for name in BACKENDS {
        let count = outcome.by_server.get(name).copied().unwrap_or_default();
        let off = (count as f64 - share).abs() / share;
        ensure!(
            off <= SHARE_TOLERANCE,
            "{name}'s share is {share} of {FLOWS} connections, and it got {count}: {:?}",
            outcome.by_server
        );
        worst = worst.max(off);
    }
    context.figure("worst_share_error", worst * 100.0, "%");
    Ok(())
}

/// Flows with another server than before, among those whose old server `counts`.
fn differences(before: &Outcome, after: &Outcome, counts: impl Fn(&str) -> bool) -> usize {
    before
        .servers
        .iter()
        .zip(&after.servers)
        .filter(|(old, new)| old.as_deref().is_some_and(&counts) && old != new)
        .count()
}

fn check_disruption(context: &Context, before: &Outcome, after: &Outcome) -> Result<()> {
    ensure!(
        !after.by_server.contains_key(LEAVING),
        "{LEAVING} is removed and gets connections: {:?}",
        after.by_server
    );
    let stay = |server: &str| server != LEAVING;
    let others = before
        .servers
        .iter()
        .flatten()
        .filter(|server| stay(server))
        .count();
    let moved = differences(before, after, stay);
    let part = moved as f64 / others as f64;
    context.figure("moved_by_removal", moved, "flows of others");
    context.figure("moved_by_removal_share", part * 100.0, "%");
    ensure!(
        part <= DISRUPTION,
        "{LEAVING}'s removal moved {moved} of the {others} flows of the others"
    );
    Ok(())
}

pub fn check_state(lab: &RunningLab, backend: &str, expected: Option<&str>) -> Result<()> {
    let listing = lab.console_json("maglev --json")?;
    let state = listing
        .as_array()
        .and_then(|services| services.iter().find(|service| service["name"] == SERVICE))
        .and_then(|service| service["backends"].as_array())
        .and_then(|backends| backends.iter().find(|known| known["name"] == backend))
        .and_then(|known| known["state"].as_str());
    ensure!(
        state == expected,
        "{backend} should be {expected:?} and is {state:?}: {listing}"
    );
    Ok(())
}

/// TCP over IPv6, UDP, and a backend that comes at run time.
pub fn forwards_all_protocols(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let six = lab.service("tcp", true)?;
        let outcome = lab.connections(six, 1_000, AT_ONCE)?;
        outcome.check_all(1_000)?;
        for name in BACKENDS {
            ensure!(
                outcome.by_server.contains_key(name),
                "over IPv6 {name} got none of 1,000 connections: {:?}",
                outcome.by_server
            );
        }
        context.figure("ipv6_connections", outcome.answered, "");

        datagrams_arrive(context, lab, lab.service("udp", false)?)?;
        a_new_backend_takes_its_share(context, lab)
    })
}

fn datagrams_arrive(context: &Context, lab: &RunningLab, to: SocketAddr) -> Result<()> {
    let before = datagrams_counted(lab)?;
    let sent = lab.datagrams(to, DATAGRAM_FLOWS, DATAGRAM_RATE, Duration::from_secs(2))?;
    let needed = sent - (sent as f64 * DATAGRAM_LOSS) as u64;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let counted: BTreeMap<String, u64> = datagrams_counted(lab)?
            .into_iter()
            .map(|(name, count)| {
                let old = before.get(&name).copied().unwrap_or_default();
                (name, count - old)
            })
            .collect();
        let arrived: u64 = counted.values().sum();
        if arrived >= needed && counted.values().all(|count| *count > 0) {
            context.figure("datagrams_sent", sent, "");
            context.figure("datagrams_arrived", arrived, "");
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "of {sent} datagrams to the VIP {arrived} arrived: {counted:?}"
        );
        sleep(Duration::from_millis(100));
    }
}

fn datagrams_counted(lab: &RunningLab) -> Result<BTreeMap<String, u64>> {
    let nodes = lab.report().nodes;
    let mut counts = BTreeMap::new();
    for name in BACKENDS {
        let node = nodes.get(name).with_context(|| format!("there is no {name}"))?;
        let url = format!("http://{}/count", node.ipv4);
        let text = lab.run("client", "curl", &["-sS", "-m", "30", &url])?;
        let answer: Value = serde_json::from_str(&text)?;
        let count = answer["datagrams"]
            .as_u64()
            .context("a backend counts no datagrams")?;
        counts.insert(name.to_owned(), count);
    }
    Ok(counts)
}

fn a_new_backend_takes_its_share(context: &Context, lab: &RunningLab) -> Result<()> {
    const COUNT: u64 = 1_000;
    let nodes = lab.report().nodes;
    let node = nodes
        .get(SPARE_BACKEND)
        .with_context(|| format!("there is no {SPARE_BACKEND}"))?;
    let mut held = lab.hold(lab.vip()?, ESTABLISHED)?;
    held.ask()?.check_all(ESTABLISHED)?;
    lab.console(&format!("maglev add {SERVICE} {SPARE_BACKEND} {}", node.ipv4))?;
    check_state(lab, SPARE_BACKEND, Some("active"))?;
    held.ask()?
        .check_all(ESTABLISHED)
        .with_context(|| format!("after {SPARE_BACKEND} was added"))?;
    let outcome = lab.connections(lab.vip()?, COUNT, AT_ONCE)?;
    outcome.check_all(COUNT)?;
    let got = outcome.by_server.get(SPARE_BACKEND).copied().unwrap_or_default();
    // A fifth of a thousand give or take: half of that can't be chance.
    ensure!(
        got >= COUNT / 10,
        "{SPARE_BACKEND} was added and got {got} of {COUNT} connections: {:?}",
        outcome.by_server
    );
    context.figure("new_backend_connections", got, "of 1,000");
    lab.console(&format!("maglev remove {SERVICE} {SPARE_BACKEND}"))?;
    check_state(lab, SPARE_BACKEND, None)
}
