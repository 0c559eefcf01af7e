//! PCI Express: which functions there are, switching them on and off, their registers, their interrupts.
//!
//! Configuration space is reached through ECAM (PCI Express Base 5.0, chapter 7.2.2). What its contents mean
//! is
//! `crate::pci_configuration`'s; who may use which function is decided above.

mod msix;

use super::acpi::{ConfigurationSpace, Platform};
use super::memory;
use super::sync::InterruptLock;
use crate::pci_configuration::{self as configuration, BAR_COUNT, MemoryBar, MsixTable, command};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};
pub use msix::Interrupt;

/// Bytes of configuration space of one function, and of one bus.
const FUNCTION_BYTES: usize = 4096;
const BUS_BYTES: usize = 256 * FUNCTION_BYTES;

/// Where a function is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Segment group.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device on the bus, 0 to 31.
    pub device: u8,
    /// Function of the device, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment, self.bus, self.device, self.function
        )
    }
}

/// Why a function can't do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// It has no memory BAR of this number, or firmware gave that no address.
    NoBar(u8),
    /// It has no MSI-X table, or no such entry in it.
    NoInterrupt(u16),
    /// There is no such CPU, or all of its vectors are taken.
    NoVector,
    /// No memory for mapping its registers.
    OutOfMemory,
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBar(bar) => write!(f, "no usable memory BAR {bar}"),
            Self::NoInterrupt(entry) => write!(f, "no MSI-X entry {entry}"),
            Self::NoVector => f.write_str("no interrupt vector left on that CPU"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

/// One function of a device.
pub struct Function {
    address: Address,
    identity: configuration::Identity,
    bars: [Option<MemoryBar>; BAR_COUNT],
    msix: Option<MsixTable>,
    /// Its configuration space. The lock keeps changes of one register together.
    registers: InterruptLock<Configuration>,
}

/// The mapped configuration space of one function.
struct Configuration(*mut u32);

// SAFETY: The mapping stays for good; reading and writing it is as good on one CPU as on another.
unsafe impl Send for Configuration {}

impl configuration::Registers for Configuration {
    fn read(&self, offset: u16) -> u32 {
        // SAFETY: The page of this function is mapped for good; the offset is below 4096 by the trait's
        // contract.
        unsafe { self.0.add(usize::from(offset & 0xffc) / 4).read_volatile() }
    }

    fn write(&self, offset: u16, value: u32) {
        // SAFETY: As in `read`. What a device does then is bounded by bus mastering, which only
        // `set_bus_master` turns on.
        unsafe { self.0.add(usize::from(offset & 0xffc) / 4).write_volatile(value) }
    }
}

static FUNCTIONS: AtomicPtr<Vec<Function>> = AtomicPtr::new(core::ptr::null_mut());

/// All functions, in the order of their addresses.
pub fn functions() -> &'static [Function] {
    // SAFETY: Only `enumerate` stores, a leaked vector that is never changed again.
    unsafe { FUNCTIONS.load(Ordering::Acquire).as_ref() }.map_or(&[], Vec::as_slice)
}

/// Finds all functions. Called once.
pub(super) fn enumerate(platform: &Platform) {
    let mut found = Vec::new();
    for space in &platform.configuration_spaces {
        scan_bus(space, space.first_bus, 0, &mut found);
    }
    found.sort_by_key(|function| {
        (
            function.address.segment,
            function.address.bus,
            function.address.device,
        )
    });
    for function in &found {
        let (class, subclass, _) = function.identity.class;
        log::debug!(
            "PCI {}: {:04x}:{:04x} class {class:02x}{subclass:02x}{}",
            function.address,
            function.identity.vendor,
            function.identity.device,
            if function.msix.is_some() { ", MSI-X" } else { "" }
        );
    }
    for function in &found {
        for (number, bar) in function.bars.iter().enumerate() {
            if bar.is_some_and(|bar| bar.address == 0) {
                log::warn!(
                    "PCI {}: firmware gave BAR {number} no address; it can't be used",
                    function.address
                );
            }
        }
    }
    FUNCTIONS.store(Box::into_raw(Box::new(found)), Ordering::Release);
}

/// Deepest nesting of bridges that is followed.
const MAX_DEPTH: usize = 8;

