//! Maglev: a layer-4 load balancer (Eisenbud et al., NSDI 2016) as pure logic.
//!
//! A virtual IP (VIP) is an address, a port and a protocol; its packets go to one of its backends, chosen by consistent
//! hashing and remembered for as long as the connection lives. Forwarding is direct routing: the frame keeps its IP
//! header and gets the backend's MAC address; the backend holds the VIP on its loopback and answers the client itself.
//!
//! | module | subject |
//! |---|---|
//! | [`config`] | the `[maglev]` section of the operator's file |
//! | [`hash`] | the keyed hash functions, and the seed that a cluster of balancers shares |
//! | [`table`] | the lookup table: which backend a flow without history gets |
//! | [`connection_table`] | one CPU's memory of which backend a flow has |
//! | [`lifetime`] | how long a flow is remembered |
//! | [`packet`] | what the balancer reads of a frame |
//! | [`plain_packet`] | the same of those that nearly all are, with fewer steps |
//! | [`kept`] | what outlives the domain besides the tables |
//! | [`control`] | VIPs and backends at run time: add, drain, remove, weights; publishes snapshots |
//! | [`snapshot`] | the immutable state that every CPU forwards by |
//! | [`frame`] | a frame and the verdict on it, whoever holds them |
//! | [`balancer`] | one CPU's forwarding of packet batches |
//! | [`counters`] | packets, bytes and connections per VIP and per backend |
//! | `server` | the domain around all that |
//!
//! What this crate leaves to others: receiving and sending frames, finding out backends' MAC addresses, checking their
//! health, and deciding that a frame is for this host at all (the NIC's address filter and the classifier).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod balancer;
pub mod config;
pub mod connection_table;
pub mod control;
pub mod counters;
pub mod frame;
pub mod hash;
pub mod kept;
pub mod lifetime;
pub mod packet;
pub mod plain_packet;
mod server;
pub mod snapshot;
pub mod table;
#[cfg(test)]
mod testing;

pub use server::start;
