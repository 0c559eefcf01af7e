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
/// What is looked at of every packet of a batch stands together, so that one comparison does for all of it ([`Marks`]).
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
    /// Always 0.
    unused: u8,
    /// VLAN tag (TCI) that the device took off or is to put on; `None` for untagged frames.
    pub vlan: Option<u16>,
    /// Receive queue it came from.
    pub queue: u16,
    /// Checksums of a received packet.
    pub checksum: ChecksumState,
    /// RSS hash by the device; 0 when it has none.
    pub rss_hash: u32,
    data: [u8; PACKET_BYTES],
}

/// Verdict, `continues` and request of a packet, to be compared at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks(u32);

impl Marks {
    /// These marks.
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
        // (variants 0, `false`, `Option<u16>` of zero bytes, which is `None` by the assertion below), and data is any bytes.
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
        self.unused = 0;
        self.vlan = None;
        self.rss_hash = 0;
    }

    /// Distance of the byte from the packet's first at which a received frame begins, for devices.
    pub const RECEIVE_OFFSET: usize = core::mem::offset_of!(Packet, data) + HEADROOM_BYTES;

    /// Makes it a received frame, whatever it was: all of its fields are set. It begins behind the usual headroom, where devices are told
    /// to write, and is at most [`BUFFER_BYTES`] long.
    #[inline(always)]
    pub fn receive(&mut self, reception: Reception) {
        self.offset = HEADROOM_BYTES as u16;
        self.length = reception.length.min(BUFFER_BYTES as u16);
        self.verdict = Verdict::Received;
        self.continues = false;
        self.request = ChecksumRequest::None;
        self.unused = 0;
        self.vlan = reception.vlan;
        self.queue = reception.queue;
        self.checksum = reception.checksum;
        self.rss_hash = reception.rss_hash;
    }

    /// Verdict, `continues` and request.
    #[inline(always)]
    #[must_use]
    pub fn marks(&self) -> Marks {
        let bytes = [
            self.verdict as u8,
            self.continues as u8,
            self.request as u8,
            self.unused,
        ];
        Marks(u32::from_le_bytes(bytes))
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
        // `offset + length <= PACKET_BYTES` is this type's invariant; `get` keeps a mistake from becoming a panic.
        match self.data.get(start..start + self.length as usize) {
            Some(frame) => frame,
            None => no_frame(),
        }
    }

    /// The frame's bytes, to change.
    #[inline(always)]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        let start = self.offset as usize;
        match self.data.get_mut(start..start + self.length as usize) {
            Some(frame) => frame,
            None => no_frame(),
        }
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

/// What doesn't happen, out of line: inlined it would be computed for every packet, to be chosen or not.
#[cold]
#[inline(never)]
fn no_frame() -> &'static mut [u8] {
    &mut []
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

const _: () = {
    // SAFETY: Any four bytes are a valid `Option<u16>` only if the tag is 0 or 1; zero is one of them.
    let zero: Option<u16> = unsafe { core::mem::transmute([0u8; 4]) };
    assert!(zero.is_none());
};
