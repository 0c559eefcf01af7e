//! The rules of the tree that a compiler doesn't check, and the proof that they are checked.
//!
//! [`unsafe_code`]: only kernel/ has `unsafe`, and says why; [`census`]: how much it is. [`layers`]: who may depend on whom. [`dependencies`]: each registry crate
//! that gets onto the appliance has an entry with its reason in docs/dependencies.toml. [`planted`] breaks each rule in a
//! copy of the tree and sees whether that is noticed. All work on a [`Project`], read with `cargo metadata`.

#![forbid(unsafe_code)]

pub mod census;
mod contracts;
pub mod dependencies;
pub mod layers;
pub mod planted;
mod project;
pub mod unsafe_code;
mod violation;

pub use project::{Layer, Package, Project};
pub use violation::Violation;
