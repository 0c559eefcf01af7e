//! The kernel's shared heap under the handles of a host process: what domains own is what the kernel would find.

use abi::{ObjectKind, OwnerId};
use host_platform::SharedMemory;
use isolation::shared_heap::{SharedHeap, SpanSource, Usage};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a small object, with its header.
#[allow(dead_code, reason = "not every test counts by owner")]
pub const OBJECT_BYTES: u64 = 128;
/// Bytes of a batch, with its header.
#[allow(dead_code, reason = "not every test counts by owner")]
pub const BATCH_BYTES: u64 = 384;

/// Spans from the process's allocator. One that goes back is filled with the owner's name that a nested object has, which a heap that
/// looks at it once more takes for its own, until a test has looked at it.
struct Spans;

/// Bases and lengths of spans that went back.
static RELEASED: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

impl SpanSource for Spans {
    fn span(&mut self, bytes: usize) -> Option<(usize, u64)> {
        let layout = Layout::from_size_align(bytes, 4096).ok()?;
        // SAFETY: The layout is not empty.
        let base = unsafe { alloc_zeroed(layout) } as usize;
        (base != 0).then_some((base, base as u64))
    }

    // SAFETY: Overwrites what `span` allocated, which nobody uses by the caller's promise.
    unsafe fn release(&mut self, (base, _): (usize, u64), bytes: usize) {
        // SAFETY: Allocated above with this length.
        unsafe { (base as *mut u8).write_bytes(0xff, bytes) };
        RELEASED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((base, bytes));
    }
}

/// The heap behind its lock, as in the kernel.
pub struct Heap(Mutex<SharedHeap<Spans>>);

static HEAP: Heap = Heap(Mutex::new(SharedHeap::new(Spans)));

impl Heap {
    fn lock(&self) -> MutexGuard<'_, SharedHeap<Spans>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(dead_code, reason = "not every test counts by owner")]
    pub fn owned_bytes(&self, owner: OwnerId) -> u64 {
        self.lock().owned_bytes(owner)
    }

    pub fn usage(&self) -> Usage {
        self.lock().usage()
    }

    /// Whether nobody wrote to the memory that went back since the last time; it is freed here.
    pub fn released_was_untouched(&self) -> bool {
        let mut released = RELEASED.lock().unwrap_or_else(PoisonError::into_inner);
        released.drain(..).all(|(base, bytes)| {
            // SAFETY: A span that was filled when it went back, and that nobody has any more.
            let span = unsafe { std::slice::from_raw_parts(base as *const u8, bytes) };
            let untouched = *span == *vec![0xff; bytes];
            if let Ok(layout) = Layout::from_size_align(bytes, 4096) {
                // SAFETY: Allocated with this layout by `span`.
                unsafe { dealloc(base as *mut u8, layout) };
            }
            untouched
        })
    }

    /// What `reap` does: `dead` has no thread any more.
    pub fn reclaim(&self, dead: OwnerId) -> usize {
        self.lock().reclaim(dead)
    }

    /// What `reap` does for a driver with an heir; the payloads of the storage requests that the heir takes.
    #[allow(dead_code, reason = "not every test has heirs")]
    pub fn reclaim_requests(&self, dead: OwnerId, heir: OwnerId) -> Vec<usize> {
        let mut heap = self.lock();
        heap.reclaim_for(dead, heir.slot(), true, |_| None);
        std::iter::from_fn(|| heap.inherit(heir, ObjectKind::Block, 0)).collect()
    }
}

impl SharedMemory for Heap {
    fn allocate(&self, size: usize, kind: ObjectKind, owner: OwnerId) -> *mut u8 {
        trusted(|| {
            let payload = self.lock().allocate(size, kind, owner);
            payload.map_or(std::ptr::null_mut(), |payload| payload as *mut u8)
        })
    }

    // SAFETY: The heap takes back what it gave, once; who still uses it is the caller's promise.
    unsafe fn free(&self, payload: *mut u8) {
        trusted(|| {
            // SAFETY: Passed on from the caller.
            let freed = unsafe { self.lock().free(payload as usize) };
            assert!(freed, "a shared object is freed twice");
        });
    }
}

static TRUSTED: OnceLock<fn(bool)> = OnceLock::new();

/// Has `watch` told when a thread enters trusted code, and when it leaves it.
#[allow(dead_code, reason = "not every test steps through code")]
pub fn watch_trusted(watch: fn(bool)) {
    TRUSTED.get_or_init(|| watch);
}

fn trusted<R>(f: impl FnOnce() -> R) -> R {
    let watch = TRUSTED.get();
    if let Some(watch) = watch {
        watch(true);
    }
    let result = f();
    if let Some(watch) = watch {
        watch(false);
    }
    result
}

/// Makes the calling thread the host domain's, on the kernel's heap.
pub fn attach() -> &'static Heap {
    host_platform::use_shared_memory(&HEAP);
    host_platform::attach();
    &HEAP
}
