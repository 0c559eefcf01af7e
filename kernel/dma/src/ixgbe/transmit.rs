//! Transmit rings of the 82599 (datasheet 7.2.3.3 "Transmit Descriptor Ring").
//!
//! A ring owns its descriptors and the packets in them until hardware has reported them sent. Reports are asked for once a
//! [`publish`](TransmitRing::publish), on the last descriptor. What is sent of a packet is what the packet's own length says.

use super::QueueClaim;
use super::descriptor::{ContextDescriptor, REPORT, TRANSMIT_DONE, TransmitFlags, data_word};
use super::queue::Queue;
use super::ring::{DCA_CONTROL, RingError, WRITE_BACK_HIGH, WRITE_BACK_LOW, transmit_register};
use crate::memory::Slots;
use abi::TransmitPlace;
use alloc::boxed::Box;
use rref::packet::{Marks, Outline};
use rref::{Packet, PacketBatch, RRef};

/// Thresholds in TXDCTL (7.2.3.4.1): prefetch below 36 descriptors when 8 are there. Write-back at once (WTHRESH 0), which reports need.
const CONTROL: u32 = 36 | 8 << 8;
/// DCA_TXCTRL (8.2.3.11.2): descriptor fetches may be reordered, write-backs not.
const DCA_VALUE: u32 = 1 << 9;

/// Frames of one packet each that are sent in the same way.
#[derive(Clone, Copy, Debug)]
pub struct FrameKind {
    /// Their marks.
    pub marks: Marks,
    /// The shortest of them, in bytes: at least 1.
    pub shortest_bytes: u16,
    /// The longest of them, in bytes.
    pub longest_bytes: u16,
    /// What hardware is to do with them.
    pub flags: TransmitFlags,
}

/// One transmit queue.
///
/// `cleaned <= done <= published <= pushed`, running counts of slots; those from `cleaned` up to `pushed`, fewer than all, may hold a
/// packet (a context descriptor's slot holds none). Hardware has reported all below `done`.
pub struct TransmitRing<const SLOTS: usize> {
    queue: Queue<SLOTS>,
    /// Of count 0.
    place: TransmitPlace,
    cleaned: u32,
    done: u32,
    published: u32,
    pushed: u32,
    /// The last data descriptor: its count, and its second word. The one before `published` when nothing was pushed since.
    last: (u32, u64),
    /// Counts of descriptors that will report, oldest at `reports_head`: a queue of as many as there are slots.
    reports: Box<[u32; SLOTS]>,
    reports_head: u32,
    reports_tail: u32,
}

impl<const SLOTS: usize> TransmitRing<SLOTS> {
    pub(super) fn new(claim: QueueClaim) -> Result<Self, RingError> {
        let (number, base) = (claim.queue, transmit_register(claim.queue, 0));
        let queue = Queue::new(claim, base)?;
        let place = queue.memory().transmit_place(number);
        Ok(TransmitRing {
            queue,
            place,
            cleaned: 0,
            done: 0,
            published: 0,
            pushed: 0,
            last: (u32::MAX, 0),
            reports: Box::new([0; SLOTS]),
            reports_head: 0,
            reports_tail: 0,
        })
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue.number()
    }

    /// Descriptors that it can hold.
    pub fn capacity(&self) -> usize {
        Queue::<SLOTS>::MASK as usize
    }

    /// Descriptors in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.pushed.wrapping_sub(self.cleaned) as usize
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether hardware has something that it hadn't reported sent at the last [`look`](Self::look).
    #[inline(always)]
    pub fn is_pending(&self) -> bool {
        self.published != self.done
    }

