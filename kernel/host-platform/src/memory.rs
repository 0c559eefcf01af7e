//! Shared objects and pages from the process's allocator, unless a test brings shared memory of its own.

use abi::object::HEADER_BYTES;
use abi::{BATCH_CAPACITY, BatchBody, ObjectHeader, ObjectKind, OwnerId, current};
use rref::block::BLOCK_BYTES;
use rref::{Block, Packet, Plain, RRef, SharedSlice};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

static OBJECTS: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

thread_local! {
    /// Payloads of objects that were left and to which there is no handle. By thread, as each test is a machine of its own.
    static LEFT: RefCell<VecDeque<usize>> = const { RefCell::new(VecDeque::new()) };
}

/// Where shared objects come from instead of the process's allocator: the kernel's own heap, for tests of it.
pub trait SharedMemory: Sync {
    /// The payload of a new object; null without memory.
    fn allocate(&self, size: usize, kind: ObjectKind, owner: OwnerId) -> *mut u8;

    /// Frees an object.
    ///
    /// # Safety
    /// `payload` is from [`allocate`](Self::allocate), and nobody uses it any more.
    unsafe fn free(&self, payload: *mut u8);
}

static OTHER: OnceLock<&'static dyn SharedMemory> = OnceLock::new();

/// Takes shared objects from `memory`, from the first one on. The first call in a process counts.
pub fn use_shared_memory(memory: &'static dyn SharedMemory) {
    OTHER.get_or_init(|| memory);
}

/// Shared objects that live now, over all threads.
pub fn shared_objects() -> usize {
    OBJECTS.load(Ordering::Relaxed)
}

/// Lets allocations of shared objects fail when `limit` live already.
pub fn set_shared_limit(limit: usize) {
    LIMIT.store(limit, Ordering::Relaxed);
}

/// Of an object with its header. A block's begins a page, so that its data does too.
fn layout(size: usize, kind: u32) -> Option<Layout> {
    let alignment = if kind == ObjectKind::Block as u32 {
        BLOCK_BYTES
    } else {
        HEADER_BYTES
    };
    Layout::from_size_align(HEADER_BYTES.checked_add(size)?, alignment).ok()
}

pub extern "C" fn shared_allocate(size: usize, kind: u32) -> *mut u8 {
    let Some(layout) = layout(size, kind) else {
        return core::ptr::null_mut();
    };
    if let Some(other) = OTHER.get() {
        let kinds = [ObjectKind::Batch, ObjectKind::Packet, ObjectKind::Block];
        let known = kinds.into_iter().find(|known| *known as u32 == kind);
        let kind = known.unwrap_or(ObjectKind::Plain);
        return other.allocate(size, kind, current().owner());
    }
    if OBJECTS.load(Ordering::Relaxed) >= LIMIT.load(Ordering::Relaxed) {
        return core::ptr::null_mut();
    }
    // SAFETY: The layout is not empty: it has a header.
    let base = unsafe { alloc_zeroed(layout) };
    if base.is_null() {
        return base;
    }
    let payload = base.wrapping_add(HEADER_BYTES);
    let header = ObjectHeader {
        owner: AtomicU64::new(current().owner().0),
        physical: payload as u64,
        size: size as u64,
        kind: AtomicU32::new(kind),
        span: 0,
        next_free: AtomicU64::new(0),
        length: AtomicU64::new(size as u64),
        tag: AtomicU64::new(0),
        place: AtomicU64::new(0),
    };
    // SAFETY: The allocation begins with room for a header, aligned to it.
    unsafe { base.cast::<ObjectHeader>().write(header) };
    OBJECTS.fetch_add(1, Ordering::Relaxed);
    payload
}

