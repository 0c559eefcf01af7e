//! Domains that are killed while they work: the driver again and again under load, and the others once each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use progress::Step;
use serde_json::Value;

use crate::appliance::state;
use crate::context::Context;
use crate::running_lab::{Held, RunningLab};
use crate::serving::{DOWNLOAD_LIMIT, LARGE_FILE, LargeSite};

/// How often, and every how long, the driver is killed.
const KILLS: u64 = 60;
const PERIOD: Duration = Duration::from_secs(1);
/// Connections that are open, and used, all the time.
const VIP_CONNECTIONS: u64 = 200;
const SITE_CONNECTIONS: u64 = 50;
/// Time for a killed domain's service to be back, and for memory to be what it was.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

/// What one kind of load did.
#[derive(Default)]
struct Done {
    rounds: u64,
    bytes: u64,
    busy: Duration,
}

/// The driver, under downloads and connections to the VIP and the site.
pub fn driver_once_a_second(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let site = context.site()?;
        let mut vip = lab.hold(lab.vip()?, VIP_CONNECTIONS)?;
        vip.ask()?.check_all(VIP_CONNECTIONS)?;
        let mut web = lab.hold(lab.server()?, SITE_CONNECTIONS)?;
        web.ask()?.check_all(SITE_CONNECTIONS)?;
        let step = Step::start("Downloading 200 MB in peace, for comparison");
        let calm = lab.download(&lab.url(LARGE_FILE), DOWNLOAD_LIMIT)?;
        site.check(&calm)?;
        // What a first death makes once and for all is no loss.
        kill(lab, "ixgbe")?;
        vip.ask()?.check_all(VIP_CONNECTIONS)?;
        step.done(format!("{:.1} MB/s", calm.rate()));
        let pages_before = settled_pages(lab)?;
        let deaths_before = deaths(lab, 1)?.total;

        let stop = &AtomicBool::new(false);
        let (kills, loads) = thread::scope(|scope| {
            let threads = [
                scope.spawn(move || until_stopped(stop, || download(lab, site))),
                scope.spawn(move || until_stopped(stop, || ask(&mut vip, VIP_CONNECTIONS))),
                scope.spawn(move || until_stopped(stop, || ask(&mut web, SITE_CONNECTIONS))),
            ];
            let kills = kill_repeatedly(lab, stop);
            stop.store(true, Ordering::Relaxed);
            let loads = threads.map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a load's thread panicked")))
            });
            (kills, loads)
        });
        kills?;
        let [downloads, vip, web] = loads;
        let downloads = downloads.context("the downloads during the kills")?;
        let vip = vip.context("the VIP's connections during the kills")?;
        let web = web.context("the site's connections during the kills")?;

        let rate = downloads.bytes as f64 / 1e6 / downloads.busy.as_secs_f64();
        context.figure("kills", KILLS, "");
        context.figure(
            "downloads",
            downloads.rounds,
            "of 200 MB, each with the right SHA-256",
        );
        context.figure("download_calm", calm.rate(), "MB/s");
        context.figure("download_under_kills", rate, "MB/s");
        context.figure(
            "vip_requests",
            vip.rounds * VIP_CONNECTIONS,
            "on connections that stayed",
        );
        context.figure(
            "site_requests",
            web.rounds * SITE_CONNECTIONS,
            "on connections that stayed",
        );
        check_deaths(context, lab, deaths_before)?;
        let pages_after = return_of_pages(lab, pages_before)?;
        context.figure("free_pages_before", pages_before, "");
        context.figure("free_pages_after", pages_after, "");
        Ok(())
    })
}

/// Repeats a load until it is told to stop; a failure ends it.
fn until_stopped(stop: &AtomicBool, mut load: impl FnMut() -> Result<u64>) -> Result<Done> {
    let mut done = Done::default();
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let bytes = load();
        if bytes.is_err() {
            // There is nothing to be seen any more: no need to go on killing.
            stop.store(true, Ordering::Relaxed);
        }
        done.bytes += bytes?;
        done.rounds += 1;
    }
    done.busy = started.elapsed();
    Ok(done)
}

fn download(lab: &RunningLab, site: &LargeSite) -> Result<u64> {
    let download = lab.download(&lab.url(LARGE_FILE), DOWNLOAD_LIMIT)?;
    site.check(&download)?;
    Ok(download.bytes)
}

fn ask(held: &mut Held, count: u64) -> Result<u64> {
    held.ask()?.check_all(count)?;
    Ok(0)
}

fn kill_repeatedly(lab: &RunningLab, stop: &AtomicBool) -> Result<()> {
    let step = Step::start(format!("Killing ixgbe {KILLS} times"));
    let mut next = Instant::now();
    for number in 0..KILLS {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            step.failed("a load has failed");
            return Ok(());
        }
        // From when it was due, so that the pace doesn't depend on how long a command takes.
        next += PERIOD;
        step.note(format!("{number}"));
        kill(lab, "ixgbe")?;
    }
    step.done("");
    Ok(())
}

