//! The transmitting half of a queue: from frames with wishes to descriptors, and watching that they leave (datasheet 7.2).
//!
//! A context descriptor, which says where headers are, is written only when it differs from the last one: hardware keeps it.

use crate::error::DeviceError;
use crate::statistics::QueueCounters;
use dma::ixgbe::{Adapter, ContextDescriptor, FrameKind, TransmitFlags, TransmitRing, TransportChecksum};
use rref::packet::{ChecksumRequest, Marks, Verdict};
use rref::{Packet, PacketBatch, RRef};

/// Slots of a ring.
pub const SLOTS: usize = 512;
/// The shortest frame that hardware takes; it pads to 60 (7.2.1.1).
const SHORTEST_BYTES: usize = 17;
/// A ring that has sent nothing of what it holds for so long hangs.
const HANG_NS: u64 = 2_000_000_000;

/// A frame of one packet that asks nothing of hardware.
const PLAIN: Marks = Marks::new(Verdict::Transmit, false, ChecksumRequest::None);
/// One that asks for TCP's checksum.
const TCP: Marks = Marks::new(Verdict::Transmit, false, ChecksumRequest::Tcp);
/// The context of TCP over IPv4 without tag and options: nearly all that asks for checksums.
const TCP_CONTEXT: ContextDescriptor = ContextDescriptor {
    link_bytes: ETHERNET_BYTES as u8,
    network_bytes: 20,
    ipv4: true,
    transport: TransportChecksum::Tcp,
    vlan: 0,
};
/// What its frames ask for.
const TCP_FLAGS: TransmitFlags = TransmitFlags::END
    .with(TransmitFlags::TRANSPORT_CHECKSUM)
    .with(TransmitFlags::IPV4_CHECKSUM);

/// What became of the frame at the front of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the ring.
    Queued,
    /// It has no room; it stays in the batch.
    NoRoom,
    /// It can't be sent: this many packets of the batch are in no state to be a frame.
    Unfit {
        /// Packets.
        packets: usize,
    },
}

/// One queue's transmitting half.
pub struct Transmitter {
    ring: TransmitRing<SLOTS>,
    /// What hardware has as its context.
    context: Option<ContextDescriptor>,
    /// When it was first seen that frames are in the ring and none left, or 0.
    stuck_since_ns: u64,
}

impl Transmitter {
    /// A ring for `queue`, not yet started.
    pub fn new(adapter: &Adapter, queue: u16) -> Result<Transmitter, DeviceError> {
        Ok(Transmitter {
            ring: adapter.transmit_ring(queue)?,
            context: None,
            stuck_since_ns: 0,
        })
    }

    /// Starts the ring, empty. Frames that were in it are lost.
    pub fn start(&mut self) -> Result<(), DeviceError> {
        self.context = None;
        self.stuck_since_ns = 0;
        Ok(self.ring.start()?)
    }

    /// Sees what hardware has sent. True when the ring hangs, as far as `link_up` lets it do anything else.
    #[inline]
    pub fn look(&mut self, link_up: bool) -> bool {
        if self.ring.look() || !self.ring.is_pending() || !link_up {
            self.stuck_since_ns = 0;
            return false;
        }
        let now_ns = domain_rt::clock::now_ns();
        if self.stuck_since_ns == 0 {
            self.stuck_since_ns = now_ns;
        }
        now_ns.saturating_sub(self.stuck_since_ns) > HANG_NS
    }

    /// The ring, to move what it has sent into another.
    #[inline(always)]
    pub fn ring(&mut self) -> &mut TransmitRing<SLOTS> {
        &mut self.ring
    }

    /// Takes a packet that has been sent.
    #[inline(always)]
    pub fn take_sent(&mut self) -> Option<RRef<Packet>> {
        self.ring.take_sent()
    }

    /// Whether the ring is so full that a sleeper should look at it often.
    pub fn is_crowded(&self) -> bool {
        self.ring.room() < self.ring.capacity() / 4
    }

    /// Whether hardware has sent something since the last [`look`](Self::look).
    pub fn has_report(&self) -> bool {
        self.ring.has_report()
    }

    /// Puts frames from the front of `batch` into the ring while they are plain: one packet each, fit to be sent, and without a wish to
    /// hardware but for TCP's checksum when it has the context for that already.
    #[inline(always)]
    pub fn send_plain(&mut self, batch: &mut PacketBatch, limit_bytes: usize, counters: &mut QueueCounters) {
        let longest_bytes = u16::try_from(limit_bytes).unwrap_or(u16::MAX);
        while let Some(front) = batch.get(0) {
            let marks = front.marks();
            let (frames, bytes) = if marks == PLAIN {
                self.send_without_wish(batch, longest_bytes)
            } else if marks == TCP && self.context == Some(TCP_CONTEXT) {
                self.send_tcp(batch, longest_bytes)
            } else {
                return;
            };
            if frames == 0 {
                return;
            }
            counters.transmitted_frames += frames as u64;
            counters.transmitted_bytes += bytes as u64;
        }
    }

