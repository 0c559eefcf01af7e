//! What those who play the network stack on the host have in common.
//!
//! A [`Pipe`] is one connection in memory: two queues of bytes, and who has closed which. [`unsupported!`] writes the calls of
//! [`Sockets`](interface::socket::Sockets) that a player doesn't offer. Which events there are, in which order, and when they are told, is left to the player.
#![forbid(unsafe_code)]

mod pipe;
mod unsupported;

pub use pipe::Pipe;

/// What the expansion of [`unsupported!`] names.
#[doc(hidden)]
pub mod names {
    pub use interface::socket::{
        Arrived, Endpoints, EventList, SendList, SocketError, SocketId, SocketStatistics, StreamBuffer,
    };
    pub use rref::{BootBytes, RRef};
    pub use std::net::{IpAddr, SocketAddr};

    /// What each of the calls gives.
    pub type Answer<T> = Result<T, SocketError>;
}
