//! The EEPROM: words through EERD, its checksum, and the station address that hardware loaded from it (datasheet 6, 8.2.3.2).

use crate::error::DeviceError;
use crate::registers as r;
use dma::Mmio;
use interface::net::MacAddress;

/// Sum of the words of a valid image (6.2, word 0x3F).
const CHECKSUM_TOTAL: u16 = 0xBABA;
/// The word that makes the sum right.
const CHECKSUM_WORD: u16 = 0x3F;
/// Pointers to the sections that the sum covers.
const POINTERS: core::ops::Range<u16> = 0x03..0x0F;
/// Words of a section that are read at most, whatever its length word says.
const SECTION_LIMIT: u16 = 512;
/// How long a word may take. Hardware needs some microseconds; the datasheet names no bound.
const WORD_LIMIT_US: u64 = 100_000;
/// How long hardware may take to load its registers after a reset. The datasheet names no bound.
const LOAD_LIMIT_US: u64 = 1_000_000;

/// Waits until hardware has loaded its registers from the EEPROM.
pub fn wait_loaded(registers: &Mmio) -> Result<(), DeviceError> {
    let eec = registers
        .poll(r::EEC, LOAD_LIMIT_US, |value| value & r::EEC_AUTO_READ != 0)
        .map_err(DeviceError::waiting("the EEPROM to be loaded"))?;
    if eec & r::EEC_PRESENT == 0 {
        return Err(DeviceError::NoEeprom(eec));
    }
    match registers.read(r::FWSM) {
        fwsm if fwsm & r::FWSM_ERROR != 0 => Err(DeviceError::Firmware(fwsm)),
        _ => Ok(()),
    }
}

/// The word at `address`.
pub fn word(registers: &Mmio, address: u16) -> Result<u16, DeviceError> {
    registers.write(
        r::EERD,
        u32::from(address) << r::EERD_ADDRESS_SHIFT | r::EERD_START,
    );
    let value = registers
        .poll(r::EERD, WORD_LIMIT_US, |value| value & r::EERD_DONE != 0)
        .map_err(DeviceError::waiting("a word of the EEPROM"))?;
    Ok((value >> r::EERD_DATA_SHIFT) as u16)
}

/// Checks that the words add up: 0 to 0x3F, and the sections that pointers 3 to 0xE lead to.
pub fn check(registers: &Mmio) -> Result<(), DeviceError> {
    let mut sum = 0u16;
    let mut sections = [0u16; POINTERS.end as usize];
    for address in 0..=CHECKSUM_WORD {
        let value = word(registers, address)?;
        sum = sum.wrapping_add(value);
        if POINTERS.contains(&address)
            && let Some(section) = sections.get_mut(usize::from(address))
        {
            *section = value;
        }
    }
    for section in sections {
        // Both mean that there is no such section.
        if section == 0 || section == u16::MAX {
            continue;
        }
        let length = word(registers, section)?;
        if length == 0 || length == u16::MAX {
            continue;
        }
        for offset in 1..=length.min(SECTION_LIMIT) {
            let Some(address) = section.checked_add(offset) else {
                break;
            };
            sum = sum.wrapping_add(word(registers, address)?);
        }
    }
    if sum == CHECKSUM_TOTAL {
        Ok(())
    } else {
        Err(DeviceError::EepromChecksum(sum))
    }
}

/// The address that hardware loaded into the first receive address, when it is one of a station.
pub fn station_address(registers: &Mmio) -> Result<MacAddress, DeviceError> {
    let (mac, is_valid) = first_address(registers);
    if is_valid && is_station(mac) {
        Ok(mac)
    } else {
        Err(DeviceError::BadAddress(mac))
    }
}

/// The same, whatever it is.
pub fn address(registers: &Mmio) -> MacAddress {
    first_address(registers).0
}

/// What the first receive address holds, and whether it counts.
fn first_address(registers: &Mmio) -> (MacAddress, bool) {
    let [a, b, c, d] = registers.read(r::RAL).to_le_bytes();
    let high = registers.read(r::RAH);
    let [e, f, ..] = high.to_le_bytes();
    (MacAddress([a, b, c, d, e, f]), high & r::RAH_VALID != 0)
}

/// Whether an address can be a station's: not a group's, and not all zeros.
pub fn is_station(mac: MacAddress) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_and_zero_addresses_are_no_stations() {
        assert!(is_station(MacAddress([0x02, 0, 0, 0, 0, 1])));
        assert!(!is_station(MacAddress([0; 6])));
        assert!(!is_station(MacAddress([0xFF; 6])));
        assert!(!is_station(MacAddress([0x01, 0, 0x5E, 0, 0, 1])));
    }
}
