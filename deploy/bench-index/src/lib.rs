//! Lookups in the key-value index on the host, on one core, against a C program with the same table.
//!
//! Both sides have the same keys of eight bytes in tables that are three quarters full, and look the same ones up in the same order (crate
//! `side-by-side`).
//!
//! `workload.rs` makes the input, `subject.rs` runs our code, peer/index.c is the C program.
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
const PEER: &str = include_str!("../peer/index.c");

/// Tables of two to these powers slots are measured unless asked otherwise.
pub const DEFAULT_POWERS: [u32; 4] = [12, 16, 20, 24];

/// Lookups that a round has at least, so that it takes several milliseconds.
const LOOKUPS_PER_ROUND: usize = 1 << 20;

/// One line of the result.
#[derive(Debug, Serialize)]
struct Measurement {
    slots: usize,
    keys: usize,
    rust_ns_per_lookup: f64,
    c_ns_per_lookup: f64,
    #[serde(flatten)]
    compared: Comparison,
}

#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    key_bytes: usize,
    slot_bytes: usize,
    rounds: u32,
    c_compiler: String,
    measurements: Vec<Measurement>,
}

/// Measures tables of two to each of `powers` slots and prints the result.
///
/// # Errors
/// When the C program cannot be built or run, when it found other things than ours, or when this program was built without
/// optimisation.
pub fn run(json: bool, rounds: u32, powers: &[u32]) -> Result<()> {
    side_by_side::refuse_debug_build("index")?;
    progress("compiling the C program");
    let program = Program::compile(PEER)?;
    let mut measurements = Vec::new();
    for &power in powers {
        progress(&format!("making a table of 2^{power} slots"));
        let workload = Workload::new(1 << power);
        let setup = program.setup(&power.to_string());
        workload.write_setup(&setup)?;
        let mut peer = program.start(&setup)?;
        let subject = Subject::new(&workload)?;
        measurements.push(measure(&subject, &mut peer, &workload, rounds)?);
    }
    progress("");
    let report = Report {
        benchmark: "index",
        key_bytes: 8,
        slot_bytes: kv_engine::index::SLOT_BYTES,
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

fn measure(subject: &Subject<'_>, peer: &mut Peer, workload: &Workload, rounds: u32) -> Result<Measurement> {
    let passes = LOOKUPS_PER_ROUND.div_ceil(workload.lookups.len());
    let compared = compare(
        rounds,
        passes * workload.lookups.len(),
        |round| progress(&format!("{} slots: round {round} of {rounds}", workload.slots)),
        || subject.round(passes),
        || peer.round(&passes.to_string()),
    )?;
    Ok(Measurement {
        slots: workload.slots,
        keys: workload.keys.len(),
        rust_ns_per_lookup: compared.ours_ns,
        c_ns_per_lookup: compared.theirs_ns,
        compared,
    })
}

fn print_table(report: &Report) {
    println!(
        "Lookups in the key-value index, keys of {} bytes, slots of {} bytes, 75 % full, one core; median of {} rounds\n\
         C: {}, -O3\n",
        report.key_bytes, report.slot_bytes, report.rounds, report.c_compiler
    );
    println!("{:>9}  {:>9}  {}", "slots", "keys", Comparison::heading());
    for line in &report.measurements {
        println!("{:>9}  {:>9}  {}", line.slots, line.keys, line.compared.cells());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides find the same; one pass suffices to see it.
    #[test]
    fn both_sides_find_the_same() {
        let program = Program::compile(PEER).unwrap();
        for slots in [1 << 10, 1 << 13] {
            let workload = Workload::new(slots);
            let setup = program.setup("test");
            workload.write_setup(&setup).unwrap();
            let mut peer = program.start(&setup).unwrap();
            let subject = Subject::new(&workload).unwrap();
            let (ours, theirs) = (subject.round(2).unwrap(), peer.round("2").unwrap());
            assert_eq!(ours.results, theirs.results);
            assert_ne!(ours.results, [0]);
        }
    }
}
