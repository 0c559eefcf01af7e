//! Changing from one thread to another.
//!
//! Two ways lead out of a running thread. A thread that blocks saves the callee-saved registers on its own stack (`switch_stack`). One that is preempted
//! has everything copied from the interrupt stack into its save area (`interrupt_exit`), where trusted code may change it; the return hook sees it before
//! it runs again.

use super::super::super::cpu;
use super::super::super::interrupts::{self, InterruptContext};
use super::super::super::memory::Stack;
use super::super::{Saved, Thread};
use super::{Queued, exit, running};
use x86_64::instructions::interrupts as processor;

core::arch::global_asm!(
    r#"
    /* Leaves a thread: puts the callee-saved registers onto its stack, as `continue_on_stack` expects them, and saves the stack pointer at `rdi`. */
    .macro leave_thread
        push rbp
        push rbx
        push r12
        push r13
        push r14
        push r15
        mov [rdi], rsp
    .endm

    .section .text.switch, "ax", @progbits

    /* switch_stack(save: rdi, stack: rsi): saves the callee-saved registers and the stack pointer, continues at `stack`. */
    .global switch_stack
    switch_stack:
        leave_thread

    /* continue_on_stack(_, stack: rsi) */
    .global continue_on_stack
    continue_on_stack:
        mov rsp, rsi
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbx
        pop rbp
        ret

    /* switch_to_context(save: rdi, context: rsi): the same, but continues with an interrupted context. */
    .global switch_to_context
    switch_to_context:
        leave_thread
        mov rdi, rsi
        jmp resume_context

    .purgem leave_thread
    "#
);

// SAFETY: Defined by the assembly above and by that of `interrupts.rs` (`resume_context`), with these arguments in the registers of the System V ABI.
unsafe extern "C" {
    fn switch_stack(save: *mut usize, stack: usize);
    fn continue_on_stack(unused: usize, stack: usize) -> !;
    fn switch_to_context(save: *mut usize, context: *const InterruptContext);
    fn resume_context(context: *const InterruptContext) -> !;
}

/// Puts onto a new stack what `switch_stack` expects there; the stack pointer for it. The thread begins in
/// `thread_main` with a frame pointer and a return address of 0, where a backtrace ends.
pub(in super::super) fn first_frame(stack: &Stack) -> usize {
    let main = (thread_main as extern "C" fn() -> !) as usize;
    let frame = [0, 0, 0, 0, 0, 0, main, 0];
    let at = stack.top() - size_of_val(&frame);
    // SAFETY: The top of a stack that nobody runs on yet.
    unsafe { (at as *mut [usize; 8]).write(frame) };
    at
}

extern "C" fn thread_main() -> ! {
    let thread = running(cpu::current());
    // SAFETY: Entry and argument are written before the thread is queued and not changed afterwards.
    let (entry, argument) = unsafe { ((*thread.inner.get()).entry, (*thread.inner.get()).argument) };
    processor::enable();
    entry(argument);
    exit()
}

/// Leaves `from`, which is parked or queued, for `to`. Interrupts are off; returns when `from` gets the CPU
/// back.
pub(super) fn switch(from: &'static Thread, to: Queued) {
    let to = to.thread();
    let save = from.stack_pointer.get();
    // SAFETY: `to` was taken from this CPU's queue, so it runs nowhere else and its registers are where
    // `saved` says. `from` goes on from here, with the callee-saved registers that the calling convention
    // promises, when its stack pointer is used again.
    unsafe {
        match prepare_context(to) {
            Some(context) => switch_to_context(save, context),
            None => switch_stack(save, *to.stack_pointer.get()),
        }
    }
}

/// Goes on with `to` and never comes back to the caller's stack. Interrupts are off.
pub(super) fn enter(to: Queued) -> ! {
    let to = to.thread();
    // SAFETY: As in `switch`.
    unsafe {
        match prepare_context(to) {
            Some(context) => resume_context(context),
            None => continue_on_stack(0, *to.stack_pointer.get()),
        }
    }
}

/// The context to resume if the thread was preempted, after the return hook has seen it.
fn prepare_context(to: &'static Thread) -> Option<*const InterruptContext> {
    // SAFETY: The thread is marked as running on this CPU, interrupts are off, so nobody else uses these
    // fields.
    let inner = unsafe { &mut *to.inner.get() };
    if inner.saved != Saved::Preempted {
        return None;
    }
    inner.saved = Saved::OnStack;
    // SAFETY: As above.
    let context = unsafe { &mut *to.save_area.get() };
    interrupts::run_return_hook(&to.header, context);
    Some(context)
}
