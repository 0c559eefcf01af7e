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
//! may be, at any instruction: then it comes back from [`enter`] with true, and nothing of the callee's frames is looked at again.

use crate::exchange::Exchange;
use crate::rpc::{Outcome, RpcError};
use abi::thread::owner_of;
use abi::{Continuation, DomainHeader, OwnerId, ThreadHeader, current, sys};
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
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
    result: PhantomData<R>,
}

/// A result where the caller wants it: too large for registers, so the C calling convention returns it in place.
#[repr(C)]
union Slot<R> {
    result: ManuallyDrop<R>,
    filler: [u64; 3],
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
    let previous = thread.top.load(Ordering::Relaxed);
    let mut record = Continuation {
        previous,
        stack_pointer: MaybeUninit::uninit(),
        callee: target.incarnation,
    };
    let record_pointer = &raw mut record;
    compiler_fence(Ordering::SeqCst);
    thread.top.store(record_pointer, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);

    if !target.header.is_live(target.incarnation) {
        // The caller still owns the arguments; it must be the running domain again before their drop code runs.
        end(thread, previous);
        drop(arguments);
        return failed(RpcError::dead(target.incarnation));
    }
    count(target.header, thread.cpu.load(Ordering::Relaxed));
    arguments.transfer(target.incarnation);
    let mut call = Call {
        // SAFETY: The incarnation is alive, and this thread is on its chain: the kernel frees nothing of it until
        // the thread has left (`Target::new` promises the rest).
        object: unsafe { &*target.object },
        arguments: ManuallyDrop::new(arguments),
        method: ManuallyDrop::new(method),
        result: PhantomData::<R>,
    };
    let mut slot = MaybeUninit::<Slot<R>>::uninit();
    // SAFETY: `record` and `call` live on this frame, which outlives the call: an unwinding resumes in `enter`, which
    // goes on here. `thunk` is of the same types as `call`.
    let died = unsafe {
        let thunk: extern "C" fn(&mut Call<'_, O, A, R, F>) -> Slot<R> = thunk::<O, A, R, F>;
        // A function that returns in memory takes the place of its result as its first argument and returns that (System V ABI, 3.2.3).
        let thunk: extern "C" fn(*mut u8, *mut u8) -> *mut u8 = core::mem::transmute(thunk);
        enter(
            record_pointer,
            thunk,
            slot.as_mut_ptr().cast(),
            (&raw mut call).cast(),
        )
    };
    if died {
        end(thread, previous);
        return failed(RpcError::died(target.incarnation));
    }
    // SAFETY: `thunk` returned, so it has written the result.
    unsafe { slot.assume_init_ref().result.transfer(owner_of(previous)) };
    end(thread, previous);
    // SAFETY: As above; it is read once. Only here, and whole: a result that is held in registers over `end` is taken apart, stored in
    // pieces and read again before they have left the store buffer, which takes longer than all the rest.
    ManuallyDrop::into_inner(unsafe { slot.assume_init().result })
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

/// Runs the method in the callee's name, out of trusted code.
///
/// Returns its result in memory, so that the method writes it there itself. A result that is copied once more here is read
/// before its parts have left the store buffer, which costs as much as the rest of the crossing.
extern "C" fn thunk<O, A, R, F>(call: &mut Call<'_, O, A, R, F>) -> Slot<R>
where
    O: ?Sized,
    A: Exchange,
    R: Outcome,
    F: FnOnce(&O, A) -> R,
{
    // SAFETY: Taken once: `thunk` runs once for a call.
    let (arguments, method) = unsafe {
        (
            ManuallyDrop::take(&mut call.arguments),
            ManuallyDrop::take(&mut call.method),
        )
    };
    Slot {
        result: ManuallyDrop::new(method(call.object, arguments)),
    }
}

/// Calls `function(first, second)` so that [`resume`] with `record` comes back here too: false after a return, true after that.
///
/// Callee-saved registers are the compiler's matter on both ways: the block says that it destroys them, but for the two that it
/// may not name, which it keeps on the stack. The continuation is the call's own return address; `resume` returns to it with 0 where
/// the function returns the address of its result.
///
/// # Safety
/// `record` is valid for a write as long as the function runs; `function` may be called with the two, and returns `first`, not null;
/// frames between this one and a resumption must hold nothing whose drop matters for soundness.
#[inline(always)]
pub unsafe fn enter(
    record: *mut Continuation,
    function: extern "C" fn(*mut u8, *mut u8) -> *mut u8,
    first: *mut u8,
    second: *mut u8,
) -> bool {
    let result: *mut u8;
    // SAFETY: The stack pointer is 16-byte aligned at a block that may use the stack, and two pushes keep it so for the call. What
    // the function may change by the System V ABI is declared as changed, and so are the callee-saved registers, since a
    // resumption brings them back as they were anywhere below. The direction flag is cleared by `resume`.
    unsafe {
        core::arch::asm!(
            "push rbx",
            "push rbp",
            "lea rax, [rsp - 8]",
            "mov [rcx + {stack_pointer}], rax",
            "call rdx",
            "pop rbp",
            "pop rbx",
            stack_pointer = const core::mem::offset_of!(Continuation, stack_pointer),
            in("rcx") record,
            in("rdx") function,
            in("rdi") first,
            in("rsi") second,
            lateout("rax") result,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            clobber_abi("C"),
        );
    }
    result.is_null()
}

/// Makes the [`enter`] of `record` come back with true, abandoning every frame below it.
///
/// # Safety
/// `record` is the innermost continuation of the running thread, and its `enter` has not come back.
#[unsafe(naked)]
pub unsafe extern "C" fn resume(record: *const Continuation) -> ! {
    core::arch::naked_asm!(
        "cld",
        "mov rsp, [rdi + {stack_pointer}]",
        "xor eax, eax",
        "ret",
        stack_pointer = const core::mem::offset_of!(Continuation, stack_pointer),
    )
}
