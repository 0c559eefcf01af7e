//! Plain packets: TCP or UDP over IPv4 without tag, options or fragmentation, which nearly all are.
//!
//! Their headers stand at fixed places, so that one bounds check serves for all of them, and a packet that is like the one before
//! is recognised by one comparison of words. Any bytes are safe input; whatever isn't plain is `packet.rs`'s.

use prefetch::Pattern;

use crate::packet::{Addresses, ETHERNET_HEADER, ETHERTYPE_IPV4, FlowKey, Protocol, TcpFlags};

/// A TCP or UDP packet over IPv4 without tag, options or fragmentation: what nearly all packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainIpv4 {
    /// The client's address in the upper half, the VIP's in the lower, in host order.
    hosts: u64,
    /// The client's port in the upper half, the VIP's in the lower.
    ports: u32,
    destination_key: u64,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What the headers of a plain packet and of all later ones for the same VIP have in common.
#[derive(Clone, Copy, Debug)]
pub struct PlainPattern {
    pattern: Pattern,
    protocol: Protocol,
    /// The least total length, in bytes.
    shortest: u16,
}

/// Of the headers from the EtherType on, all that [`PlainIpv4::parse`] looks at but the length, and the destination.
const TELLING: [u8; Pattern::BYTES] = {
    let mut mask = [0; Pattern::BYTES];
    // EtherType, version and header length.
    (mask[0], mask[1], mask[2]) = (0xff, 0xff, 0xff);
    [mask[8], mask[9]] = FRAGMENT.to_ne_bytes();
    // Protocol.
    mask[11] = 0xff;
    // The VIP's address and port.
    (mask[18], mask[19], mask[20], mask[21]) = (0xff, 0xff, 0xff, 0xff);
    (mask[24], mask[25]) = (0xff, 0xff);
    mask
};

impl PlainPattern {
    /// Of no packet.
    pub const NOTHING: Self = Self {
        pattern: Pattern::NOTHING,
        protocol: Protocol::Tcp,
        shortest: 0,
    };

    /// Of this frame, which is that packet.
    #[must_use]
    pub fn of(frame: &[u8], packet: &PlainIpv4) -> Self {
        match frame.get(12..).and_then(|headers| headers.first_chunk()) {
            Some(headers) => Self {
                pattern: Pattern::of(headers, &TELLING),
                protocol: packet.protocol,
                shortest: shortest(packet.protocol),
            },
            None => Self::NOTHING,
        }
    }

    /// [`PlainIpv4::parse`] of a frame that matches, and has a right length.
    #[inline(always)]
    #[must_use]
    pub fn parse<E>(&self, frame: &[u8], event: impl Fn(Protocol, TcpFlags) -> E) -> Option<(PlainIpv4, E)> {
        let header: &PlainHeaders = frame.first_chunk()?;
        let headers = header.get(12..)?.first_chunk()?;
        let total_length = u16::from_be_bytes(part(header, 16));
        let longest = frame.len() - ETHERNET_HEADER;
        if !self.pattern.matches(headers)
            || total_length < self.shortest
            || usize::from(total_length) > longest
        {
            return None;
        }
        let event = match self.protocol {
            Protocol::Udp => event(Protocol::Udp, TcpFlags::default()),
            Protocol::Tcp => event(Protocol::Tcp, TcpFlags(header[TRANSPORT + 13])),
        };
        Some((PlainIpv4::read(header, self.protocol), event))
    }
}

/// The least total length of a plain packet, in bytes.
fn shortest(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 20 + 20,
        Protocol::Udp => 20 + 8,
    }
}

/// More fragments, and the fragment offset, as they stand in the header.
const FRAGMENT: u16 = u16::from_ne_bytes([0x3f, 0xff]);

impl PlainIpv4 {
    /// Reads a frame if it is that plain: one bounds check for all of its headers, which are read in words. Says besides what `event` makes
    /// of its protocol and flags.
    ///
    /// Every Ethernet frame that came over a wire is long enough for that check; whatever isn't plain is [`parse`](crate::packet::parse)'s.
    #[must_use]
    pub fn parse<E>(frame: &[u8], event: impl Fn(Protocol, TcpFlags) -> E) -> Option<(Self, E)> {
        let header: &PlainHeaders = frame.first_chunk()?;
        let protocol = Protocol::from_number(header[23])?;
        let flags = match protocol {
            Protocol::Tcp => TcpFlags(header[TRANSPORT + 13]),
            Protocol::Udp => TcpFlags::default(),
        };
        let total_length = u16::from_be_bytes(part(header, 16));
        let is_plain = part(header, 12) == ETHERTYPE_IPV4.to_be_bytes()
            && header[14] == 0x45
            && u16::from_ne_bytes(part(header, 20)) & FRAGMENT == 0
            && total_length >= shortest(protocol)
            && usize::from(total_length) <= frame.len() - ETHERNET_HEADER;
        is_plain.then(|| (Self::read(header, protocol), event(protocol, flags)))
    }

    #[inline(always)]
    fn read(header: &PlainHeaders, protocol: Protocol) -> Self {
        Self {
            hosts: u64::from_be_bytes(part(header, 26)),
            ports: u32::from_be_bytes(part(header, TRANSPORT)),
            destination_key: destination_in(part(header, 30), protocol.number()),
            protocol,
        }
    }

    /// The packet's flow.
    #[inline(always)]
    #[must_use]
    pub fn flow(&self) -> FlowKey {
        FlowKey {
            addresses: Addresses::V4 {
                source: (self.hosts >> 32) as u32,
                destination: self.hosts as u32,
            },
            source_port: (self.ports >> 16) as u16,
            destination_port: self.ports as u16,
            protocol: self.protocol,
        }
    }

    /// The [`destination_key`] of its destination.
    #[inline(always)]
    #[must_use]
    pub fn destination_key(&self) -> u64 {
        self.destination_key
    }
}

/// A destination over IPv4 in one word, never 0, whose parts stand as in a packet: to be compared, not to be read.
#[must_use]
pub fn destination_key(address: u32, port: u16, protocol: Protocol) -> u64 {
    let ([a, b, c, d], [e, f]) = (address.to_be_bytes(), port.to_be_bytes());
    destination_in([a, b, c, d, 0, 0, e, f], protocol.number())
}

/// The same of a packet: of the destination's address, both ports and the protocol's number.
#[inline(always)]
fn destination_in(address_and_ports: [u8; 8], protocol: u8) -> u64 {
    // The protocol takes the place of the client's port.
    u64::from_le_bytes(address_and_ports) & !(0xffff << 32) | u64::from(protocol) << 32
}

/// Where the transport header of a plain packet is.
const TRANSPORT: usize = ETHERNET_HEADER + 20;

/// All headers of a plain packet; of UDP's, more than that.
type PlainHeaders = [u8; TRANSPORT + 20];

/// Some bytes of the headers, which aren't beyond their end, read at once.
#[inline(always)]
fn part<const N: usize>(headers: &PlainHeaders, at: usize) -> [u8; N] {
    let bytes = headers.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().unwrap_or([0; N])
}
