//! Which received frames the device accepts: addresses, VLAN table, length (datasheet 7.1.1 "Packet Filtering", 7.4.3).

use crate::headers::Headers;
use crate::register_file::RegisterFile;
use crate::registers as r;

/// Exact addresses that RAL and RAH hold.
const EXACT_ADDRESSES: u32 = 128;
/// Longest frame without jumbo support, with its check sequence.
const STANDARD_LENGTH: usize = 1518;
/// Longest frame the device takes at all (datasheet 1.2: 15.5 KB).
const LONGEST: usize = 15_872;
/// Bytes of the frame check sequence.
pub const FRAME_CHECK_LENGTH: usize = 4;

/// How a frame got through the address filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It equals an address, or is a broadcast that is accepted.
    Exactly,
    /// Only a hash or a promiscuous mode let it through.
    Inexactly,
}

/// Longest frame, with its check sequence, that the MAC lets in; four bytes more with a VLAN tag.
pub fn longest_frame(registers: &RegisterFile, tagged: bool) -> usize {
    let limit = if registers.has(r::HLREG0, r::HLREG0_JUMBO_ENABLE) {
        (registers.get(r::MAXFRS) >> 16) as usize
    } else {
        STANDARD_LENGTH
    };
    (limit + if tagged { 4 } else { 0 }).min(LONGEST)
}

/// Decides by destination address.
pub fn accept_address(registers: &RegisterFile, destination: [u8; 6]) -> Option<Accepted> {
    let fctrl = registers.get(r::FCTRL);
    if destination == [0xFF; 6] {
        return (fctrl & (r::FCTRL_BROADCAST_ACCEPT | r::FCTRL_MULTICAST_PROMISCUOUS) != 0)
            .then_some(Accepted::Exactly);
    }
    if is_exact(registers, destination) {
        return Some(Accepted::Exactly);
    }
    let accepted = if destination[0] & 1 != 0 {
        fctrl & r::FCTRL_MULTICAST_PROMISCUOUS != 0 || is_in_multicast_table(registers, destination)
    } else {
        fctrl & r::FCTRL_UNICAST_PROMISCUOUS != 0
    };
    accepted.then_some(Accepted::Inexactly)
}

fn is_exact(registers: &RegisterFile, address: [u8; 6]) -> bool {
    let low = u32::from_le_bytes([address[0], address[1], address[2], address[3]]);
    let high = u32::from(u16::from_le_bytes([address[4], address[5]]));
    (0..EXACT_ADDRESSES).any(|i| {
        let entry = registers.get(r::RAL + 8 * i + 4);
        entry & r::RAH_VALID != 0 && entry & 0xFFFF == high && registers.get(r::RAL + 8 * i) == low
    })
}

fn is_in_multicast_table(registers: &RegisterFile, address: [u8; 6]) -> bool {
    let control = registers.get(r::MCSTCTRL);
    if control & r::MCSTCTRL_FILTER_ENABLE == 0 {
        return false;
    }
    // MO picks 12 of the last 16 bits: 47:36, 46:35, 45:34 or 43:32.
    let last = u32::from(u16::from_le_bytes([address[4], address[5]]));
    let hash = match control & 3 {
        0 => last >> 4,
        1 => last >> 3,
        2 => last >> 2,
        _ => last,
    } & 0xFFF;
    registers.get(r::MTA + 4 * (hash >> 5)) >> (hash & 31) & 1 != 0
}

/// Decides by VLAN tag.
pub fn accept_vlan(registers: &RegisterFile, headers: &Headers) -> bool {
    let control = registers.get(r::VLNCTRL);
    let Some(tag) = headers.vlan else { return true };
    if control & r::VLNCTRL_FILTER_ENABLE == 0 {
        return true;
    }
    let canonical = tag >> 12 & 1 != 0;
    if control & r::VLNCTRL_CFI_ENABLE != 0 && canonical != (control & r::VLNCTRL_CFI != 0) {
        return false;
    }
    let id = u32::from(tag & 0xFFF);
    registers.get(r::VFTA + 4 * (id >> 5)) >> (id & 31) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_by_mode() {
        let mut registers = RegisterFile::new();
        let mine = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
        assert_eq!(accept_address(&registers, mine), None);
        registers.set(r::RAL + 8 * 3, 0x3322_1102);
        registers.set(r::RAL + 8 * 3 + 4, r::RAH_VALID | 0x5544);
        assert_eq!(accept_address(&registers, mine), Some(Accepted::Exactly));
        assert_eq!(accept_address(&registers, [0xFF; 6]), None);
        registers.set(r::FCTRL, r::FCTRL_BROADCAST_ACCEPT);
        assert_eq!(accept_address(&registers, [0xFF; 6]), Some(Accepted::Exactly));
        let other = [0x02, 0, 0, 0, 0, 9];
        assert_eq!(accept_address(&registers, other), None);
        registers.set(r::FCTRL, r::FCTRL_UNICAST_PROMISCUOUS);
        assert_eq!(accept_address(&registers, other), Some(Accepted::Inexactly));
    }

    #[test]
    fn multicast_by_hash() {
        let mut registers = RegisterFile::new();
        let group = [0x33, 0x33, 0, 0, 0x12, 0x34];
        let hash = (0x12 >> 4 | 0x34 << 4) & 0xFFF;
        registers.set(r::MTA + 4 * (hash >> 5), 1 << (hash & 31));
        assert_eq!(accept_address(&registers, group), None);
        registers.set(r::MCSTCTRL, r::MCSTCTRL_FILTER_ENABLE);
        assert_eq!(accept_address(&registers, group), Some(Accepted::Inexactly));
        assert_eq!(accept_address(&registers, [0x33, 0x33, 0, 0, 0x12, 0x35]), None);
    }

    #[test]
    fn vlans_by_table() {
        let mut registers = RegisterFile::new();
        let tagged = Headers {
            vlan: Some(0x2064),
            ..Headers::default()
        };
        assert!(accept_vlan(&registers, &tagged));
        registers.set(r::VLNCTRL, r::VLNCTRL_FILTER_ENABLE | 0x8100);
        assert!(!accept_vlan(&registers, &tagged));
        registers.set(r::VFTA + 4 * (0x64 >> 5), 1 << (0x64 & 31));
        assert!(accept_vlan(&registers, &tagged));
        assert!(accept_vlan(&registers, &Headers::default()));
    }
}
