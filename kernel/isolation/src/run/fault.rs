//! CPU exceptions in domain code: each is that domain's death (docs/soundness.md, invariant 6).
//!
//! An exception is taken on a stack of its own, with interrupts off, where nothing may block. So the thread is made to go on in [`die`], which
//! is trusted code on the thread's own stack, at the place where the dead domain's frames began: those are never looked at again, so there is
//! room even after a stack overflow. From there on such a death is like a panic's ([`death::kill`], [`death::leave`]).

use super::black_box;
use super::death;
use super::domain::Cause;
use crate::elf::PAGE_BYTES;
use abi::{Continuation, OwnerId, ResumeContext, ThreadHeader, current};
use alloc::boxed::Box;
use alloc::string::String;
use core::arch::naked_asm;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use kernel::machine::interrupts::{Exception, InterruptContext};
use kernel::machine::{paging, thread};
use rref::Text;

/// Vectors (Intel SDM volume 3, table 6-1) that an instruction raises because of what it does: division, debug, breakpoint, overflow, bounds,
/// invalid opcode, no x87, segment, stack segment, general protection, page fault, x87, alignment, SIMD. The others are the machine's
/// or the kernel's: non-maskable interrupt, double fault, machine check and the like.
const DOMAIN_VECTORS: [u8; 14] = [0, 1, 3, 4, 5, 6, 7, 11, 12, 13, 14, 16, 17, 19];
const PAGE_FAULT: u8 = 14;

/// Bits of a page fault's error code (Intel SDM volume 3, 4.7).
const PROTECTION: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// Flags that the interrupted code may have set and trusted code must not run with: trap, direction, alignment check.
const STRAY_FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 18;

/// Where control, status and tag words are in what FXSAVE writes (Intel SDM volume 1, table 10-2), and what they are after a reset of the
/// unit, as the System V ABI (3.2.1) wants them at the start of a process.
const X87_CONTROL: usize = 0;
const X87_STATUS: usize = 2;
const X87_TAGS: usize = 4;
const MXCSR: usize = 24;
const X87_CONTROL_DEFAULT: [u8; 2] = 0x037f_u16.to_le_bytes();
const MXCSR_DEFAULT: [u8; 4] = 0x1f80_u32.to_le_bytes();

/// A CPU exception in domain code is that domain's death; anywhere else it is the kernel's. The one place where faults of hardware enter.
pub fn exception_in_domain(
    thread: &ThreadHeader,
    exception: Exception,
    context: &mut InterruptContext,
) -> bool {
    if thread.owner() == OwnerId::KERNEL || !DOMAIN_VECTORS.contains(&exception.vector) {
        return false;
    }
    let overflows = is_stack_guard(thread, &exception);
    // A proxy begins on whatever stack its caller has left, and has done nothing yet when that is too little.
    let is_domains = !paging::is_kernel_code(context.rip) || overflows && paging::is_proxy_code(context.rip);
    if !is_domains {
        return false;
    }
    black_box::note_exception(thread, &exception, context);
    let top = thread.top.load(Ordering::Relaxed);
    // SAFETY: A domain is the running one, so there is a continuation, on the stack of the thread that this CPU has interrupted; its
    // context was complete before any code of the domain ran (`rref::crossing`).
    let begin = unsafe { (*top).context.assume_init_ref().rsp };
    let kind = if overflows {
        STACK_OVERFLOW
    } else {
        u64::from(exception.vector)
    };
    context.rsp = begin - ROOM;
    context.rdi = kind;
    context.rsi = exception.error;
    context.rdx = exception.address.unwrap_or(0);
    context.rcx = context.rip;
    context.r8 = 0;
    context.rip = die as *const () as u64;
    make_sane(context);
    true
}

/// Leaves the return address of the call into the domain alone, and the stack as a call would: where the callee's own return address is, a
/// multiple of 16 is 8 bytes above (System V ABI, 3.2.2).
const ROOM: u64 = 16;

/// The body of a naked function that goes on where the frames of the running domain began, and so uses none of the stack that is left: some
/// instructions, the change of stack, which takes `rax`, and some more.
macro_rules! from_beginning {
    ([$($before:literal),*], [$($after:literal),*], $($operands:tt)*) => {
        naked_asm!(
            $($before,)*
            "mov rax, gs:[0]",
            "mov rax, [rax + {top}]",
            "mov rsp, [rax + {context} + {rsp}]",
            "sub rsp, {room}",
            $($after,)*
            top = const offset_of!(ThreadHeader, top),
            context = const offset_of!(Continuation, context),
            rsp = const offset_of!(ResumeContext, rsp),
            room = const ROOM,
            $($operands)*
        )
    };
}

