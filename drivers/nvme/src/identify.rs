//! What a controller and its namespaces say of themselves (base specification 2.0, 5.17.2; NVM command set 1.0, 4.1.5).
//!
//! Sizes of blocks, which decide how much memory a command moves, are read by `dma::nvme::Namespace`.

use rref::Text;

/// Structures by number (CNS).
pub const NAMESPACE: u8 = 0x00;
/// The controller.
pub const CONTROLLER: u8 = 0x01;
/// Active namespaces with numbers above the given one.
pub const ACTIVE_NAMESPACES: u8 = 0x02;
/// The controller, as a command set sees it.
pub const CONTROLLER_FOR_COMMAND_SET: u8 = 0x06;
/// The NVM command set.
pub const NVM_COMMAND_SET: u8 = 0;

/// Little-endian numbers in a structure; bytes that aren't there are zero.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    /// A byte.
    pub fn byte(&self, offset: usize) -> u8 {
        self.0.get(offset).copied().unwrap_or(0)
    }

    /// As many bytes, as a number.
    pub fn number(&self, offset: usize, bytes: usize) -> u64 {
        (0..bytes.min(8)).fold(0, |number, index| {
            number | u64::from(self.byte(offset + index)) << (8 * index)
        })
    }

    /// Text padded with spaces; what isn't ASCII becomes a question mark.
    pub fn text<const N: usize>(&self, offset: usize, bytes: usize) -> Text<N> {
        let field = self.0.get(offset..offset + bytes).unwrap_or_default();
        let end = field
            .iter()
            .rposition(|byte| !matches!(byte, b' ' | 0))
            .map_or(0, |last| last + 1);
        let mut text = Text::EMPTY;
        for &byte in field.iter().take(end) {
            let readable = byte.is_ascii_graphic() || byte == b' ';
            text.push(char::from(if readable { byte } else { b'?' }).encode_utf8(&mut [0; 4]));
        }
        text
    }
}

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerData {
    /// PCI vendor.
    pub vendor: u16,
    /// Serial number.
    pub serial: Text<20>,
    /// Model.
    pub model: Text<40>,
    /// Firmware revision.
    pub firmware: Text<8>,
    /// Bytes that a command moves at most (MDTS); `None` for no limit.
    pub transfer_limit_bytes: Option<u64>,
    /// Events that it can report (OAES), as they stand in the feature that asks for them.
    pub events: u32,
    /// Microseconds that a shutdown may take (RTD3E); 0 when it doesn't say.
    pub shutdown_limit_us: u32,
    /// Aborts under way at most (ACL), from 1.
    pub abort_limit: u16,
    /// Requests for events under way at most (AERL), from 1.
    pub event_limit: u16,
    /// Entries of its error log (ELPE), from 1.
    pub error_entries: u16,
    /// It can write zeroes.
    pub write_zeroes: bool,
    /// It can deallocate.
    pub deallocate: bool,
    /// It has a volatile write cache.
    pub volatile_cache: bool,
    /// Logical blocks that a power cut leaves all old or all new (AWUPF), from 1.
    pub atomic_blocks: u32,
}

/// Vendor of QEMU's controller.
const QEMU: u16 = 0x1B36;

impl ControllerData {
    /// Whether it does what Force Unit Access asks for. QEMU's controller doesn't look at that bit: nothing of a forced write reaches the
    /// disk before the next flush (seen in the log of its block layer, versions 7 to 11).
    pub fn forces_writes(&self) -> bool {
        self.vendor != QEMU
    }

    /// Reads the structure of a controller whose smallest page has `page_bytes`.
    pub fn parse(structure: &[u8], page_bytes: u64) -> ControllerData {
        let fields = Fields(structure);
        let optional = fields.number(520, 2);
        ControllerData {
            vendor: fields.number(0, 2) as u16,
            serial: fields.text(4, 20),
            model: fields.text(24, 40),
            firmware: fields.text(64, 8),
            transfer_limit_bytes: match fields.byte(77) {
                0 => None,
                power => page_bytes
                    .checked_shl(u32::from(power))
                    .filter(|&limit| limit != 0),
            },
            events: fields.number(92, 4) as u32,
            shutdown_limit_us: fields.number(88, 4) as u32,
            abort_limit: u16::from(fields.byte(258)) + 1,
            event_limit: u16::from(fields.byte(259)) + 1,
            error_entries: u16::from(fields.byte(262)) + 1,
            write_zeroes: optional & 1 << 3 != 0,
            deallocate: optional & 1 << 2 != 0,
            volatile_cache: fields.byte(525) & 1 != 0,
            atomic_blocks: fields.number(528, 2) as u32 + 1,
        }
    }
}

