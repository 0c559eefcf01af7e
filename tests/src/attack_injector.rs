//! Faults at crossings of a workload: 1,000 HTTP requests and 1,000 connections to the VIP.
//!
//! The image has the shipped domains and the fault injector in its kernel (docs/soundness.md, invariant 6). First the workload's crossings are
//! counted, by interface and callee; then it is run again and again, while crossings of one kind are made to panic, to hang, or to take a page
//! fault. Each must be the death of the callee, of the right cause, and of nobody else; the callee must run again and traffic go on. At the end
//! everybody holds what they held at the start.
//! In CI it is a seeded sample of each kind, which `--crossings` makes larger; `--every` tries each crossing, with the faults by turns.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use image_builder::{Attack, Built, Options};
use progress::Step;
use toml::Table;

use crate::context::Context;
use crate::holdings::{Snapshot, compare, settled};
use crate::running_lab::RunningLab;

/// The workload.
const HTTP_REQUESTS: u64 = 1_000;
const VIP_CONNECTIONS: u64 = 1_000;
const AT_ONCE: u32 = 50;
/// How long a client waits to be connected, and for an answer. A lost SYN is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The same while the stack is made to die: a client whose request was taken by a stack that then died has nothing to send again, and waits in
/// vain. Other data is sent again after 0.2 s.
const LITTLE_PATIENCE: Duration = Duration::from_millis(300);
/// The domain that has the clients' connections.
const STACK: &str = "netstack";
/// The balancer, and the calls in which packets wait for it, to which the interface gives long.
const BALANCER: &str = "maglev";
const BALANCER_CALLS: [&str; 2] = ["Balancer.service", "Balancer.backend"];
/// What is injected.
const INJECTIONS: [&str; 3] = ["panic", "page-fault", "hang"];
/// All of them, one after the other.
const BY_TURNS: &str = "by-turns";
/// Domains whose callers wait in them without a deadline, so that a hang is found by their heartbeat.
const WAITED_IN: [&str; 3] = ["ixgbe", "nic-shadow", STACK];
/// Heartbeat and deadline of these, milliseconds, so that hangs cost tenths of a second. Not less: on a busy host a busy domain needs some of it.
const SHORT_MS: i64 = 150;
/// Deadlines that are longer are shortened to this: of calls that wait for another domain to start, or for a lookup table.
const LONGEST_WAIT_MS: i64 = 300;
/// Injections in one run of the workload at most: it must not lose so many connections that it ends before the last.
const TEETH: u64 = 80;
/// Runs of the workload one after the other that reach no crossing which is still to be tried: what is left then, such as a look that happens only after
/// a restart, is reported as not reached. A sample is given up sooner than what `--every` is to reach.
const FRUITLESS_RUNS: u64 = 20;
const FRUITLESS_RUNS_OF_A_SAMPLE: u64 = 8;
/// Domains whose holdings are compared as those of fresh incarnations: all that are in the way of the workload.
const VICTIMS: [&str; 6] = ["ixgbe", "nic-shadow", STACK, BALANCER, "classifier", "httpd"];
/// How long the workload may take until it passes again.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A kind of crossing, with how many of it the workload makes.
struct Kind {
    index: u64,
    name: String,
    count: u64,
    /// How long clients wait while it is tried.
    patience: Duration,
}

