//! I/O APICs: they bring the interrupts of legacy devices to a CPU. Only COM1 uses one; everything else has
//! MSI-X.

use super::acpi::Platform;
use super::sync::InterruptLock;
use super::{apic, cpu, memory};
use alloc::vec::Vec;

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;

struct IoApic {
    registers: *mut u8,
    /// First global interrupt number.
    base: u32,
    inputs: u32,
}

// SAFETY: The registers are reached only under the lock on ROUTES.
unsafe impl Send for IoApic {}

struct Routes {
    controllers: Vec<IoApic>,
    overrides: Vec<super::acpi::InterruptOverride>,
}

static ROUTES: InterruptLock<Routes> = InterruptLock::new(Routes {
    controllers: Vec::new(),
    overrides: Vec::new(),
});

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: The page of an I/O APIC that ACPI named; index register at 0, data register at 0x10.
        unsafe {
            self.registers.cast::<u32>().write_volatile(register);
            self.registers.add(0x10).cast::<u32>().read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: As in `read`.
        unsafe {
            self.registers.cast::<u32>().write_volatile(register);
            self.registers.add(0x10).cast::<u32>().write_volatile(value);
        }
    }
}

/// Masks every input.
pub(super) fn start(platform: &Platform) {
    apic::disable_legacy_controllers();
    let mut routes = ROUTES.lock();
    for description in &platform.io_apics {
        let Some(registers) = memory::map_device(description.physical, 4096) else {
            continue;
        };
        let mut controller = IoApic {
            registers,
            base: description.first_interrupt,
            inputs: 0,
        };
        controller.inputs = (controller.read(VERSION) >> 16 & 0xff) + 1;
        for input in 0..controller.inputs {
            controller.write(REDIRECTION + 2 * input, MASKED);
        }
        routes.controllers.push(controller);
    }
    routes.overrides.extend_from_slice(&platform.interrupt_overrides);
}

/// Routes an ISA interrupt to a vector of a CPU; false if no controller has it.
pub(super) fn route_isa(interrupt: u8, vector: u8, cpu: u32) -> bool {
    let Some(cpu) = cpu::get(cpu) else { return false };
    let routes = ROUTES.lock();
    let found = routes
        .overrides
        .iter()
        .find(|entry| entry.isa_interrupt == interrupt);
    let (global, low_active, level) = match found {
        Some(entry) => (entry.global_interrupt, entry.low_active, entry.level_triggered),
        None => (u32::from(interrupt), false, false),
    };
    let owner = routes
        .controllers
        .iter()
        .find(|c| (c.base..c.base + c.inputs).contains(&global));
    let Some(controller) = owner else { return false };
    let register = REDIRECTION + 2 * (global - controller.base);
    controller.write(register + 1, cpu.apic_id << 24);
    controller.write(
        register,
        u32::from(vector) | u32::from(low_active) << 13 | u32::from(level) << 15,
    );
    true
}
