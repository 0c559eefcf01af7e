//! One shard: a thread that waits for the events of its sockets, has the server execute what came, and sends the answers.
//!
//! A round takes every event that there is, with the bytes that belong to it. All that its connections sent is executed, under one lock of the server if
//! nothing out of the ordinary is among it; then the changes are appended to the store, which with `appendfsync always` is waited for once; and then the answers are sent (`sending`). So no answer is on the
//! wire before what it says, or what it saw, is on the disk.

mod sending;

use crate::client::{Client, ClientFlags, ClientIndex};
use crate::config::Durability;
use crate::connection::Connection;
use crate::outbox::Outbox;
use crate::server::{Phase, Server};
use crate::service::Service;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use domain_rt::clock::{NEVER, now_ns};
use domain_rt::sync::MutexGuard;
use domain_rt::{Handle, thread};
use interface::socket::{
    Arrived, EVENT_LIMIT, Endpoints, Event, STREAM_BYTES, SocketError, SocketId, Sockets, StreamBuffer,
};
use rref::RRef;
use serving::{Interruption, event_list, only_death};

/// Sockets of one shard at most: their indices are an index into a table here, of a pointer each.
const INDEX_LIMIT: u32 = 1 << 17;
/// More output than this waits for a connection and no more of its requests are executed, in bytes. Clients send a whole pipeline before they read
/// the first reply: where its replies are more than this and what the network holds, both sides would wait for ever.
const OUTPUT_PAUSE_BYTES: usize = 16 << 20;
/// Pieces that are received of one connection in a round.
const PIECES: usize = 8;
/// How often connections are looked at that may have been idle for too long.
const SWEEP_NS: u64 = 1_000_000_000;

/// One shard.
pub struct Shard {
    number: u16,
    service: Arc<Service>,
    sockets: Handle<dyn Sockets>,
    input: Option<RRef<StreamBuffer>>,
    output: Option<RRef<StreamBuffer>>,
    outbox: Outbox,
    connections: Vec<Option<Box<Connection>>>,
    /// Connections with something to send in this round.
    to_send: Vec<u32>,
    /// Connections that are received from once all that came with the round's events is executed: new ones, and those whose output was sent.
    resumed: Vec<u32>,
    attention: Vec<ClientIndex>,
    now_ns: u64,
    sweep_ns: u64,
}

/// Not inlined: a buffer is made on the stack first, and no other function is to have a frame of that size.
#[cold]
#[inline(never)]
fn new_buffer() -> Result<RRef<StreamBuffer>, SocketError> {
    RRef::new(StreamBuffer {
        length: 0,
        data: [0; STREAM_BYTES],
    })
    .map_err(|_| SocketError::Full)
}

impl Shard {
    /// A shard that serves on the stack's shard of this number.
    pub fn new(number: u16, service: Arc<Service>, sockets: Handle<dyn Sockets>) -> Shard {
        Shard {
            number,
            service,
            sockets,
            input: None,
            output: None,
            outbox: Outbox::default(),
            connections: Vec::new(),
            to_send: Vec::new(),
            resumed: Vec::new(),
            attention: Vec::new(),
            now_ns: now_ns(),
            sweep_ns: 0,
        }
    }

