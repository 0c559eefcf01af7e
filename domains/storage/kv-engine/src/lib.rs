//! The key-value engine: keys and values on a partition, in a log.
//!
//! | module | subject |
//! |---|---|
//! | [`layout`] | superblocks, segments, headers and footers on the partition |
//! | [`record`] | the records that the log is made of |
//! | [`image`] | a segment in memory while it is written, and its summary |
//! | [`place`], [`key_hash`], [`index`] | which key is where, in 16 bytes a key |
//! | [`state`] | what the engine knows |
//! | [`engine`] | appending, committing, staging |
//! | `write_out` | bringing what is in memory to the disk |
//! | `read`, [`cache`] | reading values |
//! | `superblocks` | which store is on a partition |
//! | [`open`] | opening: making the index again, and where the log ends |
//! | `clean` | making room |
//! | `scan` | everything that is live, for the server's start |
//! | `walk` | records one after the other, and the check of the whole |
//! | [`disk`] | the disk, as all that sees it |
//! | [`device`] | a partition as that disk |
//! | [`config`] | the `[store]` section of the operator's file |
//! | `service` | the domain around it |
//!
//! What this crate leaves to others: what keys and values mean (the server), and everything about the disk below a partition's logical blocks.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cache;
mod clean;
pub mod config;
pub mod device;
pub mod disk;
pub mod engine;
pub mod image;
pub mod index;
pub mod key_hash;
pub mod layout;
mod missing;
pub mod open;
pub mod place;
mod read;
pub mod record;
mod scan;
mod service;
pub mod state;
mod superblocks;
mod walk;
mod write_out;

pub use service::start;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod scan_tests;
#[cfg(test)]
mod simulated_disk;
#[cfg(test)]
mod tests;
