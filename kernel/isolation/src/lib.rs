//! Domains: what makes crates in one address space isolated from each other at run time.
//!
//! [`image`] decides what may be loaded, [`elf`] how, [`shared_heap`] holds what domains exchange; these are logic that a host
//! tests. The rest needs the machine (`kernel::machine`): the table of domains, their threads and handles, death and what comes
//! after it, and the table of functions that trusted libraries in domain images call.
//!
//! Who is restarted when is not decided here but by the supervisor, a domain itself.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod archive;
pub mod atomic;
pub mod black_box;
pub mod elf;
pub mod estate;
pub mod exclusive;
pub mod image;
pub mod line;
pub mod requests;
pub mod shared_heap;
pub mod upload;

#[cfg(all(feature = "machine", panic = "abort"))]
mod run;
#[cfg(all(feature = "machine", panic = "abort"))]
pub use run::*;
