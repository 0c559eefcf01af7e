//! Tests of `packet.rs` and `plain_packet.rs`: each class of frame, and that no bytes at all can hurt.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::plain_packet::{PlainIpv4, PlainPattern};

const CLIENT: u32 = 0x0a52_6302;
const VIP: u32 = 0x0a52_6364;
const CLIENT6: u128 = 0xfd82_0099 << 96 | 2;
const VIP6: u128 = 0xfd82_0099 << 96 | 0x64;

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    // Ethernet pads to 60 bytes.
    frame.resize(frame.len().max(60), 0);
    frame
}

fn ipv4(
    source: u32,
    destination: u32,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header_length = 20 + options.len();
    let mut packet = Vec::from([0x40 | (header_length / 4) as u8, 0]);
    packet.extend(((header_length + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn ipv6(source: u128, destination: u128, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::from([0x60, 0, 0, 0]);
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend(payload);
    packet
}

fn tcp(source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source_port.to_be_bytes());
    segment.extend(destination_port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn udp(source_port: u16, destination_port: u16) -> Vec<u8> {
    [
        source_port.to_be_bytes(),
        destination_port.to_be_bytes(),
        [0, 8],
        [0, 0],
    ]
    .concat()
}

fn flow4(protocol: Protocol) -> FlowKey {
    let addresses = Addresses::V4 {
        source: CLIENT,
        destination: VIP,
    };
    FlowKey {
        addresses,
        source_port: 4000,
        destination_port: 80,
        protocol,
    }
}

fn flow6(protocol: Protocol) -> FlowKey {
    let addresses = Addresses::V6 {
        source: CLIENT6,
        destination: VIP6,
    };
    FlowKey {
        addresses,
        source_port: 4000,
        destination_port: 80,
        protocol,
    }
}

fn packet(flow: FlowKey, flags: u8) -> Result<Parsed, Malformed> {
    Ok(Parsed::Packet {
        flow,
        flags: TcpFlags(flags),
    })
}

#[test]
fn plain_packets() {
    let tcp4 = ethernet(0x0800, &ipv4(CLIENT, VIP, 6, 0x4000, &[], &tcp(4000, 80, 0x02)));
    assert_eq!(parse(&tcp4), packet(flow4(Protocol::Tcp), 0x02));
    let udp4 = ethernet(0x0800, &ipv4(CLIENT, VIP, 17, 0, &[], &udp(4000, 80)));
    assert_eq!(parse(&udp4), packet(flow4(Protocol::Udp), 0));
    let tcp6 = ethernet(0x86dd, &ipv6(CLIENT6, VIP6, 6, &tcp(4000, 80, 0x10)));
    assert_eq!(parse(&tcp6), packet(flow6(Protocol::Tcp), 0x10));
    let udp6 = ethernet(0x86dd, &ipv6(CLIENT6, VIP6, 17, &udp(4000, 80)));
    assert_eq!(parse(&udp6), packet(flow6(Protocol::Udp), 0));
}

/// The short cut for plain IPv4 gives what the general way gives.
fn assert_short_cut_agrees(frame: &[u8]) {
    if let Some((plain, flags)) = PlainIpv4::parse(frame, |_, flags| flags) {
        assert_eq!(
            Ok(Parsed::Packet {
                flow: plain.flow(),
                flags
            }),
            parse(frame)
        );
        let pattern = PlainPattern::of(frame, &plain);
        for index in 0..frame.len() {
            let mut other = frame.to_vec();
            for change in [0, 1, 0x80] {
                other[index] ^= change;
                if let Some(recognised) = pattern.parse(&other, |_, flags| flags) {
                    assert_eq!(
                        recognised.0.destination_key(),
                        plain.destination_key(),
                        "byte {index}"
                    );
                    assert_eq!(
                        Some(recognised),
                        PlainIpv4::parse(&other, |_, flags| flags),
                        "byte {index}"
                    );
                } else {
                    let parsed =
                        PlainIpv4::parse(&other, |_, _| ()).map(|(other, ())| other.destination_key());
                    assert_ne!(parsed, Some(plain.destination_key()), "byte {index}");
                }
            }
        }
    }
}

#[test]
fn plain_packets_take_the_short_cut() {
    for (protocol, payload) in [(6, tcp(1, 2, 0x18)), (17, udp(3, 4))] {
        let frame = ethernet(0x0800, &ipv4(CLIENT, VIP, protocol, 0x4000, &[], &payload));
        assert!(PlainIpv4::parse(&frame, |_, _| ()).is_some());
        assert_short_cut_agrees(&frame);
    }
}

#[test]
fn tags_options_and_extension_headers_are_stepped_over() {
    let inner = ipv4(CLIENT, VIP, 6, 0, &[], &tcp(4000, 80, 0x10));
    let tagged = ethernet(0x8100, &[&[0, 42, 0x08, 0x00], &inner[..]].concat());
    assert_eq!(parse(&tagged), packet(flow4(Protocol::Tcp), 0x10));

    let with_options = ipv4(CLIENT, VIP, 6, 0, &[7, 7, 4, 0, 0, 0, 0, 0], &tcp(4000, 80, 0x10));
    assert_eq!(
        parse(&ethernet(0x0800, &with_options)),
        packet(flow4(Protocol::Tcp), 0x10)
    );

    // Hop-by-hop options (8 bytes), then destination options (16 bytes), then UDP.
    let mut payload = Vec::from([60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0]);
    payload.extend([0; 8]);
    payload.extend(udp(4000, 80));
    assert_eq!(
        parse(&ethernet(0x86dd, &ipv6(CLIENT6, VIP6, 0, &payload))),
        packet(flow6(Protocol::Udp), 0)
    );
}

#[test]
fn fragments() {
    let addresses = Addresses::V4 {
        source: CLIENT,
        destination: VIP,
    };
    let key = FragmentKey {
        addresses,
        protocol: Protocol::Udp,
        identification: 0x1234,
    };
    let first = ethernet(0x0800, &ipv4(CLIENT, VIP, 17, 0x2000, &[], &udp(4000, 80)));
    let flags = TcpFlags::default();
    assert_eq!(
        parse(&first),
        Ok(Parsed::FirstFragment {
            flow: flow4(Protocol::Udp),
            flags,
            key
        })
    );
    for fragment in [0x2001, 0x0001] {
        let later = ethernet(0x0800, &ipv4(CLIENT, VIP, 17, fragment, &[], &udp(4000, 80)));
        assert_eq!(parse(&later), Ok(Parsed::LaterFragment { key }));
    }

    let addresses = Addresses::V6 {
        source: CLIENT6,
        destination: VIP6,
    };
    let key = FragmentKey {
        addresses,
        protocol: Protocol::Udp,
        identification: 0x0102_0304,
    };
    let with_header = |offset_and_more: u16| {
        let [high, low] = offset_and_more.to_be_bytes();
        let payload = [&[17, 0, high, low, 1, 2, 3, 4], &udp(4000, 80)[..]].concat();
        parse(&ethernet(0x86dd, &ipv6(CLIENT6, VIP6, 44, &payload)))
    };
    assert_eq!(
        with_header(0x0001),
        Ok(Parsed::FirstFragment {
            flow: flow6(Protocol::Udp),
            flags,
            key
        })
    );
    assert_eq!(with_header(0x0008), Ok(Parsed::LaterFragment { key }));
    // An "atomic fragment" is a whole packet (RFC 6946).
    assert_eq!(with_header(0x0000), packet(flow6(Protocol::Udp), 0));
}

/// A router's "packet too big" about what a backend sent, as the VIP, to the client: it belongs to the client's flow.
#[test]
fn icmp_errors_belong_to_the_flow_they_quote() {
    const ROUTER: u32 = 0x0a00_0001;
    let quoted = ipv4(VIP, CLIENT, 6, 0x4000, &[], &tcp(80, 4000, 0x10));
    // Only eight bytes of the quoted packet's payload are sure to be there.
    let message = [&[3, 4, 0, 0, 0, 0, 5, 0x14], &quoted[..28]].concat();
    let error = |destination| ethernet(0x0800, &ipv4(ROUTER, destination, 1, 0, &[], &message));
    assert_eq!(
        parse(&error(VIP)),
        Ok(Parsed::IcmpError {
            flow: flow4(Protocol::Tcp)
        })
    );
    // Sent to another address than the quoted packet came from: no honest router does that.
    assert_eq!(parse(&error(VIP + 1)), Ok(Parsed::Other));

    let quoted = ipv6(VIP6, CLIENT6, 17, &udp(80, 4000));
    let message = [&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat();
    let error = ethernet(0x86dd, &ipv6(CLIENT6 + 1, VIP6, 58, &message));
    assert_eq!(
        parse(&error),
        Ok(Parsed::IcmpError {
            flow: flow6(Protocol::Udp)
        })
    );
}

#[test]
fn what_is_not_the_balancers() {
    let echo = ipv4(CLIENT, VIP, 1, 0, &[], &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(parse(&ethernet(0x0800, &echo)), Ok(Parsed::Other));
    let neighbour_solicitation = ipv6(CLIENT6, VIP6, 58, &[135, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        parse(&ethernet(0x86dd, &neighbour_solicitation)),
        Ok(Parsed::Other)
    );
    assert_eq!(parse(&ethernet(0x0806, &[0; 28])), Ok(Parsed::Other));
    assert_eq!(
        parse(&ethernet(0x0800, &ipv4(CLIENT, VIP, 47, 0, &[], &[0; 20]))),
        Ok(Parsed::Other)
    );
}

#[test]
fn contradictions_are_malformed() {
    let good = ethernet(0x0800, &ipv4(CLIENT, VIP, 6, 0, &[], &tcp(4000, 80, 0x10)));
    let with = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        parse(&frame)
    };
    assert_eq!(
        with(14, 0x65),
        Err(Malformed::BadHeader),
        "version 6 in an IPv4 frame"
    );
    assert_eq!(with(14, 0x44), Err(Malformed::BadHeader), "a header of 16 bytes");
    assert_eq!(
        with(14, 0x4f),
        Err(Malformed::Truncated),
        "a header longer than the packet"
    );
    assert_eq!(
        with(16, 0xff),
        Err(Malformed::Truncated),
        "a packet longer than the frame"
    );
    assert_eq!(
        with(17, 33),
        Err(Malformed::Truncated),
        "no room for the TCP flags"
    );
    assert_eq!(
        with(17, 19),
        Err(Malformed::BadHeader),
        "a packet shorter than its header"
    );
    assert_eq!(parse(&good[..30]), Err(Malformed::Truncated));
    assert_eq!(parse(&[]), Err(Malformed::Truncated));
}

/// More extension headers than any honest packet has end the walk; what follows is not looked at.
#[test]
fn the_walk_over_extension_headers_ends() {
    let header = [60, 0, 1, 4, 0, 0, 0, 0];
    let payload = [header.repeat(MAXIMUM_EXTENSION_HEADERS + 1), udp(4000, 80)].concat();
    assert_eq!(
        parse(&ethernet(0x86dd, &ipv6(CLIENT6, VIP6, 60, &payload))),
        Ok(Parsed::Other)
    );
}

fn samples() -> Vec<Vec<u8>> {
    let quoted = ipv4(VIP, CLIENT, 6, 0, &[], &tcp(80, 4000, 0x10));
    let quoted6 = ipv6(VIP6, CLIENT6, 17, &udp(80, 4000));
    let extended = [
        &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 1, 2, 3, 4],
        &udp(1, 2)[..],
    ]
    .concat();
    let inner = ipv4(CLIENT, VIP, 17, 0, &[7, 7, 4, 0, 0, 0, 0, 0], &udp(1, 2));
    Vec::from([
        ethernet(0x0800, &ipv4(CLIENT, VIP, 6, 0, &[], &tcp(4000, 80, 2))),
        ethernet(0x0800, &ipv4(CLIENT, VIP, 17, 0x2000, &[], &udp(4000, 80))),
        ethernet(
            0x0800,
            &ipv4(
                1,
                VIP,
                1,
                0,
                &[],
                &[&[3, 4, 0, 0, 0, 0, 5, 0], &quoted[..]].concat(),
            ),
        ),
        ethernet(
            0x86dd,
            &ipv6(1, VIP6, 58, &[&[2, 0, 0, 0, 0, 0, 5, 0], &quoted6[..]].concat()),
        ),
        ethernet(0x86dd, &ipv6(CLIENT6, VIP6, 0, &extended)),
        ethernet(0x8100, &[&[0, 42, 0x08, 0x00], &inner[..]].concat()),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Random bytes are somebody's packet or nobody's, never a panic, and the short cut never disagrees.
    #[test]
    fn random_bytes_do_no_harm(frame in prop::collection::vec(any::<u8>(), 0..128)) {
        assert_short_cut_agrees(&frame);
        let _ = parse(&frame);
    }

    /// The same for good frames with a few bytes changed and the end cut off, which get much further in.
    #[test]
    fn mutated_frames_do_no_harm(
        sample in prop::sample::select(samples()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut frame = sample;
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if cut {
            frame.truncate(length.index(frame.len() + 1));
        }
        assert_short_cut_agrees(&frame);
        let _ = parse(&frame);
    }
}
