//! Where exceptions and interrupts enter, and what they turn into.
//!
//! Every vector saves the whole context on an interrupt stack (IST) and comes to [`interrupt_entry`].
//! Exceptions go to the registered [`ExceptionHandler`] first, which may make one the death of a domain by
//! rewriting the context; what it doesn't take is a kernel fault. Interrupts run their handler, then the
//! scheduler may switch threads (`thread::scheduler::interrupt_exit`), and the registered [`ReturnHook`] sees
//! every context before it resumes.

use super::cpu::{self, Cpu, InterruptStack};
use super::sync::InterruptLock;
use super::thread::scheduler;
use super::{apic, fault, smp};
use abi::ThreadHeader;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering};
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable};

/// First vector for devices; below are exceptions and the legacy interrupt controller's spurious ones.
const FIRST_DEVICE_VECTOR: u8 = 0x30;
/// How many vectors devices have on each CPU.
pub const DEVICE_VECTORS: usize = 0xb0;
/// The local timer.
pub const TIMER_VECTOR: u8 = 0xf0;
/// Another CPU made a thread runnable here.
pub const RESCHEDULE_VECTOR: u8 = 0xf1;
/// Another CPU waits for an answer (`smp::broadcast_and_wait`).
pub const BROADCAST_VECTOR: u8 = 0xf2;
/// What the local APIC raises when an interrupt has gone away.
pub const SPURIOUS_VECTOR: u8 = 0xff;

const NMI_VECTOR: u64 = 2;
const DOUBLE_FAULT_VECTOR: u64 = 8;
const PAGE_FAULT_VECTOR: u64 = 14;
const MACHINE_CHECK_VECTOR: u64 = 18;
/// The bit of the flags register that lets interrupts in.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// Everything of an interrupted context: it resumes with exactly these values, so whoever changes them
/// changes where and how it goes on.
#[repr(C, align(16))]
#[derive(Clone)]
pub struct InterruptContext {
    /// x87 and SSE state as FXSAVE writes it.
    pub vector_state: [u8; 512],
    /// General registers.
    pub r15: u64,
    /// General register.
    pub r14: u64,
    /// General register.
    pub r13: u64,
    /// General register.
    pub r12: u64,
    /// General register.
    pub r11: u64,
    /// General register.
    pub r10: u64,
    /// General register.
    pub r9: u64,
    /// General register.
    pub r8: u64,
    /// Frame pointer.
    pub rbp: u64,
    /// First argument.
    pub rdi: u64,
    /// Second argument.
    pub rsi: u64,
    /// Third argument.
    pub rdx: u64,
    /// Fourth argument.
    pub rcx: u64,
    /// General register.
    pub rbx: u64,
    /// Return value.
    pub rax: u64,
    /// The vector.
    pub vector: u64,
    /// The exception's error code; 0 for those that have none.
    pub error: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer. Below it are 128 bytes that the interrupted code may be using (the red zone).
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

impl InterruptContext {
    /// All zeroes; nothing that could run.
    pub(super) const EMPTY: Self = Self {
        vector_state: [0; 512],
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rbp: 0,
        rdi: 0,
        rsi: 0,
        rdx: 0,
        rcx: 0,
        rbx: 0,
        rax: 0,
        vector: 0,
        error: 0,
        rip: 0,
        cs: 0,
        rflags: 0,
        rsp: 0,
        ss: 0,
    };
}

/// An exception, for the [`ExceptionHandler`].
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The vector (Intel SDM volume 3, table 6-1).
    pub vector: u8,
    /// The error code; 0 for vectors that have none.
    pub error: u64,
    /// The address that a page fault was about.
    pub address: Option<u64>,
}

/// Decides about an exception that came while interrupts were on: true if it has rewritten the context so
/// that the thread may resume, false if this is a fault of the kernel. Runs with interrupts off, on the
/// exception stack; must not block.
pub type ExceptionHandler = fn(&ThreadHeader, Exception, &mut InterruptContext) -> bool;

/// Sees each interrupted context of a thread before it resumes, and may rewrite it: at each return from an
/// interrupt, and when a preempted thread gets the CPU back. Runs with interrupts off; must not block.
pub type ReturnHook = fn(&ThreadHeader, &mut InterruptContext);

static EXCEPTION_HANDLER: AtomicUsize = AtomicUsize::new(0);
static RETURN_HOOK: AtomicUsize = AtomicUsize::new(0);

