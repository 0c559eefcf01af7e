//! The load balancer: shares, draining, removal.

use anyhow::{Context as _, Result, ensure};

use crate::context::{Context, Outcome, RunningLab};

/// The TCP service of config/appliance.toml, and the backend that is taken out.
const SERVICE: &str = "web";
const BACKEND: &str = "backend2";
/// Established connections that are watched.
const HELD: u16 = 500;
/// Source ports are given, so that the flows are the same each time: shares are then a fact, not a chance.
const SHARE_PORTS: u16 = 20_000;
const HELD_PORTS: u16 = 40_000;
const NEW_PORTS: u16 = 50_000;

/// 10,000 connections reach all four backends, each within 5 % of its share.
pub fn shares(context: &Context) -> Result<()> {
    const COUNT: u16 = 10_000;
    let lab = context.large_site()?;
    let outcome = lab.connections(lab.vip()?, COUNT, SHARE_PORTS)?;
    ensure!(
        outcome.answered == u64::from(COUNT),
        "not all were answered: {outcome:?}"
    );
    ensure!(
        outcome.by_server.len() == 4,
        "not all backends were reached: {outcome:?}"
    );
    eprintln!("  {:?}", outcome.by_server);
    let share = f64::from(COUNT) / 4.0;
    for (name, answered) in &outcome.by_server {
        let off = (*answered as f64 - share).abs() / share;
        ensure!(
            off <= 0.05,
            "{name} has {answered} of a share of {share}: {:.1} % off",
            off * 100.0
        );
    }
    lab.no_violations()
}

/// Draining a backend moves none of 500 established connections, and gives it no new ones.
pub fn draining(context: &Context) -> Result<()> {
    let lab = context.large_site()?;
    let mut held = lab.hold(lab.vip()?, HELD, HELD_PORTS)?;
    all_answered(&held.ask()?)?;
    lab.console(&format!("maglev drain {SERVICE} {BACKEND}"))?;
    let after = held.ask()?;
    all_answered(&after)?;
    ensure!(after.moved == 0, "{} connections have moved", after.moved);
    let new = lab.connections(lab.vip()?, 1_000, NEW_PORTS)?;
    ensure!(
        new.answered == 1_000,
        "not all new connections were answered: {new:?}"
    );
    ensure!(
        !new.by_server.contains_key(BACKEND),
        "{BACKEND} is drained and got new connections: {new:?}"
    );
    lab.no_violations()
}

/// Removing a backend ends its own connections and touches at most 1 % of the rest.
pub fn removal(context: &Context) -> Result<()> {
    let lab = context.large_site()?;
    let mut held = lab.hold(lab.vip()?, HELD, HELD_PORTS)?;
    let before = held.ask()?;
    all_answered(&before)?;
    let own = before
        .by_server
        .get(BACKEND)
        .copied()
        .with_context(|| format!("{BACKEND} has no connections"))?;
    lab.console(&format!("maglev remove {SERVICE} {BACKEND}"))?;
    let after = held.ask()?;
    let touched = after.failed.values().sum::<u64>() + after.moved;
    let rest = u64::from(HELD) - own;
    eprintln!("  {touched} of {HELD} connections touched, {own} of them the backend's own");
    ensure!(
        touched <= own + rest / 100,
        "more than its own and 1 % of the rest: {before:?}, then {after:?}"
    );
    let new = lab.connections(lab.vip()?, 1_000, NEW_PORTS)?;
    ensure!(
        new.answered == 1_000,
        "not all new connections were answered: {new:?}"
    );
    ensure!(
        !new.by_server.contains_key(BACKEND),
        "{BACKEND} is removed and got connections: {new:?}"
    );
    lab.no_violations()
}

fn all_answered(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.answered == u64::from(HELD),
        "not all were answered: {outcome:?}"
    );
    Ok(())
}

impl RunningLab {
    /// Address and port of the balanced service.
    fn vip(&self) -> Result<std::net::SocketAddr> {
        let vip = self.report().vip.context("the configuration has no VIP")?;
        Ok(std::net::SocketAddr::new(vip.ipv4.parse()?, 80))
    }
}
