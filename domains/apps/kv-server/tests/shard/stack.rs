//! A stack in memory whose every list is written by the test: what a shard is told of, in which order, and what it finds when it receives and sends.
//!
//! Keeps what `interface::socket` promises, and notes where the shard doesn't keep its side. One shard, whose thread waits between two rounds.

use interface::socket::{
    Arrived, EVENT_LIMIT, Event, EventList, ListenOptions, ReceivedBytes, STREAM_BYTES, SendList, Sent,
    SocketError, SocketId, Sockets, StreamBuffer,
};
use rref::RRef;
use socket_double::Pipe;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Long enough that only a shard that has stopped takes it.
const PATIENCE: Duration = Duration::from_secs(60);

const LISTENER: SocketId = SocketId {
    shard: 0,
    index: 0,
    serial: 0,
};

/// A list for the shard, and what arrives behind it.
#[derive(Default)]
pub struct Round {
    events: Vec<Event>,
    bytes: Vec<u8>,
    late: Vec<(SocketId, Vec<u8>)>,
}

#[derive(Default)]
struct State {
    pipes: BTreeMap<u32, Pipe>,
    round: Option<Round>,
    /// The shard has nothing to do before the next round.
    idle: bool,
    /// State of the sequence that says which sends are refused though there is room; 0 for none.
    refusals: u64,
    violations: Vec<String>,
}

/// The stack.
#[derive(Default)]
pub struct Stack {
    state: Mutex<State>,
    changed: Condvar,
}

impl Round {
    /// Hands a connection over.
    pub fn accept(&mut self, socket: SocketId) {
        self.events.push(Event {
            accepted: Some(socket),
            ..Event::of(LISTENER)
        });
    }

    /// An event of a connection, with bytes that come with it.
    pub fn tell(&mut self, socket: SocketId, bytes: &[u8], readable: bool, writable: bool) {
        self.bytes.extend_from_slice(bytes);
        self.events.push(Event {
            readable,
            writable,
            received: bytes.len() as u32,
            ..Event::of(socket)
        });
    }

    /// Bytes that arrive when the list is on its way already: there for whoever receives.
    pub fn arrive_late(&mut self, socket: SocketId, bytes: &[u8]) {
        self.late.push((socket, bytes.to_vec()));
    }

    /// Room for bytes that come with the list.
    pub fn room(&self) -> usize {
        STREAM_BYTES - self.bytes.len()
    }
}

impl Stack {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn with<R>(&self, socket: SocketId, work: impl FnOnce(&mut Pipe) -> R) -> Result<R, SocketError> {
        let mut state = self.state();
        let pipe = state.pipes.get_mut(&socket.serial).ok_or(SocketError::NotFound)?;
        Ok(work(pipe))
    }

    /// Waits for the shard to have done all that it was told.
    fn settled(&self) -> MutexGuard<'_, State> {
        let start = Instant::now();
        let mut state = self.state();
        while !state.idle || state.round.is_some() {
            assert!(start.elapsed() < PATIENCE, "the shard doesn't come back");
            state = self.changed.wait_timeout(state, PATIENCE).unwrap().0;
        }
        assert_eq!(state.violations, Vec::<String>::new());
        state
    }

    /// Has the shard work on a list, and waits until it is done with it.
    pub fn run(&self, round: Round) {
        assert!(round.events.len() <= EVENT_LIMIT && round.bytes.len() <= STREAM_BYTES);
        let mut state = self.settled();
        state.round = Some(round);
        drop(state);
        self.changed.notify_all();
        drop(self.settled());
    }

    /// A connection that isn't handed over yet, with room for all that is sent.
    pub fn open(&self, socket: SocketId) {
        let pipe = Pipe::with_room(usize::MAX);
        self.state().pipes.insert(socket.serial, pipe);
    }

    /// Looks at a connection, or changes it, between two rounds.
    pub fn pipe<R>(&self, socket: SocketId, work: impl FnOnce(&mut Pipe) -> R) -> R {
        work(
            self.settled()
                .pipes
                .get_mut(&socket.serial)
                .expect("it was opened"),
        )
    }

    /// From now on `send_many` refuses about every third send.
    pub fn refuse_some(&self, seed: u64) {
        self.settled().refusals = seed | 1;
    }
}

