//! The classifier: runs the packet path above the device.
//!
//! One thread a receive queue, on that queue's CPU, takes a batch from the NIC, splits it between the load balancer (packets for
//! a virtual service) and the local stack, and sends what they answer, to completion. It polls while there is traffic, lets packets
//! gather for a moment when few came, and sleeps on the queue's interrupt when none come. `runner.rs` is the loop,
//! `destination.rs` decides where a frame goes, `services.rs` knows the virtual services, `processor.rs` is the way to the two
//! domains above, `stock.rs` keeps spare packets.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod destination;
mod processor;
mod runner;
mod services;
mod stock;
#[cfg(test)]
mod tests;

use domain_rt::{Handle, StartError, thread};
use interface::net::{DeviceInfo, NetDevice};
use log::info;
use runner::{Imports, Runner};

/// How long the start waits for the NIC, milliseconds; then the rest is done when it comes.
const NIC_WAIT_MS: u64 = 2_000;

const IMPORTS: Imports = Imports {
    nic: "nic",
    stack: "stack",
    balancer: "balancer",
    services: "services",
};

/// Starts a runner for each queue of the NIC that has a CPU; later, when there is no NIC yet.
pub fn start() -> Result<(), StartError> {
    domain_rt::start_with(
        IMPORTS.nic,
        NIC_WAIT_MS,
        |nic: &Handle<dyn NetDevice>| nic.info(),
        run,
    )
}

fn run(nic: Handle<dyn NetDevice>, device: DeviceInfo) -> Result<(), StartError> {
    let queues = device.queues.min(thread::cpu_count());
    for queue in 0..queues {
        let runner = Runner::new(queue, nic.clone(), &IMPORTS);
        thread::spawn("packets", Some(queue), move || runner.run())?;
    }
    info!("{queues} queues of {}", device.mac);
    Ok(())
}
