//! Scheduling decisions without a machine: one CPU's queue of runnable threads and its timers, wakes that come early, how often a CPU is looked at, and what that says of a call.

pub mod pace;
pub mod patience;
pub mod queue;
pub mod tokens;
