//! The appliance as shipped: it boots, answers, and every domain of the manifest runs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use configuration::domains::Domains;

use crate::context::Context;

/// CPUs and memory of the machine that is tested.
const CPUS: u32 = 2;
const MEMORY_MIB: u32 = 1024;

/// The shipped image serves its own page to the client, and the console knows every domain.
pub fn boots(context: &Context) -> Result<()> {
    let options = image_builder::Options::new(&context.root);
    let built = image_builder::build(&options)?;
    let lab = context.appliance(&built, CPUS, MEMORY_MIB)?;
    let report = lab.report();

    let page = lab.run("client", "curl", &["-sS", "-m", "10", &report.appliance.http])?;
    let shipped = std::fs::read_to_string(context.root.join("config/site/index.html"))?;
    ensure!(
        page == shipped,
        "the page differs from config/site/index.html:\n{page}"
    );

    let listing = lab::run_command(&report.serial, "domains", Duration::from_secs(30))?;
    let domains = Domains::read(&context.root.join("config/domains.toml"))?;
    for domain in &domains.system.domains {
        let line = listing
            .lines()
            .find(|line| line.split_whitespace().any(|word| word == domain.name));
        line.with_context(|| format!("`domains` doesn't list {}:\n{listing}", domain.name))?;
    }
    Ok(())
}
