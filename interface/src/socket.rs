//! Sockets: TCP and UDP, as applications see them.
//!
//! The stack is sharded by receive queue: a connection lives on one shard, and an application that wants to serve every client
//! listens on each, with one thread a shard, pinned to that shard's CPU (`thread::spawn` with `cpu = shard`). Calls never block except `wait`. Sockets belong to
//! the domain that made them; the stack closes those of a dead domain by itself.
//!
//! Every call costs a crossing and the shard's lock. A server of many small requests makes two for all that are there: `wait_received` brings the
//! bytes with the events, and `send_many` takes all answers. Both do what is common, and say what is left to `receive` and `send`.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use rref::{BootBytes, Exchange, RRef, RpcError, Share, interface};

/// Bytes in one stream buffer.
pub const STREAM_BYTES: usize = 16 * 1024;
/// Events that one wait gives at most.
pub const EVENT_LIMIT: usize = 64;

/// Bytes on their way from or to a stream or datagram socket.
#[derive(Exchange, Share)]
#[repr(C)]
pub struct StreamBuffer {
    /// Bytes used, from the start of `data`.
    pub length: u32,
    /// The bytes.
    pub data: [u8; STREAM_BYTES],
}

/// A socket of one shard: an index and a count that makes it unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Exchange, Share)]
pub struct SocketId {
    /// The shard that it lives on.
    pub shard: u16,
    /// Index in that shard's table.
    pub index: u32,
    /// Tells users of one index apart.
    pub serial: u32,
}

/// What can be done on a socket now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Event {
    /// The socket.
    pub socket: SocketId,
    /// On a listener: the new connection to take (this event is what hands it over).
    pub accepted: Option<SocketId>,
    /// There is something to receive, or the peer has closed its side.
    pub readable: bool,
    /// `send` would take bytes again after it took fewer than offered (edge: told once).
    pub writable: bool,
    /// It is gone: reset, timed out or closed on both sides. The id is invalid from now on.
    pub closed: bool,
    /// Bytes of it that came with the event, only of `wait_received`: in the buffer, behind those of the events before. `receive` gives what follows.
    pub received: u32,
}

impl Event {
    /// An event of this socket that tells nothing yet.
    #[inline]
    pub const fn of(socket: SocketId) -> Event {
        Event {
            socket,
            accepted: None,
            readable: false,
            writable: false,
            closed: false,
            received: 0,
        }
    }
}

/// Events of one wait.
#[derive(Exchange, Share)]
pub struct EventList {
    /// Filled entries.
    pub length: u32,
    /// The events; the first `length` are valid.
    pub events: [Option<Event>; EVENT_LIMIT],
}

/// What `wait_received` gave.
#[derive(Exchange)]
pub struct Arrived {
    /// The list of the call, filled.
    pub events: RRef<EventList>,
    /// The buffer of the call; its first `length` bytes are those that came with the events.
    pub buffer: RRef<StreamBuffer>,
}

/// One of several sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Sending {
    /// Where it goes.
    pub socket: SocketId,
    /// Where its bytes end in the list's `data`; they begin where those of the one before it end, the first ones at 0.
    pub end: u32,
}

/// What `send_many` is to send.
#[derive(Exchange, Share)]
#[repr(C)]
pub struct SendList {
    /// Filled entries of `sends`.
    pub length: u32,
    /// The sends, at most one for each socket.
    pub sends: [Option<Sending>; EVENT_LIMIT],
    /// Their bytes, one after the other.
    pub data: [u8; STREAM_BYTES],
}

/// What `receive` gave.
#[derive(Exchange)]
pub struct ReceivedBytes {
    /// The buffer of the call; `length` bytes of it are new.
    pub buffer: RRef<StreamBuffer>,
    /// The peer has closed its side and every byte has been received.
    pub finished: bool,
    /// Sender of a datagram.
    pub from: Option<SocketAddr>,
}

/// What `send` took.
#[derive(Exchange)]
pub struct Sent {
    /// The buffer of the call.
    pub buffer: RRef<StreamBuffer>,
    /// Bytes taken, from the front; a `writable` event follows when there is room for the rest.
    pub taken: u32,
}

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct ListenOptions {
    /// Local address; `None` for all.
    pub address: Option<IpAddr>,
    /// Local port.
    pub port: u16,
    /// Connections at most that are not yet handed over (half-open and complete); further ones are dropped silently, so that the peer tries again.
    pub backlog: u16,
}

/// Where a socket is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct Endpoints {
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
}

/// Counters over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct SocketStatistics {
    /// TCP connections now.
    pub connections: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections made.
    pub connected: u64,
    /// Connections reset or timed out.
    pub aborted: u64,
    /// SYNs dropped for a full backlog or connection limit.
    pub dropped_syn: u64,
    /// TCP segments retransmitted.
    pub retransmitted: u64,
    /// Packets with a wrong checksum.
    pub bad_checksum: u64,
    /// Packets that no socket wanted.
    pub unclaimed: u64,
    /// Packets handled.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
}

