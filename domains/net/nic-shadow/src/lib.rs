//! The NIC shadow: a network device that outlives its driver.
//!
//! It has the driver's interface, and its callers never see the driver die: a call that meets a dead driver waits for the
//! next incarnation (the supervisor starts it), replays the configuration and goes on. Frames that the dead driver held are
//! lost, which networks allow. `shadow.rs` is the interface, `driver.rs` the way to the living driver, the library `outage` measures and
//! reports how long there was none, `counters.rs` adds up what the incarnations counted.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod counters;
mod driver;
mod shadow;
#[cfg(test)]
mod tests;
mod unsent;

use alloc::boxed::Box;
use alloc::sync::Arc;
use domain_rt::{StartError, thread};
use driver::Driver;
use interface::net::NetDevice;
use log::warn;
use outage::Outages;
use shadow::Shadow;

/// How long the start waits for a first driver, milliseconds. Without one the shadow runs and waits on.
const FIRST_DRIVER_WAIT_MS: u64 = 2_000;

/// Starts the shadow.
pub fn start() -> Result<(), StartError> {
    let outages = Arc::new(Outages::default());
    let driver = Driver::new("driver", outages.clone());
    let shadow = Shadow::new(driver);
    if !shadow.connect(FIRST_DRIVER_WAIT_MS) {
        warn!("there is no driver yet");
    }
    thread::spawn("outages", None, move || outages.report("supervisor"))?;
    domain_rt::export::<dyn NetDevice>(Box::new(shadow))
}
