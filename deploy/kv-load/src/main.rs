//! Loads a key-value store, recording what it acknowledged, or compares one with such a record; prints one JSON object.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, thread};

use anyhow::Result;
use clap::{Parser, Subcommand};
use kv_load::load::Load;
use kv_load::oracle::Oracle;
use kv_load::{record, verify};

/// A load of writes, and what must be there afterwards.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The store.
    #[arg(long)]
    to: SocketAddr,
    /// The record.
    #[arg(long)]
    record: PathBuf,
    /// Milliseconds that a connection or a reply may take.
    #[arg(long, default_value_t = 30_000)]
    patience_ms: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes, deletes and reads.
    Run {
        /// Connections.
        #[arg(long, default_value_t = 8)]
        connections: u32,
        /// Keys of each connection.
        #[arg(long, default_value_t = 200)]
        keys: u32,
        /// Bytes of the longest values.
        #[arg(long, default_value_t = 20_000)]
        value_bytes: usize,
        /// For how long, in milliseconds.
        #[arg(long, default_value_t = 10_000)]
        duration_ms: u64,
        /// End before that when the standard input ends.
        #[arg(long)]
        until_input_ends: bool,
        /// Connect again when a connection breaks.
        #[arg(long)]
        reconnect: bool,
        /// Mark acknowledgements with this file's length.
        #[arg(long)]
        mark: Option<PathBuf>,
        /// What keys and values are drawn by.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// What keys begin with.
        #[arg(long, default_value = "k")]
        prefix: String,
    },
    /// Compares the store with the record.
    Verify,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let patience = Duration::from_millis(arguments.patience_ms);
    match arguments.command {
        Command::Run {
            connections,
            keys,
            value_bytes,
            duration_ms,
            until_input_ends,
            reconnect,
            mark,
            seed,
            prefix,
        } => {
            let stop = Arc::new(AtomicBool::new(false));
            if until_input_ends {
                let stop = stop.clone();
                thread::spawn(move || {
                    // An input that can't be read has ended too.
                    let _ = io::copy(&mut io::stdin(), &mut io::sink());
                    stop.store(true, Ordering::Relaxed);
                });
            }
            let load = Load {
                stop,
                to: arguments.to,
                connections,
                keys,
                value_bytes,
                time: Duration::from_millis(duration_ms),
                patience,
                reconnect,
                mark,
                seed,
                prefix,
            };
            let (summary, events) = load.run()?;
            record::write(&arguments.record, &events)?;
            println!("{}", serde_json::to_string(&summary)?);
        }
        Command::Verify => {
            let oracle = Oracle::new(&record::read(&arguments.record)?);
            let verdict = verify::run(arguments.to, &oracle, patience)?;
            println!("{}", serde_json::to_string(&verdict)?);
        }
    }
    Ok(())
}
