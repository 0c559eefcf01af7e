//! A SYN on a connection that exists already (RFC 5961, 4.2; RFC 9293, 3.10.7.4).
//!
//! The peer has lost the connection (its reset didn't arrive, or it has started anew) and happens to choose the same port again; or
//! somebody forges. Either way the SYN is answered with what the connection acknowledges, whatever its sequence number: a peer
//! that knows nothing of the connection answers with a reset that has exactly that number, and its next SYN opens a new one. Without the answer
//! it could not connect from that port until the old connection times out.
//!
//! smoltcp throws a SYN without an acknowledgement away, so its sockets are shown another segment that calls for the same answer.

use crate::connection::Connection;
use crate::demultiplex::{ETHERNET_BYTES, Segment, flag};
use crate::device::Exchange;
use crate::light::peers_packet;
use crate::shard::Shard;
use crate::table::Ticket;
use crate::transmit::{SentSegment, acknowledgement};
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;

/// A connection without a socket answers SYNs at most this often (RFC 5961, 7); peers repeat theirs after a second. smoltcp's sockets have
/// a limit of their own.
const INTERVAL_NS: u64 = 500_000_000;
/// How far beyond what was sent a segment acknowledges that is to be answered: no window reaches so far.
const FAR: u32 = 1 << 30;

impl Connection {
    /// Whether this segment asks for a new connection in place of this one, which both sides had established.
    #[inline]
    pub fn is_challenged_by(&self, segment: &Segment) -> bool {
        segment.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
            && (self.light.is_some()
                || matches!(
                    self.socket_ref().state(),
                    State::Established
                        | State::FinWait1
                        | State::FinWait2
                        | State::CloseWait
                        | State::Closing
                        | State::LastAck
                ))
    }
}

impl Shard {
    /// Answers a SYN on an established connection, in `reply`.
    #[cold]
    pub(crate) fn challenge(&mut self, ticket: Ticket, now_ns: u64, now: Instant) {
        let receive_bytes = self.common.config.tcp.receive_buffer_bytes as usize;
        let Some(connection) = self.connections.get_mut(ticket) else {
            return;
        };
        let Some((link, out)) = self.reply.split_at_mut_checked(ETHERNET_BYTES) else {
            return;
        };
        let (key, end) = (connection.key, connection.sent.sequence);
        let length = match connection.acknowledge_lightly(receive_bytes) {
            Some(_) if connection.challenged_ns.saturating_add(INTERVAL_NS) > now_ns => 0,
            Some(segment) => {
                connection.challenged_ns = now_ns;
                connection.note_sent(&segment, now_ns);
                acknowledgement(&key, end, segment.acknowledgement, segment.window, out)
            }
            None => {
                let remote_next = connection.recovery.remote_next();
                let beyond = end.wrapping_add(FAR);
                let packet = peers_packet(&key, None, remote_next, Some(beyond), 0, &[]);
                let mut device = Exchange::new(self.capabilities, Some(&packet), &mut *out);
                self.interface
                    .poll_ingress_single(now, &mut device, connection.set());
                let sent = device.sent_bytes();
                if let Some(answer) = out.get(..sent).and_then(SentSegment::read) {
                    connection.note_sent(&answer, now_ns);
                }
                sent
            }
        };
        if length > 0 {
            link.copy_from_slice(&connection.link);
            self.reply_bytes = ETHERNET_BYTES + length;
        }
    }
}
