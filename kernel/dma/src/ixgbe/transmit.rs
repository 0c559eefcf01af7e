//! Transmit rings of the 82599 (datasheet 7.2.3.3 "Transmit Descriptor Ring").
//!
//! A ring owns its descriptors and the packets in them until hardware has reported them sent. Reports are asked for once a
//! [`publish`](TransmitRing::publish), on the last descriptor. What is sent of a packet is what the packet's own length says.

use super::QueueClaim;
use super::descriptor::{ContextDescriptor, REPORT, TRANSMIT_DONE, TransmitFlags, data_word};
use super::ring::{
    self, DCA_CONTROL, DESCRIPTOR_BYTES, RingError, TAIL, WRITE_BACK_HIGH, WRITE_BACK_LOW, mask_of,
    transmit_register,
};
use crate::memory::DmaMemory;
use alloc::boxed::Box;
use alloc::vec;
use core::sync::atomic::{Ordering, fence};
use rref::{Packet, RRef};

/// Thresholds in TXDCTL (7.2.3.4.1): prefetch below 36 descriptors when 8 are there. Write-back at once (WTHRESH 0), which reports need.
const CONTROL: u32 = 36 | 8 << 8;
/// DCA_TXCTRL (8.2.3.11.2): descriptor fetches may be reordered, write-backs not.
const DCA_VALUE: u32 = 1 << 9;

/// One transmit queue.
///
/// `cleaned <= done <= published <= pushed`, running counts of slots; those from `cleaned` up to `pushed`, fewer than all, may hold a
/// packet (a context descriptor's slot holds none). Hardware has reported all below `done`.
pub struct TransmitRing {
    claim: QueueClaim,
    base: u32,
    memory: DmaMemory,
    buffers: Box<[Option<RRef<Packet>>]>,
    mask: u32,
    cleaned: u32,
    done: u32,
    published: u32,
    pushed: u32,
    /// The last data descriptor since the last publish: its count, and its second word.
    last: Option<(u32, u64)>,
    /// Counts of descriptors that will report, oldest at `reports_head`: a queue of as many as there are slots.
    reports: Box<[u32]>,
    reports_head: u32,
    reports_tail: u32,
    running: bool,
}

impl TransmitRing {
    pub(super) fn new(claim: QueueClaim, slots: u16) -> Result<TransmitRing, RingError> {
        let mask = mask_of(slots)?;
        let base = transmit_register(claim.queue, 0);
        // Before there is memory that the device could reach: see `Adapter::new`.
        ring::turn_off(claim.registers(), base)?;
        let memory = claim.memory(usize::from(slots) * DESCRIPTOR_BYTES)?;
        Ok(TransmitRing {
            claim,
            base,
            memory,
            buffers: (0..slots).map(|_| None).collect(),
            mask,
            cleaned: 0,
            done: 0,
            published: 0,
            pushed: 0,
            last: None,
            reports: vec![0; usize::from(slots)].into_boxed_slice(),
            reports_head: 0,
            reports_tail: 0,
            running: false,
        })
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.claim.queue
    }

    /// Descriptors that it can hold.
    pub fn capacity(&self) -> usize {
        self.mask as usize
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
        self.mask as usize - self.len()
    }

    /// Turns the queue on, with an empty ring; what an earlier run left in it is dropped. Transmission must be enabled first (4.6.8).
    pub fn start(&mut self) -> Result<(), RingError> {
        self.stop()?;
        // From here on the device may not be reset: what follows programs it.
        self.claim.shared.running.add();
        self.running = true;
        self.buffers.fill_with(|| None);
        (self.cleaned, self.done, self.published, self.pushed) = (0, 0, 0, 0);
        (self.reports_head, self.reports_tail, self.last) = (0, 0, None);
        let registers = self.claim.registers();
        ring::set_extent(&self.claim, self.base, &self.memory, self.mask + 1);
        registers.write_trusted(self.base + WRITE_BACK_LOW, 0);
        registers.write_trusted(self.base + WRITE_BACK_HIGH, 0);
        registers.write_trusted(self.base + DCA_CONTROL, DCA_VALUE);
        registers.write_trusted(self.base + TAIL, 0);
        ring::turn_on(registers, self.base, CONTROL)?;
        Ok(())
    }

