//! What a shard sends: answers, frames that were queued, and what connections have.
//!
//! Frames are written straight into the batch's packets, from the front; packets are free up to the one that was handled last.
//! A connection sends a bounded burst, then the next one has its turn.

use crate::connection::Connection;
use crate::demultiplex::{ETHERNET_BYTES, flag};
use crate::device::Exchange;
use crate::events::Entry;
use crate::light::QUIET_NS;
use crate::receive::link_to;
use crate::shard::{Outgoing, Shard, instant};
use crate::table::Ticket;
use crate::transmit::{SentSegment, finish};
use core::net::IpAddr;
use core::sync::atomic::Ordering;
use interface::socket::SocketStatistics;
use rref::PacketBatch;
use rref::packet::{ChecksumRequest, HEADROOM_BYTES, PACKET_BYTES, Verdict};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;

/// Bytes of a frame that one packet takes.
const CAPACITY: usize = PACKET_BYTES - HEADROOM_BYTES;
/// Frames that a connection sends before the next has its turn.
const BURST: usize = 16;
/// A connection that wants to be polled at once but sends nothing is polled again after this time.
const RETRY_NS: u64 = 1_000_000;
/// Shortest time of smoltcp's retransmission timer (RFC 6298, 2.4).
const LEAST_RETRANSMISSION_NS: u64 = 1_000_000_000;
/// Time between looks whether an unknown neighbour has answered.
const RESOLVE_NS: u64 = 1_000_000_000;

/// Writes a frame into packets `out..limit`; false when they are too few.
fn put_frame(
    packets: &mut PacketBatch,
    out: &mut usize,
    limit: usize,
    frame: &[u8],
    request: ChecksumRequest,
    vlan: Option<u16>,
) -> bool {
    let pieces = frame.len().div_ceil(CAPACITY);
    if *out + pieces > limit {
        return false;
    }
    for (index, piece) in frame.chunks(CAPACITY).enumerate() {
        let Some(packet) = packets.get_mut(*out) else {
            return false;
        };
        packet.reset();
        packet.resize(piece.len()).copy_from_slice(piece);
        packet.verdict = Verdict::Transmit;
        packet.set_vlan(vlan);
        packet.request = if index == 0 {
            request
        } else {
            ChecksumRequest::None
        };
        packet.continues = index + 1 < pieces;
        *out += 1;
    }
    true
}

/// What a connection sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Nothing: it has nothing to send.
    Nothing,
    /// A segment that ends its buffer: it has nothing more to send.
    Everything,
    /// A segment that others may follow.
    More,
}

impl Last {
    /// smoltcp sets PSH on the segment that ends its buffer.
    fn after(segment: &SentSegment) -> Last {
        if segment.flags & flag::PSH != 0 {
            Last::Everything
        } else {
            Last::More
        }
    }
}

/// Notes what a connection has sent, and counts it if that was sent before.
#[inline]
fn note_sent(
    connection: &mut Connection,
    segment: &SentSegment,
    statistics: &mut SocketStatistics,
    now_ns: u64,
) {
    if connection.note_sent(segment, now_ns) {
        statistics.retransmitted += 1;
        if connection.recovery.is_going_back() {
            connection.doubt_station();
        }
    }
}

impl Shard {
    /// Moves the answer from `reply` into the packets before `limit`.
    pub(crate) fn put_reply(&mut self, packets: &mut PacketBatch, out: &mut usize, limit: usize) {
        let request = self.finish_reply();
        let frame = self.reply.get(..self.reply_bytes).unwrap_or(&[]);
        // An answer is never longer than what it answers to, whose packets are free now; were it, it would be lost.
        put_frame(
            packets,
            out,
            limit,
            frame,
            request,
            self.common.config.network.vlan,
        );
    }

    /// Looks a neighbour up.
    fn resolve(&self, next_hop: IpAddr, now_ns: u64) -> Option<[u8; 6]> {
        let mut neighbours = self.common.neighbours.lock();
        let mac = neighbours.resolve(next_hop, now_ns);
        if neighbours.has_questions() {
            self.common.questions.store(true, Ordering::Relaxed);
        }
        mac
    }

