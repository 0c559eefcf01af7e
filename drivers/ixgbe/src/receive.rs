//! The receiving half of a queue: harvesting whole frames, and refilling.
//!
//! Which packets hardware holds is `dma::ixgbe::ReceiveRing`'s; what a descriptor's status means for the stack is decided here.

use crate::error::DeviceError;
use crate::statistics::QueueCounters;
use crate::transmit::Transmitter;
use dma::ixgbe::{Adapter, ReceiveRing, ReceiveStatus};
use rref::packet::{ChecksumState, Reception};
use rref::{Packet, PacketBatch, RRef};

/// Slots of a ring.
const SLOTS: usize = 512;
/// Packets that a ring starts with; more come as the first exchanges refill it, so that a restart is short.
const FIRST_PACKETS: usize = 128;
/// Packets in the ring and on their way to it below which new ones are taken from the shared heap. The rest of it is filled by what comes
/// back: taken new, those would only be given back in the next lull.
const ENOUGH_PACKETS: usize = SLOTS / 4 * 3;
/// Packets that one refill allocates at most.
const ALLOCATION_LIMIT: usize = 32;
/// Buffers that a frame can take: 9.5 KiB in pieces of 2 KiB.
const PIECES_LIMIT: u32 = 5;

/// One queue's receiving half.
pub struct Receiver {
    ring: ReceiveRing<SLOTS>,
    queue: u16,
    /// Whether hardware takes VLAN tags off.
    vlan_strip: bool,
}

impl Receiver {
    /// A ring for `queue`, not yet started.
    pub fn new(adapter: &Adapter, queue: u16) -> Result<Receiver, DeviceError> {
        Ok(Receiver {
            ring: adapter.receive_ring(queue)?,
            queue,
            vlan_strip: false,
        })
    }

    /// Starts the ring with some packets in it.
    pub fn start(&mut self) -> Result<(), DeviceError> {
        self.ring.start()?;
        while self.ring.len() < FIRST_PACKETS {
            let packet = Packet::allocate().map_err(|_| DeviceError::OutOfMemory)?;
            if self.ring.post(packet).is_err() {
                break;
            }
        }
        self.ring.publish();
        Ok(())
    }

    /// Whether hardware is to take VLAN tags off.
    pub fn set_vlan_strip(&mut self, strip: bool) {
        self.vlan_strip = strip;
        self.ring.set_vlan_strip(strip);
    }

