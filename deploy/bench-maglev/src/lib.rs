//! Maglev's forwarding on the host, in memory, on one core, against a C program that does the same work.
//!
//! Both sides get the same frames, hash keys and lookup table and take turns, round by round, so that whatever else the
//! machine does hits both alike. After every round both report a checksum of all MAC addresses written and the number of
//! connections remembered: if the two differ, they haven't done the same work, and there is no result.
//!
//! `workload.rs` makes the input, `subject.rs` runs our code, `peer.rs` builds and runs the C program (peer/maglev.c).
#![forbid(unsafe_code)]

use std::io::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

mod peer;
mod subject;
mod workload;

use peer::Peer;
use subject::Subject;
use workload::Workload;

/// Rounds of each measurement unless asked otherwise.
pub const DEFAULT_ROUNDS: u32 = 15;

/// Numbers of flows that are measured with unless asked otherwise.
pub const DEFAULT_FLOWS: [usize; 2] = [1 << 10, 1 << 20];

/// Packets that a round has at least, so that it takes several milliseconds.
const PACKETS_PER_ROUND: usize = 1 << 21;

/// What a side says after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    nanoseconds: u64,
    /// Of the MAC addresses of all frames.
    checksum: u64,
    /// Connections remembered.
    entries: u64,
}

/// Whether packets belong to remembered connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// All packets belong to remembered connections.
    Hit,
    /// No packet does: all connections have expired before each pass, and every packet is a SYN.
    Miss,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Measurement {
    mode: Mode,
    flows: usize,
    rust_ns_per_packet: f64,
    c_ns_per_packet: f64,
    ratio: f64,
    /// The lower and upper quartile of the rounds' ratios.
    ratio_quartiles: [f64; 2],
    budget_ratio: f64,
    within_budget: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    packet_bytes: usize,
    batch: usize,
    backends: usize,
    rounds: u32,
    c_compiler: String,
    measurements: Vec<Measurement>,
}

/// Maglev against C: the budget of the design.
const BUDGET_RATIO: f64 = 1.1;

/// Measures hit and miss with as many flows as asked for, each a power of two, and prints the result.
///
/// # Errors
/// When the C program cannot be built or run, when it did other work than ours, or when this program was built without
/// optimisation.
pub fn run(json: bool, rounds: u32, flows: &[usize]) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!(
            "built without optimisation, so the figures would mean nothing; run `cargo xtask bench maglev`"
        );
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    progress("compiling the C program");
    let program = peer::compile(folder.path())?;

    let mut measurements = Vec::new();
    for &flows in flows {
        let mut workload = Workload::new(flows);
        let setup = folder.path().join(format!("setup-{flows}"));
        workload.write_setup(&setup)?;
        let mut peer = Peer::start(&program, &setup)?;
        let mut subject = Subject::new(&mut workload)?;
        for mode in [Mode::Hit, Mode::Miss] {
            measurements.push(measure(&mut subject, &mut peer, mode, flows, rounds)?);
        }
    }
    progress("");

    let report = Report {
        benchmark: "maglev",
        packet_bytes: workload::FRAME_BYTES,
        batch: maglev::balancer::BATCH,
        backends: workload::BACKENDS,
        rounds,
        c_compiler: peer::compiler_version()?,
        measurements,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_table(&report);
    }
    Ok(())
}

fn measure(
    subject: &mut Subject<'_>,
    peer: &mut Peer,
    mode: Mode,
    flows: usize,
    rounds: u32,
) -> Result<Measurement> {
    let passes = PACKETS_PER_ROUND.div_ceil(flows);
    let (mut rust, mut c, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // Round 0 fills caches and connection tables and doesn't count.
    for round in 0..=rounds {
        progress(&format!(
            "{flows} flows, {}: round {round} of {rounds}",
            mode.name()
        ));
        // Taking turns at going first, so that neither always finds the machine as the other left it.
        let (ours, theirs) = if round % 2 == 0 {
            let ours = subject.round(mode, passes)?;
            (ours, peer.round(mode, passes)?)
        } else {
            let theirs = peer.round(mode, passes)?;
            (subject.round(mode, passes)?, theirs)
        };
        ensure!(
            (ours.checksum, ours.entries) == (theirs.checksum, theirs.entries),
            "the two sides have not done the same work: {ours:?} here, {theirs:?} in C"
        );
        if round > 0 {
            let packets = (passes * flows) as f64;
            rust.push(ours.nanoseconds as f64 / packets);
            c.push(theirs.nanoseconds as f64 / packets);
            ratios.push(ours.nanoseconds as f64 / theirs.nanoseconds as f64);
        }
    }
    let (rust, c) = (quantile(&mut rust, 0.5), quantile(&mut c, 0.5));
    let ratio = rust / c;
    Ok(Measurement {
        mode,
        flows,
        rust_ns_per_packet: rust,
        c_ns_per_packet: c,
        ratio,
        ratio_quartiles: [quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)],
        budget_ratio: BUDGET_RATIO,
        within_budget: ratio <= BUDGET_RATIO,
    })
}

/// The value below which the given part of the values lie; 0 of none.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values
        .get((last * part).round() as usize)
        .copied()
        .unwrap_or_default()
}

fn print_table(report: &Report) {
    println!(
        "Maglev forwarding, {}-byte packets, batches of {}, {} backends, one core; median of {} rounds\n\
         C: {}, -O3\n",
        report.packet_bytes, report.batch, report.backends, report.rounds, report.c_compiler
    );
    println!(
        "{:>9}  {:<4}  {:>9}  {:>9}  {:>5}  {:<11}  budget",
        "flows", "", "Rust ns", "C ns", "ratio", "quartiles"
    );
    for line in &report.measurements {
        println!(
            "{:>9}  {:<4}  {:>9.2}  {:>9.2}  {:>5.2}  {:.2} – {:.2}  {} {}",
            line.flows,
            line.mode.name(),
            line.rust_ns_per_packet,
            line.c_ns_per_packet,
            line.ratio,
            line.ratio_quartiles[0],
            line.ratio_quartiles[1],
            line.budget_ratio,
            if line.within_budget { "met" } else { "MISSED" },
        );
    }
}

/// Shows on the terminal's last line what is going on; nothing when nobody watches.
fn progress(what: &str) {
    use std::io::IsTerminal as _;
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // A terminal that is gone is no reason to stop measuring.
        let _ = write!(terminal, "\r\x1b[K{what}");
        let _ = terminal.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&mut [5.0, 1.0, 3.0], 0.5), 3.0);
        assert_eq!(quantile(&mut [5.0, 1.0, 3.0, 4.0, 2.0], 0.25), 2.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    /// Both sides do the same work, also where the connection table is at its limits; a few passes suffice to see it.
    #[test]
    fn both_sides_do_the_same_work() {
        let folder = tempfile::tempdir().unwrap();
        let program = peer::compile(folder.path()).unwrap();
        let mut workload = Workload::new(4_096);
        let setup = folder.path().join("setup");
        workload.write_setup(&setup).unwrap();
        let mut peer = Peer::start(&program, &setup).unwrap();
        let mut subject = Subject::new(&mut workload).unwrap();
        for mode in [Mode::Hit, Mode::Miss, Mode::Hit, Mode::Miss] {
            let (ours, theirs) = (subject.round(mode, 3).unwrap(), peer.round(mode, 3).unwrap());
            assert_eq!((ours.checksum, ours.entries), (theirs.checksum, theirs.entries));
            assert!(ours.entries > 4_000);
        }
    }
}
