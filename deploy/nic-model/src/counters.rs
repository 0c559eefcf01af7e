//! What the model counts about itself, beside the statistics registers that belong to the driver.

use serde::Serialize;

/// Frames and bytes of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounters {
    /// Queue number.
    pub queue: u16,
    /// Frames written to or read from the guest.
    pub frames: u64,
    /// Their bytes, without check sequence.
    pub bytes: u64,
}

/// Everything the model counts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// 32-bit register reads.
    pub mmio_reads: u64,
    /// 32-bit register writes.
    pub mmio_writes: u64,
    /// Reads of registers that don't exist.
    pub undefined_reads: u64,
    /// Configuration space reads.
    pub config_reads: u64,
    /// Configuration space writes.
    pub config_writes: u64,
    /// Software resets.
    pub resets: u64,
    /// Function-level resets and resets by the host.
    pub function_resets: u64,
    /// Frames dropped for want of descriptors, or because their queue was disabled.
    pub rx_dropped: u64,
    /// Frames lost because the packet buffer was full.
    pub rx_missed: u64,
    /// Frames that came while the receiver was off.
    pub rx_lost_disabled: u64,
    /// Frames that came while the link was down.
    pub rx_lost_link_down: u64,
    /// Frames not sent because of a violation.
    pub tx_refused: u64,
    rx_queues: Vec<QueueCounters>,
    tx_queues: Vec<QueueCounters>,
}

impl Counters {
    pub(crate) fn count_rx(&mut self, queue: u16, length: usize) {
        count(&mut self.rx_queues, queue, length);
    }

    pub(crate) fn count_tx(&mut self, queue: u16, length: usize) {
        count(&mut self.tx_queues, queue, length);
    }

    /// Receive queues that have carried frames.
    pub fn rx_queues(&self) -> impl Iterator<Item = &QueueCounters> {
        self.rx_queues.iter()
    }

    /// Transmit queues that have carried frames.
    pub fn tx_queues(&self) -> impl Iterator<Item = &QueueCounters> {
        self.tx_queues.iter()
    }
}

fn count(queues: &mut Vec<QueueCounters>, queue: u16, length: usize) {
    let index = match queues.binary_search_by_key(&queue, |counters| counters.queue) {
        Ok(index) => index,
        Err(index) => {
            queues.insert(
                index,
                QueueCounters {
                    queue,
                    ..QueueCounters::default()
                },
            );
            index
        }
    };
    if let Some(counters) = queues.get_mut(index) {
        counters.frames += 1;
        counters.bytes += length as u64;
    }
}
