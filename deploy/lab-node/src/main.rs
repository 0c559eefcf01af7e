//! The program that the lab runs inside its network namespaces.
//!
//! One program with a subcommand for each part, so that the lab needs a single path. It knows nothing of namespaces: who
//! starts it decides where it is.

#![forbid(unsafe_code)]

mod backend;
mod connections;
mod datagram_flows;
mod exchange;
mod fetch;
mod forward;
mod http;
mod limits;
mod udp_load;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Parts of the lab that run inside its network namespaces.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A web server that answers with its name, with a UDP echo on the same addresses.
    Backend {
        /// The name it answers with.
        #[arg(long)]
        name: String,
        /// Address and port to serve; may be given several times.
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
    /// Passes connections of the listening socket that is its standard input on to an address.
    Forward {
        /// Where connections go.
        #[arg(long)]
        to: SocketAddr,
    },
    /// Waits until a web server answers; prints the milliseconds it took.
    WaitHttp {
        /// Its address and port.
        address: SocketAddr,
        /// Gives up after so many milliseconds.
        #[arg(long, default_value_t = 30_000)]
        timeout_ms: u64,
    },
    /// Makes many HTTP connections and prints who answered, as one JSON object.
    Connections {
        /// Where they go.
        #[arg(long)]
        to: SocketAddr,
        /// What is asked for.
        #[arg(long, default_value = "/")]
        path: String,
        /// How many connections.
        #[arg(long)]
        count: u16,
        /// Source port of the first, the others' follow; 0 lets the system choose.
        #[arg(long, default_value_t = 0)]
        source_port: u16,
        /// Open together at most; with --hold, being opened together at most.
        #[arg(long, default_value_t = 200)]
        at_once: usize,
        /// Milliseconds for one connection or one answer.
        #[arg(long, default_value_t = 15_000)]
        patience_ms: u64,
        /// Keep all open, and ask again on each for every line on standard input.
        #[arg(long)]
        hold: bool,
    },
    /// Asks over UDP from many source ports who answers, and again for every line on standard input.
    DatagramFlows {
        /// Where they go.
        #[arg(long)]
        to: SocketAddr,
        /// How many flows.
        #[arg(long)]
        count: u16,
    },
    /// Sends its standard input to an address, then prints what comes back until the other side closes.
    Exchange {
        /// Where it goes.
        #[arg(long)]
        to: SocketAddr,
        /// Gives up after so many milliseconds.
        #[arg(long, default_value_t = 30_000)]
        timeout_ms: u64,
    },
    /// Sends UDP datagrams at a rate, for a time, over many source ports; prints one JSON object.
    UdpLoad {
        /// Where they go.
        #[arg(long)]
        to: SocketAddr,
        /// Bytes of payload; 18 make a 64-byte Ethernet frame over IPv4.
        #[arg(long, default_value_t = 18)]
        payload: usize,
        /// Source ports (flows).
        #[arg(long, default_value_t = 64)]
        flows: u16,
        /// Datagrams a second over all flows; 0 sends as fast as it goes.
        #[arg(long, default_value_t = 0)]
        rate: u64,
        /// For how long, in milliseconds.
        #[arg(long, default_value_t = 5_000)]
        duration_ms: u64,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the event loop can't be started")?;
    match arguments.command {
        Command::Backend { name, listen } => runtime.block_on(backend::serve(name, listen)),
        Command::Forward { to } => runtime.block_on(forward::forward(to)),
        Command::WaitHttp { address, timeout_ms } => {
            runtime.block_on(fetch::wait(address, Duration::from_millis(timeout_ms)))
        }
        Command::Connections {
            to,
            path,
            count,
            source_port,
            at_once,
            patience_ms,
            hold,
        } => {
            let plan = connections::Plan {
                to,
                path,
                count,
                at_once,
                source_port,
                patience: Duration::from_millis(patience_ms),
            };
            if hold {
                return runtime.block_on(connections::hold(&plan));
            }
            let outcome = runtime.block_on(connections::one_each(&plan));
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        Command::DatagramFlows { to, count } => runtime.block_on(datagram_flows::hold(to, count)),
        Command::Exchange { to, timeout_ms } => {
            runtime.block_on(exchange::exchange(to, Duration::from_millis(timeout_ms)))
        }
        Command::UdpLoad {
            to,
            payload,
            flows,
            rate,
            duration_ms,
        } => {
            let load = udp_load::Load {
                to,
                payload,
                flows,
                rate,
                duration: Duration::from_millis(duration_ms),
            };
            println!("{}", serde_json::to_string(&load.run()?)?);
            Ok(())
        }
    }
}
