//! One TCP connection: a smoltcp socket in a set of its own, and what the stack knows beside it.

use crate::demultiplex::{FlowKey, Segment, flag};
use crate::light::{Light, PeerOptions};
use crate::recovery::Recovery;
use crate::table::Ticket;
use crate::transmit::{LinkHeader, SentSegment, answering_header};
use alloc::vec;
use rref::OwnerId;
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

/// Unacknowledged bytes up to which any peer's acknowledgement may be delayed: the segment size of peers that don't name one
/// (RFC 9293, 3.7.1); those that name a smaller one wait a little longer than they could.
const SMALLEST_USUAL_SEGMENT: usize = 536;

/// Something happened that the owner is to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// There is something to receive, or the peer has closed.
    pub readable: bool,
    /// There is room to send.
    pub writable: bool,
}

/// A connection with buffers.
pub struct Connection {
    /// Its 4-tuple.
    pub key: FlowKey,
    /// The domain that it belongs to.
    pub owner: OwnerId,
    /// Whose backlog it counts in, until it is handed over.
    pub waiting_at: Option<Ticket>,
    /// Header of frames to the peer.
    pub link: LinkHeader,
    /// Another station that the last packet came from.
    other_station: Option<[u8; 6]>,
    /// The station before the last change.
    previous_station: Option<[u8; 6]>,
    /// Whether `link` names a station; otherwise the neighbour is being asked for.
    pub resolved: bool,
    /// Its earliest entry in the timers; `u64::MAX` for none.
    pub scheduled_ns: u64,
    /// It is in the queue of those that may have something to send.
    pub dirty: bool,
    /// It is in its owner's queue.
    pub queued: bool,
    /// What the queue's entry will say.
    pub news: News,
    /// The owner was offered less room than it had bytes.
    pub wants_room: bool,
    /// The owner made it and waits for it to be established.
    pub connecting: bool,
    /// The owner was told that the peer has closed.
    pub told_finished: bool,
    /// The owner is done with it; when the peer's time to close is over.
    pub linger_ns: Option<u64>,
    /// Its owner is dead, or doesn't know of it: nobody is told anything.
    pub orphan: bool,
    /// Bytes of its buffers, for the account.
    pub buffer_bytes: u64,
    /// The sequence number after the last one sent, and the last acknowledgement and window.
    pub sent: SentSegment,
    /// Bytes that came since the last segment was sent, which acknowledged all before.
    unanswered_bytes: usize,
    /// Its state while it has no socket.
    pub light: Option<Light>,
    /// What the peer's SYN said; `None` when it came the other way, and the connection keeps its socket.
    pub options: Option<PeerOptions>,
    /// When something last happened on the socket.
    pub quiet_since_ns: u64,
    /// When something last happened that needed the socket.
    pub needed_ns: u64,
    /// When a SYN was last answered, for `challenge.rs`.
    pub challenged_ns: u64,
    /// The sender's view of losses.
    pub recovery: Recovery,
    set: SocketSet<'static>,
    handle: SocketHandle,
}

/// A set of one closed socket with buffers of these sizes.
pub fn listening_set(receive_bytes: usize, transmit_bytes: usize) -> (SocketSet<'static>, SocketHandle) {
    let socket = Socket::new(
        SocketBuffer::new(vec![0; receive_bytes]),
        SocketBuffer::new(vec![0; transmit_bytes]),
    );
    let mut set = SocketSet::new(vec![SocketStorage::EMPTY]);
    let handle = set.add(socket);
    (set, handle)
}

impl Connection {
    /// One around a socket.
    pub fn new(
        key: FlowKey,
        owner: OwnerId,
        link: LinkHeader,
        buffer_bytes: u64,
        (set, handle): (SocketSet<'static>, SocketHandle),
    ) -> Connection {
        Connection {
            key,
            owner,
            waiting_at: None,
            link,
            other_station: None,
            previous_station: None,
            resolved: true,
            scheduled_ns: u64::MAX,
            dirty: false,
            queued: false,
            news: News::default(),
            wants_room: false,
            connecting: false,
            told_finished: false,
            linger_ns: None,
            orphan: false,
            buffer_bytes,
            sent: SentSegment::default(),
            unanswered_bytes: 0,
            light: None,
            options: None,
            quiet_since_ns: 0,
            needed_ns: 0,
            challenged_ns: 0,
            recovery: Recovery::default(),
            set,
            handle,
        }
    }

    /// One without a socket, for `light.rs`.
    pub fn without_socket(key: FlowKey, owner: OwnerId, link: LinkHeader) -> Connection {
        Connection::new(
            key,
            owner,
            link,
            0,
            (SocketSet::new(vec![]), SocketHandle::default()),
        )
    }

    /// Gives it a socket.
    pub fn put_socket(&mut self, set: SocketSet<'static>, handle: SocketHandle) {
        self.light = None;
        self.set = set;
        self.handle = handle;
    }

    /// Takes its socket away; the caller says what state it is in without.
    pub fn drop_socket(&mut self) {
        self.set = SocketSet::new(vec![]);
    }

    /// The set, for smoltcp's interface. Empty while the connection is light.
    #[inline]
    pub fn set(&mut self) -> &mut SocketSet<'static> {
        &mut self.set
    }

