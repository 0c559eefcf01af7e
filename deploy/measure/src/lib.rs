//! What measurements of the appliance and its peer share: a machine in a lab of its own whose instructions are counted, and figures side by side.
//!
//! Ours and the peer run one after the other in the same run, on the same QEMU, card model and disk. What a machine executes when nobody wants anything
//! of it is measured first and subtracted from a load's instructions.

#![forbid(unsafe_code)]

mod figures;
mod machine;
mod profile;
mod sides;

pub use figures::{Figure, Table, json, report};
pub use machine::{Counted, Machine, appliance, end_on_signals, plan, root};
pub use profile::{Images, Profile};
pub use sides::Sides;
