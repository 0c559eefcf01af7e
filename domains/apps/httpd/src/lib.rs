//! The HTTP server: HTTP/1.1 over the stack's sockets, for the site of the boot archive and the appliance's metrics.
//!
//! Implements RFC 9112 (messages and connections) and of RFC 9110 what a server of files needs: GET, HEAD and OPTIONS, conditional and
//! range requests. The logic is pure and in files of its own:
//! - [`request`], [`target`], [`body`]: what a client asks for, and where its request ends;
//! - [`upload`]: an image for a live update, on its way to the supervisor;
//! - [`site`], [`conditional`], [`answer`], [`status`], [`date`], [`clock`]: what it gets;
//! - [`connection`], [`pump`]: in what order, and how far at a time; [`repeat`]: what was asked before.
//!
//! Around it: [`server`] and [`transport`] for the sockets, [`collector`], [`metrics`] and [`counters`] for `/metrics`, [`config`] for
//! the operator's file.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

pub mod answer;
pub mod body;
pub mod clock;
pub mod collector;
pub mod conditional;
pub mod config;
pub mod connection;
pub mod counters;
pub mod date;
mod death_metrics;
mod disk_metrics;
pub mod holdings;
pub mod metrics;
pub mod pump;
pub mod repeat;
pub mod request;
pub mod server;
pub mod site;
pub mod status;
mod store_metrics;
pub mod target;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod upload;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use collector::Collector;
use config::Config;
use counters::Counters;
use domain_rt::{Handle, StartError, start_with, thread};
use interface::socket::Sockets;
use interface::update::Uploads;
use log::{info, warn};
use server::{Shard, Shared};
use site::Site;

/// How long a start waits for the stack, milliseconds; then it serves when the stack comes.
const STACK_WAIT_MS: u64 = 2_000;

/// Reads configuration and site and serves on the stack; later, when there is none yet.
///
/// # Errors
/// A mistake in config/appliance.toml, or no memory for the threads.
pub fn start() -> Result<(), StartError> {
    let config = settings::at_start(config::read)?;
    let site = Site::load();
    if site.is_empty() {
        warn!("the boot archive has no site: only /metrics and /healthz are there");
    }
    let ask = |stack: &Handle<dyn Sockets>| stack.shards();
    start_with("sockets", STACK_WAIT_MS, ask, move |sockets, shards| {
        serve(config, site, &sockets, shards)
    })
}

/// Starts a thread for each shard of the stack, on that shard's CPU.
fn serve(config: Config, site: Site, sockets: &Handle<dyn Sockets>, shards: u16) -> Result<(), StartError> {
    let uploads = match config.upload_token {
        Some(_) => Some(domain_rt::connect::<dyn Uploads>("uploads", 0)?),
        None => None,
    };
    let counters: Vec<_> = (0..shards).map(|_| Arc::new(Counters::default())).collect();
    let collector = Collector::start(counters.clone())?;
    info!("port {}: {} files, {shards} shards", config.port, site.len());
    let shared = Arc::new(Shared {
        config,
        site,
        collector,
        shards,
    });
    for (number, counters) in (0..shards).zip(counters) {
        let (shared, sockets, uploads) = (shared.clone(), sockets.clone(), uploads.clone());
        thread::spawn(&format!("http-{number}"), Some(number), move || {
            serving::run(&mut Shard::new(number, shared, counters, sockets, uploads));
        })?;
    }
    Ok(())
}