    /// Those without a wish; how many and how many bytes. Out of line, as the next, so that each loop has the registers to itself.
    #[inline(never)]
    fn send_without_wish(&mut self, batch: &mut PacketBatch, longest_bytes: u16) -> (usize, usize) {
        let kind = FrameKind {
            marks: PLAIN,
            shortest_bytes: SHORTEST_BYTES as u16,
            longest_bytes,
            flags: TransmitFlags::END,
        };
        self.ring.push_frames(batch, kind, |_| true)
    }

    /// Those that ask for TCP's checksum, for which hardware has the context; how many and how many bytes.
    #[inline(never)]
    fn send_tcp(&mut self, batch: &mut PacketBatch, longest_bytes: u16) -> (usize, usize) {
        let kind = FrameKind {
            marks: TCP,
            shortest_bytes: SHORTEST_BYTES as u16,
            longest_bytes,
            flags: TCP_FLAGS,
        };
        self.ring
            .push_frames(batch, kind, |packet| is_plain_tcp(packet.frame()))
    }

    /// Puts the frame at the front of `batch` into the ring, if its length is at most `limit_bytes`.
    #[inline]
    pub fn send_front(
        &mut self,
        batch: &mut PacketBatch,
        limit_bytes: usize,
        counters: &mut QueueCounters,
    ) -> Sent {
        let Some(first) = batch.get(0) else {
            return Sent::Unfit { packets: 0 };
        };
        let mut bytes = first.len();
        let mut pieces = 1;
        if first.continues {
            match measure(batch) {
                Ok(measured) => (pieces, bytes) = measured,
                Err(packets) => return Sent::Unfit { packets },
            }
        }
        // The first piece holds the headers, also of a frame that is long enough as a whole.
        if bytes > limit_bytes || first.len() < SHORTEST_BYTES {
            return Sent::Unfit { packets: pieces };
        }
        let mut flags = TransmitFlags::CHECK_SEQUENCE;
        let mut context = None;
        if first.request != ChecksumRequest::None || first.vlan().is_some() {
            (flags, context) = plan(first);
        }
        let context = context.filter(|context| self.context != Some(*context));
        if self.ring.room() < pieces + usize::from(context.is_some()) {
            counters.transmit_full += 1;
            return Sent::NoRoom;
        }
        if let Some(context) = context {
            self.ring.push_context(context);
            self.context = Some(context);
        }
        counters.transmitted_frames += 1;
        counters.transmitted_bytes += bytes as u64;
        for piece in 1..=pieces {
            let Some(packet) = batch.pop_front() else { break };
            let end = if piece == pieces {
                flags.with(TransmitFlags::END)
            } else {
                flags
            };
            // There is room, and no piece is empty: both were checked.
            drop(self.ring.push(packet, bytes as u32, end));
        }
        Sent::Queued
    }

    /// Hands hardware all that was put in.
    #[inline(always)]
    pub fn publish(&mut self) {
        self.ring.publish();
    }
}

/// Packets and bytes of the frame of several packets at the front; the packets alone when they aren't a frame.
#[cold]
fn measure(batch: &PacketBatch) -> Result<(usize, usize), usize> {
    let mut bytes = 0;
    let mut hollow = false;
    for (index, packet) in batch.iter().enumerate() {
        bytes += packet.len();
        hollow |= packet.is_empty();
        if !packet.continues {
            let packets = index + 1;
            return if hollow {
                Err(packets)
            } else {
                Ok((packets, bytes))
            };
        }
    }
    Err(batch.len())
}

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xDD];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const VLAN_BYTES: usize = 4;
const IPV6_BYTES: usize = 40;

/// Flags and context for a frame that asks for something. Checksums are asked of hardware only where the headers are where
/// the request says: hardware would write into the frame at any offset it is given.
fn plan(packet: &Packet) -> (TransmitFlags, Option<ContextDescriptor>) {
    let mut flags = TransmitFlags::CHECK_SEQUENCE;
    let mut context = ContextDescriptor {
        link_bytes: ETHERNET_BYTES as u8,
        network_bytes: 0,
        ipv4: false,
        transport: TransportChecksum::Udp,
        vlan: 0,
    };
    if let Some(tag) = packet.vlan() {
        flags = flags.with(TransmitFlags::VLAN);
        context.vlan = tag;
    }
    let transport = match packet.request {
        ChecksumRequest::Tcp => Some((TransportChecksum::Tcp, 6, 20)),
        ChecksumRequest::Udp => Some((TransportChecksum::Udp, 17, 8)),
        ChecksumRequest::None => None,
    };
    if let Some((transport, protocol, transport_bytes)) = transport
        && let Some(headers) = headers(packet.frame(), protocol, transport_bytes)
    {
        flags = flags.with(TransmitFlags::TRANSPORT_CHECKSUM);
        if headers.ipv4 {
            flags = flags.with(TransmitFlags::IPV4_CHECKSUM);
        }
        context.link_bytes = headers.link_bytes;
        context.network_bytes = headers.network_bytes;
        context.ipv4 = headers.ipv4;
        context.transport = transport;
    }
    let asked = flags != TransmitFlags::CHECK_SEQUENCE;
    (flags, asked.then_some(context))
}

