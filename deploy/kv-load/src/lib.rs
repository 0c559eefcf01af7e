//! What was written to the store and what of it was acknowledged, and by that what may be in the store afterwards.
//!
//! [`record`] keeps the writes of a load, [`oracle`] judges what is found. A value is made of its key and version ([`value`]), so a record needs no values
//! and a value that was never written is recognised.

#![forbid(unsafe_code)]

pub mod load;
pub mod oracle;
pub mod record;
mod resp;
pub mod value;
pub mod verify;
