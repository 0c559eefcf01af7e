//! The appliance as shipped: it boots, answers, and every domain of the manifest runs.

use anyhow::{Context as _, Result, ensure};
use configuration::domains::Domains;
use serde_json::Value;

use crate::bare_machine::run_until;
use crate::context::Context;
use crate::running_lab::RunningLab;

/// The shipped image serves its own page to the client, and every domain of the manifest runs.
pub fn boots(context: &Context) -> Result<()> {
    let options = image_builder::Options::new(&context.root);
    let built = image_builder::build(&options)?;
    let lab = context.boot(&built)?;
    if let Some(time) = lab.boot_time {
        context.figure("first_answer", time.as_secs_f64(), "s after QEMU's start");
    }
    lab.judge(serves_own_page(context, &lab).and_then(|()| domains_run(context, &lab)))
}

/// Every domain of the manifest runs on the shared appliance.
pub fn is_well(context: &Context) -> Result<()> {
    context.with_appliance(|lab| domains_run(context, lab))
}

/// Without its card the appliance has its console and whatever needs no network; nobody dies of it, and one line says what is missing.
pub fn runs_without_card(context: &Context) -> Result<()> {
    let built = image_builder::build(&image_builder::Options::new(&context.root))?;
    let domains = Domains::read(&context.root.join("config/domains.toml"))?;
    // The supervisor doesn't count itself.
    let last = format!("all {} domains run after", domains.system.domains.len() - 1);
    let serial = run_until(context, &built.kernel, &built.archive, 2, |serial| {
        serial.contains(&last)
    })?;
    let said = serial.matches("no 82599 found").count();
    ensure!(said == 1, "the missing card is told of {said} times:\n{serial}");
    ensure!(!serial.contains(" died: "), "a domain died:\n{serial}");
    ensure!(serial.contains("shell: runs"), "there is no shell:\n{serial}");
    // Those that need it say that they wait, and for what.
    let waits = serial.matches("there is no network device").count();
    ensure!(waits > 0, "nobody waits for the card:\n{serial}");
    Ok(())
}

fn serves_own_page(context: &Context, lab: &RunningLab) -> Result<()> {
    let page = lab.run(
        "client",
        "curl",
        &["-sS", "-m", "30", &lab.report().appliance.http],
    )?;
    let shipped = std::fs::read_to_string(context.root.join("config/site/index.html"))?;
    ensure!(
        page == shipped,
        "the page differs from config/site/index.html:\n{page}"
    );
    Ok(())
}

fn domains_run(context: &Context, lab: &RunningLab) -> Result<()> {
    let listing = lab.console_json("domains --json")?;
    let domains = Domains::read(&context.root.join("config/domains.toml"))?;
    for domain in &domains.system.domains {
        let state = state(&listing, &domain.name)
            .with_context(|| format!("`domains` doesn't list {}: {listing}", domain.name))?;
        ensure!(state == "running", "{} is {state}: {listing}", domain.name);
    }
    Ok(())
}

/// A domain's state in what `domains --json` has printed.
pub fn state<'a>(listing: &'a Value, name: &str) -> Option<&'a str> {
    listing
        .as_array()?
        .iter()
        .find(|domain| domain["name"] == name)?
        .get("state")?
        .as_str()
}
