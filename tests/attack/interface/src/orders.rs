//! What a victim is to do in its next start.

use attack::Fault;
use core::fmt;
use rref::{Exchange, RpcError, Share, interface};

/// There are no orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum OrdersError {
    /// Whoever gives them died.
    Dead(RpcError),
}

impl From<RpcError> for OrdersError {
    fn from(error: RpcError) -> Self {
        OrdersError::Dead(error)
    }
}

impl fmt::Display for OrdersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrdersError::Dead(error) => error.fmt(f),
        }
    }
}

/// The conductor, as a victim sees it.
#[interface]
pub trait Orders {
    /// The fault that the calling domain is to raise in its start, if any. Given once.
    fn at_start(&self) -> Result<Option<Fault>, OrdersError>;
}