impl State {
    /// Xorshift: it is enough that no pattern of rounds meets it.
    fn refuses(&mut self) -> bool {
        self.refusals ^= self.refusals << 13;
        self.refusals ^= self.refusals >> 7;
        self.refusals ^= self.refusals << 17;
        self.refusals % 3 == 1
    }
}

impl Sockets for Stack {
    fn shards(&self) -> Result<u16, SocketError> {
        Ok(1)
    }

    fn listen(&self, _shard: u16, _options: ListenOptions) -> Result<SocketId, SocketError> {
        Ok(LISTENER)
    }

    socket_double::unsupported!(
        connect, bind_udp, wait, send_file, send_to, endpoints, address, statistics
    );

    fn wait_received(
        &self,
        _shard: u16,
        mut events: RRef<EventList>,
        mut buffer: RRef<StreamBuffer>,
        deadline_ns: u64,
    ) -> Result<Arrived, SocketError> {
        let mut state = self.state();
        events.length = 0;
        buffer.length = 0;
        let round = loop {
            if let Some(round) = state.round.take() {
                break round;
            }
            let left_ns = deadline_ns.saturating_sub(domain_rt::clock::now_ns());
            if left_ns == 0 {
                return Ok(Arrived { events, buffer });
            }
            state.idle = true;
            self.changed.notify_all();
            let left = Duration::from_nanos(left_ns).min(PATIENCE);
            state = self.changed.wait_timeout(state, left).unwrap().0;
        };
        state.idle = false;
        for (slot, event) in events.events.iter_mut().zip(&round.events) {
            *slot = Some(*event);
        }
        events.length = round.events.len() as u32;
        buffer.data[..round.bytes.len()].copy_from_slice(&round.bytes);
        buffer.length = round.bytes.len() as u32;
        for (socket, bytes) in round.late {
            if let Some(pipe) = state.pipes.get_mut(&socket.serial) {
                pipe.arrived.extend(bytes);
            }
        }
        Ok(Arrived { events, buffer })
    }

    fn send_many(&self, _shard: u16, list: &RRef<SendList>) -> Result<u64, SocketError> {
        let mut state = self.state();
        let mut refused = 0;
        let mut start = 0;
        let mut seen = BTreeSet::new();
        for (position, sending) in list.sends[..list.length as usize].iter().flatten().enumerate() {
            let bytes = &list.data[start..sending.end as usize];
            start = sending.end as usize;
            if !seen.insert(sending.socket.serial) {
                state
                    .violations
                    .push(format!("{:?} is in a list twice", sending.socket));
            }
            let refuses = state.refusals != 0 && state.refuses();
            match state.pipes.get_mut(&sending.socket.serial) {
                Some(pipe) if !refuses && pipe.room >= bytes.len() && !pipe.blocked => {
                    pipe.send(bytes);
                }
                _ => refused |= 1 << position,
            }
        }
        Ok(refused)
    }

    fn receive(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<ReceivedBytes, SocketError> {
        self.with(socket, |pipe| pipe.receive(buffer))
    }

    fn send(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<Sent, SocketError> {
        let taken = self.with(socket, |pipe| pipe.send_buffer(&buffer))??;
        Ok(Sent { buffer, taken })
    }

    fn close(&self, socket: SocketId) -> Result<(), SocketError> {
        self.with(socket, |pipe| pipe.closed = true)
    }

    fn abort(&self, socket: SocketId) -> Result<(), SocketError> {
        self.with(socket, |pipe| pipe.aborted = true)
    }
}
