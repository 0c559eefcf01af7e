//! The sockets' interface: what applications call.
//!
//! A call locks the socket's shard for as long as it takes to copy bytes; only `wait` parks. Sockets are found by the
//! number and belong to the domain that calls.

use crate::connection::Connection;
use crate::demultiplex::{ETHERNET_BYTES, FlowKey, widen};
use crate::events::Entry;
use crate::listener::Listener;
use crate::shard::{Shard, new_interface};
use crate::stack::Shared;
use crate::table::{Place, Ticket};
use crate::udp;
use alloc::boxed::Box;
use core::net::{IpAddr, SocketAddr};
use domain_rt::clock;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, Wake};
use interface::socket::{
    Arrived, Endpoints, EventList, ListenOptions, ReceivedBytes, SendList, Sent, SocketError, SocketId,
    SocketStatistics, Sockets, StreamBuffer,
};
use rref::{BootBytes, OwnerId, RRef};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

/// First port that connections from here may use (RFC 6335, 6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;
/// Ports that are tried for a connection.
const PORT_TRIES: u32 = 64;

/// What a socket's number stands for: the top bits of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection,
    Listener,
    Datagram,
}

const INDEX_BITS: u32 = 30;

pub(crate) fn number(shard: u16, kind: Kind, ticket: Ticket) -> SocketId {
    SocketId {
        shard,
        index: (kind as u32) << INDEX_BITS | ticket.index,
        serial: ticket.serial,
    }
}

pub(crate) fn ticket(socket: SocketId) -> Result<(Kind, Ticket), SocketError> {
    let kind = match socket.index >> INDEX_BITS {
        0 => Kind::Connection,
        1 => Kind::Listener,
        2 => Kind::Datagram,
        _ => return Err(SocketError::NotFound),
    };
    let ticket = Ticket {
        index: socket.index & ((1 << INDEX_BITS) - 1),
        serial: socket.serial,
    };
    Ok((kind, ticket))
}

impl Shared {
    fn shard(&self, shard: u16) -> Result<&Mutex<Shard>, SocketError> {
        self.0.shards.get(usize::from(shard)).ok_or(SocketError::NoShard)
    }

    /// Parks until there are events, and fills `events` and `buffer` with them.
    fn wait_for_events(
        &self,
        shard: u16,
        events: &mut EventList,
        mut buffer: Option<&mut StreamBuffer>,
        deadline_ns: u64,
    ) -> Result<(), SocketError> {
        let cell = self.shard(shard)?;
        let owner = rref::caller();
        let mut over = false;
        loop {
            let mut state = cell.lock();
            state.take_events(owner, events, buffer.as_deref_mut());
            if events.length > 0 || over {
                return Ok(());
            }
            state.owners.wait(owner, thread::id());
            drop(state);
            match thread::park_until(deadline_ns) {
                // By the shard, or by another thread of the caller, which has its reasons.
                Wake::Woken => over = true,
                Wake::TimedOut => over = true,
                Wake::Cancelled => return Ok(()),
            }
        }
    }

    /// Runs `call` on a connection of the caller and wakes the runner if it left something to send.
    #[inline]
    fn with_connection<R>(
        &self,
        socket: SocketId,
        call: impl FnOnce(&mut Shard, Ticket) -> Result<R, SocketError>,
    ) -> Result<R, SocketError> {
        let (kind, ticket) = ticket(socket)?;
        if kind != Kind::Connection {
            return Err(SocketError::Invalid);
        }
        let mut shard = self.shard(socket.shard)?.lock();
        let connection = shard.connections.get(ticket).ok_or(SocketError::NotFound)?;
        if connection.owner != rref::caller() || connection.orphan {
            return Err(SocketError::NotFound);
        }
        let result = call(&mut shard, ticket);
        let runner = if shard.dirty.is_empty() {
            None
        } else {
            shard.ring()
        };
        drop(shard);
        if let Some(runner) = runner {
            thread::unpark(runner);
        }
        result
    }
}

impl Shard {
    fn connection(&mut self, ticket: Ticket) -> Result<&mut Connection, SocketError> {
        match self.connections.get_mut(ticket) {
            Some(connection) => Ok(connection),
            None => Err(SocketError::NotFound),
        }
    }

