//! Faults at crossings of a workload: 1,000 HTTP requests and 1,000 connections to the VIP.
//!
//! The image has the shipped domains and the fault injector in its kernel (docs/soundness.md, invariant 6). First the workload's crossings are
//! counted, by interface and callee; then it is run again and again, while crossings of one kind are made to panic, to hang, or to take a page
//! fault. Each must be the death of the callee, of the right cause, and of nobody else; the callee must run again and traffic go on.
//! In CI it is a seeded sample of each kind; `--crossings` makes it larger, up to each crossing in turn.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use image_builder::{Attack, Built, Options};
use progress::Step;
use toml::Table;

use crate::appliance::state;
use crate::context::Context;
use crate::running_lab::RunningLab;

/// The workload.
const HTTP_REQUESTS: u64 = 1_000;
const VIP_CONNECTIONS: u64 = 1_000;
const AT_ONCE: u32 = 50;
/// How long a client waits: one whose request was taken by a stack that then died has nothing to send again, and waits in vain.
const PATIENCE: Duration = Duration::from_secs(4);
/// What is injected.
const INJECTIONS: [&str; 3] = ["panic", "page-fault", "hang"];
/// One hang takes as long as many other faults: of these as many times fewer are tried in a sample.
const HANG_COST: u64 = 3;
/// Deadlines and heartbeats that are longer are shortened to this, milliseconds, so that hangs cost seconds and not minutes.
const LONGEST_MS: i64 = 1_000;
/// Injections in one run of the workload at most: it must not lose so many connections that it ends before the last.
const TEETH: u64 = 40;
/// How long everything may take to be as before.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Pages by which the kernel's own heap may grow: it keeps a report of each death.
const REPORT_PAGES: u64 = 1024;
/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;

/// A kind of crossing, with how many of it the workload makes.
struct Kind {
    index: u64,
    name: String,
    count: u64,
}

/// What injections showed, added up.
#[derive(Default)]
struct Total {
    runs: u64,
    tried: u64,
    detected: u64,
    recovered: u64,
    requests: u64,
    client_errors: u64,
    slowest_detection_ms: u64,
    slowest_recovery_ms: u64,
    problems: Vec<String>,
}

/// Boots an image with the injector and lets crossings of the workload fault.
pub fn holds(context: &Context) -> Result<()> {
    let built = build(context)?;
    let lab = context.boot(&built)?;
    lab.judge(inject(context, &lab))
}

/// The shipped domains, but never held, and with the injector's console in the shell's place.
fn build(context: &Context) -> Result<Built> {
    let shipped = context.root.join("config/domains.toml");
    let manifest = context.directory().join("injector.toml");
    fs::create_dir_all(context.directory())?;
    fs::write(&manifest, injector_manifest(&shipped)?)?;
    image_builder::build(&Options {
        attack: Some(Attack {
            manifest,
            injector: true,
        }),
        ..Options::new(&context.root)
    })
}

fn injector_manifest(shipped: &Path) -> Result<String> {
    let text = fs::read_to_string(shipped)?;
    let mut manifest: Table = text.parse()?;
    let never_held: Table =
        "immediate = 1000000\nbackoff_floor_ms = 1\nbackoff_ceiling_ms = 1\nbudget = 0\nwindow_s = 1\ncpu_percent = 0"
            .parse()?;
    let console: Table = "crate = \"attack-console\"\n[imports]\nconsole = \"kernel.SerialConsole\"\n\
                          control = \"kernel.DomainControl\"\ninjector = \"kernel.Injector\""
        .parse()?;
    let defaults = manifest.get_mut("defaults").and_then(toml::Value::as_table_mut);
    let defaults = defaults.context("config/domains.toml has no defaults")?;
    defaults.insert("restart".to_owned(), never_held.into());
    shorten(defaults, "heartbeat_ms");
    shorten(defaults, "deadline_ms");
    let domains = manifest.get_mut("domain").and_then(toml::Value::as_array_mut);
    let mut found = false;
    for domain in domains.context("config/domains.toml has no domains")? {
        let domain = domain.as_table_mut().context("a domain is no table")?;
        domain.remove("restart");
        shorten(domain, "heartbeat_ms");
        shorten(domain, "deadline_ms");
        if let Some(deadlines) = domain.get_mut("deadlines").and_then(toml::Value::as_table_mut) {
            let methods: Vec<String> = deadlines.keys().cloned().collect();
            for method in methods {
                shorten(deadlines, &method);
            }
        }
        if domain.get("name").and_then(toml::Value::as_str) == Some("shell") {
            domain.remove("exports");
            domain.extend(console.clone());
            found = true;
        }
    }
    ensure!(found, "config/domains.toml has no shell");
    Ok(manifest.to_string())
}

