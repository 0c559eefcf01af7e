//! Where a received frame goes: to the load balancer or to the local stack.
//!
//! The balancer's are untagged IPv4 and IPv6 packets to a virtual service's address, protocol and port; fragments without a port
//! and ICMP errors about what such a service sent, since only the balancer knows which backend they are for. All else,
//! malformed frames too, is the local stack's. Every read is bounds-checked; nothing in a frame can make this panic.
//! (RFC 791, RFC 8200, RFC 792, RFC 4443.)

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use interface::balance::Protocol;
use prefetch::Pattern;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
/// Bytes of an Ethernet header without a tag.
const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
/// The bits of an IPv4 header's fragment offset, as the bytes stand in memory.
const FRAGMENT_OFFSET: u16 = u16::from_ne_bytes([0x1f, 0xff]);
/// Bytes of an ICMP header before the packet that an error is about.
const ICMP_BYTES: usize = 8;

/// A service's address, protocol and port in one word or two; never 0, since no protocol is.
trait Key: Copy + PartialEq {
    const EMPTY: Self;
    fn hash(self) -> u64;
}

impl Key for u64 {
    const EMPTY: u64 = 0;
    #[inline(always)]
    fn hash(self) -> u64 {
        // Fibonacci hashing: the high bits depend on all of the key's.
        self.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Key for (u128, u64) {
    const EMPTY: (u128, u64) = (0, 0);
    #[inline(always)]
    fn hash(self) -> u64 {
        let folded = (self.0 >> 64) as u64 ^ self.0 as u64;
        (folded.rotate_left(24) ^ self.1).hash()
    }
}

/// A set of few keys with open addressing, at most half full. The operator chooses the keys, not the network.
struct KeySet<K> {
    slots: Box<[K]>,
    mask: usize,
    shift: u32,
}

impl<K: Key> KeySet<K> {
    fn new(keys: &[K]) -> KeySet<K> {
        let size = (keys.len() * 2).next_power_of_two().max(2);
        let mut set = KeySet {
            slots: alloc::vec![K::EMPTY; size].into_boxed_slice(),
            mask: size - 1,
            shift: u64::BITS - size.trailing_zeros(),
        };
        for key in keys {
            let mut index = (key.hash() >> set.shift) as usize;
            while let Some(slot) = set.slots.get_mut(index) {
                if *slot == *key {
                    break;
                }
                if *slot == K::EMPTY {
                    *slot = *key;
                    break;
                }
                index = (index + 1) % size;
            }
        }
        set
    }

    #[inline(always)]
    fn contains(&self, key: K) -> bool {
        let mut index = (key.hash() >> self.shift) as usize;
        // Ends: half of the slots at least are empty.
        loop {
            match self.slots.get(index & self.mask) {
                Some(slot) if *slot == key => return true,
                Some(slot) if *slot != K::EMPTY => index += 1,
                _ => return false,
            }
        }
    }
}

/// Address, protocol and port of one virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Virtual address.
    pub address: IpAddr,
    /// Transport.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// The service that was found last: packets of a batch are often for the same one.
#[derive(Default)]
pub struct Recent(u64);

/// Decides by the set of virtual services.
pub struct Destinations {
    v4: KeySet<u64>,
    v6: KeySet<(u128, u64)>,
    services: Vec<VirtualService>,
    /// What usual packets have in their headers that are for the service that was found last.
    usual: Pattern,
}

impl Destinations {
    /// Destinations for these services.
    pub fn new(services: Vec<VirtualService>) -> Destinations {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for service in &services {
            let (protocol, port) = (number(service.protocol), service.port.to_be_bytes());
            match service.address {
                IpAddr::V4(address) => v4.push(key_v4(address.octets(), protocol, port)),
                IpAddr::V6(address) => v6.push(key_v6(address.octets(), protocol, port)),
            }
        }
        Destinations {
            v4: KeySet::new(&v4),
            v6: KeySet::new(&v6),
            services,
            usual: Pattern::NOTHING,
        }
    }

    /// Whether there is no service at all: then every frame is the stack's.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether an untagged frame is for the balancer.
    #[inline(always)]
    pub fn is_virtual(&self, frame: &[u8], recent: &mut Recent) -> bool {
        if let Some((key, protocol)) = usual_key(frame) {
            if self.has_usual(key, recent) {
                return true;
            }
            if matches!(protocol, TCP | UDP) {
                return false;
            }
        }
        self.is_virtual_unusually(frame)
    }

    /// Whether an untagged frame is a usual packet for the balancer; for those that aren't usual [`is_virtual`](Self::is_virtual) knows.
    #[inline(always)]
    pub fn is_usually_virtual(&mut self, frame: &[u8]) -> bool {
        let told = frame
            .first_chunk::<{ 12 + Pattern::BYTES }>()
            .and_then(|headers| headers.last_chunk());
        told.is_some_and(|told| self.usual.matches(told) || self.is_usually_virtual_anew(frame, told))
    }

    #[inline(never)]
    fn is_usually_virtual_anew(&mut self, frame: &[u8], told: &[u8; Pattern::BYTES]) -> bool {
        let found = usual_key(frame).is_some_and(|(key, _)| self.v4.contains(key));
        if found {
            self.usual = Pattern::of(told, &TELLING);
        }
        found
    }

    #[inline(always)]
    fn has_usual(&self, key: u64, recent: &mut Recent) -> bool {
        if key != recent.0 {
            if !self.v4.contains(key) {
                return false;
            }
            recent.0 = key;
        }
        true
    }

    #[inline(never)]
    fn is_virtual_unusually(&self, frame: &[u8]) -> bool {
        let packet = frame.get(ETHERNET_BYTES..).unwrap_or(&[]);
        match frame.get(12..ETHERNET_BYTES) {
            Some(kind) if kind == ETHERTYPE_IPV4 => self.ipv4(packet).unwrap_or(false),
            Some(kind) if kind == ETHERTYPE_IPV6 => self.ipv6(packet).unwrap_or(false),
            _ => false,
        }
    }

    /// `None` for a malformed packet.
    fn ipv4(&self, packet: &[u8]) -> Option<bool> {
        let header = packet.first_chunk::<20>()?;
        let length = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || length < header.len() {
            return None;
        }
        let address = [header[16], header[17], header[18], header[19]];
        let payload = packet.get(length..)?;
        let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        match header[9] {
            protocol if fragment_offset != 0 => Some(self.has_protocol(IpAddr::from(address), protocol)),
            protocol @ (TCP | UDP) => Some(self.v4.contains(key_v4(
                address,
                protocol,
                destination_port(payload)?,
            ))),
            // Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem.
            ICMP if matches!(payload.first()?, 3 | 11 | 12) => {
                self.sent_ipv4(address, payload.get(ICMP_BYTES..)?)
            }
            _ => Some(false),
        }
    }

    fn ipv6(&self, packet: &[u8]) -> Option<bool> {
        let header = packet.first_chunk::<IPV6_BYTES>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let address = *packet.get(24..)?.first_chunk::<16>()?;
        let payload = packet.get(IPV6_BYTES..)?;
        match header[6] {
            protocol @ (TCP | UDP) => Some(self.v6.contains(key_v6(
                address,
                protocol,
                destination_port(payload)?,
            ))),
            IPV6_FRAGMENT => {
                let fragment = payload.first_chunk::<8>()?;
                let first = u16::from_be_bytes([fragment[2], fragment[3]]) >> 3 == 0;
                let protocol = fragment[0];
                if first && matches!(protocol, TCP | UDP) {
                    let port = destination_port(payload.get(8..)?)?;
                    return Some(self.v6.contains(key_v6(address, protocol, port)));
                }
                Some(self.has_protocol(IpAddr::from(address), protocol))
            }
            // Unreachable, packet too big, time exceeded, parameter problem.
            ICMPV6 if matches!(payload.first()?, 1..=4) => {
                self.sent_ipv6(address, payload.get(ICMP_BYTES..)?)
            }
            _ => Some(false),
        }
    }

    /// Whether a virtual service at `address` sent this packet, which an ICMP error is about.
    fn sent_ipv4(&self, address: [u8; 4], packet: &[u8]) -> Option<bool> {
        let header = packet.first_chunk::<20>()?;
        let length = usize::from(header[0] & 0x0f) * 4;
        let ports = packet.get(length..)?.first_chunk::<4>()?;
        let port = [ports[0], ports[1]];
        let from_it = header[12..16] == address && length >= header.len();
        Some(from_it && self.v4.contains(key_v4(address, header[9], port)))
    }

    fn sent_ipv6(&self, address: [u8; 16], packet: &[u8]) -> Option<bool> {
        let header = packet.first_chunk::<{ IPV6_BYTES + 4 }>()?;
        let port = [header[IPV6_BYTES], header[IPV6_BYTES + 1]];
        let from_it = header[8..24] == address;
        Some(from_it && self.v6.contains(key_v6(address, header[6], port)))
    }

    /// Whether any service is at this address with this protocol: what a fragment without a port can be for.
    fn has_protocol(&self, address: IpAddr, protocol: u8) -> bool {
        self.services
            .iter()
            .any(|service| service.address == address && number(service.protocol) == protocol)
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// The key and the protocol of the usual packet, in one bounds check: IPv4 without options, unfragmented (or the first fragment). What has
/// ports has them there.
#[inline(always)]
fn usual_key(frame: &[u8]) -> Option<(u64, u8)> {
    let headers: &UsualHeaders = frame.first_chunk()?;
    let is_usual = part(headers, 12) == ETHERTYPE_IPV4
        && headers[14] == 0x45
        && u16::from_ne_bytes(part(headers, 20)) & FRAGMENT_OFFSET == 0;
    let protocol = headers[23];
    is_usual.then(|| (key_in(part(headers, 30), protocol), protocol))
}

/// Of the headers from the Ethernet type on, what tells a usual packet and its service: all that [`usual_key`] looks at.
const TELLING: [u8; Pattern::BYTES] = {
    let mut mask = [0; Pattern::BYTES];
    // Ethernet type, version and header length.
    (mask[0], mask[1], mask[2]) = (0xff, 0xff, 0xff);
    // Fragment offset.
    [mask[8], mask[9]] = FRAGMENT_OFFSET.to_ne_bytes();
    // Protocol.
    mask[11] = 0xff;
    // The destination's address and port.
    (mask[18], mask[19], mask[20], mask[21]) = (0xff, 0xff, 0xff, 0xff);
    (mask[24], mask[25]) = (0xff, 0xff);
    mask
};

/// Headers of a usual packet, ports included.
type UsualHeaders = [u8; ETHERNET_BYTES + 24];

/// Some bytes of the headers, which aren't beyond their end, read at once.
#[inline(always)]
fn part<const N: usize>(headers: &UsualHeaders, at: usize) -> [u8; N] {
    let bytes = headers.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().unwrap_or([0; N])
}

fn key_v4(address: [u8; 4], protocol: u8, port: [u8; 2]) -> u64 {
    let ([a, b, c, d], [e, f]) = (address, port);
    key_in([a, b, c, d, 0, 0, e, f], protocol)
}

/// The same of what stands in a packet: the destination's address and both ports.
#[inline(always)]
fn key_in(address_and_ports: [u8; 8], protocol: u8) -> u64 {
    // The bytes as they stand in the packet, the protocol in place of the source's port: a key is compared, never read.
    u64::from_le_bytes(address_and_ports) & !(0xffff << 32) | u64::from(protocol) << 32
}

#[inline(always)]
fn key_v6(address: [u8; 16], protocol: u8, port: [u8; 2]) -> (u128, u64) {
    (
        u128::from_ne_bytes(address),
        u64::from(u16::from_ne_bytes(port)) << 8 | u64::from(protocol),
    )
}

fn destination_port(transport: &[u8]) -> Option<[u8; 2]> {
    transport.first_chunk::<4>().map(|ports| [ports[2], ports[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::frames::{self, Ports};
    use proptest::prelude::*;

    fn destinations() -> Destinations {
        let service = |address: &str, protocol, port| VirtualService {
            address: address.parse().unwrap(),
            protocol,
            port,
        };
        Destinations::new(vec![
            service("10.82.99.100", Protocol::Tcp, 80),
            service("10.82.99.100", Protocol::Udp, 53),
            service("10.82.99.101", Protocol::Tcp, 443),
            service("fd82:99::100", Protocol::Tcp, 80),
        ])
    }

    fn is_virtual(destinations: &Destinations, frame: &[u8]) -> bool {
        destinations.is_virtual(frame, &mut Recent::default())
    }

    const VIP: [u8; 4] = [10, 82, 99, 100];
    const CLIENT: [u8; 4] = [10, 82, 99, 2];

    fn vip6() -> [u8; 16] {
        "fd82:99::100".parse::<core::net::Ipv6Addr>().unwrap().octets()
    }

    const TO_80: Ports = Ports {
        source: 40_000,
        destination: 80,
    };

    #[test]
    fn address_protocol_and_port_decide() {
        let destinations = destinations();
        let to = |destination| Ports {
            source: 40_000,
            destination,
        };
        assert!(is_virtual(&destinations, &frames::ipv4(CLIENT, VIP, TCP, to(80))));
        assert!(is_virtual(&destinations, &frames::ipv4(CLIENT, VIP, UDP, to(53))));
        assert!(!is_virtual(
            &destinations,
            &frames::ipv4(CLIENT, VIP, TCP, to(53))
        ));
        assert!(!is_virtual(
            &destinations,
            &frames::ipv4(CLIENT, VIP, UDP, to(80))
        ));
        assert!(!is_virtual(
            &destinations,
            &frames::ipv4(CLIENT, [10, 82, 99, 101], TCP, to(80))
        ));
        assert!(is_virtual(
            &destinations,
            &frames::ipv4(CLIENT, [10, 82, 99, 101], TCP, to(443))
        ));
        assert!(!is_virtual(
            &destinations,
            &frames::ipv4(VIP, CLIENT, TCP, to(80))
        ));
        assert!(is_virtual(
            &destinations,
            &frames::ipv6(vip6(), TCP, &[0x9c, 0x40, 0, 80, 0, 0, 0, 0])
        ));
        assert!(!is_virtual(
            &destinations,
            &frames::ipv6(vip6(), UDP, &[0x9c, 0x40, 0, 80, 0, 0, 0, 0])
        ));
    }

    #[test]
    fn options_do_not_hide_the_port() {
        let mut frame = frames::ipv4(CLIENT, VIP, TCP, TO_80);
        frame[14] = 0x46;
        frame.splice(34..34, [1, 1, 1, 0]);
        assert!(is_virtual(&destinations(), &frame));
    }

    #[test]
    fn a_later_fragment_goes_by_address_and_protocol() {
        let mut frame = frames::ipv4(
            CLIENT,
            VIP,
            TCP,
            Ports {
                source: 1,
                destination: 2,
            },
        );
        assert!(!is_virtual(&destinations(), &frame));
        frame[21] = 3;
        assert!(is_virtual(&destinations(), &frame));
        frame[23] = ICMP;
        assert!(!is_virtual(&destinations(), &frame));
        let later = [TCP, 0, 0, 8, 0, 0, 0, 0];
        assert!(is_virtual(
            &destinations(),
            &frames::ipv6(vip6(), IPV6_FRAGMENT, &later)
        ));
        let first = [TCP, 0, 0, 1, 0, 0, 0, 0, 0x9c, 0x40, 0, 80];
        assert!(is_virtual(
            &destinations(),
            &frames::ipv6(vip6(), IPV6_FRAGMENT, &first)
        ));
    }

    #[test]
    fn an_error_about_what_a_service_sent_is_the_balancers_and_an_echo_is_not() {
        let sent = frames::ipv4(
            VIP,
            CLIENT,
            TCP,
            Ports {
                source: 80,
                destination: 40_000,
            },
        );
        let mut error = frames::ipv4(CLIENT, VIP, ICMP, TO_80);
        error.truncate(34);
        error.extend([3, 4, 0, 0, 0, 0, 5, 0xdc]);
        error.extend(&sent[14..]);
        assert!(is_virtual(&destinations(), &error));
        error[34] = 8;
        assert!(!is_virtual(&destinations(), &error), "an echo request");
        error[34] = 3;
        error[46] ^= 1;
        assert!(!is_virtual(&destinations(), &error) || error[46] == sent[14 + 4] ^ 1);
        let mut from_another = error.clone();
        from_another[34 + 8 + 15] ^= 1;
        assert!(!is_virtual(&destinations(), &from_another));

        let mut sent6 = frames::ipv6([7; 16], TCP, &[0, 80, 0x9c, 0x40])[14..].to_vec();
        sent6[8..24].copy_from_slice(&vip6());
        let too_big = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &sent6].concat();
        assert!(is_virtual(
            &destinations(),
            &frames::ipv6(vip6(), ICMPV6, &too_big)
        ));
    }

    #[test]
    fn without_services_nothing_is_virtual() {
        let none = Destinations::new(vec![]);
        assert!(none.is_empty());
        assert!(!is_virtual(&none, &frames::ipv4(CLIENT, VIP, TCP, TO_80)));
    }

    proptest! {
        /// No bytes make it panic, and the short way decides as the long way does.
        #[test]
        fn any_frame_is_decided(
            mut frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u8..4, fix in any::<bool>(), port in 78u16..82,
        ) {
            let destinations = destinations();
            if frame.len() >= 54 {
                match kind {
                    0 => frame[12..14].copy_from_slice(&ETHERTYPE_IPV4),
                    1 => frame[12..14].copy_from_slice(&ETHERTYPE_IPV6),
                    _ => {}
                }
                if fix {
                    frame[14] = 0x45;
                    frame[23] = TCP;
                    frame[30..34].copy_from_slice(&VIP);
                    frame[36..38].copy_from_slice(&port.to_be_bytes());
                }
            }
            let mut recent = Recent::default();
            let first = destinations.is_virtual(&frame, &mut recent);
            prop_assert_eq!(first, destinations.is_virtual_unusually(&frame));
            prop_assert_eq!(first, destinations.is_virtual(&frame, &mut recent), "the second of its kind");
            let (mut told, mut anew) = (self::destinations(), self::destinations());
            let usually = told.is_usually_virtual(&frame);
            prop_assert!(first || !usually);
            prop_assert_eq!(usually, told.is_usually_virtual(&frame), "by its headers");
            for index in 12..frame.len() {
                let mut other = frame.clone();
                other[index] ^= 1;
                anew.usual = Pattern::NOTHING;
                prop_assert_eq!(anew.is_usually_virtual(&other), told.is_usually_virtual(&other), "byte {}", index);
                told.is_usually_virtual(&frame);
            }
        }

        /// The set holds exactly the services it was made of.
        #[test]
        fn a_set_holds_its_keys(keys in proptest::collection::hash_set(1u64..500, 0..80)) {
            let set = KeySet::new(&keys.iter().copied().collect::<Vec<_>>());
            for key in 1..500 {
                prop_assert_eq!(set.contains(key), keys.contains(&key));
            }
        }
    }
}