    /// Sends queued frames as long as there is room.
    pub(crate) fn send_outgoing(&mut self, packets: &mut PacketBatch, out: &mut usize, now_ns: u64) {
        let limit = packets.len();
        let vlan = self.common.config.network.vlan;
        while *out < limit
            && let Some(mut outgoing) = self.outgoing.pop_front()
        {
            if let Some(next_hop) = outgoing.next_hop {
                let Some(mac) = self.resolve(next_hop, now_ns) else {
                    self.waiting.push_back(outgoing);
                    continue;
                };
                let link = crate::transmit::link_header(mac, self.common.mac, next_hop.is_ipv4());
                if let Some(header) = outgoing.frame.get_mut(..ETHERNET_BYTES) {
                    header.copy_from_slice(&link);
                }
                outgoing.next_hop = None;
            }
            if !put_frame(packets, out, limit, &outgoing.frame, outgoing.request, vlan) {
                return self.put_back(outgoing);
            }
        }
    }

    fn put_back(&mut self, outgoing: Outgoing) {
        self.outgoing.push_front(outgoing);
    }

    /// Lets dirty connections send as long as there is room.
    #[inline]
    pub(crate) fn flush(&mut self, packets: &mut PacketBatch, out: &mut usize, now_ns: u64, now: Instant) {
        let limit = packets.len();
        let frame_bytes = ETHERNET_BYTES + usize::from(self.capabilities.mtu);
        let room = frame_bytes.div_ceil(CAPACITY);
        // Connections that still have something after their burst come round again, in this call as long as there is room.
        while *out + room <= limit
            && let Some(ticket) = self.dirty.pop_front()
        {
            if self.flush_lightly(ticket, packets, out, now_ns) || !self.is_ready(ticket, now_ns) {
                continue;
            }
            if self
                .connections
                .get(ticket)
                .is_some_and(|connection| connection.light.is_some())
            {
                // Its neighbour is known only now.
                self.flush_lightly(ticket, packets, out, now_ns);
                continue;
            }
            let mut last = Last::More;
            for _ in 0..BURST {
                if *out + room > limit {
                    break;
                }
                last = self.send_segment(ticket, packets, out, now_ns, now);
                if last != Last::More {
                    break;
                }
            }
            match last {
                Last::More => self.mark_dirty(ticket),
                Last::Everything => self.settle_sent(ticket, now_ns, now),
                Last::Nothing => self.settle(ticket, now_ns, now),
            }
        }
    }

    /// Takes the mark off a connection without a socket and sends what it has, or gives it a socket when its time for that has come. False, and nothing was
    /// done, if it has a socket or its neighbour isn't known.
    #[inline]
    fn flush_lightly(
        &mut self,
        ticket: Ticket,
        packets: &mut PacketBatch,
        out: &mut usize,
        now_ns: u64,
    ) -> bool {
        let (Some(connection), Some(packet)) = (self.connections.get_mut(ticket), packets.get_mut(*out))
        else {
            return false;
        };
        if connection.light.is_none() || !connection.resolved {
            return false;
        }
        connection.dirty = false;
        let tcp = &self.common.config.tcp;
        let receive_bytes = tcp.receive_buffer_bytes as usize;
        let keep_alive_ns = match tcp.keep_alive_s {
            0 => u64::MAX,
            seconds => u64::from(seconds) * 1_000_000_000,
        };
        let offload = self.capabilities.transmit_checksum;
        let mut sent = offload && connection.emit_answer(packet, receive_bytes, keep_alive_ns, now_ns);
        if !sent {
            let timeout_ns = u64::from(tcp.timeout_s) * 1_000_000_000;
            let silence_ns = connection.silence_ns(keep_alive_ns, now_ns);
            if silence_ns.is_some_and(|silence_ns| silence_ns >= timeout_ns) {
                self.statistics.aborted += 1;
                self.reset(ticket, now_ns);
                return true;
            }
            sent = connection.emit_lightly(packet, receive_bytes, offload, silence_ns.is_some(), now_ns);
        }
        if sent {
            packet.set_vlan(self.common.config.network.vlan);
            *out += 1;
        }
        let deadline_ns = connection.light_deadline_ns(keep_alive_ns, self.capabilities.mtu.into());
        if deadline_ns <= now_ns {
            // An answer is lost.
            self.ensure_socket(ticket, now_ns, true, false);
        } else if deadline_ns != u64::MAX {
            self.timers
                .schedule(ticket, &mut connection.scheduled_ns, deadline_ns);
        }
        true
    }

