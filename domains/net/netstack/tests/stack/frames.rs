//! Everything that isn't TCP, and frames that nobody sends on purpose.

use crate::lab::{self, CONFIG, Lab, PEER_MAC, Peer, STACK_MAC, buffer, link};
use interface::path::{Neighbours, PacketProcessor};
use interface::socket::{SocketError, Sockets};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr,
    IpAddress, IpProtocol, IpRepr, Ipv6Packet, NdiscRepr, RawHardwareAddress, UdpPacket,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PEER4: Ipv4Addr = Ipv4Addr::new(10, 82, 99, 20);
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd82, 0x99, 0, 0, 0, 0, 0, 0x20);

fn arp(operation: ArpOperation, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(PEER_MAC),
        source_protocol_addr: PEER4,
        target_hardware_addr: EthernetAddress(STACK_MAC),
        target_protocol_addr: target,
    };
    let mut frame = vec![0; 14 + packet.buffer_len()];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&PEER_MAC);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    packet.emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
    frame
}

fn ip_frame(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    hops: u8,
    length: usize,
) -> (Vec<u8>, usize) {
    let header = IpRepr::new(source.into(), destination.into(), protocol, length, hops);
    let mut frame = vec![0; 14 + header.buffer_len()];
    frame[..14].copy_from_slice(&link(source.is_ipv4()));
    header.emit(&mut frame[14..], &ChecksumCapabilities::default());
    (frame, 14 + header.header_len())
}

fn icmpv6(destination: Ipv6Addr, message: &Icmpv6Repr<'_>, hops: u8) -> Vec<u8> {
    let (mut frame, start) = ip_frame(
        PEER6.into(),
        destination.into(),
        IpProtocol::Icmpv6,
        hops,
        message.buffer_len(),
    );
    let capabilities = ChecksumCapabilities::default();
    message.emit(
        &PEER6,
        &destination,
        &mut Icmpv6Packet::new_unchecked(&mut frame[start..]),
        &capabilities,
    );
    frame
}

#[test]
fn answers_arp_for_its_own_and_the_vips_addresses() {
    let mut lab = Lab::new(CONFIG);
    for target in ["10.82.99.10", "10.82.99.100"] {
        let target = target.parse().expect("an address");
        let answers = lab.exchange(&[arp(ArpOperation::Request, target)]);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0][..6], PEER_MAC);
        let answer = ArpRepr::parse(&ArpPacket::new_checked(&answers[0][14..]).expect("ARP")).expect("ARP");
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            ..
        } = answer
        else {
            panic!("ARP for IPv4");
        };
        assert_eq!(operation, ArpOperation::Reply);
        assert_eq!(source_hardware_addr, EthernetAddress(STACK_MAC));
        assert_eq!(source_protocol_addr, target);
    }
    assert!(
        lab.exchange(&[arp(ArpOperation::Request, Ipv4Addr::new(10, 82, 99, 11))])
            .is_empty()
    );
    // Who asked is known now.
    assert_eq!(
        lab.sockets.resolve(PEER4.into()).expect("up").expect("known").0,
        PEER_MAC
    );
}

#[test]
fn answers_neighbour_solicitations() {
    let mut lab = Lab::new(CONFIG);
    for target in ["fd82:99::10", "fd82:99::100", "fe80::5054:ff:fe00:1"] {
        let target: Ipv6Addr = target.parse().expect("an address");
        let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: Some(RawHardwareAddress::from(EthernetAddress(PEER_MAC))),
        });
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
        let mut frame = icmpv6(group, &message, 255);
        frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, a, b, c]);
        let answers = lab.exchange(&[frame]);
        assert_eq!(answers.len(), 1);
        let packet = Ipv6Packet::new_checked(&answers[0][14..]).expect("IPv6");
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let message = Icmpv6Packet::new_checked(packet.payload()).expect("ICMPv6");
        let message = Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default());
        let Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            target_addr, lladdr, ..
        })) = message
        else {
            panic!("{message:?}");
        };
        assert_eq!((target_addr, destination), (target, PEER6));
        assert_eq!(lladdr, Some(RawHardwareAddress::from(EthernetAddress(STACK_MAC))));
    }
    assert_eq!(
        lab.sockets.resolve(PEER6.into()).expect("up").expect("known").0,
        PEER_MAC
    );
}

