//! Connections whose SYN was answered and whose peer has not come back yet.
//!
//! One is a copy of the SYN and a few numbers, not a socket with buffers, so that a flood of SYNs costs little. The socket is
//! made later: it is shown the SYN again, and since its initial sequence number is the shard's to
//! choose (`secret.rs`), it answers with the very SYN|ACK that the peer has.

use crate::demultiplex::FlowKey;
use crate::table::{FlowTable, Place, Slab, Ticket};
use crate::transmit::LinkHeader;
use alloc::collections::VecDeque;

/// Longest SYN that is taken, as an IP packet: the longest headers are 40 + 60 bytes.
pub const SYN_BYTES: usize = 120;

/// A SYN|ACK without an answer is sent again after this time, then after twice that, and so on.
const FIRST_REPEAT_NS: u64 = 1_000_000_000;
/// Repeats of a SYN|ACK.
const REPEATS: u8 = 4;

/// A half-open connection.
pub struct HalfOpen {
    /// Its 4-tuple.
    pub key: FlowKey,
    /// Who accepts it.
    pub listener: Ticket,
    /// Header of frames to the peer.
    pub link: LinkHeader,
    /// Seed of the interface that answers the SYN, with the same answer each time.
    pub seed: u64,
    /// The sequence number of our SYN.
    pub sequence: u32,
    /// The sequence number of the peer's SYN.
    pub remote_sequence: u32,
    syn: [u8; SYN_BYTES],
    syn_bytes: u8,
    repeats: u8,
    repeat_ns: u64,
}

impl HalfOpen {
    /// One for the SYN in `packet`; `None` when that is too long to be an honest one.
    pub fn new(
        key: FlowKey,
        listener: Ticket,
        link: LinkHeader,
        seed: u64,
        remote_sequence: u32,
        packet: &[u8],
        now_ns: u64,
    ) -> Option<HalfOpen> {
        let mut syn = [0; SYN_BYTES];
        syn.get_mut(..packet.len())?.copy_from_slice(packet);
        Some(HalfOpen {
            key,
            listener,
            link,
            seed,
            sequence: 0,
            remote_sequence,
            syn,
            syn_bytes: packet.len() as u8,
            repeats: 0,
            repeat_ns: now_ns + FIRST_REPEAT_NS,
        })
    }

    /// The SYN, as an IP packet.
    pub fn syn(&self) -> &[u8] {
        self.syn.get(..usize::from(self.syn_bytes)).unwrap_or(&[])
    }
}

/// What is due of a half-open connection.
pub enum Due {
    /// Its SYN|ACK is to be sent again.
    Repeat(Ticket),
    /// It was given up; this listener has room for another.
    Expired(Ticket),
}

/// The half-open connections of a shard.
#[derive(Default)]
pub struct HalfOpens {
    slab: Slab<HalfOpen>,
    order: VecDeque<(u64, Ticket)>,
}

impl HalfOpens {
    /// Adds one.
    pub fn insert(&mut self, flows: &mut FlowTable, half_open: HalfOpen) -> Ticket {
        let (key, at) = (half_open.key, half_open.repeat_ns);
        let ticket = self.slab.insert(half_open);
        self.order.push_back((at, ticket));
        flows.put(key, Place::HalfOpen(ticket));
        ticket
    }

    /// One of them.
    pub fn get(&self, ticket: Ticket) -> Option<&HalfOpen> {
        self.slab.get(ticket)
    }

    /// Notes the sequence number of our SYN.
    pub fn set_sequence(&mut self, ticket: Ticket, sequence: u32) {
        if let Some(half_open) = self.slab.get_mut(ticket) {
            half_open.sequence = sequence;
        }
    }

    /// Notes where the peer's last SYN came from.
    pub fn set_link(&mut self, ticket: Ticket, link: LinkHeader) {
        if let Some(half_open) = self.slab.get_mut(ticket) {
            half_open.link = link;
        }
    }

    /// Takes one out; its flow is the caller's to remove or to put elsewhere.
    pub fn take(&mut self, ticket: Ticket) -> Option<HalfOpen> {
        self.slab.remove(ticket)
    }

    /// Half-open connections.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Tickets of those that are a listener's.
    pub fn of_listener(&self, listener: Ticket) -> alloc::vec::Vec<Ticket> {
        let of_it = |entry: &(Ticket, &HalfOpen)| entry.1.listener == listener;
        self.slab.iter().filter(of_it).map(|(ticket, _)| ticket).collect()
    }

    /// The next that is due by `now_ns`.
    ///
    /// Times in the queue are in order up to the doubling of repeats, which delays some by less than a repeat's time.
    pub fn next_due(&mut self, flows: &mut FlowTable, now_ns: u64) -> Option<Due> {
        loop {
            let (at, ticket) = *self.order.front()?;
            if at > now_ns {
                return None;
            }
            self.order.pop_front();
            let Some(half_open) = self.slab.get_mut(ticket) else {
                continue;
            };
            if half_open.repeats >= REPEATS {
                let expired = self.slab.remove(ticket)?;
                flows.remove(&expired.key);
                return Some(Due::Expired(expired.listener));
            }
            half_open.repeats += 1;
            half_open.repeat_ns = now_ns + (FIRST_REPEAT_NS << half_open.repeats);
            self.order.push_back((half_open.repeat_ns, ticket));
            return Some(Due::Repeat(ticket));
        }
    }

    /// When the next is due; `u64::MAX` for never.
    pub fn next_ns(&self) -> u64 {
        self.order.front().map_or(u64::MAX, |(at, _)| *at)
    }
}
