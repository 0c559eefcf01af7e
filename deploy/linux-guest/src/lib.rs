//! Linux as a guest: Debian's kernel with an initial file system of our own making.
//!
//! The program of this package proves the 82599 model with it; [`peer`] makes it the appliance's peer in measurements, in the same lab on the same
//! machine.
#![forbid(unsafe_code)]

pub mod assets;
pub mod initramfs;
pub mod peer;
