//! Maglev's forwarding on the host, in memory, on one core, against a C program that does the same work.
//!
//! Both sides get the same frames, hash keys and lookup table (crate `side-by-side`). The results of a round are a checksum of all MAC
//! addresses written and the number of connections remembered.
//!
//! `workload.rs` makes the input, `subject.rs` runs our code, peer/maglev.c is the C program.
#![forbid(unsafe_code)]

use anyhow::Result;
use serde::Serialize;
use side_by_side::{Comparison, Peer, Program, compare, progress};

mod subject;
mod workload;

use subject::Subject;
use workload::Workload;

pub use side_by_side::DEFAULT_ROUNDS;

/// The C program.
const PEER: &str = include_str!("../peer/maglev.c");

/// Numbers of flows that are measured with unless asked otherwise.
pub const DEFAULT_FLOWS: [usize; 2] = [1 << 10, 1 << 20];

/// Packets that a round has at least, so that it takes several milliseconds.
const PACKETS_PER_ROUND: usize = 1 << 21;

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
    #[serde(flatten)]
    compared: Comparison,
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

/// Measures hit and miss with as many flows as asked for, each a power of two, and prints the result.
///
/// # Errors
/// When the C program cannot be built or run, when it did other work than ours, or when this program was built without
/// optimisation.
pub fn run(json: bool, rounds: u32, flows: &[usize]) -> Result<()> {
    side_by_side::refuse_debug_build("maglev")?;
    progress("compiling the C program");
    let program = Program::compile(PEER)?;

    let mut measurements = Vec::new();
    for &flows in flows {
        let mut workload = Workload::new(flows);
        let setup = program.setup(&flows.to_string());
        workload.write_setup(&setup)?;
        let mut peer = program.start(&setup)?;
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
        c_compiler: program.compiler().to_owned(),
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
    let command = format!("{} {passes}", mode.name());
    let compared = compare(
        rounds,
        passes * flows,
        |round| {
            progress(&format!(
                "{flows} flows, {}: round {round} of {rounds}",
                mode.name()
            ))
        },
        || subject.round(mode, passes),
        || peer.round(&command),
    )?;
    Ok(Measurement {
        mode,
        flows,
        rust_ns_per_packet: compared.ours_ns,
        c_ns_per_packet: compared.theirs_ns,
        compared,
    })
}

fn print_table(report: &Report) {
    println!(
        "Maglev forwarding, {}-byte packets, batches of {}, {} backends, one core; median of {} rounds\n\
         C: {}, -O3\n",
        report.packet_bytes, report.batch, report.backends, report.rounds, report.c_compiler
    );
    println!("{:>9}  {:<4}  {}", "flows", "", Comparison::heading());
    for line in &report.measurements {
        let mode = line.mode.name();
        println!("{:>9}  {mode:<4}  {}", line.flows, line.compared.cells());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides do the same work, also where the connection table is at its limits; a few passes suffice to see it.
    #[test]
    fn both_sides_do_the_same_work() {
        let program = Program::compile(PEER).unwrap();
        let mut workload = Workload::new(4_096);
        let setup = program.setup("test");
        workload.write_setup(&setup).unwrap();
        let mut peer = program.start(&setup).unwrap();
        let mut subject = Subject::new(&mut workload).unwrap();
        for mode in [Mode::Hit, Mode::Miss, Mode::Hit, Mode::Miss] {
            let theirs = peer.round(&format!("{} 3", mode.name())).unwrap();
            let ours = subject.round(mode, 3).unwrap();
            assert_eq!(ours.results, theirs.results);
            assert!(ours.results[1] > 4_000);
        }
    }
}
