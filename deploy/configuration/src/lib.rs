//! The two files that describe an appliance, read and checked on the host before anything is built or started.
//!
//! [`appliance`] is the operator's file, [`domains`] the manifest of who runs and who may call whom. An error names file
//! and line. What runs on the appliance reads the same text (or its compiled form) with parsers of its own, because it
//! can't trust that this check was made.

#![forbid(unsafe_code)]

pub mod appliance;
pub mod domains;
mod error;

pub use error::ConfigError;
