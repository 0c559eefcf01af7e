//! 64-byte UDP packets through a VIP to the backends, which count what reaches them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{InstructionReading, Lab};
use measure::Images;
use progress::Step;
use serde::Deserialize;

use crate::per_unit;
use crate::report::{Idle, Udp};

/// Payload that makes a frame of 64 bytes over IPv4, checksum included.
const PAYLOAD_BYTES: usize = 18;
/// Source ports, so that the load is spread over queues and backends.
const FLOWS: u16 = 64;
/// Time for what is under way to arrive.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Sent {
    datagrams: u64,
    per_second: f64,
}

#[derive(Deserialize)]
struct Count {
    datagrams: u64,
}

/// Measures for `seconds`, after a second that warms up.
pub fn measure(
    lab: &Lab,
    node: &Path,
    counter: &Path,
    idle: &Idle,
    seconds: u64,
    images: Option<&Images>,
) -> Result<Udp> {
    let step = Step::start(format!("UDP load for {seconds} s"));
    let report = lab.report();
    let vip: IpAddr = report.vip.context("the configuration has no VIP")?.ipv4.parse()?;
    let vip = SocketAddr::new(vip, 80);
    send(lab, node, vip, 1)?;
    sleep(SETTLE);

    let received_before = received(lab)?;
    let before = InstructionReading::take(counter)?;
    let sent = send(lab, node, vip, seconds)?;
    sleep(SETTLE);
    let after = InstructionReading::take(counter)?;
    let received = received(lab)?.saturating_sub(received_before);
    ensure!(
        received > 0,
        "none of {} packets to the VIP reached a backend",
        sent.datagrams
    );
    step.done(format!("{received} of {} packets", sent.datagrams));
    if let Some(images) = images {
        print!("{}", images.profile(&before, &after, received, "packet"));
    }
    Ok(Udp {
        sent: sent.datagrams,
        forwarded: received,
        instructions_per_packet: per_unit(&before, &after, idle, received),
        offered_per_second: sent.per_second,
        forwarded_per_second: received as f64 / seconds as f64,
    })
}

fn send(lab: &Lab, node: &Path, to: SocketAddr, seconds: u64) -> Result<Sent> {
    let mut command = lab.command_in("client", node)?;
    command.args([
        "udp-load",
        "--to",
        &to.to_string(),
        "--payload",
        &PAYLOAD_BYTES.to_string(),
    ]);
    command.args([
        "--flows",
        &FLOWS.to_string(),
        "--duration-ms",
        &(seconds * 1000).to_string(),
    ]);
    let output = command.output().context("the load can't be started")?;
    ensure!(
        output.status.success(),
        "the load failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("what the load printed can't be read")
}

/// Datagrams that all backends have counted since their start.
fn received(lab: &Lab) -> Result<u64> {
    let mut total = 0;
    for (name, node) in lab.report().nodes.iter().filter(|(name, _)| *name != "client") {
        let mut command = lab.command_in("client", "curl")?;
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "5",
            &format!("http://{}/count", node.ipv4),
        ]);
        let output = command.output().context("curl can't be run")?;
        let count: Count = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "{name} doesn't tell its count: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })?;
        total += count.datagrams;
    }
    Ok(total)
}
