//! Scheduling decisions without a machine: one CPU's queue of runnable threads and its timers.

pub mod queue;
