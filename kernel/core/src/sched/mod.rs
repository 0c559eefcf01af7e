//! Scheduling decisions without a machine: one CPU's queue of runnable threads and its timers, wakes that come early, halts on a waiting thread's stack,
//! how often a CPU is looked at, and what that says of a call.

use crate::atomic;

pub mod halted;
pub mod pace;
pub mod patience;
pub mod queue;
pub mod tokens;