    /// Whether a buffer has been filled that hasn't been taken.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.ring.peek(0).is_some()
    }

    /// Moves frames that have arrived whole into `received`, as long as they fit.
    #[inline]
    pub fn harvest(&mut self, received: &mut PacketBatch, counters: &mut QueueCounters) {
        loop {
            self.take_plain(received, counters);
            // What stops that is a full batch, nothing to take, or a frame that isn't plain.
            if received.is_full() {
                return;
            }
            let Some(status) = self.ring.peek(0) else { return };
            if status.is_end() {
                self.take_other(received, counters);
            } else if !self.take_pieces(received, counters) {
                return;
            }
        }
    }

    /// Plain frames, nearly all there are, whose descriptors say the same but for length and hash. Out of line, so that it has the registers
    /// to itself.
    #[inline(never)]
    fn take_plain(&mut self, received: &mut PacketBatch, counters: &mut QueueCounters) {
        let queue = self.queue;
        let mut bytes = 0;
        let taken = self.ring.take_plain_frames(received, |packet, status| {
            packet.receive(Reception {
                length: status.length(),
                queue,
                vlan: None,
                checksum: ChecksumState::Good,
                rss_hash: status.plain_rss_hash(),
            });
            bytes += packet.len();
        });
        counters.received_frames += u64::from(taken);
        counters.received_bytes += bytes as u64;
    }

    /// Any frame in one buffer.
    #[inline(never)]
    fn take_other(&mut self, received: &mut PacketBatch, counters: &mut QueueCounters) {
        let Some((mut packet, status)) = self.ring.take() else {
            return;
        };
        if !status.is_intact() {
            counters.receive_errors += 1;
            self.recycle(packet);
            return;
        }
        let vlan = status.vlan().filter(|_| self.vlan_strip);
        let checksum = judge(status);
        packet.receive(reception(status, self.queue, vlan, checksum));
        counters.received_frames += 1;
        counters.received_bytes += packet.len() as u64;
        counters.checksum_errors += u64::from(checksum == ChecksumState::Bad);
        // There is room: the caller has asked.
        drop(received.push(packet));
    }

    /// A frame in several buffers; false when it isn't whole yet, or doesn't fit.
    #[cold]
    fn take_pieces(&mut self, received: &mut PacketBatch, counters: &mut QueueCounters) -> bool {
        let mut pieces = 0;
        let last = loop {
            let Some(status) = self.ring.peek(pieces) else {
                if pieces < PIECES_LIMIT {
                    return false;
                }
                break None;
            };
            pieces += 1;
            if status.is_end() {
                break Some(status);
            }
            if pieces > PIECES_LIMIT {
                break None;
            }
        };
        // Without an end it is longer than any frame that the device was told to take.
        let last = last.filter(|status| status.is_intact());
        if last.is_some() && pieces as usize > received.room() {
            return false;
        }
        for piece in 1..=pieces {
            let Some((mut packet, own)) = self.ring.take() else {
                break;
            };
            let Some(status) = last else {
                self.recycle(packet);
                continue;
            };
            // What is true of the frame stands in its last buffer, but each has its own length.
            let vlan = status.vlan().filter(|_| self.vlan_strip);
            packet.receive(Reception {
                length: own.length(),
                ..reception(status, self.queue, vlan, judge(status))
            });
            counters.received_bytes += packet.len() as u64;
            packet.continues = piece != pieces;
            drop(received.push(packet));
        }
        match last {
            Some(status) => {
                counters.received_frames += 1;
                counters.checksum_errors += u64::from(judge(status) == ChecksumState::Bad);
            }
            None => counters.receive_errors += 1,
        }
        true
    }

    /// Puts a packet that carries nothing back into the ring.
    fn recycle(&mut self, packet: RRef<Packet>) {
        // It has just come out, so there is room; were there none, it goes back to the shared heap.
        drop(self.ring.post(packet));
    }

    /// Packets that the ring has room for.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.ring.room()
    }

    /// Puts an empty packet in; gives it back when there is no room.
    #[inline(always)]
    pub fn post(&mut self, packet: RRef<Packet>) -> Result<(), RRef<Packet>> {
        self.ring.post(packet)
    }

    /// Puts packets that `transmitter` has sent in, as many as there are and fit.
    #[inline(always)]
    pub fn post_sent(&mut self, transmitter: &mut Transmitter) {
        self.ring.post_sent(transmitter.ring());
    }

    /// Fills up from the shared heap, some packets at a time, and hands hardware all that was posted. Without memory the ring stays shorter.
    ///
    /// As many packets as are `sending` come back by themselves, so new ones aren't taken for them, only to be given back then. A ring that
    /// is short doesn't wait for that.
    #[inline]
    pub fn refill(&mut self, sending: usize) {
        let short = FIRST_PACKETS.saturating_sub(self.ring.len());
        let missing = ENOUGH_PACKETS
            .saturating_sub(self.ring.len() + sending)
            .max(short);
        for _ in 0..missing.min(ALLOCATION_LIMIT) {
            let Ok(packet) = Packet::allocate() else { break };
            if self.ring.post(packet).is_err() {
                break;
            }
        }
        self.ring.publish();
    }
}

/// What a packet is told of its frame.
#[inline(always)]
fn reception(status: ReceiveStatus, queue: u16, vlan: Option<u16>, checksum: ChecksumState) -> Reception {
    Reception {
        length: status.length(),
        queue,
        vlan,
        checksum,
        rss_hash: status.rss_hash(),
    }
}

/// What a frame's status says of its checksums.
///
/// `Good` only when the transport checksum was looked at. A wrong UDP checksum is left to software: the device also calls
/// datagrams wrong that have none (specification update, erratum 44).
fn judge(status: ReceiveStatus) -> ChecksumState {
    match (status.ipv4_checksum(), status.transport_checksum()) {
        (Some(false), _) => ChecksumState::Bad,
        (_, Some(false)) if !status.is_udp() => ChecksumState::Bad,
        (_, Some(true)) => ChecksumState::Good,
        _ => ChecksumState::Unknown,
    }
}
