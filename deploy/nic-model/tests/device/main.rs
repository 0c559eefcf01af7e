//! Drives the model in process, through its public interface alone, as a driver would.
#![forbid(unsafe_code)]

mod control;
mod harness;
mod receive;
mod transmit;
