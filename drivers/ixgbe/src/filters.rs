//! Which frames the device takes: addresses, multicast groups, VLANs, lengths (datasheet 7.1.1).
//!
//! Tables live in memories of the device that a reset doesn't clear and that another life of the driver may have left in any
//! state, so they are written whole before a filter that uses them is turned on. The one exception is the table of groups after a quick
//! start, see [`Groups`].

use crate::registers as r;
use dma::Mmio;
use interface::net::{MacAddress, NetConfiguration};

/// Longest frame without check sequence that the device is set to: 9.5 KiB with it.
pub const FRAME_LIMIT_BYTES: u16 = 9728 - 4;
/// Longest usual frame without check sequence.
pub const STANDARD_FRAME_BYTES: u16 = 1514;
/// Bytes of the check sequence.
const CHECK_SEQUENCE_BYTES: u32 = 4;

/// How the table of multicast groups is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Whole.
    Exact,
    /// Only where there are groups. What an earlier life left in the rest lets more frames pass, as a filter by hash does anyway; and most of
    /// its 128 writes are spared until they don't hold up traffic.
    AtLeast,
}

/// Sets every filter as the configuration says, except the queues' part of VLAN offload.
pub fn apply(registers: &Mmio, configuration: &NetConfiguration, exactness: Groups) {
    set_frame_limit(registers, configuration.frame_bytes);

    let groups = multicast_table(configuration.multicast.iter().flatten());
    let any_group = groups.iter().any(|word| *word != 0);
    if any_group {
        for (index, word) in (0..).zip(&groups) {
            if exactness == Groups::Exact || *word != 0 {
                registers.write(r::MTA + index * 4, *word);
            }
        }
    }
    registers.write(r::MCSTCTRL, if any_group { r::MCSTCTRL_FILTER } else { 0 });

    let mut vlan_control = r::VLNCTRL_TYPE;
    let vlans = vlan_table(configuration.vlans.iter().flatten());
    if configuration.vlan_offload && vlans.iter().any(|word| *word != 0) {
        for (index, word) in (0..).zip(&vlans) {
            registers.write(r::VFTA + index * 4, *word);
        }
        vlan_control |= r::VLNCTRL_FILTER;
    }
    registers.write(r::VLNCTRL, vlan_control);

    let mut filter = r::FCTRL_BROADCAST;
    if configuration.promiscuous {
        filter |= r::FCTRL_PROMISCUOUS;
    }
    if configuration.all_multicast {
        filter |= r::FCTRL_ALL_MULTICAST;
    }
    registers.write(r::FCTRL, filter);
}

/// Lets frames up to `frame_bytes` pass, at most [`FRAME_LIMIT_BYTES`].
fn set_frame_limit(registers: &Mmio, frame_bytes: u16) {
    let frame_bytes = frame_bytes.clamp(STANDARD_FRAME_BYTES, FRAME_LIMIT_BYTES);
    let jumbo = if frame_bytes > STANDARD_FRAME_BYTES {
        r::HLREG0_JUMBO
    } else {
        0
    };
    registers.write(r::MAXFRS, (u32::from(frame_bytes) + CHECK_SEQUENCE_BYTES) << 16);
    registers.write(r::HLREG0, r::HLREG0_VALUE | jumbo);
}

/// A bit for each group: hash of bits 36 to 47 of its address (7.1.1.2, MCSTCTRL.MO 0).
fn multicast_table<'a>(groups: impl Iterator<Item = &'a MacAddress>) -> [u32; r::FILTER_WORDS] {
    table(groups.map(|group| {
        let [.., low, high] = group.0;
        (u16::from(low) >> 4) | u16::from(high) << 4
    }))
}

/// A bit for each VLAN id.
fn vlan_table<'a>(vlans: impl Iterator<Item = &'a u16>) -> [u32; r::FILTER_WORDS] {
    table(vlans.map(|vlan| vlan & 0xFFF))
}

/// A table of 4096 bits with these set.
fn table(bits: impl Iterator<Item = u16>) -> [u32; r::FILTER_WORDS] {
    let mut table = [0; r::FILTER_WORDS];
    for bit in bits {
        if let Some(word) = table.get_mut(usize::from(bit >> 5)) {
            *word |= 1 << (bit & 31);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn multicast_hash_is_the_upper_twelve_bits() {
        let table = multicast_table([MacAddress([0x01, 0, 0x5E, 0, 0x12, 0xAB])].iter());
        let hash = 0xAB1usize;
        assert_eq!(table[hash >> 5], 1 << (hash & 31));
        assert_eq!(table.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
    }

    proptest! {
        /// Whatever ids an operator gives, the table has exactly their lower twelve bits.
        #[test]
        fn vlan_table_has_the_ids(vlans in proptest::collection::vec(any::<u16>(), 0..40)) {
            let table = vlan_table(vlans.iter());
            for id in 0..4096u16 {
                let set = table[usize::from(id >> 5)] >> (id & 31) & 1 == 1;
                prop_assert_eq!(set, vlans.iter().any(|vlan| vlan & 0xFFF == id));
            }
        }
    }
}
