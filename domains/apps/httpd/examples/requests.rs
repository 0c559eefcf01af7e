//! A shard under load from a stack that does nothing, to count the server's instructions by a profiler:
//!
//! ```text
//! cargo build --profile firmware -p httpd --example requests
//! valgrind --tool=callgrind target/firmware/examples/requests 20000
//! ```
//!
//! 20 connections ask for a page of 612 bytes, over and over; with `distinct` as a second argument no two requests are the same.
//! Calls go through the generated proxies. Each wait gives an event for every connection. What is left when `Stack`'s own functions
//! are subtracted is the server and its crossings.

#![forbid(unsafe_code)]

use domain_rt::connect;
use httpd::collector::Collector;
use httpd::config::Config;
use httpd::counters::Counters;
use httpd::server::{Shard, Shared};
use httpd::site::Site;
use interface::socket::{
    Event, EventList, ListenOptions, ReceivedBytes, Sent, SocketError, SocketId, Sockets, StreamBuffer,
};
use rref::{BootBytes, RRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CONNECTIONS: u32 = 20;

/// Answers every call at once.
struct Stack {
    requests: u64,
    distinct: bool,
    received: AtomicU64,
    sent_bytes: AtomicU64,
    accepted: AtomicU64,
}

fn socket(index: u32) -> SocketId {
    SocketId {
        shard: 0,
        index,
        serial: 1,
    }
}

impl Sockets for Stack {
    fn shards(&self) -> Result<u16, SocketError> {
        Ok(1)
    }

    fn listen(&self, _shard: u16, _options: ListenOptions) -> Result<SocketId, SocketError> {
        Ok(socket(CONNECTIONS))
    }

    socket_double::unsupported!(connect, bind_udp, wait_received, send_many, send_to);
    socket_double::unsupported!(endpoints, address, statistics);

    #[inline(never)]
    fn wait(&self, _: u16, mut events: RRef<EventList>, _: u64) -> Result<RRef<EventList>, SocketError> {
        let count = self.received.load(Ordering::Relaxed);
        if count >= self.requests {
            println!(
                "{count} requests, {} bytes each",
                self.sent_bytes.load(Ordering::Relaxed) / count.max(1)
            );
            std::process::exit(0);
        }
        let first = self.accepted.fetch_add(1, Ordering::Relaxed) == 0;
        events.length = CONNECTIONS;
        for (index, slot) in (0..CONNECTIONS).zip(&mut events.events) {
            *slot = Some(Event {
                accepted: first.then(|| socket(index)),
                readable: true,
                ..Event::of(socket(if first { CONNECTIONS } else { index }))
            });
        }
        Ok(events)
    }

    #[inline(never)]
    fn receive(&self, _: SocketId, mut buffer: RRef<StreamBuffer>) -> Result<ReceivedBytes, SocketError> {
        let count = self.received.load(Ordering::Relaxed);
        self.received.store(count + 1, Ordering::Relaxed);
        if self.distinct || count == 0 {
            let text = format!("GET /612.html HTTP/1.1\r\nHost: 10.82.99.10\r\nX: {count:08}\r\n\r\n");
            let text = if self.distinct {
                text
            } else {
                text.replace("X: 00000000\r\n", "")
            };
            buffer.data[..text.len()].copy_from_slice(text.as_bytes());
            buffer.length = text.len() as u32;
        }
        Ok(ReceivedBytes {
            buffer,
            finished: false,
            from: None,
        })
    }

    #[inline(never)]
    fn send(&self, _: SocketId, buffer: RRef<StreamBuffer>) -> Result<Sent, SocketError> {
        let sum = self.sent_bytes.load(Ordering::Relaxed) + u64::from(buffer.length);
        self.sent_bytes.store(sum, Ordering::Relaxed);
        let taken = buffer.length;
        Ok(Sent { buffer, taken })
    }

    fn send_file(&self, _socket: SocketId, bytes: BootBytes) -> Result<u32, SocketError> {
        Ok(bytes.as_slice().len() as u32)
    }

    fn close(&self, _socket: SocketId) -> Result<(), SocketError> {
        Ok(())
    }

    fn abort(&self, _socket: SocketId) -> Result<(), SocketError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    host_platform::attach();
    host_platform::add_boot_file(
        "site/612.html",
        include_bytes!("../../../../config/site/612.html"),
    );
    let stack: &'static Stack = Box::leak(Box::new(Stack {
        requests,
        distinct: arguments.next().is_some_and(|text| text == "distinct"),
        received: AtomicU64::new(0),
        sent_bytes: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
    }));
    host_platform::provide::<dyn Sockets>("sockets", stack);
    let counters = Arc::new(Counters::default());
    let shared = Shared {
        config: Config::default(),
        site: Site::load(),
        collector: Collector::start(vec![counters.clone()]).map_err(|_| "no memory for threads")?,
        shards: 1,
    };
    let sockets = connect::<dyn Sockets>("sockets", 0).map_err(|error| error.to_string())?;
    serving::run(&mut Shard::new(0, Arc::new(shared), counters, sockets, None))
}
