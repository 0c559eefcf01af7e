//! Memory that a device reads and writes, of a size that is known at run time: queues, lists of pages, answers.
//!
//! Like `memory.rs` it is never freed before its domain dies. Accesses are volatile words inside of it, checked; no reference into it is ever
//! made, since the device changes it.

use core::ptr::NonNull;

/// Bytes of a word.
const WORD_BYTES: usize = 8;

/// Zeroed, page-aligned, physically contiguous memory.
pub struct Pages {
    base: NonNull<u64>,
    words: usize,
    physical: u64,
}

// SAFETY: The memory belongs to this value alone (and the device); it is not tied to a thread.
unsafe impl Send for Pages {}

impl Pages {
    /// Memory of at least `bytes` for device `device`; `None` when there is none.
    pub fn allocate(device: u64, bytes: usize) -> Option<Pages> {
        let raw = (abi::sys().dma_allocate)(device, bytes);
        Some(Pages {
            base: NonNull::new(raw.base.cast())?,
            words: bytes / WORD_BYTES,
            physical: raw.physical,
        })
    }

    /// The same from the process's allocator, with addresses that are the process's own.
    #[cfg(feature = "host")]
    pub fn of_process(bytes: usize) -> Option<Pages> {
        let layout = core::alloc::Layout::from_size_align(bytes.max(WORD_BYTES), 4096).ok()?;
        // SAFETY: The layout is not empty.
        let base = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) })?;
        Some(Pages {
            base: base.cast(),
            words: bytes / WORD_BYTES,
            physical: base.as_ptr() as u64,
        })
    }

    /// Address of the first byte for the device.
    #[inline(always)]
    pub fn physical(&self) -> u64 {
        self.physical
    }

    /// The word at `index`; all ones past the end.
    #[inline(always)]
    pub fn read(&self, index: usize) -> u64 {
        if index >= self.words {
            return u64::MAX;
        }
        // SAFETY: Inside the memory, which lives as long as the domain, and aligned; no reference to it exists.
        unsafe { self.base.as_ptr().add(index).read_volatile() }
    }

    /// Sets the words from `index` on; nothing happens unless all of them are inside.
    #[inline(always)]
    pub fn write<const N: usize>(&mut self, index: usize, words: [u64; N]) {
        if index > self.words || self.words - index < N {
            return;
        }
        for (offset, word) in words.into_iter().enumerate() {
            // SAFETY: As `read`: `index + N` is at most the number of words.
            unsafe { self.base.as_ptr().add(index + offset).write_volatile(word) };
        }
    }

    /// Sets every word to zero.
    pub fn clear(&mut self) {
        for index in 0..self.words {
            self.write(index, [0]);
        }
    }

    /// Copies bytes from `offset` (a multiple of 8) on, as many as there are and fit.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(WORD_BYTES).enumerate() {
            let index = offset / WORD_BYTES + index;
            if index >= self.words {
                return;
            }
            let word = self.read(index).to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(word) {
                *to = from;
            }
        }
    }
}
