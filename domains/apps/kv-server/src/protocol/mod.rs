//! The Redis protocol, RESP2 and RESP3: requests in ([`request`]), replies out ([`reply`]).

pub mod reply;
pub mod request;

pub use reply::Reply;
pub use request::{Arguments, OwnedCommand, ProtocolError, RequestLimits, RequestParser};
