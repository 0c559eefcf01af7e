//! This machine's TCP sockets with the contract of `interface::socket`: a listener that is shared by the shards, and an epoll thread for each.

use anyhow::Result;
use domain_rt::thread::{self, ThreadId, Wake};
use interface::socket::{
    Arrived, EVENT_LIMIT, Endpoints, Event, EventList, ListenOptions, ReceivedBytes, STREAM_BYTES, SendList,
    Sent, SocketError, SocketId, Sockets, StreamBuffer,
};
use rref::RRef;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    serial: u32,
    wants_room: bool,
}

#[derive(Default)]
struct State {
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    serial: u32,
    events: VecDeque<Event>,
    waiter: Option<ThreadId>,
    listener: Option<TcpListener>,
}

struct Shard {
    number: u16,
    epoll: OwnedFd,
    state: Mutex<State>,
}

/// The sockets.
pub struct HostSockets {
    bind: IpAddr,
    shards: Vec<Arc<Shard>>,
    listener: Mutex<Option<TcpListener>>,
}

impl Shard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, index: u32, serial: u32) -> SocketId {
        SocketId {
            shard: self.number,
            index,
            serial,
        }
    }

    /// Turns epoll's events into the interface's, for ever.
    fn watch(&self) {
        let mut found = Vec::with_capacity(256);
        loop {
            found.clear();
            if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut found), None).is_err() {
                continue;
            }
            let mut state = self.state();
            for event in &found {
                let data = event.data.u64();
                let flags = event.flags;
                if data == LISTENER {
                    self.accept(&mut state);
                    continue;
                }
                let (index, serial) = (data as u32, (data >> 32) as u32);
                let Some(Some(connection)) = state.connections.get_mut(index as usize) else {
                    continue;
                };
                if connection.serial != serial {
                    continue;
                }
                let readable = flags.intersects(
                    epoll::EventFlags::IN
                        | epoll::EventFlags::RDHUP
                        | epoll::EventFlags::HUP
                        | epoll::EventFlags::ERR,
                );
                let writable =
                    flags.contains(epoll::EventFlags::OUT) && std::mem::take(&mut connection.wants_room);
                if readable || writable {
                    state.events.push_back(Event {
                        readable,
                        writable,
                        ..Event::of(self.id(index, serial))
                    });
                }
            }
            self.ring(&mut state);
        }
    }

    fn ring(&self, state: &mut State) {
        if !state.events.is_empty()
            && let Some(waiter) = state.waiter.take()
        {
            thread::unpark(waiter);
        }
    }

    fn accept(&self, state: &mut State) {
        loop {
            let accepted = match &state.listener {
                Some(listener) => listener.accept(),
                None => return,
            };
            let Ok((stream, _)) = accepted else { return };
            if stream.set_nonblocking(true).is_err() || stream.set_nodelay(true).is_err() {
                continue;
            }
            state.serial += 1;
            let serial = state.serial;
            let index = match state.free.pop() {
                Some(index) => index,
                None => {
                    state.connections.push(None);
                    (state.connections.len() - 1) as u32
                }
            };
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(u64::from(serial) << 32 | u64::from(index));
            if epoll::add(&self.epoll, &stream, data, flags).is_err() {
                state.free.push(index);
                continue;
            }
            if let Some(slot) = state.connections.get_mut(index as usize) {
                *slot = Some(Connection {
                    stream,
                    serial,
                    wants_room: false,
                });
            }
            let accepted = Some(self.id(index, serial));
            state.events.push_back(Event {
                accepted,
                ..Event::of(self.id(u32::MAX, 0))
            });
        }
    }
}

impl HostSockets {
    /// Sockets for so many shards.
    pub fn new(bind: IpAddr, shards: u16) -> Result<HostSockets> {
        let mut made = Vec::new();
        for number in 0..shards {
            let shard = Arc::new(Shard {
                number,
                epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                state: Mutex::default(),
            });
            let own = shard.clone();
            std::thread::Builder::new()
                .name(format!("epoll-{number}"))
                .spawn(move || {
                    host_platform::attach();
                    own.watch();
                })?;
            made.push(shard);
        }
        Ok(HostSockets {
            bind,
            shards: made,
            listener: Mutex::default(),
        })
    }

    fn shard(&self, number: u16) -> Result<&Shard, SocketError> {
        self.shards
            .get(usize::from(number))
            .map(|shard| &**shard)
            .ok_or(SocketError::NoShard)
    }

    fn with<R>(
        &self,
        socket: SocketId,
        work: impl FnOnce(&mut Connection) -> Result<R, SocketError>,
    ) -> Result<R, SocketError> {
        let mut state = self.shard(socket.shard)?.state();
        match state.connections.get_mut(socket.index as usize) {
            Some(Some(connection)) if connection.serial == socket.serial => work(connection),
            _ => Err(SocketError::NotFound),
        }
    }

    fn remove(&self, socket: SocketId) -> Result<(), SocketError> {
        let mut state = self.shard(socket.shard)?.state();
        if let Some(slot) = state.connections.get_mut(socket.index as usize)
            && slot
                .take_if(|connection| connection.serial == socket.serial)
                .is_some()
        {
            state.free.push(socket.index);
        }
        Ok(())
    }
}

