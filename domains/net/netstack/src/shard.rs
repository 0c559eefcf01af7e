//! One shard: everything of one receive queue, behind one lock.
//!
//! This file has its state, the round that the runner makes with each batch, and what is due by time. Received frames are
//! handled in `receive.rs`, sending in `flush.rs`, the applications' calls in `sockets.rs`.

use crate::addresses::Addresses;
use crate::connection::{Connection, listening_set};
use crate::demultiplex::{Receiver, widen};
use crate::device::{Capabilities, Exchange};
use crate::dhcp;
use crate::events::{Entry, Owners};
use crate::half_open::{Due, HalfOpens};
use crate::listener::Listeners;
use crate::neighbours;
use crate::secret::{Draws, Secret};
use crate::stack::Common;
use crate::table::{FlowTable, Slab, Ticket};
use crate::time_wait::TimeWaits;
use crate::timer::Timers;
use crate::transmit::SentSegment;
use crate::udp::UdpSockets;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;
use domain_rt::clock;
use domain_rt::thread::ThreadId;
use interface::socket::SocketStatistics;
use rref::packet::{ChecksumRequest, Verdict};
use rref::{OwnerId, Packet, PacketBatch};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpEndpoint, IpListenEndpoint};

/// Time between looks at which domains are dead.
const SWEEP_NS: u64 = 1_000_000_000;
/// How long a datagram waits for its neighbour's Ethernet address.
const NEIGHBOUR_WAIT_NS: u64 = 3_000_000_000;
/// Frames that wait to be sent beside the connections' at most.
const OUTGOING_LIMIT: usize = 512;
/// Entries of TIME-WAIT that one round looks at.
const EXPIRE_LIMIT: usize = 64;

/// A frame that is ready but for its Ethernet header.
pub struct Outgoing {
    /// Whom it goes to, if its header doesn't say yet.
    pub next_hop: Option<IpAddr>,
    /// When it is given up.
    pub expires_ns: u64,
    /// The frame.
    pub frame: Vec<u8>,
    /// Checksums that are left to the device.
    pub request: ChecksumRequest,
}

