//! The kernel's own files, compiled with the checker's atomics.

pub(super) use super::x86 as atomic;

#[path = "../../core/src/sched/halted.rs"]
pub mod halted;
#[path = "../../isolation/src/line.rs"]
pub mod line;
#[path = "../../core/src/membarrier.rs"]
pub mod membarrier;
#[path = "../../isolation/src/requests.rs"]
pub mod requests;
#[path = "../../core/src/sched/tokens.rs"]
pub mod tokens;