#[test]
fn asks_for_neighbours_that_maglev_wants() {
    let mut lab = Lab::new(CONFIG);
    assert_eq!(
        lab.sockets.resolve("10.82.99.11".parse().expect("an address")),
        Ok(None)
    );
    assert_eq!(
        lab.sockets.resolve("fd82:99::11".parse().expect("an address")),
        Ok(None)
    );
    assert_eq!(
        lab.sockets.resolve("192.0.2.1".parse().expect("an address")),
        Ok(None),
        "no router"
    );
    let questions = lab.exchange(&[]);
    assert_eq!(questions.len(), 2);
    assert_eq!(questions[0][..6], [0xff; 6]);
    assert_eq!(questions[1][..6], [0x33, 0x33, 0xff, 0, 0, 0x11]);
    assert_eq!(lab.sockets.own_mac().expect("up").0, STACK_MAC);
}

#[test]
fn answers_echo_requests() {
    let mut lab = Lab::new(CONFIG);
    let capabilities = ChecksumCapabilities::default();
    for target in ["10.82.99.10", "10.82.99.100"] {
        let target: Ipv4Addr = target.parse().expect("an address");
        let request = Icmpv4Repr::EchoRequest {
            ident: 7,
            seq_no: 9,
            data: &[0x5a; 601],
        };
        let (mut frame, start) = ip_frame(
            PEER4.into(),
            target.into(),
            IpProtocol::Icmp,
            3,
            request.buffer_len(),
        );
        request.emit(
            &mut Icmpv4Packet::new_unchecked(&mut frame[start..]),
            &capabilities,
        );
        let answers = lab.exchange(&[frame]);
        assert_eq!(answers[0][..6], PEER_MAC);
        let packet = smoltcp::wire::Ipv4Packet::new_checked(&answers[0][14..]).expect("IPv4");
        assert!(packet.verify_checksum());
        assert_eq!((packet.src_addr(), packet.dst_addr()), (target, PEER4));
        let message = Icmpv4Packet::new_checked(packet.payload()).expect("ICMP");
        let message = Icmpv4Repr::parse(&message, &capabilities).expect("a right checksum");
        assert_eq!(
            message,
            Icmpv4Repr::EchoReply {
                ident: 7,
                seq_no: 9,
                data: &[0x5a; 601]
            }
        );
    }
    let target: Ipv6Addr = "fd82:99::100".parse().expect("an address");
    let request = Icmpv6Repr::EchoRequest {
        ident: 7,
        seq_no: 9,
        data: b"hello",
    };
    let answers = lab.exchange(&[icmpv6(target, &request, 3)]);
    let packet = Ipv6Packet::new_checked(&answers[0][14..]).expect("IPv6");
    let message = Icmpv6Packet::new_checked(packet.payload()).expect("ICMPv6");
    let message = Icmpv6Repr::parse(&target, &PEER6, &message, &capabilities).expect("a right checksum");
    assert_eq!(
        message,
        Icmpv6Repr::EchoReply {
            ident: 7,
            seq_no: 9,
            data: b"hello"
        }
    );
}

fn datagram(source: IpAddr, destination: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let to = std::net::SocketAddr::new(destination, port);
    let mut frame = netstack::udp::frame(source, 5353, to, data, 1500).expect("short");
    frame[..14].copy_from_slice(&link(source.is_ipv4()));
    frame
}

