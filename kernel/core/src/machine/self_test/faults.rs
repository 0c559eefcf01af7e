//! Tests of exceptions, and of the hooks through which a domain's death redirects its threads.

use super::super::interrupts::{self, Exception, InterruptContext};
use super::super::memory::{Frames, Stack, VirtualArea};
use super::super::paging::{self, Access};
use super::super::thread::{self, Builder, ThreadId};
use super::super::{cpu, smp};
use super::wait_for;
use abi::ThreadHeader;
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The exception that was taken last: vector plus one, and address.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static TAKEN_ADDRESS: AtomicU64 = AtomicU64::new(0);
/// The thread whose exceptions are taken, and the lowest address of its stack.
static VICTIM: AtomicU64 = AtomicU64::new(0);
static VICTIM_STACK: AtomicU64 = AtomicU64::new(0);

extern "C" fn end_thread() -> ! {
    thread::exit()
}

/// Makes an interrupted thread end itself: on its own stack, below its red zone.
fn redirect_to_end(context: &mut InterruptContext, stack_pointer: u64) {
    context.rip = (end_thread as extern "C" fn() -> !) as usize as u64;
    context.rsp = (stack_pointer & !15) - 8;
}

fn take_exception(thread: &ThreadHeader, exception: Exception, context: &mut InterruptContext) -> bool {
    if thread.id.load(Ordering::Relaxed) != VICTIM.load(Ordering::Acquire) {
        return false;
    }
    TAKEN_ADDRESS.store(exception.address.unwrap_or(0), Ordering::Release);
    TAKEN.store(u64::from(exception.vector) + 1, Ordering::Release);
    // After an overflow the stack pointer is in the guard page: back to where there is stack.
    let bottom = VICTIM_STACK.load(Ordering::Acquire);
    let stack_pointer = (context.rsp - 128).max(bottom + 4096);
    redirect_to_end(context, stack_pointer);
    true
}

/// Runs `entry` on a thread that ends with an exception; its vector and address.
fn exception_of(entry: thread::Entry, argument: usize, cpu: u32) -> (u64, u64) {
    interrupts::set_exception_handler(take_exception);
    TAKEN.store(0, Ordering::Release);
    let prepare = |header: &ThreadHeader, stack: &Stack| {
        VICTIM_STACK.store(stack.bottom() as u64, Ordering::Release);
        VICTIM.store(header.id.load(Ordering::Relaxed), Ordering::Release);
    };
    let builder = Builder::new("victim")
        .cpu(cpu)
        .stack_bytes(8 * 4096)
        .prepare(&prepare);
    let Ok(id) = builder.spawn(entry, argument) else {
        panic!("no thread")
    };
    wait_for("the victim's end", || !thread::unpark(id));
    interrupts::clear_exception_handler();
    let vector = TAKEN.load(Ordering::Acquire).checked_sub(1);
    assert!(vector.is_some(), "no exception came");
    (vector.unwrap_or(0), TAKEN_ADDRESS.load(Ordering::Acquire))
}

extern "C" fn invalid_opcode(_: usize) {
    // SAFETY: The exception is expected, and the thread never comes back here.
    unsafe { asm!("ud2") };
}

extern "C" fn divide_by_zero(_: usize) {
    // SAFETY: The exception is expected, and the thread never comes back here.
    unsafe {
        asm!("xor edx, edx", "xor eax, eax", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _)
    };
}

extern "C" fn write_to(address: usize) {
    // SAFETY: The exception is expected: nobody maps this address writable.
    unsafe { (address as *mut u8).write_volatile(0x90) };
}

pub fn exceptions_can_be_taken() {
    for cpu in 0..cpu::count() {
        assert_eq!(exception_of(invalid_opcode, 0, cpu).0, 6);
        assert_eq!(exception_of(divide_by_zero, 0, cpu).0, 0);
        assert_eq!(exception_of(write_to, 8, cpu), (14, 8));
    }
}