/// A domain's thread has less stack left than what it asks for may need (`rref::crossing`, `sys.rs`). Uses none: goes on in [`die`] where the
/// frames of the domain began.
#[unsafe(naked)]
pub extern "C" fn stack_exhausted() -> ! {
    from_beginning!(
        ["mov rcx, [rsp]", "mov r8, rsp", "mov r9, rbp"],
        ["mov edi, {kind}", "xor esi, esi", "xor edx, edx", "jmp {die}"],
        kind = const STACK_OVERFLOW,
        die = sym die,
    )
}

/// A death that the running domain has brought on itself in a call of the kernel.
struct Ending {
    cause: Cause,
    detail: String,
}

/// Kills the running domain and leaves it. Needs little of the stack that the domain has left: the death itself takes place where the domain's frames
/// began, which are not looked at again.
pub fn end(cause: Cause, detail: &str) -> ! {
    let ending = Box::new(Ending {
        cause,
        detail: detail.into(),
    });
    // SAFETY: A domain is the running one, so there is a continuation, whose context was complete before any of its code ran. Nothing of
    // this function's or its callers' frames is used again: `finish` gets a box and doesn't return.
    unsafe { begin(Box::into_raw(ending)) }
}

/// Goes on in [`finish`] where the frames of the running domain began.
///
/// # Safety
/// A domain is the running one, and nothing in the frames below its continuation is needed any more. `ending` is a box's.
#[unsafe(naked)]
unsafe extern "C" fn begin(ending: *mut Ending) -> ! {
    from_beginning!([], ["jmp {finish}"], finish = sym finish)
}

extern "C" fn finish(ending: *mut Ending) -> ! {
    let owner = current().owner();
    // SAFETY: `end` made it of a box, for this call alone.
    let ending = unsafe { Box::from_raw(ending) };
    death::kill(owner, ending.cause, &ending.detail);
    drop(ending);
    death::leave(owner)
}

/// Stands for a vector in [`die`]'s first argument.
const STACK_OVERFLOW: u64 = 256;

/// Whether it was an access to the unmapped page below the thread's stack.
fn is_stack_guard(thread: &ThreadHeader, exception: &Exception) -> bool {
    let Some(address) = exception
        .address
        .and_then(|address| usize::try_from(address).ok())
    else {
        return false;
    };
    // SAFETY: The thread is the one that this CPU has interrupted.
    let (_, stack) = unsafe { thread::name_and_stack(thread) };
    (stack.start.saturating_sub(PAGE_BYTES)..stack.start).contains(&address)
}

/// Gives trusted code the flags and the floating-point modes that it was compiled for, whatever the domain has left.
pub fn make_sane(context: &mut InterruptContext) {
    context.rflags &= !STRAY_FLAGS;
    let mut set = |at: usize, bytes: &[u8]| {
        if let Some(place) = context.vector_state.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    set(X87_CONTROL, &X87_CONTROL_DEFAULT);
    set(X87_STATUS, &[0; 2]);
    set(X87_TAGS, &[0; 2]);
    set(MXCSR, &MXCSR_DEFAULT);
}

/// Where a thread goes on after an exception in a domain. `rsp` and `rbp` are where it stood, or 0 if that has been written down.
extern "C" fn die(kind: u64, error: u64, address: u64, rip: u64, rsp: u64, rbp: u64) -> ! {
    let owner = current().owner();
    if rsp != 0 {
        black_box::note_call(rip, rsp, rbp);
    }
    let at = Place(rip);
    if kind == STACK_OVERFLOW {
        // SAFETY: The running thread.
        let (name, stack) = unsafe { thread::name_and_stack(current()) };
        let detail = Text::<200>::format(format_args!(
            "the stack of thread {name}, {} KiB, is used up at {at}",
            stack.len() / 1024
        ));
        death::kill(owner, Cause::StackOverflow, detail.as_str());
    } else {
        let vector = kind as u8;
        let what = What {
            vector,
            error,
            address,
        };
        let detail = Text::<200>::format(format_args!("{what} at {at}"));
        death::kill(owner, Cause::Exception(vector), detail.as_str());
    }
    death::leave(owner)
}

/// An instruction in words.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = black_box::function_at(self.0);
        if frame.function.as_str().is_empty() {
            return write!(f, "{:#x}", self.0);
        }
        write!(f, "{} + {:#x}", frame.function, frame.offset)
    }
}

/// An exception in words.
struct What {
    vector: u8,
    error: u64,
    address: u64,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.vector == PAGE_FAULT {
            let access = match self.error {
                error if error & FETCH != 0 => "execution",
                error if error & WRITE != 0 => "write",
                _ => "read",
            };
            let why = if self.error & PROTECTION == 0 {
                "nothing is mapped"
            } else {
                "not allowed"
            };
            return write!(f, "page fault: {access} of {:#x}, {why},", self.address);
        }
        f.write_str(kernel::machine::fault::exception_name(self.vector))?;
        if self.error != 0 {
            write!(f, " (error {:#x})", self.error)?;
        }
        Ok(())
    }
}
