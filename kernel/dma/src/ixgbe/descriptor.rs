//! Advanced descriptors of the 82599 (datasheet 7.1.6 "Advanced Receive Descriptors", 7.2.3.2 "Transmit Descriptor Formats").
//!
//! Formats only. An address gets into a descriptor in `receive.rs` and `transmit.rs`.

/// What hardware wrote back about one received buffer (7.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveStatus {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// Bits of the second word: extended status in 0 to 19, extended errors in 20 to 31.
pub(crate) const RECEIVE_DONE: u64 = 1 << 0;
pub(crate) const END_OF_PACKET: u64 = 1 << 1;
const VLAN_FRAME: u64 = 1 << 3;
const TRANSPORT_CHECKED: u64 = 1 << 5;
const IPV4_CHECKED: u64 = 1 << 6;
const FRAME_ERROR: u64 = 1 << 29;
const TRANSPORT_WRONG: u64 = 1 << 30;
const IPV4_WRONG: u64 = 1 << 31;
/// Bits of the first word: RSS type in 0 to 3, packet type in 4 to 16.
const RSS_TYPE: u64 = 0xF;
const TYPE_UDP: u64 = 1 << 9;

impl ReceiveStatus {
    /// Whether the frame ends in this buffer.
    #[inline(always)]
    pub fn is_end(self) -> bool {
        self.high & END_OF_PACKET != 0
    }

    /// Whether the frame came whole and right from the wire. Valid in the last buffer.
    #[inline(always)]
    pub fn is_intact(self) -> bool {
        self.high & FRAME_ERROR == 0
    }

    /// Bytes that hardware says it wrote to this buffer.
    #[inline(always)]
    pub fn length(self) -> u16 {
        (self.high >> 32) as u16
    }

    /// The tag of a VLAN frame, which is not in the buffer when the queue strips tags, and else is in both places.
    #[inline(always)]
    pub fn vlan(self) -> Option<u16> {
        (self.high & VLAN_FRAME != 0).then_some((self.high >> 48) as u16)
    }

    /// The RSS hash; 0 when the frame had nothing to hash.
    #[inline(always)]
    pub fn rss_hash(self) -> u32 {
        if self.low & RSS_TYPE == 0 {
            0
        } else {
            (self.low >> 32) as u32
        }
    }

    /// The RSS hash of a [plain](Self::is_plain) frame: it has a transport checksum, so it is an IP packet, and of those the device hashes all.
    #[inline(always)]
    pub fn plain_rss_hash(self) -> u32 {
        (self.low >> 32) as u32
    }

    /// Whether the IPv4 header's checksum was looked at, and was right.
    #[inline(always)]
    pub fn ipv4_checksum(self) -> Option<bool> {
        (self.high & IPV4_CHECKED != 0).then_some(self.high & IPV4_WRONG == 0)
    }

    /// Whether a TCP or UDP checksum was looked at, and was right.
    #[inline(always)]
    pub fn transport_checksum(self) -> Option<bool> {
        (self.high & TRANSPORT_CHECKED != 0).then_some(self.high & TRANSPORT_WRONG == 0)
    }

    /// Whether hardware took it for a UDP datagram.
    #[inline(always)]
    pub fn is_udp(self) -> bool {
        self.low & TYPE_UDP != 0
    }

    /// Whether it is an untagged frame that is whole in its buffer and came right from the wire, whose transport checksum was looked at, and
    /// nothing that was looked at was wrong: the usual case in one test.
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        is_plain(self.high)
    }
}

/// [`ReceiveStatus::is_plain`] of a status with this second word.
#[inline(always)]
pub(crate) fn is_plain(high: u64) -> bool {
    const SAID: u64 = RECEIVE_DONE | END_OF_PACKET | TRANSPORT_CHECKED;
    const NOT_SAID: u64 = VLAN_FRAME | FRAME_ERROR | TRANSPORT_WRONG | IPV4_WRONG;
    high & (SAID | NOT_SAID) == SAID
}

/// What hardware is to do with the buffers of a frame (7.2.3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitFlags(u64);

impl TransmitFlags {
    /// The frame ends in this buffer.
    pub const END: TransmitFlags = TransmitFlags(1 << 24);
    /// Append the frame check sequence (always set, in every buffer's descriptor).
    pub const CHECK_SEQUENCE: TransmitFlags = TransmitFlags(1 << 25);
    /// Insert the context's VLAN tag.
    pub const VLAN: TransmitFlags = TransmitFlags(1 << 30 | CHECK_CONTEXT);
    /// Insert the IPv4 header's checksum at the context's offsets.
    pub const IPV4_CHECKSUM: TransmitFlags = TransmitFlags(1 << 40 | CHECK_CONTEXT);
    /// Insert the transport checksum at the context's offsets.
    pub const TRANSPORT_CHECKSUM: TransmitFlags = TransmitFlags(1 << 41 | CHECK_CONTEXT);

    /// Both.
    #[must_use]
    #[inline(always)]
    pub const fn with(self, other: TransmitFlags) -> TransmitFlags {
        TransmitFlags(self.0 | other.0)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

/// CC: the frame uses the context written before it.
const CHECK_CONTEXT: u64 = 1 << 39;
/// Descriptor type 3, advanced data, and the DEXT bit that says "advanced".
const DATA: u64 = 0b0011 << 20 | 1 << 29;
/// Descriptor type 2, advanced context.
const CONTEXT: u64 = 0b0010 << 20 | 1 << 29;
/// Report status: write DD back when the frame is out.
pub(crate) const REPORT: u64 = 1 << 27;
/// Frame length in PAYLEN, 18 bits.
const PAYLOAD_SHIFT: u32 = 46;
const PAYLOAD_LIMIT: u32 = 1 << 18;
/// DD in the second word of a written-back descriptor.
pub(crate) const TRANSMIT_DONE: u64 = abi::place::SENT;

/// The second word of a data descriptor for `length` bytes of a frame of `frame_bytes`.
#[inline(always)]
pub(crate) const fn data_word(length: u16, frame_bytes: u32, flags: TransmitFlags) -> u64 {
    let payload = (frame_bytes & (PAYLOAD_LIMIT - 1)) as u64;
    length as u64 | DATA | flags.bits() | payload << PAYLOAD_SHIFT
}

/// Which checksum a context asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportChecksum {
    /// UDP, or none at all.
    Udp,
    /// TCP.
    Tcp,
}

/// Offsets and tag for the frames that follow it (7.2.3.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextDescriptor {
    /// Bytes before the network header, at most 127.
    pub link_bytes: u8,
    /// Bytes of the network header, at most 511.
    pub network_bytes: u16,
    /// Whether that is IPv4.
    pub ipv4: bool,
    /// The transport protocol.
    pub transport: TransportChecksum,
    /// The VLAN tag to insert.
    pub vlan: u16,
}

impl ContextDescriptor {
    pub(crate) const fn words(self) -> [u64; 2] {
        let low = (self.network_bytes & 0x1FF) as u64
            | ((self.link_bytes & 0x7F) as u64) << 9
            | (self.vlan as u64) << 16;
        let ipv4 = (self.ipv4 as u64) << 10;
        let transport = match self.transport {
            TransportChecksum::Udp => 0,
            TransportChecksum::Tcp => 1 << 11,
        };
        [low, CONTEXT | ipv4 | transport]
    }
}
