//! PCI configuration space of one function, read through whatever reaches it (PCI Local Bus 3.0, chapter 6;
//! PCI Express Base 5.0, chapter 7).
//!
//! Everything that a device says is bounded here: capability lists may be loops, BARs may be nonsense.

/// Access to one function's configuration space. Offsets are multiples of 4 below 4096.
pub trait Registers {
    /// Reads a register.
    fn read(&self, offset: u16) -> u32;
    /// Writes a register.
    fn write(&self, offset: u16, value: u32);
}

/// Base address registers that a function has at most.
pub const BAR_COUNT: usize = 6;

const COMMAND: u16 = 0x04;
const CLASS: u16 = 0x08;
const HEADER_TYPE: u16 = 0x0c;
const FIRST_BAR: u16 = 0x10;
const BUS_NUMBERS: u16 = 0x18;
const CAPABILITIES: u16 = 0x34;

/// Bits of the command register.
pub mod command {
    /// Answers on its I/O ports.
    pub const IO: u32 = 1;
    /// Answers on its memory BARs.
    pub const MEMORY: u32 = 1 << 1;
    /// May read and write memory on its own.
    pub const BUS_MASTER: u32 = 1 << 2;
    /// Doesn't use the legacy interrupt line.
    pub const NO_LEGACY_INTERRUPT: u32 = 1 << 10;
}

const STATUS_HAS_CAPABILITIES: u32 = 1 << 20;
const MSIX_CAPABILITY: u8 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK_ALL: u32 = 1 << 30;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor number.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: (u8, u8, u8),
    /// Revision.
    pub revision: u8,
}

/// A range of memory addresses that a function answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// Physical address; 0 if firmware gave it none.
    pub address: u64,
    /// Length in bytes, a power of two.
    pub length: u64,
    /// Whether the address may be above 4 GiB.
    pub is_64_bit: bool,
}

/// Where a function's MSI-X table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixTable {
    /// Offset of the capability in configuration space.
    capability: u16,
    /// The BAR that the table is in.
    pub bar: u8,
    /// Offset of the table in that BAR.
    pub offset: u32,
    /// How many entries it has, 1 to 2048.
    pub entries: u16,
}

/// The function's identity; `None` if nobody answers.
pub fn identity(registers: &impl Registers) -> Option<Identity> {
    let id = registers.read(0);
    if id & 0xffff == 0xffff {
        return None;
    }
    let [revision, interface, subclass, class] = registers.read(CLASS).to_le_bytes();
    Some(Identity {
        vendor: id as u16,
        device: (id >> 16) as u16,
        class: (class, subclass, interface),
        revision,
    })
}

/// Whether the device has more functions than this one.
pub fn is_multifunction(registers: &impl Registers) -> bool {
    registers.read(HEADER_TYPE) >> 23 & 1 == 1
}

fn header_layout(registers: &impl Registers) -> u32 {
    registers.read(HEADER_TYPE) >> 16 & 0x7f
}

/// The bus behind this function if it is a bridge that firmware has given one.
pub fn secondary_bus(registers: &impl Registers) -> Option<u8> {
    let secondary = (registers.read(BUS_NUMBERS) >> 8) as u8;
    (header_layout(registers) == 1 && secondary != 0).then_some(secondary)
}

/// Sets and clears bits of the command register; false when they were so already, and nothing was written: a write makes some
/// machines look through all of a device's resources.
pub fn update_command(registers: &impl Registers, set: u32, clear: u32) -> bool {
    let now = registers.read(COMMAND) & 0xffff;
    let wanted = (now | set) & !clear;
    if wanted != now {
        // The status bits above are cleared by writing ones; zeroes leave them alone.
        registers.write(COMMAND, wanted);
    }
    wanted != now
}

/// The memory BARs of an ordinary function; I/O BARs and missing ones are `None`, and so is the slot of an
/// upper half.
///
/// Sizing writes the registers, so decoding is switched off meanwhile.
pub fn memory_bars(registers: &impl Registers) -> [Option<MemoryBar>; BAR_COUNT] {
    let mut bars = [None; BAR_COUNT];
    if header_layout(registers) != 0 {
        return bars;
    }
    let before = registers.read(COMMAND) & 0xffff;
    update_command(registers, 0, command::MEMORY | command::IO);
    let mut slot = 0;
    while slot < BAR_COUNT {
        let offset = FIRST_BAR + 4 * slot as u16;
        let low = registers.read(offset);
        let is_64_bit = low & 6 == 4 && slot + 1 < BAR_COUNT;
        if low & 1 == 0 {
            let high = if is_64_bit { registers.read(offset + 4) } else { 0 };
            registers.write(offset, !0);
            let mut mask = u64::from(registers.read(offset) & !15) | !0 << 32;
            if is_64_bit {
                registers.write(offset + 4, !0);
                mask = mask & 0xffff_ffff | u64::from(registers.read(offset + 4)) << 32;
                registers.write(offset + 4, high);
            }
            registers.write(offset, low);
            let length = mask & mask.wrapping_neg();
            let exists = if is_64_bit {
                mask != 0
            } else {
                mask & 0xffff_ffff != 0
            };
            let address = u64::from(high) << 32 | u64::from(low & !15);
            if exists {
                bars[slot] = Some(MemoryBar {
                    address,
                    length,
                    is_64_bit,
                });
            }
        }
        slot += if is_64_bit { 2 } else { 1 };
    }
    registers.write(COMMAND, before);
    bars
}

