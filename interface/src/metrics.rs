//! What a domain counts, for `/metrics`.

use core::fmt;
use rref::{Exchange, RRef, RpcError, Share, interface};

/// Bytes in one page of metrics.
pub const PAGE_BYTES: usize = 16 * 1024;

/// Part of a text in Prometheus' exposition format 0.0.4.
#[derive(Exchange, Share)]
#[repr(C)]
pub struct MetricsPage {
    /// Bytes used of `text`.
    pub length: u32,
    /// UTF-8 text, whole lines.
    pub text: [u8; PAGE_BYTES],
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum MetricsError {
    /// The domain died.
    Dead(RpcError),
}

impl From<RpcError> for MetricsError {
    fn from(error: RpcError) -> Self {
        MetricsError::Dead(error)
    }
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MetricsError::Dead(error) = self;
        error.fmt(f)
    }
}

/// A source of metrics with a text of its own.
#[interface]
pub trait Metrics {
    /// Fills `page` with the `index`-th page; an empty page is the end.
    fn page(&self, index: u32, page: RRef<MetricsPage>) -> Result<RRef<MetricsPage>, MetricsError>;
}
