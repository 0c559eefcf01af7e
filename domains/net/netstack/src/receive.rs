//! What a shard does with a received frame.
//!
//! The answer, if there is one at once, is left in `reply`; everything else that is to be sent is found by `flush.rs` when the
//! connection is marked dirty.

use crate::connection::{Connection, News, listening_set};
use crate::demultiplex::{Claim, Datagram, ETHERNET_BYTES, FlowKey, Refusal, Segment, flag, narrow};
use crate::device::Exchange;
use crate::echo;
use crate::events::Entry;
use crate::half_open::HalfOpen;
use crate::light::{PeerOptions, Taken};
use crate::neighbours::{self, Heard};
use crate::shard::{Shard, instant, new_interface};
use crate::table::{Place, Ticket};
use crate::time_wait::Answer;
use crate::transmit::{LinkHeader, SentSegment, acknowledgement, answering_header, finish};
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::Ordering;
use rref::packet::{ChecksumRequest, ChecksumState};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpListenEndpoint};

impl Shard {
    /// Handles one frame.
    #[inline]
    pub(crate) fn receive(&mut self, frame: &[u8], state: ChecksumState, now_ns: u64, now: Instant) {
        match self.receiver.claim(frame, state) {
            Ok(Claim::Tcp(segment)) => self.receive_segment(frame, &segment, now_ns, now),
            Ok(Claim::Udp(datagram)) => self.receive_datagram(frame, &datagram, now),
            Ok(Claim::Arp(packet)) => self.receive_neighbour(frame, packet, now_ns, now, false),
            Ok(Claim::Ndp(packet)) => self.receive_neighbour(frame, packet, now_ns, now, true),
            Ok(Claim::Echo(packet, message)) => {
                let answer = echo::answer(frame, packet, message, self.common.mac, &mut self.reply);
                self.reply_bytes = answer.unwrap_or(0);
            }
            Ok(Claim::Dhcp) => self.receive_dhcp(frame, now),
            Err(Refusal::Checksum) => self.statistics.bad_checksum += 1,
            Err(Refusal::Unclaimed) => self.statistics.unclaimed += 1,
        }
    }

    fn receive_neighbour(
        &mut self,
        frame: &[u8],
        packet: Range<usize>,
        now_ns: u64,
        now: Instant,
        discovery: bool,
    ) {
        let bytes = frame.get(packet).unwrap_or(&[]);
        let (addresses, mac, out) = (&self.addresses, self.common.mac, &mut self.reply);
        let mut neighbours = self.common.neighbours.lock();
        let Heard { answer_bytes, learnt } = if discovery {
            neighbours::receive_ndp(bytes, addresses, mac, &mut neighbours, now_ns, out)
        } else {
            neighbours::receive_arp(bytes, addresses, mac, &mut neighbours, now_ns, out)
        };
        if neighbours.has_questions() {
            self.common.questions.store(true, Ordering::Relaxed);
        }
        drop(neighbours);
        self.reply_bytes = answer_bytes;
        if learnt {
            self.common.neighbours_version.fetch_add(1, Ordering::AcqRel);
            self.refresh();
        }
        // A DHCP client that renews its lease asks for the server's Ethernet address itself.
        const ARP_REPLY: [u8; 2] = [0, 2];
        if !discovery
            && bytes.get(6..8) == Some(&ARP_REPLY)
            && self.common.config.network.dhcp
            && self.number == 0
        {
            self.receive_dhcp(frame, now);
        }
    }

    fn receive_datagram(&mut self, frame: &[u8], datagram: &Datagram, now: Instant) {
        match self.udp.find(datagram.key.local_port) {
            Some(ticket) => {
                let Some(socket) = self.udp.get_mut(ticket) else {
                    return;
                };
                let data = frame.get(datagram.payload.clone()).unwrap_or(&[]);
                if socket.put(datagram.key.remote(), data) && !socket.queued {
                    socket.queued = true;
                    self.owners.push(socket.owner, Entry::Datagram(ticket));
                }
            }
            None => self.refuse(frame, datagram.packet.clone(), now),
        }
    }

