//! The microkernel.
//!
//! [`machine`] holds everything that touches hardware; the other modules are logic that a host can run and
//! test. The machine's part exists only in a freestanding image (feature `machine` and `panic = "abort"`).

#![no_std]

extern crate alloc;
// Linked for its symbols alone.
extern crate freestanding as _;
#[cfg(test)]
extern crate std;

pub mod acpi_code;
pub mod atomic;
pub mod log_ring;
pub mod membarrier;
pub mod memory;
pub mod pci_configuration;
pub mod ring;
pub mod sched;
pub mod symbols;
pub mod time;

#[cfg(all(feature = "machine", panic = "abort"))]
pub mod machine;