impl Sockets for HostSockets {
    fn shards(&self) -> Result<u16, SocketError> {
        Ok(self.shards.len() as u16)
    }

    fn listen(&self, shard: u16, options: ListenOptions) -> Result<SocketId, SocketError> {
        let mut common = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if common.is_none() {
            let address = SocketAddr::new(options.address.unwrap_or(self.bind), options.port);
            let listener = TcpListener::bind(address).map_err(|_| SocketError::AddressInUse)?;
            listener.set_nonblocking(true).map_err(|_| SocketError::Invalid)?;
            *common = Some(listener);
        }
        let own = common.as_ref().and_then(|listener| listener.try_clone().ok());
        drop(common);
        let shard = self.shard(shard)?;
        let mut state = shard.state();
        state.listener = own;
        if let Some(listener) = &state.listener {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(&shard.epoll, listener, epoll::EventData::new_u64(LISTENER), flags)
                .map_err(|_| SocketError::Full)?;
        }
        Ok(shard.id(u32::MAX, 0))
    }

    fn connect(&self, _shard: u16, _remote: SocketAddr) -> Result<SocketId, SocketError> {
        Err(SocketError::Unreachable)
    }

    socket_double::unsupported!(bind_udp, send_file, send_to, statistics);

    fn wait(
        &self,
        shard: u16,
        mut events: RRef<EventList>,
        deadline_ns: u64,
    ) -> Result<RRef<EventList>, SocketError> {
        let shard = self.shard(shard)?;
        let mut over = false;
        loop {
            let mut state = shard.state();
            let mut length = 0;
            while length < EVENT_LIMIT
                && let Some(event) = state.events.pop_front()
            {
                events.events[length] = Some(event);
                length += 1;
            }
            events.length = length as u32;
            if length > 0 || over {
                return Ok(events);
            }
            state.waiter = Some(thread::id());
            drop(state);
            if thread::park_until(deadline_ns) != Wake::Cancelled {
                over = true;
            }
        }
    }

    fn wait_received(
        &self,
        shard: u16,
        events: RRef<EventList>,
        mut buffer: RRef<StreamBuffer>,
        deadline_ns: u64,
    ) -> Result<Arrived, SocketError> {
        // Each socket's bytes are left to `receive`.
        buffer.length = 0;
        let events = self.wait(shard, events, deadline_ns)?;
        Ok(Arrived { events, buffer })
    }

    fn send_many(&self, _shard: u16, list: &RRef<SendList>) -> Result<u64, SocketError> {
        // Likewise to `send`.
        Ok((1_u64.checked_shl(list.length).unwrap_or(0)).wrapping_sub(1))
    }

    fn receive(
        &self,
        socket: SocketId,
        mut buffer: RRef<StreamBuffer>,
    ) -> Result<ReceivedBytes, SocketError> {
        let (length, finished) = self.with(socket, |connection| {
            let mut length = 0;
            let mut finished = false;
            while length < STREAM_BYTES {
                match connection.stream.read(&mut buffer.data[length..]) {
                    Ok(0) => {
                        finished = length == 0;
                        break;
                    }
                    Ok(count) => length += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) if length > 0 => break,
                    Err(_) => return Err(SocketError::Reset),
                }
            }
            Ok((length, finished))
        })?;
        if length > 0 {
            // There may be more, or the end, of which epoll won't tell again.
            let mut state = self.shard(socket.shard)?.state();
            state.events.push_back(Event {
                readable: true,
                ..Event::of(socket)
            });
        }
        buffer.length = length as u32;
        Ok(ReceivedBytes {
            buffer,
            finished,
            from: None,
        })
    }

    fn send(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<Sent, SocketError> {
        let taken = self.with(socket, |connection| {
            let data = buffer
                .data
                .get(..buffer.length as usize)
                .ok_or(SocketError::Invalid)?;
            let mut taken = 0;
            while taken < data.len() {
                // Before the attempt: epoll tells of room once.
                connection.wants_room = true;
                match connection.stream.write(&data[taken..]) {
                    Ok(count) => taken += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(SocketError::Reset),
                }
            }
            connection.wants_room = false;
            Ok(taken)
        })?;
        Ok(Sent {
            buffer,
            taken: taken as u32,
        })
    }

    fn close(&self, socket: SocketId) -> Result<(), SocketError> {
        self.remove(socket)
    }

    fn abort(&self, socket: SocketId) -> Result<(), SocketError> {
        self.remove(socket)
    }

    fn endpoints(&self, socket: SocketId) -> Result<Endpoints, SocketError> {
        self.with(socket, |connection| {
            let local = connection
                .stream
                .local_addr()
                .map_err(|_| SocketError::NotFound)?;
            let remote = connection.stream.peer_addr().map_err(|_| SocketError::NotFound)?;
            Ok(Endpoints { local, remote })
        })
    }

    fn address(&self, index: u16) -> Result<Option<(IpAddr, u8)>, SocketError> {
        Ok((index == 0).then_some((self.bind, 32)))
    }
}
