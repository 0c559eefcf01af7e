//! Connections without a socket: the life of a kept connection between and during small exchanges.
//!
//! A request of one segment and an answer of one segment, in order, each acknowledged by the other, need none of a TCP machine's
//! choices. A connection in this state is a few numbers and at most one segment in each direction, so that ten thousand idle
//! ones cost little, and a request costs a fraction of what two passes through smoltcp do.
//!
//! Everything else is smoltcp's: more than a segment to send, a segment out of order, loss, closing, a reset. The connection then
//! gets a socket (`ensure_socket`): a new one, which is led through a handshake that ends at the connection's sequence
//! numbers (`secret.rs` chooses its initial one), and is given what isn't received or acknowledged yet. When all of that has been quiet
//! for a while, the socket goes again (`lighten`).

use crate::connection::Connection;
use crate::demultiplex::{ETHERNET_BYTES, FlowKey, Segment, flag, narrow};
use crate::device::Exchange;
use crate::headers::{Ipv4Headers, write_checksum, write_headers};
use crate::shard::{Shard, instant, new_interface};
use crate::table::Ticket;
use crate::transmit::{SentSegment, finish};
use alloc::vec;
use alloc::vec::Vec;
use rref::Packet;
use rref::packet::{ChecksumRequest, HEADROOM_BYTES, PACKET_BYTES, Verdict};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{
    IpAddress, IpListenEndpoint, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// Unreceived bytes that a connection without a socket keeps.
const RECEIVE_LIMIT: usize = 4096;
/// Received bytes that are acknowledged at once rather than after a delay: the segment size of peers that name none.
const ACKNOWLEDGE_BYTES: usize = 536;
/// Bytes of an answer that one packet takes with its headers, also where the network takes longer frames, which are runs of packets.
const ANSWER_LIMIT_BYTES: usize = PACKET_BYTES - HEADROOM_BYTES - ETHERNET_BYTES - 60;
/// Quiet time after which a connection loses its socket.
pub(crate) const QUIET_NS: u64 = 1_000_000_000;
/// Buffers of a socket that is only to be closed or reset.
const CLOSING_BUFFER_BYTES: usize = 4096;
/// Segments that are taken from a new socket because they were sent before.
const REPLAY_LIMIT: usize = 4;

/// What the peer's SYN said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Longest segment that it takes.
    pub segment_bytes: u16,
    /// Its window's scale, if it scales.
    pub window_scale: Option<u8>,
    /// It understands selective acknowledgements.
    pub selective: bool,
}

impl PeerOptions {
    /// Reads a SYN's IP packet.
    pub fn read(syn: &[u8]) -> Option<PeerOptions> {
        let header_bytes = match syn.first()? >> 4 {
            4 => usize::from(syn.first()? & 0x0f) * 4,
            _ => 40,
        };
        let packet = TcpPacket::new_checked(syn.get(header_bytes..)?).ok()?;
        // Neither addresses nor checksum matter for the options.
        let any = IpAddress::v4(0, 0, 0, 0);
        let segment = TcpRepr::parse(&packet, &any, &any, &ChecksumCapabilities::ignored()).ok()?;
        Some(PeerOptions {
            segment_bytes: segment.max_seg_size.filter(|bytes| *bytes >= 48).unwrap_or(536),
            window_scale: segment.window_scale,
            selective: segment.sack_permitted,
        })
    }
}

/// The state of a connection without a socket.
#[derive(Debug, Default)]
pub struct Light {
    /// Next sequence number of the peer.
    receive_next: u32,
    /// Received bytes that the owner has not asked for.
    received: Vec<u8>,
    /// Bytes that were sent or are to be sent, and are not acknowledged.
    transmit: Vec<u8>,
    /// `transmit` was sent.
    sent: bool,
    /// An acknowledgement is owed by this time.
    acknowledge_ns: u64,
    /// When the peer was last heard.
    heard_ns: u64,
    /// When it was last asked whether it lives, or heard.
    asked_ns: u64,
    /// What the headers of all segments over IPv4 have in common.
    headers: Option<Ipv4Headers>,
}

impl Light {
    /// The window field that says what there is room for.
    #[inline]
    fn window(&self, options: Option<&PeerOptions>, receive_bytes: usize) -> u16 {
        let scale = options
            .and_then(|options| options.window_scale)
            .map_or(0, |_| window_scale(receive_bytes));
        let window = (receive_bytes - self.received.len().min(receive_bytes)) >> scale;
        window.min(0xffff) as u16
    }
}

