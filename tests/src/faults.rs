//! A bad network: frames are lost, doubled, swapped and changed on their way, and TCP has to make up for it.

use anyhow::{Result, ensure};
use progress::Step;
use serde_json::Value;

use crate::context::Context;
use crate::serving::{DOWNLOAD_LIMIT, LARGE_FILE};

/// What happens to frames, each to this share of them in both directions.
const FAULTS: [&str; 4] = ["drop", "duplicate", "reorder", "corrupt"];
const RATE: &str = "0.01";

/// The 200 MB file over such a network.
pub fn download_survives(context: &Context) -> Result<()> {
    context.with_appliance(|lab| {
        for (fault, seed) in FAULTS.iter().zip(1..) {
            let seed = seed.to_string();
            lab.nic(&["fault", fault, "--rate", RATE, "--seed", &seed])?;
        }
        let step = Step::start("Downloading 200 MB over a bad network");
        let download = lab.download(&lab.url(LARGE_FILE), DOWNLOAD_LIMIT);
        let faults = lab.nic(&["faults"])?;
        lab.nic(&["clear"])?;
        let download = download?;
        context.site()?.check(&download)?;
        step.done("SHA-256 equal");
        context.figure("download", download.rate(), "MB/s");
        for fault in FAULTS {
            let count = count(&faults, fault);
            context.figure(fault, count, "frames");
            ensure!(
                count > 0,
                "no frame met `{fault}`, so nothing was shown: {faults}"
            );
        }
        Ok(())
    })
}

/// How often a fault happened, in both directions.
fn count(faults: &Value, kind: &str) -> u64 {
    faults["faults"]["frames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|fault| fault["kind"] == kind)
        .filter_map(|fault| fault["count"].as_u64())
        .sum()
}
