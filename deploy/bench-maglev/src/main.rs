//! `bench-maglev`: what `cargo xtask bench maglev` runs, built with the profile of the firmware.
#![forbid(unsafe_code)]

use clap::Parser;

/// Measures Maglev's forwarding code on this machine's CPU against the same work in C.
#[derive(Parser)]
struct Arguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = bench_maglev::DEFAULT_ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Numbers of flows to measure with: powers of two.
    #[arg(long, value_delimiter = ',', default_values_t = bench_maglev::DEFAULT_FLOWS)]
    flows: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    bench_maglev::run(arguments.json, arguments.rounds, &arguments.flows)
}
