//! Drives connections with small requests and nothing else, to count instructions by a profiler:
//!
//! ```text
//! cargo build --profile firmware -p httpd --example requests
//! valgrind --tool=callgrind target/firmware/examples/requests 20000
//! ```
//!
//! The transport is memory, so what is counted is the server's own work: events, crossings and the stack come on top.

#![forbid(unsafe_code)]

use httpd::answer::Context;
use httpd::clock::Clock;
use httpd::counters::Counters;
use httpd::pump::{Outcome, Received, Stream, Timeouts, Transport};
use httpd::repeat::Repeats;
use httpd::site::Site;
use rref::BootBytes;

const REQUEST: &[u8] = b"GET /612.html HTTP/1.1\r\nHost: 10.82.99.10\r\n\r\n";
const CONNECTIONS: usize = 20;

/// A peer that asks once each time and takes everything.
struct Peer {
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
}

impl Transport for Peer {
    type Error = std::convert::Infallible;

    fn receive(&mut self) -> Result<Received, Self::Error> {
        Ok(Received {
            length: REQUEST.len(),
            more: false,
            finished: false,
        })
    }

    fn buffers(&mut self) -> Result<(&[u8], &mut [u8]), Self::Error> {
        Ok((&self.input, &mut self.output))
    }

    fn send(&mut self, length: usize) -> Result<usize, Self::Error> {
        self.sent += length;
        Ok(length)
    }

    fn send_file(&mut self, part: BootBytes) -> Result<usize, Self::Error> {
        Ok(part.as_slice().len())
    }
}

/// One event of one connection, as a shard handles it.
#[inline(never)]
fn serve(stream: &mut Stream, peer: &mut Peer, context: &Context<'_>, timeouts: &Timeouts) -> bool {
    let Ok(outcome) = if stream.note(true, false) {
        stream.drive(peer, context)
    } else {
        Ok(Outcome::Waiting)
    };
    stream.renew_deadline(1, timeouts);
    outcome == Outcome::Waiting
}

fn main() {
    let count: usize = std::env::args()
        .nth(1)
        .map_or(20_000, |text| text.parse().unwrap_or(20_000));
    host_platform::attach();
    host_platform::add_boot_file(
        "site/612.html",
        include_bytes!("../../../../config/site/612.html"),
    );
    let context = Context {
        site: &Site::load(),
        clock: &Clock::new(784_111_777),
        counters: &Counters::default(),
        repeats: &Repeats::new(),
        header_bytes: 8192,
        body_bytes: 65_536,
    };
    let timeouts = Timeouts {
        request_ns: 1000,
        idle_ns: 1000,
    };
    let mut peer = Peer {
        input: vec![0; 16 * 1024],
        output: vec![0; 16 * 1024],
        sent: 0,
    };
    peer.input[..REQUEST.len()].copy_from_slice(REQUEST);
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| Stream::new()).collect();
    for index in 0..count {
        assert!(serve(
            &mut streams[index % CONNECTIONS],
            &mut peer,
            &context,
            &timeouts
        ));
    }
    println!("{count} requests, {} bytes each", peer.sent / count.max(1));
}
