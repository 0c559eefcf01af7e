//! Which registers of an NVMe controller a driver may write.
//!
//! An allow-list, for the reason that ixgbe's has. On it are the interrupt masks alone. Written by trusted code only, or by nobody:
//!
//! - CC (base specification 2.0, 3.1.3.5): its enable bit decides whether queues exist, its page and entry sizes how addresses are read;
//! - AQA, ASQ, ACQ (3.1.3.8 to .10): addresses and sizes of the admin queues;
//! - doorbells (3.1.3.24, PCIe transport 3.1.2): they release queue entries to the controller;
//! - addresses of the controller memory buffer, boot partition buffer and persistent memory (CMBMSC, BPMBL, PMRMSC), which we don't use;
//! - NSSR (3.1.3.7), which resets the subsystem behind the queues' back.

use crate::mmio::{WritableRange, writable};

/// Sorted by offset.
pub const WRITABLE: &[WritableRange] = &[writable(0x0C, 0x10, "INTMS, INTMC")];
