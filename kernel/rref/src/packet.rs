//! Packets: fixed buffers on the shared heap that devices fill and empty.
//!
//! A packet is 2 KiB of data behind headroom, with an offset and a length of its own, so headers can be added in front without a
//! copy, and what devices and stacks tell each other about it. A frame longer than one buffer is a run of packets in a batch, each but the
//! last marked `continues`.

use crate::batch::Batch;
use crate::exchange::{Exchange, Share};
use crate::reference::{OutOfMemory, RRef};
use abi::{ObjectKind, sys};
use core::ptr::NonNull;

/// Bytes left free before received data, for encapsulation.
pub const HEADROOM_BYTES: usize = 128;
/// Bytes behind the usual headroom: what a device may write. Network devices take buffer sizes in whole KiB.
pub const BUFFER_BYTES: usize = 2048;
/// Bytes of data in one packet, headroom included.
pub const PACKET_BYTES: usize = HEADROOM_BYTES + BUFFER_BYTES;

/// What whoever had the packet last wants done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing in it: a buffer to fill.
    #[default]
    Empty = 0,
    /// Came from a device.
    Received = 1,
    /// To be sent.
    Transmit = 2,
}

/// What the device found of a received packet's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum ChecksumState {
    /// Not looked at: software must check.
    #[default]
    Unknown = 0,
    /// IP and transport checksums (as far as there are any) are right.
    Good = 1,
    /// One is wrong.
    Bad = 2,
}

/// Checksums that the device is to fill in when it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum ChecksumRequest {
    /// The frame is complete.
    #[default]
    None = 0,
    /// IPv4 header and TCP checksum; the TCP field holds the pseudo-header sum.
    Tcp = 1,
    /// IPv4 header and UDP checksum; the UDP field holds the pseudo-header sum.
    Udp = 2,
}

/// A frame, or part of one, with what devices say of it.
///
/// What is looked at of every packet of a batch stands together, so that one load gets all of it ([`Outline`]) and one comparison does
/// for what is said of it ([`Marks`]).
///
/// `offset + length <= PACKET_BYTES` holds between calls: both are private, and whatever sets one keeps it. Who gets a packet of a
/// dead domain, which may have died between the two stores, sees to that first ([`Packet::inherit`]).
#[repr(C, align(64))]
pub struct Packet {
    offset: u16,
    length: u16,
    /// What is to be done with it.
    pub verdict: Verdict,
    /// Whether the frame goes on in the next packet of the batch.
    pub continues: bool,
    /// Checksums to fill in on sending.
    pub request: ChecksumRequest,
    /// Whether `tag` means something.
    tagged: bool,
    tag: u16,
    /// Receive queue it came from.
    pub queue: u16,
    /// RSS hash by the device; 0 when it has none.
    pub rss_hash: u32,
    /// Checksums of a received packet.
    pub checksum: ChecksumState,
    /// So that data begins at a multiple of four.
    _unused: [u8; 3],
    data: [u8; PACKET_BYTES],
}

// `Packet::outline` and `Packet::receive` take fields together as words.
const _: () = {
    assert!(cfg!(target_endian = "little"));
    assert!(core::mem::offset_of!(Packet, length) == 2 && core::mem::offset_of!(Packet, verdict) == 4);
    assert!(core::mem::offset_of!(Packet, continues) == 5 && core::mem::offset_of!(Packet, request) == 6);
    assert!(core::mem::offset_of!(Packet, tagged) == 7 && core::mem::offset_of!(Packet, tag) == 8);
    assert!(core::mem::offset_of!(Packet, queue) == 10 && core::mem::offset_of!(Packet, rss_hash) == 12);
};

/// Verdict, `continues`, request and whether there is a VLAN tag, to be compared at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks(u32);

impl Marks {
    /// These marks, of an untagged frame.
    #[inline(always)]
    #[must_use]
    pub const fn new(verdict: Verdict, continues: bool, request: ChecksumRequest) -> Marks {
        Marks(u32::from_le_bytes([
            verdict as u8,
            continues as u8,
            request as u8,
            0,
        ]))
    }

    /// An untagged frame that was received whole into one packet, as far as the packet itself can tell.
    pub const RECEIVED: Marks = Marks::new(Verdict::Received, false, ChecksumRequest::None);
}

