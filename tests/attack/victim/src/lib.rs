//! A victim: a domain in safe Rust that faults as it is told, in the position that it is told (tests/attack/interface).
//!
//! One crate for all victims of an image; who is next in the chain is in the manifest. `service.rs` is the interface, `idle.rs` how
//! its threads pass the time, `labour.rs` the work that it makes for the kernel.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod idle;
mod labour;
mod service;

use alloc::boxed::Box;
use alloc::sync::Arc;
use attack_interface::orders::Orders;
use attack_interface::victim::Victim;
use domain_rt::{Handle, StartError};
use service::{Neighbours, Service};

/// Starts the victim; raises what it is ordered to raise in its start.
pub fn start() -> Result<(), StartError> {
    let neighbours = Arc::new(Neighbours::default());
    // The conductor starts last: the first time there is nobody to give orders.
    if let Ok(orders) = domain_rt::connect("orders", 0) {
        let orders: Handle<dyn Orders> = orders;
        if let Ok(Some(fault)) = orders.at_start() {
            attack::raise(fault, &|| neighbours.cross());
        }
    }
    domain_rt::export::<dyn Victim>(Box::new(Service::new(neighbours)?))
}
