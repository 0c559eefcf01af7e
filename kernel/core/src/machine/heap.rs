//! The kernel's own heap: the `talc` allocator over contiguous frames of the physical map. It grows and never
//! shrinks.

use super::memory::{FrameUse, Frames};
use super::sync::RawInterruptLock;
use crate::memory::PAGE_SIZE;
use core::alloc::Layout;
use talc::{DefaultBinning, base::Talc, base::binning::Binning, source::Source, sync::TalcLock};

/// The heap grows by multiples of this many frames (1 MiB), by less only when memory is short.
pub(super) const GROWTH_FRAMES: usize = 256;

#[derive(Debug)]
struct FrameSource;

// SAFETY: `acquire` takes frames from the frame allocator only, which never uses the heap.
unsafe impl Source for FrameSource {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the allocator's own marks and for alignment.
        let bytes = layout
            .size()
            .checked_add(layout.align())
            .and_then(|bytes| bytes.checked_add(PAGE_SIZE))
            .ok_or(())?;
        let wanted = bytes.div_ceil(PAGE_SIZE);
        let rounded = wanted.next_multiple_of(GROWTH_FRAMES);
        let take = |count| Frames::allocate_for(FrameUse::KernelHeap, count, 1);
        let frames = take(rounded).or_else(|_| take(wanted)).map_err(|_| ())?;
        let (pointer, bytes) = (frames.as_pointer(), frames.bytes());
        frames.leak();
        // SAFETY: RAM that was just allocated and that is never freed, so only the heap uses it.
        unsafe { talc.claim(pointer, bytes) }.map(|_| ()).ok_or(())
    }
}

/// Bytes of the heap that are in use, without the allocator's own marks.
pub fn used_bytes() -> usize {
    HEAP.lock().counters().allocated_bytes
}

#[global_allocator]
static HEAP: TalcLock<RawInterruptLock, FrameSource, DefaultBinning> = TalcLock::new(FrameSource);
