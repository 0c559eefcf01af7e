//! Scheduling decisions without a machine: one CPU's queue of runnable threads and its timers, and wakes that come early.

use crate::atomic;

pub mod halted;
pub mod queue;
pub mod tokens;