pub extern "C" fn shared_free(payload: *mut u8) {
    if let Some(other) = OTHER.get() {
        // SAFETY: Reached only from `rref`'s drop code, which owns the object; all came from this memory (`use_shared_memory`).
        return unsafe { other.free(payload) };
    }
    let base = payload.wrapping_sub(HEADER_BYTES);
    // SAFETY: `payload` is from `shared_allocate`: its header precedes it.
    let (size, kind, owner) = unsafe {
        let header = &*base.cast::<ObjectHeader>();
        let owner = header.owner.swap(OwnerId::NONE.0, Ordering::Relaxed);
        (header.size as usize, header.kind.load(Ordering::Relaxed), owner)
    };
    assert_ne!(owner, OwnerId::NONE.0, "a shared object was freed twice");
    if kind == ObjectKind::Batch as u32 {
        // SAFETY: A payload of this kind is a batch body.
        let body = unsafe { &*payload.cast::<BatchBody>() };
        let head = body.head.load(Ordering::Relaxed) as usize;
        for index in 0..body.length.load(Ordering::Relaxed) as usize {
            shared_free(body.slots[(head + index) % BATCH_CAPACITY].load(Ordering::Relaxed) as *mut u8);
        }
    }
    OBJECTS.fetch_sub(1, Ordering::Relaxed);
    if let Some(layout) = layout(size, kind) {
        // SAFETY: Allocated above with the same layout, freed once (asserted).
        unsafe { dealloc(base, layout) };
    }
}

/// Leaves an object to the host domain's next life, as its death would: it can be inherited by its tag, on the same thread.
pub fn leave<T: Plain>(object: SharedSlice<T>) {
    LEFT.with_borrow_mut(|left| left.push_back(object.as_ptr() as usize));
    core::mem::forget(object);
}

/// Leaves a packet that was to be sent, after those before.
pub fn leave_packet(packet: RRef<Packet>) {
    LEFT.with_borrow_mut(|left| left.push_back(core::ptr::from_ref(&*packet) as usize));
    core::mem::forget(packet);
}

/// Leaves a block, as the death of a driver that held it would.
pub fn leave_block(block: RRef<Block>) {
    LEFT.with_borrow_mut(|left| left.push_back(core::ptr::from_ref(&*block) as usize));
    core::mem::forget(block);
}

pub extern "C" fn shared_inherit(kind: u32, tag: u64) -> *mut u8 {
    let matches = |payload: &usize| {
        // SAFETY: What is left is a payload whose only handle was forgotten: its header precedes it.
        let header = unsafe { &*((payload - HEADER_BYTES) as *const ObjectHeader) };
        header.kind.load(Ordering::Relaxed) == kind
            && (kind != ObjectKind::Plain as u32 || header.tag.load(Ordering::Relaxed) == tag)
    };
    let taken = LEFT.with_borrow_mut(|left| {
        let index = left.iter().position(matches)?;
        left.remove(index)
    });
    taken.map_or(core::ptr::null_mut(), |payload| payload as *mut u8)
}

pub extern "C" fn shared_undelivered(batch: *mut u8, dead: OwnerId) {
    if OTHER.get().is_none() && crate::wiring::is_heir_of(dead) {
        // SAFETY: Reached only from a crossing, which has the handle to this batch.
        let body = unsafe { &*batch.cast::<BatchBody>() };
        let head = body.head.load(Ordering::Relaxed) as usize;
        let slots = (0..body.length.load(Ordering::Relaxed) as usize)
            .map(|index| body.slots[(head + index) % BATCH_CAPACITY].load(Ordering::Relaxed) as usize);
        // SAFETY: Slots below the length hold payloads, which have their headers before them.
        let kind = |payload: usize| unsafe {
            (*((payload - HEADER_BYTES) as *const ObjectHeader))
                .kind
                .load(Ordering::Relaxed)
        };
        let (blocks, others): (Vec<usize>, Vec<usize>) =
            slots.partition(|payload| kind(*payload) == ObjectKind::Block as u32);
        LEFT.with_borrow_mut(|left| left.extend(blocks));
        others
            .into_iter()
            .for_each(|payload| shared_free(payload as *mut u8));
        body.length.store(0, Ordering::Relaxed);
    }
    shared_free(batch);
}

fn pages_layout(count: usize) -> Option<Layout> {
    Layout::from_size_align(count.checked_mul(4096)?.max(4096), 4096).ok()
}

pub extern "C" fn pages_allocate(count: usize) -> *mut u8 {
    // SAFETY: The layout is at least a page.
    pages_layout(count).map_or(core::ptr::null_mut(), |layout| unsafe { alloc_zeroed(layout) })
}

pub extern "C" fn pages_free(base: *mut u8, count: usize) {
    if let Some(layout) = pages_layout(count) {
        // SAFETY: The caller gives back what `pages_allocate` gave for the same count.
        unsafe { dealloc(base, layout) };
    }
}