/// Where a packet's frame is, and its marks: all that a device needs to know of most packets, read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline(u64);

impl Outline {
    /// Verdict, `continues`, request and tag.
    #[inline(always)]
    #[must_use]
    pub const fn marks(self) -> Marks {
        Marks((self.0 >> 32) as u32)
    }

    /// Whether it has these marks and a length from `shortest` to `longest`: one comparison, since the length stands below the marks.
    #[inline(always)]
    #[must_use]
    pub const fn is_one_of(self, marks: Marks, shortest: u16, longest: u16) -> bool {
        let first = (marks.0 as u64) << 16 | shortest as u64;
        (self.0 >> 16).wrapping_sub(first) <= longest.saturating_sub(shortest) as u64
    }

    /// Bytes of the frame, as [`Packet::len`].
    #[inline(always)]
    #[must_use]
    pub const fn length(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// As [`Packet::data_offset`].
    #[inline(always)]
    #[must_use]
    pub const fn data_offset(self) -> usize {
        core::mem::offset_of!(Packet, data) + (self.0 as u16) as usize
    }
}

/// What a device says of a frame that it received whole into one packet.
#[derive(Clone, Copy, Debug)]
pub struct Reception {
    /// Bytes that it wrote.
    pub length: u16,
    /// The queue it came to.
    pub queue: u16,
    /// Its tag, if the device took one off.
    pub vlan: Option<u16>,
    /// What was found of its checksums.
    pub checksum: ChecksumState,
    /// RSS hash; 0 when there is none.
    pub rss_hash: u32,
}

// SAFETY: Plain data.
unsafe impl Exchange for Packet {}
// SAFETY: Plain data.
unsafe impl Share for Packet {}

/// Packets that cross together.
pub type PacketBatch = Batch<Packet>;

impl Packet {
    /// An empty packet with the usual headroom; its data bytes are what they last were.
    pub fn allocate() -> Result<RRef<Packet>, OutOfMemory> {
        let mut packet: RRef<PacketBytes> = RRef::allocate_as(ObjectKind::Packet)?;
        // Reset before it is looked at as a packet: a fresh object's enums are bytes of another object's life.
        packet.bytes[..size_of::<Packet>() - PACKET_BYTES].fill(0);
        // SAFETY: `PacketBytes` has the size and alignment of `Packet`; with its first bytes zero every field of `Packet` is valid
        // (variants 0, `false`, numbers), and data is any bytes.
        let mut packet = unsafe { RRef::from_payload(packet.into_payload().cast::<Packet>()) };
        packet.reset();
        Ok(packet)
    }

    /// The next packet that a dead driver was to send, in the order in which it was to, and that was left to this domain; `queue` says through
    /// which transmit queue. A long frame's packets follow each other, but the first or last ones may be missing.
    pub fn inherit() -> Option<RRef<Packet>> {
        let payload = (sys().shared_inherit)(ObjectKind::Packet as u32, 0);
        let payload = NonNull::new(payload.cast::<Packet>())?;
        // SAFETY: The kind says that it is a packet: `allocate` alone makes objects of it, whose every field is valid at every instruction.
        // The kernel gives each away once, when nobody has a handle to it any more.
        let mut packet = unsafe { RRef::from_payload(payload) };
        // What holds of two fields together, a death between the two stores may have left broken; devices rely on it.
        if usize::from(packet.offset) + usize::from(packet.length) > PACKET_BYTES {
            packet.reset();
        }
        Some(packet)
    }

    /// Makes it empty again: the usual headroom, no length, nothing said of it.
    #[inline]
    pub fn reset(&mut self) {
        self.offset = HEADROOM_BYTES as u16;
        self.length = 0;
        self.verdict = Verdict::Empty;
        self.checksum = ChecksumState::Unknown;
        self.request = ChecksumRequest::None;
        self.continues = false;
        self.set_vlan(None);
        self.rss_hash = 0;
    }

    /// VLAN tag (TCI) that the device took off or is to put on; `None` for untagged frames.
    #[inline(always)]
    #[must_use]
    pub fn vlan(&self) -> Option<u16> {
        self.tagged.then_some(self.tag)
    }

    /// Sets the VLAN tag.
    #[inline(always)]
    pub fn set_vlan(&mut self, vlan: Option<u16>) {
        self.tagged = vlan.is_some();
        self.tag = vlan.unwrap_or(0);
    }

