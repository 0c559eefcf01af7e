//! What the operator asks of the supervisor, what it does about a crash loop, and what comes of its own death.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use progress::Step;
use serde_json::Value;

use crate::context::Context;
use crate::running_lab::RunningLab;

/// Time for anything here to happen.
const LIMIT: Duration = Duration::from_secs(60);
/// The domain that is stopped and started, and whose death the site can do without.
const DOMAIN: &str = "maglev";
/// Restarts in a row by order: more than the budget allows to crashes.
const RESTARTS: u64 = 25;
/// Requests of a measurement.
const REQUESTS: u64 = 2_000;
const AT_ONCE: u32 = 20;
/// The crash loop's budget in this test, and its window.
const BUDGET: u64 = 12;
const WINDOW_S: u64 = 60;
/// The share of a CPU that it may take, in percent.
const CPU_PERCENT: f64 = 2.0;

/// Stop, start, restart and release, and what is said when they make no sense.
pub fn obeys_orders(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        let vip = lab.report().vip.context("the configuration has no VIP")?.http;
        let answers = |url: &str| {
            lab.run("client", "curl", &["-s", "-m", "2", "-o", "/dev/null", url])
                .is_ok()
        };

        let stopped = lab.console_json(&format!("stop {DOMAIN} --json"))?;
        ensure!(stopped["stopped"] == true, "after `stop` it is {stopped}");
        ensure!(!answers(&vip), "the VIP answers while {DOMAIN} is stopped");
        ensure!(answers(&lab.report().appliance.http), "the site needs {DOMAIN}");
        expect(lab, &format!("stop {DOMAIN}"), "stopped already")?;
        expect(lab, &format!("kill {DOMAIN}"), "not running")?;
        expect(lab, "domains", "stopped")?;
        expect(lab, &format!("start {DOMAIN}"), "is started: generation")?;
        expect(lab, &format!("start {DOMAIN}"), "running already")?;
        expect(lab, &format!("release {DOMAIN}"), "not held")?;
        for order in ["stop", "kill", "restart"] {
            expect(lab, &format!("{order} init"), "use `reboot`")?;
        }
        expect(lab, "stop shell", "can't stop itself")?;
        expect(lab, "stop nobody", "no domain of this name")?;

        let step = Step::start(format!("Restarting {DOMAIN} {RESTARTS} times by order"));
        let mut last = 0;
        for _ in 0..RESTARTS {
            let domain = lab.console_json(&format!("restart {DOMAIN} --json"))?;
            let generation = domain["generation"].as_u64().unwrap_or_default();
            ensure!(
                domain["state"] == "running" && domain["held"] == false && generation > last,
                "a restart by order must not be counted or delayed: {domain}"
            );
            last = generation;
        }
        step.done("");
        context.figure("restarts_by_order", RESTARTS, "none delayed or counted");
        let until = Instant::now() + LIMIT;
        while !answers(&vip) {
            ensure!(
                Instant::now() < until,
                "the VIP doesn't answer after {RESTARTS} restarts"
            );
        }
        let leaks = lab.console_json("leaks --json")?;
        ensure!(leaks["found"] == 0, "`leaks` finds {}", leaks["findings"]);
        Ok(())
    })
}

fn expect(lab: &RunningLab, command: &str, answer: &str) -> Result<()> {
    let said = lab.console(command)?;
    ensure!(
        said.contains(answer),
        "`{command}` should say \"{answer}\", and says: {said}"
    );
    Ok(())
}

/// A domain that dies at every start: its manifest gives it too little memory for its tables.
pub fn holds_crash_loop(context: &Context) -> Result<()> {
    let change = |manifest: String| {
        let policy = format!(
            "restart = {{ immediate = 3, backoff_floor_ms = 10, backoff_ceiling_ms = 2000, budget = {BUDGET}, \
             window_s = {WINDOW_S}, cpu_percent = {CPU_PERCENT} }}"
        );
        // Too little for its tables.
        changed(&manifest, DOMAIN, &["memory = \"768 KiB\"", &policy])
    };
    let lab = context.boot_changed("crash-loop", change, false)?;
    lab.judge(crash_loop(context, &lab))
}

/// The manifest with other lines for one domain, in the place of those that set the same.
fn changed(manifest: &str, domain: &str, lines: &[&str]) -> Result<String> {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let mut sections: Vec<String> = manifest.split("[[domain]]\n").map(str::to_owned).collect();
    let section = sections
        .iter_mut()
        .find(|section| section.starts_with(&format!("name = \"{domain}\"\n")))
        .with_context(|| format!("the manifest has no domain {domain}"))?;
    let mut kept: Vec<&str> = section
        .lines()
        .filter(|line| lines.iter().all(|new| key(new) != key(line)))
        .collect();
    // After the name and the crate.
    kept.splice(2..2, lines.iter().copied());
    *section = kept.join("\n") + "\n\n";
    Ok(sections.join("[[domain]]\n"))
}