    /// Descriptors that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        Queue::<SLOTS>::MASK as usize - self.len()
    }

    /// Turns the queue on, with an empty ring; what an earlier run left in it is dropped. Transmission must be enabled first (4.6.8).
    pub fn start(&mut self) -> Result<(), RingError> {
        self.stop()?;
        (self.cleaned, self.done, self.published, self.pushed) = (0, 0, 0, 0);
        (self.reports_head, self.reports_tail, self.last) = (0, 0, (u32::MAX, 0));
        self.queue.start(CONTROL, |queue| {
            queue.write(WRITE_BACK_LOW, 0);
            queue.write(WRITE_BACK_HIGH, 0);
            queue.write(DCA_CONTROL, DCA_VALUE);
        })
    }

    /// Turns the queue off. Packets in it stay until it is started again or dropped.
    pub fn stop(&mut self) -> Result<(), RingError> {
        self.queue.stop()
    }

    /// Adds a packet as the next buffer of a frame of `frame_bytes` in all; gives it back when the ring is full or the packet empty.
    #[inline]
    pub fn push(
        &mut self,
        packet: RRef<Packet>,
        frame_bytes: u32,
        flags: TransmitFlags,
    ) -> Result<(), RRef<Packet>> {
        if self.room() == 0 || packet.is_empty() {
            return Err(packet);
        }
        let outline = packet.outline();
        let word = put(
            self.queue.slots(),
            self.place,
            &mut self.queue.buffers,
            self.pushed,
            packet,
            outline,
            frame_bytes,
            flags,
        );
        self.last = (self.pushed, word);
        self.pushed = self.pushed.wrapping_add(1);
        Ok(())
    }

    /// Adds frames of one packet each from the front of `frames`, as many as fit, up to the first that isn't of this `kind` or that
    /// `accept` refuses. Returns how many and how many bytes.
    #[inline(always)]
    pub fn push_frames(
        &mut self,
        frames: &mut PacketBatch,
        kind: FrameKind,
        accept: impl Fn(&Packet) -> bool,
    ) -> (usize, usize) {
        // Copies and locals: a store to a packet could, for all the optimiser knows, change a field of this.
        let (slots, place, buffers) = (self.queue.slots(), self.place, &mut *self.queue.buffers);
        let FrameKind {
            marks,
            shortest_bytes,
            longest_bytes,
            flags,
        } = kind;
        let first = self.pushed;
        let (mut pushed, mut word, mut bytes) = (first, 0, 0);
        let room = Queue::<SLOTS>::MASK.wrapping_sub(first.wrapping_sub(self.cleaned));
        // SAFETY: `put` keeps the packet in `buffers`, from which it is taken when the device has sent it.
        unsafe {
            frames.take_front_while(
                room as usize,
                |packet| {
                    let outline = packet.outline();
                    let is_of_kind = outline.is_one_of(marks, shortest_bytes, longest_bytes);
                    (is_of_kind && accept(packet)).then_some(outline)
                },
                |packet, outline| {
                    let length = u32::from(outline.length());
                    word = put(slots, place, buffers, pushed, packet, outline, length, flags);
                    pushed = pushed.wrapping_add(1);
                    bytes += length as usize;
                },
            );
        }
        let count = pushed.wrapping_sub(first);
        if count != 0 {
            (self.pushed, self.last) = (pushed, (pushed.wrapping_sub(1), word));
        }
        (count as usize, bytes)
    }

    /// Adds a context for the frames that follow; false when the ring is full.
    pub fn push_context(&mut self, context: ContextDescriptor) -> bool {
        if self.room() == 0 {
            return false;
        }
        let [low, high] = context.words();
        self.queue.slots().write(self.pushed, low, high);
        self.pushed = self.pushed.wrapping_add(1);
        true
    }

    /// Gives hardware what was pushed: one register write, or none when nothing was. Call it between frames.
    #[inline]
    pub fn publish(&mut self) {
        let (count, word) = self.last;
        let end = count.wrapping_add(1);
        if end == self.published {
            return;
        }
        self.queue.slots().write_high(count, word | REPORT);
        self.reports[self.reports_tail as usize % SLOTS] = count;
        self.reports_tail = self.reports_tail.wrapping_add(1);
        self.published = end;
        self.queue.set_tail(end);
    }

    /// The oldest descriptor that will report and hasn't been seen to.
    #[inline(always)]
    fn next_report(&self) -> Option<u32> {
        (self.reports_head != self.reports_tail).then(|| self.reports[self.reports_head as usize % SLOTS])
    }

    /// Looks how far hardware has come; returns whether it has moved since the last look.
    #[inline]
    pub fn look(&mut self) -> bool {
        let before = self.done;
        while let Some(count) = self.next_report()
            && self.queue.slots().high(count) & TRANSMIT_DONE != 0
        {
            self.done = count.wrapping_add(1);
            self.reports_head = self.reports_head.wrapping_add(1);
        }
        self.done != before
    }

    /// Whether hardware has reported something that [`look`](Self::look) hasn't seen.
    #[inline]
    pub fn has_report(&self) -> bool {
        self.next_report()
            .is_some_and(|count| self.queue.slots().high(count) & TRANSMIT_DONE != 0)
    }

    /// Takes a packet that hardware had reported sent at the last [`look`](Self::look), oldest first.
    #[inline(always)]
    pub fn take_sent(&mut self) -> Option<RRef<Packet>> {
        while self.cleaned != self.done {
            let count = self.cleaned;
            self.cleaned = count.wrapping_add(1);
            let packet = self.queue.buffer(count).take();
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Hands packets that hardware had reported sent at the last [`look`](Self::look) to `each`, oldest first: those of at most `limit`
    /// descriptors.
    #[inline(always)]
    pub(super) fn drain_sent(&mut self, mut each: impl FnMut(RRef<Packet>), limit: u32) {
        let buffers = &mut *self.queue.buffers;
        let mut cleaned = self.cleaned;
        let end = cleaned.wrapping_add(self.done.wrapping_sub(cleaned).min(limit));
        while cleaned != end {
            // A slot without a packet held a context.
            if let Some(packet) = buffers[cleaned as usize % SLOTS].take() {
                each(packet);
            }
            cleaned = cleaned.wrapping_add(1);
        }
        self.cleaned = cleaned;
    }
}

/// Puts a packet with this outline into slot `count`, which is free, and returns its descriptor's second word. What is sent of it is what
/// its own length says, at most what it holds behind `data_offset`: that is its invariant.
#[expect(
    clippy::too_many_arguments,
    reason = "a ring's fields one by one, which loops have in registers"
)]
#[inline(always)]
fn put<const SLOTS: usize>(
    slots: Slots<SLOTS>,
    place: TransmitPlace,
    buffers: &mut [Option<RRef<Packet>>; SLOTS],
    count: u32,
    packet: RRef<Packet>,
    outline: Outline,
    frame_bytes: u32,
    flags: TransmitFlags,
) -> u64 {
    let flags = flags.with(TransmitFlags::CHECK_SEQUENCE);
    let word = data_word(outline.length(), frame_bytes, flags);
    // For the kernel, should the driver die before the device has sent it.
    packet.set_place(place.at(count));
    slots.write(count, packet.physical() + outline.data_offset() as u64, word);
    // Nothing is there; forgetting it spares its drop code.
    core::mem::forget(buffers[count as usize % SLOTS].replace(packet));
    word
}