/// What came of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It needs a socket.
    No,
    /// It brought nothing for the owner.
    Quiet,
    /// It brought bytes.
    Readable,
    /// It came before: it is to be acknowledged again, at once.
    Again,
}

impl Connection {
    /// Takes a segment that needs no socket.
    #[inline]
    pub fn take_lightly(&mut self, frame: &[u8], segment: &Segment, delay_ns: u64, now_ns: u64) -> Taken {
        let end = self.sent.sequence;
        let Some(light) = &mut self.light else {
            return Taken::No;
        };
        let payload_bytes = segment.payload_bytes;
        let acknowledged = segment.acknowledgement;
        // Either everything is acknowledged or nothing new.
        let all = acknowledged == end;
        let none = acknowledged == self.recovery.unacknowledged();
        // A peer whose answer was slow sends its request again, whole (RFC 9293, 3.10.7.4).
        let behind = light.receive_next.wrapping_sub(segment.sequence) as usize;
        let again = behind != 0 && (1..=behind).contains(&payload_bytes) && behind <= RECEIVE_LIMIT;
        if segment.flags & !flag::PSH != flag::ACK
            || behind != 0 && !again
            || light.received.len() + payload_bytes > RECEIVE_LIMIT
            || !(all || (none && payload_bytes > 0))
            || segment.window == 0
        {
            return Taken::No;
        }
        if self.recovery.on_segment(segment, end, now_ns) {
            return Taken::No;
        }
        light.heard_ns = now_ns;
        light.asked_ns = now_ns;
        if all && light.sent {
            light.transmit.clear();
            light.sent = false;
        }
        if payload_bytes == 0 {
            return Taken::Quiet;
        }
        if again {
            light.acknowledge_ns = now_ns;
            return Taken::Again;
        }
        let start = segment.packet.end.saturating_sub(payload_bytes);
        light
            .received
            .extend_from_slice(frame.get(start..segment.packet.end).unwrap_or(&[]));
        light.receive_next = light.receive_next.wrapping_add(payload_bytes as u32);
        light.acknowledge_ns = if light.received.len() > ACKNOWLEDGE_BYTES {
            now_ns
        } else {
            light.acknowledge_ns.min(now_ns + delay_ns)
        };
        Taken::Readable
    }

    /// When a connection without a socket wants to be looked at.
    #[inline]
    pub fn light_deadline_ns(&self, keep_alive_ns: u64, lone_bytes: u32) -> u64 {
        let Some(light) = &self.light else {
            return u64::MAX;
        };
        let probe_ns = self.recovery.probe_ns(self.sent.sequence, lone_bytes);
        light
            .acknowledge_ns
            .min(probe_ns)
            .min(light.asked_ns.saturating_add(keep_alive_ns))
    }

    /// Whether this segment, before the socket has it, leaves the socket nothing: it acknowledges all that the owner has sent, brings a short request in order
    /// of which nothing was received yet, and nothing has needed the socket for a while. So a connection that is never quiet gives its socket back too.
    #[inline]
    pub fn is_done_with_socket(&self, segment: &Segment, now_ns: u64) -> bool {
        let in_flight = self.sent.sequence.wrapping_sub(self.recovery.unacknowledged());
        now_ns.saturating_sub(self.needed_ns) >= QUIET_NS
            && segment.flags & !flag::PSH == flag::ACK
            && (1..=ACKNOWLEDGE_BYTES).contains(&segment.payload_bytes)
            && segment.window != 0
            && segment.acknowledgement == self.sent.sequence
            && segment.sequence == self.sent.acknowledgement
            && segment.sequence == self.recovery.remote_next()
            && self.options.is_some()
            && self.linger_ns.is_none()
            && !(self.orphan || self.wants_room || self.told_finished || self.connecting)
            && !self.recovery.is_going_back()
            && self.socket_ref().state() == tcp::State::Established
            && self.socket_ref().recv_queue() == 0
            && self.socket_ref().send_queue() == in_flight as usize
    }

