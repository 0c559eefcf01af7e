//! The atomics of the protocols between CPUs that are model-checked.
//!
//! `kernel/models` compiles the same source files with the checker's atomics in this module's place.

pub use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
