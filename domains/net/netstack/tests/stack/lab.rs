//! A wire with the stack on one end and a scripted station on the other, in virtual time.

use host_platform::Attached;
use interface::net::{DeviceInfo, MacAddress};
use interface::socket::{Event, EventList, SocketId, Sockets, StreamBuffer};
use netstack::stack::{Shared, Stack};
use rref::packet::{ChecksumState, Verdict};
use rref::{Packet, PacketBatch, RRef};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};
use std::net::IpAddr;
use std::sync::Arc;

pub const STACK_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

pub const CONFIG: &str = "[network]\nipv4 = \"10.82.99.10/24\"\nipv6 = \"fd82:99::10/64\"\n[tcp]\nconnections = 8192\n\
    [[maglev.vip]]\naddress = \"10.82.99.100\"\n[[maglev.vip]]\naddress = \"fd82:99::100\"\n";

/// The stack and its time.
pub struct Lab {
    pub stack: Arc<Stack>,
    pub sockets: Shared,
    pub now_ns: u64,
    pub wake_ns: u64,
    pub checksum: ChecksumState,
    _attached: Attached,
}

impl Lab {
    pub fn new(config: &str) -> Lab {
        Lab::with_device(config, 1, false)
    }

    pub fn with_device(config: &str, queues: u16, transmit_checksum: bool) -> Lab {
        let attached = host_platform::attach();
        let information = DeviceInfo {
            mac: MacAddress(STACK_MAC),
            queues,
            frame_limit_bytes: 9014,
            receive_checksum: true,
            transmit_checksum,
        };
        let stack = Arc::new(Stack::new(
            netstack::config::read(config).expect("right"),
            &information,
        ));
        Lab {
            sockets: Shared(stack.clone()),
            stack,
            now_ns: domain_rt::clock::now_ns(),
            wake_ns: u64::MAX,
            checksum: ChecksumState::Unknown,
            _attached: attached,
        }
    }

    /// A stack that serves port 80, with one connection: the peer's side of it, and the socket.
    pub fn connected() -> (Lab, Peer, SocketId) {
        let mut lab = Lab::new(CONFIG);
        lab.listen(80, 8);
        let mut peer = Peer::new(4000, 80);
        let socket = peer.connect(&mut lab);
        (lab, peer, socket)
    }

    /// Gives shard 0 frames, and takes what it sends until it has nothing more.
    pub fn exchange(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.exchange_on(0, frames)
    }

    /// As `exchange`, on any shard.
    pub fn exchange_on(&mut self, shard: usize, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let mut chunks = frames.chunks(16);
        loop {
            let mut batch = PacketBatch::new().expect("memory");
            let mut received = chunks.next().unwrap_or(&[]).iter();
            while !batch.is_full() {
                let mut packet = Packet::allocate().expect("memory");
                if let Some(frame) = received.next() {
                    packet.resize(frame.len()).copy_from_slice(frame);
                    packet.verdict = Verdict::Received;
                    packet.checksum = self.checksum;
                }
                assert!(batch.push(packet).is_ok());
            }
            let (more, wake_ns) = self.stack.shards[shard].lock().process(&mut batch, self.now_ns);
            self.wake_ns = wake_ns;
            let mut frame = Vec::new();
            for packet in batch.iter() {
                assert_ne!(packet.verdict, Verdict::Received);
                if packet.verdict == Verdict::Transmit {
                    frame.extend_from_slice(packet.frame());
                    if !packet.continues {
                        sent.push(std::mem::take(&mut frame));
                    }
                }
            }
            if !more && chunks.len() == 0 {
                return sent;
            }
        }
    }

    pub fn advance_ms(&mut self, milliseconds: u64) {
        self.now_ns += milliseconds * 1_000_000;
    }

    /// The events that wait for the test.
    pub fn events(&self) -> Vec<Event> {
        let list = RRef::new(EventList {
            length: 0,
            events: [None; 64],
        })
        .expect("memory");
        let list = self.sockets.wait(0, list, 0).expect("a shard");
        list.events[..list.length as usize]
            .iter()
            .map(|event| event.expect("filled"))
            .collect()
    }

    /// Bytes of connections' buffers that are in the account.
    pub fn buffer_bytes(&self) -> u64 {
        self.stack
            .common
            .buffer_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn send(&self, socket: SocketId, data: &[u8]) -> usize {
        let sent = self.sockets.send(socket, buffer(data)).expect("a connection");
        sent.taken as usize
    }

    pub fn receive(&self, socket: SocketId) -> (Vec<u8>, bool) {
        let received = self.sockets.receive(socket, buffer(&[])).expect("a socket");
        let data = received.buffer.data[..received.buffer.length as usize].to_vec();
        (data, received.finished)
    }

    pub fn listen(&self, port: u16, backlog: u16) -> SocketId {
        let options = interface::socket::ListenOptions {
            address: None,
            port,
            backlog,
        };
        self.sockets.listen(0, options).expect("a free port")
    }
}

pub fn buffer(data: &[u8]) -> RRef<StreamBuffer> {
    let mut buffer = RRef::new(StreamBuffer {
        length: data.len() as u32,
        data: [0; interface::socket::STREAM_BYTES],
    })
    .expect("memory");
    buffer.data[..data.len()].copy_from_slice(data);
    buffer
}

/// A TCP segment of the peer, or one for it, apart from its addresses.
#[derive(Clone, Debug)]
pub struct Segment {
    pub peer_port: u16,
    pub port: u16,
    pub control: TcpControl,
    pub sequence: u32,
    pub acknowledgement: Option<u32>,
    pub window: u16,
    pub payload: Vec<u8>,
}

/// The peer's frame of a segment.
pub fn frame(peer: IpAddr, stack: IpAddr, segment: &Segment) -> Vec<u8> {
    let (source, destination) = (IpAddress::from(peer), IpAddress::from(stack));
    let syn = segment.control == TcpControl::Syn;
    let tcp = TcpRepr {
        src_port: segment.peer_port,
        dst_port: segment.port,
        control: segment.control,
        seq_number: TcpSeqNumber(segment.sequence as i32),
        ack_number: segment.acknowledgement.map(|number| TcpSeqNumber(number as i32)),
        window_len: segment.window,
        window_scale: syn.then_some(7),
        max_seg_size: syn.then_some(1460),
        sack_permitted: syn,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &segment.payload,
    };
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let mut frame = vec![0; 14 + ip.buffer_len()];
    frame[..14].copy_from_slice(&link(peer.is_ipv4()));
    let capabilities = ChecksumCapabilities::default();
    ip.emit(&mut frame[14..], &capabilities);
    let start = 14 + ip.header_len();
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut frame[start..]),
        &source,
        &destination,
        &capabilities,
    );
    frame
}

