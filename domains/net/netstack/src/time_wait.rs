//! TIME-WAIT (RFC 9293, 3.3.2) without buffers: what is needed to acknowledge a repeated FIN.
//!
//! RFC 1337: resets are ignored. A SYN with a higher sequence number opens the connection anew (RFC 9293, 3.10.7.4).

use crate::demultiplex::{FlowKey, Segment, flag};
use crate::table::{FlowTable, Place, Slab, Ticket};
use crate::transmit::{LinkHeader, SentSegment, acknowledgement};
use alloc::collections::VecDeque;

/// How long a pair of ports stays closed to old segments.
const DURATION_NS: u64 = 10_000_000_000;
/// Entries at most on a shard; the oldest goes first.
const LIMIT: usize = 65_536;

struct Entry {
    key: FlowKey,
    link: LinkHeader,
    last: SentSegment,
    expires_ns: u64,
}

/// Connections in TIME-WAIT.
#[derive(Default)]
pub struct TimeWaits {
    slab: Slab<Entry>,
    /// By the time when they came; an entry that was refreshed is put back when it comes up.
    order: VecDeque<(u64, Ticket)>,
}

/// What to do with a segment for a connection in TIME-WAIT.
pub enum Answer {
    /// Nothing.
    None,
    /// Send this acknowledgement: its length in the buffer, and its Ethernet header.
    Acknowledge(usize, LinkHeader),
    /// It opens the connection anew: handle it as a SYN. The entry is gone.
    Open,
}

impl TimeWaits {
    /// Takes over a connection whose last segment was `last`.
    pub fn insert(
        &mut self,
        flows: &mut FlowTable,
        key: FlowKey,
        link: LinkHeader,
        last: SentSegment,
        now_ns: u64,
    ) {
        if self.slab.len() >= LIMIT {
            self.expire(flows, u64::MAX, 1);
        }
        let expires_ns = now_ns + DURATION_NS;
        let ticket = self.slab.insert(Entry {
            key,
            link,
            last,
            expires_ns,
        });
        self.order.push_back((expires_ns, ticket));
        flows.put(key, Place::TimeWait(ticket));
    }

    /// Handles a segment.
    pub fn receive(
        &mut self,
        flows: &mut FlowTable,
        ticket: Ticket,
        segment: &Segment,
        now_ns: u64,
        out: &mut [u8],
    ) -> Answer {
        let Some(entry) = self.slab.get_mut(ticket) else {
            return Answer::None;
        };
        if segment.flags & flag::RST != 0 {
            return Answer::None;
        }
        let ahead = segment.sequence.wrapping_sub(entry.last.acknowledgement) as i32;
        if segment.flags & (flag::SYN | flag::ACK) == flag::SYN && ahead > 0 {
            flows.remove(&entry.key);
            self.slab.remove(ticket);
            return Answer::Open;
        }
        if segment.flags & (flag::FIN | flag::SYN) == 0 && segment.payload_bytes == 0 {
            return Answer::None;
        }
        entry.expires_ns = now_ns + DURATION_NS;
        let last = entry.last;
        let sequence = last.sequence.wrapping_add(last.payload_bytes);
        let length = acknowledgement(&entry.key, sequence, last.acknowledgement, last.window, out);
        Answer::Acknowledge(length, entry.link)
    }

    /// Forgets entries whose time is over, at most `limit`; true when there may be more.
    pub fn expire(&mut self, flows: &mut FlowTable, now_ns: u64, limit: usize) -> bool {
        for _ in 0..limit {
            let Some((at, ticket)) = self.order.front().copied() else {
                return false;
            };
            if at > now_ns {
                return false;
            }
            self.order.pop_front();
            let Some(entry) = self.slab.get(ticket) else {
                continue;
            };
            if entry.expires_ns > now_ns {
                self.order.push_back((entry.expires_ns, ticket));
                continue;
            }
            flows.remove(&entry.key);
            self.slab.remove(ticket);
        }
        true
    }

    /// Connections in TIME-WAIT.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// When the oldest one's time is over; `u64::MAX` for none.
    pub fn next_ns(&self) -> u64 {
        self.order.front().map_or(u64::MAX, |(at, _)| *at)
    }
}
