//! Transfers over a bad wire, against smoltcp as the peer: whatever the wire does, the bytes arrive.

use crate::lab::{CONFIG, Lab, PEER_MAC};
use interface::socket::{SocketId, Sockets};
use proptest::prelude::*;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

/// What a wire does to frames, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Faults {
    drop: u32,
    duplicate: u32,
    reorder: u32,
    corrupt: u32,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn happens(&mut self, thousandths: u32) -> bool {
        self.next() % 1000 < u64::from(thousandths)
    }
}

#[derive(Default)]
struct Port {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    mtu: usize,
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;
    fn receive(&mut self, _now: Instant) -> Option<(Received, Sent<'_>)> {
        Some((Received(self.received.pop_front()?), Sent(&mut self.sent)))
    }
    fn transmit(&mut self, _now: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

struct Transfer {
    lab: Lab,
    port: Port,
    interface: Interface,
    set: SocketSet<'static>,
    handle: SocketHandle,
    random: Random,
    faults: Faults,
    socket: Option<SocketId>,
    /// Frames that are delayed behind the next one of their direction, or until nothing else is on its way.
    held: [Vec<Vec<u8>>; 2],
}

const LATENCY_NS: u64 = 200_000;

/// Directions of the wire.
const TO_STACK: usize = 0;
const TO_PEER: usize = 1;

impl Transfer {
    fn new(config: &str, mtu: usize, faults: Faults, seed: u64) -> Transfer {
        let lab = Lab::new(config);
        lab.listen(80, 8);
        let mut port = Port {
            mtu,
            ..Port::default()
        };
        let now = Instant::from_micros((lab.now_ns / 1000) as i64);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(PEER_MAC)));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port, now);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::v4(10, 82, 99, 20), 24))
                .expect("room");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 * 1024]);
        let mut set = SocketSet::new(vec![]);
        let handle = set.add(tcp::Socket::new(buffer(), buffer()));
        set.get_mut::<tcp::Socket<'_>>(handle)
            .connect(interface.context(), (IpAddress::v4(10, 82, 99, 10), 80), 40_000)
            .expect("a closed socket connects");
        Transfer {
            lab,
            port,
            interface,
            set,
            handle,
            random: Random(seed | 1),
            faults,
            socket: None,
            held: [vec![], vec![]],
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros((self.lab.now_ns / 1000) as i64)
    }

    /// The peer's end of the connection.
    fn peer(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }

    /// What has arrived at the peer.
    fn receive(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let socket = self.peer();
        while socket.can_recv() {
            let take = |bytes: &mut [u8]| {
                received.extend_from_slice(bytes);
                (bytes.len(), ())
            };
            socket.recv(take).expect("open");
        }
        received
    }

    fn pass(&mut self, direction: usize, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        if frames.is_empty() {
            return std::mem::take(&mut self.held[direction]);
        }
        let mut passed = Vec::new();
        for mut frame in frames {
            if self.random.happens(self.faults.drop) {
                continue;
            }
            if self.random.happens(self.faults.corrupt) {
                let at = self.random.next() as usize % frame.len();
                frame[at] ^= 1 << (self.random.next() % 8);
            }
            if self.random.happens(self.faults.duplicate) {
                passed.push(frame.clone());
            }
            if self.random.happens(self.faults.reorder) {
                self.held[direction].push(frame);
                continue;
            }
            passed.push(frame);
            passed.append(&mut self.held[direction]);
        }
        passed
    }

    /// One round of both ends; `serve` is the application's turn. False when nothing moved.
    fn step(&mut self, serve: &mut impl FnMut(&Lab, SocketId)) -> bool {
        let now = self.now();
        self.interface.poll(now, &mut self.port, &mut self.set);
        let sent = std::mem::take(&mut self.port.sent);
        let frames = self.pass(TO_STACK, sent);
        let mut moved = !frames.is_empty();
        let mut answers = self.lab.exchange(&frames);
        for event in self.lab.events() {
            moved = true;
            if event.accepted.is_some() {
                self.socket = event.accepted;
            }
            assert!(
                !event.closed || self.socket != Some(event.socket),
                "closed too early"
            );
        }
        if let Some(socket) = self.socket {
            serve(&self.lab, socket);
            answers.extend(self.lab.exchange(&[]));
        }
        moved |= !answers.is_empty();
        let answers = self.pass(TO_PEER, answers);
        moved |= !answers.is_empty();
        self.port.received.extend(answers);
        if moved {
            self.lab.now_ns += LATENCY_NS;
        } else {
            let peer = self
                .interface
                .poll_at(now, &self.set)
                .map_or(u64::MAX, |at| at.total_micros() as u64 * 1000);
            let next = self.lab.wake_ns.min(peer).max(self.lab.now_ns + LATENCY_NS);
            assert_ne!(next, u64::MAX, "both ends wait for ever");
            self.lab.now_ns = next;
        }
        moved
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn download(config: &str, mtu: usize, faults: Faults, seed: u64, length: usize) -> u64 {
    let mut transfer = Transfer::new(config, mtu, faults, seed);
    let data = content(length);
    let begin = transfer.lab.now_ns;
    let (mut offset, mut got) = (0, Vec::new());
    for _ in 0..200_000 {
        transfer.step(&mut |lab, socket| {
            while offset < data.len() {
                let end = data.len().min(offset + interface::socket::STREAM_BYTES);
                let taken = lab.send(socket, &data[offset..end]);
                offset += taken;
                if offset < end {
                    break;
                }
            }
        });
        got.append(&mut transfer.receive());
        if got.len() >= length {
            break;
        }
    }
    assert!(got == data, "{} of {length} bytes arrived right", got.len());
    transfer.lab.now_ns - begin
}

fn upload(faults: Faults, seed: u64, length: usize) -> u64 {
    let mut transfer = Transfer::new(CONFIG, 1500, faults, seed);
    let data = content(length);
    let begin = transfer.lab.now_ns;
    let (mut offset, mut got) = (0, Vec::new());
    for _ in 0..200_000 {
        let socket = transfer.peer();
        if socket.can_send() {
            offset += socket.send_slice(&data[offset..]).expect("open");
        }
        transfer.step(&mut |lab, socket| {
            loop {
                let (some, _) = lab.receive(socket);
                if some.is_empty() {
                    break;
                }
                got.extend_from_slice(&some);
            }
        });
        if got.len() >= length {
            break;
        }
    }
    assert!(got == data, "{} of {length} bytes arrived right", got.len());
    transfer.lab.now_ns - begin
}

const NONE: Faults = Faults {
    drop: 0,
    duplicate: 0,
    reorder: 0,
    corrupt: 0,
};
const ONE_PERCENT: Faults = Faults {
    drop: 10,
    duplicate: 10,
    reorder: 10,
    corrupt: 10,
};

#[test]
fn a_good_wire_carries_both_ways() {
    let time = download(CONFIG, 1500, NONE, 1, 4_000_000);
    println!("download: 4 MB in {} ms", time / 1_000_000);
    let time = upload(NONE, 1, 4_000_000);
    println!("upload: 4 MB in {} ms", time / 1_000_000);
}

#[test]
fn jumbo_frames_are_runs_of_packets() {
    let config = CONFIG.replace("[tcp]", "mtu = 9000\n[tcp]");
    let time = download(&config, 9000, NONE, 1, 2_000_000);
    println!("jumbo download: 2 MB in {} ms", time / 1_000_000);
}

/// An answer that fits into one segment of the network, and not into one packet.
#[test]
fn answers_between_a_packet_and_a_jumbo_frame() {
    let config = CONFIG.replace("[tcp]", "mtu = 9000\n[tcp]");
    for length in [1_800, 1_900, 2_000, 3_000, 8_900] {
        download(&config, 9000, NONE, 1, length);
    }
}

/// Show 7 of the appliance.
#[test]
fn one_percent_of_each_fault() {
    let time = download(CONFIG, 1500, ONE_PERCENT, 7, 4_000_000);
    println!("download: 4 MB in {} ms", time / 1_000_000);
    let time = upload(ONE_PERCENT, 7, 2_000_000);
    println!("upload: 2 MB in {} ms", time / 1_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn bytes_arrive_whatever_the_wire_does(
        drop in 0u32..80, duplicate in 0u32..80, reorder in 0u32..80, corrupt in 0u32..40, seed: u64
    ) {
        let faults = Faults { drop, duplicate, reorder, corrupt };
        download(CONFIG, 1500, faults, seed, 100_000);
        upload(faults, seed, 100_000);
    }
}

/// Requests and answers of any size, with pauses in which the connection gives its socket back.
fn exchange(config: &str, faults: Faults, seed: u64, rounds: &[(usize, usize, u64)]) {
    let mut transfer = Transfer::new(config, 1500, faults, seed);
    for &(request_bytes, response_bytes, pause_ms) in rounds {
        let (request, response) = (content(request_bytes), content(response_bytes));
        let (mut asked, mut got_request, mut answered, mut got) = (0, Vec::new(), 0, Vec::new());
        for _ in 0..100_000 {
            let socket = transfer.peer();
            if socket.can_send() {
                asked += socket.send_slice(&request[asked..]).expect("open");
            }
            transfer.step(&mut |lab, socket| {
                got_request.extend_from_slice(&lab.receive(socket).0);
                if got_request.len() == request_bytes {
                    while answered < response_bytes {
                        let taken = lab.send(socket, &response[answered..]);
                        answered += taken;
                        if taken == 0 {
                            break;
                        }
                    }
                }
            });
            got.append(&mut transfer.receive());
            if got.len() >= response_bytes {
                break;
            }
        }
        assert!(
            got_request == request && got == response,
            "{} of {response_bytes}",
            got.len()
        );
        let until = transfer.lab.now_ns + pause_ms * 1_000_000;
        while transfer.lab.now_ns < until {
            transfer.step(&mut |_, _| {});
        }
    }
}

#[test]
fn quiet_connections_hold_no_buffers() {
    let mut transfer = Transfer::new(CONFIG, 1500, NONE, 3);
    let used = |transfer: &Transfer| transfer.lab.buffer_bytes();
    let mut sent = false;
    let mut most = 0;
    for _ in 0..100 {
        transfer.step(&mut |lab, socket| {
            if !sent {
                lab.send(socket, &content(10_000));
                sent = true;
            }
        });
        most = most.max(used(&transfer));
        transfer.receive();
    }
    assert!(sent && most > 0);
    for _ in 0..50 {
        transfer.step(&mut |_, _| {});
    }
    assert_eq!(used(&transfer), 0);
    assert_eq!(transfer.lab.sockets.statistics().expect("up").connections, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn exchanges_of_any_size_come_through(
        drop in 0u32..80, duplicate in 0u32..80, reorder in 0u32..80, corrupt in 0u32..40, seed: u64,
        rounds in prop::collection::vec((1usize..2500, 1usize..5000, 0u64..3000), 1..12),
        scaled: bool,
    ) {
        let faults = Faults { drop, duplicate, reorder, corrupt };
        let config = if scaled { CONFIG.replace("[tcp]", "[tcp]\nreceive_buffer_bytes = 262144") } else { CONFIG.to_string() };
        exchange(&config, faults, seed, &rounds);
        exchange(&config, NONE, seed, &rounds);
    }
}