    /// Turns the queue off. Packets in it stay until it is started again or dropped.
    pub fn stop(&mut self) -> Result<(), RingError> {
        if self.running {
            ring::turn_off(self.claim.registers(), self.base)?;
            ring::drain();
            self.running = false;
            self.claim.shared.running.remove();
        }
        Ok(())
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
        let slot = (self.pushed & self.mask) as usize;
        let Some(buffer) = self.buffers.get_mut(slot) else {
            return Err(packet);
        };
        let flags = flags.with(TransmitFlags::CHECK_SEQUENCE);
        // `len` is at most what the packet holds behind `data_offset`: its own invariant.
        let word = data_word(packet.len() as u16, frame_bytes, flags);
        self.memory
            .write(slot * 2, packet.physical() + packet.data_offset() as u64);
        self.memory.write(slot * 2 + 1, word);
        *buffer = Some(packet);
        self.last = Some((self.pushed, word));
        self.pushed = self.pushed.wrapping_add(1);
        Ok(())
    }

    /// Adds a context for the frames that follow; false when the ring is full.
    pub fn push_context(&mut self, context: ContextDescriptor) -> bool {
        if self.room() == 0 {
            return false;
        }
        let slot = (self.pushed & self.mask) as usize;
        let [low, high] = context.words();
        self.memory.write(slot * 2, low);
        self.memory.write(slot * 2 + 1, high);
        self.pushed = self.pushed.wrapping_add(1);
        true
    }

    /// Gives hardware what was pushed: one register write, or none when nothing was. Call it between frames.
    #[inline]
    pub fn publish(&mut self) {
        let Some((count, word)) = self.last.take() else {
            return;
        };
        self.memory
            .write((count & self.mask) as usize * 2 + 1, word | REPORT);
        if let Some(report) = self.reports.get_mut((self.reports_tail & self.mask) as usize) {
            *report = count;
            self.reports_tail = self.reports_tail.wrapping_add(1);
        }
        self.published = count.wrapping_add(1);
        // The device must see descriptors no later than the tail that covers them.
        fence(Ordering::Release);
        self.claim
            .registers()
            .write_trusted(self.base + TAIL, self.published & self.mask);
    }

    /// Looks how far hardware has come; returns whether it has moved since the last look.
    #[inline]
    pub fn look(&mut self) -> bool {
        let before = self.done;
        while self.reports_head != self.reports_tail {
            let Some(&count) = self.reports.get((self.reports_head & self.mask) as usize) else {
                break;
            };
            if self.memory.read((count & self.mask) as usize * 2 + 1) & TRANSMIT_DONE == 0 {
                break;
            }
            self.done = count.wrapping_add(1);
            self.reports_head = self.reports_head.wrapping_add(1);
        }
        self.done != before
    }

    /// Whether hardware has reported something that [`look`](Self::look) hasn't seen.
    #[inline]
    pub fn has_report(&self) -> bool {
        self.reports_head != self.reports_tail
            && self
                .reports
                .get((self.reports_head & self.mask) as usize)
                .is_some_and(|&count| {
                    self.memory.read((count & self.mask) as usize * 2 + 1) & TRANSMIT_DONE != 0
                })
    }

    /// Takes a packet that hardware had reported sent at the last [`look`](Self::look), oldest first.
    #[inline]
    pub fn take_sent(&mut self) -> Option<RRef<Packet>> {
        while self.cleaned != self.done {
            let slot = (self.cleaned & self.mask) as usize;
            self.cleaned = self.cleaned.wrapping_add(1);
            if let Some(packet) = self.buffers.get_mut(slot).and_then(Option::take) {
                return Some(packet);
            }
        }
        None
    }
}

impl Drop for TransmitRing {
    fn drop(&mut self) {
        if self.stop().is_err() {
            // As for a receive ring: hardware may still read them.
            for buffer in &mut self.buffers {
                core::mem::forget(buffer.take());
            }
            self.claim.keep();
        }
    }
}
