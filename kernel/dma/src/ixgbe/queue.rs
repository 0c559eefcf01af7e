//! What receive and transmit rings are made of: the right to a queue, its descriptors, the packets in its slots, and whether it is on.
//!
//! A packet that hardware may reach is in a slot, and isn't dropped before the queue is known to be off. Which slots hardware has is the rings'.

use super::QueueClaim;
use super::ring::{self, RingError, TAIL, mask_of};
use crate::memory::{Descriptors, Slots};
use crate::mmio::Mmio;
use alloc::boxed::Box;
use core::sync::atomic::{Ordering, fence};
use rref::{Packet, RRef};

/// One queue of either kind.
pub struct Queue<const SLOTS: usize> {
    claim: QueueClaim,
    /// Where its registers begin.
    base: u32,
    memory: Descriptors<SLOTS>,
    /// A slot's packet, by the slot's count modulo their number.
    pub buffers: Box<[Option<RRef<Packet>>; SLOTS]>,
    /// Whether hardware may hold packets of its slots.
    running: bool,
}

impl<const SLOTS: usize> Queue<SLOTS> {
    /// The mask that makes a slot of a running count.
    pub const MASK: u32 = mask_of(SLOTS);

    /// The queue that was claimed, whose registers begin at `base`. It is off.
    pub fn new(claim: QueueClaim, base: u32) -> Result<Self, RingError> {
        // Before there is memory that the device could reach: see `Adapter::new`.
        ring::turn_off(claim.registers(), base)?;
        let memory = claim.descriptors()?;
        Ok(Queue {
            claim,
            base,
            memory,
            buffers: Box::new([const { None }; SLOTS]),
            running: false,
        })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.claim.queue
    }

    /// Whether hardware may hold packets of its slots.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Its descriptors.
    #[inline(always)]
    pub fn slots(&self) -> Slots<SLOTS> {
        self.memory.slots()
    }

    /// The descriptors' memory.
    pub fn memory(&self) -> &Descriptors<SLOTS> {
        &self.memory
    }

    /// The place of a count's packet.
    #[inline(always)]
    pub fn buffer(&mut self, count: u32) -> &mut Option<RRef<Packet>> {
        // The remainder is below the array's length; the optimiser sees that too.
        &mut self.buffers[count as usize % SLOTS]
    }

    /// Writes one of its registers.
    #[inline(always)]
    pub fn write(&self, register: u32, value: u32) {
        self.registers().write_trusted(self.base + register, value);
    }

    /// Gives hardware the slots up to `count`.
    #[inline(always)]
    pub fn set_tail(&self, count: u32) {
        // The device must see descriptors no later than the tail that covers them.
        fence(Ordering::Release);
        self.write(TAIL, count & Self::MASK);
    }

    /// Turns it on with an empty ring, `control` and what `program` writes to its other registers. Packets of an earlier run are dropped.
    pub fn start(&mut self, control: u32, program: impl FnOnce(&Self)) -> Result<(), RingError> {
        self.stop()?;
        // From here on the device may not be reset: what follows programs it.
        self.claim.shared.running.add();
        self.running = true;
        self.buffers.fill_with(|| None);
        ring::set_extent(&self.claim, self.base, &self.memory);
        program(self);
        self.write(TAIL, 0);
        ring::turn_on(self.registers(), self.base, control)?;
        Ok(())
    }

    /// Turns it off. Packets stay in their slots until it is started again or dropped.
    pub fn stop(&mut self) -> Result<(), RingError> {
        if self.running {
            ring::turn_off(self.registers(), self.base)?;
            ring::drain();
            self.running = false;
            self.claim.shared.running.remove();
        }
        Ok(())
    }

    #[inline(always)]
    fn registers(&self) -> &Mmio {
        self.claim.registers()
    }
}

impl<const SLOTS: usize> Drop for Queue<SLOTS> {
    fn drop(&mut self) {
        if self.stop().is_err() {
            // Hardware may still reach them: they stay this domain's until the kernel, which stops the device first, takes
            // everything back. So does the queue.
            for buffer in self.buffers.iter_mut() {
                core::mem::forget(buffer.take());
            }
            self.claim.keep();
        }
    }
}
