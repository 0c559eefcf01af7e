//! The kernel's shared heap under the handles of a host process: what domains own is what the kernel would find.

use abi::{ObjectKind, OwnerId};
use host_platform::SharedMemory;
use isolation::shared_heap::{SharedHeap, SpanSource, Usage};
use std::alloc::{Layout, alloc_zeroed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a small object, with its header.
pub const OBJECT_BYTES: u64 = 128;
/// Bytes of a batch, with its header.
pub const BATCH_BYTES: u64 = 384;

/// Spans from the process's allocator. One that goes back is filled with the owner's name that a nested object has, which a heap that
/// looks at it once more takes for its own, and never used again.
struct Spans;

impl SpanSource for Spans {
    fn span(&mut self, bytes: usize) -> Option<(usize, u64)> {
        let layout = Layout::from_size_align(bytes, 4096).ok()?;
        // SAFETY: The layout is not empty.
        let base = unsafe { alloc_zeroed(layout) } as usize;
        (base != 0).then_some((base, base as u64))
    }

    unsafe fn release(&mut self, (base, _): (usize, u64), bytes: usize) {
        // SAFETY: Allocated above with this length, and never freed.
        unsafe { (base as *mut u8).write_bytes(0xff, bytes) };
    }
}

/// The heap behind its lock, as in the kernel.
pub struct Heap(Mutex<SharedHeap<Spans>>);

static HEAP: Heap = Heap(Mutex::new(SharedHeap::new(Spans)));

impl Heap {
    fn lock(&self) -> MutexGuard<'_, SharedHeap<Spans>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn owned_bytes(&self, owner: OwnerId) -> u64 {
        self.lock().owned_bytes(owner)
    }

    pub fn usage(&self) -> Usage {
        self.lock().usage()
    }

    /// What `reap` does: `dead` has no thread any more.
    pub fn reclaim(&self, dead: OwnerId) -> usize {
        self.lock().reclaim(dead)
    }
}

impl SharedMemory for Heap {
    fn allocate(&self, size: usize, kind: ObjectKind, owner: OwnerId) -> *mut u8 {
        self.lock()
            .allocate(size, kind, owner)
            .map_or(std::ptr::null_mut(), |payload| payload as *mut u8)
    }

    unsafe fn free(&self, payload: *mut u8) {
        // SAFETY: Passed on from the caller.
        let freed = unsafe { self.lock().free(payload as usize) };
        assert!(freed, "a shared object is freed twice");
    }
}

/// Makes the calling thread the host domain's, on the kernel's heap.
pub fn attach() -> &'static Heap {
    host_platform::use_shared_memory(&HEAP);
    host_platform::attach();
    &HEAP
}
