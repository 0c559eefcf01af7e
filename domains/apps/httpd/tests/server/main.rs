//! The whole server over a stack in memory, through real proxies: threads, events, crossings, metrics.
#![forbid(unsafe_code)]

mod sources;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use interface::net::NetDevice;
use interface::socket::{
    EVENT_LIMIT, Event, EventList, ListenOptions, ReceivedBytes, Sent, SocketError, SocketId,
    SocketStatistics, Sockets, StreamBuffer,
};
use interface::supervise::Supervisor;
use rref::{BootBytes, RRef};
use socket_double::Pipe;
use sources::{DEVICE_HANGS, DEVICE_USE, Device, Overseer};

const SHARDS: u16 = 3;
/// A shard that one test fills up, and no other uses.
const CROWDED: u16 = 2;
/// What a connection takes before its client reads.
const TRANSMIT_BYTES: usize = 5000;
const LARGE: usize = 3_000_000;

#[derive(Default)]
struct Shard {
    listener: Option<SocketId>,
    listen_attempts: u32,
    events: VecDeque<Event>,
    pipes: HashMap<u32, Pipe>,
}

/// A stack without a network: each connection is two queues of bytes.
#[derive(Default)]
struct Stack {
    shards: [Mutex<Shard>; SHARDS as usize],
    changed: [Condvar; SHARDS as usize],
    next: AtomicU32,
}

static STACK: LazyLock<Stack> = LazyLock::new(Stack::default);

impl Stack {
    fn shard(&self, number: u16) -> Result<MutexGuard<'_, Shard>, SocketError> {
        Ok(self
            .shards
            .get(usize::from(number))
            .ok_or(SocketError::NoShard)?
            .lock()
            .unwrap())
    }

    fn pipe<R>(&self, socket: SocketId, work: impl FnOnce(&mut Pipe) -> R) -> Result<R, SocketError> {
        let mut shard = self.shard(socket.shard)?;
        let result = shard
            .pipes
            .get_mut(&socket.serial)
            .map(work)
            .ok_or(SocketError::NotFound);
        self.changed[usize::from(socket.shard)].notify_all();
        result
    }

    fn tell(&self, event: Event) {
        let number = event.socket.shard;
        self.shard(number).unwrap().events.push_back(event);
        self.changed[usize::from(number)].notify_all();
    }
}

impl Sockets for Stack {
    fn shards(&self) -> Result<u16, SocketError> {
        Ok(SHARDS)
    }

    /// The first attempt fails as it does while the sockets of a dead predecessor are still there.
    fn listen(&self, shard: u16, options: ListenOptions) -> Result<SocketId, SocketError> {
        assert_eq!(options.port, 8080);
        let listener = SocketId {
            shard,
            index: 0,
            serial: 0,
        };
        let mut state = self.shard(shard)?;
        state.listen_attempts += 1;
        if state.listen_attempts == 1 {
            return Err(SocketError::AddressInUse);
        }
        state.listener = Some(listener);
        self.changed[usize::from(shard)].notify_all();
        Ok(listener)
    }

    socket_double::unsupported!(connect, bind_udp, wait_received, send_many, send_to);
    socket_double::unsupported!(endpoints, address);

    fn wait(
        &self,
        shard: u16,
        mut events: RRef<EventList>,
        deadline_ns: u64,
    ) -> Result<RRef<EventList>, SocketError> {
        let mut state = self.shard(shard)?;
        while state.events.is_empty() {
            let left = deadline_ns
                .saturating_sub(domain_rt::clock::now_ns())
                .min(1_000_000_000);
            if left == 0 {
                break;
            }
            let changed = &self.changed[usize::from(shard)];
            state = changed.wait_timeout(state, Duration::from_nanos(left)).unwrap().0;
        }
        let count = state.events.len().min(EVENT_LIMIT);
        events.length = count as u32;
        for slot in &mut events.events[..count] {
            *slot = state.events.pop_front();
        }
        Ok(events)
    }

