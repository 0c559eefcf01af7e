//! What ACPI says about the machine: CPUs, interrupt controllers, PCI configuration space, timers, power.
//!
//! The tables are parsed by the `acpi` crate. The one thing taken out of AML is the constant `\_S5` (power
//! off), by its encoding, so that no interpreter is needed.

use super::boot::{BootInformation, RootTables};
use super::memory;
use ::acpi::address::{AddressSpace, GenericAddress};
use ::acpi::fadt::Fadt;
use ::acpi::madt::{Madt, MadtEntry};
use ::acpi::mcfg::Mcfg;
use ::acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use alloc::vec::Vec;
use core::ptr::NonNull;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApicDescription {
    /// Physical address of its registers.
    pub physical: u64,
    /// The global interrupt number of its first input.
    pub first_interrupt: u32,
}

/// An ISA interrupt that isn't wired as usual.
#[derive(Clone, Copy, Debug)]
pub struct InterruptOverride {
    /// Its number on the ISA bus.
    pub isa_interrupt: u8,
    /// Its global number.
    pub global_interrupt: u32,
    /// Whether it is active when low.
    pub low_active: bool,
    /// Whether it is triggered by level.
    pub level_triggered: bool,
}

/// A part of PCI Express configuration space.
#[derive(Clone, Copy, Debug)]
pub struct ConfigurationSpace {
    /// Physical address of bus 0's part.
    pub physical: u64,
    /// Segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// How to power the machine off and to reset it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Power {
    /// I/O port of the PM1a control register, and the sleep type of S5 for it.
    pub power_off_a: Option<(u16, u16)>,
    /// The same of PM1b, which few machines have.
    pub power_off_b: Option<(u16, u16)>,
    /// I/O port and value that switch the machine to ACPI mode, if firmware controls that.
    pub enable: Option<(u16, u8)>,
    /// I/O port of the reset register and the value that resets.
    pub reset: Option<(u16, u8)>,
}

impl Power {
    /// No way known.
    pub(super) const NONE: Self = Self {
        power_off_a: None,
        power_off_b: None,
        enable: None,
        reset: None,
    };
}

/// The machine as ACPI describes it; what is missing is left out.
#[derive(Debug, Default)]
pub struct Platform {
    /// APIC numbers of all usable CPUs.
    pub apic_ids: Vec<u32>,
    /// I/O APICs.
    pub io_apics: Vec<IoApicDescription>,
    /// ISA interrupts with another wiring.
    pub interrupt_overrides: Vec<InterruptOverride>,
    /// PCI Express configuration space.
    pub configuration_spaces: Vec<ConfigurationSpace>,
    /// I/O port of the ACPI timer, and whether it has 32 bits (24 otherwise).
    pub timer: Option<(u16, bool)>,
    /// Power and reset.
    pub power: Power,
}

#[derive(Clone)]
struct Mapper;

