//! What a death leaves behind: where threads stood, by which crossings, what the domain did before, and how long it was away.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bare_machine::{run_until, with_mistake};
use crate::context::Context;
use crate::running_lab::RunningLab;

/// How long a domain may be away; generous, because CI's machines are slow and busy.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

/// A domain that is killed, and what its box must say of the thread that stood in it.
struct Victim {
    name: &'static str,
    /// Part of a function's name on the stack, in the domain's own code.
    function: &'static str,
    /// The domains that the thread was in, the innermost first.
    chain: &'static [&'static str],
    /// Something that it did while it started: kind and text.
    event: (&'static str, &'static str),
}

const VICTIMS: [Victim; 3] = [
    Victim {
        name: "ixgbe",
        function: "NetDevice>::wait",
        chain: &["ixgbe", "nic-shadow", "classifier"],
        event: ("device claimed", "8086:10fb"),
    },
    Victim {
        name: "netstack",
        function: "Sockets for netstack::",
        chain: &["netstack", "httpd"],
        event: ("exported", "Sockets"),
    },
    Victim {
        name: "httpd",
        // A box has four of its threads, which need not be those that serve.
        function: "domain_rt::thread::run",
        chain: &["httpd"],
        event: ("connected", "sockets: netstack.Sockets"),
    },
];

/// Deaths by order and by panic, each with its black box.
pub fn tells(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        for victim in &VICTIMS {
            killed(context, lab, victim).with_context(|| format!("the death of {}", victim.name))?;
        }
        Ok(())
    })?;
    panics(context)
}

fn killed(context: &Context, lab: &RunningLab, victim: &Victim) -> Result<()> {
    let before = total(lab)?;
    lab.console(&format!("kill {}", victim.name))?;
    let number = before + 1;
    let death = recovered(lab, number)?;
    ensure!(
        death["name"] == victim.name && death["cause"] == "killed: by order",
        "somebody else died, or of something else: {death}"
    );
    let kept = &death["black_box"];
    for counter in [
        "uptime_ns",
        "crossings_since_boot",
        "memory_bytes",
        "shared_objects",
    ] {
        ensure!(kept[counter].is_u64(), "{counter} is not there: {death}");
    }
    let (kind, text) = victim.event;
    let happened = |event: &Value| {
        let said = event["text"].as_str().unwrap_or_default();
        event["kind"] == kind && said.starts_with(text)
    };
    ensure!(
        list(&kept["events"]).iter().any(happened),
        "there is no event \"{kind} {text}\": {death}"
    );
    let stood_there = |thread: &Value| {
        let crossings = list(&thread["crossings"]);
        let chain: Vec<&str> = crossings
            .iter()
            .filter_map(|crossing| crossing["domain"].as_str())
            .collect();
        let in_function = |frame: &Value| {
            let name = frame["function"].as_str().unwrap_or_default();
            frame["domain"] == victim.name && name.contains(victim.function)
        };
        chain == victim.chain && list(&thread["stack"]).iter().any(in_function)
    };
    ensure!(
        list(&kept["threads"]).iter().any(stood_there),
        "no thread stood in {} by way of {:?}: {death}",
        victim.function,
        victim.chain
    );
    let report = lab.console(&format!("deaths {number}"))?;
    ensure!(
        report.starts_with(&format!("Death {number}: {}, generation ", victim.name))
            && report.contains(victim.function),
        "`deaths {number}` should show it to a person too:\n{report}"
    );
    if victim.name == "ixgbe" {
        let metrics = lab.run("client", "curl", &["-sS", "-m", "10", &lab.url("metrics")])?;
        for family in [
            "redleaf_domain_deaths_total{domain=\"ixgbe\",cause=\"killed\"} ",
            "redleaf_domain_restart_seconds_count{domain=\"ixgbe\"} ",
            "redleaf_domain_last_restart_seconds{domain=\"ixgbe\"} ",
        ] {
            ensure!(
                metrics.lines().any(|line| line.starts_with(family)),
                "/metrics has no line {family}:\n{metrics}"
            );
        }
    }
    let frames: usize = list(&kept["threads"])
        .iter()
        .map(|thread| list(&thread["stack"]).len())
        .sum();
    context.figure(&format!("{}_frames", victim.name), frames, "with names");
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn total(lab: &RunningLab) -> Result<u64> {
    let deaths = lab.console_json("deaths last 1 --json")?;
    deaths["total"].as_u64().context("`deaths` gave no total")
}

/// The death with this number, once its domain is back.
fn recovered(lab: &RunningLab, number: u64) -> Result<Value> {
    let until = Instant::now() + RETURN_LIMIT;
    loop {
        let death = lab.console_json(&format!("deaths {number} --json"))?;
        if death["restart_ns"].is_u64() {
            return Ok(death);
        }
        ensure!(Instant::now() < until, "it doesn't come back: {death}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// A domain that panics at its start: the log says in which function, and whom it was called by.
fn panics(context: &Context) -> Result<()> {
    let built = image_builder::build(&image_builder::Options::new(&context.root))?;
    let archive = with_mistake(context, &built.archive)?;
    let report = |serial: &str| {
        let mut lines = serial.lines();
        let line = lines.find(|line| line.contains("death 1: thread "));
        line.map(|line| line.trim().to_owned())
    };
    let serial = run_until(context, &built.kernel, &archive, 2, |serial| {
        report(serial).is_some()
    })?;
    let line = report(&serial).context("the report is there no more")?;
    for part in ["\"httpd/start\"", " in _start + ", "chain: httpd"] {
        ensure!(line.contains(part), "the report has no {part}: {line}");
    }
    eprintln!("  {line}");
    Ok(())
}
