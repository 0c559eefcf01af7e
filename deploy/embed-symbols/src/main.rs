//! `embed-symbols IMAGE`: writes the table of function names into the firmware's ELF file.
#![forbid(unsafe_code)]

use clap::Parser;
use std::path::PathBuf;

/// Writes the table of function names into the firmware's ELF file, so that the report of a kernel fault has
/// a readable backtrace.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The linked image; it is changed in place.
    image: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let done = embed_symbols::embed(&arguments.image)?;
    println!(
        "{}: {} symbols, {} KiB of {} KiB",
        arguments.image.display(),
        done.symbols,
        done.bytes / 1024,
        done.room / 1024
    );
    Ok(())
}
