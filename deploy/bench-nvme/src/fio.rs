//! The peer: fio on Linux.

use std::time::Duration;

use anyhow::{Context, Result};
use linux_guest::peer;
use measure::Machine;
use serde_json::Value;

use crate::{Kind, Outcome};

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The device to work on: the scratch partition where there is one, else the disk, which then holds nothing.
pub fn target(machine: &Machine) -> Result<String> {
    let said = run(
        machine,
        "grep -l PARTNAME=scratch /sys/class/block/*/uevent; echo done",
    )?;
    let partition = said.lines().find_map(|line| {
        line.trim()
            .strip_prefix("/sys/class/block/")?
            .strip_suffix("/uevent")
    });
    Ok(format!("/dev/{}", partition.unwrap_or("nvme0n1")))
}

/// One load.
pub fn measure(machine: &Machine, target: &str, kind: Kind, depth: u32, seconds: u64) -> Result<Outcome> {
    let work = match kind {
        Kind::Read => "randread",
        Kind::Write => "randwrite",
    };
    let command = |end: String| {
        format!(
            "fio --name=x --filename={target} --rw={work} --bs=4k --ioengine=io_uring --direct=1 --iodepth={depth} {end} \
             --output-format=json"
        )
    };
    let start = machine.count(|| run(machine, &command("--number_ios=1".to_owned())))?;
    let load = machine.count(|| run(machine, &command(format!("--time_based --runtime={seconds}"))))?;
    let result = parse(&load.result, kind)?;
    let own = load.instructions - start.instructions;
    Ok(Outcome {
        operations_per_second: result.rate,
        instructions_per_operation: own / result.operations,
        p50_us: result.p50_us,
        p99_us: result.p99_us,
    })
}

fn run(machine: &Machine, command: &str) -> Result<String> {
    peer::run(&machine.lab().report().serial, command, LIMIT)
}

struct FioResult {
    operations: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

fn parse(text: &str, kind: Kind) -> Result<FioResult> {
    let context = || format!("fio's answer can't be read:\n{text}");
    let begin = text.find('{').with_context(context)?;
    let end = text.rfind('}').with_context(context)?;
    let value: Value =
        serde_json::from_str(text.get(begin..=end).unwrap_or_default()).with_context(context)?;
    let side = match kind {
        Kind::Read => "read",
        Kind::Write => "write",
    };
    let side = &value["jobs"][0][side];
    let number = |value: &Value| value.as_f64().with_context(context);
    let latency = &side["clat_ns"]["percentile"];
    Ok(FioResult {
        operations: number(&side["total_ios"])?,
        rate: number(&side["iops"])?,
        p50_us: number(&latency["50.000000"])? / 1e3,
        p99_us: number(&latency["99.000000"])? / 1e3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_between_other_words() {
        let text = "note: both iodepth >= 1\n{\"jobs\":[{\"read\":{\"total_ios\":100,\"iops\":10.5,\"clat_ns\":{\"percentile\":\
                    {\"50.000000\":2000,\"99.000000\":5000}}}}]}\n";
        let result = parse(text, Kind::Read).unwrap();
        assert_eq!(result.operations, 100.0);
        assert_eq!((result.p50_us, result.p99_us), (2.0, 5.0));
        assert!(parse("fio: failed", Kind::Read).is_err());
    }
}
