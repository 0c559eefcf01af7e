//! The Redis protocol, RESP2 and RESP3: requests in ([`request`]) as commands ([`arguments`]), replies out ([`reply`]).

pub mod arguments;
pub mod reply;
pub mod request;

pub use arguments::{Arguments, OwnedCommand};
pub use reply::Reply;
pub use request::{ProtocolError, RequestLimits, RequestParser};