    /// Takes the mark off a connection; whether it can send.
    fn is_ready(&mut self, ticket: Ticket, now_ns: u64) -> bool {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return false;
        };
        connection.dirty = false;
        if connection.resolved {
            return true;
        }
        let key = connection.key;
        let next_hop = self.addresses.next_hop(key.remote().ip());
        let mac = next_hop.and_then(|next_hop| self.resolve(next_hop, now_ns));
        let own = self.common.mac;
        let Some(connection) = self.connections.get_mut(ticket) else {
            return false;
        };
        if let Some(mac) = mac {
            connection.link = link_to(mac, own, &key);
            connection.resolved = true;
            return true;
        }
        self.unresolved.push(ticket);
        self.timers
            .schedule(ticket, &mut connection.scheduled_ns, now_ns + RESOLVE_NS);
        false
    }

    /// Has a connection's socket send one segment.
    #[inline]
    fn send_segment(
        &mut self,
        ticket: Ticket,
        packets: &mut PacketBatch,
        out: &mut usize,
        now_ns: u64,
        now: Instant,
    ) -> Last {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return Last::Nothing;
        };
        let frame_bytes = ETHERNET_BYTES + usize::from(self.capabilities.mtu);
        if frame_bytes > CAPACITY {
            return self.send_long_segment(ticket, packets, out, now_ns, now);
        }
        let Some(packet) = packets.get_mut(*out) else {
            return Last::Nothing;
        };
        packet.reset();
        let Some((link, body)) = packet.resize(frame_bytes).split_at_mut_checked(ETHERNET_BYTES) else {
            return Last::Nothing;
        };
        let mut device = Exchange::new(self.capabilities, None, &mut *body);
        self.interface.poll_egress(now, &mut device, connection.set());
        let sent = device.sent_bytes();
        if sent == 0 {
            packet.reset();
            return Last::Nothing;
        }
        let segment = body.get(..sent).and_then(SentSegment::read).unwrap_or_default();
        note_sent(connection, &segment, &mut self.statistics, now_ns);
        link.copy_from_slice(&connection.link);
        let frame = packet.resize(ETHERNET_BYTES + sent);
        packet.request = finish(frame, self.capabilities.transmit_checksum);
        packet.verdict = Verdict::Transmit;
        packet.set_vlan(self.common.config.network.vlan);
        *out += 1;
        Last::after(&segment)
    }

    /// As `send_segment`, for frames that are longer than a packet.
    fn send_long_segment(
        &mut self,
        ticket: Ticket,
        packets: &mut PacketBatch,
        out: &mut usize,
        now_ns: u64,
        now: Instant,
    ) -> Last {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return Last::Nothing;
        };
        let Some((link, body)) = self.reply.split_at_mut_checked(ETHERNET_BYTES) else {
            return Last::Nothing;
        };
        let mut device = Exchange::new(self.capabilities, None, &mut *body);
        self.interface.poll_egress(now, &mut device, connection.set());
        let sent = device.sent_bytes();
        if sent == 0 {
            return Last::Nothing;
        }
        let segment = body.get(..sent).and_then(SentSegment::read).unwrap_or_default();
        note_sent(connection, &segment, &mut self.statistics, now_ns);
        link.copy_from_slice(&connection.link);
        self.reply_bytes = ETHERNET_BYTES + sent;
        let limit = packets.len();
        self.put_reply(packets, out, limit);
        Last::after(&segment)
    }

    /// As `settle`, after all that the socket had was sent: it then waits for an acknowledgement, no shorter than the least of the
    /// retransmission timer's times. Earlier timers have their entries already.
    #[inline]
    fn settle_sent(&mut self, ticket: Ticket, now_ns: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return;
        };
        if connection.linger_ns.is_some() || connection.socket_ref().state() != tcp::State::Established {
            return self.settle(ticket, now_ns, now);
        }
        let probe_ns = connection
            .recovery
            .probe_ns(connection.sent.sequence, u32::from(self.capabilities.mtu));
        let deadline_ns = probe_ns.min(now_ns + LEAST_RETRANSMISSION_NS);
        self.timers
            .schedule(ticket, &mut connection.scheduled_ns, deadline_ns);
    }

    /// Sees what a connection with nothing to send is waiting for.
    #[inline]
    fn settle(&mut self, ticket: Ticket, now_ns: u64, now: Instant) {
        if self.lighten(ticket, now_ns) {
            return self.mark_dirty(ticket);
        }
        let Some(connection) = self.connections.get_mut(ticket) else {
            return;
        };
        let next = self.interface.poll_at(now, connection.set());
        let state = connection.socket_ref().state();
        let immediate = next.is_some_and(|at| at <= now);
        match state {
            tcp::State::Closed if !immediate => return self.retire(ticket, None),
            tcp::State::TimeWait if !immediate => return self.retire(ticket, Some(now_ns)),
            _ => {}
        }
        let probe_ns = connection
            .recovery
            .probe_ns(connection.sent.sequence, u32::from(self.capabilities.mtu));
        if probe_ns <= now_ns {
            self.resend(ticket, true, now);
            return self.mark_dirty(ticket);
        }
        let mut deadline_ns = match next {
            None => u64::MAX,
            Some(_) if immediate => now_ns + RETRY_NS,
            Some(at) => (at.total_micros() as u64).saturating_mul(1000).max(now_ns),
        };
        if let Some(linger_ns) = connection.linger_ns {
            if linger_ns <= now_ns && !connection.orphan {
                connection.orphan = true;
                connection.socket().abort();
                self.statistics.aborted += 1;
                self.tell_closed(ticket);
                return self.mark_dirty(ticket);
            }
            deadline_ns = deadline_ns.min(linger_ns);
        }
        deadline_ns = deadline_ns.min(probe_ns);
        let quiet_ns = connection.quiet_since_ns.saturating_add(QUIET_NS);
        if connection.options.is_some() && quiet_ns > now_ns && connection.socket_ref().send_queue() == 0 {
            deadline_ns = deadline_ns.min(quiet_ns);
        }
        if deadline_ns != u64::MAX {
            self.timers
                .schedule(ticket, &mut connection.scheduled_ns, deadline_ns);
        }
    }

    fn tell_closed(&mut self, ticket: Ticket) {
        if let Some(connection) = self.connections.get(ticket)
            && connection.waiting_at.is_none()
        {
            self.owners.push(connection.owner, Entry::Closed(ticket));
        }
    }

    /// Takes a connection away; with a time, its ports stay in TIME-WAIT from then on.
    fn retire(&mut self, ticket: Ticket, time_wait_ns: Option<u64>) {
        let orphan = self
            .connections
            .get(ticket)
            .is_none_or(|connection| connection.orphan);
        if !orphan {
            self.tell_closed(ticket);
        }
        let Some(connection) = self.connections.remove(ticket) else {
            return;
        };
        if let Some(listener) = connection.waiting_at {
            self.listeners.release(listener);
        }
        self.release_buffers(connection.buffer_bytes);
        self.common.remove_outbound(&connection.key);
        match time_wait_ns {
            None => self.flows.remove(&connection.key),
            Some(now_ns) => {
                self.time_waits.insert(
                    &mut self.flows,
                    connection.key,
                    connection.link,
                    connection.sent,
                    now_ns,
                );
            }
        }
    }

    /// smoltcp's time for `now_ns`, for calls from outside a round.
    pub(crate) fn instant_of(now_ns: u64) -> Instant {
        instant(now_ns)
    }
}