/// What injections showed, added up.
#[derive(Default)]
struct Total {
    runs: u64,
    tried: u64,
    covered: u64,
    not_reached: u64,
    detected: u64,
    recovered: u64,
    requests: u64,
    client_errors: u64,
    errors: BTreeMap<String, u64>,
    slowest_detection_ms: u64,
    /// What the slowest detection was of.
    slowest: String,
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
pub fn build(context: &Context) -> Result<Built> {
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
    let domains = manifest.get_mut("domain").and_then(toml::Value::as_array_mut);
    let mut found = false;
    for domain in domains.context("config/domains.toml has no domains")? {
        let domain = domain.as_table_mut().context("a domain is no table")?;
        domain.remove("restart");
        if let Some(deadlines) = domain.get_mut("deadlines").and_then(toml::Value::as_table_mut) {
            let methods: Vec<String> = deadlines.keys().cloned().collect();
            for method in methods {
                shorten(deadlines, &method);
            }
        }
        let name = domain.get("name").and_then(toml::Value::as_str);
        let name = name.unwrap_or_default();
        if name == "shell" {
            domain.remove("exports");
            domain.extend(console.clone());
            found = true;
        } else if WAITED_IN.contains(&name) {
            domain.insert("heartbeat_ms".to_owned(), SHORT_MS.into());
            domain.insert("deadline_ms".to_owned(), SHORT_MS.into());
        } else if name == BALANCER {
            let deadlines = BALANCER_CALLS.map(|call| (call.to_owned(), LONGEST_WAIT_MS.into()));
            domain.insert("deadlines".to_owned(), Table::from_iter(deadlines).into());
        }
    }
    ensure!(found, "config/domains.toml has no shell");
    Ok(manifest.to_string())
}

/// Shortens a time of a table, if it is there and limited at all.
fn shorten(table: &mut Table, name: &str) {
    if let Some(time) = table.get_mut(name)
        && time.as_integer().is_some_and(|ms| ms > LONGEST_WAIT_MS)
    {
        *time = LONGEST_WAIT_MS.into();
    }
}

fn inject(context: &Context, lab: &RunningLab) -> Result<()> {
    // Once without counting: what happens only the first time is no part of the workload.
    ensure!(
        workload(lab, PATIENCE)?.is_empty(),
        "the workload fails without any injection"
    );
    let mut kinds = count(lab)?;
    let crossings: u64 = kinds.iter().map(|kind| kind.count).sum();
    context.figure("crossings_of_the_workload", crossings, "");
    context.figure("kinds_of_crossings", kinds.len(), "");

    if let Some(wanted) = &context.attacks.kind {
        kinds.retain(|kind| kind.name.contains(wanted));
    }

    let mut random = fastrand::Rng::with_seed(context.attacks.seed);
    let patience = match context.attacks.crossings {
        Some(_) => FRUITLESS_RUNS_OF_A_SAMPLE,
        None => FRUITLESS_RUNS,
    };
    // A death of each kind comes before the comparison begins: what is made once and for all is there after them.
    let step = Step::start("A fault in each kind of crossing to warm up");
    let mut warm_up = Total::default();
    for kind in &kinds {
        campaign(
            lab,
            kind,
            (INJECTIONS[0], 1),
            patience,
            &mut random,
            &mut warm_up,
            &step,
        )?;
    }
    step.done("");
    ensure!(warm_up.problems.is_empty(), "{}", warm_up.problems.join("\n  "));
    let before = at_peace(lab)?;

    let mut total = Total::default();
    for kind in &kinds {
        // A run of the workload takes many crossings, and what is injected in one says nothing of the next: all faults by turns need a third
        // of the runs. A kind with few crossings is tried with each fault for itself.
        let all = context
            .attacks
            .crossings
            .map_or(kind.count, |each| each.saturating_mul(INJECTIONS.len() as u64));
        let (injections, wanted): (&[&str], u64) = if all <= kind.count {
            (&[BY_TURNS], all)
        } else {
            (&INJECTIONS, kind.count.min(all / INJECTIONS.len() as u64))
        };
        for injection in injections {
            let step = Step::start(format!("{injection} in {} ({} crossings)", kind.name, kind.count));
            let (tried, detected, errors) = (total.tried, total.detected, total.client_errors);
            campaign(
                lab,
                kind,
                (injection, wanted),
                patience,
                &mut random,
                &mut total,
                &step,
            )?;
            step.done(format!(
                "{} tried, {} detected, {} client errors",
                total.tried - tried,
                total.detected - detected,
                total.client_errors - errors
            ));
        }
    }
    let after = at_peace(lab);
    total.report(context);
    let kept = after.and_then(|after| compare(context, &before, &after));
    total.check()?;
    kept
}

impl Total {
    fn report(&self, context: &Context) {
        context.figure("workloads", self.runs, "");
        context.figure("tried", self.tried, "injections");
        context.figure("covered", self.covered, "crossings that were to be tried");
        context.figure(
            "not_reached",
            self.not_reached,
            "crossings that did not come again",
        );
        context.figure("detected", self.detected, "");
        context.figure("recovered", self.recovered, "");
        context.figure("slowest_detection", self.slowest_detection_ms, "ms (a hang)");
        context.figure("slowest", self.slowest.as_str(), "");
        context.figure("slowest_recovery", self.slowest_recovery_ms, "ms");
        context.figure("requests", self.requests, "");
        context.figure("client_errors", self.client_errors, "");
        for (reason, count) in &self.errors {
            context.figure(&format!("client_errors: {reason}"), *count, "");
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.problems.is_empty(),
            "{} things went wrong:\n  {}",
            self.problems.len(),
            self.problems.join("\n  ")
        );
        ensure!(
            self.tried > 0 && self.detected == self.tried && self.recovered == self.tried,
            "of {} injections {} were detected and {} recovered from",
            self.tried,
            self.detected,
            self.recovered
        );
        Ok(())
    }
}

/// Counts the crossings of one workload.
fn count(lab: &RunningLab) -> Result<Vec<Kind>> {
    let step = Step::start("Counting crossings");
    lab.console_json("reset")?;
    ensure!(
        workload(lab, PATIENCE)?.is_empty(),
        "the workload fails without any injection"
    );
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
        let domain = kind["domain"].as_str().unwrap_or_default();
        Ok(Kind {
            index: kind["index"].as_u64().context("a kind has no index")?,
            name: format!("{} of {domain}", kind["interface"].as_str().unwrap_or_default()),
            patience: if domain == STACK {
                LITTLE_PATIENCE
            } else {
                PATIENCE
            },
            count: kind["count"].as_u64().context("a kind has no count")?,
        })
    });
    let kinds = kinds.collect::<Result<Vec<_>>>()?;
    Ok(kinds.into_iter().filter(|kind| kind.count > 0).collect())
}

