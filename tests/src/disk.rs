//! The disk behind its shadow: its driver is killed while it is written to, and everything that was acknowledged is there.

use anyhow::{Context as _, Result, ensure};
use progress::Step;

use crate::appliance::state;
use crate::context::Context;
use crate::running_lab::RunningLab;

/// How long it is written to, and how many kills that must be at least: one a second, less those that a slow machine is late with. The
/// console must answer within its time.
const SECONDS: u32 = 20;
const KILLS: u64 = 12;

/// Writes, flushes and reads through the partition for measurements, with the driver killed once a second: no request fails, and every place
/// holds its last acknowledged write.
pub fn driver_killed(context: &Context) -> Result<()> {
    let lab = context.boot_store("disk-driver-killed", None)?;
    lab.judge(verify(context, &lab))
}

fn verify(context: &Context, lab: &RunningLab) -> Result<()> {
    let step = Step::start("Writing to the disk while its driver is killed once a second");
    let found = lab.console_json(&format!(
        "disk verify depth 32 seconds {SECONDS} kill nvme --json"
    ))?;
    let number = |name: &str| {
        found[name]
            .as_u64()
            .with_context(|| format!("`disk verify` told no {name}: {found}"))
    };
    step.done(format!(
        "{} writes, {} kills",
        number("writes")?,
        number("kills")?
    ));
    for wrong in ["errors", "lost", "stale", "wrong"] {
        ensure!(
            number(wrong)? == 0,
            "the disk is not what was acknowledged: {found}"
        );
    }
    ensure!(number("kills")? >= KILLS, "too few kills: {found}");
    ensure!(
        number("places")? > 1_000 && number("flushes")? > 10,
        "hardly anything was written: {found}"
    );
    let domains = lab.console_json("domains --json")?;
    for name in ["nvme", "block-shadow", "partitions"] {
        ensure!(state(&domains, name) == Some("running"), "{name}: {domains}");
    }
    context.figure("disk_writes_under_kills", number("writes")? as f64, "");
    Ok(())
}
