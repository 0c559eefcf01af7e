//! PCI configuration space: header, capabilities, and what writes to them do (datasheet 9.3 "PCI Configuration Registers").

use crate::interrupts::Signalling;

/// Length of configuration space in bytes.
pub const LENGTH: usize = 4096;
const COMMAND: usize = 0x04;
const COMMAND_BUS_MASTER: u8 = 1 << 2;
const POWER: usize = 0x40;
const MSI: usize = 0x50;
const MSIX: usize = 0x70;
const EXPRESS: usize = 0xA0;
const DEVICE_CONTROL: usize = EXPRESS + 8;
const FUNCTION_RESET: u8 = 1 << 7;
/// Size of BAR 0 (registers), BAR 2 (I/O ports) and BAR 4 (MSI-X table), in bytes.
pub const BAR_LENGTHS: [u32; 3] = [0x2_0000, 0x20, 0x4000];

/// What a write has changed for the rest of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// Bus mastering was switched on (true) or off.
    pub bus_master: Option<bool>,
    /// A function-level reset, or a power state that comes to one, was asked for.
    pub reset: bool,
}

/// The bytes and which bits of them software may change.
pub struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
}

impl ConfigSpace {
    /// Configuration space of an X520 adapter whose serial number is made of its MAC address.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut space = Self {
            bytes: vec![0; LENGTH],
            writable: vec![0; LENGTH],
        };
        space.header();
        space.power_and_interrupts();
        space.express();
        // Extended: advanced error reporting, then the serial number.
        space.put(0x100, &0x1401_0001u32.to_le_bytes(), &[0; 4]);
        space.put(0x108, &[0; 4], &0x001F_F030u32.to_le_bytes());
        space.put(
            0x10C,
            &0x0006_2030u32.to_le_bytes(),
            &0x001F_F030u32.to_le_bytes(),
        );
        space.put(
            0x114,
            &0x0000_2000u32.to_le_bytes(),
            &0x0000_31C1u32.to_le_bytes(),
        );
        space.put(0x140, &0x0001_0003u32.to_le_bytes(), &[0; 4]);
        space.put(
            0x144,
            &[mac[5], mac[4], mac[3], 0xFF, 0xFF, mac[2], mac[1], mac[0]],
            &[0; 8],
        );
        space
    }

    fn header(&mut self) {
        self.put(0x00, &[0x86, 0x80, 0xFB, 0x10], &[0; 4]);
        self.put(COMMAND, &[0, 0, 0x10, 0], &[0x47, 0x05, 0, 0]);
        self.put(0x08, &[0x01, 0x00, 0x00, 0x02], &[0; 4]);
        self.put(0x0C, &[0x10, 0, 0, 0], &[0xFF, 0, 0, 0]);
        let [registers, ports, table] = BAR_LENGTHS;
        self.put(0x10, &0xCu32.to_le_bytes(), &(!(registers - 1)).to_le_bytes());
        self.put(0x14, &[0; 4], &[0xFF; 4]);
        self.put(0x18, &1u32.to_le_bytes(), &(!(ports - 1)).to_le_bytes());
        self.put(0x20, &0xCu32.to_le_bytes(), &(!(table - 1)).to_le_bytes());
        self.put(0x24, &[0; 4], &[0xFF; 4]);
        self.put(0x2C, &[0x86, 0x80, 0x0C, 0x00], &[0; 4]);
        self.put(0x34, &[POWER as u8], &[0]);
        self.put(0x3C, &[0, 1], &[0xFF, 0]);
    }

    fn power_and_interrupts(&mut self) {
        self.put(
            POWER,
            &[0x01, MSI as u8, 0x23, 0x48, 0x08, 0x20],
            &[0, 0, 0, 0, 0x03, 0x01],
        );
        // MSI: one message, 64-bit, maskable.
        self.put(MSI, &[0x05, MSIX as u8, 0x80, 0x01], &[0, 0, 0x01, 0]);
        self.put(
            MSI + 4,
            &[0; 16],
            &[
                0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1, 0, 0, 0,
            ],
        );
        // MSI-X: 64 vectors, table and pending bits in BAR 4.
        self.put(MSIX, &[0x11, EXPRESS as u8, 0x3F, 0x00], &[0, 0, 0, 0xC0]);
        self.put(MSIX + 4, &[0x04, 0, 0, 0, 0x04, 0x20, 0, 0], &[0; 8]);
    }

    fn express(&mut self) {
        // Version 2 endpoint, payload up to 512 bytes, function-level reset, 5 GT/s x8.
        self.put(EXPRESS, &[0x10, 0, 0x02, 0x00], &[0; 4]);
        self.put(EXPRESS + 4, &0x1000_8CC2u32.to_le_bytes(), &[0; 4]);
        self.put(DEVICE_CONTROL, &[0x10, 0x28, 0, 0], &[0xFF, 0x7F, 0, 0]);
        self.put(EXPRESS + 0xC, &0x0000_0C82u32.to_le_bytes(), &[0; 4]);
        self.put(EXPRESS + 0x10, &[0, 0, 0x82, 0x10], &[0xCB, 0, 0, 0]);
        self.put(EXPRESS + 0x24, &0x1Fu32.to_le_bytes(), &[0; 4]);
        self.put(EXPRESS + 0x28, &[0; 4], &[0x1F, 0, 0, 0]);
        self.put(EXPRESS + 0x30, &[0x02, 0, 0, 0], &[0x0F, 0, 0, 0]);
    }

    fn put(&mut self, at: usize, value: &[u8], writable: &[u8]) {
        for (i, (value, writable)) in value.iter().zip(writable).enumerate() {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at + i), self.writable.get_mut(at + i)) {
                *byte = *value;
                *mask = *writable;
            }
        }
    }

    /// Copies what is at `offset`; bytes beyond the end read as zero.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = self.bytes.get(offset.saturating_add(i)).copied().unwrap_or(0);
        }
    }

    /// Writes the writable bits of `from` at `offset` and says what that changes.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> ConfigChange {
        let was_master = self.bus_master();
        let was_low_power = self.byte(POWER + 4) & 3 == 3;
        let mut change = ConfigChange::default();
        for (i, value) in from.iter().enumerate() {
            let at = offset.saturating_add(i);
            if at == DEVICE_CONTROL + 1 && value & FUNCTION_RESET != 0 {
                change.reset = true;
            }
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | value & mask;
            }
        }
        if was_low_power && self.byte(POWER + 4) & 3 == 0 {
            change.reset = true;
        }
        if change.reset {
            self.reset();
        }
        if self.bus_master() != was_master {
            change.bus_master = Some(self.bus_master());
        }
        change
    }

    /// What a function-level reset does here: commands and interrupt enables off; addresses are its host's to restore.
    pub fn reset(&mut self) {
        for at in [COMMAND, COMMAND + 1, MSI + 2, MSIX + 3] {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte &= !mask;
            }
        }
    }

    /// Whether the device may use guest memory.
    pub fn bus_master(&self) -> bool {
        self.byte(COMMAND) & COMMAND_BUS_MASTER != 0
    }

    /// How interrupts are signalled.
    pub fn signalling(&self) -> Signalling {
        if self.byte(MSIX + 3) & 0x80 != 0 {
            Signalling::MsiX
        } else if self.byte(MSI + 2) & 1 != 0 {
            Signalling::Msi
        } else {
            Signalling::Pin
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(space: &ConfigSpace, at: usize) -> u32 {
        let mut bytes = [0; 4];
        space.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn identity_and_capabilities() {
        let space = ConfigSpace::new([2, 0, 0, 0, 0, 1]);
        assert_eq!(word(&space, 0), 0x10FB_8086);
        let mut at = word(&space, 0x34) as usize & 0xFF;
        let mut kinds = vec![];
        while at != 0 {
            kinds.push(word(&space, at) & 0xFF);
            at = word(&space, at) as usize >> 8 & 0xFF;
        }
        assert_eq!(kinds, [0x01, 0x05, 0x11, 0x10]);
        assert_eq!(word(&space, 4094), 0);
    }

    #[test]
    fn sizing_a_bar_gives_its_length() {
        let mut space = ConfigSpace::new([2, 0, 0, 0, 0, 1]);
        space.write(0x10, &[0xFF; 4]);
        assert_eq!(word(&space, 0x10), !(BAR_LENGTHS[0] - 1) | 0xC);
        space.write(0x00, &[0; 4]);
        assert_eq!(word(&space, 0), 0x10FB_8086);
    }

    #[test]
    fn bus_master_and_resets_are_reported() {
        let mut space = ConfigSpace::new([2, 0, 0, 0, 0, 1]);
        assert_eq!(space.write(4, &[6, 0]).bus_master, Some(true));
        assert_eq!(space.write(4, &[6, 0]), ConfigChange::default());
        space.write(MSIX + 2, &[0, 0x80]);
        assert_eq!(space.signalling(), Signalling::MsiX);
        let change = space.write(DEVICE_CONTROL, &[0, 0x80]);
        assert_eq!(
            change,
            ConfigChange {
                bus_master: Some(false),
                reset: true
            }
        );
        assert_eq!(space.signalling(), Signalling::Pin);
    }
}