    fn receive(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<ReceivedBytes, SocketError> {
        self.pipe(socket, |pipe| pipe.receive(buffer))
    }

    fn send(&self, socket: SocketId, buffer: RRef<StreamBuffer>) -> Result<Sent, SocketError> {
        let taken = self.pipe(socket, |pipe| pipe.send_buffer(&buffer))??;
        Ok(Sent { buffer, taken })
    }

    fn send_file(&self, socket: SocketId, bytes: BootBytes) -> Result<u32, SocketError> {
        self.pipe(socket, |pipe| pipe.send(bytes.as_slice()))
    }

    fn close(&self, socket: SocketId) -> Result<(), SocketError> {
        self.pipe(socket, |pipe| pipe.closed = true)
    }

    fn abort(&self, socket: SocketId) -> Result<(), SocketError> {
        self.pipe(socket, |pipe| pipe.aborted = true)
    }

    fn statistics(&self) -> Result<SocketStatistics, SocketError> {
        Ok(SocketStatistics {
            accepted: 42,
            ..SocketStatistics::default()
        })
    }
}

fn large() -> Vec<u8> {
    (0..LARGE as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// The server runs once for all tests of the process.
static SERVER: LazyLock<()> = LazyLock::new(|| {
    host_platform::attach();
    host_platform::provide::<dyn Sockets>("sockets", &*STACK);
    host_platform::provide::<dyn Supervisor>("supervisor", &Overseer);
    host_platform::provide::<dyn NetDevice>("nic", &Device);
    let config =
        "[httpd]\nport = 8080\nconnections = 300\nrequest_timeout_ms = 300\nidle_timeout_ms = 60000\n";
    host_platform::add_boot_file("config/appliance.toml", config.as_bytes());
    host_platform::add_boot_file("site.time", b"784111777\n");
    host_platform::add_boot_file("site/index.html", b"<h1>hello</h1>\n");
    host_platform::add_boot_file("site/large.bin", &large());
    httpd::start().expect("everything it needs is provided");
    for number in 0..SHARDS {
        let mut shard = STACK.shard(number).unwrap();
        while shard.listener.is_none() {
            shard = STACK.changed[usize::from(number)].wait(shard).unwrap();
        }
    }
});

/// The other end of a connection.
struct Client {
    socket: SocketId,
}

/// Long enough that only a server that doesn't answer takes it.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    fn connect(shard: u16) -> Client {
        LazyLock::force(&SERVER);
        host_platform::attach();
        let serial = STACK.next.fetch_add(1, Ordering::Relaxed) + 1;
        let socket = SocketId {
            shard,
            index: serial,
            serial,
        };
        let mut state = STACK.shard(shard).unwrap();
        let listener = state.listener.expect("the server listens");
        let pipe = Pipe {
            end_comes_alone: true,
            ..Pipe::with_room(TRANSMIT_BYTES)
        };
        state.pipes.insert(serial, pipe);
        drop(state);
        STACK.tell(Event {
            accepted: Some(socket),
            ..Event::of(listener)
        });
        Client { socket }
    }

    fn write(&self, bytes: &[u8]) {
        STACK
            .pipe(self.socket, |pipe| pipe.arrived.extend(bytes))
            .unwrap();
        STACK.tell(Event {
            readable: true,
            ..Event::of(self.socket)
        });
    }

    fn close(&self) {
        STACK.pipe(self.socket, |pipe| pipe.client_closed = true).unwrap();
        STACK.tell(Event {
            readable: true,
            ..Event::of(self.socket)
        });
    }

    /// Reads until `done` says so of all that was read, or the server has closed.
    fn read_until(&self, mut done: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let mut all = Vec::new();
        let started = Instant::now();
        loop {
            let number = usize::from(self.socket.shard);
            let mut state = STACK.shard(self.socket.shard).unwrap();
            let pipe = state.pipes.get_mut(&self.socket.serial).unwrap();
            if pipe.answers.is_empty() && !pipe.closed && !pipe.aborted {
                assert!(
                    started.elapsed() < PATIENCE,
                    "no answer; so far {}",
                    String::from_utf8_lossy(&all)
                );
                drop(
                    STACK.changed[number]
                        .wait_timeout(state, Duration::from_millis(10))
                        .unwrap(),
                );
                continue;
            }
            let over = pipe.answers.is_empty();
            all.append(&mut pipe.read());
            let was_blocked = std::mem::take(&mut pipe.blocked);
            drop(state);
            if was_blocked {
                STACK.tell(Event {
                    writable: true,
                    ..Event::of(self.socket)
                });
            }
            if over || done(&all) {
                return all;
            }
        }
    }

    /// Head and body of the next answer; there must be one.
    fn answer(&self) -> (String, Vec<u8>) {
        let bytes = self.read_until(|bytes| split(bytes).is_some());
        split(&bytes).unwrap_or_else(|| panic!("no whole answer: {}", String::from_utf8_lossy(&bytes)))
    }

    fn get(&self, target: &str) -> (String, Vec<u8>) {
        self.write(format!("GET {target} HTTP/1.1\r\nHost: appliance\r\n\r\n").as_bytes());
        self.answer()
    }

    fn is_closed(&self) -> bool {
        STACK
            .pipe(self.socket, |pipe| pipe.closed || pipe.aborted)
            .unwrap()
    }
}

fn split(bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head
        .split("Content-Length: ")
        .nth(1)?
        .split('\r')
        .next()?
        .parse::<usize>()
        .unwrap();
    let body = bytes[end..].to_vec();
    (body.len() >= length).then_some((head, body))
}

#[test]
fn a_page_on_every_shard() {
    for shard in 0..CROWDED {
        let client = Client::connect(shard);
        for _ in 0..3 {
            let (head, body) = client.get("/");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(
                head.contains("\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
                "{head}"
            );
            assert_eq!(body, b"<h1>hello</h1>\n");
        }
        assert!(!client.is_closed());
    }
}

#[test]
fn a_large_file_goes_as_its_client_reads() {
    let client = Client::connect(0);
    let (head, body) = client.get("/large.bin");
    assert!(head.contains("ETag: "), "{head}");
    assert!(body == large(), "the file's bytes are different");
    assert_eq!(client.get("/").1, b"<h1>hello</h1>\n");
}

#[test]
fn a_request_before_its_connection_is_handed_over_is_answered() {
    let client = Client::connect(1);
    STACK
        .pipe(client.socket, |pipe| {
            pipe.arrived.extend(b"GET / HTTP/1.0\r\n\r\n")
        })
        .unwrap();
    STACK.tell(Event {
        readable: true,
        ..Event::of(client.socket)
    });
    let bytes = client.read_until(|_| false);
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK"));
    assert!(client.is_closed());
}

/// As `nc -N` does: its end is told of together with its request, once.
#[test]
fn a_client_that_closes_with_its_request_is_answered_and_closed() {
    let client = Client::connect(0);
    let request = b"GET / HTTP/1.1\r\nHost: appliance\r\n\r\n";
    STACK
        .pipe(client.socket, |pipe| {
            pipe.arrived.extend(request);
            pipe.client_closed = true;
        })
        .unwrap();
    STACK.tell(Event {
        readable: true,
        ..Event::of(client.socket)
    });
    assert!(client.read_until(|_| false).starts_with(b"HTTP/1.1 200"));
    assert!(client.is_closed());
}

#[test]
fn a_client_that_closes_is_closed() {
    let client = Client::connect(0);
    client.get("/");
    client.close();
    assert_eq!(client.read_until(|_| false), b"");
    assert!(client.is_closed());
}

#[test]
fn a_request_that_stays_incomplete_is_ended() {
    let client = Client::connect(1);
    client.write(b"GET / HTTP/1.1\r\n");
    let bytes = client.read_until(|_| false);
    assert!(
        bytes.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
}

/// The limit is 300 over three shards.
#[test]
fn connections_over_the_limit_are_turned_away() {
    let clients: Vec<_> = (0..101).map(|_| Client::connect(CROWDED)).collect();
    let last = clients.last().unwrap();
    let bytes = last.read_until(|_| false);
    assert!(
        bytes.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
    assert!(clients[99].get("/").0.starts_with("HTTP/1.1 200"));
    // One that goes makes room for another.
    STACK.tell(Event {
        closed: true,
        ..Event::of(clients[0].socket)
    });
    assert!(Client::connect(CROWDED).get("/").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn metrics_come_from_every_source_that_answers() {
    let _alone = DEVICE_USE.lock().unwrap();
    let (head, body) = Client::connect(1).get("/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let text = String::from_utf8(body).unwrap();
    for line in [
        "redleaf_domain_restarts_total{domain=\"ixgbe\"} 60",
        "redleaf_tcp_accepted_total 42",
        "redleaf_nic_up 1",
        "# balancer: the manifest grants no such import",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(text.contains("redleaf_http_requests_total{code=\"200\"}"));
}

/// While the card's driver is away, its numbers are left out; the rest, and every other page, comes all the same.
#[test]
fn a_source_that_hangs_holds_up_nobody() {
    let _alone = DEVICE_USE.lock().unwrap();
    DEVICE_HANGS.store(true, Ordering::Relaxed);
    // On a busy host the others may be late too, so they are asked again until they are not.
    let (other, text) = (0..20)
        .map(|_| {
            let waiting = Client::connect(1);
            waiting.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
            let other = Client::connect(1).get("/").0;
            (other, String::from_utf8(waiting.answer().1).unwrap())
        })
        .find(|(_, text)| text.matches("no answer in time").count() == 1)
        .expect("only the device hangs");
    DEVICE_HANGS.store(false, Ordering::Relaxed);
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    assert!(text.contains("# nic: no answer in time\n"), "{text}");
    assert!(text.contains("redleaf_deaths_total 60\n"), "{text}");
    assert!(!text.contains("redleaf_nic_up"), "{text}");
}
