//! Faults that need an instruction of their own.
//!
//! Each function returns only if the CPU raised nothing; the caller then panics, which is another cause than the one expected.

use core::arch::asm;

/// An address whose upper bits are not a sign extension (Intel SDM volume 1, 3.3.7.1).
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// Far above RAM's map, device memory and images: nothing is ever mapped there.
const UNMAPPED: u64 = 0x0000_7eee_eeee_e000;
/// MXCSR with everything masked but division by zero (Intel SDM volume 1, figure 10-3).
const MXCSR_DIVIDE: u32 = 0x1f80 & !(1 << 9);
/// The x87 control word with everything masked but division by zero (Intel SDM volume 1, figure 8-6).
const X87_DIVIDE: u16 = 0x037f & !(1 << 2);

/// #DE.
pub fn divide_error() {
    // SAFETY: Changes no memory; the exception ends the domain.
    unsafe { asm!("div ecx", inout("eax") 1 => _, inout("edx") 0 => _, in("ecx") 0) };
}

/// #DB after the next instruction.
pub fn single_step() {
    // SAFETY: Sets the trap flag; the exception ends the domain.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop") };
}

/// #BP.
pub fn breakpoint() {
    // SAFETY: Changes nothing; the exception ends the domain.
    unsafe { asm!("int3") };
}

/// #UD.
pub fn invalid_opcode() {
    // SAFETY: Changes nothing; the exception ends the domain.
    unsafe { asm!("ud2") };
}

/// #GP.
pub fn general_protection() {
    read(NON_CANONICAL);
}

/// #SS.
pub fn stack_segment() {
    // SAFETY: The stack pointer is put back if the push raises nothing; it can't succeed, so no memory changes.
    unsafe {
        asm!("mov {kept}, rsp", "mov rsp, {bad}", "push rax", "mov rsp, {kept}", kept = out(reg) _, bad = in(reg) NON_CANONICAL)
    };
}

/// #PF of a read from 0.
pub fn null_read() {
    read(0);
}

/// #PF of a call of 0.
pub fn null_call() {
    call(0);
}

/// #PF of a write to where nothing is.
pub fn unmapped_write() {
    write(UNMAPPED);
}

/// #PF of a write to this very function.
pub fn own_code_write() {
    write((own_code_write as fn()) as usize as u64);
}

/// #PF of a write to the kernel's code.
pub fn kernel_code_write() {
    write(abi::sys().now_ns as usize as u64);
}

/// #PF of a call of data: a `ret` on the stack.
pub fn data_call() {
    let code = core::hint::black_box([0xc3_u8; 16]);
    call(code.as_ptr().addr() as u64);
}

/// #MF.
pub fn x87() {
    let control = X87_DIVIDE;
    // SAFETY: Uses the x87 stack only, which no compiled code does here; the exception ends the domain.
    unsafe {
        asm!("fninit", "fldcw word ptr [{}]", "fld1", "fldz", "fdivp st(1), st", "fwait", "fninit", in(reg) &raw const control)
    };
}

/// #XM.
pub fn simd() {
    let (unmasked, masked) = (MXCSR_DIVIDE, 0x1f80_u32);
    // SAFETY: Changes two vector registers, as said, and the control word, which is put back; the exception ends the domain.
    unsafe {
        asm!(
            "ldmxcsr [{unmasked}]",
            "divss {one}, {zero}",
            "ldmxcsr [{masked}]",
            unmasked = in(reg) &raw const unmasked,
            masked = in(reg) &raw const masked,
            one = inout(xmm_reg) 1.0_f32 => _,
            zero = in(xmm_reg) 0.0_f32,
        );
    }
    // SAFETY: Enters where #XM does, which has no error code either; the CPU allows it at level 0.
    unsafe { asm!("int 19") };
}

fn read(address: u64) {
    // SAFETY: A read changes nothing; the address is one that can't be read.
    unsafe { asm!("mov al, [{}]", in(reg) address, out("al") _) };
}

fn write(address: u64) {
    // SAFETY: Nobody can write at this address, so nothing changes; that the CPU refuses is what is tested.
    unsafe { asm!("mov byte ptr [{}], 0x90", in(reg) address) };
}

fn call(address: u64) {
    // SAFETY: What is there is not mapped, or a `ret` that can't be executed; had it been executed, it would have come back.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) };
}
