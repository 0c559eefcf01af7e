//! The kernel's own files, on a processor without barriers.

pub(super) use super::x86::weak as atomic;

#[allow(
    clippy::duplicate_mod,
    reason = "the same file with other atomics is the point"
)]
#[path = "../../isolation/src/line.rs"]
pub mod line;
#[allow(
    clippy::duplicate_mod,
    reason = "the same file with other atomics is the point"
)]
#[path = "../../core/src/membarrier.rs"]
pub mod membarrier;