/// Registers what decides about exceptions.
pub fn set_exception_handler(handler: ExceptionHandler) {
    EXCEPTION_HANDLER.store(handler as usize, Ordering::Release);
}

/// Registers what sees contexts before they resume.
pub fn set_return_hook(hook: ReturnHook) {
    RETURN_HOOK.store(hook as usize, Ordering::Release);
}

/// Takes the exception handler away again, for the self-test.
pub(super) fn clear_exception_handler() {
    EXCEPTION_HANDLER.store(0, Ordering::Release);
}

/// Takes the return hook away again, for the self-test.
pub(super) fn clear_return_hook() {
    RETURN_HOOK.store(0, Ordering::Release);
}

/// How many interrupts a CPU has taken since it started.
pub fn count(cpu: u32) -> u64 {
    cpu::get(cpu).map_or(0, |cpu| cpu.interrupts.load(Ordering::Relaxed))
}

/// Runs the return hook for a thread.
pub(super) fn run_return_hook(thread: &ThreadHeader, context: &mut InterruptContext) {
    let hook = RETURN_HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: Only `set_return_hook` stores, and only functions of this type.
        let hook = unsafe { core::mem::transmute::<usize, ReturnHook>(hook) };
        hook(thread, context);
    }
}

core::arch::global_asm!(
    r#"
    .section .text.interrupts, "ax", @progbits

    /* 256 entries of 16 bytes. The processor pushes an error code for vectors 8, 10-14, 17, 21, 29 and 30. */
    .balign 16
    .global interrupt_stubs
    interrupt_stubs:
    .set vector, 0
    .rept 256
        .balign 16
        .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
        .else
            push 0
        .endif
        push vector
        jmp interrupt_common
        .set vector, vector + 1
    .endr

    interrupt_common:
        cld
        push rax
        push rbx
        push rcx
        push rdx
        push rsi
        push rdi
        push rbp
        push r8
        push r9
        push r10
        push r11
        push r12
        push r13
        push r14
        push r15
        sub rsp, 512
        fxsave64 [rsp]
        mov rdi, rsp
        call {entry}
        mov rdi, rsp

    /* Resumes the context at rdi. */
    .global resume_context
    resume_context:
        mov rsp, rdi
        fxrstor64 [rsp]
        add rsp, 512
        pop r15
        pop r14
        pop r13
        pop r12
        pop r11
        pop r10
        pop r9
        pop r8
        pop rbp
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rbx
        pop rax
        add rsp, 16
        iretq
    "#,
    entry = sym interrupt_entry,
);

// SAFETY: The label of the assembly above. Only its address is used.
unsafe extern "C" {
    static interrupt_stubs: [u8; 16];
}

static IDT: InterruptLock<Option<&'static InterruptDescriptorTable>> = InterruptLock::new(None);

fn stack_for(vector: usize) -> InterruptStack {
    match vector as u64 {
        NMI_VECTOR | DOUBLE_FAULT_VECTOR | MACHINE_CHECK_VECTOR => InterruptStack::Critical,
        0..32 => InterruptStack::Exception,
        _ => InterruptStack::Interrupt,
    }
}

fn build() -> &'static InterruptDescriptorTable {
    // All entries have the same shape (16 bytes: Intel SDM volume 3, figure 6-8), whatever handler type the
    // crate gives them.
    #[repr(C, align(16))]
    struct AlignedEntries([Entry<HandlerFunc>; 256]);
    const { assert!(size_of::<AlignedEntries>() == size_of::<InterruptDescriptorTable>()) };
    const { assert!(align_of::<AlignedEntries>() >= align_of::<InterruptDescriptorTable>()) };
    let mut entries = AlignedEntries([const { Entry::missing() }; 256]);
    for (vector, entry) in entries.0.iter_mut().enumerate() {
        let stub = (&raw const interrupt_stubs).addr() + vector * 16;
        // SAFETY: The stub saves everything, handles the vector's error code, and returns with iretq; each
        // stack index is that of a stack that `cpu::install` has put into this CPU's task segment.
        unsafe {
            entry
                .set_handler_addr(VirtAddr::new(stub as u64))
                .set_stack_index(stack_for(vector) as u16);
        }
    }
    let table = Box::leak(Box::new(entries));
    // SAFETY: The same size and alignment, and 256 entries of the same layout.
    unsafe { &*core::ptr::from_mut(table).cast::<InterruptDescriptorTable>() }
}

