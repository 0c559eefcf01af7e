//! Threads as crossings see them: which domain they run in, and where to unwind to when it dies.
//!
//! A thread migrates: a crossing runs on the caller's thread and stack. The GS base of each CPU points to a block whose
//! first word is the running thread's header, so finding it costs one load.

use crate::domain::OwnerId;
use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};

/// What trusted code in every image reads and writes of the running thread.
///
/// Words are atomics with relaxed order: they are written by their own thread, and by the kernel only while that thread
/// doesn't run.
#[repr(C, align(64))]
pub struct ThreadHeader {
    /// The incarnation whose code runs now.
    pub owner: AtomicU64,
    /// The innermost continuation; the list ends with null.
    pub top: AtomicPtr<Continuation>,
    /// Above 0 while the thread runs trusted code, which must not be unwound in the middle.
    pub trusted_depth: AtomicU32,
    /// The kernel's request to call [`crate::SysTable::check_death`] at the end of trusted code: some domain on this
    /// thread's chain is dead.
    pub pending: AtomicU32,
    /// The CPU the thread runs on (threads don't move).
    pub cpu: AtomicU32,
    /// Thread number, from 1, never reused.
    pub id: AtomicU64,
}

impl ThreadHeader {
    /// A header for the thread `id`, which runs the kernel's own code until it enters a domain.
    pub const fn new(id: u64, cpu: u32) -> ThreadHeader {
        ThreadHeader {
            owner: AtomicU64::new(OwnerId::KERNEL.0),
            top: AtomicPtr::new(core::ptr::null_mut()),
            trusted_depth: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            cpu: AtomicU32::new(cpu),
            id: AtomicU64::new(id),
        }
    }

    /// The incarnation whose code runs now.
    #[inline(always)]
    pub fn owner(&self) -> OwnerId {
        OwnerId(self.owner.load(Ordering::Relaxed))
    }

    /// Begins trusted code: until the matching [`leave_trusted`](Self::leave_trusted) a death doesn't unwind this thread.
    #[inline(always)]
    pub fn enter_trusted(&self) {
        // Only this thread writes the word while it runs, so load and store need not be one instruction.
        self.trusted_depth
            .store(self.trusted_depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Ends trusted code; true if the caller must now call [`crate::SysTable::check_death`].
    #[inline(always)]
    #[must_use]
    pub fn leave_trusted(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        let depth = self.trusted_depth.load(Ordering::Relaxed) - 1;
        self.trusted_depth.store(depth, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        depth == 0 && self.pending.load(Ordering::Relaxed) != 0
    }
}

/// Where a thread resumes when the callee of a crossing dies. Lives on the thread's stack during the crossing.
#[repr(C)]
pub struct Continuation {
    /// The next outer one, or null.
    pub previous: *mut Continuation,
    /// Stack pointer to resume with; written by `rref::crossing::enter`, as the next word.
    pub stack_pointer: u64,
    /// Where to resume.
    pub resume_address: u64,
    /// The domain that called.
    pub caller: OwnerId,
    /// The domain that is called.
    pub callee: OwnerId,
}

/// The running thread's header.
#[inline(always)]
pub fn current() -> &'static ThreadHeader {
    let header: *const ThreadHeader;
    // SAFETY: The kernel (on a host, `host_platform::attach`) sets the GS base of every CPU to a block whose first word
    // is the running thread's header before any code that calls this runs there. The header outlives its thread, and the
    // reference is only used by that thread.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) header, options(pure, nomem, nostack, preserves_flags));
        &*header
    }
}
