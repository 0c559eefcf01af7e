//! The truth of the 82599 model, by a driver that nobody here wrote (package linux-guest).

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;

/// 10,000 pings and transfers both ways, checked by linux-guest itself.
pub fn passes(context: &Context) -> Result<()> {
    let programs = context.programs()?;
    let qemu = programs.qemu.as_ref().context("there is no QEMU")?;
    let guest = context.program("linux-guest")?;
    let status = Command::new(guest)
        .arg("--qemu")
        .arg(&qemu.system)
        .arg("--model")
        .arg(&programs.nic_model)
        .status()
        .context("linux-guest can't be started")?;
    ensure!(status.success(), "linux-guest found problems, listed above");
    Ok(())
}
