//! One queue pair: what an exchange does with its batches.
//!
//! One pass: see what was sent, send, harvest, refill; a tail write for each ring, and no register read. Packets that hardware has sent go
//! straight into the receive ring when it has room, so that a forwarder's buffers make their round without passing through a batch.

use crate::error::DeviceError;
use crate::receive::Receiver;
use crate::statistics::QueueCounters;
use crate::transmit::{Sent, Transmitter};
use dma::ixgbe::Adapter;
use interface::net::Exchanged;
use rref::packet::Verdict;
use rref::{Packet, PacketBatch, RRef};

/// A queue pair, used by one thread at a time.
pub struct QueuePair {
    receiver: Receiver,
    transmitter: Transmitter,
    counters: QueueCounters,
}

impl QueuePair {
    /// Rings for `queue`, not yet started.
    pub fn new(adapter: &Adapter, queue: u16) -> Result<QueuePair, DeviceError> {
        Ok(QueuePair {
            receiver: Receiver::new(adapter, queue)?,
            transmitter: Transmitter::new(adapter, queue)?,
            counters: QueueCounters::default(),
        })
    }

    /// Starts both rings.
    pub fn start(&mut self) -> Result<(), DeviceError> {
        self.receiver.start()?;
        self.transmitter.start()
    }

    /// What it counted.
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    /// Whether hardware takes VLAN tags off received frames.
    pub fn set_vlan_strip(&mut self, strip: bool) {
        self.receiver.set_vlan_strip(strip);
    }

    /// Whether an exchange would find something.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.receiver.has_work() || self.transmitter.is_crowded() && self.transmitter.has_report()
    }

    /// Whether frames wait for room, so that a sleeper should look again soon.
    pub fn is_crowded(&self) -> bool {
        self.transmitter.is_crowded()
    }

    /// Sends `transmit`, takes what has arrived, and gives back what isn't needed. Frames are at most `limit_bytes` long; without a link
    /// they are not kept for later but spent.
    pub fn exchange(
        &mut self,
        mut transmit: PacketBatch,
        mut empty: PacketBatch,
        limit_bytes: usize,
        link_up: bool,
    ) -> Result<Exchanged, DeviceError> {
        if self.transmitter.look(link_up) {
            self.counters.transmit_hangs += 1;
            log::warn!("a transmit ring hangs; starting it anew");
            self.transmitter.start()?;
        }
        // Sent packets otherwise stay until there is use for them.
        while self.transmitter.is_crowded() {
            let Some(packet) = self.transmitter.take_sent() else {
                break;
            };
            self.give_back(packet, &mut empty);
        }
        self.send(&mut transmit, &mut empty, limit_bytes, link_up);
        let unsent = transmit.len();
        let (mut received, mut spare) = if unsent == 0 {
            (transmit, empty)
        } else {
            // The two batches change roles, so that unsent frames stay in order; empty ones join them as far as they fit.
            while let Some(packet) = empty.pop() {
                self.give_back(packet, &mut transmit);
            }
            (empty, transmit)
        };
        self.receiver.harvest(&mut received, &mut self.counters);
        self.refill(&mut spare, unsent);
        Ok(Exchanged { received, spare })
    }

    /// Puts frames of `transmit` into the ring until one has no room. What can't be sent at all goes to `spare`, empty.
    #[inline]
    fn send(
        &mut self,
        transmit: &mut PacketBatch,
        spare: &mut PacketBatch,
        limit_bytes: usize,
        link_up: bool,
    ) {
        loop {
            if link_up {
                self.transmitter
                    .send_plain(transmit, limit_bytes, &mut self.counters);
            }
            let Some(front) = transmit.get(0) else { break };
            let sent = if front.verdict == Verdict::Transmit && link_up {
                self.transmitter
                    .send_front(transmit, limit_bytes, &mut self.counters)
            } else {
                Sent::Unfit { packets: 1 }
            };
            match sent {
                Sent::Queued => {}
                Sent::NoRoom => break,
                Sent::Unfit { packets } => {
                    for _ in 0..packets {
                        let Some(packet) = transmit.pop_front() else { break };
                        self.give_back(packet, spare);
                    }
                }
            }
        }
        self.transmitter.publish();
    }

    /// Empties a packet into the receive ring, or `spare`, or back to the shared heap.
    fn give_back(&mut self, packet: RRef<Packet>, spare: &mut PacketBatch) {
        if let Err(mut packet) = self.receiver.post(packet) {
            packet.reset();
            drop(spare.push(packet));
        }
    }

    /// Fills the receive ring: with sent packets first, then with those of `spare` behind its first `unsent`, then with new ones. Sent
    /// packets that are left go to `spare`.
    #[inline]
    fn refill(&mut self, spare: &mut PacketBatch, unsent: usize) {
        self.receiver.post_sent(&mut self.transmitter);
        while spare.len() > unsent && self.receiver.room() > 0 {
            let Some(packet) = spare.pop() else { break };
            if self.receiver.post(packet).is_err() {
                break;
            }
        }
        self.receiver.refill(self.transmitter.ring().len());
        while !spare.is_full() {
            let Some(mut packet) = self.transmitter.take_sent() else {
                break;
            };
            packet.reset();
            drop(spare.push(packet));
        }
    }
}