    /// Has what a connection sent executed.
    #[inline]
    fn take(&mut self, server: &mut Server, socket: SocketId, bytes: &[u8]) {
        let index = socket.index;
        let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
            return;
        };
        if connection.socket != socket {
            return;
        }
        let alive = if connection.outgoing_bytes() > OUTPUT_PAUSE_BYTES {
            connection.left_alone = true;
            connection.keep(server, bytes)
        } else {
            connection.execute(server, bytes)
        };
        connection.killed |= !alive;
        if connection.outgoing_bytes() > 0 || connection.killed || connection.closing {
            self.to_send.push(index);
        }
    }

    #[inline]
    fn handle(&mut self, event: &Event) -> Result<(), Interruption> {
        if let Some(socket) = event.accepted {
            return self.accept(socket);
        }
        if event.closed {
            self.forget(event.socket);
            return Ok(());
        }
        let index = event.socket.index;
        let known = match self.connections.get(index as usize) {
            Some(Some(connection)) => connection.socket == event.socket,
            _ => false,
        };
        if known {
            if event.readable {
                self.receive(index)?;
            }
            if event.writable {
                self.to_send.push(index);
            }
        }
        Ok(())
    }

    fn accept(&mut self, socket: SocketId) -> Result<(), Interruption> {
        let none = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let ends = match self.sockets.endpoints(socket) {
            Ok(ends) => ends,
            Err(SocketError::Dead(_)) => return Err(Interruption::Dead),
            // It went again; its end is told like any other's.
            Err(_) => Endpoints {
                local: none,
                remote: none,
            },
        };
        let service = self.service.clone();
        let mut server = service.server.lock();
        if server.clients.len() >= server.config.client_limit as usize || socket.index >= INDEX_LIMIT {
            server.statistics.rejected += 1;
            drop(server);
            return self.turn_away(socket);
        }
        let now_ms = service.now_ms(self.now_ns);
        let shard = self.number;
        let client =
            server.connect(|id| Client::new(id, shard, socket.index, ends.remote, ends.local, now_ms));
        drop(server);
        let index = socket.index as usize;
        if index >= self.connections.len() {
            self.connections
                .resize_with((index + 1).next_power_of_two(), || None);
        }
        if let Some(slot) = self.connections.get_mut(index)
            && let Some(old) = slot.replace(Box::new(Connection::new(socket, client)))
        {
            service.server.lock().disconnect(old.client);
        }
        // A request may have come before its connection was handed over; its beginning may be among the bytes of this very round, and then
        // what `receive` gives is behind them.
        self.resumed.push(socket.index);
        Ok(())
    }

    /// Receives what a connection has sent, and has it executed.
    #[inline]
    fn receive(&mut self, index: u32) -> Result<(), Interruption> {
        for _ in 0..PIECES {
            let Some(Some(connection)) = self.connections.get_mut(index as usize) else {
                return Ok(());
            };
            if connection.outgoing_bytes() > OUTPUT_PAUSE_BYTES {
                connection.left_alone = true;
                return Ok(());
            }
            let buffer = match self.input.take() {
                Some(buffer) => buffer,
                None => new_buffer()?,
            };
            let received = match self.sockets.receive(connection.socket, buffer) {
                Ok(received) => received,
                Err(SocketError::Dead(_)) => return Err(Interruption::Dead),
                Err(_) => {
                    let socket = connection.socket;
                    self.forget(socket);
                    return only_death(self.sockets.abort(socket));
                }
            };
            let length = (received.buffer.length as usize).min(STREAM_BYTES);
            let bytes = received.buffer.data.get(..length).unwrap_or_default();
            connection.finished |= received.finished;
            let more = length == STREAM_BYTES && !received.finished;
            let mut server = self.service.lock_at(self.now_ns);
            let alive = connection.execute(&mut server, bytes);
            self.service.call_others(&mut server, self.number);
            drop(server);
            self.input = Some(received.buffer);
            if !alive {
                let socket = connection.socket;
                self.forget(socket);
                return only_death(self.sockets.abort(socket));
            }
            if connection.outgoing_bytes() > 0 || connection.finished || connection.closing {
                self.to_send.push(index);
            }
            if !more {
                return Ok(());
            }
        }
        // The others first; the stack tells of this connection's rest in the next round.
        Ok(())
    }

    /// Looks after clients that others have written to, has changes appended and made durable, and sends: when to look again.
    #[inline]
    fn end_round(
        &mut self,
        service: &Service,
        mut server: MutexGuard<'_, Server>,
    ) -> Result<u64, Interruption> {
        let now_ms = server.keyspace.now_ms;
        if server.next_deadline_ms() <= now_ms {
            server.do_due();
        }
        self.attend(&mut server);
        let used_bytes = server.keyspace.used_bytes;
        server.statistics.peak_bytes = server.statistics.peak_bytes.max(used_bytes);
        let Server { ledger, keyspace, .. } = &mut *server;
        ledger.append(&mut keyspace.journal);
        let newest = ledger.newest(&keyspace.journal);
        let asked = core::mem::take(&mut server.settle_requested);
        // While writes are refused nothing newer is promised, and reads and refusals needn't wait for what fails. A group that is newer was made
        // before its shard knew: append and this look are under one lock.
        let is_refused = matches!(server.phase, Phase::WriteFailed(_)) && newest <= server.unsettled;
        let wait = (asked || server.config.durability == Durability::Always)
            && !is_refused
            && !server.ledger.is_durable(newest)
            || server.ledger.kept_bytes() > crate::ledger::KEPT_LIMIT_BYTES;
        let deadline_ms = server.next_deadline_ms();
        let timeout_s = server.config.timeout_s;
        service.call_others(&mut server, self.number);
        drop(server);
        if wait && let Err(error) = service.settle(newest) {
            // What was to be said would not be true.
            service.report_failure(error, newest);
            self.end_unsettled()?;
        }
        self.send_all()?;
        let mut deadline_ns = NEVER;
        if timeout_s > 0 {
            self.sweep(timeout_s)?;
            deadline_ns = self.now_ns.saturating_add(SWEEP_NS);
        }
        if deadline_ms <= now_ms {
            return Ok(0);
        }
        if deadline_ms < u64::MAX {
            let wait_ns = (deadline_ms - now_ms).saturating_mul(1_000_000);
            deadline_ns = deadline_ns.min(self.now_ns.saturating_add(wait_ns));
        }
        Ok(deadline_ns)
    }

    /// Takes the output of clients that others have written to, and goes on with those that waited.
    #[inline]
    fn attend(&mut self, server: &mut Server) {
        loop {
            let Some(list) = server.attention.get_mut(usize::from(self.number)) else {
                return;
            };
            if list.is_empty() {
                return;
            }
            core::mem::swap(list, &mut self.attention);
            for position in 0..self.attention.len() {
                let Some(index) = self.attention.get(position).copied() else {
                    break;
                };
                let Some(client) = server.clients.get_mut(index) else {
                    continue;
                };
                client.flags.remove(ClientFlags::LISTED);
                let place = client.place;
                if let Some(Some(connection)) = self.connections.get_mut(place as usize)
                    && connection.client == index
                {
                    if !connection.execute(server, &[]) {
                        connection.killed = true;
                    }
                    self.to_send.push(place);
                }
            }
            self.attention.clear();
        }
    }

    /// Ends connections that have been idle for too long.
    #[cold]
    fn sweep(&mut self, timeout_s: u64) -> Result<(), Interruption> {
        if self.now_ns < self.sweep_ns {
            return Ok(());
        }
        self.sweep_ns = self.now_ns.saturating_add(SWEEP_NS);
        let service = self.service.clone();
        let mut server = service.server.lock();
        let now_ms = service.now_ms(self.now_ns);
        let idle: Vec<SocketId> = self
            .connections
            .iter()
            .flatten()
            .filter(|connection| {
                server.clients.get(connection.client).is_some_and(|client| {
                    client.blocked.is_none()
                        && !client.is_subscriber()
                        && now_ms.saturating_sub(client.active_ms) > timeout_s * 1000
                })
            })
            .map(|connection| connection.socket)
            .collect();
        for socket in &idle {
            if let Some(slot) = self.connections.get_mut(socket.index as usize)
                && let Some(connection) = slot.take()
            {
                server.disconnect(connection.client);
            }
        }
        drop(server);
        for socket in idle {
            only_death(self.sockets.close(socket))?;
        }
        Ok(())
    }

    fn forget(&mut self, socket: SocketId) {
        if let Some(slot) = self.connections.get_mut(socket.index as usize)
            && let Some(connection) = slot.take_if(|connection| connection.socket == socket)
        {
            self.service.server.lock().disconnect(connection.client);
        }
    }
}

