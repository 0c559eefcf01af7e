//! The local APIC of each CPU: end of interrupt, the one-shot timer, interrupts to other CPUs (Intel SDM
//! volume 3, chapter 11). Uses x2APIC mode where the processor has it, memory-mapped registers otherwise.

use super::interrupts::{SPURIOUS_VECTOR, TIMER_VECTOR};
use super::memory;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

const APIC_BASE_MSR: u32 = 0x1b;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const X2APIC_MSRS: u32 = 0x800;

/// Registers by their offset in the memory-mapped page.
mod register {
    pub const ID: u32 = 0x20;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const END_OF_INTERRUPT: u32 = 0xb0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const COMMAND: u32 = 0x300;
    pub const COMMAND_HIGH: u32 = 0x310;
    pub const TIMER: u32 = 0x320;
    pub const LINT0: u32 = 0x350;
    pub const ERROR: u32 = 0x370;
    pub const INITIAL_COUNT: u32 = 0x380;
    pub const CURRENT_COUNT: u32 = 0x390;
    pub const DIVIDE: u32 = 0x3e0;
}

const MASKED: u32 = 1 << 16;
const COMMAND_PENDING: u32 = 1 << 12;
const DIVIDE_BY_16: u32 = 3;
/// The timer counts bus clocks divided by this.
pub const TIMER_DIVISOR: u64 = 16;

static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static X2APIC: AtomicBool = AtomicBool::new(false);

fn read(register: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: In x2APIC mode these MSRs are the local APIC's registers; those read here have no side
        // effect.
        return unsafe { Msr::new(X2APIC_MSRS + register / 16).read() } as u32;
    }
    let base = REGISTERS.load(Ordering::Relaxed);
    // SAFETY: `map` has mapped the local APIC's page, and `register` is an offset in it.
    unsafe { base.add(register as usize).cast::<u32>().read_volatile() }
}

fn write(register: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: As in `read`; the values written are those the SDM defines, so no general protection fault
        // comes.
        return unsafe { Msr::new(X2APIC_MSRS + register / 16).write(value.into()) };
    }
    let base = REGISTERS.load(Ordering::Relaxed);
    // SAFETY: As in `read`.
    unsafe { base.add(register as usize).cast::<u32>().write_volatile(value) }
}

/// Finds the local APIC and turns it on, in x2APIC mode if the processor has it. Called on each CPU.
fn map() {
    let has_x2apic = core::arch::x86_64::__cpuid(1).ecx >> 21 & 1 == 1;
    let mut base_register = Msr::new(APIC_BASE_MSR);
    // SAFETY: Every processor with long mode has this MSR; only the enable bits change, in the order that the
    // SDM asks for.
    let base = unsafe {
        let base = base_register.read() | APIC_BASE_ENABLE;
        base_register.write(base);
        if has_x2apic {
            base_register.write(base | APIC_BASE_X2APIC);
        }
        base
    };
    X2APIC.store(has_x2apic, Ordering::Relaxed);
    if !has_x2apic && REGISTERS.load(Ordering::Relaxed).is_null() {
        match memory::map_device(base & 0x000f_ffff_ffff_f000, 4096) {
            Some(registers) => REGISTERS.store(registers, Ordering::Relaxed),
            None => panic!("no memory to map the local APIC"),
        }
    }
}

/// The boot CPU's APIC number. Maps the APIC.
pub(super) fn boot_cpu_id() -> u32 {
    map();
    id()
}

fn id() -> u32 {
    let id = read(register::ID);
    if X2APIC.load(Ordering::Relaxed) {
        id
    } else {
        id >> 24
    }
}

/// Sets this CPU's local APIC up: everything masked but what is sent to it, and the timer stopped. Called on
/// each CPU.
pub(super) fn start() {
    map();
    write(register::TASK_PRIORITY, 0);
    write(register::LINT0, MASKED);
    write(register::ERROR, MASKED);
    write(register::DIVIDE, DIVIDE_BY_16);
    write(register::TIMER, u32::from(TIMER_VECTOR));
    write(register::INITIAL_COUNT, 0);
    write(register::SPURIOUS, 1 << 8 | u32::from(SPURIOUS_VECTOR));
}

/// Masks the legacy interrupt controllers, whose vectors would collide with exceptions.
pub(super) fn disable_legacy_controllers() {
    for (port, value) in [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0x20),
        (0xa1, 0x28),
        (0x21, 4),
        (0xa1, 2),
    ] {
        write_port(port, value);
    }
    for (port, value) in [(0x21, 1), (0xa1, 1), (0x21, 0xff), (0xa1, 0xff)] {
        write_port(port, value);
    }
}

fn write_port(port: u16, value: u8) {
    // SAFETY: The ports of the two 8259 controllers, which reach nothing but interrupt delivery.
    unsafe { Port::<u8>::new(port).write(value) }
}

/// Tells the local APIC that the handler is done.
pub(super) fn end_of_interrupt() {
    write(register::END_OF_INTERRUPT, 0);
}

/// Starts the timer: one interrupt after `ticks` ticks; 0 stops it.
pub(super) fn set_timer(ticks: u32) {
    write(register::INITIAL_COUNT, ticks);
}

/// Ticks until the timer fires.
pub(super) fn timer_remaining() -> u32 {
    read(register::CURRENT_COUNT)
}

/// What is sent to another CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An interrupt of this vector.
    Vector(u8),
    /// The non-maskable interrupt.
    NonMaskable,
    /// The first message that starts a CPU.
    Init,
    /// The second: the CPU begins at this page (physical address / 4096) in real mode.
    StartUp(u8),
}

fn command(message: Message) -> u32 {
    match message {
        Message::Vector(vector) => u32::from(vector) | 1 << 14,
        Message::NonMaskable => 4 << 8 | 1 << 14,
        Message::Init => 5 << 8 | 1 << 14,
        Message::StartUp(page) => 6 << 8 | 1 << 14 | u32::from(page),
    }
}

fn send_command(destination: u32, command: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        let value = u64::from(destination) << 32 | u64::from(command);
        // SAFETY: The interrupt command register in x2APIC mode; `command` is one of those that the SDM
        // defines.
        return unsafe { Msr::new(X2APIC_MSRS + register::COMMAND / 16).write(value) };
    }
    // The two halves belong together, so no interrupt may send another command in between.
    super::sync::without_interrupts(|| {
        while read(register::COMMAND) & COMMAND_PENDING != 0 {
            core::hint::spin_loop();
        }
        write(register::COMMAND_HIGH, destination << 24);
        write(register::COMMAND, command);
    });
}

/// Sends a message to the CPU with this APIC number.
pub(super) fn send(apic_id: u32, message: Message) {
    send_command(apic_id, command(message));
}

/// Sends a message to every other CPU.
pub(super) fn send_to_others(message: Message) {
    const ALL_BUT_SELF: u32 = 3 << 18;
    send_command(0, command(message) | ALL_BUT_SELF);
}
