//! A storage device in memory for tests on the host, which can go wrong in every way that disks do.
//!
//! [`VirtualDisk`] carries requests out as the interface says ([`interface::block`]), and as adversely as it allows: in any order, late, and
//! with a cache that a power cut empties. [`Faults`] adds what the interface doesn't allow and disks do nevertheless. A [`Recording`]
//! tells what the medium can hold after a power cut at any moment. All of it follows from seeds, so a failure can be repeated.
#![forbid(unsafe_code)]

mod disk;
mod faults;
mod image;
mod recording;

pub use disk::{Geometry, VirtualDisk};
pub use faults::{Faults, OneIn};
pub use image::Image;
pub use recording::{Event, Recording};
