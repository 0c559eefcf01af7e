//! Domains that are killed while they work: the driver again and again under load, and the others once each.

use std::net::SocketAddr;
use std::ops::AddAssign;
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

/// How often the driver is killed if nothing else is said, and every how long. Sixty times show what the longest outages are; for a p99 that is more than
/// their longest, take some hundreds.
const KILLS: u64 = 60;
const PERIOD: Duration = Duration::from_secs(1);
/// After so long a client sends again what was lost with the driver: Linux' shortest retransmission timeout, milliseconds.
const RETRANSMISSION_MS: f64 = 200.0;
/// Connections that are open, and used, all the time.
const VIP_CONNECTIONS: u64 = 200;
const SITE_CONNECTIONS: u64 = 50;
/// Between two rounds of requests on them.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the load runs in peace, and how many kills come before those that count.
const CALM: Duration = Duration::from_secs(5);
const WARM_UP_KILLS: u64 = 5;
/// Datagrams to a VIP, so that a packet is always about to come: what loses frames in an outage, and TCP does, may wait for its
/// retransmission timer afterwards, and the time to the first packet would measure that.
const DATAGRAM_FLOWS: u16 = 64;
const DATAGRAM_RATE: u64 = 2_000;
const DATAGRAM_TIME: Duration = Duration::from_secs(4);
/// By how much the shared heap may grow while the driver is killed under load: the peak of packets under way varies, and the
/// heap keeps what a peak has needed.
const SHARED_GROWTH_PAGES: u64 = 512;
/// By how much the kernel's heap may grow meanwhile: one step of its, for the reports of deaths.
const KERNEL_HEAP_GROWTH_PAGES: u64 = 256;
/// By how much the supervisor may grow: its records of deaths, of which it keeps 1,024.
const RECORDS_GROWTH_PAGES: u64 = 256;
/// Kills without any load, for an exact count of pages.
const KILLS_AT_REST: u32 = 20;
/// Time for a killed domain's service to be back, and for memory to be what it was.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

/// What one kind of load did.
#[derive(Default)]
struct Done {
    rounds: u64,
    bytes: u64,
    busy: Duration,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        self.rounds += other.rounds;
        self.bytes += other.bytes;
        self.busy += other.busy;
    }
}

impl Done {
    /// Megabytes a second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.busy.as_secs_f64()
    }
}

/// Everything that goes on while the driver is killed.
struct Load<'a> {
    lab: &'a RunningLab,
    site: &'a LargeSite,
    vip: Held,
    web: Held,
    datagrams_to: SocketAddr,
}

/// What it did in one phase, or in several.
#[derive(Default)]
struct Phase {
    downloads: Done,
    vip: Done,
    web: Done,
}

impl AddAssign for Phase {
    fn add_assign(&mut self, other: Phase) {
        self.downloads += other.downloads;
        self.vip += other.vip;
        self.web += other.web;
    }
}

/// The driver, under downloads and connections to the VIP and the site.
pub fn driver_once_a_second(context: &Context) -> Result<()> {
    let kills = context.attacks.kills.unwrap_or(KILLS);
    context.with_appliance(|lab| {
        let mut load = Load {
            lab,
            site: context.site()?,
            vip: lab.hold(lab.vip()?, VIP_CONNECTIONS)?,
            web: lab.hold(lab.server()?, SITE_CONNECTIONS)?,
            datagrams_to: lab.service("udp", false)?,
        };
        let mut calm = load.in_peace()?;
        // What the first deaths under load make once and for all is no loss, nor what a peak of so many makes netstack keep.
        let warm_up = if kills > KILLS { KILLS } else { WARM_UP_KILLS };
        load.run(|stop| kill_repeatedly(lab, warm_up, stop))?;
        let memory_before = settled_memory(lab)?;
        let deaths_before = deaths(lab, 1)?.total;

        let mut killed = Phase::default();
        let mut left = kills;
        while left > 0 {
            let block = left.min(KILLS);
            killed += load.run(|stop| kill_repeatedly(lab, block, stop))?;
            left -= block;
            if kills > KILLS {
                // The host's pace changes over minutes: that isn't to count as loss or gain.
                calm += load.in_peace()?;
            }
        }
        // Before anything is asked that makes the shell itself grow, such as a list of so many deaths.
        let memory_after = return_of_pages(lab, &memory_before, Memory::available)?;

        let growth = memory_after
            .shared_pages
            .saturating_sub(memory_before.shared_pages);
        ensure!(
            growth <= SHARED_GROWTH_PAGES,
            "the shared heap grew by {growth} pages during the kills\nbefore: {}\nafter:  {}",
            memory_before.details,
            memory_after.details
        );

        let (before, after) = (calm.downloads.rate(), killed.downloads.rate());
        context.figure("kills", kills, "");
        context.figure(
            "downloads",
            killed.downloads.rounds,
            "of 200 MB, each with the right SHA-256",
        );
        context.figure("download_in_peace", before, "MB/s");
        context.figure("download_under_kills", after, "MB/s");
        context.figure("throughput_loss", (1.0 - after / before) * 100.0, "%");
        context.figure(
            "vip_requests",
            killed.vip.rounds * VIP_CONNECTIONS,
            "on connections that stayed",
        );
        context.figure(
            "site_requests",
            killed.web.rounds * SITE_CONNECTIONS,
            "on connections that stayed",
        );
        check_deaths(context, lab, kills, deaths_before)?;
        context.figure("free_pages_before", memory_before.free_pages, "");
        context.figure("free_pages_after", memory_after.free_pages, "");
        context.figure("shared_heap_pages_before", memory_before.shared_pages, "");
        context.figure("shared_heap_pages_after", memory_after.shared_pages, "");
        drop(load);
        kills_at_rest_cost_nothing(context, lab)
    })
}

