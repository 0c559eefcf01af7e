//! The crossing: a call from one domain into another that returns even when the callee dies.
//!
//! Every proxy method is one call of [`cross`]. It runs in the kernel's image, on the caller's thread and stack:
//! 1. push a continuation that names the callee, which makes it the running domain, *then* look whether it lives. The kernel marks a
//!    domain dead, interrupts all CPUs once, and then looks at every thread's chain: so either this thread sees the mark, or the
//!    kernel sees the thread (docs/soundness.md, invariants 5 and 6). No fence is needed here.
//! 2. move what the arguments hold to the callee, call, move what the result holds to the caller;
//! 3. if the kernel asked for it meanwhile, let it look whether the caller is still alive.
//!
//! A thread whose instruction pointer is in the kernel's image, so in these steps, is in trusted code and is not unwound. In the callee it
//! may be, at any instruction: then [`enter`] returns an error, and nothing of the callee's frames is looked at again.
//!
//! What a crossing costs is mostly stores, and most of all loads that wait for stores: docs/specification.md has the figures.

use crate::exchange::Exchange;
use crate::rpc::{Outcome, RpcError};
use abi::thread::owner_of;
use abi::{Continuation, DomainHeader, Method, OwnerId, ResumeContext, ThreadHeader, current, sys};
use core::mem::{needs_drop, offset_of};
use core::sync::atomic::{Ordering, compiler_fence};

/// What a proxy calls: an object in a domain's private memory, and the incarnation that it belongs to.
pub struct Target<O: ?Sized> {
    header: &'static DomainHeader,
    incarnation: OwnerId,
    object: *const O,
}

// SAFETY: The object is `Sync` by the bound of `Interface`; the pointer is followed only while its domain lives.
unsafe impl<O: ?Sized> Send for Target<O> {}
// SAFETY: As above.
unsafe impl<O: ?Sized> Sync for Target<O> {}

impl<O: ?Sized> Target<O> {
    /// A target in `incarnation` of the domain behind `header`.
    ///
    /// # Safety
    /// `object` is valid and may be used from any thread for as long as `incarnation` is alive.
    pub const unsafe fn new(header: &'static DomainHeader, incarnation: OwnerId, object: *const O) -> Self {
        Target {
            header,
            incarnation,
            object,
        }
    }

    /// The incarnation that it belongs to.
    pub fn incarnation(&self) -> OwnerId {
        self.incarnation
    }
}

/// Calls `method`, which is called `what`, on the target's object, in the target's domain.
///
/// What `arguments` hold is the callee's from here on; if it is already dead, they are dropped here (but see [`Exchange::undelivered`]). Lent references are captured by
/// `method`.
#[inline(always)]
pub fn cross<O, A, R, F>(target: &Target<O>, what: &'static Method, arguments: A, method: F) -> R
where
    O: ?Sized,
    A: Exchange,
    R: Outcome,
    F: FnOnce(&O, A) -> R,
{
    let thread = current();
    check_stack(thread);
    let previous = thread.top.load(Ordering::Relaxed);
    let mut record = Continuation::new(previous, target.incarnation, Some(what));
    compiler_fence(Ordering::SeqCst);
    thread.top.store(&raw mut record, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);

    if !target.header.is_live(target.incarnation) {
        // The caller still owns the arguments; it must be the running domain again before their drop code runs.
        end(thread, previous);
        arguments.undelivered(target.incarnation);
        return failed(RpcError::dead(target.incarnation));
    }
    let _leave = Leave { thread, previous };
    count(target.header, thread.cpu.load(Ordering::Relaxed));
    // SAFETY: They are the callee's from here on.
    unsafe { arguments.transfer(target.incarnation) };
    // SAFETY: The incarnation is alive, and this thread is on its chain: the kernel frees nothing of it until the thread
    // has left (`Target::new` promises the rest).
    let object = unsafe { &*target.object };
    if needs_drop::<R>() {
        // SAFETY: The innermost continuation is `record`, which lives on this frame and so as long as the call.
        let result = unsafe { enter(object, arguments, method) };
        // SAFETY: `previous` is null, or a continuation that is on this thread's chain until this crossing has ended; it names the caller,
        // which has the result from here on.
        unsafe { result.transferred(owner_of(previous)) }
    } else {
        // It will hold no shared object (`Exchange`), so nobody need look at it: the method writes it where the caller wants it.
        // SAFETY: As above.
        unsafe { enter(object, arguments, method) }
    }
}

/// Ends the caller if it has too little stack left for what comes now. Until here a proxy has done nothing but make its frame; should that
/// have met the stack's end already, then in code of the section `.text.proxies`, which makes it the caller's death too.
#[inline(always)]
fn check_stack(thread: &ThreadHeader) {
    // SAFETY: Compares the stack pointer with a word of the header, which is readable.
    unsafe {
        core::arch::asm!(
            "cmp rsp, [{thread} + {limit}]",
            "jb {exhausted}",
            thread = in(reg) core::ptr::from_ref(thread),
            limit = const offset_of!(ThreadHeader, crossing_limit),
            exhausted = label { stack_exhausted() },
            options(readonly, nostack),
        );
    }
}

/// Out of line, to keep the ordinary way short; it runs where the stack may be at its end.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.proxies")]
fn stack_exhausted() -> ! {
    (sys().stack_exhausted)()
}

/// Ends the crossing when it is dropped: after the result is where the caller wants it, so that it is not moved once more.
struct Leave<'a> {
    thread: &'a ThreadHeader,
    previous: *mut Continuation,
}