fn crash_loop(context: &Context, lab: &RunningLab) -> Result<()> {
    // It has begun at boot: from here on it is watched from its own start.
    let held = wait_held(lab)?;
    let calm = requests_a_second(lab)?;
    let (began_ns, died) = newest_death(lab)?;
    let released = lab.console(&format!("release {DOMAIN}"))?;
    ensure!(
        released.contains("died while it started"),
        "`release {DOMAIN}` should say that it died again, and says: {released}"
    );
    let looping = requests_a_second(lab)?;
    let held_again = wait_held(lab)?;
    let (ended_ns, died_again) = newest_death(lab)?;
    let deaths = died_again - died;
    ensure!(
        deaths == BUDGET + 1,
        "it should be held at its death {} since the release, and was at {deaths}: {held_again}",
        BUDGET + 1
    );
    let cpu_ns = |domain: &Value| {
        domain["restart_cpu_ns"]
            .as_f64()
            .context("`domains` gives no CPU time of restarts")
    };
    let cost_ns = cpu_ns(&held_again)? - cpu_ns(&held)?;
    let share = cost_ns / (WINDOW_S as f64 * 1e9) * 100.0;
    context.figure("deaths_until_held", deaths, "");
    context.figure("until_held", (ended_ns - began_ns) / 1e9, "s after the release");
    context.figure("cpu_per_death", cost_ns / 1e6 / deaths as f64, "ms");
    context.figure(
        "cpu_while_it_looped",
        cost_ns / (ended_ns - began_ns) * 100.0,
        "% of one CPU",
    );
    context.figure("cpu_share", share, "% of one CPU over the policy's window");
    context.figure("requests_a_second_when_held", calm, "");
    context.figure("requests_a_second_while_it_looped", looping, "");
    ensure!(
        share <= CPU_PERCENT,
        "the crash loop took {share:.2} % of a CPU over its window, and may take {CPU_PERCENT}"
    );
    Ok(())
}

/// When the domain died last, and how often it has.
fn newest_death(lab: &RunningLab) -> Result<(f64, u64)> {
    let deaths = lab.console_json("deaths last 1000 --json")?;
    let own: Vec<&Value> = deaths["deaths"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|death| death["name"] == DOMAIN)
        .collect();
    let newest = own.first().context("it has never died")?;
    let at_ns = newest["at_ns"].as_f64().context("a death has no time")?;
    Ok((at_ns, own.len() as u64))
}

fn wait_held(lab: &RunningLab) -> Result<Value> {
    let step = Step::start(format!("Waiting until {DOMAIN} is held"));
    let until = Instant::now() + LIMIT;
    loop {
        let domain = lab.console_json(&format!("domains {DOMAIN} --json"))?;
        if domain["held"] == true {
            step.done("");
            return Ok(domain);
        }
        ensure!(
            Instant::now() < until,
            "{DOMAIN} dies at every start and is not held after {LIMIT:?}: {domain}"
        );
        thread::sleep(Duration::from_millis(500));
    }
}

fn requests_a_second(lab: &RunningLab) -> Result<f64> {
    let began = Instant::now();
    lab.connections(lab.server()?, REQUESTS, AT_ONCE)?
        .check_all(REQUESTS)?;
    Ok(REQUESTS as f64 / began.elapsed().as_secs_f64())
}

/// The supervisor is killed: the machine starts again and serves.
pub fn supervisor_death_restarts(context: &Context) -> Result<()> {
    let lab = context.boot_changed("supervisor-death", Ok, true)?;
    lab.judge(supervisor_death(context, &lab))
}

fn supervisor_death(context: &Context, lab: &RunningLab) -> Result<()> {
    const BOOTED: &str = "supervisor up";
    let boots = || lab.serial().matches(BOOTED).count();
    let url = lab.report().appliance.http;
    ensure!(boots() == 1, "the machine should have started once");
    // One of another incarnation of the machine than the one that answers.
    lab.console(&format!("kill {DOMAIN}"))?;
    let step = Step::start("Killing the supervisor");
    let began = Instant::now();
    // The console is cut off in the middle of the answer.
    lab.console("kill init --force").ok();
    while boots() < 2 {
        ensure!(began.elapsed() < LIMIT, "the machine does not start again");
        thread::sleep(Duration::from_millis(10));
    }
    let again = began.elapsed();
    while lab
        .run(
            "client",
            "curl",
            &["-sS", "--fail", "-m", "1", "-o", "/dev/null", &url],
        )
        .is_err()
    {
        ensure!(began.elapsed() < LIMIT, "the machine does not serve again");
    }
    let served = began.elapsed();
    step.done("");
    ensure!(
        lab.serial().contains("the supervisor died: rebooting"),
        "the serial log doesn't say why the machine restarted"
    );
    let deaths = lab.console_json("deaths --json")?;
    ensure!(
        deaths["total"] == 0,
        "the machine that answers is not a new one: {deaths}"
    );
    context.figure(
        "supervisor_up_again",
        again.as_secs_f64(),
        "s after the kill, with the time that typing takes",
    );
    context.figure("serves_again", served.as_secs_f64(), "s");
    Ok(())
}
