//! Kills at random moments of random domains, several together now and then, under load (issue "every fault is one domain's death").
//!
//! Whatever is killed comes back by itself, what was downloaded meanwhile is right, and at the end every domain holds what it held
//! at the start.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use progress::Step;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::holdings::{compare, settled};
use crate::running_lab::{RunningLab, hexadecimal};
use crate::serving::{LARGE_BYTES, LARGE_FILE};
use crate::typist::{Kill, Typist};

/// Kills before the comparison begins: what is made once and for all is there after them.
const WARM_UP_KILLS: u64 = 60;
/// Those that count, if nothing else is said.
const KILLS: u64 = 300;
/// From one kill to the next, at least.
const PERIOD: Duration = Duration::from_millis(50);
/// One in so many kills is of several domains together.
const TOGETHER: u64 = 8;
/// Kills between two looks at the records, which keep 1,024.
const BURST: u64 = 48;
/// Connections of a round of load, and those open together.
const CONNECTIONS: u64 = 200;
const AT_ONCE: u32 = 50;
/// Requests that are answered after everything, of as many.
const LAST_REQUESTS: u64 = 200;

/// The test.
pub fn cost_nothing(context: &Context) -> Result<()> {
    let lab = context.boot_changed("random-kills", |manifest| Ok(without_holding(&manifest)), false)?;
    lab.judge(run(context, &lab))
}

/// The manifest with a restart policy that neither delays nor holds.
pub fn without_holding(manifest: &str) -> String {
    const POLICY: &str = "restart = { immediate = 1000000, backoff_floor_ms = 1, backoff_ceiling_ms = 1, \
                          budget = 0, window_s = 60, cpu_percent = 0 }";
    let line = |line: &str| {
        let line = if line.starts_with("restart = ") {
            POLICY
        } else {
            line
        };
        format!("{line}\n")
    };
    manifest.lines().map(line).collect()
}

fn run(context: &Context, lab: &RunningLab) -> Result<()> {
    let kills = context.attacks.kills.unwrap_or(KILLS);
    let sha256 = &context.site()?.sha256;
    let mut rng = Rng::with_seed(context.attacks.seed);
    context.figure("seed", context.attacks.seed, "");
    let victims = victims(lab)?;
    let mut tally = Tally::default();
    let load = Load::default();

    let step = Step::start(format!("Killing {WARM_UP_KILLS} domains to warm up"));
    load.during((lab, sha256), || {
        kill_randomly(lab, &victims, &mut rng, WARM_UP_KILLS, &mut tally, &step)
    })?;
    step.done("");
    let before = settled(lab, &victims)?;
    let mut tally = Tally::default();
    let load = Load::default();

    let step = Step::start(format!("Killing {kills} domains at random under load"));
    load.during((lab, sha256), || {
        kill_randomly(lab, &victims, &mut rng, kills, &mut tally, &step)
    })?;
    step.done("");

    let after = settled(lab, &victims)?;
    tally.report(context);
    load.report(context);
    tally.check()?;
    compare(context, &before, &after)?;
    still_serves(context, lab)
}

/// Every domain but the supervisor.
fn victims(lab: &RunningLab) -> Result<Vec<String>> {
    let listing = lab.console_json("domains --json")?;
    let names = listing.as_array().context("`domains` printed no list")?;
    Ok(names
        .iter()
        .filter_map(|domain| domain["name"].as_str())
        .filter(|name| *name != "init")
        .map(str::to_owned)
        .collect())
}

/// What the kills did.
#[derive(Default)]
struct Tally {
    kills: u64,
    was_down: u64,
    /// Deaths that nobody ordered, by domain and cause.
    others: BTreeMap<String, u64>,
    /// Restart times by domain, milliseconds.
    restarts: BTreeMap<String, Vec<f64>>,
    /// Number of the newest death that was looked at.
    seen: u64,
    /// Deaths that were looked at.
    deaths: u64,
    /// How long the kills took.
    time: Duration,
}

