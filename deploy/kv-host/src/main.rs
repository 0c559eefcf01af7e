//! The key-value server as a process: the appliance's own domain code, with this machine's sockets and a store in memory.
//!
//! For development, and for Redis' own test suite, which is then a matter of seconds. `cargo run --release -p kv-host -- --port 6379`.
#![forbid(unsafe_code)]

mod sockets;
mod store;

use anyhow::{Context, Result, bail};
use clap::Parser;
use interface::key_value::KeyValueStore;
use interface::socket::Sockets;
use std::fmt::Write;

/// The appliance's key-value server as a process of this machine.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// TCP port.
    #[arg(long, default_value_t = 6379)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind: std::net::IpAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    shards: u16,
    /// Password that AUTH is to show.
    #[arg(long)]
    requirepass: Option<String>,
    /// When a write is answered: always, everysec or no.
    #[arg(long, default_value = "everysec")]
    appendfsync: String,
    /// Connections at most.
    #[arg(long, default_value_t = 10_000)]
    maxclients: u32,
    /// Memory for keys and values, in MiB; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    maxmemory_mib: u32,
    /// Kills the store's domain this often, in milliseconds; its data stays, and its successor is asked for them.
    #[arg(long)]
    kill_store_ms: Option<u64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut config = String::from("[kv]\n");
    writeln!(config, "port = {}", options.port)?;
    writeln!(config, "appendfsync = {:?}", options.appendfsync)?;
    writeln!(config, "maxclients = {}", options.maxclients)?;
    writeln!(config, "maxmemory_mib = {}", options.maxmemory_mib)?;
    if let Some(password) = &options.requirepass {
        writeln!(config, "password = {password:?}")?;
    }
    if let Err(error) = kv_server::config::read(&config) {
        bail!("{error}");
    }
    host_platform::attach();
    host_platform::add_boot_file("config/appliance.toml", config.as_bytes());
    let sockets: &'static dyn Sockets = Box::leak(Box::new(sockets::HostSockets::new(
        options.bind,
        options.shards.max(1),
    )?));
    host_platform::provide::<dyn Sockets>("sockets", sockets);
    let store: &'static dyn KeyValueStore = Box::leak(Box::new(store::MemoryStore::default()));
    host_platform::provide_mortal::<dyn KeyValueStore>("store", store);
    kv_server::start()
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("the server can't start")?;
    println!("serving {}:{}; Ctrl-C ends it", options.bind, options.port);
    loop {
        let wait_ms = options.kill_store_ms.unwrap_or(1_000_000);
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        if options.kill_store_ms.is_some() {
            host_platform::kill("store");
            std::thread::sleep(std::time::Duration::from_millis(5));
            host_platform::provide_mortal::<dyn KeyValueStore>("store", store);
        }
    }
}
