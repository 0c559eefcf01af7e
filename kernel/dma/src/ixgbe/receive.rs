//! Receive rings of the 82599 (datasheet 7.1.9 "Receive Descriptor Queue Structure").
//!
//! A ring owns its descriptors and the packets posted in them. Packets go in at the tail, whatever is in them, and come out at the head,
//! in order, with the length that hardware wrote, cut to what the packet has room for. When to post and when to look is the driver's.

use super::descriptor::{RECEIVE_DONE, ReceiveStatus, is_plain};
use super::queue::Queue;
use super::ring::{DCA_CONTROL, DCTL, ENABLE, RSCCTL, RingError, SRRCTL, receive_register};
use super::{QueueClaim, TransmitRing};
use crate::memory::Slots;
use core::sync::atomic::{Ordering, fence};
use rref::packet::{BUFFER_BYTES, HEADROOM_BYTES, PACKET_BYTES, Verdict};
use rref::{Packet, PacketBatch, RRef};

/// SRRCTL (8.2.3.8.7): buffers of 2 KiB, advanced descriptors with one buffer, and drop what finds no descriptor, so that one queue
/// that isn't served doesn't hold up the others. No header split: the device would use a header address.
const SRRCTL_VALUE: u32 = (BUFFER_BYTES / 1024) as u32 | 4 << 8 | 1 << 25 | 1 << 28;
/// VME in RXDCTL: take VLAN tags off.
const VLAN_STRIP: u32 = 1 << 30;
/// DCA_RXCTRL (8.2.3.11.1): descriptor fetches may be reordered; written-back descriptors may not, so a set DD bit means that the data is
/// there. Bit 12 must be cleared (4.6.7).
const DCA_VALUE: u32 = 1 << 9;

// A packet has room for exactly what hardware may write behind the usual headroom.
const _: () = assert!(PACKET_BYTES - HEADROOM_BYTES == BUFFER_BYTES && BUFFER_BYTES.is_multiple_of(1024));

/// One receive queue.
///
/// `taken <= published <= posted`, running counts of slots; the queue has a packet for each slot from `taken` up to `posted`, which is
/// fewer than all. Hardware reaches slots below `published` only.
pub struct ReceiveRing<const SLOTS: usize> {
    queue: Queue<SLOTS>,
    taken: u32,
    published: u32,
    posted: u32,
    control: u32,
}

impl<const SLOTS: usize> ReceiveRing<SLOTS> {
    pub(super) fn new(claim: QueueClaim) -> Result<Self, RingError> {
        let base = receive_register(claim.queue, 0);
        Ok(ReceiveRing {
            queue: Queue::new(claim, base)?,
            taken: 0,
            published: 0,
            posted: 0,
            control: 0,
        })
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue.number()
    }

    /// Packets that it can hold.
    pub fn capacity(&self) -> usize {
        Queue::<SLOTS>::MASK as usize
    }