/// One shard of the stack.
pub struct Shard {
    pub(crate) number: u16,
    pub(crate) common: Arc<Common>,
    pub(crate) capabilities: Capabilities,
    pub(crate) acknowledgement_delay_ns: u64,
    pub(crate) interface: Interface,
    pub(crate) receiver: Receiver,
    pub(crate) addresses: Addresses,
    addresses_seen: u64,
    neighbours_seen: u64,
    pub(crate) connections: Slab<Box<Connection>>,
    pub(crate) flows: FlowTable,
    pub(crate) half_opens: HalfOpens,
    pub(crate) time_waits: TimeWaits,
    pub(crate) listeners: Listeners,
    pub(crate) owners: Owners,
    pub(crate) udp: UdpSockets,
    pub(crate) timers: Timers,
    /// Connections that may have something to send.
    pub(crate) dirty: VecDeque<Ticket>,
    /// Connections whose neighbour isn't known yet.
    pub(crate) unresolved: Vec<Ticket>,
    pub(crate) outgoing: VecDeque<Outgoing>,
    /// Frames whose neighbour isn't known yet.
    pub(crate) waiting: VecDeque<Outgoing>,
    /// A socket that answers SYNs, one after the other.
    pub(crate) opener: (SocketSet<'static>, SocketHandle),
    /// No socket: for segments that are to be refused.
    pub(crate) nobody: SocketSet<'static>,
    /// The answer to the frame at hand, Ethernet header and all.
    pub(crate) reply: Box<[u8]>,
    pub(crate) reply_bytes: usize,
    /// A frame that came in several packets.
    assembly: Vec<u8>,
    pub(crate) secret: Secret,
    /// How to choose sequence numbers; without, they are what they are, and half-open connections have sockets.
    pub(crate) draws: Option<Draws>,
    pub(crate) statistics: SocketStatistics,
    pub(crate) runner: Option<ThreadId>,
    /// The runner has nothing to do and may sleep.
    pub(crate) runner_idle: bool,
    sweep_ns: u64,
    dhcp: Option<dhcp::Client>,
}

/// An interface for bare IP packets whose random numbers come from `seed`.
///
/// It accepts every address: `receive.rs` has looked at them before.
pub fn new_interface(capabilities: Capabilities, seed: u64, now: Instant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut device = Exchange::new(capabilities, None, &mut []);
    let mut interface = Interface::new(config, &mut device, now);
    interface.set_any_ip(true);
    interface
}

/// The initial sequence number of a connection that starts in a new interface of this seed.
pub fn opened_with(seed: u64) -> Option<u32> {
    let capabilities = Capabilities::plain(1500);
    let mut interface = new_interface(capabilities, seed, Instant::ZERO);
    let (mut set, handle) = listening_set(64, 64);
    let remote = IpEndpoint::new(IpAddress::v4(10, 0, 0, 1), 80);
    let local = IpListenEndpoint::from(IpEndpoint::new(IpAddress::v4(10, 0, 0, 2), 4000));
    set.get_mut::<tcp::Socket<'_>>(handle)
        .connect(interface.context(), remote, local)
        .ok()?;
    let mut out = [0; 128];
    let mut device = Exchange::new(capabilities, None, &mut out);
    interface.poll_egress(Instant::ZERO, &mut device, &mut set);
    SentSegment::read(&out).map(|segment| segment.sequence)
}

/// smoltcp's time.
pub fn instant(now_ns: u64) -> Instant {
    Instant::from_micros((now_ns / 1000) as i64)
}

impl Shard {
    /// An empty shard.
    pub fn new(number: u16, common: Arc<Common>) -> Shard {
        let now_ns = clock::now_ns();
        let now = instant(now_ns);
        let capabilities = common.capabilities;
        let mut secret = Secret::new(now_ns, clock::unix_time_s(), number);
        let tcp = &common.config.tcp;
        let dhcp = (number == 0 && common.config.network.dhcp)
            .then(|| dhcp::Client::new(common.mac, secret.draw(), now));
        Shard {
            number,
            capabilities,
            acknowledgement_delay_ns: u64::from(tcp.acknowledgement_delay_ms) * 1_000_000,
            interface: new_interface(capabilities, secret.draw(), now),
            receiver: Receiver::default(),
            addresses: Addresses::default(),
            addresses_seen: 0,
            neighbours_seen: 0,
            connections: Slab::new(),
            flows: FlowTable::new([secret.draw(), secret.draw()]),
            half_opens: HalfOpens::default(),
            time_waits: TimeWaits::default(),
            listeners: Listeners::default(),
            owners: Owners::default(),
            udp: UdpSockets::default(),
            timers: Timers::default(),
            dirty: VecDeque::new(),
            unresolved: Vec::new(),
            outgoing: VecDeque::new(),
            waiting: VecDeque::new(),
            // What a SYN|ACK says depends on the receive buffer alone.
            opener: listening_set(tcp.receive_buffer_bytes as usize, 0),
            nobody: SocketSet::new(vec![]),
            reply: vec![0; usize::from(capabilities.mtu) + 64].into_boxed_slice(),
            reply_bytes: 0,
            assembly: Vec::new(),
            secret,
            draws: Draws::find(opened_with),
            statistics: SocketStatistics::default(),
            runner: None,
            runner_idle: false,
            sweep_ns: 0,
            dhcp,
            common,
        }
    }

    /// Handles a batch and fills it with what is to be sent; whether there is more, and when to call again.
    pub fn process(&mut self, packets: &mut PacketBatch, now_ns: u64) -> (bool, u64) {
        let now = instant(now_ns);
        self.runner_idle = false;
        self.refresh();
        let count = packets.len();
        let mut out = 0;
        // All of them are empty where only what is to be sent is asked for.
        let received = |packet: &Packet| packet.verdict == Verdict::Received;
        let mut index = packets.iter().position(received).unwrap_or(count);
        while index < count {
            let first = index;
            index += 1;
            let Some(packet) = packets.get(first) else { break };
            if packet.verdict != Verdict::Received {
                continue;
            }
            self.secret.stir(now_ns);
            self.reply_bytes = 0;
            self.statistics.received_packets += 1;
            let (state, vlan) = (packet.checksum, packet.vlan());
            if vlan.map(|tag| tag & 0x0fff) != self.common.config.network.vlan {
                self.statistics.unclaimed += 1;
                continue;
            }
            if packet.continues {
                let mut frame = core::mem::take(&mut self.assembly);
                frame.clear();
                frame.extend_from_slice(packet.frame());
                let mut continues = true;
                while continues && let Some(packet) = packets.get(index) {
                    frame.extend_from_slice(packet.frame());
                    continues = packet.continues;
                    index += 1;
                }
                self.receive(&frame, state, now_ns, now);
                self.assembly = frame;
            } else {
                self.receive(packet.frame(), state, now_ns, now);
            }
            if self.reply_bytes > 0 {
                self.put_reply(packets, &mut out, index);
            }
        }
        self.receive_inbox(now_ns, now);
        self.housekeep(now_ns, now);
        self.send_outgoing(packets, &mut out, now_ns);
        self.flush(packets, &mut out, now_ns, now);
        for packet in packets.iter_mut().skip(out) {
            if packet.verdict != Verdict::Empty {
                packet.reset();
            }
        }
        self.statistics.sent_packets += out as u64;
        // Looking neighbours up may have raised questions, which the next call asks.
        let questions = self.common.questions.load(Ordering::Relaxed);
        let more = !self.dirty.is_empty() || !self.outgoing.is_empty() || questions;
        self.runner_idle = !more;
        (more, self.wake_ns())
    }