    /// Moves received bytes into `buffer`; `None` when there is a socket, which has them.
    #[inline]
    pub fn receive_lightly(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let light = self.light.as_mut()?;
        let count = light.received.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), light.received.get(..count)) {
            to.copy_from_slice(from);
        }
        if count == light.received.len() {
            light.received.clear();
        } else {
            light.received.drain(..count);
        }
        Some(count)
    }

    /// Moves all received bytes to the start of `buffer`; `None` when they don't fit, or there is a socket, which has them.
    #[inline]
    pub fn receive_all_lightly(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let received = &mut self.light.as_mut()?.received;
        let count = received.len();
        buffer.get_mut(..count)?.copy_from_slice(received);
        received.clear();
        (count > 0).then_some(count)
    }

    /// Bytes that one segment takes.
    #[inline]
    pub fn segment_bytes(&self, mtu: u16) -> usize {
        let header_bytes = if self.is_ipv4() { 40 } else { 60 };
        let limit = usize::from(mtu).saturating_sub(header_bytes);
        match &self.options {
            Some(options) => limit.min(options.segment_bytes.into()),
            None => limit,
        }
    }

    /// Takes bytes to send that fit into one segment; false when they need a socket.
    #[inline]
    pub fn send_lightly(&mut self, data: &[u8], mtu: u16) -> bool {
        let (window, limit) = (self.recovery.window(), self.segment_bytes(mtu));
        let (Some(light), Some(options)) = (&mut self.light, &self.options) else {
            return false;
        };
        let window = usize::from(window) << options.window_scale.unwrap_or(0);
        if !light.transmit.is_empty() || data.len() > limit.min(window).min(ANSWER_LIMIT_BYTES) {
            return false;
        }
        light.transmit.extend_from_slice(data);
        true
    }

    /// How long a connection without a socket has not heard its peer, if it is time to ask it.
    pub fn silence_ns(&self, keep_alive_ns: u64, now_ns: u64) -> Option<u64> {
        let light = self.light.as_ref()?;
        (light.asked_ns.saturating_add(keep_alive_ns) <= now_ns)
            .then(|| now_ns.saturating_sub(light.heard_ns))
    }

    /// Writes the answer that a connection without a socket has to send into `packet`, in the most usual case: over IPv4, to a peer that isn't to be asked
    /// whether it lives, with checksums that are left to the device. False, and nothing was done, in any other: [`emit_lightly`](Self::emit_lightly) does them all.
    #[inline(always)]
    pub fn emit_answer(
        &mut self,
        packet: &mut Packet,
        receive_bytes: usize,
        keep_alive_ns: u64,
        now_ns: u64,
    ) -> bool {
        let Some(light) = &mut self.light else {
            return false;
        };
        let payload = light.transmit.as_slice();
        let Some(headers) = light.headers.as_ref() else {
            return false;
        };
        if light.sent || payload.is_empty() || light.asked_ns.saturating_add(keep_alive_ns) <= now_ns {
            return false;
        }
        packet.reset();
        let frame = packet.resize(ETHERNET_BYTES + 40 + payload.len());
        let Some((header, to)) = frame.split_first_chunk_mut() else {
            return false;
        };
        if to.len() != payload.len() {
            return false;
        }
        let segment = SentSegment {
            flags: flag::ACK | flag::PSH,
            sequence: self.sent.sequence,
            acknowledgement: light.receive_next,
            window: light.window(self.options.as_ref(), receive_bytes),
            payload_bytes: payload.len() as u32,
        };
        to.copy_from_slice(payload);
        headers.write(header, &self.link, &segment);
        packet.request = ChecksumRequest::Tcp;
        packet.verdict = Verdict::Transmit;
        light.sent = true;
        light.acknowledge_ns = u64::MAX;
        self.note_answer(&segment, now_ns);
        true
    }

    /// Writes what a connection without a socket has to send into `packet`; false when there is nothing. With `ask`, the peer is
    /// asked whether it lives (RFC 9293, 3.8.4).
    #[inline]
    pub fn emit_lightly(
        &mut self,
        packet: &mut Packet,
        receive_bytes: usize,
        offload: bool,
        ask: bool,
        now_ns: u64,
    ) -> bool {
        let is_ipv4 = self.is_ipv4();
        let key = self.key;
        let Some(light) = &mut self.light else {
            return false;
        };
        let payload: &[u8] = if light.sent || ask { &[] } else { &light.transmit };
        if payload.is_empty() && light.acknowledge_ns > now_ns && !ask {
            return false;
        }
        let ip_bytes = if is_ipv4 { 20 } else { 40 };
        let start = ETHERNET_BYTES + ip_bytes;
        packet.reset();
        let frame = packet.resize(start + 20 + payload.len());
        let window = light.window(self.options.as_ref(), receive_bytes);
        let segment = SentSegment {
            flags: if payload.is_empty() {
                flag::ACK
            } else {
                flag::ACK | flag::PSH
            },
            sequence: self.sent.sequence.wrapping_sub(u32::from(ask)),
            acknowledgement: light.receive_next,
            window,
            payload_bytes: payload.len() as u32,
        };
        if let Some(to) = frame.get_mut(start + 20..) {
            to.copy_from_slice(payload);
        }
        if offload
            && let Some(headers) = &light.headers
            && let Some(header) = frame.first_chunk_mut()
        {
            headers.write(header, &self.link, &segment);
            packet.request = ChecksumRequest::Tcp;
        } else {
            write_headers(frame, &self.link, &key, &segment);
            packet.request = finish(frame, offload);
            if !offload {
                write_checksum(packet.frame_mut(), start, &key);
            }
        }
        packet.verdict = Verdict::Transmit;
        if ask {
            light.asked_ns = now_ns;
        } else {
            light.sent |= !light.transmit.is_empty();
        }
        light.acknowledge_ns = u64::MAX;
        self.note_sent(&segment, now_ns);
        true
    }

    /// An acknowledgement of all that was received, as it is to be sent now; `None` when there is a socket, which knows.
    pub fn acknowledge_lightly(&self, receive_bytes: usize) -> Option<SentSegment> {
        let light = self.light.as_ref()?;
        Some(SentSegment {
            flags: flag::ACK,
            sequence: self.sent.sequence,
            acknowledgement: light.receive_next,
            window: light.window(self.options.as_ref(), receive_bytes),
            payload_bytes: 0,
        })
    }

    fn is_ipv4(&self) -> bool {
        self.key.remote >> 32 == 0xffff
    }
}

