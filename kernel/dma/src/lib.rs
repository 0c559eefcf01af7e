//! Device access that safe drivers can't misuse (design invariant 8: a driver can't name memory it doesn't own to its device).
//!
//! A driver claims a PCI function ([`Device`]) and wraps it in the trusted type for its kind ([`ixgbe::Adapter`]), which gives it
//! guarded registers ([`Mmio`]), interrupts ([`Interrupt`]) and rings. A function of a kind that this crate doesn't know can be
//! claimed but not touched. Three things uphold the invariant:
//!
//! - Registers and descriptors that hold physical addresses, ring lengths, heads, tails and queue enables are written here only. What
//!   a driver may write itself is an allow-list for each kind of device.
//! - A ring owns the memory of its descriptors and every packet posted in it. A packet comes out when hardware has said in its
//!   descriptor that it is done with it, or when the queue has reported itself disabled; never before.
//! - The length of each transfer comes from the packet's own bounds, never from its contents or from the driver.
//!
//! Policy (how many buffers, when to post, what to offload, what to do about a hang) is the driver's.
#![no_std]

extern crate alloc;
#[cfg(feature = "host")]
extern crate std;

pub mod device;
#[cfg(feature = "host")]
pub mod host;
pub mod interrupt;
pub mod ixgbe;
mod memory;
pub mod mmio;
pub mod nvme;
mod pages;

pub use device::{ClaimError, Class, Device, Identity};
pub use interrupt::{Interrupt, Wake};
pub use mmio::{Mmio, RegisterTimeout};
