//! The stack's share of HTTP requests on kept connections, for counting instructions:
//!
//! ```text
//! cargo build --profile firmware -p netstack --example request_path
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect='request_path::counted*' \
//!     target/firmware/examples/request_path 20 1000
//! ```
//! The count divided by connections times rounds is one request: a segment in, its bytes to the application, 612 bytes and
//! a header from it, and a segment out.
#![forbid(unsafe_code)]

use interface::net::{DeviceInfo, MacAddress};
use interface::path::PacketProcessor;
use interface::socket::{EventList, ListenOptions, STREAM_BYTES, SocketId, Sockets, StreamBuffer};
use netstack::stack::{Shared, Stack};
use netstack::transmit::{SentSegment, link_header};
use rref::packet::{ChecksumState, Verdict};
use rref::{Packet, PacketBatch, RRef};
use std::sync::Arc;

const STACK: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const REQUEST: &[u8] = b"GET /612.txt HTTP/1.1\r\nHost: 10.82.99.10\r\n\r\n";
const RESPONSE_BYTES: usize = 612 + 160;

#[inline(never)]
fn counted_process(stack: &Shared, packets: PacketBatch) -> (PacketBatch, bool) {
    let Ok(processed) = stack.process(0, packets) else {
        panic!("shard 0")
    };
    (processed.packets, processed.more)
}

#[inline(never)]
fn counted_wait(stack: &Shared, events: RRef<EventList>) -> RRef<EventList> {
    stack.wait(0, events, 0).expect("shard 0")
}

#[inline(never)]
fn counted_receive(stack: &Shared, socket: SocketId, buffer: RRef<StreamBuffer>) -> RRef<StreamBuffer> {
    let Ok(received) = stack.receive(socket, buffer) else {
        panic!("open")
    };
    received.buffer
}

#[inline(never)]
fn counted_send(stack: &Shared, socket: SocketId, buffer: RRef<StreamBuffer>) -> RRef<StreamBuffer> {
    let Ok(sent) = stack.send(socket, buffer) else {
        panic!("open")
    };
    assert_eq!(sent.taken, sent.buffer.length);
    sent.buffer
}

struct Peer {
    port: u16,
    sequence: u32,
    acknowledgement: u32,
}

impl Peer {
    fn write(&self, packet: &mut Packet, flags: u8, payload: &[u8]) {
        packet.reset();
        let frame = packet.resize(54 + payload.len());
        frame[..14].copy_from_slice(&link_header(STACK, PEER, true));
        frame[14..34].copy_from_slice(&[
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
        ]);
        frame[16..18].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
        frame[34..36].copy_from_slice(&self.port.to_be_bytes());
        frame[36..38].copy_from_slice(&80u16.to_be_bytes());
        frame[38..42].copy_from_slice(&self.sequence.to_be_bytes());
        frame[42..46].copy_from_slice(&self.acknowledgement.to_be_bytes());
        // A SYN's payload here is its one option.
        let header_bytes = if flags == 0x02 { 0x60 } else { 0x50 };
        frame[46..54].copy_from_slice(&[header_bytes, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame[54..].copy_from_slice(payload);
        packet.verdict = Verdict::Received;
        packet.checksum = ChecksumState::Good;
    }
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse().expect("a number"));
    let connections: u16 = arguments.next().unwrap_or(20);
    let rounds: u32 = u32::from(arguments.next().unwrap_or(1000));
    let _attached = host_platform::attach();
    let information = DeviceInfo {
        mac: MacAddress(STACK),
        queues: 1,
        frame_limit_bytes: 9014,
        receive_checksum: true,
        transmit_checksum: true,
    };
    let config = netstack::config::read("[network]\nipv4 = \"10.0.0.1/24\"\n").expect("right");
    let stack = Shared(Arc::new(Stack::new(config, &information)));
    let options = ListenOptions {
        address: None,
        port: 80,
        backlog: 1024,
    };
    stack.listen(0, options).expect("free");
    let mut batch = PacketBatch::new().expect("memory");
    while !batch.is_full() {
        assert!(batch.push(Packet::allocate().expect("memory")).is_ok());
    }
    let mut events = RRef::new(EventList {
        length: 0,
        events: [None; 64],
    })
    .expect("memory");
    let mut request = RRef::new(StreamBuffer {
        length: 0,
        data: [0; STREAM_BYTES],
    })
    .expect("memory");
    let mut response = RRef::new(StreamBuffer {
        length: RESPONSE_BYTES as u32,
        data: [b'x'; STREAM_BYTES],
    })
    .expect("memory");
    let mut peers: Vec<Peer> = (0..connections)
        .map(|number| Peer {
            port: 20_000 + number,
            sequence: 1,
            acknowledgement: 0,
        })
        .collect();
    for peer in &mut peers {
        peer.write(batch.get_mut(0).expect("full"), 0x02, &[2, 4, 0x05, 0xb4]);
        (batch, _) = counted_process(&stack, batch);
        let answer = SentSegment::read(&batch.get(0).expect("full").frame()[14..]).expect("a SYN|ACK");
        peer.sequence += 1;
        peer.acknowledgement = answer.sequence.wrapping_add(1);
        peer.write(batch.get_mut(0).expect("full"), 0x10, &[]);
        (batch, _) = counted_process(&stack, batch);
        events = counted_wait(&stack, events);
    }
    for _ in 0..rounds {
        for some in peers.chunks_mut(32) {
            for (index, peer) in some.iter_mut().enumerate() {
                peer.write(batch.get_mut(index).expect("full"), 0x18, REQUEST);
                peer.sequence = peer.sequence.wrapping_add(REQUEST.len() as u32);
            }
            (batch, _) = counted_process(&stack, batch);
            events = counted_wait(&stack, events);
            assert_eq!(events.length as usize, some.len());
            for index in 0..some.len() {
                let socket = events.events[index].expect("filled").socket;
                request = counted_receive(&stack, socket, request);
                response = counted_send(&stack, socket, response);
            }
            (batch, _) = counted_process(&stack, batch);
            let mut sent = 0;
            for packet in batch.iter().filter(|packet| packet.verdict == Verdict::Transmit) {
                let port = u16::from_be_bytes([packet.frame()[36], packet.frame()[37]]);
                let segment = SentSegment::read(&packet.frame()[14..]).expect("TCP");
                let peer = some.iter_mut().find(|peer| peer.port == port).expect("a peer");
                assert_eq!(segment.sequence, peer.acknowledgement);
                peer.acknowledgement = peer.acknowledgement.wrapping_add(segment.payload_bytes);
                sent += 1;
            }
            assert_eq!(sent, some.len());
        }
    }
    println!("{} requests", rounds * u32::from(connections));
}