    /// When the shard wants to be called again, whatever comes.
    fn wake_ns(&self) -> u64 {
        let mut wake_ns = self
            .timers
            .next_ns()
            .min(self.half_opens.next_ns())
            .min(self.time_waits.next_ns());
        if let Some(dhcp) = &self.dhcp {
            wake_ns = wake_ns.min(dhcp.next_ns());
        }
        if let Some(waiting) = self.waiting.front() {
            wake_ns = wake_ns.min(waiting.expires_ns);
        }
        if !self.owners.is_empty() {
            wake_ns = wake_ns.min(self.sweep_ns);
        }
        wake_ns
    }

    /// Picks up what other shards have changed.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        let version = self.common.addresses_version.load(Ordering::Acquire);
        if version != self.addresses_seen {
            self.addresses_seen = version;
            self.addresses = self.common.addresses.lock().clone();
            self.receiver = Receiver {
                mac: self.common.mac,
                own: self
                    .addresses
                    .own()
                    .iter()
                    .map(|own| widen(own.address))
                    .collect(),
                vips: self.addresses.vips().iter().map(|vip| widen(*vip)).collect(),
            };
        }
        let version = self.common.neighbours_version.load(Ordering::Acquire);
        if version != self.neighbours_seen {
            self.neighbours_seen = version;
            for ticket in core::mem::take(&mut self.unresolved) {
                self.mark_dirty(ticket);
            }
            self.outgoing.append(&mut self.waiting);
        }
    }

    /// Handles frames that came to other shards.
    fn receive_inbox(&mut self, now_ns: u64, now: Instant) {
        for frame in self.common.take_inbox(self.number) {
            self.reply_bytes = 0;
            self.receive(&frame, rref::packet::ChecksumState::Good, now_ns, now);
            self.queue_reply(now_ns);
        }
    }

    /// Does what is due.
    fn housekeep(&mut self, now_ns: u64, now: Instant) {
        while let Some((ticket, at)) = self.timers.pop_due(now_ns) {
            if let Some(connection) = self.connections.get_mut(ticket)
                && connection.scheduled_ns == at
            {
                connection.scheduled_ns = u64::MAX;
                self.mark_dirty(ticket);
            }
        }
        while self.half_opens.next_ns() <= now_ns {
            match self.half_opens.next_due(&mut self.flows, now_ns) {
                None => break,
                Some(Due::Expired(listener)) => self.listeners.release(listener),
                Some(Due::Repeat(ticket)) => {
                    self.reply_bytes = 0;
                    self.answer_syn(ticket, now);
                    self.queue_reply(now_ns);
                    self.statistics.retransmitted += 1;
                }
            }
        }
        if self.time_waits.next_ns() <= now_ns {
            self.time_waits.expire(&mut self.flows, now_ns, EXPIRE_LIMIT);
        }
        while self
            .waiting
            .front()
            .is_some_and(|waiting| waiting.expires_ns <= now_ns)
        {
            self.waiting.pop_front();
        }
        if self.common.questions.swap(false, Ordering::Relaxed) {
            let questions = self.common.neighbours.lock().take_questions();
            for address in questions {
                if let Some(frame) = neighbours::question(address, &self.addresses, self.common.mac) {
                    self.queue_frame(None, frame, now_ns);
                }
            }
        }
        if now_ns >= self.sweep_ns {
            self.sweep_ns = now_ns + SWEEP_NS;
            self.sweep();
        }
        self.poll_dhcp(now_ns, now);
    }

    fn poll_dhcp(&mut self, now_ns: u64, now: Instant) {
        let Some(mut client) = self.dhcp.take() else {
            return;
        };
        let mut frames = Vec::new();
        let lease = client.poll(now_ns, now, |frame| frames.push(frame));
        self.dhcp = Some(client);
        for frame in frames {
            self.queue_frame(None, frame, now_ns);
        }
        if let Some(lease) = lease {
            match lease.address {
                Some(own) => log::info!("address {}/{} by DHCP", own.address, own.prefix_length),
                None => log::info!("no address by DHCP"),
            }
            self.common
                .addresses
                .lock()
                .set_ipv4(lease.address, lease.gateway);
            self.common.addresses_version.fetch_add(1, Ordering::AcqRel);
            self.refresh();
        }
    }

