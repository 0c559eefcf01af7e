//! The block shadow: a storage device that outlives its driver.
//!
//! It has the driver's interfaces, and its callers never see the driver die: what was handed over is handed to the next driver (the supervisor
//! starts it), flushes after what was before them, and callers see a delay. Only when there is no driver for [`shadow::GIVE_UP_MS`] requests
//! fail. `shadow.rs` is the interface, `queue.rs` what is kept of each queue, `driver.rs` the way to the living driver, `health.rs` passes on what the driver says of its
//! device, the library `outage` measures and reports how long there was none, `counters.rs` adds up what the incarnations counted.
//!
//! No data is copied for this. A request is a shared object that is always somebody's: the driver's, or after its death the shadow's, as its heir
//! (docs/soundness.md, "Storage requests outlive their driver").
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod counters;
mod driver;
mod health;
mod queue;
mod shadow;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use domain_rt::{StartError, thread};
use driver::Driver;
use health::Health;
use interface::block::BlockDevice;
use interface::storage_health::StorageHealth;
use outage::Outages;
use shadow::{GIVE_UP_MS, Shadow};

/// Starts the shadow. It doesn't wait for a driver: an appliance without a disk serves as well.
pub fn start() -> Result<(), StartError> {
    let outages = Arc::new(Outages::default());
    let shadow = Shadow::new(Driver::new("driver", outages.clone()), GIVE_UP_MS);
    thread::spawn("outages", None, move || outages.report("supervisor"))?;
    domain_rt::export::<dyn StorageHealth>(Box::new(Health::new("health")))?;
    domain_rt::export::<dyn BlockDevice>(Box::new(shadow))
}
