//! The private heap: the registry's dlmalloc over pages from the kernel, which keeps the domain's quota.
//!
//! It goes away with the domain, whatever state it is in, so a death in the middle of an allocation costs nothing.

use abi::sys;
use alloc::alloc::{GlobalAlloc, Layout};
use dlmalloc::{Allocator, Dlmalloc};

const PAGE_BYTES: usize = 4096;
/// The heap grows by at least this much: fewer calls, less fragmentation of the kernel's frames.
const GROWTH_BYTES: usize = 64 * 1024;

struct KernelPages;

// SAFETY: `pages_allocate` gives memory that nobody else has, until `pages_free`.
unsafe impl Allocator for KernelPages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let size = size.next_multiple_of(GROWTH_BYTES);
        let base = (sys().pages_allocate)(size / PAGE_BYTES);
        if base.is_null() {
            (base, 0, 0)
        } else {
            (base, size, 0)
        }
    }

    fn remap(&self, _base: *mut u8, _old: usize, _new: usize, _can_move: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, _base: *mut u8, _old: usize, _new: usize) -> bool {
        false
    }

    fn free(&self, base: *mut u8, size: usize) -> bool {
        (sys().pages_free)(base, size / PAGE_BYTES);
        true
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

struct PrivateHeap(crate::sync::Mutex<Dlmalloc<KernelPages>>);

#[global_allocator]
static HEAP: PrivateHeap = PrivateHeap(crate::sync::Mutex::new(Dlmalloc::new_with_allocator(KernelPages)));

// SAFETY: Every call goes to one dlmalloc under one lock, with the caller's own promises about layout and pointer.
unsafe impl GlobalAlloc for PrivateHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: The layout is the caller's, not empty.
        unsafe { self.0.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: As `alloc`.
        unsafe { self.0.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: The caller gives back what `alloc` gave for this layout.
        unsafe { self.0.lock().free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: As `dealloc`; `size` is not 0 by the caller's promise.
        unsafe {
            self.0
                .lock()
                .realloc(pointer, layout.size(), layout.align(), size)
        }
    }
}
