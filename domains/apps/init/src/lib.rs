//! The supervisor: starts the domains, restarts the dead ones, keeps the record of deaths.
//!
//! It runs first, and its own death restarts the machine, so it does little: what a restart needs (loading, verifying,
//! reclaiming) is the kernel's. `policy.rs` and `progress.rs` decide, `supervision.rs` and `requests.rs` act, `workers.rs` has the
//! threads, `records.rs` remembers, `service.rs` is what other domains see. `update.rs` changes a domain's image, and `trial.rs` says
//! when that was a mistake.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod policy;
mod progress;
mod records;
mod requests;
mod service;
mod supervision;
#[cfg(test)]
mod tests;
mod trial;
mod update;
#[cfg(test)]
mod update_tests;
mod workers;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use domain_rt::{StartError, clock, thread};
use interface::kernel::{ControlError, DomainState};
use interface::supervise::{Operator, Supervisor};
use interface::update::{Updates, Uploads};
use log::{error, info, warn};
use supervision::{MS, Supervision};
use workers::Workers;

/// Index of the supervisor itself in the manifest.
const SELF: u16 = 0;

/// Starts the supervisor; the domains are then started one after the other by a thread of its own.
pub fn start() -> Result<(), StartError> {
    let control = domain_rt::connect("control", 0)?;
    let power = domain_rt::connect("power", 0)?;
    let images = domain_rt::connect("images", 0)?;
    let supervision = Arc::new(Supervision::new(control, images)?);
    let updates = update::Service::new(supervision.clone());
    domain_rt::export::<dyn Uploads>(Box::new(updates.clone()))?;
    domain_rt::export::<dyn Updates>(Box::new(updates))?;
    domain_rt::export::<dyn Supervisor>(Box::new(service::Service::new(supervision.clone())))?;
    domain_rt::export::<dyn Operator>(Box::new(service::Service::new(supervision.clone())))?;
    Workers::start(supervision.clone(), power)?;
    thread::spawn("boot", None, move || boot(&supervision))?;
    Ok(())
}

/// Starts every domain in the manifest's order, and says how that went.
fn boot(supervision: &Supervision) {
    let last = supervision.count().saturating_sub(1);
    let begin_ns = clock::now_ns();
    for index in SELF + 1..=last {
        let name = supervision.name(index);
        info!("{name}: starting ({index} of {last})");
        let start_ns = clock::now_ns();
        match supervision.boot(index) {
            Ok(false) => info!("{name}: stopped by the operator before it was started"),
            Ok(true) => info!(
                "{name}: runs, started in {} ms",
                (clock::now_ns() - start_ns) / MS
            ),
            Err(ControlError::BadImage(reason)) => error!("{name}: refused: {reason}"),
            Err(ControlError::DiedAtStart) => warn!("{name}: died while it started"),
            Err(reason) => error!("{name}: not started: {reason}"),
        }
    }
    let (mut running, mut down) = (0, String::new());
    for index in SELF + 1..=last {
        match supervision.status(index) {
            Ok(Some(status)) if status.state == DomainState::Running => running += 1,
            _ => {
                let refused = supervision.situation(index).refused;
                let separator = if down.is_empty() { "" } else { ", " };
                let why = if refused { " (refused)" } else { "" };
                down += &alloc::format!("{separator}{}{why}", supervision.name(index));
            }
        }
    }
    let took_ms = (clock::now_ns() - begin_ns) / MS;
    if down.is_empty() {
        info!("all {running} domains run after {took_ms} ms");
    } else {
        warn!("{running} of {last} domains run after {took_ms} ms; without {down}");
    }
}
