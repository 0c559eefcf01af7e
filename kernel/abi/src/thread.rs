//! Threads as crossings see them: which domain they run in, and where to unwind to when it dies.
//!
//! A thread migrates: a crossing runs on the caller's thread and stack. The GS base of each CPU points to a block whose
//! first word is the running thread's header, so finding it costs one load.

use crate::domain::OwnerId;
use crate::method::Method;
use core::arch::asm;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// What trusted code in every image reads and writes of the running thread.
///
/// Words are atomics with relaxed order: they are written by their own thread, and by the kernel only while that thread
/// doesn't run; `pending` is written by the kernel at any time.
#[repr(C, align(64))]
pub struct ThreadHeader {
    /// The innermost continuation; the list ends with null. What it calls is the domain whose code runs now.
    pub top: AtomicPtr<Continuation>,
    /// The kernel's request to call [`crate::SysTable::check_death`] at the end of trusted code, not 0: some domain died since this thread
    /// looked at its chain.
    pub pending: AtomicU32,
    /// The CPU the thread runs on (threads don't move).
    pub cpu: AtomicU32,
    /// Thread number, from 1, never reused.
    pub id: AtomicU64,
    /// A crossing is made only with the stack pointer at or above this address: [`CROSSING_RESERVE_BYTES`] from the stack's end. 0 for threads of
    /// the kernel's own.
    pub crossing_limit: AtomicU64,
    /// The same for calls of the kernel: [`CALL_RESERVE_BYTES`] from the stack's end.
    pub call_limit: AtomicU64,
    /// How long the kernel's watch (in units of its own) found the thread on a CPU in its own domain's code, since it last showed progress: parked, made a crossing
    /// that a look saw, or set this to 0.
    pub stalled: AtomicU32,
    /// The same since a domain on the chain is dead.
    pub orphaned: AtomicU32,
    /// Bits of [`phase`].
    pub phase: AtomicU32,
    /// Looks of the kernel's watch at the thread.
    pub looks: AtomicU32,
    /// The newest of them, in a ring by their number.
    pub newest_looks: [Look; LOOKS_KEPT],
}

/// Looks of the kernel's watch at a thread that are kept.
pub const LOOKS_KEPT: usize = 8;

/// A look of the kernel's watch at a thread; written and read by the kernel alone.
pub struct Look {
    /// When, nanoseconds since boot.
    pub at_ns: AtomicU64,
    /// Where the thread was: an instruction's address, or a number of the kernel's.
    pub place: AtomicU64,
}

impl Look {
    const fn none() -> Look {
        Look {
            at_ns: AtomicU64::new(0),
            place: AtomicU64::new(0),
        }
    }
}

/// What a thread is doing, as far as the kernel's watch treats it differently.
pub mod phase {
    /// It runs its domain's `start`.
    pub const STARTING: u32 = 1;
    /// It waits for a provider to come up.
    pub const CONNECTING: u32 = 2;
}

/// Stack that a crossing must find: for the proxy, for the callee, and for what the kernel does if the callee dies.
pub const CROSSING_RESERVE_BYTES: u64 = 32 * 1024;
/// Stack that a call of the kernel must find: no function of [`crate::SysTable`] needs more.
pub const CALL_RESERVE_BYTES: u64 = 16 * 1024;

impl ThreadHeader {
    /// A header for the thread `id`, which runs the kernel's own code until it enters a domain.
    pub const fn new(id: u64, cpu: u32) -> ThreadHeader {
        ThreadHeader {
            top: AtomicPtr::new(core::ptr::null_mut()),
            pending: AtomicU32::new(0),
            cpu: AtomicU32::new(cpu),
            id: AtomicU64::new(id),
            crossing_limit: AtomicU64::new(0),
            call_limit: AtomicU64::new(0),
            stalled: AtomicU32::new(0),
            orphaned: AtomicU32::new(0),
            phase: AtomicU32::new(0),
            looks: AtomicU32::new(0),
            newest_looks: [const { Look::none() }; LOOKS_KEPT],
        }
    }

    /// Says where the thread's stack ends, before it runs in a domain.
    pub fn limit_stack(&self, lowest: u64) {
        self.crossing_limit
            .store(lowest + CROSSING_RESERVE_BYTES, Ordering::Relaxed);
        self.call_limit
            .store(lowest + CALL_RESERVE_BYTES, Ordering::Relaxed);
    }

    /// The incarnation whose code runs now. For the running thread, or one that stands still.
    #[inline(always)]
    pub fn owner(&self) -> OwnerId {
        // SAFETY: The chain stands still: it is this code's own thread's, or the kernel keeps that thread from running.
        unsafe { owner_of(self.top.load(Ordering::Relaxed)) }
    }
}

/// Whom the innermost continuation `top` calls: the kernel where there is none.
///
/// # Safety
/// `top` is null, or a continuation that is on a thread's chain as long as this looks.
#[inline(always)]
pub unsafe fn owner_of(top: *const Continuation) -> OwnerId {
    if top.is_null() {
        return OwnerId::KERNEL;
    }
    // SAFETY: Not null, so a live continuation by the caller's promise.
    unsafe { (*top).callee }
}

/// Where a thread resumes when the callee of a crossing dies. Lives on the thread's stack during the crossing.
#[repr(C)]
pub struct Continuation {
    /// The next outer one, or null.
    pub previous: *mut Continuation,
    /// The domain that is called. Who calls is whom `previous` calls.
    pub callee: OwnerId,
    /// What is called; null for what a thread runs first.
    pub method: *const Method,
    /// How long the kernel's watch (in units of its own) found the thread in this call, running or parked.
    pub seen: AtomicU32,
    /// Written by `rref::crossing::enter` before any code of the callee runs.
    pub context: MaybeUninit<ResumeContext>,
}

impl Continuation {
    /// A continuation in front of `previous` for a call of `method` of `callee`.
    #[inline(always)]
    pub const fn new(
        previous: *mut Continuation,
        callee: OwnerId,
        method: Option<&'static Method>,
    ) -> Continuation {
        Continuation {
            previous,
            callee,
            method: match method {
                Some(method) => method,
                None => core::ptr::null(),
            },
            seen: AtomicU32::new(0),
            context: MaybeUninit::uninit(),
        }
    }

    /// What is called, if it is a method.
    pub fn method(&self) -> Option<&'static Method> {
        // SAFETY: `new` was given a reference that lives for ever, or null.
        unsafe { self.method.as_ref() }
    }
}

/// The registers of a thread at the first instruction of a function that it called, as far as they matter for calling
/// another in its place (System V ABI, 3.2.1 and 3.2.3).
#[repr(C)]
pub struct ResumeContext {
    /// Points to the return address.
    pub rsp: u64,
    /// Callee-saved.
    pub rbx: u64,
    /// Callee-saved.
    pub rbp: u64,
    /// Callee-saved.
    pub r12: u64,
    /// Callee-saved.
    pub r13: u64,
    /// Callee-saved.
    pub r14: u64,
    /// Callee-saved.
    pub r15: u64,
    /// Where the result goes, if it is returned in memory.
    pub rdi: u64,
    /// The function to call in its place.
    pub rip: u64,
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
