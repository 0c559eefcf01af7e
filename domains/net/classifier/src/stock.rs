//! Spare packets and batches, so that the path allocates nothing while traffic is steady.

use alloc::vec::Vec;
use rref::packet::Verdict;
use rref::{BATCH_CAPACITY, OutOfMemory, Packet, PacketBatch, RRef};

/// Batches of spare packets that are kept; what is more goes back to the shared heap.
const FILLED_LIMIT: usize = 4;
/// Packets that a batch gets from the others when it has too few, so that it isn't short again at once.
const ENOUGH: usize = 16;
/// Batches without packets that are kept.
const BLANK_LIMIT: usize = 8;

/// One runner's spare packets.
pub struct Stock {
    /// Batches of empty packets, none of them blank.
    filled: Vec<PacketBatch>,
    /// Batches without packets.
    blank: Vec<PacketBatch>,
}

impl Stock {
    /// A stock of nothing, with room for all that it may hold.
    pub fn new() -> Stock {
        Stock {
            filled: Vec::with_capacity(FILLED_LIMIT),
            blank: Vec::with_capacity(BLANK_LIMIT),
        }
    }

    /// A batch without packets.
    #[inline]
    pub fn blank(&mut self) -> Result<PacketBatch, OutOfMemory> {
        match self.blank.pop() {
            Some(batch) => Ok(batch),
            None => PacketBatch::new(),
        }
    }

    /// A batch of empty packets, from `least` to `most` of them: whatever costs the fewest moves. Fewer when memory is short.
    #[inline]
    pub fn take_some(&mut self, least: usize, most: usize) -> Result<PacketBatch, OutOfMemory> {
        let batch = match self.filled.pop() {
            Some(batch) => batch,
            None => self.blank()?,
        };
        if (least..=most).contains(&batch.len()) {
            return Ok(batch);
        }
        self.adjust(batch, least.min(BATCH_CAPACITY), most.min(BATCH_CAPACITY))
    }

    /// Moves packets between a batch and the stock until it has as many as are wanted.
    fn adjust(
        &mut self,
        mut batch: PacketBatch,
        least: usize,
        most: usize,
    ) -> Result<PacketBatch, OutOfMemory> {
        if batch.len() > most {
            // The smaller part is moved.
            let mut other = self.blank()?;
            let moved = most.min(batch.len() - most);
            for _ in 0..moved {
                let Some(packet) = batch.pop() else { break };
                // There is room: `other` is blank.
                drop(other.push(packet));
            }
            if moved == most {
                core::mem::swap(&mut batch, &mut other);
            }
            self.put(other);
        }
        let enough = most.min(ENOUGH).max(least);
        while batch.len() < enough {
            if let Some(mut other) = self.filled.pop() {
                while batch.len() < enough
                    && let Some(packet) = other.pop()
                {
                    // There is room by the loop's condition.
                    drop(batch.push(packet));
                }
                self.put(other);
            } else if batch.len() >= least {
                break;
            } else {
                match Packet::allocate() {
                    Ok(packet) => drop(batch.push(packet)),
                    Err(OutOfMemory) => break,
                }
            }
        }
        Ok(batch)
    }

    /// Takes back a batch of empty packets, or one without any.
    #[inline]
    pub fn put(&mut self, mut batch: PacketBatch) {
        if !batch.is_empty() {
            if self.filled.len() < FILLED_LIMIT {
                return self.filled.push(batch);
            }
            self.merge(&mut batch);
        }
        if self.blank.len() < BLANK_LIMIT {
            self.blank.push(batch);
        }
    }

    /// Empties a batch into those that are kept, and what has no room there into the shared heap.
    fn merge(&mut self, batch: &mut PacketBatch) {
        for kept in &mut self.filled {
            kept.append(batch);
        }
        while batch.pop().is_some() {}
    }

    /// Takes back one empty packet.
    pub fn put_packet(&mut self, packet: RRef<Packet>) {
        let packet = match self.filled.last_mut() {
            Some(batch) => match batch.push(packet) {
                Ok(()) => return,
                Err(packet) => packet,
            },
            None => packet,
        };
        if self.filled.len() < FILLED_LIMIT
            && let Ok(mut batch) = self.blank()
            && batch.push(packet).is_ok()
        {
            self.filled.push(batch);
        }
    }

    /// Takes back packets that nobody wants any more, whatever is in them.
    pub fn recycle(&mut self, mut batch: PacketBatch) {
        for packet in batch.iter_mut() {
            packet.reset();
        }
        self.put(batch);
    }

