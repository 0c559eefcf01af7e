//! The device side of vfio-user, the protocol by which QEMU gives a PCI device to another process.
//!
//! `message.rs` has the wire format, `connection.rs` moves messages and file descriptors, `session.rs` answers requests for
//! a [`crate::Device`]. Follows the specification in QEMU's documentation ("vfio-user Protocol Specification").

mod connection;
mod message;
mod session;

pub use connection::{Connection, ConnectionError};
pub use session::Session;