#[test]
fn udp_both_ways() {
    let mut lab = Lab::new(CONFIG);
    let socket = lab.sockets.bind_udp(0, 7).expect("free");
    assert_eq!(lab.sockets.bind_udp(0, 7), Err(SocketError::AddressInUse));
    for (peer, own) in [("10.82.99.20", "10.82.99.10"), ("fd82:99::20", "fd82:99::10")] {
        let (peer, own): (IpAddr, IpAddr) = (peer.parse().expect("one"), own.parse().expect("one"));
        assert!(
            lab.exchange(&[datagram(peer, own, 7, b"one"), datagram(peer, own, 7, b"two")])
                .is_empty()
        );
        let events = lab.events();
        assert!(events.len() == 1 && events[0].readable && events[0].socket == socket);
        let received = lab.sockets.receive(socket, buffer(&[])).expect("bound");
        let from = received.from.expect("a datagram");
        assert_eq!(
            (from.ip(), from.port(), &received.buffer.data[..3]),
            (peer, 5353, &b"one"[..])
        );
        assert_eq!(lab.events().len(), 1, "there is another");
        assert_eq!(lab.receive(socket).0, b"two");
        assert_eq!(lab.receive(socket).0, b"");
        // The answer waits for the neighbour.
        lab.sockets
            .send_to(socket, from, buffer(b"three"))
            .expect("bound");
        let question = lab.exchange(&[]);
        assert_eq!(question.len(), 1);
        let answers = match peer {
            IpAddr::V4(_) => lab.exchange(&[arp(ArpOperation::Reply, Ipv4Addr::new(10, 82, 99, 10))]),
            IpAddr::V6(address) => {
                let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                    flags: smoltcp::wire::NdiscNeighborFlags::SOLICITED,
                    target_addr: address,
                    lladdr: Some(RawHardwareAddress::from(EthernetAddress(PEER_MAC))),
                });
                lab.exchange(&[icmpv6("fd82:99::10".parse().expect("an address"), &message, 255)])
            }
        };
        assert_eq!(answers.len(), 1);
        let start = if peer.is_ipv4() { 34 } else { 54 };
        let answer = UdpPacket::new_checked(&answers[0][start..]).expect("UDP");
        assert!(answer.verify_checksum(&IpAddress::from(own), &IpAddress::from(peer)));
        assert_eq!((answer.payload(), answer.dst_port()), (&b"three"[..], 5353));
        assert_eq!(answers[0][..6], PEER_MAC);
    }
    lab.sockets.close(socket).expect("bound");
    let refused = lab.exchange(&[datagram(
        PEER4.into(),
        Ipv4Addr::new(10, 82, 99, 10).into(),
        7,
        b"x",
    )]);
    assert_eq!(refused[0][14 + 20..14 + 22], [3, 3], "port unreachable");
}

#[test]
fn vips_take_no_tcp_here() {
    let mut lab = Lab::new(CONFIG);
    lab.listen(80, 8);
    let mut peer = Peer::new(4000, 80);
    peer.stack = "10.82.99.100".parse().expect("an address");
    assert!(lab.exchange(&[peer.syn()]).is_empty());
}

#[test]
fn tagged_frames_are_for_others() {
    let mut lab = Lab::new(&CONFIG.replace("[tcp]", "vlan = 7\n[tcp]"));
    assert!(lab.exchange(&[Peer::new(4000, 81).syn()]).is_empty());
}

/// What RSS brings to another shard than the one that a connection started on finds its way.
#[test]
fn a_connection_from_here_is_served_whatever_queue_its_packets_come_to() {
    let mut lab = Lab::with_device(CONFIG, 2, false);
    lab.exchange(&[arp(ArpOperation::Request, Ipv4Addr::new(10, 82, 99, 10))]);
    lab.sockets
        .connect(0, "10.82.99.20:7000".parse().expect("an address"))
        .expect("a way");
    let syn = lab::parse(&lab.exchange(&[])[0]);
    let mut peer = Peer::new(7000, syn.port);
    peer.acknowledgement = syn.sequence + 1;
    let syn_ack = peer.segment(smoltcp::wire::TcpControl::Syn, &[]);
    assert!(lab.exchange_on(1, &[syn_ack]).is_empty());
    assert_eq!(lab.exchange(&[]).len(), 1, "the acknowledgement");
    assert!(lab.events()[0].writable);
}