    /// Answers a packet that no socket wants: a reset, or "port unreachable".
    fn refuse(&mut self, frame: &[u8], packet: Range<usize>, now: Instant) {
        self.statistics.unclaimed += 1;
        let Some((link, out)) = self.reply.split_at_mut_checked(ETHERNET_BYTES) else {
            return;
        };
        let mut device = Exchange::new(self.capabilities, frame.get(packet), out);
        self.interface
            .poll_ingress_single(now, &mut device, &mut self.nobody);
        let sent = device.sent_bytes();
        if sent > 0 {
            link.copy_from_slice(&answering_header(frame, self.common.mac));
            self.reply_bytes = ETHERNET_BYTES + sent;
        }
    }

    #[inline]
    fn receive_segment(&mut self, frame: &[u8], segment: &Segment, now_ns: u64, now: Instant) {
        match self.flows.find(&segment.key) {
            Some(Place::Connection(ticket)) => self.receive_on(ticket, frame, segment, now_ns, now),
            Some(Place::HalfOpen(ticket)) => self.receive_half_open(ticket, frame, segment, now_ns, now),
            Some(Place::TimeWait(ticket)) => self.receive_time_wait(ticket, frame, segment, now_ns, now),
            None if segment.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN => {
                self.receive_syn(frame, segment, now_ns, now);
            }
            None => match self.common.find_outbound(&segment.key) {
                Some(shard) if shard != self.number => self.common.hand_over(shard, frame),
                _ => self.refuse(frame, segment.packet.clone(), now),
            },
        }
    }