impl Load<'_> {
    /// The load without deaths.
    fn in_peace(&mut self) -> Result<Phase> {
        let step = Step::start("The same load in peace, for comparison");
        let calm = self.run(|_| {
            thread::sleep(CALM);
            Ok(())
        })?;
        step.done(format!("{:.1} MB/s", calm.downloads.rate()));
        Ok(calm)
    }

    /// Keeps up the load while `work` goes on; `work` is told when a load has failed. Fails if a load does.
    fn run(&mut self, work: impl FnOnce(&AtomicBool) -> Result<()>) -> Result<Phase> {
        let Self {
            lab,
            site,
            vip,
            web,
            datagrams_to,
        } = self;
        let (lab, site, datagrams_to) = (*lab, *site, *datagrams_to);
        let stop = &AtomicBool::new(false);
        let (worked, loads) = thread::scope(|scope| {
            let threads = [
                scope.spawn(move || until_stopped(stop, || download(lab, site))),
                scope.spawn(move || until_stopped(stop, || ask(vip, VIP_CONNECTIONS))),
                scope.spawn(move || until_stopped(stop, || ask(web, SITE_CONNECTIONS))),
                scope.spawn(move || until_stopped(stop, || datagrams(lab, datagrams_to))),
            ];
            let worked = work(stop);
            stop.store(true, Ordering::Relaxed);
            let loads = threads.map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a load's thread panicked")))
            });
            (worked, loads)
        });
        let [downloads, vip, web, datagrams] = loads;
        let phase = Phase {
            downloads: downloads.context("the downloads")?,
            vip: vip.context("the VIP's connections")?,
            web: web.context("the site's connections")?,
        };
        datagrams.context("the datagrams")?;
        worked.map(|()| phase)
    }
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
    // Used all the time, and still leaving the machine to the others.
    thread::sleep(PAUSE);
    Ok(0)
}

fn datagrams(lab: &RunningLab, to: SocketAddr) -> Result<u64> {
    lab.datagrams(to, DATAGRAM_FLOWS, DATAGRAM_RATE, DATAGRAM_TIME)
        .map(|_| 0)
}

