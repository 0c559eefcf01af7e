//! What the balancer reads of a frame: Ethernet II, at most one 802.1Q tag, IPv4 or IPv6, and of TCP, UDP and ICMP the
//! part that names a flow. Any bytes are safe input.
//!
//! Every packet falls into one of these classes:
//! - TCP and UDP with ports in sight: the flow is the 5-tuple. IPv4 options and IPv6 extension headers are stepped over.
//! - The first fragment of a datagram has the ports too, and the key by which the later ones are recognised.
//! - A later fragment has no ports: all it says is the 3-tuple of addresses and protocol, and its datagram's number.
//! - An ICMP error ("packet too big", "time exceeded" …) that a router sent to the VIP about a packet of a backend's: the
//!   flow is that of the embedded packet, turned round.
//! - Everything else, ICMP echo among it, is not the balancer's.
//!
//! What nearly all packets are, `plain_packet.rs` reads with fewer steps.
//!
//! Checksums are not verified here: the NIC does it, and the backend must do it anyway.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 48-bit Ethernet address.
pub type MacAddress = [u8; 6];

/// Bytes of an Ethernet II header without a VLAN tag.
pub const ETHERNET_HEADER: usize = 14;

/// Extension headers of an IPv6 packet beyond this number make it [`Parsed::Other`]: no honest packet has as many, and
/// the walk must end.
const MAXIMUM_EXTENSION_HEADERS: usize = 8;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6_ROUTING: u8 = 43;
const PROTOCOL_IPV6_FRAGMENT: u8 = 44;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_IPV6_DESTINATION_OPTIONS: u8 = 60;

/// A transport protocol that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = PROTOCOL_TCP,
    /// RFC 768.
    Udp = PROTOCOL_UDP,
}

impl Protocol {
    /// The protocol's number in the IP header.
    #[inline(always)]
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    #[inline(always)]
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            PROTOCOL_TCP => Some(Self::Tcp),
            PROTOCOL_UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Source and destination of an IP packet, as numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Who sent it.
        source: u32,
        /// Whom it is for.
        destination: u32,
    },
    /// IPv6.
    V6 {
        /// Who sent it.
        source: u128,
        /// Whom it is for.
        destination: u128,
    },
}

impl Addresses {
    /// The destination, in the standard library's type.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => Ipv4Addr::from_bits(destination).into(),
            Self::V6 { destination, .. } => Ipv6Addr::from_bits(destination).into(),
        }
    }

    fn turned_round(self) -> Self {
        match self {
            Self::V4 { source, destination } => Self::V4 {
                source: destination,
                destination: source,
            },
            Self::V6 { source, destination } => Self::V6 {
                source: destination,
                destination: source,
            },
        }
    }
}

/// What tells flows apart: the 5-tuple, seen from the client to the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Client and VIP.
    pub addresses: Addresses,
    /// The client's port.
    pub source_port: u16,
    /// The VIP's port.
    pub destination_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What tells fragmented datagrams apart (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    /// Client and VIP.
    pub addresses: Addresses,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The datagram's number: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
}

/// The flags of a TCP header; none for UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// A SYN without ACK: a client opens a connection.
    #[inline(always)]
    #[must_use]
    pub fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// FIN or RST: the client has nothing more to say.
    #[inline(always)]
    #[must_use]
    pub fn closes(self) -> bool {
        self.0 & (Self::FIN | Self::RST) != 0
    }
}

/// A frame's class, with what the balancer needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole TCP or UDP packet.
    Packet {
        /// Its 5-tuple.
        flow: FlowKey,
        /// Its TCP flags.
        flags: TcpFlags,
    },
    /// The first of several fragments.
    FirstFragment {
        /// Its 5-tuple.
        flow: FlowKey,
        /// Its TCP flags.
        flags: TcpFlags,
        /// What the later fragments will have in common with it.
        key: FragmentKey,
    },
    /// A fragment that isn't the first.
    LaterFragment {
        /// The datagram it belongs to.
        key: FragmentKey,
    },
    /// An ICMP error about a packet that a backend sent.
    IcmpError {
        /// The flow of that packet, seen from the client to the VIP.
        flow: FlowKey,
    },
    /// Not for a balancer.
    Other,
}