    /// Gives a segment to its connection's socket.
    #[inline]
    fn receive_on(&mut self, ticket: Ticket, frame: &[u8], segment: &Segment, now_ns: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return;
        };
        let Some((link, out)) = self.reply.split_at_mut_checked(ETHERNET_BYTES) else {
            return;
        };
        connection.heard_from(frame, self.common.mac);
        if connection.is_challenged_by(segment) {
            return self.challenge(ticket, now_ns, now);
        }
        if connection.light.is_some() {
            match connection.take_lightly(frame, segment, self.acknowledgement_delay_ns, now_ns) {
                Taken::No => {
                    let closing = segment.flags & (flag::FIN | flag::RST) != 0;
                    self.ensure_socket(ticket, now_ns, false, closing);
                    return self.receive_on(ticket, frame, segment, now_ns, now);
                }
                Taken::Quiet => return,
                Taken::Again => return self.mark_dirty(ticket),
                Taken::Readable => {
                    connection.news.readable = true;
                    let deadline_ns = connection.light_deadline_ns(u64::MAX, self.capabilities.mtu.into());
                    if deadline_ns <= now_ns {
                        if !connection.dirty {
                            connection.dirty = true;
                            self.dirty.push_back(ticket);
                        }
                    } else {
                        self.timers
                            .schedule(ticket, &mut connection.scheduled_ns, deadline_ns);
                    }
                    if !connection.queued && !connection.orphan {
                        connection.queued = true;
                        self.owners.push(connection.owner, Entry::Connection(ticket));
                    }
                    return;
                }
            }
        }
        if connection.is_done_with_socket(segment, now_ns) {
            self.take_socket(ticket, segment.sequence, now_ns);
            return self.receive_on(ticket, frame, segment, now_ns, now);
        }
        connection.quiet_since_ns = now_ns;
        let mut device = Exchange::new(self.capabilities, frame.get(segment.packet.clone()), out);
        self.interface
            .poll_ingress_single(now, &mut device, connection.set());
        let sent = device.sent_bytes();
        if sent > 0 {
            if let Some(answer) = out.get(..sent).and_then(SentSegment::read) {
                connection.note_sent(&answer, now_ns);
            }
            link.copy_from_slice(&connection.link);
            self.reply_bytes = ETHERNET_BYTES + sent;
        }
        let end = connection.sent.sequence;
        let lost = connection.recovery.on_segment(segment, end, now_ns);
        if lost {
            connection.needed_ns = now_ns;
        }
        let news = if connection.linger_ns.is_none() {
            connection.after_receiving(segment.payload_bytes)
        } else if connection.is_sent_to_nobody() {
            self.statistics.aborted += 1;
            self.reply_bytes = 0;
            return self.reset(ticket, now_ns);
        } else {
            News::default()
        };
        if segment.flags & flag::RST != 0 && connection.socket_ref().state() == tcp::State::Closed {
            self.statistics.aborted += 1;
        }
        let quiet = !lost
            && self.acknowledgement_delay_ns > 0
            && connection.owes_at_most_delayed_acknowledgement(segment);
        if quiet && segment.payload_bytes > 0 {
            self.timers.schedule(
                ticket,
                &mut connection.scheduled_ns,
                now_ns + self.acknowledgement_delay_ns,
            );
        }
        if news.readable || news.writable {
            self.tell(ticket, news.readable, news.writable);
        }
        if lost {
            self.resend(ticket, false, now);
        }
        if !quiet {
            self.mark_dirty(ticket);
        }
    }

    /// Has a connection's socket take its first unacknowledged segment for lost; see `recovery.rs`.
    pub(crate) fn resend(&mut self, ticket: Ticket, probe: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return;
        };
        if probe {
            connection.doubt_station();
        }
        let duplicate = connection.recovery.resend(connection.sent.sequence, probe);
        let key = connection.key;
        let from_peer = FlowKey {
            local: key.remote,
            remote: key.local,
            local_port: key.remote_port,
            remote_port: key.local_port,
        };
        let mut packet = [0; 80];
        let length = acknowledgement(
            &from_peer,
            duplicate.sequence,
            duplicate.acknowledgement,
            duplicate.window,
            &mut packet,
        );
        // The first has another window and starts the count, the others are duplicates of it.
        for _ in 0..4 {
            let mut ignored = [0; 80];
            let mut device = Exchange::new(self.capabilities, packet.get(..length), &mut ignored);
            self.interface
                .poll_ingress_single(now, &mut device, connection.set());
        }
    }

    fn receive_syn(&mut self, frame: &[u8], segment: &Segment, now_ns: u64, now: Instant) {
        let key = segment.key;
        let Some(listener) = self.listeners.find(&key) else {
            return self.refuse(frame, segment.packet.clone(), now);
        };
        let limit = self.common.config.tcp.connections as usize;
        if key.remote_port == 0
            || self.connections.len() + self.half_opens.len() >= limit
            || !self.listeners.reserve(listener)
        {
            self.statistics.dropped_syn += 1;
            return;
        }
        let link = answering_header(frame, self.common.mac);
        let seed = self.seed_for(self.secret.initial_sequence(&key, now_ns));
        let packet = frame.get(segment.packet.clone()).unwrap_or(&[]);
        match HalfOpen::new(key, listener, link, seed, segment.sequence, packet, now_ns) {
            Some(half_open) => {
                let ticket = self.half_opens.insert(&mut self.flows, half_open);
                self.answer_syn(ticket, now);
            }
            None => {
                self.listeners.release(listener);
                self.statistics.dropped_syn += 1;
            }
        }
    }

    /// Writes the SYN|ACK of a half-open connection to `reply`.
    pub(crate) fn answer_syn(&mut self, ticket: Ticket, now: Instant) {
        let Some(half_open) = self.half_opens.get(ticket) else {
            return;
        };
        let (set, handle) = &mut self.opener;
        set.get_mut::<tcp::Socket<'_>>(*handle).abort();
        let sent = replay_syn(self.capabilities, half_open, set, *handle, &mut self.reply, now);
        if sent > 0
            && let Some(link) = self.reply.get_mut(..ETHERNET_BYTES)
        {
            link.copy_from_slice(&half_open.link);
            self.reply_bytes = ETHERNET_BYTES + sent;
            let answer = self.reply.get(ETHERNET_BYTES..self.reply_bytes);
            if let Some(answer) = answer.and_then(SentSegment::read) {
                self.half_opens.set_sequence(ticket, answer.sequence);
            }
        }
    }

    /// The seed of an interface whose first connection starts at `sequence`, or at some number that follows from it.
    pub(crate) fn seed_for(&self, sequence: u32) -> u64 {
        self.draws
            .map_or(u64::from(sequence), |draws| draws.seed_for(sequence))
    }

    fn receive_half_open(
        &mut self,
        ticket: Ticket,
        frame: &[u8],
        segment: &Segment,
        now_ns: u64,
        now: Instant,
    ) {
        let Some(half_open) = self.half_opens.get(ticket) else {
            return;
        };
        let expected = half_open.remote_sequence.wrapping_add(1);
        let listener = half_open.listener;
        if segment.flags & flag::RST != 0 {
            // RFC 5961, 3.2: only a reset with exactly the expected number counts.
            if segment.sequence == expected {
                self.half_opens.take(ticket);
                self.flows.remove(&segment.key);
                self.listeners.release(listener);
            }
        } else if segment.flags & flag::SYN != 0 {
            if segment.sequence == half_open.remote_sequence {
                self.half_opens
                    .set_link(ticket, answering_header(frame, self.common.mac));
                self.answer_syn(ticket, now);
                self.statistics.retransmitted += 1;
            } else if segment.flags & flag::ACK == 0 {
                // The peer has forgotten its first attempt.
                self.half_opens.take(ticket);
                self.flows.remove(&segment.key);
                self.listeners.release(listener);
                self.receive_syn(frame, segment, now_ns, now);
            }
        } else if segment.flags & flag::ACK != 0
            && segment.acknowledgement == half_open.sequence.wrapping_add(1)
        {
            if let Some(connection) = self.open(ticket, now_ns) {
                self.receive_on(connection, frame, segment, now_ns, now);
            }
        } else {
            self.refuse(frame, segment.packet.clone(), now);
        }
    }

    fn receive_time_wait(
        &mut self,
        ticket: Ticket,
        frame: &[u8],
        segment: &Segment,
        now_ns: u64,
        now: Instant,
    ) {
        let Some((link, out)) = self.reply.split_at_mut_checked(ETHERNET_BYTES) else {
            return;
        };
        match self
            .time_waits
            .receive(&mut self.flows, ticket, segment, now_ns, out)
        {
            Answer::None => {}
            Answer::Acknowledge(length, header) if length > 0 => {
                link.copy_from_slice(&header);
                self.reply_bytes = ETHERNET_BYTES + length;
            }
            Answer::Acknowledge(..) => {}
            Answer::Open => self.receive_syn(frame, segment, now_ns, now),
        }
    }

    /// Makes a connection of a half-open one; `None` when its listener is gone.
    fn open(&mut self, ticket: Ticket, now_ns: u64) -> Option<Ticket> {
        let half_open = self.half_opens.take(ticket)?;
        let listener = self.listeners.get(half_open.listener);
        let (Some(owner), Some(options)) = (
            listener.map(|listener| listener.owner),
            PeerOptions::read(half_open.syn()),
        ) else {
            self.flows.remove(&half_open.key);
            self.listeners.release(half_open.listener);
            return None;
        };
        let mut connection = Connection::without_socket(half_open.key, owner, half_open.link);
        let syn = SentSegment {
            flags: flag::SYN | flag::ACK,
            sequence: half_open.sequence,
            acknowledgement: half_open.remote_sequence.wrapping_add(1),
            window: 0,
            payload_bytes: 0,
        };
        connection.note_sent(&syn, now_ns);
        connection.options = Some(options);
        connection
            .recovery
            .start(half_open.sequence.wrapping_add(1), syn.acknowledgement, now_ns);
        Shard::start_lightly(&mut connection, syn.acknowledgement, now_ns);
        if self.draws.is_none() {
            let now = instant(now_ns);
            let (receive_bytes, transmit_bytes) = self.reserve_buffers().unwrap_or_default();
            let (mut set, handle) = self.socket(receive_bytes, transmit_bytes);
            replay_syn(
                self.capabilities,
                &half_open,
                &mut set,
                handle,
                &mut self.reply,
                now,
            );
            connection.put_socket(set, handle);
            connection.options = None;
            connection.buffer_bytes = (receive_bytes + transmit_bytes) as u64;
        }
        connection.waiting_at = Some(half_open.listener);
        let ticket = self.connections.insert(Box::new(connection));
        self.flows.put(half_open.key, Place::Connection(ticket));
        // Its first look at the clock is for the keep-alive.
        self.mark_dirty(ticket);
        self.statistics.accepted += 1;
        let accepted = Entry::Accepted {
            listener: half_open.listener,
            connection: ticket,
        };
        self.owners.push(owner, accepted);
        Some(ticket)
    }

    /// A socket with the configured options.
    pub(crate) fn socket(
        &self,
        receive_bytes: usize,
        transmit_bytes: usize,
    ) -> (SocketSet<'static>, SocketHandle) {
        let config = &self.common.config.tcp;
        let (mut set, handle) = listening_set(receive_bytes, transmit_bytes);
        let socket = set.get_mut::<tcp::Socket<'_>>(handle);
        // RFC 5681; smoltcp's Cubic needs floating-point functions that there are none of without an operating system.
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        socket.set_nagle_enabled(config.nagle);
        let delay_ms = u64::from(config.acknowledgement_delay_ms);
        socket.set_ack_delay((delay_ms > 0).then(|| Duration::from_millis(delay_ms)));
        if config.keep_alive_s > 0 {
            socket.set_keep_alive(Some(Duration::from_secs(config.keep_alive_s.into())));
            socket.set_timeout(Some(Duration::from_secs(config.timeout_s.into())));
        }
        (set, handle)
    }

    /// Takes buffers of a connection from the account: receive and transmit bytes; `None` when it is used up.
    ///
    /// The transmit buffer gets smaller as memory gets short; the receive buffer can't, since the SYN|ACK has promised it.
    pub(crate) fn reserve_buffers(&self) -> Option<(usize, usize)> {
        let config = &self.common.config.tcp;
        let used = self.common.buffer_bytes.load(Ordering::Relaxed);
        let free = config.memory_bytes.saturating_sub(used);
        let share = match free {
            free if free > config.memory_bytes / 2 => 1,
            free if free > config.memory_bytes / 4 => 2,
            _ => 4,
        };
        let transmit_bytes = (config.transmit_buffer_bytes / share) as usize;
        let receive_bytes = config.receive_buffer_bytes as usize;
        let bytes = (receive_bytes + transmit_bytes) as u64;
        if bytes > free {
            return None;
        }
        self.common.buffer_bytes.fetch_add(bytes, Ordering::Relaxed);
        Some((receive_bytes, transmit_bytes))
    }

    /// Gives buffers back to the account.
    pub(crate) fn release_buffers(&self, bytes: u64) {
        self.common.buffer_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Completes the answer in `reply`: the request for its checksums.
    pub(crate) fn finish_reply(&mut self) -> ChecksumRequest {
        let frame = self.reply.get_mut(..self.reply_bytes).unwrap_or(&mut []);
        // Only smoltcp's TCP is left incomplete; everything else is built with its checksums.
        let is_tcp = match frame.get(12..14) {
            Some([0x08, 0x00]) => frame.get(ETHERNET_BYTES + 9) == Some(&6),
            Some([0x86, 0xdd]) => frame.get(ETHERNET_BYTES + 6) == Some(&6),
            _ => return ChecksumRequest::None,
        };
        finish(frame, is_tcp && self.capabilities.transmit_checksum)
    }
}