/// Shortens a time of a table, if it is there and limited at all.
fn shorten(table: &mut Table, name: &str) {
    if let Some(time) = table.get_mut(name)
        && time.as_integer().is_some_and(|ms| ms > LONGEST_MS)
    {
        *time = LONGEST_MS.into();
    }
}

fn inject(context: &Context, lab: &RunningLab) -> Result<()> {
    // Once without counting: what happens only the first time is no part of the workload.
    ensure!(workload(lab)? == 0, "the workload fails without any injection");
    let kinds = count(lab)?;
    let crossings: u64 = kinds.iter().map(|kind| kind.count).sum();
    context.figure("crossings_of_the_workload", crossings, "");
    context.figure("kinds_of_crossings", kinds.len(), "");
    let before = accounted_pages(lab)?;

    let mut random = fastrand::Rng::with_seed(context.attacks.seed);
    let mut total = Total::default();
    for kind in &kinds {
        for injection in INJECTIONS {
            let step = Step::start(format!("{injection} in {} ({} crossings)", kind.name, kind.count));
            let (tried, detected, errors) = (total.tried, total.detected, total.client_errors);
            let wanted = match injection {
                "hang" if context.attacks.crossings < kind.count => {
                    context.attacks.crossings.div_ceil(HANG_COST)
                }
                _ => context.attacks.crossings,
            };
            for (first, stride) in combs(kind.count, wanted, &mut random) {
                step.note(format!("{} tried", total.tried - tried));
                campaign(lab, kind, injection, (first, stride), &mut total)?;
            }
            step.done(format!(
                "{} tried, {} detected, {} client errors",
                total.tried - tried,
                total.detected - detected,
                total.client_errors - errors
            ));
        }
    }
    settles(lab, before)?;
    context.figure("workloads", total.runs, "");
    context.figure("tried", total.tried, "crossings");
    context.figure("detected", total.detected, "");
    context.figure("recovered", total.recovered, "");
    context.figure("slowest_detection", total.slowest_detection_ms, "ms (a hang)");
    context.figure("slowest_recovery", total.slowest_recovery_ms, "ms");
    context.figure("requests", total.requests, "");
    context.figure("client_errors", total.client_errors, "");
    ensure!(
        total.problems.is_empty(),
        "{} things went wrong:\n  {}",
        total.problems.len(),
        total.problems.join("\n  ")
    );
    ensure!(
        total.tried > 0 && total.detected == total.tried && total.recovered == total.tried,
        "of {} injections {} were detected and {} recovered from",
        total.tried,
        total.detected,
        total.recovered
    );
    Ok(())
}

/// Combs over `count` crossings that have about `wanted` teeth together, each as the first and the stride. All are different; with as many teeth
/// as crossings they are all there are.
fn combs(count: u64, wanted: u64, random: &mut fastrand::Rng) -> Vec<(u64, u64)> {
    let teeth = wanted.clamp(1, TEETH);
    let stride = count.div_ceil(teeth);
    let mut firsts: Vec<u64> = (1..=stride).collect();
    random.shuffle(&mut firsts);
    let runs = usize::try_from(wanted.div_ceil(teeth)).unwrap_or(usize::MAX);
    firsts
        .into_iter()
        .take(runs)
        .map(|first| (first, stride))
        .collect()
}

/// Counts the crossings of one workload.
fn count(lab: &RunningLab) -> Result<Vec<Kind>> {
    let step = Step::start("Counting crossings");
    lab.console_json("reset")?;
    ensure!(workload(lab)? == 0, "the workload fails without any injection");
    let kinds = kinds(lab)?;
    step.done("");
    for kind in &kinds {
        eprintln!("  {:>8} {}", kind.count, kind.name);
    }
    Ok(kinds)
}

fn kinds(lab: &RunningLab) -> Result<Vec<Kind>> {
    let answer = lab.console_json("kinds")?;
    let kinds = answer.as_array().context("`kinds` gave no list")?;
    let kinds = kinds.iter().map(|kind| {
        Ok(Kind {
            index: kind["index"].as_u64().context("a kind has no index")?,
            name: format!(
                "{} of {}",
                kind["interface"].as_str().unwrap_or_default(),
                kind["domain"].as_str().unwrap_or_default()
            ),
            count: kind["count"].as_u64().context("a kind has no count")?,
        })
    });
    let kinds = kinds.collect::<Result<Vec<_>>>()?;
    Ok(kinds.into_iter().filter(|kind| kind.count > 0).collect())
}