    /// Takes the empty packets out of a batch; what is left are the frames to send, in order, if there are any.
    ///
    /// A batch that begins and ends with a frame stays as it is: the device gives back what isn't to be sent, which costs less
    /// than to look at each.
    #[inline]
    pub fn keep_empty(&mut self, batch: PacketBatch) -> Option<PacketBatch> {
        let is_frame =
            |packet: Option<&Packet>| packet.is_some_and(|packet| packet.verdict == Verdict::Transmit);
        if is_frame(batch.get(0)) && is_frame(batch.get(batch.len() - 1)) {
            return Some(batch);
        }
        self.separate(batch)
    }

    fn separate(&mut self, mut batch: PacketBatch) -> Option<PacketBatch> {
        let is_frame = |packet: &Packet| packet.verdict == Verdict::Transmit;
        let last = (0..batch.len())
            .rev()
            .find(|&index| batch.get(index).is_some_and(is_frame));
        let Some(last) = last else {
            self.put(batch);
            return None;
        };
        let frames = last + 1;
        if batch.len() - frames <= frames {
            while batch.len() > frames
                && let Some(packet) = batch.pop()
            {
                self.put_packet(packet);
            }
            return Some(batch);
        }
        let Ok(mut transmit) = self.blank() else {
            // The device gives back what isn't to be sent.
            return Some(batch);
        };
        for _ in 0..frames {
            let Some(packet) = batch.pop_front() else { break };
            if is_frame(&packet) {
                // There is room: `transmit` is blank.
                drop(transmit.push(packet));
            } else {
                self.put_packet(packet);
            }
        }
        self.put(batch);
        Some(transmit)
    }

    /// Empty packets in stock.
    #[cfg(test)]
    pub fn packets(&self) -> usize {
        self.filled.iter().map(PacketBatch::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(verdicts: &[Verdict]) -> PacketBatch {
        let mut batch = PacketBatch::new().unwrap();
        for (number, verdict) in verdicts.iter().enumerate() {
            let mut packet = Packet::allocate().unwrap();
            packet.verdict = *verdict;
            packet.rss_hash = number as u32;
            assert!(batch.push(packet).is_ok());
        }
        batch
    }

    proptest! {
        /// Frames keep their order and are all there; every packet is in the one place or the other.
        #[test]
        fn a_mixed_batch_is_split(verdicts in proptest::collection::vec(0u8..2, 0..=BATCH_CAPACITY)) {
            let _serial = crate::tests::serial();
            let verdicts: Vec<_> = verdicts
                .into_iter()
                .map(|verdict| if verdict == 0 { Verdict::Empty } else { Verdict::Transmit })
                .collect();
            let mut stock = Stock::new();
            let transmit = stock.keep_empty(batch(&verdicts));
            let left: usize = transmit.iter().map(PacketBatch::len).sum();
            let sent: Vec<u32> = transmit
                .iter()
                .flat_map(PacketBatch::iter)
                .filter(|packet| packet.verdict == Verdict::Transmit)
                .map(|packet| packet.rss_hash)
                .collect();
            let expected: Vec<u32> = (0..verdicts.len() as u32)
                .filter(|number| verdicts[*number as usize] == Verdict::Transmit)
                .collect();
            prop_assert_eq!(&sent, &expected);
            prop_assert_eq!(transmit.is_none(), expected.is_empty());
            prop_assert_eq!(stock.packets() + left, verdicts.len());
        }

        /// A take gives what was asked for, from the stock first.
        #[test]
        fn takes_and_puts_conserve_packets(counts in proptest::collection::vec(0usize..40, 1..40)) {
            let _serial = crate::tests::serial();
            let mut stock = Stock::new();
            let mut out: Vec<PacketBatch> = Vec::new();
            for (step, count) in counts.into_iter().enumerate() {
                let before = stock.packets();
                let batch = stock.take_some(count, count).unwrap();
                prop_assert_eq!(batch.len(), count.min(BATCH_CAPACITY));
                prop_assert_eq!(stock.packets(), before.saturating_sub(batch.len()));
                out.push(batch);
                if step % 2 == 1 {
                    for batch in out.drain(..) {
                        stock.put(batch);
                    }
                    prop_assert!(stock.packets() <= FILLED_LIMIT * BATCH_CAPACITY);
                }
            }
        }
    }
}
