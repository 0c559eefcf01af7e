//! The lab: the appliance and everything around it, on one machine.
//!
//! ```text
//! client ──┐                 ┌── tap ── NIC model ── QEMU (the appliance)
//! backend1 ┼── bridge (switch)
//! …        │
//! backend4 ┘
//! ```
//!
//! Each node is a network namespace, and the bridge has one of its own, so no traffic leaves the machine or touches its
//! interfaces. As root the namespaces are ordinary ones; without root they live in a user namespace. Several labs can be up
//! side by side under different names.
//!
//! [`Lab::up`] starts all of it and returns when the appliance answers; [`Lab::open`] finds one that is up. What is
//! running is recorded in `target/lab/NAME/state.json` before it is started, so that [`Lab::down`] also cleans up after a
//! start that was cut short. Building the image is not done here.

#![forbid(unsafe_code)]

mod access;
mod console;
mod disk;
mod disk_control;
mod forward;
mod guest;
mod instructions;
mod monitor;
mod network;
mod plan;
mod process;
mod programs;
mod report;
mod state;
mod up;

pub use console::{attach, run_command};
pub use disk::{Disk, parse_size};
pub use disk_control::{CriticalWarning, DiskControl, DiskError, Operation};
pub use forward::Forwarded;
pub use guest::Guest;
pub use instructions::InstructionReading;
pub use plan::{Node, Plan};
pub use process::Process;
pub use programs::{Programs, TEST_PROGRAMS, build_program, build_test_programs, instruction_counter};
pub use report::Report;
pub use up::{Lab, Options, hardware};
