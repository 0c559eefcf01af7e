//! Driver of NVMe controllers, as a domain that exports `BlockDevice` and `StorageHealth`.
//!
//! Brings the controller up, makes commands of the requests of a queue pair for each CPU, and keeps it going: time-outs, aborts, resets, events. It
//! reaches the controller only through `dma::nvme`: it can't name memory to it, and it holds no block that the controller may write
//! to. Section numbers are those of the NVM Express base specification 2.0 and of the NVM command set specification 1.0.
//!
//! One controller a domain. What a request means to its sender, and what must not be lost over this domain's death, is the shadow's.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod admin;
pub mod device;
mod error;
mod events;
pub mod health;
mod identify;
mod queue;
mod recovery;
mod startup;
mod statistics;
pub mod status;
mod units;

pub use error::{AdminError, DeviceError};

use alloc::boxed::Box;
use alloc::sync::Arc;
use device::{Device, Exported, Limits};
use dma::ClaimError;
use dma::nvme::Controller;
use domain_rt::{StartError, thread};
use interface::block::BlockDevice;
use interface::storage_health::{ControllerState, StorageHealth};

/// Start-up waits so long for the controller; one that takes longer is exported as one that is starting.
const START_LIMIT_NS: u64 = 2_000_000_000;

/// Starts the domain: the controller comes up, and is exported. An appliance without one gets a device without units.
pub fn start() -> Result<(), StartError> {
    let limits = Limits::default();
    let device = match Controller::claim(0) {
        Ok(controller) => Device::new(controller, thread::cpu_count(), limits),
        Err(ClaimError::NotFound) => {
            log::info!("there is no NVMe controller");
            Device::absent(limits)
        }
        Err(error) => return Err(StartError::new(format_args!("{error}"))),
    };
    let device = Arc::new(device);
    if device.admin.is_some() {
        let looked_after = device.clone();
        let starter = thread::id();
        thread::spawn("nvme-care", None, move || {
            looked_after.bring_up();
            thread::unpark(starter);
            looked_after.look_after();
        })?;
        let deadline_ns = domain_rt::clock::now_ns().saturating_add(START_LIMIT_NS);
        while device.state() == ControllerState::Starting
            && thread::park_until(deadline_ns) == thread::Wake::Woken
        {}
    } else {
        device.bring_up();
    }
    domain_rt::export::<dyn StorageHealth>(Box::new(Exported(device.clone())))?;
    domain_rt::export::<dyn BlockDevice>(Box::new(Exported(device)))
}
