//! Physically contiguous memory that a device reads and writes: where descriptors live.
//!
//! It is never freed before its domain dies: hardware may hold a ring's base long after software has lost interest in it.

use core::marker::PhantomData;
use core::ptr::NonNull;

/// A zeroed, page-aligned block of 64-bit words that a device shares.
///
/// Accesses are volatile, since hardware changes the words; no reference into the block is ever made.
pub struct DmaMemory {
    base: NonNull<u64>,
    physical: u64,
    words: usize,
    owns: PhantomData<u64>,
}

// SAFETY: The block belongs to this value alone (and the device); it is not tied to a thread.
unsafe impl Send for DmaMemory {}

impl DmaMemory {
    /// A block of at least `bytes` for device `device`; `None` when there is no memory.
    pub fn allocate(device: u64, bytes: usize) -> Option<DmaMemory> {
        let raw = (abi::sys().dma_allocate)(device, bytes);
        Some(DmaMemory {
            base: NonNull::new(raw.base.cast())?,
            physical: raw.physical,
            words: bytes / size_of::<u64>(),
            owns: PhantomData,
        })
    }

    /// The same from the process's allocator, with addresses that are the process's own.
    #[cfg(feature = "host")]
    pub fn of_process(bytes: usize) -> Option<DmaMemory> {
        let layout = core::alloc::Layout::from_size_align(bytes.max(8), 4096).ok()?;
        // SAFETY: The layout is not empty.
        let base = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) })?;
        Some(DmaMemory {
            base: base.cast(),
            physical: base.as_ptr() as u64,
            words: bytes / size_of::<u64>(),
            owns: PhantomData,
        })
    }

    /// Address of the first byte for the device.
    pub fn physical(&self) -> u64 {
        self.physical
    }

    /// The word at `index`; 0 past the end.
    #[inline(always)]
    pub fn read(&self, index: usize) -> u64 {
        if index >= self.words {
            return 0;
        }
        // SAFETY: `index` is inside the block, which is aligned to a page and lives as long as the domain.
        unsafe { self.base.add(index).read_volatile() }
    }

    /// Sets the word at `index`; nothing happens past the end.
    #[inline(always)]
    pub fn write(&mut self, index: usize, value: u64) {
        if index >= self.words {
            return;
        }
        // SAFETY: As `read`, and software writes through this exclusive borrow only.
        unsafe { self.base.add(index).write_volatile(value) }
    }
}