/// A frame whose headers contradict each other or its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame ends before the header it announces.
    #[error("the frame ends within a header")]
    Truncated,
    /// A version or length field has a value that the protocol forbids.
    #[error("a header field has a forbidden value")]
    BadHeader,
}

/// Reads any frame.
///
/// # Errors
/// When the frame contradicts itself.
pub fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    let (ethertype, packet) = network_layer(frame)?;
    match ethertype {
        ETHERTYPE_IPV4 => classify(read_ipv4(packet)?),
        ETHERTYPE_IPV6 => classify(read_ipv6(packet)?),
        _ => Ok(Parsed::Other),
    }
}

/// The EtherType and what follows it, a VLAN tag stepped over.
fn network_layer(frame: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    match u16_at(frame, 12)? {
        ETHERTYPE_VLAN => Ok((u16_at(frame, 16)?, rest(frame, 18)?)),
        ethertype => Ok((ethertype, rest(frame, ETHERNET_HEADER)?)),
    }
}

/// An IP packet whose headers have been read, of either version.
struct Datagram<'a> {
    addresses: Addresses,
    /// The number of the protocol in `payload`.
    protocol: u8,
    fragment: Fragment,
    /// What follows the IP headers, cut to the length that they give: Ethernet's padding is not in it.
    payload: &'a [u8],
}

#[derive(Clone, Copy)]
enum Fragment {
    Whole,
    First { identification: u32 },
    Later { identification: u32 },
}

impl Fragment {
    fn new(identification: u32, offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First { identification },
            _ => Self::Later { identification },
        }
    }
}

fn read_ipv4(packet: &[u8]) -> Result<Datagram<'_>, Malformed> {
    let (header_length, mut datagram) = read_ipv4_header(packet)?;
    let total_length = usize::from(u16_at(packet, 2)?);
    if total_length < header_length {
        return Err(Malformed::BadHeader);
    }
    datagram.payload = packet
        .get(header_length..total_length)
        .ok_or(Malformed::Truncated)?;
    Ok(datagram)
}

/// An IPv4 header and all that follows it in `packet`, whatever total length the header claims: the packet quoted in an
/// ICMP error is cut short.
fn read_ipv4_header(packet: &[u8]) -> Result<(usize, Datagram<'_>), Malformed> {
    let version_and_length = u8_at(packet, 0)?;
    let header_length = usize::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || header_length < 20 {
        return Err(Malformed::BadHeader);
    }
    let fragment = u16_at(packet, 6)?;
    let datagram = Datagram {
        addresses: Addresses::V4 {
            source: u32_at(packet, 12)?,
            destination: u32_at(packet, 16)?,
        },
        protocol: u8_at(packet, 9)?,
        fragment: Fragment::new(
            u32::from(u16_at(packet, 4)?),
            fragment & 0x1fff,
            fragment & 0x2000 != 0,
        ),
        payload: rest(packet, header_length)?,
    };
    Ok((header_length, datagram))
}

fn read_ipv6(packet: &[u8]) -> Result<Datagram<'_>, Malformed> {
    let payload_length = usize::from(u16_at(packet, 4)?);
    let end = 40 + payload_length;
    let packet = packet.get(..end).ok_or(Malformed::Truncated)?;
    read_ipv6_header(packet)
}

/// An IPv6 header with its extension headers, and all that follows them in `packet`.
fn read_ipv6_header(packet: &[u8]) -> Result<Datagram<'_>, Malformed> {
    if u8_at(packet, 0)? >> 4 != 6 {
        return Err(Malformed::BadHeader);
    }
    let mut datagram = Datagram {
        addresses: Addresses::V6 {
            source: u128_at(packet, 8)?,
            destination: u128_at(packet, 24)?,
        },
        protocol: u8_at(packet, 6)?,
        fragment: Fragment::Whole,
        payload: rest(packet, 40)?,
    };
    for _ in 0..MAXIMUM_EXTENSION_HEADERS {
        let header = datagram.payload;
        let length = match datagram.protocol {
            PROTOCOL_HOP_BY_HOP | PROTOCOL_IPV6_ROUTING | PROTOCOL_IPV6_DESTINATION_OPTIONS => {
                8 + usize::from(u8_at(header, 1)?) * 8
            }
            PROTOCOL_IPV6_FRAGMENT => {
                let offset_and_more = u16_at(header, 2)?;
                datagram.fragment =
                    Fragment::new(u32_at(header, 4)?, offset_and_more >> 3, offset_and_more & 1 != 0);
                8
            }
            _ => break,
        };
        datagram.protocol = u8_at(header, 0)?;
        datagram.payload = rest(header, length)?;
        if let Fragment::Later { .. } = datagram.fragment {
            // What follows is the middle of something.
            break;
        }
    }
    Ok(datagram)
}

