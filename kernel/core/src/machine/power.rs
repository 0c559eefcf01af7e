//! Ending the machine: power off, reset, and telling QEMU how a test or a fault ended.

use super::acpi::{Platform, Power};
use super::sync::InterruptLock;
use super::{clock, console};
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

static POWER: InterruptLock<Power> = InterruptLock::new(Power::NONE);

/// QEMU's `isa-debug-exit` device, as the lab configures it. QEMU's exit status is twice the value plus one.
const DEBUG_EXIT_PORT: u16 = 0xf4;

/// How a run under QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitStatus {
    /// All well: QEMU exits with 33.
    Success = 16,
    /// A kernel fault or a failed self-test: QEMU exits with 35.
    Failure = 17,
}

/// Notes how this machine is powered off and reset.
pub(super) fn start(platform: &Platform) {
    *POWER.lock() = platform.power;
}

/// Powers the machine off; a machine that can't is halted.
pub fn power_off() -> ! {
    console::flush();
    let power = *POWER.lock();
    const ACPI_MODE: u16 = 1;
    const SLEEP_ENABLE: u16 = 1 << 13;
    if let (Some((control, _)), Some((port, value))) = (power.power_off_a, power.enable) {
        // SAFETY: The PM1a control register and firmware's command port, as ACPI names them.
        unsafe {
            if Port::<u16>::new(control).read() & ACPI_MODE == 0 {
                Port::<u8>::new(port).write(value);
                clock::busy_wait_us(100_000);
            }
        }
    }
    for (port, sleep_type) in [power.power_off_a, power.power_off_b].into_iter().flatten() {
        // SAFETY: The PM1 control registers that ACPI names; this value ends the machine.
        unsafe { Port::<u16>::new(port).write(sleep_type << 10 | SLEEP_ENABLE) };
    }
    clock::busy_wait_us(500_000);
    halt()
}

/// Resets the machine: by ACPI, else by the chip set, else by the keyboard controller, else by a triple
/// fault.
pub fn reboot() -> ! {
    console::flush();
    if let Some((port, value)) = POWER.lock().reset {
        // SAFETY: The reset register that ACPI names.
        unsafe { Port::<u8>::new(port).write(value) };
        clock::busy_wait_us(50_000);
    }
    // SAFETY: The reset control register of PC chip sets, then the keyboard controller's reset line.
    unsafe {
        Port::<u8>::new(0xcf9).write(6_u8);
        clock::busy_wait_us(50_000);
        Port::<u8>::new(0x64).write(0xfe_u8);
    }
    clock::busy_wait_us(50_000);
    triple_fault()
}

/// Ends QEMU with a status if this is QEMU with its `isa-debug-exit` device; returns otherwise.
pub(super) fn debug_exit(status: ExitStatus) {
    // Under a hypervisor only: on a real machine the port may belong to something else.
    let hypervisor = core::arch::x86_64::__cpuid(1).ecx >> 31 & 1 == 1;
    if hypervisor {
        // SAFETY: The port of QEMU's exit device; nothing is there without it.
        unsafe { Port::<u32>::new(DEBUG_EXIT_PORT).write(status as u32) };
    }
}

/// Ends the machine with a status for whoever runs QEMU; powers off where that can't be told.
pub fn exit(status: ExitStatus) -> ! {
    console::flush();
    debug_exit(status);
    power_off()
}

/// Stops this CPU for good.
pub(super) fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

fn triple_fault() -> ! {
    let empty = x86_64::structures::DescriptorTablePointer {
        limit: 0,
        base: x86_64::VirtAddr::zero(),
    };
    // SAFETY: The machine is to be reset; with an empty interrupt table the next exception does that.
    unsafe {
        x86_64::instructions::tables::lidt(&empty);
        core::arch::asm!("ud2", options(noreturn));
    }
}
