//! Frames as the balancer sees them: bytes that it reads, two addresses that it writes, and a verdict that it leaves.
//!
//! The traits let one forwarding loop serve packets of the shared heap and plain slices alike; what is decided on a frame,
//! and why, is `balancer.rs`'s.

use crate::counters::DropReason;
use crate::table::BackendSlot;

/// A frame that can be read and changed in place.
pub trait FrameMut {
    /// The frame from its destination MAC address to the end of its payload, without the checksum.
    fn bytes(&mut self) -> &mut [u8];
}

impl FrameMut for &mut [u8] {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

impl<const N: usize> FrameMut for [u8; N] {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

impl FrameMut for alloc::vec::Vec<u8> {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

/// Frames of a batch, in order.
pub trait Frames {
    /// One of them.
    type Frame<'a>: Frame
    where
        Self: 'a;

    /// Those from the `first` on; the same ones in the same order each time.
    fn from(&mut self, first: usize) -> impl Iterator<Item = Self::Frame<'_>>;
}

/// A frame that is to be decided on.
pub trait Frame {
    /// The frame's bytes, as [`FrameMut::bytes`]. `None` says that the batch ends before it.
    fn bytes(&mut self) -> Option<&mut [u8]>;

    /// Writes the two addresses that a frame begins with, if it is long enough for them; returns its length.
    fn address(&mut self, addresses: &[u8; 12]) -> usize;

    /// Takes the decision on it; called once for each that has bytes, first on those that are for no VIP.
    fn decide(&mut self, verdict: Verdict);
}

/// Frames and their verdicts side by side.
pub(crate) struct Slices<'a, F> {
    pub(crate) frames: &'a mut [F],
    pub(crate) verdicts: &'a mut [Verdict],
}

impl<F: FrameMut> Frames for Slices<'_, F> {
    type Frame<'a>
        = (&'a mut F, &'a mut Verdict)
    where
        Self: 'a;

    #[inline(always)]
    fn from(&mut self, first: usize) -> impl Iterator<Item = Self::Frame<'_>> {
        let frames = self.frames.get_mut(first..).unwrap_or_default();
        frames
            .iter_mut()
            .zip(self.verdicts.get_mut(first..).unwrap_or_default())
    }
}

impl<F: FrameMut> Frame for (&mut F, &mut Verdict) {
    #[inline(always)]
    fn bytes(&mut self) -> Option<&mut [u8]> {
        Some(self.0.bytes())
    }

    #[inline(always)]
    fn address(&mut self, addresses: &[u8; 12]) -> usize {
        address(self.0.bytes(), addresses)
    }

    #[inline(always)]
    fn decide(&mut self, verdict: Verdict) {
        *self.1 = verdict;
    }
}

/// [`Frame::address`] of a frame with these bytes.
#[inline(always)]
pub fn address(frame: &mut [u8], addresses: &[u8; 12]) -> usize {
    if let Some(header) = frame.first_chunk_mut() {
        *header = *addresses;
    }
    frame.len()
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for no VIP: somebody else's.
    NotMine,
    /// Send it; it is addressed to the backend with this slot.
    Transmit(BackendSlot),
    /// Throw it away.
    Drop(DropReason),
}
