//! Devices that are models in the same process, for tests of drivers.
//!
//! A model answers register accesses. It reaches ring memory and packets by their addresses, which are the process's own; for a
//! model that maps its guest's memory from a file, [`SharedHeap`] makes the whole heap of the process such a file.

use crate::interrupt::Wake;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use dlmalloc::{Allocator, Dlmalloc};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;

/// A device model.
pub trait Model: Send + Sync {
    /// A register is read.
    fn read(&self, offset: u32) -> u32;
    /// A register is written.
    fn write(&self, offset: u32, value: u32);
    /// A thread waits for MSI-X entry `entry` until `deadline_ns`.
    fn wait(&self, entry: u32, deadline_ns: u64) -> Wake;
    /// The device is taken off the bus: it reads and writes no memory any more.
    fn stop(&self) {}
    /// Whether it came to rest after its last driver, by the steps that the driver's trusted code gives the kernel.
    fn is_at_rest(&self) -> bool {
        false
    }
    /// The device may read and write memory again, unless it was taken off the bus.
    fn use_memory(&self) {}
}

/// A heap for a test's process that is one shared file mapping, so that a model can map the same file as its guest's memory.
///
/// `#[global_allocator] static HEAP: SharedHeap = SharedHeap::new(256 << 20);`
pub struct SharedHeap {
    state: Mutex<Option<State>>,
    bytes: usize,
}

struct State {
    file: OwnedFd,
    base: usize,
    heap: Dlmalloc<Window>,
}

/// The file's mapping, handed out from its start.
struct Window {
    next: std::sync::atomic::AtomicUsize,
    end: usize,
}

// SAFETY: Each call hands out a part of the mapping that no other call gets; nothing is taken back.
unsafe impl Allocator for Window {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let next = self.next.load(std::sync::atomic::Ordering::Relaxed);
        let size = size.next_multiple_of(1 << 16);
        match next.checked_add(size) {
            Some(end) if end <= self.end => {
                self.next.store(end, std::sync::atomic::Ordering::Relaxed);
                (next as *mut u8, size, 0)
            }
            _ => (null_mut(), 0, 0),
        }
    }

    fn remap(&self, _base: *mut u8, _old: usize, _new: usize, _can_move: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _base: *mut u8, _old: usize, _new: usize) -> bool {
        false
    }

    fn free(&self, _base: *mut u8, _size: usize) -> bool {
        false
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

// SAFETY: The heap's pointers are into the mapping, which belongs to the process and not to a thread.
unsafe impl Send for State {}

impl SharedHeap {
    /// A heap of at most `bytes`, a multiple of 64 KiB.
    pub const fn new(bytes: usize) -> SharedHeap {
        SharedHeap {
            state: Mutex::new(None),
            bytes,
        }
    }

    fn with<R>(&self, action: impl FnOnce(&mut State) -> R) -> Option<R> {
        // `action` can't come back here: the heap's own code doesn't allocate.
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.is_none() {
            *state = State::new(self.bytes);
        }
        state.as_mut().map(action)
    }

    /// The file, the address that its first byte has in this process, and its length; `None` when it couldn't be made.
    pub fn window(&self) -> Option<(OwnedFd, u64, u64)> {
        let (file, base) = self.with(|state| {
            let file: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&state.file);
            (rustix::io::dup(file), state.base as u64)
        })?;
        Some((file.ok()?, base, self.bytes as u64))
    }
}

impl State {
    fn new(bytes: usize) -> Option<State> {
        let file = rustix::fs::memfd_create(c"heap", MemfdFlags::CLOEXEC).ok()?;
        rustix::fs::ftruncate(&file, bytes as u64).ok()?;
        // SAFETY: A new mapping at an address of the system's choice replaces nothing.
        let base = unsafe {
            rustix::mm::mmap(
                null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
        .ok()? as usize;
        let window = Window {
            next: base.into(),
            end: base + bytes,
        };
        Some(State {
            file,
            base,
            heap: Dlmalloc::new_with_allocator(window),
        })
    }
}

// SAFETY: Every call goes to one dlmalloc under one lock, with the caller's own promises about layout and pointer.
unsafe impl GlobalAlloc for SharedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: The layout is the caller's, not empty.
        self.with(|state| unsafe { state.heap.malloc(layout.size(), layout.align()) })
            .unwrap_or(null_mut())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: The caller gives back what `alloc` gave for this layout.
        self.with(|state| unsafe { state.heap.free(pointer, layout.size(), layout.align()) });
    }
}