fn classify(datagram: Datagram<'_>) -> Result<Parsed, Malformed> {
    let Datagram {
        addresses,
        protocol,
        fragment,
        payload,
    } = datagram;
    let Some(protocol) = Protocol::from_number(protocol) else {
        return classify_icmp(&datagram);
    };
    if let Fragment::Later { identification } = fragment {
        return Ok(Parsed::LaterFragment {
            key: FragmentKey {
                addresses,
                protocol,
                identification,
            },
        });
    }
    let flow = FlowKey {
        addresses,
        source_port: u16_at(payload, 0)?,
        destination_port: u16_at(payload, 2)?,
        protocol,
    };
    let flags = match protocol {
        Protocol::Tcp => TcpFlags(u8_at(payload, 13)?),
        Protocol::Udp => TcpFlags::default(),
    };
    Ok(match fragment {
        Fragment::First { identification } => Parsed::FirstFragment {
            flow,
            flags,
            key: FragmentKey {
                addresses,
                protocol,
                identification,
            },
        },
        _ => Parsed::Packet { flow, flags },
    })
}

/// Finds the flow that an ICMP error is about (RFC 792, RFC 4443 section 3).
///
/// The quoted packet may be cut after 8 bytes of its payload, which is enough for the ports. An error about a fragment
/// that has no ports, or one that quotes nonsense, helps no backend, so it is nobody's.
fn classify_icmp(datagram: &Datagram<'_>) -> Result<Parsed, Malformed> {
    if !matches!(datagram.fragment, Fragment::Whole) {
        return Ok(Parsed::Other);
    }
    let message = datagram.payload;
    let quoted = match (datagram.addresses, datagram.protocol) {
        // Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem.
        (Addresses::V4 { .. }, PROTOCOL_ICMP) if matches!(u8_at(message, 0)?, 3 | 11 | 12) => {
            read_ipv4_header(rest(message, 8)?).map(|(_, quoted)| quoted)
        }
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (Addresses::V6 { .. }, PROTOCOL_ICMPV6) if matches!(u8_at(message, 0)?, 1..=4) => {
            read_ipv6_header(rest(message, 8)?)
        }
        _ => return Ok(Parsed::Other),
    }?;
    let Some(protocol) = Protocol::from_number(quoted.protocol) else {
        return Ok(Parsed::Other);
    };
    if let Fragment::Later { .. } = quoted.fragment {
        return Ok(Parsed::Other);
    }
    let flow = FlowKey {
        addresses: quoted.addresses.turned_round(),
        source_port: u16_at(quoted.payload, 2)?,
        destination_port: u16_at(quoted.payload, 0)?,
        protocol,
    };
    // A backend answers as the VIP, so the error comes back to the address that the quoted packet was sent from.
    if flow.addresses.destination() == datagram.addresses.destination() {
        Ok(Parsed::IcmpError { flow })
    } else {
        Ok(Parsed::Other)
    }
}

fn rest(bytes: &[u8], at: usize) -> Result<&[u8], Malformed> {
    bytes.get(at..).ok_or(Malformed::Truncated)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    rest(bytes, at)?
        .first_chunk()
        .copied()
        .ok_or(Malformed::Truncated)
}

fn u8_at(bytes: &[u8], at: usize) -> Result<u8, Malformed> {
    bytes.get(at).copied().ok_or(Malformed::Truncated)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    field(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    field(bytes, at).map(u32::from_be_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Result<u128, Malformed> {
    field(bytes, at).map(u128::from_be_bytes)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