    /// Copies `data` into a connection's transmit buffer: how much was taken.
    fn send(&mut self, ticket: Ticket, data: &[u8]) -> Result<u32, SocketError> {
        let mtu = self.capabilities.mtu;
        let connection = self.connection(ticket)?;
        if connection.linger_ns.is_some() || connection.connecting {
            return Err(SocketError::Invalid);
        }
        if connection.light.is_some() {
            if connection.send_lightly(data, mtu) {
                self.mark_dirty(ticket);
                return Ok(data.len() as u32);
            }
            self.ensure_socket(ticket, clock::now_ns(), false, false);
        }
        let connection = self.connection(ticket)?;
        let now_ns = clock::now_ns();
        connection.quiet_since_ns = now_ns;
        if data.len() > connection.segment_bytes(mtu) || connection.socket_ref().send_queue() > 0 {
            connection.needed_ns = now_ns;
        }
        let Ok(taken) = connection.socket().send_slice(data) else {
            return Err(SocketError::Reset);
        };
        if taken < data.len() {
            connection.wants_room = true;
        }
        if taken > 0 {
            self.mark_dirty(ticket);
        }
        Ok(taken as u32)
    }

    /// Copies received bytes into `buffer`: how many, and whether the peer has closed and all is received.
    fn receive_bytes(&mut self, ticket: Ticket, buffer: &mut [u8]) -> Result<(usize, bool), SocketError> {
        let connection = self.connection(ticket)?;
        if let Some(count) = connection.receive_lightly(buffer) {
            return Ok((count, false));
        }
        let socket = connection.socket();
        let before = socket.recv_queue();
        let mut taken = 0;
        while let Some(room) = buffer.get_mut(taken..)
            && !room.is_empty()
        {
            match socket.recv_slice(room) {
                Ok(count) if count > 0 => taken += count,
                // Nothing more for now, or for ever.
                Ok(_) | Err(tcp::RecvError::Finished) => break,
                Err(tcp::RecvError::InvalidState) if taken > 0 => break,
                Err(tcp::RecvError::InvalidState) => match socket.state() {
                    tcp::State::SynSent | tcp::State::SynReceived => break,
                    tcp::State::Closed => return Err(SocketError::Reset),
                    _ => break,
                },
            }
        }
        let finished = socket.recv_queue() == 0 && !socket.may_recv() && taken == 0;
        let more = socket.recv_queue() > 0;
        // The window that the peer knows of has become small only when much was waiting.
        let window_opened = taken > 0 && before >= socket.recv_capacity() / 4;
        if window_opened {
            self.mark_dirty(ticket);
        }
        if more {
            self.tell(ticket, true, false);
        }
        Ok((taken, finished))
    }

    fn connect(&mut self, owner: OwnerId, remote: SocketAddr) -> Result<SocketId, SocketError> {
        self.refresh();
        let local = self
            .addresses
            .source_for(remote.ip())
            .ok_or(SocketError::Unreachable)?;
        self.addresses
            .next_hop(remote.ip())
            .ok_or(SocketError::Unreachable)?;
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.ip().is_multicast() {
            return Err(SocketError::Unreachable);
        }
        if self.connections.len() >= self.common.config.tcp.connections as usize {
            return Err(SocketError::Full);
        }
        let key = (0..PORT_TRIES)
            .map(|_| FlowKey {
                local: widen(local),
                remote: widen(remote.ip()),
                local_port: FIRST_EPHEMERAL_PORT | self.secret.draw() as u16,
                remote_port: remote.port(),
            })
            .find(|key| self.flows.find(key).is_none())
            .ok_or(SocketError::Full)?;
        let (receive_bytes, transmit_bytes) = self.reserve_buffers().ok_or(SocketError::Full)?;
        let (mut set, handle) = self.socket(receive_bytes, transmit_bytes);
        let now_ns = clock::now_ns();
        let now = Shard::instant_of(now_ns);
        let sequence = self.secret.initial_sequence(&key, now_ns);
        let mut interface = new_interface(self.capabilities, self.seed_for(sequence), now);
        let from = IpListenEndpoint::from(IpEndpoint::new(IpAddress::from(local), key.local_port));
        let to = IpEndpoint::new(IpAddress::from(remote.ip()), remote.port());
        if set
            .get_mut::<tcp::Socket<'_>>(handle)
            .connect(interface.context(), to, from)
            .is_err()
        {
            self.release_buffers((receive_bytes + transmit_bytes) as u64);
            return Err(SocketError::Unreachable);
        }
        let bytes = (receive_bytes + transmit_bytes) as u64;
        let mut connection = Connection::new(key, owner, [0; ETHERNET_BYTES], bytes, (set, handle));
        connection.resolved = false;
        connection.connecting = true;
        let ticket = self.connections.insert(Box::new(connection));
        self.flows.put(key, Place::Connection(ticket));
        self.common.add_outbound(key, self.number);
        self.owners.enroll(owner);
        self.statistics.connected += 1;
        self.mark_dirty(ticket);
        Ok(number(self.number, Kind::Connection, ticket))
    }

    /// Makes way for a new socket when the one that has its place belongs to a dead domain.
    fn clear_dead(&mut self, owner: OwnerId) -> Result<(), SocketError> {
        if domain_rt::is_live(owner) {
            return Err(SocketError::AddressInUse);
        }
        self.close_owner(owner);
        Ok(())
    }

