//! Frames that a dead driver was to send and that no device has sent: they go out through its successor.
//!
//! The kernel leaves them to the shadow (`Packet::inherit`) in the order of their rings. A frame that left the wire before its device could
//! report it goes out twice, which IP allows; the rings' size bounds how many there can be. Frames of several packets are dropped: the
//! driver may have died between two of them. Each queue's thread sends what was its queue's, before anything newer.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicUsize, Ordering};
use domain_rt::sync::Mutex;
use rref::{Packet, PacketBatch, RRef};

/// What waits to be sent again.
#[derive(Default)]
pub struct Unsent {
    /// By queue, in order; a queue has as many batches as it needs.
    batches: Mutex<VecDeque<(u16, PacketBatch)>>,
    /// How many batches there are: what is looked at when there are none.
    count: AtomicUsize,
}

impl Unsent {
    /// Takes over what the last driver left; what an earlier one left and no queue has sent is dropped. Returns how many frames.
    pub fn collect(&self) -> usize {
        let mut batches = self.batches.lock();
        batches.clear();
        let mut frames = 0;
        let mut in_long_frame = false;
        while let Some(packet) = Packet::inherit() {
            let is_part = in_long_frame || packet.continues;
            in_long_frame = packet.continues;
            if !is_part && !packet.is_empty() && add(&mut batches, packet) {
                frames += 1;
            }
        }
        self.count.store(batches.len(), Ordering::Release);
        frames
    }

    /// Whether there may be frames for a queue.
    pub fn is_waiting(&self, queue: u16) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.batches.lock().iter().any(|(of, _)| *of == queue)
    }

    /// The next frames for a queue.
    pub fn take(&self, queue: u16) -> Option<PacketBatch> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut batches = self.batches.lock();
        let index = batches.iter().position(|(of, _)| *of == queue)?;
        let (_, batch) = batches.remove(index)?;
        self.count.store(batches.len(), Ordering::Release);
        Some(batch)
    }

    /// Puts back frames that had no room: they are a queue's next.
    pub fn put_back(&self, queue: u16, batch: PacketBatch) {
        let mut batches = self.batches.lock();
        batches.push_front((queue, batch));
        self.count.store(batches.len(), Ordering::Release);
    }
}

/// Adds a frame behind those of its queue; false when there is no memory for it.
fn add(batches: &mut VecDeque<(u16, PacketBatch)>, packet: RRef<Packet>) -> bool {
    let queue = packet.queue;
    let last = batches.iter_mut().rev().find(|(of, _)| *of == queue);
    let packet = match last {
        Some((_, batch)) => match batch.push(packet) {
            Ok(()) => return true,
            Err(packet) => packet,
        },
        None => packet,
    };
    let Ok(mut batch) = PacketBatch::new() else {
        return false;
    };
    let added = batch.push(packet).is_ok();
    batches.push_back((queue, batch));
    added
}