    /// Distance of the byte from the packet's first at which a received frame begins, for devices.
    pub const RECEIVE_OFFSET: usize = core::mem::offset_of!(Packet, data) + HEADROOM_BYTES;

    /// Makes it a received frame, whatever it was: all of its fields are set. It begins behind the usual headroom, where devices are told
    /// to write, and is at most [`BUFFER_BYTES`] long.
    #[inline(always)]
    pub fn receive(&mut self, reception: Reception) {
        let length = reception.length.min(BUFFER_BYTES as u16);
        let tagged = u64::from(reception.vlan.is_some()) << 56;
        let first =
            HEADROOM_BYTES as u64 | u64::from(length) << 16 | u64::from(Marks::RECEIVED.0) << 32 | tagged;
        let second = u64::from(reception.vlan.unwrap_or(0))
            | u64::from(reception.queue) << 16
            | u64::from(reception.rss_hash) << 32;
        // SAFETY: The first 16 bytes are the fields from `offset` to `rss_hash` without a gap, in the order of the two words (asserted above).
        // Each gets a valid value: `Marks::RECEIVED` is made of valid variants, and the bit is a `bool`. The frame fits: what begins behind
        // the headroom may be `BUFFER_BYTES` long.
        unsafe {
            core::ptr::from_mut(self)
                .cast::<[u64; 2]>()
                .write([first, second])
        };
        self.checksum = reception.checksum;
    }

    /// Where its frame is, and its marks.
    #[inline(always)]
    #[must_use]
    pub fn outline(&self) -> Outline {
        // SAFETY: The first 8 bytes are fields without a gap (asserted above), and a packet is aligned to 64.
        Outline(unsafe { core::ptr::from_ref(self).cast::<u64>().read() })
    }

    /// Verdict, `continues`, request and tag.
    #[inline(always)]
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.outline().marks()
    }

    /// Whether it is a received frame that is whole in this packet, as far as the packet itself can tell: the last packet of a long
    /// frame looks like that too.
    #[inline(always)]
    #[must_use]
    pub fn is_received_whole(&self) -> bool {
        u16::from_le_bytes([self.verdict as u8, self.continues as u8]) == Verdict::Received as u16
    }

    /// The frame's bytes.
    #[inline(always)]
    pub fn frame(&self) -> &[u8] {
        let start = self.offset as usize;
        // SAFETY: `offset + length <= PACKET_BYTES` is this type's invariant.
        unsafe { self.data.get_unchecked(start..start + self.length as usize) }
    }

    /// The frame's bytes, to change.
    #[inline(always)]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        let start = self.offset as usize;
        // SAFETY: As `frame`.
        unsafe { self.data.get_unchecked_mut(start..start + self.length as usize) }
    }

    /// Bytes of the frame in this packet.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is no byte in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Sets the length, cut to what fits behind the offset, and gives the bytes to fill.
    #[inline(always)]
    pub fn resize(&mut self, length: usize) -> &mut [u8] {
        self.length = length.min(PACKET_BYTES - self.offset as usize) as u16;
        self.frame_mut()
    }

    /// Takes `count` bytes off the front; false (and nothing changed) when there are fewer.
    pub fn pull(&mut self, count: usize) -> bool {
        if count > self.length as usize {
            return false;
        }
        self.offset += count as u16;
        self.length -= count as u16;
        true
    }

    /// Puts `count` bytes before the frame; `None` when the headroom is shorter.
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.offset as usize {
            return None;
        }
        self.offset -= count as u16;
        self.length += count as u16;
        self.frame_mut().get_mut(..count)
    }

    /// Bytes that a device may write from the offset on.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        PACKET_BYTES - self.offset as usize
    }

    /// Distance of the frame's first byte from the packet's, for devices.
    #[inline(always)]
    pub fn data_offset(&self) -> usize {
        core::mem::offset_of!(Packet, data) + self.offset as usize
    }
}

/// A packet as bytes, to make one valid.
#[repr(C, align(64))]
struct PacketBytes {
    bytes: [u8; size_of::<Packet>()],
}

const _: () = assert!(size_of::<PacketBytes>() == size_of::<Packet>());

// SAFETY: Plain bytes.
unsafe impl Exchange for PacketBytes {}
// SAFETY: Plain bytes.
unsafe impl Share for PacketBytes {}