/// The scale that smoltcp announces for a receive buffer (RFC 7323, 2.3).
fn window_scale(receive_bytes: usize) -> u32 {
    (usize::BITS - receive_bytes.leading_zeros()).saturating_sub(16)
}

/// What the peer would send, as an IP packet.
pub(crate) fn peers_packet(
    key: &FlowKey,
    options: Option<&PeerOptions>,
    sequence: u32,
    acknowledgement: Option<u32>,
    window: u16,
    payload: &[u8],
) -> Vec<u8> {
    let (source, destination) = (
        IpAddress::from(narrow(key.remote)),
        IpAddress::from(narrow(key.local)),
    );
    let segment = TcpRepr {
        src_port: key.remote_port,
        dst_port: key.local_port,
        control: if options.is_some() {
            TcpControl::Syn
        } else {
            TcpControl::None
        },
        seq_number: TcpSeqNumber(sequence as i32),
        ack_number: acknowledgement.map(|number| TcpSeqNumber(number as i32)),
        window_len: window,
        window_scale: options.and_then(|options| options.window_scale),
        max_seg_size: options.map(|options| options.segment_bytes),
        sack_permitted: options.is_some_and(|options| options.selective),
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let packet = IpRepr::new(source, destination, IpProtocol::Tcp, segment.buffer_len(), 64);
    let capabilities = ChecksumCapabilities::ignored();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.emit(&mut bytes, &capabilities);
    if let Some(body) = bytes.get_mut(packet.header_len()..) {
        segment.emit(
            &mut TcpPacket::new_unchecked(body),
            &source,
            &destination,
            &capabilities,
        );
    }
    bytes
}

impl Shard {
    /// Makes an established connection one without a socket.
    pub(crate) fn start_lightly(connection: &mut Connection, receive_next: u32, now_ns: u64) {
        connection.light = Some(Light {
            receive_next,
            heard_ns: now_ns,
            asked_ns: now_ns,
            acknowledge_ns: u64::MAX,
            headers: connection.is_ipv4().then(|| Ipv4Headers::new(&connection.key)),
            ..Light::default()
        });
    }

    /// Gives a connection its socket, if it has none. `lost`: what was sent is to be sent again. `closing`: the socket is only to be
    /// closed, and needs little memory.
    ///
    /// When memory is used up the connection is reset.
    pub(crate) fn ensure_socket(&mut self, ticket: Ticket, now_ns: u64, lost: bool, closing: bool) {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return;
        };
        let (Some(light), Some(options)) = (connection.light.take(), connection.options) else {
            return;
        };
        let key = connection.key;
        let (first, window) = (connection.recovery.unacknowledged(), connection.recovery.window());
        let reserved = if closing { None } else { self.reserve_buffers() };
        let closing_bytes = (
            CLOSING_BUFFER_BYTES.max(light.received.len()),
            CLOSING_BUFFER_BYTES.max(light.transmit.len()),
        );
        let (receive_bytes, transmit_bytes) = reserved.unwrap_or(closing_bytes);
        let (mut set, handle) = self.socket(receive_bytes, transmit_bytes);
        let now = instant(now_ns);
        let unread = light.receive_next.wrapping_sub(light.received.len() as u32);
        let established = self.lead_to((&mut set, handle), &key, &options, [first, unread], window, now);
        let mut give = |packet: &[u8]| {
            let mut ignored = [0; 128];
            let mut device = Exchange::new(self.capabilities, Some(packet), &mut ignored);
            self.interface.poll_ingress_single(now, &mut device, &mut set);
        };
        if !light.received.is_empty() {
            give(&peers_packet(
                &key,
                None,
                unread,
                Some(first),
                window,
                &light.received,
            ));
        }
        if !light.transmit.is_empty() {
            // The buffer is empty, and no smaller than this.
            set.get_mut::<tcp::Socket<'_>>(handle)
                .send_slice(&light.transmit)
                .ok();
            if light.sent && !lost {
                for _ in 0..REPLAY_LIMIT {
                    let mut device = Exchange::new(self.capabilities, None, &mut self.reply);
                    self.interface.poll_egress(now, &mut device, &mut set);
                    if device.sent_bytes() == 0 {
                        break;
                    }
                }
            }
        }
        let starved = reserved.is_none() && !closing;
        if starved || !established {
            set.get_mut::<tcp::Socket<'_>>(handle).abort();
            self.statistics.aborted += 1;
        }
        if let Some(connection) = self.connections.get_mut(ticket) {
            connection.put_socket(set, handle);
            connection.quiet_since_ns = now_ns;
            connection.needed_ns = now_ns;
            if reserved.is_some() {
                connection.buffer_bytes = (receive_bytes + transmit_bytes) as u64;
            }
        }
        self.mark_dirty(ticket);
    }

    /// Leads a closed socket through a handshake that ends at these sequence numbers: ours, and the peer's.
    fn lead_to(
        &mut self,
        (set, handle): (&mut SocketSet<'static>, SocketHandle),
        key: &FlowKey,
        options: &PeerOptions,
        [ours, peers]: [u32; 2],
        window: u16,
        now: Instant,
    ) -> bool {
        let endpoint = IpListenEndpoint {
            addr: Some(IpAddress::from(narrow(key.local))),
            port: key.local_port,
        };
        if set.get_mut::<tcp::Socket<'_>>(handle).listen(endpoint).is_err() {
            return false;
        }
        let Some(draws) = self.draws else {
            return false;
        };
        let mut interface = new_interface(self.capabilities, draws.seed_for(ours.wrapping_sub(1)), now);
        let syn = peers_packet(key, Some(options), peers.wrapping_sub(1), None, 0xffff, &[]);
        let acknowledgement = peers_packet(key, None, peers, Some(ours), window, &[]);
        let mut ignored = [0; 128];
        let mut device = Exchange::new(self.capabilities, Some(&syn), &mut ignored);
        interface.poll_ingress_single(now, &mut device, set);
        let mut device = Exchange::new(self.capabilities, None, &mut ignored);
        interface.poll_egress(now, &mut device, set);
        let mut device = Exchange::new(self.capabilities, Some(&acknowledgement), &mut ignored);
        interface.poll_ingress_single(now, &mut device, set);
        set.get::<tcp::Socket<'_>>(handle).state() == tcp::State::Established
    }

    /// Takes a connection's socket away when it has been quiet for a while and holds nothing.
    pub(crate) fn lighten(&mut self, ticket: Ticket, now_ns: u64) -> bool {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return false;
        };
        if connection.light.is_some()
            || connection.options.is_none()
            || connection.linger_ns.is_some()
            || connection.orphan
            || connection.wants_room
            || now_ns.saturating_sub(connection.quiet_since_ns) < QUIET_NS
        {
            return false;
        }
        let socket = connection.socket_ref();
        let receive_next = connection.sent.acknowledgement;
        if socket.state() != tcp::State::Established
            || socket.send_queue() > 0
            || socket.recv_queue() > 0
            || connection.recovery.unacknowledged() != connection.sent.sequence
            || connection.recovery.remote_next() != receive_next
        {
            return false;
        }
        self.take_socket(ticket, receive_next, now_ns);
        true
    }

    /// Takes a connection's socket away, of whose peer `receive_next` is the next sequence number.
    pub(crate) fn take_socket(&mut self, ticket: Ticket, receive_next: u32, now_ns: u64) {
        if let Some(connection) = self.connections.get_mut(ticket) {
            let bytes = core::mem::take(&mut connection.buffer_bytes);
            connection.drop_socket();
            Shard::start_lightly(connection, receive_next, now_ns);
            self.release_buffers(bytes);
        }
    }
}