fn kill_randomly(
    lab: &RunningLab,
    victims: &[String],
    rng: &mut Rng,
    kills: u64,
    tally: &mut Tally,
    step: &Step,
) -> Result<()> {
    tally.seen = lab.console_json("deaths last 1 --json")?["total"]
        .as_u64()
        .context("`deaths` gave no total")?;
    let began = Instant::now();
    while tally.kills < kills {
        step.note(format!("{}", tally.kills));
        let mut typist = Typist::open(&lab.report().serial)?;
        let until = (tally.kills + BURST).min(kills);
        while tally.kills < until {
            let next = Instant::now() + PERIOD;
            let together = if rng.u64(..TOGETHER) == 0 {
                rng.usize(2..4)
            } else {
                1
            };
            for _ in 0..together {
                let victim = rng.choice(victims).context("there are no victims")?;
                match typist.kill(victim)? {
                    Kill::Done => tally.kills += 1,
                    Kill::WasDown => tally.was_down += 1,
                }
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        drop(typist);
        tally.look(lab)?;
    }
    tally.time = began.elapsed();
    Ok(())
}

impl Tally {
    /// Takes the deaths since the last look into account.
    fn look(&mut self, lab: &RunningLab) -> Result<()> {
        let answer = lab.console_json(&format!("deaths last {} --json", 2 * BURST))?;
        let total = answer["total"].as_u64().context("`deaths` gave no total")?;
        let seen = self.seen;
        let deaths = answer["deaths"].as_array().into_iter().flatten();
        for death in deaths.filter(|death| death["number"].as_u64() > Some(seen)) {
            self.deaths += 1;
            let name = death["name"].as_str().unwrap_or_default();
            let cause = death["cause"].as_str().unwrap_or_default();
            if !cause.starts_with("killed") {
                let number = death["number"].as_u64().unwrap_or_default();
                eprintln!("{}", lab.console(&format!("deaths {number}"))?);
                *self.others.entry(format!("{name}: {cause}")).or_default() += 1;
            }
            if let Some(nanoseconds) = death["restart_ns"].as_f64() {
                self.restarts
                    .entry(name.to_owned())
                    .or_default()
                    .push(nanoseconds / 1e6);
            }
        }
        self.seen = total;
        Ok(())
    }

    /// Every kill is in the records, and nothing else died.
    fn check(&self) -> Result<()> {
        ensure!(
            self.others.is_empty() && self.deaths == self.kills,
            "{} kills made {} deaths; of those that nobody ordered: {:?}",
            self.kills,
            self.deaths,
            self.others
        );
        Ok(())
    }

    fn report(&self, context: &Context) {
        context.figure("kills", self.kills, "");
        context.figure("kills_a_second", self.kills as f64 / self.time.as_secs_f64(), "");
        context.figure("found_down", self.was_down, "times, when one was drawn again");
        for (name, count) in &self.others {
            context.figure("other_death", *count, name);
        }
        for (name, times) in &self.restarts {
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let rank = (share * times.len() as f64).ceil() as usize;
                times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
            };
            let text = format!("p50 {:.3}, p99 {:.3}, max {:.3}", at(0.5), at(0.99), at(1.0));
            context.figure(
                &format!("{name}_restart_ms"),
                text,
                &format!("of {} deaths", times.len()),
            );
        }
    }
}

/// What goes on meanwhile. Connections may fail, since what serves them is killed; what arrives must be right.
#[derive(Default)]
struct Load {
    downloads: AtomicU64,
    bytes: AtomicU64,
    resumed: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    vip_answered: AtomicU64,
    vip_failed: AtomicU64,
}

impl Load {
    fn during(&self, (lab, sha256): (&RunningLab, &str), work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (site, vip) = (lab.server()?, lab.vip()?);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let loads = [
                scope.spawn(|| self.download(lab, sha256, &stop)),
                scope.spawn(|| self.ask(lab, site, &stop, (&self.answered, &self.failed))),
                scope.spawn(|| self.ask(lab, vip, &stop, (&self.vip_answered, &self.vip_failed))),
            ];
            let worked = work();
            stop.store(true, Ordering::Relaxed);
            for load in loads {
                load.join().map_err(|_| anyhow!("a load's thread panicked"))??;
            }
            worked
        })
    }

    /// Downloads the large file again and again; one that is cut off goes on where it was.
    fn download(&self, lab: &RunningLab, whole: &str, stop: &AtomicBool) -> Result<()> {
        let url = lab.url(LARGE_FILE);
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        // The one that has begun is finished.
        while bytes > 0 || !stop.load(Ordering::Relaxed) {
            bytes += read_from(lab, &url, bytes, &mut digest)?;
            if bytes < LARGE_BYTES as u64 {
                self.resumed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let sha256 = hexadecimal(&digest.finalize_reset());
            ensure!(
                bytes == LARGE_BYTES as u64 && sha256 == whole,
                "the download has {bytes} bytes with SHA-256 {sha256}, and should have {LARGE_BYTES} with {whole}"
            );
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.downloads.fetch_add(1, Ordering::Relaxed);
            bytes = 0;
        }
        Ok(())
    }

    fn ask(
        &self,
        lab: &RunningLab,
        to: std::net::SocketAddr,
        stop: &AtomicBool,
        (answered, failed): (&AtomicU64, &AtomicU64),
    ) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let outcome = lab.connections(to, CONNECTIONS, AT_ONCE)?;
            answered.fetch_add(outcome.answered, Ordering::Relaxed);
            failed.fetch_add(outcome.failures(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn report(&self, context: &Context) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        context.figure(
            "downloads",
            get(&self.downloads),
            "of 200 MB, each with the right SHA-256",
        );
        context.figure("resumed", get(&self.resumed), "times after a break");
        context.figure("site_answered", get(&self.answered), "connections");
        context.figure("site_failed", get(&self.failed), "");
        context.figure("vip_answered", get(&self.vip_answered), "connections");
        context.figure("vip_failed", get(&self.vip_failed), "");
    }
}

/// Downloads from byte `start` on, as far as it gets; gives how far.
fn read_from(lab: &RunningLab, url: &str, start: u64, digest: &mut Sha256) -> Result<u64> {
    let mut child = lab
        .command_in("client", "curl")?
        .args(["-s", "--fail", "--connect-timeout", "3"])
        // A connection whose other end has died is silent.
        .args(["--speed-limit", "1", "--speed-time", "2"])
        .args(["-r", &format!("{start}-"), url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("curl can't be run")?;
    let mut body = child.stdout.take().context("curl's output is gone")?;
    let mut chunk = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let length = body.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        digest.update(chunk.get(..length).unwrap_or_default());
        bytes += length as u64;
    }
    child.wait()?;
    Ok(bytes)
}

/// Site and VIP answer as if nothing had been.
fn still_serves(context: &Context, lab: &RunningLab) -> Result<()> {
    for (name, to) in [("site", lab.server()?), ("vip", lab.vip()?)] {
        let outcome = lab.connections(to, LAST_REQUESTS, AT_ONCE)?;
        outcome.check_all(LAST_REQUESTS)?;
        context.figure(
            &format!("{name}_after"),
            outcome.answered,
            "connections answered, none failed",
        );
    }
    // Neighbour discovery needs multicast groups that the card was told of before everybody died.
    if let Some(ipv6) = lab.report().appliance.ipv6 {
        lab.run("client", "ip", &["-6", "neighbour", "flush", "dev", "eth0"])
            .ok();
        let url = format!("http://[{ipv6}]/");
        lab.run(
            "client",
            "curl",
            &["-sS", "--fail", "-m", "5", "-o", "/dev/null", &url],
        )?;
    }
    Ok(())
}
