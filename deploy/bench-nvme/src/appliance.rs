//! Ours: `disk bench` at the appliance's console.

use anyhow::{Context, Result};
use measure::{Images, Machine};
use serde_json::Value;

use crate::{Kind, Outcome};

/// Sees to it that there is a partition that may be overwritten: the appliance has made one if its configuration says so.
pub fn prepare(machine: &Machine) -> Result<()> {
    let disks = machine.console("disk --json")?;
    if !disks.contains("\"type\":\"scratch\"") {
        machine.console("disk create 0 scratch 64")?;
    }
    Ok(())
}

/// One load; with `images`, prints where its instructions were executed.
pub fn measure(
    machine: &Machine,
    kind: Kind,
    depth: u32,
    seconds: u64,
    images: Option<&Images>,
) -> Result<Outcome> {
    let work = match kind {
        Kind::Read => "read",
        Kind::Write => "write",
    };
    let command = format!("disk bench {work} depth {depth} seconds {seconds} --json");
    let load = machine.count(|| machine.console(&command))?;
    let value: Value = load
        .result
        .lines()
        .filter(|line| line.starts_with('{'))
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("`{command}` answered no JSON:\n{}", load.result))?;
    let number = |name: &str| {
        value[name]
            .as_f64()
            .with_context(|| format!("`{command}` told no `{name}`: {value}"))
    };
    let operations = number("operations")?;
    if let Some(images) = images {
        let profile = images.profile(&load.before, &load.after, operations as u64, "operation");
        println!("{profile}");
    }
    Ok(Outcome {
        operations_per_second: number("operations_per_second")?,
        instructions_per_operation: load.instructions / operations,
        p50_us: number("p50_ns")? / 1000.0,
        p99_us: number("p99_ns")? / 1000.0,
    })
}
