//! Driver of the Intel 82599 ("ixgbe"), as a domain that exports `NetDevice`.
//!
//! Brings the device up, moves batches of packets between the stack and a queue pair for each CPU, and keeps filters, link and statistics. It
//! reaches the device only through `dma::ixgbe`: it can't name memory to it, and it holds no packet that hardware may write to. Section
//! numbers are those of the 82599 datasheet.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod device;
mod eeprom;
mod error;
mod filters;
mod link;
mod queue;
mod receive;
mod registers;
mod rss;
mod startup;
mod statistics;
mod transmit;

pub use error::DeviceError;
pub use startup::Start;

use alloc::boxed::Box;
use alloc::sync::Arc;
use device::{Device, Exported};
use dma::ClaimError;
use dma::ixgbe::Adapter;
use domain_rt::{StartError, thread};
use interface::net::NetDevice;

/// Starts the domain: the device comes up, and is exported. A machine without one has a driver that offers nothing.
pub fn start() -> Result<(), StartError> {
    let adapter = Adapter::claim(0);
    if let Err(ClaimError::NotFound) = adapter {
        log::warn!("no 82599 found: the appliance goes on without a network");
        return Ok(());
    }
    let device = adapter
        .map_err(DeviceError::Claim)
        .and_then(|adapter| Device::start(adapter, thread::cpu_count()))
        .map_err(|error| StartError::new(format_args!("{error}")))?;
    let device = Arc::new(device);
    let looked_after = device.clone();
    thread::spawn("ixgbe-link", None, move || looked_after.look_after())?;
    domain_rt::export::<dyn NetDevice>(Box::new(Exported(device)))
}
