//! A software model of the Intel 82599, written from the datasheet ("Intel 82599 10 GbE Controller Datasheet", revision
//! 3.4; section numbers in comments are its).
//!
//! [`Device`] is one function of the card, driven in process: a host maps guest memory, reads and writes configuration
//! space and registers, delivers frames and takes what was sent. Wrong driver behaviour gets what hardware would give, and
//! is noted as a [`Violation`]. The binary of this package serves a device to QEMU over vfio-user ([`server`]).
//!
//! Left out, so that drivers that use them see hardware without them: virtualisation and traffic classes, flow director
//! and 5-tuple filters (every lookup misses), receive-side coalescing, MACsec and IPsec, time stamps, wake-up.
#![forbid(unsafe_code)]

mod capture;
mod checksum;
mod config_space;
pub mod control;
mod counters;
mod device;
mod doorbells;
mod eeprom;
mod faults;
mod filter;
mod headers;
mod interrupts;
mod link;
mod offload;
mod receive;
mod register_file;
mod register_map;
mod registers;
mod rss;
pub mod server;
mod sfp;
mod transmit;
pub mod vfio_user;
mod violations;
mod wire;

pub use capture::Capture;
pub use config_space::BAR_LENGTHS;
pub use counters::{Counters, QueueCounters};
pub use device::{Device, DeviceConfig};
pub use eeprom::Eeprom;
pub use faults::{ActiveFault, Direction, FaultSummary, Faults, FrameFault};
pub use guest_memory::{Access, AccessError, GuestMemory, MapError};
pub use interrupts::{InterruptLines, Signalling};
pub use register_file::NamedRegister;
pub use violations::{Violation, ViolationKind};
pub use wire::{MemoryWire, TapWire, Wire};
