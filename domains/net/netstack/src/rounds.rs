//! What a server's round of requests takes: the events of an owner with the bytes that came, and its answers.
//!
//! Only connections without a socket take part in full (`light.rs`); of all others the owner is told that `receive` and `send` are to do it.

use crate::events::Entry;
use crate::shard::Shard;
use crate::sockets::{Kind, number, ticket};
use crate::table::Ticket;
use interface::socket::{Event, EventList, SendList, SocketId, StreamBuffer};
use rref::OwnerId;

impl Shard {
    /// Fills `events` from the queue of `owner`, and `buffer` with what connections without a socket have received.
    #[inline]
    pub(crate) fn take_events(
        &mut self,
        owner: OwnerId,
        events: &mut EventList,
        mut buffer: Option<&mut StreamBuffer>,
    ) {
        let mut queue = self.owners.take_queue(owner);
        let (mut length, mut received) = (0, 0);
        while let Some(slot) = events.events.get_mut(length)
            && let Some(entry) = queue.pop_front()
        {
            let room = buffer
                .as_mut()
                .and_then(|buffer| buffer.data.get_mut(received..))
                .unwrap_or_default();
            if let Some(event) = self.event(entry, room) {
                received += event.received as usize;
                *slot = Some(event);
                length += 1;
            }
        }
        events.length = length as u32;
        if let Some(buffer) = buffer {
            buffer.length = received as u32;
        }
        self.owners.put_queue_back(owner, queue);
    }

    /// What an entry says now; `None` if nothing. A connection without a socket gives what it has received if that fits into `room`.
    #[inline]
    fn event(&mut self, entry: Entry, room: &mut [u8]) -> Option<Event> {
        let shard = self.number;
        let mut event = Event::of(SocketId {
            shard,
            index: 0,
            serial: 0,
        });
        match entry {
            Entry::Connection(ticket) => {
                let connection = self.connections.get_mut(ticket)?;
                let news = core::mem::take(&mut connection.news);
                connection.queued = false;
                event.socket = number(shard, Kind::Connection, ticket);
                event.readable = news.readable;
                event.writable = news.writable;
                if let Some(count) = connection.receive_all_lightly(room) {
                    event.readable = false;
                    event.received = count as u32;
                }
            }
            Entry::Accepted { listener, connection } => {
                let accepted = self.connections.get_mut(connection)?;
                accepted.waiting_at = None;
                self.listeners.release(listener);
                event.socket = number(shard, Kind::Listener, listener);
                event.accepted = Some(number(shard, Kind::Connection, connection));
            }
            Entry::Datagram(ticket) => {
                self.udp.get_mut(ticket)?.queued = false;
                event.socket = number(shard, Kind::Datagram, ticket);
                event.readable = true;
            }
            Entry::Closed(ticket) => {
                event.socket = number(shard, Kind::Connection, ticket);
                event.closed = true;
            }
        }
        Some(event)
    }

    /// Sends what needs no socket: which weren't, by their places in the list.
    pub(crate) fn send_many(&mut self, owner: OwnerId, list: &SendList) -> u64 {
        let mtu = self.capabilities.mtu;
        let (mut unsent, mut start) = (0, 0);
        for (index, sending) in list.sends.iter().take(list.length as usize).enumerate() {
            let Some(sending) = sending else { continue };
            let end = sending.end as usize;
            let data = list.data.get(start..end).unwrap_or_default();
            start = end;
            let sent = ticket(sending.socket).is_ok_and(|(kind, ticket)| {
                kind == Kind::Connection
                    && sending.socket.shard == self.number
                    && !data.is_empty()
                    && self.send_lightly(owner, ticket, data, mtu)
            });
            unsent |= u64::from(!sent) << index;
        }
        unsent
    }

    /// Sends from a connection without a socket if that can take all of `data`.
    #[inline]
    fn send_lightly(&mut self, owner: OwnerId, ticket: Ticket, data: &[u8], mtu: u16) -> bool {
        let Some(connection) = self.connections.get_mut(ticket) else {
            return false;
        };
        let sent = connection.owner == owner
            && !connection.orphan
            && !connection.connecting
            && connection.linger_ns.is_none()
            && connection.send_lightly(data, mtu);
        if sent && !connection.dirty {
            connection.dirty = true;
            self.dirty.push_back(ticket);
        }
        sent
    }
}