/// Why a socket call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum SocketError {
    /// There is no shard of this number.
    NoShard,
    /// The socket is closed, or isn't the caller's.
    NotFound,
    /// Someone listens there already.
    AddressInUse,
    /// The address isn't the appliance's, or there is no way to it.
    Unreachable,
    /// The limit of connections or memory is reached.
    Full,
    /// The connection was reset.
    Reset,
    /// This can't be done on such a socket, or not in its state.
    Invalid,
    /// The stack died, and every socket with it.
    Dead(RpcError),
}

impl From<RpcError> for SocketError {
    fn from(error: RpcError) -> Self {
        SocketError::Dead(error)
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SocketError::NoShard => "there is no such shard",
            SocketError::NotFound => "the socket is closed",
            SocketError::AddressInUse => "the address is in use",
            SocketError::Unreachable => "the address can't be reached",
            SocketError::Full => "the limit of connections is reached",
            SocketError::Reset => "the connection was reset",
            SocketError::Invalid => "the socket can't do this now",
            SocketError::Dead(error) => return error.fmt(f),
        })
    }
}

/// The socket layer of the stack.
#[interface]
pub trait Sockets {
    /// Shards; one thread each.
    fn shards(&self) -> Result<u16, SocketError>;

    /// Listens for TCP connections on one shard.
    fn listen(&self, shard: u16, options: ListenOptions) -> Result<SocketId, SocketError>;

    /// Starts a TCP connection from a shard; a `writable` or `closed` event says how it went.
    fn connect(&self, shard: u16, remote: SocketAddr) -> Result<SocketId, SocketError>;

    /// A UDP socket on a local port.
    fn bind_udp(&self, shard: u16, port: u16) -> Result<SocketId, SocketError>;

    /// Blocks until the caller's sockets of this shard have events, or until `deadline_ns`; an empty list at the deadline, when
    /// cancelled, or when another thread of the caller unparked this one. The list is reused for the answer.
    #[deadline(none)]
    fn wait(
        &self,
        shard: u16,
        events: RRef<EventList>,
        deadline_ns: u64,
    ) -> Result<RRef<EventList>, SocketError>;

    /// As `wait`, and receives: `buffer` takes the bytes of those events that say so. An event that is `readable` nevertheless has more, or something else, for
    /// `receive` to give. What `receive` gives is behind all bytes of the list, those of a connection that the same list hands over too: read the list first.
    #[deadline(none)]
    fn wait_received(
        &self,
        shard: u16,
        events: RRef<EventList>,
        buffer: RRef<StreamBuffer>,
        deadline_ns: u64,
    ) -> Result<Arrived, SocketError>;

    /// Sends to many sockets of a shard, to each all of its bytes or none. Bit n of the answer says that the n-th was not sent, for want of room or because
    /// it can't be: `send` tells which.
    fn send_many(&self, shard: u16, list: &RRef<SendList>) -> Result<u64, SocketError>;

    /// Takes bytes (TCP) or one datagram (UDP) into `buffer`; with nothing there, `length` is 0.
    fn receive(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<ReceivedBytes, SocketError>;

    /// Sends the first `length` bytes of `buffer`, as many as there is room for.
    fn send(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<Sent, SocketError>;

    /// Sends from the boot archive without a copy through a buffer; the answer is the count of bytes taken from the front.
    fn send_file(&self, socket: SocketId, bytes: BootBytes) -> Result<u32, SocketError>;

    /// Sends one datagram.
    fn send_to(
        &self,
        socket: SocketId,
        to: SocketAddr,
        buffer: RRef<StreamBuffer>,
    ) -> Result<RRef<StreamBuffer>, SocketError>;

    /// Closes this side after everything is sent. The socket lives on until the peer has closed too; no more events of it but `closed`, and none is needed.
    /// What was received and not asked for is thrown away, and so is what still comes; a peer that goes on sending after it has acknowledged everything gets
    /// a reset.
    fn close(&self, socket: SocketId) -> Result<(), SocketError>;

    /// Resets the connection.
    fn abort(&self, socket: SocketId) -> Result<(), SocketError>;

    /// Both ends of a connection.
    fn endpoints(&self, socket: SocketId) -> Result<Endpoints, SocketError>;

    /// The `index`-th address of the appliance with its prefix length; `None` past the last.
    fn address(&self, index: u16) -> Result<Option<(IpAddr, u8)>, SocketError>;

    /// Counters.
    fn statistics(&self) -> Result<SocketStatistics, SocketError>;
}