    /// The socket. There is one unless the connection is light: callers see to that by `ensure_socket`.
    #[inline]
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    /// The socket, to look at; as above.
    #[inline]
    pub fn socket_ref(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    /// Follows the peer to another station (its router has changed) when two packets in a row come from there: one alone may have
    /// a damaged header, and answers to it would go nowhere.
    #[inline]
    pub fn heard_from(&mut self, frame: &[u8], own: [u8; 6]) {
        if self.resolved && self.link.get(..6) == frame.get(6..12) {
            return;
        }
        let header = answering_header(frame, own);
        let station = header.first_chunk().copied();
        if !self.resolved || self.other_station == station {
            self.previous_station = self.link.first_chunk().copied().filter(|_| self.resolved);
            self.link = header;
            self.resolved = true;
            self.other_station = None;
        } else {
            self.other_station = station;
        }
    }

    /// Nothing is acknowledged any more: perhaps the last change of station was wrong (a damaged frame can come twice), so the one
    /// before has its turn.
    pub fn doubt_station(&mut self) {
        if let Some(station) = self.link.first_chunk_mut::<6>()
            && let Some(previous) = &mut self.previous_station
        {
            core::mem::swap(station, previous);
        }
    }

    /// Room from which on an owner that waits for room is told: a third of the buffer, so that it isn't told for each segment.
    fn room_threshold(&self) -> usize {
        self.socket_ref().send_capacity() / 3
    }

    /// Notes a segment that was sent; true when it was sent before.
    #[inline]
    pub fn note_sent(&mut self, segment: &SentSegment, now_ns: u64) -> bool {
        let end = segment
            .sequence
            .wrapping_add(segment.payload_bytes)
            .wrapping_add(u32::from(segment.flags & (flag::FIN | flag::SYN) != 0));
        let fresh = end.wrapping_sub(self.sent.sequence) as i32;
        let repeated = segment.payload_bytes > 0 && fresh <= 0 && self.sent.flags != 0;
        if fresh > 0 || self.sent.flags == 0 {
            self.sent.sequence = end;
        }
        self.sent.flags = segment.flags;
        self.sent.acknowledgement = segment.acknowledgement;
        self.sent.window = segment.window;
        self.unanswered_bytes = 0;
        self.recovery
            .on_sent(segment, repeated, self.sent.sequence, now_ns);
        repeated
    }

    /// Whether, after this segment, the socket has nothing to send but an acknowledgement that may wait: the usual case of a
    /// request. Says no when in doubt.
    #[inline]
    pub fn owes_at_most_delayed_acknowledgement(&mut self, segment: &Segment) -> bool {
        self.unanswered_bytes += segment.payload_bytes;
        let socket = self.socket_ref();
        segment.flags & (flag::SYN | flag::FIN | flag::RST) == 0
            && self.unanswered_bytes <= SMALLEST_USUAL_SEGMENT
            && socket.send_queue() == 0
            && socket.state() == State::Established
    }

    /// Throws away what the socket has received, for an owner that has closed and won't ask for it: how many bytes.
    pub fn discard_received(&mut self) -> usize {
        let socket = self.socket();
        // Twice, since the ring's content may be in two parts; it fails only when nothing can come any more.
        (0..2)
            .map(|_| socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap_or(0))
            .sum()
    }

    /// Whether the peer, after this segment, sends to nobody: the owner has closed, the peer has acknowledged all that was sent and the end of it, and bytes
    /// still came (RFC 1122, 4.2.2.13). Those that came before the end was acknowledged may have crossed it on the way, and a reset for them could cost the
    /// peer the last answer (RFC 9112, 9.6): they are thrown away.
    pub fn is_sent_to_nobody(&mut self) -> bool {
        let discarded_bytes = self.discard_received();
        discarded_bytes > 0 && matches!(self.socket_ref().state(), State::FinWait2 | State::TimeWait)
    }

    /// What a segment that just came changed for the owner, who has not closed.
    pub fn after_receiving(&mut self, payload_bytes: usize) -> News {
        let wants_room = self.wants_room;
        let threshold = if wants_room { self.room_threshold() } else { 0 };
        let (connecting, told_finished) = (self.connecting, self.told_finished);
        let socket = self.socket();
        let mut news = News {
            readable: payload_bytes > 0 && socket.recv_queue() > 0,
            writable: false,
        };
        let mut finished = false;
        let mut connected = false;
        if !told_finished || connecting {
            let state = socket.state();
            finished = matches!(
                state,
                State::CloseWait | State::LastAck | State::Closing | State::TimeWait
            );
            connected = connecting && matches!(state, State::Established | State::CloseWait);
        }
        if wants_room && socket.send_capacity() - socket.send_queue() >= threshold {
            self.wants_room = false;
            news.writable = true;
        }
        if finished && !told_finished {
            self.told_finished = true;
            news.readable = true;
        }
        if connected {
            self.connecting = false;
            news.writable = true;
        }
        news
    }
}
