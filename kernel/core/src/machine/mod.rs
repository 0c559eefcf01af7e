//! Everything that touches the machine: boot, paging, interrupts, CPUs, threads, clocks, PCI, console.
//!
//! The rest of the kernel sees memory as frames and areas, time as nanoseconds, CPUs and threads as numbers.
//! Nothing above this module knows of page tables, APICs or ports.

pub mod acpi;
pub mod apic;
pub mod boot;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod event;
pub mod fault;
pub mod heap;
pub mod interrupts;
pub mod ioapic;
pub mod log;
pub mod memory;
pub mod paging;
pub mod pci;
pub mod power;
pub mod self_test;
pub mod serial;
pub mod smp;
pub mod sync;
pub mod thread;

pub use boot::{BootInformation, boot_information};
