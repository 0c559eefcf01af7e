//! MSI-X: a device's interrupts as writes to a CPU's local APIC (PCI Local Bus 3.0, chapter 6.8.2; Intel SDM
//! volume 3, chapter 11.11).

use super::super::interrupts::Vector;
use super::super::memory;
use super::{Function, PciError};
use crate::pci_configuration::{self as configuration, MsixTable};

/// Where writes turn into interrupts; the CPU's APIC number is in bits 12 to 19.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
const MASKED: u32 = 1;
const ENTRY_BYTES: u32 = 16;

/// A routed interrupt. Dropping it masks the entry and removes the handler, which doesn't run any more
/// afterwards.
pub struct Interrupt {
    entry: *mut u32,
    /// Freed after the entry has been masked.
    _vector: Vector,
}

// SAFETY: The entry is mapped for good, and writing it is as good on one CPU as on another.
unsafe impl Send for Interrupt {}
// SAFETY: A shared reference offers only the setting of one mask word, which the device reads as a whole.
unsafe impl Sync for Interrupt {}

impl Interrupt {
    pub(super) fn route(
        function: &'static Function,
        entry: u16,
        cpu: u32,
        handler: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, PciError> {
        let table = function
            .msix
            .filter(|table| entry < table.entries)
            .ok_or(PciError::NoInterrupt(entry))?;
        let registers = entry_registers(function, &table, entry)?;
        let vector = Vector::allocate(cpu, handler).ok_or(PciError::NoVector)?;
        // An address has room for 8 bits of APIC number.
        let apic_id = u8::try_from(vector.apic_id()).map_err(|_| PciError::NoVector)?;
        let interrupt = Self {
            entry: registers,
            _vector: vector,
        };
        interrupt.write(3, MASKED);
        interrupt.write(0, MESSAGE_ADDRESS | u32::from(apic_id) << 12);
        interrupt.write(1, 0);
        interrupt.write(2, interrupt._vector.number().into());
        configuration::set_msix(&*function.registers.lock(), &table, true);
        interrupt.set_masked(false);
        Ok(interrupt)
    }

    /// Holds the interrupt back, or lets it (and one that came meanwhile) through.
    pub fn set_masked(&self, masked: bool) {
        self.write(3, if masked { MASKED } else { 0 });
    }

    fn write(&self, word: usize, value: u32) {
        // SAFETY: One of the four words of a table entry that lies inside of its BAR
        // (`configuration::msix_table`).
        unsafe { self.entry.add(word).write_volatile(value) }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.set_masked(true);
    }
}

fn entry_registers(function: &Function, table: &MsixTable, entry: u16) -> Result<*mut u32, PciError> {
    let bar = function
        .bar(table.bar)
        .filter(|bar| bar.address != 0)
        .ok_or(PciError::NoBar(table.bar))?;
    let physical = bar.address + u64::from(table.offset + u32::from(entry) * ENTRY_BYTES);
    let registers = memory::map_device(physical, ENTRY_BYTES as usize).ok_or(PciError::OutOfMemory)?;
    Ok(registers.cast())
}
