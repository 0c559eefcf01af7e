//! UDP (RFC 768): sockets by port, and datagrams as packets.
//!
//! smoltcp has no part in it beyond its packet formats and its ring of datagrams.

use crate::demultiplex::ETHERNET_BYTES;
use crate::table::{Slab, Ticket};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use rref::OwnerId;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::storage::{PacketBuffer, PacketMetadata};
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UdpPacket, UdpRepr};

/// Bytes that wait to be received on one socket at most.
const QUEUE_BYTES: usize = 64 * 1024;
/// Datagrams that wait at most.
const QUEUE_DATAGRAMS: usize = 256;

/// A UDP socket.
pub struct UdpSocket {
    /// The domain that it belongs to.
    pub owner: OwnerId,
    /// Its port.
    pub port: u16,
    /// It is in its owner's queue.
    pub queued: bool,
    received: PacketBuffer<'static, SocketAddr>,
}

/// The UDP sockets of a shard.
#[derive(Default)]
pub struct UdpSockets {
    slab: Slab<UdpSocket>,
    ports: BTreeMap<u16, Ticket>,
}

impl UdpSockets {
    /// Makes a socket on a port; `Err` with the one that has it.
    pub fn bind(&mut self, owner: OwnerId, port: u16) -> Result<Ticket, Ticket> {
        if let Some(other) = self.ports.get(&port) {
            return Err(*other);
        }
        let ticket = self.slab.insert(UdpSocket {
            owner,
            port,
            queued: false,
            received: PacketBuffer::new(vec![PacketMetadata::EMPTY; QUEUE_DATAGRAMS], vec![0; QUEUE_BYTES]),
        });
        self.ports.insert(port, ticket);
        Ok(ticket)
    }

    /// The socket on a port.
    pub fn find(&self, port: u16) -> Option<Ticket> {
        self.ports.get(&port).copied()
    }

    /// A socket.
    pub fn get(&self, ticket: Ticket) -> Option<&UdpSocket> {
        self.slab.get(ticket)
    }

    /// A socket, to change.
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut UdpSocket> {
        self.slab.get_mut(ticket)
    }

    /// Closes a socket.
    pub fn remove(&mut self, ticket: Ticket) {
        if let Some(socket) = self.slab.remove(ticket) {
            self.ports.remove(&socket.port);
        }
    }

    /// Tickets of a domain's sockets.
    pub fn of_owner(&self, owner: OwnerId) -> Vec<Ticket> {
        let of_it = |entry: &(Ticket, &UdpSocket)| entry.1.owner == owner;
        self.slab.iter().filter(of_it).map(|(ticket, _)| ticket).collect()
    }
}

impl UdpSocket {
    /// Keeps a datagram for the owner; false when there is no room, and it is lost.
    pub fn put(&mut self, from: SocketAddr, data: &[u8]) -> bool {
        match self.received.enqueue(data.len(), from) {
            Ok(room) => {
                room.copy_from_slice(data);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes a datagram into `buffer`, cut to what fits: its length and sender.
    pub fn take(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (from, data) = self.received.dequeue().ok()?;
        let length = data.len().min(buffer.len());
        if let (Some(to), Some(data)) = (buffer.get_mut(..length), data.get(..length)) {
            to.copy_from_slice(data);
        }
        Some((length, from))
    }

    /// Whether there is a datagram.
    pub fn has_datagram(&self) -> bool {
        !self.received.is_empty()
    }
}

/// The frame of a datagram, its Ethernet header still empty; `None` when it is longer than `mtu` bytes.
pub fn frame(from: IpAddr, port: u16, to: SocketAddr, data: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let (source, destination) = (IpAddress::from(from), IpAddress::from(to.ip()));
    if from.is_ipv4() != to.is_ipv4() {
        return None;
    }
    let datagram = UdpRepr {
        src_port: port,
        dst_port: to.port(),
    };
    let payload_bytes = datagram.header_len() + data.len();
    let packet = IpRepr::new(source, destination, IpProtocol::Udp, payload_bytes, 64);
    if packet.buffer_len() > usize::from(mtu) {
        return None;
    }
    let mut frame = vec![0; ETHERNET_BYTES + packet.buffer_len()];
    let capabilities = ChecksumCapabilities::default();
    let body = frame.get_mut(ETHERNET_BYTES..)?;
    packet.emit(&mut *body, &capabilities);
    datagram.emit(
        &mut UdpPacket::new_unchecked(body.get_mut(packet.header_len()..)?),
        &source,
        &destination,
        data.len(),
        |room| room.copy_from_slice(data),
        &capabilities,
    );
    Some(frame)
}
