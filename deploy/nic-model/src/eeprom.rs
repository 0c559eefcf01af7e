//! The EEPROM's contents and the word reads through EERD (datasheet 6.2 "EEPROM Map", 8.2.3.2.2 "EERD").
//!
//! Holds what drivers read of a real card: the MAC address, pointers, the SFP+ start-up list and a valid checksum.

/// Words that the part holds (EEC.EE_SIZE says the same).
const WORDS: usize = 0x1000;
/// Sum of all words that a valid image has (datasheet 6.2, word 0x3F).
const CHECKSUM_TOTAL: u16 = 0xBABA;
const CHECKSUM_WORD: usize = 0x3F;

/// An EEPROM image.
pub struct Eeprom {
    words: Vec<u16>,
}

impl Eeprom {
    /// The image of a card with this MAC address and a valid checksum.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut words = vec![0xFFFF; WORDS];
        words[..0x100].fill(0);
        let mut put = |at: usize, value: u16| words[at] = value;
        // Hardware pointers: none of the sections exists except those below (0xFFFF: not present).
        for pointer in 0x03..=0x0F {
            put(pointer, 0xFFFF);
        }
        put(0x03, 0x0040); // PCIe analog section: present and empty.
        put(0x04, 0x0041); // Core 0 analog section.
        put(0x05, 0x0042); // Core 1 analog section.
        put(0x06, 0x0043); // PCIe general section.
        put(0x07, 0x0050); // PCIe configuration of function 0.
        put(0x08, 0x0058); // PCIe configuration of function 1.
        put(0x09, 0x0060); // Core 0 section: holds the MAC address.
        put(0x0A, 0x0070); // Core 1 section.
        put(0x15, 0x0000);
        put(0x16, 0xE000);
        put(0x18, 0x0001); // Image version.
        put(0x1C, 0x10FB);
        put(0x27, 0xFFFF); // Alternate SAN MAC address block: none.
        put(0x28, 0xFFFF);
        put(0x29, 0x0001);
        put(0x2A, 0xFFFF);
        put(0x2B, 0x0080); // PHY start-up list.
        put(0x2C, 0x0001); // Device capabilities: any SFP+ module is allowed.
        put(0x2D, 0x0001);
        put(0x37, 0xFFFF); // Alternate Ethernet MAC addresses: none.
        put(0x38, 0x0000);
        // Core 0: length, then the MAC address of the port.
        put(0x60, 0x0004);
        put(0x61, u16::from_le_bytes([mac[0], mac[1]]));
        put(0x62, u16::from_le_bytes([mac[2], mac[3]]));
        put(0x63, u16::from_le_bytes([mac[4], mac[5]]));
        // Start-up list: its length, then pairs of module type and pointer, ended by 0xFFFF. A pointer leads to the length
        // of a block of values for CORECTL, ended by 0xFFFF as well.
        put(0x80, 15);
        for module in 0..=6u16 {
            let at = 0x81 + 2 * usize::from(module);
            put(at, module);
            put(at + 1, 0x00A0);
        }
        put(0x8F, 0xFFFF);
        // Firmware: no link establishment module, pass-through configuration with a released version.
        put(0x0F, 0x00C0);
        put(0xC2, 0xFFFF);
        put(0xC4, 0x00D0);
        put(0xD7, 0x0006);
        put(0xA0, 2);
        put(0xA1, 0x0001);
        put(0xA2, 0x0002);
        put(0xA3, 0xFFFF);
        let mut image = Self { words };
        image.seal();
        image
    }

    /// The word at `address`; ones beyond the end.
    pub fn word(&self, address: u16) -> u16 {
        self.words.get(usize::from(address)).copied().unwrap_or(0xFFFF)
    }

    /// Changes a word without mending the checksum: a worn-out or badly programmed part.
    pub fn corrupt(&mut self, address: u16, value: u16) {
        if let Some(word) = self.words.get_mut(usize::from(address)) {
            *word = value;
        }
    }

    /// The value EERD has after software wrote `request`: start bit, address and, when it is started, done and data.
    pub fn read_request(&self, request: u32) -> u32 {
        const START: u32 = 1;
        const DONE: u32 = 2;
        if request & START == 0 {
            return request;
        }
        let address = (request >> 2 & 0x3FFF) as u16;
        u32::from(self.word(address)) << 16 | u32::from(address) << 2 | DONE
    }

    /// Sets the checksum word: words 0 to 0x3F and all sections that pointers 3 to 0xE lead to add up to 0xBABA.
    fn seal(&mut self) {
        let mut sum = self.words[..CHECKSUM_WORD]
            .iter()
            .fold(0u16, |sum, word| sum.wrapping_add(*word));
        for pointer in 0x03..0x0F {
            let section = usize::from(self.words[pointer]);
            if section == 0xFFFF || section == 0 {
                continue;
            }
            let length = usize::from(self.words.get(section).copied().unwrap_or(0xFFFF));
            if length == 0xFFFF || length == 0 || section + length >= WORDS {
                continue;
            }
            sum = self.words[section + 1..=section + length]
                .iter()
                .fold(sum, |sum, word| sum.wrapping_add(*word));
        }
        self.words[CHECKSUM_WORD] = CHECKSUM_TOTAL.wrapping_sub(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_covers_the_mac_address() {
        let eeprom = Eeprom::new([0x02, 0, 0, 1, 2, 3]);
        let fixed = (0..=0x3F).fold(0u16, |sum, at| sum.wrapping_add(eeprom.word(at)));
        let section = (0x61..=0x64).fold(0u16, |sum, at| sum.wrapping_add(eeprom.word(at)));
        assert_eq!(fixed.wrapping_add(section), 0xBABA);
        assert_eq!(eeprom.word(0x61).to_le_bytes(), [0x02, 0]);
    }

    #[test]
    fn eerd_answers_with_done_and_data() {
        let eeprom = Eeprom::new([0x02, 0, 0, 1, 2, 3]);
        let answer = eeprom.read_request(0x2C << 2 | 1);
        assert_eq!(answer & 3, 2);
        assert_eq!(answer >> 16, 1);
        assert_eq!(eeprom.read_request(u32::MAX) >> 16, 0xFFFF);
    }
}
