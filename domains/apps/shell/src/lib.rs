//! The management shell on the serial port.
//!
//! `session.rs` is the dialogue, `keys.rs` and `line.rs` are the line editor, `command.rs` and `usage.rs` say what can be typed, and
//! `completion.rs` what Tab makes of it. `domains.rs`, `death_report.rs`, `update.rs`, `network.rs`, `disk.rs`, `disk_bench.rs`, `disk_verify.rs`, `kv.rs` and `nvme.rs` answer commands by way of `import.rs`, which connects again
//! to domains that were restarted; `table.rs` lays answers out. Knows nothing of the serial port's hardware.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod answer;
mod command;
mod completion;
mod death_report;
#[cfg(test)]
mod death_report_tests;
mod disk;
mod disk_bench;
#[cfg(test)]
mod disk_tests;
mod disk_verify;
mod domains;
mod holdings;
mod import;
mod keys;
mod kv;
mod line;
mod log_view;
mod network;
#[cfg(test)]
mod network_tests;
mod nvme;
#[cfg(test)]
mod nvme_tests;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod update;
#[cfg(test)]
mod update_tests;
mod usage;

use domain_rt::{StartError, thread};
use session::Session;

/// Starts the shell's thread.
pub fn start() -> Result<(), StartError> {
    let console = domain_rt::connect("console", 0)?;
    let log = domain_rt::connect("log", 0)?;
    let power = domain_rt::connect("power", 0)?;
    thread::spawn("shell", None, move || Session::new(console, log, power).run())?;
    Ok(())
}