fn kill(lab: &RunningLab, domain: &str) -> Result<()> {
    lab.console(&format!("kill {domain}")).map(drop)
}

/// What `deaths` shows.
struct Deaths {
    total: u64,
    list: Vec<Value>,
}

fn deaths(lab: &RunningLab, count: u64) -> Result<Deaths> {
    let answer = lab.console_json(&format!("deaths {count} --json"))?;
    Ok(Deaths {
        total: answer["total"].as_u64().context("`deaths` gave no total")?,
        list: answer["deaths"].as_array().cloned().unwrap_or_default(),
    })
}

/// Every kill is in the records, nothing else died, and each was recovered from.
fn check_deaths(context: &Context, lab: &RunningLab, before: u64) -> Result<()> {
    let deaths = deaths(lab, KILLS)?;
    ensure!(
        deaths.total == before + KILLS,
        "{KILLS} kills should make {} deaths since boot, and `deaths` counts {}",
        before + KILLS,
        deaths.total
    );
    ensure!(
        deaths.list.len() as u64 == KILLS,
        "`deaths {KILLS}` shows {} deaths",
        deaths.list.len()
    );
    for death in &deaths.list {
        ensure!(
            death["name"] == "ixgbe"
                && death["cause"]
                    .as_str()
                    .is_some_and(|cause| cause.starts_with("killed")),
            "somebody else died, or of something else: {death}"
        );
    }
    for (field, name) in [("restart_ns", "restart"), ("outage_ns", "death_to_first_packet")] {
        let mut times: Vec<f64> = deaths
            .list
            .iter()
            .filter_map(|death| death[field].as_f64())
            .map(|nanoseconds| nanoseconds / 1e6)
            .collect();
        ensure!(
            times.len() as u64 == KILLS,
            "of {KILLS} deaths {} have a {field}",
            times.len()
        );
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        context.figure(&format!("{name}_p50_ms"), at(0.50), "ms");
        context.figure(&format!("{name}_p99_ms"), at(0.99), "ms");
        context.figure(&format!("{name}_max_ms"), at(1.0), "ms");
    }
    Ok(())
}

fn free_pages(lab: &RunningLab) -> Result<u64> {
    let answer = lab.console_json("memory --json")?;
    answer["free_pages"]
        .as_u64()
        .context("`memory` gave no number of free pages")
}

/// The free pages once they no longer change.
fn settled_pages(lab: &RunningLab) -> Result<u64> {
    let until = Instant::now() + RETURN_LIMIT;
    let mut last = free_pages(lab)?;
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = free_pages(lab)?;
        if now == last || Instant::now() > until {
            return Ok(now);
        }
        last = now;
    }
}

/// Waits until as many pages are free as before.
fn return_of_pages(lab: &RunningLab, before: u64) -> Result<u64> {
    let until = Instant::now() + RETURN_LIMIT;
    loop {
        let now = free_pages(lab)?;
        if now >= before {
            return Ok(now);
        }
        ensure!(
            Instant::now() < until,
            "{before} pages were free before the kills, {now} are free after them"
        );
        thread::sleep(Duration::from_millis(500));
    }
}

/// Each of the others, once: its service is back by itself, and it is another incarnation.
pub fn others_come_back(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let site = lab.url("612.html");
        let vip = lab.report().vip.context("the configuration has no VIP")?.http;
        for (domain, url) in [("httpd", &site), ("netstack", &site), ("maglev", &vip)] {
            let step = Step::start(format!("Killing {domain}"));
            let before = generation(lab, domain)?;
            let started = Instant::now();
            kill(lab, domain)?;
            let until = started + RETURN_LIMIT;
            while let Err(error) = lab.run(
                "client",
                "curl",
                &["-sS", "--fail", "-m", "1", "-o", "/dev/null", url],
            ) {
                ensure!(
                    Instant::now() < until,
                    "{RETURN_LIMIT:?} after {domain} was killed its service is not back: {error:#}"
                );
            }
            let time = started.elapsed().as_secs_f64();
            let after = generation(lab, domain)?;
            ensure!(
                after > before,
                "{domain} was killed and is still generation {after}"
            );
            step.done("it is back");
            context.figure(
                &format!("{domain}_back"),
                time,
                "s, with the time that typing takes",
            );
        }
        Ok(())
    })
}

fn generation(lab: &RunningLab, domain: &str) -> Result<u64> {
    let listing = lab.console_json("domains --json")?;
    ensure!(
        state(&listing, domain).is_some(),
        "`domains` doesn't list {domain}: {listing}"
    );
    listing
        .as_array()
        .into_iter()
        .flatten()
        .find(|known| known["name"] == domain)
        .and_then(|known| known["generation"].as_u64())
        .with_context(|| format!("{domain} has no generation: {listing}"))
}
