//! The crossing: a call from one domain into another that returns even when the callee dies.
//!
//! Every proxy method is one call of [`cross`]. It runs in the kernel's image, on the caller's thread and stack:
//! 1. push a continuation and name the callee as the running domain, *then* look whether it lives. The kernel marks a domain
//!    dead, stops all CPUs once, and then looks at every thread's chain: so either this thread sees the mark, or the
//!    kernel sees the thread (docs/soundness.md, invariants 5 and 6). No fence is needed here.
//! 2. move what the arguments hold to the callee, call, move what the result holds to the caller;
//! 3. if the kernel asked for it meanwhile, let it look whether the caller is still alive.
//!
//! Between those steps the thread is in trusted code and is not unwound. In the callee it may be, at any instruction: then it
//! comes back from [`enter`] with 1, and nothing of the callee's frames is looked at again.

use crate::exchange::Exchange;
use crate::rpc::{Outcome, RpcError};
use abi::{Continuation, DomainHeader, OwnerId, current, sys};
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::null_mut;
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

/// What [`enter`] carries to [`thunk`] and back, on the caller's stack.
struct Call<'a, O: ?Sized, A, R, F> {
    object: &'a O,
    arguments: ManuallyDrop<A>,
    method: ManuallyDrop<F>,
    result: MaybeUninit<R>,
}

/// Calls `method` on the target's object, in the target's domain.
///
/// What `arguments` hold is the callee's from here on; if it is already dead, they are dropped here. Lent references are captured by
/// `method`.
#[inline(always)]
pub fn cross<O, A, R, F>(target: &Target<O>, arguments: A, method: F) -> R
where
    O: ?Sized,
    A: Exchange,
    R: Outcome,
    F: FnOnce(&O, A) -> R,
{
    let thread = current();
    thread.enter_trusted();
    let caller = thread.owner();
    let mut record = Continuation {
        previous: thread.top.load(Ordering::Relaxed),
        stack_pointer: 0,
        caller,
        callee: target.incarnation,
        callee_header: target.header,
    };
    let record_pointer = &raw mut record;
    compiler_fence(Ordering::SeqCst);
    thread.top.store(record_pointer, Ordering::Relaxed);
    thread.owner.store(target.incarnation.0, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);

    let outcome = if target.header.is_live(target.incarnation) {
        count(target.header, thread.cpu.load(Ordering::Relaxed));
        arguments.transfer(target.incarnation);
        let mut call = Call {
            // SAFETY: The incarnation is alive, and this thread is on its chain: the kernel frees nothing of it until
            // the thread has left (`Target::new` promises the rest).
            object: unsafe { &*target.object },
            arguments: ManuallyDrop::new(arguments),
            method: ManuallyDrop::new(method),
            result: MaybeUninit::<R>::uninit(),
        };
        let call_pointer = &raw mut call;
        // SAFETY: `record` and `call` live on this frame, which outlives the call: an unwinding resumes in `enter`, which
        // returns here. `thunk` is of the same types as `call`. Trusted depth is 1 here or more, as `thunk` expects.
        let died = unsafe { enter(record_pointer, thunk::<O, A, R, F>, call_pointer.cast()) };
        if died == 0 {
            // SAFETY: `thunk` returned, so it has written the result.
            let result = unsafe { call.result.assume_init() };
            result.transfer(caller);
            Ok(result)
        } else {
            Err(RpcError::died(target.incarnation))
        }
    } else {
        // The caller still owns the arguments; its name must be back before their drop code runs.
        thread.owner.store(caller.0, Ordering::Relaxed);
        drop(arguments);
        Err(RpcError::dead(target.incarnation))
    };

    thread.owner.store(caller.0, Ordering::Relaxed);
    thread.top.store(record.previous, Ordering::Relaxed);
    if thread.leave_trusted() {
        (sys().check_death)();
    }
    match outcome {
        Ok(result) => result,
        Err(error) => R::failed(error),
    }
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

/// Runs the method in the callee's name, out of trusted code.
extern "C" fn thunk<O, A, R, F>(call: *mut u8)
where
    O: ?Sized,
    A: Exchange,
    R: Outcome,
    F: FnOnce(&O, A) -> R,
{
    let thread = current();
    // SAFETY: `cross` passes its own `Call` of these types, and touches it only after this function returned.
    let call = unsafe { &mut *call.cast::<Call<'_, O, A, R, F>>() };
    // SAFETY: Taken once: `thunk` runs once for a call.
    let (arguments, method) = unsafe {
        (
            ManuallyDrop::take(&mut call.arguments),
            ManuallyDrop::take(&mut call.method),
        )
    };
    let depth = thread.trusted_depth.load(Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    thread.trusted_depth.store(0, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let result = method(call.object, arguments);
    compiler_fence(Ordering::SeqCst);
    thread.trusted_depth.store(depth, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    call.result.write(result);
}

/// Saves the callee-saved registers and the stack pointer in `record`, and calls `function(argument)`.
///
/// Returns 0 when the function returns, 1 when [`resume`] was called with the record.
///
/// # Safety
/// `record` is valid for a write; `function` may be called with `argument`; frames between this one and a resumption must
/// hold nothing whose drop matters for soundness.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(
    record: *mut Continuation,
    function: extern "C" fn(*mut u8),
    argument: *mut u8,
) -> u64 {
    core::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rdi + {stack_pointer}], rsp",
        "mov rdi, rdx",
        "call rsi",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "xor eax, eax",
        "ret",
        stack_pointer = const core::mem::offset_of!(Continuation, stack_pointer),
    )
}

/// Makes the [`enter`] of `record` return 1, abandoning every frame below it.
///
/// # Safety
/// `record` is the innermost continuation of the running thread, and its `enter` has not returned. The thread's trusted depth
/// is what it was in that `enter`.
#[unsafe(naked)]
pub unsafe extern "C" fn resume(record: *const Continuation) -> ! {
    core::arch::naked_asm!(
        "cld",
        "mov rsp, [rdi + {stack_pointer}]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "mov eax, 1",
        "ret",
        stack_pointer = const core::mem::offset_of!(Continuation, stack_pointer),
    )
}

/// Nothing is on the chain of a thread that just started.
pub const NO_CONTINUATION: *mut Continuation = null_mut();