impl Drop for Leave<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        end(self.thread, self.previous);
    }
}

/// Takes the continuation off the chain, so that the caller is the running domain again.
#[inline(always)]
fn end(thread: &ThreadHeader, previous: *mut Continuation) {
    compiler_fence(Ordering::SeqCst);
    thread.top.store(previous, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if thread.pending.load(Ordering::Relaxed) != 0 {
        look_for_death();
    }
}

/// Out of line, to keep the ordinary way short.
#[cold]
#[inline(never)]
fn failed<R: Outcome>(error: RpcError) -> R {
    R::failed(error)
}

#[cold]
#[inline(never)]
fn look_for_death() {
    (sys().check_death)();
}

/// Counts a crossing for the metrics: one instruction, so that an interrupt can't come between load and store.
#[inline(always)]
fn count(header: &DomainHeader, cpu: u32) {
    if let Some(count) = header.crossings.get(cpu as usize) {
        count
            .0
            .store(count.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// Calls `method` so that [`resume`] makes this function return too: with [`Outcome::failed`].
///
/// Nothing is different from a plain call but that its first instructions, [`guarded`], write down in the innermost
/// continuation where they were called from. Arguments and result stay where the compiler has put them: the result, above all, is
/// written by the method where the caller wants it. One that is copied is read before its parts have left the store buffer,
/// which takes longer than all the rest of a crossing.
///
/// # Safety
/// The running thread's innermost continuation may be written as long as the method runs; frames between this call and a
/// resumption must hold nothing whose drop matters for soundness.
#[inline(always)]
pub unsafe fn enter<O, A, R, F>(object: &O, arguments: A, method: F) -> R
where
    O: ?Sized,
    R: Outcome,
    F: FnOnce(&O, A) -> R,
{
    let address: *const ();
    // SAFETY: Takes an address.
    unsafe {
        core::arch::asm!(
            "lea {address}, [rip + {guarded}]",
            guarded = sym guarded::<O, A, R, F>,
            address = out(reg) address,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    // SAFETY: What is called is `call_method`, since `guarded` passes the stack and every register on as they are but for rax and r11, in
    // which only functions with variable arguments get anything (System V ABI, figure 3.4). A resumption makes it a call of `died`,
    // which has the same type of result and takes nothing.
    let entry: fn(&O, A, F) -> R = unsafe { core::mem::transmute(address) };
    entry(object, arguments, method)
}

/// What [`guarded`] goes on to: still trusted code, and still in the caller's image.
fn call_method<O, A, R, F>(object: &O, arguments: A, method: F) -> R
where
    O: ?Sized,
    F: FnOnce(&O, A) -> R,
{
    #[cfg(feature = "inject")]
    crate::inject::point(core::any::type_name::<O>());
    method(object, arguments)
}

/// What a call that was cut short by [`resume`] is a call of instead.
fn died<R: Outcome>() -> R {
    // A resumption is to the innermost continuation, and that is taken off the chain only after this has returned.
    R::failed(RpcError::died(current().owner()))
}

/// The first instructions of a call that can be cut short.
///
/// They run with [`call_method`]'s arguments in place and jump to it, so it returns to the caller directly. What they save is what a later call
/// needs to be made from the same place: the callee-saved registers, the stack pointer at the return address, and the register that holds
/// the address of the result if that is returned in memory. All of these are of the C calling convention, on which
/// Rust's own is built; kernel/rref/tests/death.rs tries every kind of result.
#[unsafe(naked)]
extern "C" fn guarded<O, A, R, F>()
where
    O: ?Sized,
    R: Outcome,
    F: FnOnce(&O, A) -> R,
{
    core::arch::naked_asm!(
        "mov rax, gs:[0]",
        "lea r11, [rip + {died}]",
        "mov rax, [rax + {top}]",
        "mov [rax + {context} + {rip}], r11",
        "mov [rax + {context} + {rdi}], rdi",
        "mov [rax + {context} + {rsp}], rsp",
        "mov [rax + {context} + {rbx}], rbx",
        "mov [rax + {context} + {rbp}], rbp",
        "mov [rax + {context} + {r12}], r12",
        "mov [rax + {context} + {r13}], r13",
        "mov [rax + {context} + {r14}], r14",
        "mov [rax + {context} + {r15}], r15",
        "jmp {call_method}",
        died = sym died::<R>,
        call_method = sym call_method::<O, A, R, F>,
        top = const offset_of!(ThreadHeader, top),
        context = const offset_of!(Continuation, context),
        rsp = const offset_of!(ResumeContext, rsp),
        rbx = const offset_of!(ResumeContext, rbx),
        rbp = const offset_of!(ResumeContext, rbp),
        r12 = const offset_of!(ResumeContext, r12),
        r13 = const offset_of!(ResumeContext, r13),
        r14 = const offset_of!(ResumeContext, r14),
        r15 = const offset_of!(ResumeContext, r15),
        rdi = const offset_of!(ResumeContext, rdi),
        rip = const offset_of!(ResumeContext, rip),
    )
}

/// Makes the [`enter`] of `record` return with an error, abandoning every frame below it.
///
/// # Safety
/// `record` is the innermost continuation of the running thread, and its `enter` has been called and has not returned.
#[unsafe(naked)]
pub unsafe extern "C" fn resume(record: *const Continuation) -> ! {
    core::arch::naked_asm!(
        "cld",
        "mov rsp, [rdi + {context} + {rsp}]",
        "mov rbx, [rdi + {context} + {rbx}]",
        "mov rbp, [rdi + {context} + {rbp}]",
        "mov r12, [rdi + {context} + {r12}]",
        "mov r13, [rdi + {context} + {r13}]",
        "mov r14, [rdi + {context} + {r14}]",
        "mov r15, [rdi + {context} + {r15}]",
        "mov rax, [rdi + {context} + {rip}]",
        "mov rdi, [rdi + {context} + {rdi}]",
        "jmp rax",
        context = const offset_of!(Continuation, context),
        rsp = const offset_of!(ResumeContext, rsp),
        rbx = const offset_of!(ResumeContext, rbx),
        rbp = const offset_of!(ResumeContext, rbp),
        r12 = const offset_of!(ResumeContext, r12),
        r13 = const offset_of!(ResumeContext, r13),
        r14 = const offset_of!(ResumeContext, r14),
        r15 = const offset_of!(ResumeContext, r15),
        rdi = const offset_of!(ResumeContext, rdi),
        rip = const offset_of!(ResumeContext, rip),
    )
}