    /// Packets in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.posted.wrapping_sub(self.taken) as usize
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Packets that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        Queue::<SLOTS>::MASK as usize - self.len()
    }

    /// Turns the queue on, with an empty ring. Post packets after it, and publish them.
    ///
    /// Packets of an earlier run that [`stop`](Self::stop) left in it are dropped.
    pub fn start(&mut self) -> Result<(), RingError> {
        self.stop()?;
        (self.taken, self.published, self.posted) = (0, 0, 0);
        self.queue.start(self.control, |queue| {
            queue.write(SRRCTL, SRRCTL_VALUE);
            queue.write(RSCCTL, 0);
            queue.write(DCA_CONTROL, DCA_VALUE);
        })
    }

    /// Turns the queue off. Unpublished and unfilled packets stay in the ring until it is started again or dropped.
    pub fn stop(&mut self) -> Result<(), RingError> {
        self.queue.stop()
    }

    /// Whether hardware takes the VLAN tag off frames of this queue (7.4.4).
    pub fn set_vlan_strip(&mut self, strip: bool) {
        self.control = if strip { VLAN_STRIP } else { 0 };
        if self.queue.is_running() {
            self.queue.write(DCTL, self.control | ENABLE);
        }
    }

    /// Puts a packet in; gives it back when the ring is full. Hardware has it after [`publish`](Self::publish).
    #[inline(always)]
    pub fn post(&mut self, packet: RRef<Packet>) -> Result<(), RRef<Packet>> {
        if self.room() == 0 {
            return Err(packet);
        }
        put(self.queue.slots(), &mut self.queue.buffers, self.posted, packet);
        self.posted = self.posted.wrapping_add(1);
        Ok(())
    }

    /// Gives hardware what was posted: one register write, or none when nothing was.
    #[inline]
    pub fn publish(&mut self) {
        if self.published == self.posted {
            return;
        }
        self.published = self.posted;
        self.queue.set_tail(self.posted);
    }

    /// What hardware wrote about the `ahead`-th packet from the head; `None` while it is hardware's.
    #[inline(always)]
    pub fn peek(&self, ahead: u32) -> Option<ReceiveStatus> {
        if ahead >= self.published.wrapping_sub(self.taken) {
            return None;
        }
        let count = self.taken.wrapping_add(ahead);
        let high = self.queue.slots().high(count);
        if high & RECEIVE_DONE == 0 {
            return None;
        }
        // What hardware wrote before DD must not be read before it.
        fence(Ordering::Acquire);
        Some(ReceiveStatus {
            low: self.queue.slots().low(count),
            high,
        })
    }

    /// Takes the packet at the head when hardware is done with it, with its length set.
    #[inline]
    pub fn take(&mut self) -> Option<(RRef<Packet>, ReceiveStatus)> {
        let status = self.peek(0)?;
        let mut packet = self.queue.buffer(self.taken).take()?;
        self.taken = self.taken.wrapping_add(1);
        packet.reset();
        packet.resize(usize::from(status.length()));
        Some((packet, status))
    }

    /// Moves [plain](ReceiveStatus::is_plain) frames from the head to the end of `frames`, as many as there are and fit, up to the first
    /// that isn't plain; returns how many. `describe` makes of each what the status says, with [`Packet::receive`]; until then a packet is
    /// as it was when it was posted.
    #[inline(always)]
    pub fn take_plain_frames(
        &mut self,
        frames: &mut PacketBatch,
        mut describe: impl FnMut(&mut Packet, ReceiveStatus),
    ) -> u32 {
        // Copies and locals, here and below: a store to a packet could, for all the optimiser knows, change a field of this.
        let (slots, buffers) = (self.queue.slots(), &mut *self.queue.buffers);
        let mut taken = self.taken;
        let end = taken.wrapping_add(self.published.wrapping_sub(taken).min(frames.room() as u32));
        let mut back = frames.back();
        while taken != end {
            let high = slots.high(taken);
            if !is_plain(high) {
                break;
            }
            // As in `peek`.
            fence(Ordering::Acquire);
            let low = slots.low(taken);
            let Some(mut packet) = buffers[taken as usize % SLOTS].take() else {
                break;
            };
            taken = taken.wrapping_add(1);
            describe(&mut packet, ReceiveStatus { low, high });
            // SAFETY: At most as many come here as there was room for.
            unsafe { back.push_within(packet) };
        }
        let count = taken.wrapping_sub(self.taken);
        self.taken = taken;
        count
    }

    /// Puts packets that `sent` has sent back in here, as many as there are and fit.
    #[inline(always)]
    pub fn post_sent<const SENT_SLOTS: usize>(&mut self, sent: &mut TransmitRing<SENT_SLOTS>) {
        let room = self.room() as u32;
        let (slots, buffers) = (self.queue.slots(), &mut *self.queue.buffers);
        let mut posted = self.posted;
        sent.drain_sent(
            |packet| {
                put(slots, buffers, posted, packet);
                posted = posted.wrapping_add(1);
            },
            room,
        );
        self.posted = posted;
    }
}

/// Puts a packet into slot `count`, which is free.
#[inline(always)]
fn put<const SLOTS: usize>(
    slots: Slots<SLOTS>,
    buffers: &mut [Option<RRef<Packet>>; SLOTS],
    count: u32,
    mut packet: RRef<Packet>,
) {
    // It is not to be sent any more, should the driver die; all else is set when it is taken out.
    packet.verdict = Verdict::Empty;
    // Hardware writes up to `BUFFER_BYTES` from here, which every packet has (asserted above). The second word is the header
    // buffer's address, which hardware doesn't use (`SRRCTL_VALUE`), and where DD appears.
    slots.write(count, packet.physical() + Packet::RECEIVE_OFFSET as u64, 0);
    // Nothing is there; forgetting it spares its drop code.
    core::mem::forget(buffers[count as usize % SLOTS].replace(packet));
}
