//! Power cuts, tried: the write log of a virtual disk replayed to points at which power can fail, the store opened there, and what is in it compared
//! with what its clients were told.
//!
//! | module | subject |
//! |---|---|
//! | [`write_log`] | the log that QEMU keeps of the disk's writes |
//! | [`replay`] | the disk's content at a point: all that is durable, and any part of the rest, in any order |
//! | [`disk`] | that content as the engine's disk |
//! | [`partition`] | where on the disk the store is |
//! | [`content`] | keys and values in the store, as the server wrote them |
//! | [`check`] | all points, one after the other |

#![forbid(unsafe_code)]

pub mod check;
pub mod content;
pub mod disk;
pub mod partition;
pub mod replay;
pub mod write_log;