impl AcpiHandler for Mapper {
    // SAFETY: More than the trait asks for: whatever the caller names is mapped for good, and only as firmware's memory.
    unsafe fn map_physical_region<T>(&self, physical: usize, size: usize) -> PhysicalMapping<Self, T> {
        let pointer = memory::map_firmware(physical as u64, size).and_then(NonNull::new);
        let Some(pointer) = pointer else {
            panic!("no memory to map ACPI tables")
        };
        // SAFETY: Mapped for `size` bytes, for good.
        unsafe { PhysicalMapping::new(physical, pointer.cast(), size, size, Mapper) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// Reads the tables. A machine without ACPI gets an empty description: one CPU, no PCI.
pub(super) fn read(boot: &BootInformation) -> Platform {
    let mut platform = Platform::default();
    let tables = match boot.root_tables {
        // SAFETY: The boot loader says that the table is there, and the crate checks its sum.
        Some(RootTables::Rsdp(address)) => unsafe { AcpiTables::from_rsdp(Mapper, address as usize) },
        // SAFETY: As above.
        Some(RootTables::Sdt { revision, address }) => unsafe {
            AcpiTables::from_rsdt(Mapper, revision, address as usize)
        },
        None => {
            log::warn!("the boot loader names no ACPI tables");
            return platform;
        }
    };
    let tables = match tables {
        Ok(tables) => tables,
        Err(error) => {
            log::warn!("unusable ACPI tables: {error:?}");
            return platform;
        }
    };
    match tables.find_table::<Madt>() {
        Ok(madt) => read_interrupt_model(&madt, &mut platform),
        Err(error) => log::warn!("no table of CPUs: {error:?}"),
    }
    if let Ok(mcfg) = tables.find_table::<Mcfg>() {
        platform
            .configuration_spaces
            .extend(mcfg.entries().iter().map(|entry| ConfigurationSpace {
                physical: entry.base_address,
                segment: entry.pci_segment_group,
                first_bus: entry.bus_number_start,
                last_bus: entry.bus_number_end,
            }));
    }
    if let Ok(fadt) = tables.find_table::<Fadt>() {
        read_fixed(&fadt, &tables, &mut platform);
    }
    platform
}

fn read_interrupt_model(madt: &PhysicalMapping<Mapper, Madt>, platform: &mut Platform) {
    const ENABLED: u32 = 1;
    let add_cpu = |ids: &mut Vec<u32>, id| {
        // Some firmware names a CPU in both kinds of entries.
        if !ids.contains(&id) {
            ids.push(id);
        }
    };
    for entry in madt.get().entries() {
        match entry {
            MadtEntry::LocalApic(cpu) if cpu.flags & ENABLED != 0 => {
                platform.apic_ids.push(cpu.apic_id.into())
            }
            MadtEntry::LocalX2Apic(cpu) if cpu.flags & ENABLED != 0 => {
                add_cpu(&mut platform.apic_ids, cpu.x2apic_id)
            }
            MadtEntry::IoApic(io_apic) => platform.io_apics.push(IoApicDescription {
                physical: io_apic.io_apic_address.into(),
                first_interrupt: io_apic.global_system_interrupt_base,
            }),
            MadtEntry::InterruptSourceOverride(entry) => {
                platform.interrupt_overrides.push(InterruptOverride {
                    isa_interrupt: entry.irq,
                    global_interrupt: entry.global_system_interrupt,
                    low_active: entry.flags & 3 == 3,
                    level_triggered: entry.flags >> 2 & 3 == 3,
                })
            }
            _ => {}
        }
    }
}

fn io_port(address: &GenericAddress) -> Option<u16> {
    let port = u16::try_from(address.address).ok()?;
    (address.address_space == AddressSpace::SystemIo && port != 0).then_some(port)
}

fn read_fixed(fadt: &Fadt, tables: &AcpiTables<Mapper>, platform: &mut Platform) {
    let timer = fadt.pm_timer_block().ok().flatten().as_ref().and_then(io_port);
    let flags = fadt.flags;
    platform.timer = timer.map(|port| (port, flags.pm_timer_is_32_bit()));
    if flags.supports_system_reset_via_fadt() {
        let port = fadt.reset_register().ok().as_ref().and_then(io_port);
        platform.power.reset = port.map(|port| (port, fadt.reset_value));
    }
    let port = u16::try_from(fadt.smi_cmd_port).unwrap_or(0);
    platform.power.enable = (port != 0 && fadt.acpi_enable != 0).then_some((port, fadt.acpi_enable));
    let Ok(dsdt) = tables.dsdt() else { return };
    // The crate gives the address of the code after the header, and its length.
    let Some(code) = memory::map_firmware(dsdt.address as u64, dsdt.length as usize) else {
        return;
    };
    // SAFETY: Mapped for this length, for good, and firmware doesn't write its tables.
    let code = unsafe { core::slice::from_raw_parts(code, dsdt.length as usize) };
    if let Some((a, b)) = crate::acpi_code::sleep_types_of_s5(code) {
        let control = fadt.pm1a_control_block().ok();
        platform.power.power_off_a = control.as_ref().and_then(io_port).map(|port| (port, a));
        let control = fadt.pm1b_control_block().ok().flatten();
        platform.power.power_off_b = control.as_ref().and_then(io_port).map(|port| (port, b));
    }
}