    /// Handles a frame for the DHCP client, wherever that is.
    pub(crate) fn receive_dhcp(&mut self, frame: &[u8], now: Instant) {
        match &mut self.dhcp {
            Some(client) => client.receive(frame, now),
            None if self.number != 0 && self.common.config.network.dhcp => self.common.hand_over(0, frame),
            None => self.statistics.unclaimed += 1,
        }
    }

    /// Queues the answer in `reply`, for want of a packet that is free for it.
    fn queue_reply(&mut self, now_ns: u64) {
        let request = self.finish_reply();
        let frame: Vec<u8> = self.reply.get(..self.reply_bytes).unwrap_or(&[]).into();
        if !frame.is_empty() {
            self.queue(None, frame, request, now_ns);
        }
    }

    /// Queues a frame with all its checksums to be sent.
    pub(crate) fn queue_frame(&mut self, next_hop: Option<IpAddr>, frame: Vec<u8>, now_ns: u64) {
        self.queue(next_hop, frame, ChecksumRequest::None, now_ns);
    }

    fn queue(&mut self, next_hop: Option<IpAddr>, frame: Vec<u8>, request: ChecksumRequest, now_ns: u64) {
        if self.outgoing.len() < OUTGOING_LIMIT {
            self.outgoing.push_back(Outgoing {
                next_hop,
                expires_ns: now_ns + NEIGHBOUR_WAIT_NS,
                frame,
                request,
            });
        }
    }

    /// Has a connection looked at in this round.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, ticket: Ticket) {
        if let Some(connection) = self.connections.get_mut(ticket)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push_back(ticket);
        }
    }

    /// Closes what dead domains have.
    fn sweep(&mut self) {
        let dead: Vec<OwnerId> = self.owners.ids().filter(|id| !domain_rt::is_live(*id)).collect();
        for owner in dead {
            self.close_owner(owner);
        }
    }

    /// Resets a domain's connections and closes its other sockets.
    pub fn close_owner(&mut self, owner: OwnerId) {
        self.owners.remove(owner);
        let listeners: Vec<Ticket> = self
            .listeners
            .iter()
            .filter(|(_, listener)| listener.owner == owner)
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in listeners {
            self.close_listener(ticket);
        }
        for ticket in self.udp.of_owner(owner) {
            self.udp.remove(ticket);
        }
        let connections: Vec<Ticket> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.owner == owner)
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in connections {
            self.abandon(ticket);
        }
    }

    /// Resets a connection that nobody is to hear of.
    fn abandon(&mut self, ticket: Ticket) {
        if let Some(connection) = self.connections.get_mut(ticket) {
            connection.orphan = true;
            self.reset(ticket, clock::now_ns());
        }
    }

    /// Resets a connection.
    pub(crate) fn reset(&mut self, ticket: Ticket, now_ns: u64) {
        self.ensure_socket(ticket, now_ns, false, true);
        if let Some(connection) = self.connections.get_mut(ticket) {
            connection.socket().abort();
            self.mark_dirty(ticket);
        }
    }

    /// Closes a listener, and the connections that wait for it.
    pub(crate) fn close_listener(&mut self, listener: Ticket) {
        self.listeners.remove(listener);
        for ticket in self.half_opens.of_listener(listener) {
            if let Some(half_open) = self.half_opens.take(ticket) {
                self.flows.remove(&half_open.key);
            }
        }
        let waiting: Vec<Ticket> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.waiting_at == Some(listener))
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in waiting {
            self.abandon(ticket);
        }
    }

    /// Puts a connection into its owner's queue.
    pub(crate) fn tell(&mut self, ticket: Ticket, readable: bool, writable: bool) {
        if let Some(connection) = self.connections.get_mut(ticket) {
            connection.news.readable |= readable;
            connection.news.writable |= writable;
            if !connection.queued && !connection.orphan {
                connection.queued = true;
                self.owners.push(connection.owner, Entry::Connection(ticket));
            }
        }
    }

    /// The runner's thread, if it is to be woken since there is something to send.
    #[inline]
    pub(crate) fn ring(&mut self) -> Option<ThreadId> {
        if self.runner_idle {
            self.runner_idle = false;
            self.runner
        } else {
            None
        }
    }
}