/// One workload with injections: from the `first` crossing on, every `stride`.
fn campaign(
    lab: &RunningLab,
    kind: &Kind,
    injection: &str,
    (first, stride): (u64, u64),
    total: &mut Total,
) -> Result<()> {
    lab.console_json("reset")?;
    let begun = lab.console_json(&format!(
        "campaign {} {injection} {first} {stride} {}",
        kind.index, kind.count
    ))?;
    ensure!(begun["begun"] == true, "the campaign doesn't begin: {begun}");
    let errors = workload(lab)?;
    let results = lab.console_json("end")?;
    let number = |name: &str| {
        results[name]
            .as_u64()
            .with_context(|| format!("`end` gave no {name}: {results}"))
    };
    total.runs += 1;
    total.requests += HTTP_REQUESTS + VIP_CONNECTIONS;
    total.client_errors += errors;
    total.tried += number("tried")?;
    total.detected += number("detected")?;
    total.recovered += number("recovered")?;
    total.slowest_detection_ms = total.slowest_detection_ms.max(number("slowest_detection_ms")?);
    total.slowest_recovery_ms = total.slowest_recovery_ms.max(number("slowest_recovery_ms")?);
    if number("problems")? > 0 {
        for words in results["words"].as_array().into_iter().flatten() {
            let words = words.as_str().unwrap_or_default();
            total
                .problems
                .push(format!("{injection} in {}: {words}", kind.name));
        }
    }
    Ok(())
}

/// The workload, both halves at the same time; how many requests had no answer.
fn workload(lab: &RunningLab) -> Result<u64> {
    let (server, vip) = (lab.server()?, lab.vip()?);
    thread::scope(|scope| {
        let http = scope.spawn(move || lab.impatient_connections(server, HTTP_REQUESTS, AT_ONCE, PATIENCE));
        let balanced = lab.impatient_connections(vip, VIP_CONNECTIONS, AT_ONCE, PATIENCE)?;
        let http = http
            .join()
            .map_err(|_| anyhow!("the requests' thread panicked"))??;
        Ok(http.failures() + balanced.failures())
    })
}

/// After the last injection the workload passes as before, every domain runs, and nothing is lost.
fn settles(lab: &RunningLab, before: u64) -> Result<()> {
    let step = Step::start("The workload in peace");
    let until = Instant::now() + SETTLE_LIMIT;
    while workload(lab)? > 0 {
        ensure!(
            Instant::now() < until,
            "{SETTLE_LIMIT:?} after the last injection requests still fail"
        );
    }
    let listing = lab.console_json("domains")?;
    for domain in listing.as_array().into_iter().flatten() {
        let name = domain["name"].as_str().unwrap_or_default();
        ensure!(
            state(&listing, name) == Some("running"),
            "{name} doesn't run: {listing}"
        );
    }
    loop {
        let now = accounted_pages(lab)?;
        if now + REPORT_PAGES >= before {
            step.done(format!("{} pages less", before.saturating_sub(now)));
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{} pages are lost: {}",
            before - now,
            lab.console_json("domains")?
        );
        thread::sleep(Duration::from_millis(500));
    }
}

/// Pages that are free or that somebody is known to have: the shared heap, or a domain.
fn accounted_pages(lab: &RunningLab) -> Result<u64> {
    let memory = lab.console_json("memory")?;
    let pages = |name: &str| memory[name].as_u64().context("`memory` gave no pages");
    let listing = lab.console_json("domains")?;
    let held = listing.as_array().into_iter().flatten();
    let held: u64 = held.filter_map(|domain| domain["memory_bytes"].as_u64()).sum();
    Ok(pages("free_pages")? + pages("shared_pages")? + held / PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combs_with_enough_teeth_are_every_crossing_once() {
        for count in [1, 6, 324, 4_399] {
            let mut random = fastrand::Rng::with_seed(count);
            let mut tried: Vec<u64> = combs(count, count, &mut random)
                .into_iter()
                .flat_map(|(first, stride)| {
                    (0..)
                        .map(move |tooth| first + tooth * stride)
                        .take_while(move |at| *at <= count)
                })
                .collect();
            tried.sort_unstable();
            assert_eq!(tried, (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_manifest_is_the_shipped_one_but_for_the_shell_and_the_policy() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/domains.toml");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), injector_manifest(&shipped).unwrap()).unwrap();
        let changed = configuration::domains::Domains::read(file.path()).unwrap();
        let shipped = configuration::domains::Domains::read(&shipped).unwrap();
        assert_eq!(changed.packages["shell"], "attack-console");
        assert_eq!(changed.system.domains.len(), shipped.system.domains.len());
        assert!(
            changed
                .system
                .domains
                .iter()
                .all(|domain| domain.restart.budget == 0)
        );
    }
}
