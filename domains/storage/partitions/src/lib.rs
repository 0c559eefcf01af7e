//! Partitions of disks as storage devices.
//!
//! Each partition is a unit of the device that this domain offers; requests get no further than its bounds. `gpt.rs` is the partition table,
//! `disks.rs` what is known of the disks and done to them, `router.rs` the way of requests and answers, `units.rs` where each partition
//! lies, `access.rs` how this domain itself reads and writes, `device.rs` the interfaces. What is on a partition is its user's business.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
pub mod config;
mod device;
mod disks;
pub mod gpt;
mod router;
#[cfg(test)]
mod tests;
mod units;

use alloc::boxed::Box;
use alloc::sync::Arc;
use device::{Device, Operator};
use disks::Disks;
use domain_rt::thread::Wake;
use domain_rt::{StartError, clock, thread};
use interface::block::BlockDevice;
use router::Router;
use rref::RRef;

/// How often the device is asked whether its disks have changed, nanoseconds.
const LOOK_NS: u64 = 5_000_000_000;

/// Starts the domain. It doesn't wait for a disk: an appliance without one serves as well.
pub fn start() -> Result<(), StartError> {
    let config = settings::at_start(config::read)?;
    // Whoever owns what was just made is the domain that runs.
    let user = RRef::new(0u8)?.owner();
    let disks = Arc::new(Disks::new(Router::new("device"), config, user));
    let looked_at = disks.clone();
    thread::spawn("disks", None, move || {
        loop {
            let next_ns = looked_at.look();
            if thread::park_until(clock::now_ns().saturating_add(LOOK_NS).min(next_ns)) == Wake::Cancelled {
                return;
            }
        }
    })?;
    domain_rt::export::<dyn interface::partition::Disks>(Box::new(Operator(disks.clone())))?;
    domain_rt::export::<dyn BlockDevice>(Box::new(Device(disks)))
}