fn scan_bus(space: &ConfigurationSpace, bus: u8, depth: usize, found: &mut Vec<Function>) {
    if bus < space.first_bus || bus > space.last_bus || depth > MAX_DEPTH {
        return;
    }
    let base = space.physical + u64::from(bus) * BUS_BYTES as u64;
    let Some(base) = memory::map_device(base, BUS_BYTES) else {
        log::warn!("no memory to look at PCI bus {bus}");
        return;
    };
    for device in 0..32 {
        for function in 0..8 {
            let index = usize::from(device) * 8 + usize::from(function);
            // In range: the bus has room for 256 functions.
            let registers = Configuration(base.wrapping_add(index * FUNCTION_BYTES).cast());
            let Some(identity) = configuration::identity(&registers) else {
                if function == 0 {
                    break;
                }
                continue;
            };
            let multifunction = configuration::is_multifunction(&registers);
            let secondary = configuration::secondary_bus(&registers);
            let bars = configuration::memory_bars(&registers);
            // No device masters the bus before somebody claims it.
            if secondary.is_none() {
                configuration::update_command(&registers, command::NO_LEGACY_INTERRUPT, command::BUS_MASTER);
            }
            let msix = configuration::msix_table(&registers, &bars);
            let address = Address {
                segment: space.segment,
                bus,
                device,
                function,
            };
            let registers = InterruptLock::new(registers);
            found.push(Function {
                address,
                identity,
                bars,
                msix,
                registers,
            });
            if let Some(secondary) = secondary.filter(|&secondary| secondary > bus) {
                scan_bus(space, secondary, depth + 1, found);
            }
            if function == 0 && !multifunction {
                break;
            }
        }
    }
}

/// A BAR's registers, mapped uncached for good.
#[derive(Clone, Copy, Debug)]
pub struct MappedBar {
    /// The first register.
    pub base: *mut u8,
    /// Length in bytes.
    pub length: usize,
}

impl Function {
    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Vendor number.
    pub fn vendor(&self) -> u16 {
        self.identity.vendor
    }

    /// The vendor's number for the device.
    pub fn device(&self) -> u16 {
        self.identity.device
    }

    /// Class, subclass and programming interface.
    pub fn class(&self) -> (u8, u8, u8) {
        self.identity.class
    }

    /// The memory BAR of this number.
    pub fn bar(&self, number: u8) -> Option<MemoryBar> {
        self.bars.get(usize::from(number)).copied().flatten()
    }

    /// Maps a memory BAR; the same one asked for again is at the same address.
    pub fn map_bar(&self, number: u8) -> Result<MappedBar, PciError> {
        let bar = self
            .bar(number)
            .filter(|bar| bar.address != 0)
            .ok_or(PciError::NoBar(number))?;
        let length = usize::try_from(bar.length).map_err(|_| PciError::NoBar(number))?;
        let base = memory::map_device(bar.address, length).ok_or(PciError::OutOfMemory)?;
        Ok(MappedBar { base, length })
    }

    /// Whether the device answers on its memory BARs.
    pub fn set_memory_access(&self, enabled: bool) {
        self.set(command::MEMORY, enabled);
    }

    /// Whether the device may read and write memory on its own. After it is turned off and this has returned,
    /// no further write of the device begins. Says whether it was otherwise before.
    pub fn set_bus_master(&self, enabled: bool) -> bool {
        self.set(command::BUS_MASTER, enabled)
    }

    /// Sets or clears bits of the command register; says whether that changed any.
    fn set(&self, bits: u32, enabled: bool) -> bool {
        let registers = self.registers.lock();
        let (set, clear) = if enabled { (bits, 0) } else { (0, bits) };
        if !configuration::update_command(&*registers, set, clear) {
            return false;
        }
        // Reading back waits until the write has arrived, and pushes the device's own writes before it.
        configuration::identity(&*registers);
        true
    }

    /// Routes an MSI-X entry to a CPU: `handler` runs there, in interrupt context, whenever the device raises
    /// it, until the returned value is dropped. Memory access must be on. An entry that is routed again goes
    /// to the new place.
    pub fn route_interrupt(
        &'static self,
        entry: u16,
        cpu: u32,
        handler: impl Fn() + Send + Sync + 'static,
    ) -> Result<Interrupt, PciError> {
        Interrupt::route(self, entry, cpu, handler)
    }

    /// Turns all MSI-X interrupts of the function off.
    pub fn disable_interrupts(&self) {
        if let Some(table) = &self.msix {
            configuration::set_msix(&*self.registers.lock(), table, false);
        }
    }
}