#[test]
fn the_shard_must_exist() {
    let lab = Lab::new(CONFIG);
    assert_eq!(lab.sockets.shards(), Ok(1));
    assert_eq!(lab.sockets.bind_udp(1, 7), Err(SocketError::NoShard));
    assert!(lab.sockets.attach(1, 0).is_err());
    assert_eq!(
        lab.sockets.address(0).expect("up"),
        Some(("10.82.99.10".parse().expect("one"), 24))
    );
    assert_eq!(lab.sockets.address(9).expect("up"), None);
}

/// Frames that may be changed: one of each kind.
fn seeds() -> Vec<Vec<u8>> {
    let solicit = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: "fd82:99::10".parse().expect("an address"),
        lladdr: Some(RawHardwareAddress::from(EthernetAddress(PEER_MAC))),
    });
    vec![
        arp(ArpOperation::Request, Ipv4Addr::new(10, 82, 99, 10)),
        icmpv6("fd82:99::10".parse().expect("an address"), &solicit, 255),
        Peer::new(4000, 80).syn(),
        Peer::new_v6(4000, 80).syn(),
        Peer::new(4000, 80).segment(smoltcp::wire::TcpControl::Psh, b"GET / HTTP/1.1\r\n\r\n"),
        Peer::new(4000, 80).segment(smoltcp::wire::TcpControl::Fin, &[]),
        datagram(PEER4.into(), Ipv4Addr::new(10, 82, 99, 10).into(), 7, b"hello"),
        datagram(
            PEER6.into(),
            "fd82:99::10".parse::<IpAddr>().expect("an address"),
            7,
            b"hello",
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No frame makes the stack panic, checksums right or not (the device may vouch for nonsense).
    #[test]
    fn changed_frames_do_no_harm(
        changes in prop::collection::vec((0usize..8, prop::collection::vec((0usize..90, any::<u8>()), 0..4), 0usize..120), 1..40),
        vouched: bool,
    ) {
        let mut lab = Lab::new(CONFIG);
        lab.listen(80, 8);
        lab.sockets.bind_udp(0, 7).expect("free");
        let mut open = Peer::new(4000, 80);
        open.sequence = 77;
        open.open(&mut lab);
        if vouched {
            lab.checksum = rref::packet::ChecksumState::Good;
        }
        let seeds = seeds();
        let mut frames = Vec::new();
        for (seed, bytes, length) in changes {
            let mut frame = seeds[seed].clone();
            for (at, value) in bytes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if length < 20 {
                frame.truncate(length * 4);
            }
            frames.push(frame);
        }
        lab.exchange(&frames);
        lab.advance_ms(2000);
        lab.exchange(&[]);
        for event in lab.events() {
            let socket = event.accepted.unwrap_or(event.socket);
            // The socket may be gone again.
            lab.sockets.receive(socket, buffer(&[])).ok();
            lab.sockets.abort(socket).ok();
        }
        lab.exchange(&[]);
    }

    #[test]
    fn random_bytes_do_no_harm(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut lab = Lab::new(CONFIG);
        lab.checksum = rref::packet::ChecksumState::Good;
        let frames: Vec<Vec<u8>> = frames.into_iter().map(|mut frame| {
            if frame.len() >= 14 {
                frame[..6].copy_from_slice(&STACK_MAC);
                frame[12] = [0x08, 0x86, 0x08][usize::from(frame[12]) % 3];
                frame[13] = [0x00, 0xdd, 0x06][usize::from(frame[13]) % 3];
            }
            frame
        }).collect();
        lab.exchange(&frames);
    }
}