/// The offset of the function's first capability with this number.
fn capability(registers: &impl Registers, number: u8) -> Option<u16> {
    if registers.read(COMMAND) & STATUS_HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut offset = registers.read(CAPABILITIES) as u16 & 0xfc;
    // There is room for 48 capabilities; more steps mean a loop.
    for _ in 0..48 {
        if offset < 0x40 {
            return None;
        }
        let [found, next, ..] = registers.read(offset).to_le_bytes();
        if found == number {
            return Some(offset);
        }
        offset = u16::from(next & 0xfc);
    }
    None
}

/// The function's MSI-X table, if it has one that fits into one of `bars`.
pub fn msix_table(registers: &impl Registers, bars: &[Option<MemoryBar>; BAR_COUNT]) -> Option<MsixTable> {
    // Three registers (PCI Local Bus 3.0, 6.8.2), all of them where capabilities are.
    let capability = capability(registers, MSIX_CAPABILITY).filter(|at| *at <= 0x100 - 12)?;
    let entries = (registers.read(capability) >> 16 & 0x7ff) as u16 + 1;
    let location = registers.read(capability + 4);
    let (bar, offset) = ((location & 7) as u8, location & !7);
    let length = bars.get(usize::from(bar)).copied().flatten()?.length;
    let fits = u64::from(offset) + 16 * u64::from(entries) <= length;
    fits.then_some(MsixTable {
        capability,
        bar,
        offset,
        entries,
    })
}

/// Turns MSI-X on or off for the whole function.
pub fn set_msix(registers: &impl Registers, table: &MsixTable, enabled: bool) {
    let control = registers.read(table.capability) & !(MSIX_ENABLE | MSIX_MASK_ALL);
    registers.write(
        table.capability,
        if enabled { control | MSIX_ENABLE } else { control },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    /// A function whose registers keep what their mask lets be written.
    struct Fake {
        values: RefCell<Vec<u32>>,
        writable: Vec<u32>,
    }

    impl Registers for Fake {
        fn read(&self, offset: u16) -> u32 {
            self.values.borrow()[usize::from(offset / 4)]
        }
        fn write(&self, offset: u16, value: u32) {
            let index = usize::from(offset / 4);
            let mask = self.writable[index];
            let mut values = self.values.borrow_mut();
            values[index] = values[index] & !mask | value & mask;
        }
    }

    fn nic() -> Fake {
        let (mut values, mut writable) = (vec![0; 64], vec![0; 64]);
        values[0] = 0x10fb_8086;
        values[1] = STATUS_HAS_CAPABILITIES | command::MEMORY;
        writable[1] = 0xffff;
        values[2] = 0x0200_0001;
        // BAR 0: 64 bits, 512 KiB at 0x8_fe00_0000; BAR 2: I/O; BAR 4: 64 bits, 16 KiB, no address.
        (values[4], writable[4]) = (0xfe00_000c, !(512 * 1024 - 1));
        (values[5], writable[5]) = (8, !0);
        (values[6], writable[6]) = (0xc001, 0xffe0);
        (values[8], writable[8]) = (4, !(16 * 1024 - 1));
        (values[9], writable[9]) = (0, !0);
        values[0x34 / 4] = 0x50;
        values[0x50 / 4] = 0x7005;
        values[0x70 / 4] = 63 << 16 | 0xa011;
        writable[0x70 / 4] = 0xc000_0000;
        values[0x74 / 4] = 4;
        Fake {
            values: RefCell::new(values),
            writable,
        }
    }

    #[test]
    fn reads_bars_and_leaves_them_as_they_were() {
        let nic = nic();
        let before = nic.values.borrow().clone();
        let bars = memory_bars(&nic);
        assert_eq!(
            bars[0],
            Some(MemoryBar {
                address: 0x8_fe00_0000,
                length: 512 << 10,
                is_64_bit: true
            })
        );
        assert_eq!(
            bars[4],
            Some(MemoryBar {
                address: 0,
                length: 16 << 10,
                is_64_bit: true
            })
        );
        assert_eq!([bars[1], bars[2], bars[3], bars[5]], [None; 4]);
        let after = nic.values.borrow().clone();
        assert_eq!(before[2..], after[2..]);
        assert_eq!(after[1] & 0xffff, command::MEMORY);
    }

    #[test]
    fn finds_the_msix_table_and_switches_it() {
        let nic = nic();
        let table = msix_table(&nic, &memory_bars(&nic)).expect("it has one");
        assert_eq!((table.bar, table.offset, table.entries), (4, 0, 64));
        set_msix(&nic, &table, true);
        assert_eq!(nic.read(0x70) >> 30, 2);
        set_msix(&nic, &table, false);
        assert_eq!(nic.read(0x70) >> 30, 0);
    }

    #[test]
    fn a_looping_capability_list_ends() {
        let nic = nic();
        nic.values.borrow_mut()[0x70 / 4] = 0x5009;
        assert_eq!(msix_table(&nic, &memory_bars(&nic)), None);
    }

    proptest! {
        /// Whatever the registers say: no panic, and lengths are powers of two.
        #[test]
        fn any_registers_are_harmless(values in proptest::collection::vec(any::<u32>(), 64), writable in proptest::collection::vec(any::<u32>(), 64)) {
            let fake = Fake { values: RefCell::new(values), writable };
            let bars = memory_bars(&fake);
            for bar in bars.iter().flatten() {
                prop_assert!(bar.length.is_power_of_two() && bar.length >= 16);
            }
            if let Some(table) = msix_table(&fake, &bars) {
                prop_assert!(table.bar < 6 && table.entries <= 2048);
            }
            secondary_bus(&fake);
        }
    }
}