/// Shows `set`'s closed socket the SYN of a half-open connection and takes its SYN|ACK, which is the same each time; the length
/// of that packet, which is in `out` behind the room for an Ethernet header.
fn replay_syn(
    capabilities: crate::device::Capabilities,
    half_open: &HalfOpen,
    set: &mut SocketSet<'static>,
    handle: SocketHandle,
    out: &mut [u8],
    now: Instant,
) -> usize {
    let Some((_, out)) = out.split_at_mut_checked(ETHERNET_BYTES) else {
        return 0;
    };
    let FlowKey {
        local, local_port, ..
    } = half_open.key;
    let endpoint = IpListenEndpoint {
        addr: Some(IpAddress::from(narrow(local))),
        port: local_port,
    };
    if set.get_mut::<tcp::Socket<'_>>(handle).listen(endpoint).is_err() {
        return 0;
    }
    let mut interface = new_interface(capabilities, half_open.seed, now);
    let mut device = Exchange::new(capabilities, Some(half_open.syn()), &mut *out);
    interface.poll_ingress_single(now, &mut device, set);
    let mut device = Exchange::new(capabilities, None, out);
    interface.poll_egress(now, &mut device, set);
    device.sent_bytes()
}

/// The header of frames to a station.
pub(crate) fn link_to(station: [u8; 6], own: [u8; 6], key: &FlowKey) -> LinkHeader {
    crate::transmit::link_header(station, own, key.remote >> 32 == 0xffff)
}
