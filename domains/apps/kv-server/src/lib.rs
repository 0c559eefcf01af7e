//! The key-value server: the Redis protocol over the stack's sockets, with its keys and values journaled to the store.
//!
//! Everything but the way of the bytes is pure:
//! - [`protocol`]: requests and replies, RESP2 and RESP3;
//! - [`server`]: what commands work on, behind one lock; [`client`], [`clients`], [`pubsub`], [`monitor`] are parts of it;
//! - [`keyspace`]: databases, expiry, who is told of changes; [`stored_entry`]; [`value`], [`types`], [`stable_map`]: what keys hold;
//! - [`journal`]: changes as the store's entries;
//! - [`command`], [`commands`], [`error`]: the commands; [`number`], [`glob`]: what their arguments say;
//! - [`dump`]: values as DUMP and RESTORE have them; [`slow_log`]: how long commands take;
//! - [`config`]: the operator's file.
//!
//! Around it: [`shard`], [`connection`] and [`outbox`] for the sockets, [`service`] for what the shards share, [`metrics`] for its numbers, [`ledger`] and [`loading`] for the store.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

pub mod client;
pub mod clients;
pub mod command;
pub mod commands;
pub mod config;
pub mod connection;
pub mod decimal;
mod dispatch;
pub mod dump;
pub mod error;
pub mod glob;
pub mod journal;
pub mod keyspace;
pub mod ledger;
pub mod loading;
pub mod metrics;
pub mod monitor;
pub mod number;
pub mod outbox;
mod pause;
pub mod protocol;
pub mod pubsub;
#[cfg(test)]
mod recovery_tests;
pub mod server;
#[cfg(test)]
mod server_tests;
pub mod service;
pub mod shard;
pub mod slow_log;
mod spaces;
pub mod stable_map;
pub mod stored_entry;
#[cfg(test)]
pub mod testing;
pub mod text;
pub mod types;
pub mod value;
mod waiting;

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use config::Config;
use domain_rt::{Handle, StartError, clock, export, start_with, thread};
use interface::metrics::Metrics;
use interface::socket::Sockets;
use log::info;
use metrics::Exported;
use server::Server;
use service::Service;
use shard::Shard;

/// How long a start waits for the stack, milliseconds; then it serves when the stack comes.
const STACK_WAIT_MS: u64 = 2_000;

/// Reads the configuration and serves on the stack; later, when there is none yet.
///
/// # Errors
/// A mistake in config/appliance.toml, or no memory for the threads.
pub fn start() -> Result<(), StartError> {
    let config = settings::at_start(config::read)?;
    if !config.enabled {
        info!("not enabled");
        return Ok(());
    }
    let ask = |stack: &Handle<dyn Sockets>| stack.shards();
    start_with("sockets", STACK_WAIT_MS, ask, move |sockets, shards| {
        serve(config, &sockets, shards)
    })
}

/// Starts a thread for each shard of the stack, on that shard's CPU, and one that reads the store.
fn serve(config: Config, sockets: &Handle<dyn Sockets>, shards: u16) -> Result<(), StartError> {
    let now_ns = clock::now_ns();
    let boot_ms = (clock::unix_time_s() * 1000).saturating_sub(now_ns / 1_000_000);
    let now_ms = boot_ms + now_ns / 1_000_000;
    info!("port {}: {shards} shards", config.port);
    let mut server = Server::new(config, shards, clock::entropy(), now_ms);
    server.timing.clock_ns = clock::now_ns;
    let service = Arc::new(Service::new(server, shards, boot_ms));
    export::<dyn Metrics>(Box::new(Exported(service.clone())))?;
    for number in 0..shards {
        let (service, sockets) = (service.clone(), sockets.clone());
        thread::spawn(&format!("kv-{number}"), Some(number), move || {
            serving::run(&mut Shard::new(number, service, sockets));
        })?;
    }
    let clock = service.clone();
    thread::spawn("kv-clock", None, move || clock.set_clock())?;
    thread::spawn("kv-store", None, move || service.keep_store())?;
    Ok(())
}