fn kill_repeatedly(lab: &RunningLab, kills: u64, stop: &AtomicBool) -> Result<()> {
    let step = Step::start(format!("Killing ixgbe {kills} times"));
    let mut next = Instant::now();
    for number in 0..kills {
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

pub fn kill(lab: &RunningLab, domain: &str) -> Result<()> {
    lab.console(&format!("kill {domain}")).map(drop)
}

/// What `deaths` shows.
pub struct Deaths {
    /// Deaths since boot.
    pub total: u64,
    /// The last ones.
    pub list: Vec<Value>,
}

pub fn deaths(lab: &RunningLab, count: u64) -> Result<Deaths> {
    let answer = lab.console_json(&format!("deaths last {count} --json"))?;
    Ok(Deaths {
        total: answer["total"].as_u64().context("`deaths` gave no total")?,
        list: answer["deaths"].as_array().cloned().unwrap_or_default(),
    })
}

/// Every kill is in the records, nothing else died, and each was recovered from.
fn check_deaths(context: &Context, lab: &RunningLab, kills: u64, before: u64) -> Result<()> {
    let deaths = deaths(lab, kills)?;
    ensure!(
        deaths.total == before + kills,
        "{kills} kills should make {} deaths since boot, and `deaths` counts {}",
        before + kills,
        deaths.total
    );
    ensure!(
        deaths.list.len() as u64 == kills,
        "`deaths last {kills}` shows {} deaths",
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
            times.len() as u64 == kills,
            "of {kills} deaths {} have a {field}",
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
        let waits = times.iter().filter(|time| **time >= RETRANSMISSION_MS).count();
        context.figure(&format!("{name}_over_200_ms"), waits, "of the deaths");
    }
    Ok(())
}

/// Without traffic the same pages are free as before, exactly.
fn kills_at_rest_cost_nothing(context: &Context, lab: &RunningLab) -> Result<()> {
    let before = settled_memory(lab)?;
    let step = Step::start(format!("Killing ixgbe {KILLS_AT_REST} times at rest"));
    for _ in 0..KILLS_AT_REST {
        kill(lab, "ixgbe")?;
    }
    step.done("");
    let after = return_of_pages(lab, &before, Memory::outside_of_use)?;
    context.figure(
        "free_pages_lost_at_rest",
        before.outside_of_use().saturating_sub(after.outside_of_use()),
        "",
    );
    Ok(())
}

/// Who has how much memory.
pub struct Memory {
    free_pages: u64,
    shared_pages: u64,
    /// Pages of the kernel's own heap, which grows in steps and holds the reports of deaths, a bounded number of them.
    kernel_heap_pages: u64,
    /// Private pages of the supervisor, which holds the records of deaths, a bounded number of them.
    supervisor_pages: u64,
    /// The answers of `memory` and `domains`, for a person who looks for a loss.
    details: String,
}

impl Memory {
    /// Pages that are free, or the kernel heap's or the supervisor's, whose growth is bounded apart ([`return_of_pages`]).
    fn outside_of_use(&self) -> u64 {
        self.free_pages + self.kernel_heap_pages + self.supervisor_pages
    }

    /// The same with pages in the shared heap, which keeps as many as the traffic's peak has needed.
    pub fn available(&self) -> u64 {
        self.outside_of_use() + self.shared_pages
    }
}

fn memory(lab: &RunningLab) -> Result<Memory> {
    let memory = lab.console_json("memory --json")?;
    let domains = lab.console_json("domains --json")?;
    let supervisor_bytes = domains
        .as_array()
        .into_iter()
        .flatten()
        .find(|domain| domain["name"] == "init")
        .and_then(|domain| domain["memory_bytes"].as_u64())
        .context("`domains` gave no memory of the supervisor")?;
    let page_bytes = memory["page_bytes"]
        .as_u64()
        .context("`memory` gave no size of a page")?;
    let by_domain: Vec<String> = domains
        .as_array()
        .into_iter()
        .flatten()
        .map(|domain| {
            format!(
                "{} {} + {}",
                domain["name"], domain["memory_bytes"], domain["shared_bytes"]
            )
        })
        .collect();
    Ok(Memory {
        free_pages: memory["free_pages"]
            .as_u64()
            .context("`memory` gave no number of free pages")?,
        shared_pages: memory["shared_pages"]
            .as_u64()
            .context("`memory` gave no number of the shared heap's pages")?,
        kernel_heap_pages: memory["uses"]["kernel_heap"]
            .as_u64()
            .context("`memory` gave no number of the kernel heap's pages")?,
        supervisor_pages: supervisor_bytes / page_bytes,
        details: format!("{memory}; bytes, private + shared: {}", by_domain.join(", ")),
    })
}

/// Memory once the free pages no longer change.
pub fn settled_memory(lab: &RunningLab) -> Result<Memory> {
    let until = Instant::now() + RETURN_LIMIT;
    let mut last = memory(lab)?;
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = memory(lab)?;
        if now.free_pages == last.free_pages || Instant::now() > until {
            return Ok(now);
        }
        last = now;
    }
}

/// Waits until `count` of memory is what it was before.
pub fn return_of_pages(lab: &RunningLab, before: &Memory, count: impl Fn(&Memory) -> u64) -> Result<Memory> {
    let until = Instant::now() + RETURN_LIMIT;
    loop {
        let now = memory(lab)?;
        if count(&now) >= count(before) {
            let growth = now.kernel_heap_pages.saturating_sub(before.kernel_heap_pages);
            ensure!(
                growth <= KERNEL_HEAP_GROWTH_PAGES,
                "the kernel's heap grew by {growth} pages\nbefore: {}\nafter:  {}",
                before.details,
                now.details
            );
            let growth = now.supervisor_pages.saturating_sub(before.supervisor_pages);
            ensure!(
                growth <= RECORDS_GROWTH_PAGES,
                "the supervisor grew by {growth} pages\nbefore: {}\nafter:  {}",
                before.details,
                now.details
            );
            return Ok(now);
        }
        ensure!(
            Instant::now() < until,
            "the kills cost {} pages\nbefore: {}\nafter:  {}",
            count(before) - count(&now),
            before.details,
            now.details
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

pub fn generation(lab: &RunningLab, domain: &str) -> Result<u64> {
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
