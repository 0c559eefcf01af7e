//! The console of the fault injector: a script on the serial port starts campaigns of injections and reads what came of them.
//!
//! In the shell's place, since the injector is no part of a release. Every answer is a line of JSON. `campaign.rs` makes injections and judges them,
//! `coverage.rs` knows which are still to be made, `dialogue.rs` reads commands and writes answers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod campaign;
mod coverage;
mod dialogue;

use alloc::sync::Arc;
use campaign::Campaigns;
use dialogue::Dialogue;
use domain_rt::{StartError, thread};

/// Starts the console.
pub fn start() -> Result<(), StartError> {
    let campaigns = Arc::new(Campaigns::new(
        domain_rt::connect("control", 0)?,
        domain_rt::connect("injector", 0)?,
    )?);
    let dialogue = Dialogue::new(domain_rt::connect("console", 0)?, campaigns.clone());
    thread::spawn("campaign", None, move || campaigns.run())?;
    thread::spawn("console", None, move || dialogue.run())?;
    Ok(())
}
