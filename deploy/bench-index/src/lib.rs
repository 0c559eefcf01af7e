//! Lookups in the key-value index on the host, on one core, against a C program with the same table.
//!
//! Both sides have the same keys of eight bytes in tables that are three quarters full, look the same ones up in the same order, and take turns,
//! round by round, so that whatever else the machine does hits both alike. After every round both report the sum of what they found: if
//! the two differ, there is no result.
//!
//! `workload.rs` makes the input, `subject.rs` runs our code, `peer.rs` builds and runs the C program (peer/index.c).
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::io::Write as _;

mod peer;
mod subject;
mod workload;

use peer::Peer;
use subject::Subject;
use workload::Workload;

/// Rounds of each measurement unless asked otherwise.
pub const DEFAULT_ROUNDS: u32 = 15;

/// Tables of two to these powers slots are measured unless asked otherwise.
pub const DEFAULT_POWERS: [u32; 4] = [12, 16, 20, 24];

/// Lookups that a round has at least, so that it takes several milliseconds.
const LOOKUPS_PER_ROUND: usize = 1 << 20;

/// What a side says after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    nanoseconds: u64,
    /// Sum of all words found.
    checksum: u64,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Measurement {
    slots: usize,
    keys: usize,
    rust_ns_per_lookup: f64,
    c_ns_per_lookup: f64,
    ratio: f64,
    /// The lower and upper quartile of the rounds' ratios.
    ratio_quartiles: [f64; 2],
    budget_ratio: f64,
    within_budget: bool,
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

/// The index against C: the budget of the design.
const BUDGET_RATIO: f64 = 1.1;

/// Measures tables of two to each of `powers` slots and prints the result.
///
/// # Errors
/// When the C program cannot be built or run, when it found other things than ours, or when this program was built without
/// optimisation.
pub fn run(json: bool, rounds: u32, powers: &[u32]) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("built without optimisation, so the figures would mean nothing; run `cargo xtask bench index`");
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    progress("compiling the C program");
    let program = peer::compile(folder.path())?;
    let mut measurements = Vec::new();
    for &power in powers {
        progress(&format!("making a table of 2^{power} slots"));
        let workload = Workload::new(1 << power);
        let setup = folder.path().join(format!("setup-{power}"));
        workload.write_setup(&setup)?;
        let mut peer = Peer::start(&program, &setup)?;
        let subject = Subject::new(&workload)?;
        measurements.push(measure(&subject, &mut peer, &workload, rounds)?);
    }
    progress("");
    let report = Report {
        benchmark: "index",
        key_bytes: 8,
        slot_bytes: kv_engine::index::SLOT_BYTES,
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

fn measure(subject: &Subject<'_>, peer: &mut Peer, workload: &Workload, rounds: u32) -> Result<Measurement> {
    let passes = LOOKUPS_PER_ROUND.div_ceil(workload.lookups.len());
    let (mut rust, mut c, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // Round 0 fills caches and doesn't count.
    for round in 0..=rounds {
        progress(&format!("{} slots: round {round} of {rounds}", workload.slots));
        // Taking turns at going first, so that neither always finds the machine as the other left it.
        let (ours, theirs) = if round % 2 == 0 {
            let ours = subject.round(passes)?;
            (ours, peer.round(passes)?)
        } else {
            let theirs = peer.round(passes)?;
            (subject.round(passes)?, theirs)
        };
        ensure!(
            ours.checksum == theirs.checksum,
            "the two sides have not found the same: {ours:?} here, {theirs:?} in C"
        );
        if round > 0 {
            let lookups = (passes * workload.lookups.len()) as f64;
            rust.push(ours.nanoseconds as f64 / lookups);
            c.push(theirs.nanoseconds as f64 / lookups);
            ratios.push(ours.nanoseconds as f64 / theirs.nanoseconds as f64);
        }
    }
    let (rust, c) = (quantile(&mut rust, 0.5), quantile(&mut c, 0.5));
    let ratio = rust / c;
    Ok(Measurement {
        slots: workload.slots,
        keys: workload.keys.len(),
        rust_ns_per_lookup: rust,
        c_ns_per_lookup: c,
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
    let position = (last * part).round() as usize;
    values.get(position).copied().unwrap_or_default()
}

fn print_table(report: &Report) {
    println!(
        "Lookups in the key-value index, keys of {} bytes, slots of {} bytes, 75 % full, one core; median of {} rounds\n\
         C: {}, -O3\n",
        report.key_bytes, report.slot_bytes, report.rounds, report.c_compiler
    );
    println!(
        "{:>9}  {:>9}  {:>9}  {:>9}  {:>5}  {:<11}  budget",
        "slots", "keys", "Rust ns", "C ns", "ratio", "quartiles"
    );
    for line in &report.measurements {
        println!(
            "{:>9}  {:>9}  {:>9.2}  {:>9.2}  {:>5.2}  {:.2} – {:.2}  {} {}",
            line.slots,
            line.keys,
            line.rust_ns_per_lookup,
            line.c_ns_per_lookup,
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
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    /// Both sides find the same; one pass suffices to see it.
    #[test]
    fn both_sides_find_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let program = peer::compile(folder.path()).unwrap();
        for slots in [1 << 10, 1 << 13] {
            let workload = Workload::new(slots);
            let setup = folder.path().join("setup");
            workload.write_setup(&setup).unwrap();
            let mut peer = Peer::start(&program, &setup).unwrap();
            let subject = Subject::new(&workload).unwrap();
            let (ours, theirs) = (subject.round(2).unwrap(), peer.round(2).unwrap());
            assert_eq!(ours.checksum, theirs.checksum);
            assert_ne!(ours.checksum, 0);
        }
    }
}
