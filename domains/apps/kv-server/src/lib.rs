//! The key-value server: the Redis protocol over the stack's sockets, with its keys and values journaled to the store.
//!
//! Everything but the way of the bytes is pure:
//! - [`protocol`]: requests and replies, RESP2 and RESP3;
//! - [`server`]: what commands work on, behind one lock; [`client`], [`clients`], [`pubsub`], [`monitor`] are parts of it;
//! - [`keyspace`]: databases, expiry, who is told of changes; [`value`], [`types`], [`stable_map`]: what keys hold;
//! - [`journal`]: changes as the store's entries;
//! - [`command`], [`commands`], [`error`]: the commands; [`number`], [`glob`]: what their arguments say;
//! - [`config`]: the operator's file.
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
pub mod error;
pub mod glob;
pub mod journal;
pub mod keyspace;
pub mod monitor;
pub mod number;
pub mod protocol;
pub mod pubsub;
pub mod server;
pub mod stable_map;
#[cfg(test)]
pub mod testing;
pub mod types;
pub mod value;

use domain_rt::StartError;

/// Starts the server.
///
/// # Errors
/// A mistake in config/appliance.toml.
pub fn start() -> Result<(), StartError> {
    Ok(())
}
