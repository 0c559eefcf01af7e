//! `bench-index`: what `cargo xtask bench index` runs, built with the profile of the firmware.
#![forbid(unsafe_code)]

use clap::Parser;

/// Measures lookups in the key-value index on this machine's CPU against the same table in C.
#[derive(Parser)]
struct Arguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = bench_index::DEFAULT_ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Sizes to measure: tables of two to this power slots.
    #[arg(long, value_delimiter = ',', default_values_t = bench_index::DEFAULT_POWERS, value_parser = clap::value_parser!(u32).range(10..=28))]
    powers: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    bench_index::run(arguments.json, arguments.rounds, &arguments.powers)
}
