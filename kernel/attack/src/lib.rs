//! Every fault that domain code can have, raised on request (docs/soundness.md, invariant 6).
//!
//! Safe code can't divide by zero without a panic or read an unmapped address, but a miscompiled or wrongly trusted line can. This library
//! does it on purpose, so that a domain of tests/attack, which is safe Rust like any other, can die of each. It is linked by attack images
//! alone: the layer rule keeps every other crate from depending on it, and the image builder refuses a release that has it.
//!
//! `fault.rs` names the faults, `machine.rs` raises those that need an instruction of their own, `raise.rs` the rest.
//!
//! Not here, because code at privilege level 0 can't raise it: the alignment check (#AC comes at level 3 only, Intel SDM volume 3, 6.15).
//! Nor what only a privileged instruction does (`cli`, a write to CR0): no code generator emits one for domain code.
#![no_std]

extern crate alloc;

mod fault;
mod machine;
mod raise;

pub use fault::Fault;
pub use raise::raise;
