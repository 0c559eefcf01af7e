//! The kernel's own files, on a processor without barriers.

pub(super) use super::x86::weak as atomic;

#[path = "../../isolation/src/line.rs"]
pub mod line;
#[path = "../../core/src/membarrier.rs"]
pub mod membarrier;