pub fn link(is_ipv4: bool) -> [u8; 14] {
    netstack::transmit::link_header(STACK_MAC, PEER_MAC, is_ipv4)
}

/// Reads a segment that the stack sent; checks both checksums.
pub fn parse(frame: &[u8]) -> Segment {
    let packet = &frame[14..];
    let capabilities = ChecksumCapabilities::default();
    let (source, destination, body): (IpAddress, IpAddress, &[u8]) = if packet[0] >> 4 == 4 {
        let ip = smoltcp::wire::Ipv4Packet::new_checked(packet).expect("IPv4");
        assert!(ip.verify_checksum());
        (
            ip.src_addr().into(),
            ip.dst_addr().into(),
            &packet[20..ip.total_len() as usize],
        )
    } else {
        let ip = smoltcp::wire::Ipv6Packet::new_checked(packet).expect("IPv6");
        (ip.src_addr().into(), ip.dst_addr().into(), &packet[40..])
    };
    let tcp = TcpPacket::new_checked(body).expect("TCP");
    let tcp = TcpRepr::parse(&tcp, &source, &destination, &capabilities).expect("right checksums");
    Segment {
        peer_port: tcp.dst_port,
        port: tcp.src_port,
        control: tcp.control,
        sequence: tcp.seq_number.0 as u32,
        acknowledgement: tcp.ack_number.map(|number| number.0 as u32),
        window: tcp.window_len,
        payload: tcp.payload.to_vec(),
    }
}

/// A peer's side of one connection, to the letter of the script.
#[derive(Clone)]
pub struct Peer {
    pub address: IpAddr,
    pub stack: IpAddr,
    pub port: u16,
    pub to: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
}

impl Peer {
    pub fn new(port: u16, to: u16) -> Peer {
        Peer {
            address: "10.82.99.20".parse().expect("an address"),
            stack: "10.82.99.10".parse().expect("an address"),
            port,
            to,
            sequence: 1000 * u32::from(port),
            acknowledgement: 0,
        }
    }

    pub fn new_v6(port: u16, to: u16) -> Peer {
        Peer {
            address: "fd82:99::20".parse().expect("an address"),
            stack: "fd82:99::10".parse().expect("an address"),
            ..Peer::new(port, to)
        }
    }

    pub fn segment(&self, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        let segment = Segment {
            peer_port: self.port,
            port: self.to,
            control,
            sequence: self.sequence,
            acknowledgement: (self.acknowledgement != 0 || control != TcpControl::Syn)
                .then_some(self.acknowledgement),
            window: 60_000,
            payload: payload.to_vec(),
        };
        frame(self.address, self.stack, &segment)
    }

    pub fn syn(&self) -> Vec<u8> {
        self.segment(TcpControl::Syn, &[])
    }

    /// Takes the SYN|ACK and gives the last frame of the handshake.
    pub fn established(&mut self, answer: &[u8]) -> Vec<u8> {
        let answer = parse(answer);
        assert_eq!(answer.control, TcpControl::Syn);
        assert_eq!(answer.acknowledgement, Some(self.sequence.wrapping_add(1)));
        self.sequence = self.sequence.wrapping_add(1);
        self.acknowledgement = answer.sequence.wrapping_add(1);
        self.segment(TcpControl::None, &[])
    }

    /// Opens the connection.
    pub fn open(&mut self, lab: &mut Lab) {
        let answers = lab.exchange(&[self.syn()]);
        assert_eq!(answers.len(), 1, "one SYN|ACK");
        let last = self.established(&answers[0]);
        assert!(lab.exchange(&[last]).is_empty());
    }

    /// Opens the connection, which is handed over before any other: its socket.
    pub fn connect(&mut self, lab: &mut Lab) -> SocketId {
        self.open(lab);
        let accepted = lab.events().iter().find_map(|event| event.accepted);
        accepted.expect("a connection")
    }

    /// Sends data; the frame.
    pub fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        let frame = self.segment(TcpControl::Psh, payload);
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        frame
    }

    /// Notes a segment of the stack: its data.
    pub fn take(&mut self, frame: &[u8]) -> Segment {
        let segment = parse(frame);
        assert_eq!(segment.sequence, self.acknowledgement);
        self.acknowledgement = self.acknowledgement.wrapping_add(segment.payload.len() as u32);
        if segment.control == TcpControl::Fin {
            self.acknowledgement = self.acknowledgement.wrapping_add(1);
        }
        segment
    }
}
