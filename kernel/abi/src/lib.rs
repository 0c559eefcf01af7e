//! The binary contract between the kernel image and the trusted libraries that domain images link.
//!
//! Everything here has a fixed layout (`repr(C)`) and no behaviour of its own: what a thread, a domain and a shared
//! object look like in memory, and the table of functions through which trusted code reaches the kernel. Kernel and
//! domain images are built from the same source by the same compiler; the loader checks that (docs/soundness.md,
//! invariant 9).
//!
//! Safe interfaces over this are in `rref` (shared heap, crossings), `domain-rt` (threads, time, memory) and `dma`.
#![no_std]

pub mod domain;
pub mod image;
pub mod manifest;
pub mod object;
pub mod place;
pub mod sys;
pub mod thread;

pub use domain::{DomainHeader, OwnerId};
pub use object::{BATCH_CAPACITY, BatchBody, ObjectHeader, ObjectKind};
pub use place::TransmitPlace;
pub use sys::{RawObject, SysTable, install, sys};
pub use thread::{Continuation, ResumeContext, ThreadHeader, current};