/// Runs the workload until about `wanted` crossings of a kind were tried with a fault, all of them if it makes no more.
///
/// What a run passes over while the last victim starts, the next one tries. What it doesn't reach, since it makes fewer crossings than the one that was
/// counted, is reached by another workload after it, without counting anew. It is given up after more than `patience` runs that reach none.
fn campaign(
    lab: &RunningLab,
    kind: &Kind,
    (injection, wanted): (&str, u64),
    patience: u64,
    random: &mut fastrand::Rng,
    total: &mut Total,
    step: &Step,
) -> Result<()> {
    let mut stride = kind.count.div_ceil(wanted.max(1)).max(1);
    // A crossing's turn is by its number, so a stride over whole turns would meet one fault only.
    if injection == BY_TURNS && stride.is_multiple_of(INJECTIONS.len() as u64) {
        stride -= 1;
    }
    let first = random.u64(1..=stride);
    let gap = kind.count / TEETH;
    let mut left = to_try(
        lab,
        &format!("cover {} {first} {stride} {}", kind.index, kind.count),
    )?;
    let (mut anew, mut fruitless) = (true, 0);
    while left.crossings > 0 {
        step.note(format!("{} left to try", left.crossings));
        let count = if anew || !left.ahead { "anew" } else { "on" };
        let covered = run(lab, kind, &format!("{injection} {gap} {count}"), total)?;
        anew = covered > 0;
        fruitless = if covered > 0 { 0 } else { fruitless + 1 };
        left = to_try(lab, "left")?;
        if fruitless > patience {
            total.not_reached += left.crossings;
            break;
        }
    }
    Ok(())
}

/// What is still to be tried.
struct Left {
    crossings: u64,
    /// Whether one of them comes after those that the workload has made.
    ahead: bool,
}

fn to_try(lab: &RunningLab, command: &str) -> Result<Left> {
    let answer = lab.console_json(command)?;
    let left = || {
        Some(Left {
            crossings: answer["left"].as_u64()?,
            ahead: answer["ahead"].as_bool()?,
        })
    };
    left().with_context(|| format!("`{command}` gave no number: {answer}"))
}

/// One workload with injections, ordered in the console's words; how many crossings that were to be tried it has tried.
fn run(lab: &RunningLab, kind: &Kind, order: &str, total: &mut Total) -> Result<u64> {
    let begun = lab.console_json(&format!("campaign {order}"))?;
    ensure!(begun["begun"] == true, "the campaign doesn't begin: {begun}");
    let errors = workload(lab, kind.patience)?;
    let results = lab.console_json("end")?;
    let number = |name: &str| {
        results[name]
            .as_u64()
            .with_context(|| format!("`end` gave no {name}: {results}"))
    };
    total.runs += 1;
    total.requests += HTTP_REQUESTS + VIP_CONNECTIONS;
    for (reason, count) in errors {
        total.client_errors += count;
        *total.errors.entry(reason).or_default() += count;
    }
    total.tried += number("tried")?;
    total.covered += number("covered")?;
    total.detected += number("detected")?;
    total.recovered += number("recovered")?;
    let detection_ms = number("slowest_detection_ms")?;
    if detection_ms >= total.slowest_detection_ms {
        total.slowest_detection_ms = detection_ms;
        total.slowest = results["slowest"].as_str().unwrap_or_default().to_owned();
    }
    total.slowest_recovery_ms = total.slowest_recovery_ms.max(number("slowest_recovery_ms")?);
    if number("problems")? > 0 {
        for words in results["words"].as_array().into_iter().flatten() {
            let words = words.as_str().unwrap_or_default();
            total.problems.push(format!("{order} in {}: {words}", kind.name));
        }
    }
    number("covered")
}

/// The workload, both halves at the same time; requests without an answer, by reason.
fn workload(lab: &RunningLab, patience: Duration) -> Result<BTreeMap<String, u64>> {
    let (server, vip) = (lab.server()?, lab.vip()?);
    let (http, balanced) = thread::scope(|scope| {
        let http = scope.spawn(move || lab.impatient_connections(server, HTTP_REQUESTS, AT_ONCE, patience));
        let balanced = lab.impatient_connections(vip, VIP_CONNECTIONS, AT_ONCE, patience)?;
        let http = http
            .join()
            .map_err(|_| anyhow!("the requests' thread panicked"))??;
        anyhow::Ok((http, balanced))
    })?;
    let mut failed = BTreeMap::new();
    for (name, outcome) in [("site", http), ("VIP", balanced)] {
        for (reason, count) in outcome.failed {
            failed.insert(format!("{name}: {reason}"), count);
        }
    }
    Ok(failed)
}

/// What everybody holds once the workload passes and every domain runs.
fn at_peace(lab: &RunningLab) -> Result<Snapshot> {
    let step = Step::start("The workload in peace");
    let until = Instant::now() + SETTLE_LIMIT;
    loop {
        let errors = workload(lab, PATIENCE)?;
        if errors.is_empty() {
            break;
        }
        ensure!(
            Instant::now() < until,
            "{SETTLE_LIMIT:?} after the last injection requests still fail: {errors:?}"
        );
    }
    step.done("");
    // How much memory an incarnation has depends on how many connections it has had.
    settled(lab, &VICTIMS.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

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
