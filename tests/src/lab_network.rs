//! The lab itself, without an appliance: what the other tests rest on.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::running_lab::RunningLab;

/// Every backend answers with its own name by every way, and there is no way out of the lab.
pub fn reaches_backends(context: &Context) -> Result<()> {
    let lab = context.network()?;
    let nodes = lab.report().nodes;
    for (name, node) in nodes.iter().filter(|(name, _)| *name != "client") {
        for address in
            std::iter::once(node.ipv4.clone()).chain(node.ipv6.iter().map(|ipv6| format!("[{ipv6}]")))
        {
            let answer = lab.run(
                "client",
                "curl",
                &["-sS", "-m", "10", &format!("http://{address}/")],
            )?;
            ensure!(
                answer.trim() == name,
                "{address} is {name}, but answers as {answer:?}"
            );
        }
        lab.run("client", "ping", &["-c", "1", "-W", "5", &node.ipv4])?;
    }
    // The VIP is on every backend's loopback interface and nobody may answer for it on the network but the appliance.
    let vip = lab.report().vip.context("the configuration has no VIP")?;
    ensure!(
        lab.run("client", "curl", &["-s", "-m", "2", &vip.http]).is_err(),
        "a backend answers for the VIP though there is no appliance"
    );
    // A documentation address (RFC 5737): there must be no route to anything outside.
    let outside = lab.run("client", "ping", &["-c", "1", "-W", "1", "192.0.2.1"]);
    ensure!(outside.is_err(), "the client has a way out of the lab");
    Ok(())
}

/// Thousands of connections are no trouble for the lab's own ends, so trouble seen elsewhere is the appliance's.
pub fn holds_connections(context: &Context) -> Result<()> {
    const COUNT: u64 = 2_000;
    let lab = context.network()?;
    let to = backend(&lab, "backend1")?;
    let mut held = lab.hold(to, COUNT)?;
    for _ in 0..2 {
        let outcome = held.ask()?;
        ensure!(
            outcome.answered == COUNT && outcome.moved == 0,
            "not all were answered: {outcome:?}"
        );
    }
    let outcome = lab.connections(to, COUNT, 200)?;
    ensure!(
        outcome.answered == COUNT && outcome.failed.is_empty(),
        "not all were answered: {outcome:?}"
    );
    ensure!(
        outcome.by_server.get("backend1") == Some(&COUNT),
        "somebody else answered: {outcome:?}"
    );
    Ok(())
}

fn backend(lab: &RunningLab, name: &str) -> Result<SocketAddr> {
    let report = lab.report();
    let node = report
        .nodes
        .get(name)
        .with_context(|| format!("there is no {name}"))?;
    Ok(SocketAddr::new(node.ipv4.parse()?, 80))
}