/// Limits of commands that move nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLimits {
    /// Logical blocks of one write of zeroes, in bytes; `None` for what fits a command.
    pub write_zeroes_bytes: Option<u64>,
    /// Ranges of one deallocation.
    pub ranges: u8,
    /// Logical blocks of one range.
    pub range_blocks: u32,
}

impl Default for RangeLimits {
    fn default() -> Self {
        RangeLimits {
            write_zeroes_bytes: None,
            ranges: u8::MAX,
            range_blocks: u32::MAX,
        }
    }
}

impl RangeLimits {
    /// Reads the structure of the NVM command set, in which 0 stands for no limit.
    pub fn parse(structure: &[u8], page_bytes: u64) -> RangeLimits {
        let fields = Fields(structure);
        let none = RangeLimits::default();
        RangeLimits {
            write_zeroes_bytes: match fields.byte(1) {
                0 => None,
                power => page_bytes
                    .checked_shl(u32::from(power))
                    .filter(|&limit| limit != 0),
            },
            ranges: match fields.byte(3) {
                0 => none.ranges,
                ranges => ranges,
            },
            range_blocks: match fields.number(4, 4) as u32 {
                0 => none.range_blocks,
                blocks => blocks,
            },
        }
    }
}

/// What a namespace says besides its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceData {
    /// Logical blocks that a power cut leaves all old or all new, if it has a number of its own.
    pub atomic_blocks: Option<u32>,
    /// It is protected against writing.
    pub read_only: bool,
}

impl NamespaceData {
    /// Reads the structure.
    pub fn parse(structure: &[u8]) -> NamespaceData {
        let fields = Fields(structure);
        let own_atomics = fields.byte(24) & 1 << 1 != 0;
        NamespaceData {
            atomic_blocks: own_atomics.then(|| fields.number(36, 2) as u32 + 1),
            read_only: fields.byte(99) & 1 != 0,
        }
    }
}

/// Numbers in a list of namespaces, which ends with 0 or with the page.
pub fn namespace_numbers(list: &[u8]) -> impl Iterator<Item = u32> + '_ {
    list.chunks_exact(4)
        .map(|bytes| Fields(bytes).number(0, 4) as u32)
        .take_while(|&number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn a_controller_is_read_by_its_fields() {
        let mut bytes = vec![0; 4096];
        bytes[0] = 0x36;
        bytes[1] = 0x1B;
        bytes[4..24].fill(b' ');
        bytes[4..8].copy_from_slice(b"disk");
        bytes[24..64].copy_from_slice(b"QEMU NVMe Ctrl                          ");
        bytes[64..72].copy_from_slice(b"9.2\0    ");
        bytes[77] = 7;
        bytes[520] = 0x0C;
        bytes[525] = 7;
        bytes[528] = 3;
        let data = ControllerData::parse(&bytes, 4096);
        assert_eq!(data.vendor, 0x1B36);
        assert_eq!(data.serial.as_str(), "disk");
        assert_eq!(data.model.as_str(), "QEMU NVMe Ctrl");
        assert_eq!(data.firmware.as_str(), "9.2");
        assert_eq!(data.transfer_limit_bytes, Some(512 << 10));
        assert!(data.write_zeroes && data.deallocate && data.volatile_cache);
        assert_eq!((data.atomic_blocks, data.event_limit), (4, 1));
    }

    #[test]
    fn limits_of_zero_are_none() {
        assert_eq!(RangeLimits::parse(&[0; 16], 4096), RangeLimits::default());
        let limits = RangeLimits::parse(&[0, 2, 0, 8, 0, 1, 0, 0], 4096);
        assert_eq!(limits.write_zeroes_bytes, Some(16384));
        assert_eq!((limits.ranges, limits.range_blocks), (8, 256));
    }

    #[test]
    fn a_list_of_namespaces_ends_with_zero() {
        let list: Vec<u8> = [1u32, 7, 0, 9].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(namespace_numbers(&list).collect::<Vec<_>>(), [1, 7]);
    }

    proptest! {
        /// Whatever a controller answers, it is read without a panic, and limits are none or not zero.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..4097)) {
            let data = ControllerData::parse(&bytes, 4096);
            prop_assert!(data.transfer_limit_bytes.is_none_or(|limit| limit >= 8192));
            prop_assert!(data.atomic_blocks >= 1 && data.event_limit >= 1);
            let limits = RangeLimits::parse(&bytes, 4096);
            prop_assert!(limits.ranges > 0 && limits.range_blocks > 0);
            NamespaceData::parse(&bytes);
            prop_assert!(namespace_numbers(&bytes).count() <= 1024);
        }
    }
}
