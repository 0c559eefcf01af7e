//! The driver against a model of a controller, in one process.
#![forbid(unsafe_code)]

mod commands;
mod faults;
mod health;
mod model;
mod properties;
mod support;
mod trusted;