/// Loads the interrupt table on this CPU.
pub(super) fn load() {
    let table = *IDT.lock().get_or_insert_with(build);
    table.load();
}

extern "C" fn interrupt_entry(context: &mut InterruptContext) {
    let cpu = cpu::current();
    match context.vector {
        NMI_VECTOR => fault::halt_if_stopped(),
        vector @ 0..32 => exception(cpu, vector as u8, context),
        vector => interrupt(cpu, vector as u8, context),
    }
}

/// The one place where exceptions enter.
fn exception(cpu: &Cpu, vector: u8, context: &mut InterruptContext) {
    let address = (u64::from(vector) == PAGE_FAULT_VECTOR).then(Cr2::read_raw);
    let exception = Exception {
        vector,
        error: context.error,
        address,
    };
    if cpu.in_exception.swap(true, Ordering::Relaxed) {
        fault::report_exception(exception, context);
    }
    let handler = EXCEPTION_HANDLER.load(Ordering::Acquire);
    // SAFETY: The running thread's header lives as long as the thread runs; null before the scheduler starts.
    let thread = unsafe { cpu.current_header().as_ref() };
    // Trusted code alone runs with interrupts off: handlers, the scheduler, holders of locks. Whatever thread
    // they were entered from, an exception there is the kernel's own fault.
    let kernel_only = context.rflags & INTERRUPT_FLAG == 0 || u64::from(vector) == DOUBLE_FAULT_VECTOR;
    let taken = match thread {
        Some(thread) if handler != 0 && !kernel_only => {
            // SAFETY: Only `set_exception_handler` stores, and only functions of this type.
            let handler = unsafe { core::mem::transmute::<usize, ExceptionHandler>(handler) };
            handler(thread, exception, context)
        }
        _ => false,
    };
    if !taken {
        fault::report_exception(exception, context);
    }
    cpu.in_exception.store(false, Ordering::Relaxed);
}

fn interrupt(cpu: &'static Cpu, vector: u8, context: &mut InterruptContext) {
    smp::leave_idle(cpu);
    // Only this CPU counts, with interrupts off.
    let count = cpu.interrupts.load(Ordering::Relaxed);
    cpu.interrupts.store(count.wrapping_add(1), Ordering::Relaxed);
    let mut answered = None;
    match vector {
        TIMER_VECTOR => scheduler::timer_fired(cpu),
        RESCHEDULE_VECTOR => {}
        BROADCAST_VECTOR => answered = Some(smp::broadcast_received(cpu)),
        SPURIOUS_VECTOR => return,
        FIRST_DEVICE_VECTOR..TIMER_VECTOR => {
            let slot = cpu.handlers.get(usize::from(vector - FIRST_DEVICE_VECTOR));
            if let Some(handler) = slot.map(InterruptLock::lock).as_deref().and_then(Option::as_ref) {
                handler();
            }
            if cpu.halted.is_woken() {
                // The thread goes on where the CPU was halted, and what else is due comes with the timer's own interrupt.
                return apic::end_of_interrupt();
            }
        }
        _ => {}
    }
    apic::end_of_interrupt();
    scheduler::interrupt_exit(cpu, context, answered);
}

/// What runs when a device interrupts: in interrupt context, with interrupts off. It must be short and not
/// block.
pub type Handler = Box<dyn Fn() + Send + Sync>;

/// A vector on one CPU with its handler. Dropping it removes the handler, which doesn't run any more
/// afterwards.
pub struct Vector {
    cpu: &'static Cpu,
    slot: usize,
}

impl Vector {
    /// Takes a free vector of a CPU; `None` if there is no such CPU or it has none left.
    pub fn allocate(cpu: u32, handler: impl Fn() + Send + Sync + 'static) -> Option<Self> {
        let cpu = cpu::get(cpu)?;
        let handler: Handler = Box::new(handler);
        for (slot, entry) in cpu.handlers.iter().enumerate() {
            let mut entry = entry.lock();
            if entry.is_none() {
                *entry = Some(handler);
                return Some(Self { cpu, slot });
            }
        }
        None
    }

    /// The vector's number.
    pub fn number(&self) -> u8 {
        FIRST_DEVICE_VECTOR + self.slot as u8
    }

    /// The local APIC that it belongs to.
    pub(super) fn apic_id(&self) -> u32 {
        self.cpu.apic_id
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        let handler = self
            .cpu
            .handlers
            .get(self.slot)
            .and_then(|slot| slot.lock().take());
        drop(handler);
    }
}