impl serving::Shard for Shard {
    fn number(&self) -> u16 {
        self.number
    }

    fn port(&self) -> u16 {
        self.service.server.lock().config.port
    }

    fn sockets(&mut self) -> &mut Handle<dyn Sockets> {
        &mut self.sockets
    }

    fn serve(&mut self) -> Result<Infallible, Interruption> {
        self.service.register(self.number, thread::id());
        let mut events = event_list()?;
        let service = self.service.clone();
        let mut buffer = new_buffer()?;
        let mut deadline_ns = 0;
        loop {
            if service.take_call(self.number) {
                deadline_ns = 0;
            }
            Arrived { events, buffer } =
                self.sockets
                    .wait_received(self.number, events, buffer, deadline_ns)?;
            self.now_ns = now_ns();
            let mut server = None;
            let mut start = 0;
            let count = (events.length as usize).min(EVENT_LIMIT);
            for event in events.events.iter().take(count).flatten() {
                if event.received > 0 {
                    let end = start + event.received as usize;
                    let bytes = buffer.data.get(start..end).unwrap_or_default();
                    start = end;
                    let server = match &mut server {
                        Some(server) => server,
                        None => server.insert(service.lock_at(self.now_ns)),
                    };
                    self.take(server, event.socket, bytes);
                }
                if event.readable || event.writable || event.closed || event.accepted.is_some() {
                    // What follows makes calls of the stack.
                    server = None;
                    self.handle(event)?;
                }
            }
            if !self.resumed.is_empty() {
                server = None;
                for index in core::mem::take(&mut self.resumed) {
                    self.receive(index)?;
                }
            }
            let server = server.unwrap_or_else(|| service.lock_at(self.now_ns));
            deadline_ns = self.end_round(&service, server)?;
        }
    }

    fn open(&self) -> impl Iterator<Item = SocketId> {
        self.connections
            .iter()
            .flatten()
            .map(|connection| connection.socket)
    }

    fn forget_all(&mut self) {
        let mut server = self.service.server.lock();
        for connection in self.connections.drain(..).flatten() {
            server.disconnect(connection.client);
        }
        drop(server);
        self.to_send.clear();
        self.resumed.clear();
        self.outbox.clear();
    }
}
