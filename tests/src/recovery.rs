//! The driver is killed under traffic, again and again, and nobody outside sees it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::context::{Context, LARGE_FILE, RunningLab};

const KILLS: u64 = 60;
const BETWEEN_KILLS: Duration = Duration::from_secs(1);
/// Connections to the VIP that are asked again after every kill.
const HELD: u16 = 200;
const HELD_PORTS: u16 = 40_000;

#[derive(Deserialize)]
struct Deaths {
    deaths: Vec<Death>,
}

#[derive(Deserialize)]
struct Death {
    name: String,
    outage_ns: Option<u64>,
}

#[derive(Deserialize)]
struct Memory {
    free_pages: u64,
}

/// One kill a second for 60 s while the large file is downloaded and connections to the VIP are used: the file is whole, no
/// connection is lost, every death is on record, and no page is lost.
pub fn driver_killed_under_load(context: &Context) -> Result<()> {
    let lab = context.large_site()?;
    let vip = lab.report().vip.context("the configuration has no VIP")?;
    let mut held = lab.hold(std::net::SocketAddr::new(vip.ipv4.parse()?, 80), HELD, HELD_PORTS)?;
    ensure!(
        held.ask()?.answered == u64::from(HELD),
        "the connections weren't there to begin with"
    );
    // The first kill pays for what is only made once.
    lab.console("kill ixgbe")?;
    sleep(BETWEEN_KILLS);
    let pages_before = free_pages(&lab)?;

    let mut download = lab.start_download(LARGE_FILE)?;
    let mut downloads = 0;
    for kill in 0..KILLS {
        let next = Instant::now() + BETWEEN_KILLS;
        lab.console("kill ixgbe")?;
        let outcome = held.ask()?;
        ensure!(
            outcome.answered == u64::from(HELD) && outcome.moved == 0,
            "after kill {kill}: connections were lost: {outcome:?}"
        );
        if let Some(digest) = download.finished()? {
            ensure!(
                digest == context.large_file_sha256(),
                "the file arrived with the SHA-256 {digest}"
            );
            downloads += 1;
            download = lab.start_download(LARGE_FILE)?;
        }
        sleep(next.saturating_duration_since(Instant::now()));
    }
    let digest = download.wait(Duration::from_secs(300))?;
    ensure!(
        digest == context.large_file_sha256(),
        "the file arrived with the SHA-256 {digest}"
    );
    drop(held);

    let deaths: Deaths =
        serde_json::from_str(&lab.console("deaths 1000 --json")?).context("`deaths --json`")?;
    let mut outages_ms: Vec<f64> = deaths
        .deaths
        .iter()
        .filter(|death| death.name == "ixgbe")
        .filter_map(|death| death.outage_ns)
        .map(|ns| ns as f64 / 1e6)
        .collect();
    let recorded = deaths.deaths.iter().filter(|death| death.name == "ixgbe").count() as u64;
    ensure!(
        recorded == KILLS + 1,
        "{recorded} deaths of ixgbe are on record, not {}",
        KILLS + 1
    );
    ensure!(deaths.deaths.len() as u64 == recorded, "others have died, too");
    outages_ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        outages_ms
            .get(((outages_ms.len() as f64 - 1.0) * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    eprintln!(
        "  {} downloads; death to first packet: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        downloads + 1,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    no_pages_lost(&lab, pages_before)?;
    lab.no_violations()
}

fn free_pages(lab: &RunningLab) -> Result<u64> {
    let memory: Memory = serde_json::from_str(&lab.console("memory --json")?).context("`memory --json`")?;
    Ok(memory.free_pages)
}

/// Waits for closed connections' buffers to be given back, too.
fn no_pages_lost(lab: &RunningLab, before: u64) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let now = free_pages(lab)?;
        if now >= before {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{} pages are lost ({before} free before, {now} after)",
            before - now
        );
        sleep(Duration::from_secs(1));
    }
}