#[inline(never)]
extern "C" fn recurse(depth: usize) {
    let frame = core::hint::black_box([depth; 64]);
    if core::hint::black_box(true) {
        recurse(depth + 1);
    }
    core::hint::black_box(frame);
}

pub fn stack_overflow_hits_guard() {
    let (vector, _) = exception_of(recurse, 0, cpu::count() - 1);
    assert_eq!(vector, 14);
}

pub fn code_cannot_be_written() {
    let Ok(run) = Frames::allocate(1, 1) else {
        panic!("no frame")
    };
    let physical = run.physical();
    // SAFETY: Owned. The code returns 42.
    unsafe {
        run.as_pointer()
            .copy_from_nonoverlapping([0xb8, 42, 0, 0, 0, 0xc3].as_ptr(), 6)
    };
    let Ok(mut area) = VirtualArea::reserve(1) else {
        panic!("no area")
    };
    assert!(area.map(0, run, Access::ReadExecute).is_ok());
    // SAFETY: The page holds this very function.
    let code = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u32>(area.start()) };
    assert_eq!(code(), 42);
    paging::check_write_xor_execute();
    assert_eq!(exception_of(write_to, area.start(), 0), (14, area.start() as u64));
    let alias = paging::physical_to_virtual::<u8>(physical).addr();
    assert_eq!(
        exception_of(write_to, alias, cpu::count() - 1),
        (14, alias as u64)
    );
    drop(area);
    // SAFETY: The frame is free and its alias writable again; what is free may be overwritten with what it
    // holds.
    unsafe {
        let alias = alias as *mut u8;
        alias.write_volatile(alias.read_volatile());
    }
    // SAFETY: Reads two instructions of the kernel's own code.
    let own = (code_cannot_be_written as fn()) as usize;
    assert_eq!(exception_of(write_to, own, 0), (14, own as u64));
}

static REDIRECTED: AtomicU64 = AtomicU64::new(0);
const MARK: u64 = 0x7e57;

fn redirect_marked(thread: &ThreadHeader, context: &mut InterruptContext) {
    // The mark is in `pending`, which has no other use without domains.
    if u64::from(thread.pending.load(Ordering::Relaxed)) == MARK && REDIRECTED.load(Ordering::Acquire) == 0 {
        return;
    }
    if u64::from(thread.pending.load(Ordering::Relaxed)) == MARK {
        thread.pending.store(0, Ordering::Relaxed);
        let stack_pointer = context.rsp - 128;
        redirect_to_end(context, stack_pointer);
    }
}

extern "C" fn spin_for_ever(_: usize) {
    loop {
        core::hint::spin_loop();
    }
}

/// Ends the machine with a panic; shows what a fault report looks like.
pub fn panic_on_purpose() -> ! {
    panic!("a panic on purpose");
}

/// Ends the machine with a page fault in the kernel.
pub fn fault_on_purpose() {
    write_to(8);
}

/// Spinning threads, two on each CPU so that one runs and one is preempted, are all ended by one broadcast.
pub fn return_hook_redirects() {
    interrupts::set_return_hook(redirect_marked);
    REDIRECTED.store(0, Ordering::Release);
    let mut spinners: Vec<ThreadId> = Vec::new();
    for index in 0..2 * cpu::count() {
        let prepare = |header: &ThreadHeader, _: &Stack| header.pending.store(MARK as u32, Ordering::Relaxed);
        let builder = Builder::new("spinner")
            .cpu(index % cpu::count())
            .prepare(&prepare);
        match builder.spawn(spin_for_ever, 0) {
            Ok(id) => spinners.push(id),
            Err(error) => panic!("no thread: {error}"),
        }
    }
    wait_for("spinners to run", || {
        let all = thread::list();
        spinners
            .iter()
            .all(|id| all.iter().any(|thread| thread.id == *id && thread.run_ns > 0))
    });
    REDIRECTED.store(1, Ordering::Release);
    smp::broadcast_and_wait();
    wait_for("spinners to end", || {
        spinners.iter().all(|&id| !thread::unpark(id))
    });
    interrupts::clear_return_hook();
}