/// Whether `TCP_CONTEXT` is right for a frame: what [`headers`] finds, in one bounds check.
#[inline(always)]
fn is_plain_tcp(frame: &[u8]) -> bool {
    let header: Option<&[u8; ETHERNET_BYTES + 20 + 20]> = frame.first_chunk();
    header.is_some_and(|header| header[12..14] == ETHERTYPE_IPV4 && header[14] & 0xF == 5 && header[23] == 6)
}

struct Headers {
    link_bytes: u8,
    network_bytes: u16,
    ipv4: bool,
}

/// Where the headers of a frame are, when it is what its request says and `transport_bytes` follow the network header.
fn headers(frame: &[u8], protocol: u8, transport_bytes: usize) -> Option<Headers> {
    let ethertype = |at: usize| frame.get(at..at + 2);
    let mut link_bytes = ETHERNET_BYTES;
    if ethertype(link_bytes - 2)? == ETHERTYPE_VLAN {
        link_bytes += VLAN_BYTES;
    }
    let kind = ethertype(link_bytes - 2)?;
    let network = frame.get(link_bytes..)?;
    let (network_bytes, found, ipv4) = if kind == ETHERTYPE_IPV4 {
        let words = usize::from(network.first()? & 0xF);
        if words < 5 {
            return None;
        }
        (words * 4, *network.get(9)?, true)
    } else if kind == ETHERTYPE_IPV6 {
        (IPV6_BYTES, *network.get(6)?, false)
    } else {
        return None;
    };
    let fits = network.len() >= network_bytes + transport_bytes;
    (fits && found == protocol).then_some(Headers {
        link_bytes: link_bytes as u8,
        network_bytes: network_bytes as u16,
        ipv4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ipv4(words: u8, protocol: u8, length: usize) -> std::vec::Vec<u8> {
        let mut frame = std::vec![0; length];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        frame[14] = 0x40 | words;
        frame[23] = protocol;
        frame
    }

    #[test]
    fn headers_are_found_where_they_are() {
        let found = headers(&ipv4(6, 6, 100), 6, 20).map(|h| (h.link_bytes, h.network_bytes, h.ipv4));
        assert_eq!(found, Some((14, 24, true)));
        assert!(headers(&ipv4(5, 17, 100), 6, 20).is_none(), "another protocol");
        assert!(headers(&ipv4(4, 6, 100), 6, 20).is_none(), "header too short");
        assert!(headers(&ipv4(15, 6, 93), 6, 20).is_none(), "frame too short");
    }

    proptest! {
        /// The short look finds what the long one does.
        #[test]
        fn both_looks_agree(words in 0u8..16, protocol in 5u8..8, length in 24usize..80, kind in 0..3) {
            let mut frame = ipv4(words, protocol, length);
            let types = [ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN];
            if let Some(kind) = types.get(kind as usize) {
                frame[12..14].copy_from_slice(kind);
            }
            let found = headers(&frame, 6, 20).map(|h| (h.link_bytes, h.network_bytes, h.ipv4));
            prop_assert_eq!(is_plain_tcp(&frame), found == Some((14, 20, true)));
        }

        /// Whatever a frame holds, offsets for hardware lie inside of it.
        #[test]
        fn offsets_are_inside(mut frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..4, tagged: bool) {
            let at = if tagged { 16 } else { 12 };
            let types = [ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN];
            if tagged && frame.len() >= 14 {
                frame[12..14].copy_from_slice(&ETHERTYPE_VLAN);
            }
            if let (Some(place), Some(kind)) = (frame.get_mut(at..at + 2), types.get(kind as usize)) {
                place.copy_from_slice(kind);
            }
            for (protocol, bytes) in [(6, 20), (17, 8)] {
                if let Some(found) = headers(&frame, protocol, bytes) {
                    prop_assert!(usize::from(found.link_bytes) + usize::from(found.network_bytes) + bytes <= frame.len());
                }
            }
        }
    }
}