    fn listen(&mut self, owner: OwnerId, options: ListenOptions) -> Result<SocketId, SocketError> {
        self.refresh();
        if options.port == 0 {
            return Err(SocketError::Invalid);
        }
        if options
            .address
            .is_some_and(|address| !self.addresses.is_own(address))
        {
            return Err(SocketError::Unreachable);
        }
        let listener = Listener {
            owner,
            address: options.address.map(widen),
            port: options.port,
            backlog: options.backlog.max(1),
            waiting: 0,
        };
        loop {
            match self.listeners.insert(listener) {
                Ok(ticket) => {
                    self.owners.enroll(owner);
                    return Ok(number(self.number, Kind::Listener, ticket));
                }
                Err(other) => {
                    let other = self.listeners.get(other).map(|other| other.owner);
                    self.clear_dead(other.ok_or(SocketError::AddressInUse)?)?;
                }
            }
        }
    }

    fn bind_udp(&mut self, owner: OwnerId, port: u16) -> Result<SocketId, SocketError> {
        if port == 0 {
            return Err(SocketError::Invalid);
        }
        loop {
            match self.udp.bind(owner, port) {
                Ok(ticket) => {
                    self.owners.enroll(owner);
                    return Ok(number(self.number, Kind::Datagram, ticket));
                }
                Err(other) => {
                    let other = self.udp.get(other).map(|other| other.owner);
                    self.clear_dead(other.ok_or(SocketError::AddressInUse)?)?;
                }
            }
        }
    }

    fn send_datagram(
        &mut self,
        owner: OwnerId,
        ticket: Ticket,
        to: SocketAddr,
        data: &[u8],
    ) -> Result<(), SocketError> {
        self.refresh();
        let socket = self
            .udp
            .get(ticket)
            .filter(|socket| socket.owner == owner)
            .ok_or(SocketError::NotFound)?;
        let from = self
            .addresses
            .source_for(to.ip())
            .ok_or(SocketError::Unreachable)?;
        let next_hop = self.addresses.next_hop(to.ip()).ok_or(SocketError::Unreachable)?;
        let frame =
            udp::frame(from, socket.port, to, data, self.capabilities.mtu).ok_or(SocketError::Invalid)?;
        self.queue_frame(Some(next_hop), frame, clock::now_ns());
        Ok(())
    }
}

impl Sockets for Shared {
    fn shards(&self) -> Result<u16, SocketError> {
        Ok(self.0.common.shards())
    }

    fn listen(&self, shard: u16, options: ListenOptions) -> Result<SocketId, SocketError> {
        self.shard(shard)?.lock().listen(rref::caller(), options)
    }

    fn connect(&self, shard: u16, remote: SocketAddr) -> Result<SocketId, SocketError> {
        let mut cell = self.shard(shard)?.lock();
        let result = cell.connect(rref::caller(), remote);
        let runner = cell.ring();
        drop(cell);
        if let Some(runner) = runner {
            thread::unpark(runner);
        }
        result
    }

    fn bind_udp(&self, shard: u16, port: u16) -> Result<SocketId, SocketError> {
        self.shard(shard)?.lock().bind_udp(rref::caller(), port)
    }

    fn wait(
        &self,
        shard: u16,
        mut events: RRef<EventList>,
        deadline_ns: u64,
    ) -> Result<RRef<EventList>, SocketError> {
        self.wait_for_events(shard, &mut events, None, deadline_ns)?;
        Ok(events)
    }

    fn wait_received(
        &self,
        shard: u16,
        mut events: RRef<EventList>,
        mut buffer: RRef<StreamBuffer>,
        deadline_ns: u64,
    ) -> Result<Arrived, SocketError> {
        self.wait_for_events(shard, &mut events, Some(&mut buffer), deadline_ns)?;
        Ok(Arrived { events, buffer })
    }

    fn send_many(&self, shard: u16, list: &RRef<SendList>) -> Result<u64, SocketError> {
        let owner = rref::caller();
        let mut state = self.shard(shard)?.lock();
        let unsent = state.send_many(owner, list);
        let runner = if state.dirty.is_empty() {
            None
        } else {
            state.ring()
        };
        drop(state);
        if let Some(runner) = runner {
            thread::unpark(runner);
        }
        Ok(unsent)
    }

