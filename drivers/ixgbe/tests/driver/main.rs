//! The driver against the 82599 model, in one process.
#![forbid(unsafe_code)]

mod recovery;
mod support;
mod traffic;
