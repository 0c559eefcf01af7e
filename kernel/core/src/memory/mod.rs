//! Memory as pure bookkeeping: which frames are free, which addresses are taken, what the boot loader said
//! there is.
//!
//! Nothing here touches memory itself; `machine::memory` applies these decisions to the page tables.

pub mod areas;
pub mod frames;
pub mod map;

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;