    fn receive(
        &self,
        socket: SocketId,
        mut buffer: RRef<StreamBuffer>,
    ) -> Result<ReceivedBytes, SocketError> {
        let (kind, datagram) = ticket(socket)?;
        if kind == Kind::Datagram {
            let mut shard = self.shard(socket.shard)?.lock();
            let udp = shard
                .udp
                .get_mut(datagram)
                .filter(|udp| udp.owner == rref::caller())
                .ok_or(SocketError::NotFound)?;
            let taken = udp.take(&mut buffer.data);
            buffer.length = taken.map_or(0, |(length, _)| length as u32);
            if udp.has_datagram() && !udp.queued {
                udp.queued = true;
                let owner = udp.owner;
                shard.owners.push(owner, Entry::Datagram(datagram));
            }
            return Ok(ReceivedBytes {
                buffer,
                finished: false,
                from: taken.map(|(_, from)| from),
            });
        }
        self.with_connection(socket, |shard, ticket| {
            let (length, finished) = shard.receive_bytes(ticket, &mut buffer.data)?;
            buffer.length = length as u32;
            Ok(ReceivedBytes {
                buffer,
                finished,
                from: None,
            })
        })
    }

    fn send(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<Sent, SocketError> {
        self.with_connection(socket, |shard, ticket| {
            let data = buffer
                .data
                .get(..buffer.length as usize)
                .ok_or(SocketError::Invalid)?;
            let taken = shard.send(ticket, data)?;
            Ok(Sent { buffer, taken })
        })
    }

    fn send_file(&self, socket: SocketId, bytes: BootBytes) -> Result<u32, SocketError> {
        self.with_connection(socket, |shard, ticket| shard.send(ticket, bytes.as_slice()))
    }

    fn send_to(
        &self,
        socket: SocketId,
        to: SocketAddr,
        buffer: RRef<StreamBuffer>,
    ) -> Result<RRef<StreamBuffer>, SocketError> {
        let (kind, ticket) = ticket(socket)?;
        if kind != Kind::Datagram {
            return Err(SocketError::Invalid);
        }
        let data = buffer
            .data
            .get(..buffer.length as usize)
            .ok_or(SocketError::Invalid)?;
        let mut shard = self.shard(socket.shard)?.lock();
        shard.send_datagram(rref::caller(), ticket, to, data)?;
        let runner = shard.ring();
        drop(shard);
        if let Some(runner) = runner {
            thread::unpark(runner);
        }
        Ok(buffer)
    }

    fn close(&self, socket: SocketId) -> Result<(), SocketError> {
        let (kind, other) = ticket(socket)?;
        match kind {
            Kind::Connection => self.with_connection(socket, |shard, ticket| {
                let linger_ns = u64::from(shard.common.config.tcp.linger_s) * 1_000_000_000;
                shard.ensure_socket(ticket, clock::now_ns(), false, true);
                let connection = shard.connection(ticket)?;
                if connection.linger_ns.is_none() {
                    connection.linger_ns = Some(clock::now_ns().saturating_add(linger_ns));
                    connection.socket().close();
                    connection.discard_received();
                    shard.mark_dirty(ticket);
                }
                Ok(())
            }),
            Kind::Listener => {
                let mut shard = self.shard(socket.shard)?.lock();
                let owner = shard.listeners.get(other).map(|listener| listener.owner);
                if owner != Some(rref::caller()) {
                    return Err(SocketError::NotFound);
                }
                shard.close_listener(other);
                Ok(())
            }
            Kind::Datagram => {
                let mut shard = self.shard(socket.shard)?.lock();
                let owner = shard.udp.get(other).map(|udp| udp.owner);
                if owner != Some(rref::caller()) {
                    return Err(SocketError::NotFound);
                }
                shard.udp.remove(other);
                Ok(())
            }
        }
    }

    fn abort(&self, socket: SocketId) -> Result<(), SocketError> {
        self.with_connection(socket, |shard, ticket| {
            shard.statistics.aborted += 1;
            shard.reset(ticket, clock::now_ns());
            Ok(())
        })
    }

    fn endpoints(&self, socket: SocketId) -> Result<Endpoints, SocketError> {
        self.with_connection(socket, |shard, ticket| {
            let key = shard.connection(ticket)?.key;
            Ok(Endpoints {
                local: key.local(),
                remote: key.remote(),
            })
        })
    }

    fn address(&self, index: u16) -> Result<Option<(IpAddr, u8)>, SocketError> {
        let addresses = self.0.common.addresses.lock();
        let own = addresses.own().get(usize::from(index));
        Ok(own.map(|own| (own.address, own.prefix_length)))
    }

    fn statistics(&self) -> Result<SocketStatistics, SocketError> {
        let mut sum = SocketStatistics::default();
        for cell in &self.0.shards {
            let shard = cell.lock();
            let one = &shard.statistics;
            sum.connections += shard.connections.len() as u64;
            sum.accepted += one.accepted;
            sum.connected += one.connected;
            sum.aborted += one.aborted;
            sum.dropped_syn += one.dropped_syn;
            sum.retransmitted += one.retransmitted;
            sum.bad_checksum += one.bad_checksum;
            sum.unclaimed += one.unclaimed;
            sum.received_packets += one.received_packets;
            sum.sent_packets += one.sent_packets;
        }
        Ok(sum)
    }
}
