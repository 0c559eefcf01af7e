//! Whose is a received frame: Ethernet, IPv4, IPv6, TCP, UDP and ICMP headers, read once and bounds-checked.
//!
//! Says what a frame is and to which connection it belongs; knows no connections. smoltcp reads the headers again for
//! the few packets that reach a connection, and is told not to verify checksums: that is done here, for frames that the device
//! didn't look at. Formats: RFC 791, RFC 8200, RFC 9293 3.1, RFC 768.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::ops::Range;
use rref::packet::ChecksumState;
use smoltcp::wire::{IpAddress, IpProtocol, checksum};

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_BYTES: usize = 14;

/// TCP's flags, as in octet 13 of its header.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Everything that was written so far is sent.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
const PORT_DHCP_SERVER: u16 = 67;
const PORT_DHCP_CLIENT: u16 = 68;

/// An address of either family as 128 bits: IPv4 ones are mapped (RFC 4291, 2.5.5.2), so that comparing is two words.
pub type WideAddress = u128;

/// An address as 128 bits.
pub fn widen(address: IpAddr) -> WideAddress {
    match address {
        IpAddr::V4(address) => widen_v4(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

const fn widen_v4(bits: u32) -> WideAddress {
    0xffff << 32 | bits as u128
}

/// The address of 128 bits.
pub fn narrow(address: WideAddress) -> IpAddr {
    let address = Ipv6Addr::from_bits(address);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// A connection's 4-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// This side's address.
    pub local: WideAddress,
    /// The peer's address.
    pub remote: WideAddress,
    /// This side's port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl FlowKey {
    /// This side.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(narrow(self.local), self.local_port)
    }

    /// The peer.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(narrow(self.remote), self.remote_port)
    }
}

/// A TCP segment for the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its connection.
    pub key: FlowKey,
    /// See [`flag`].
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window as in the header.
    pub window: u16,
    /// Bytes of data.
    pub payload_bytes: usize,
    /// The IP packet in the frame.
    pub packet: Range<usize>,
}

/// A UDP datagram for the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Addresses and ports.
    pub key: FlowKey,
    /// Its data in the frame.
    pub payload: Range<usize>,
    /// The IP packet in the frame.
    pub packet: Range<usize>,
}

/// Why a frame goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A checksum is wrong.
    Checksum,
    /// It is for someone else, of a protocol that isn't spoken here, or broken.
    Unclaimed,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// TCP for one of the appliance's own addresses.
    Tcp(Segment),
    /// UDP for one of the appliance's own addresses.
    Udp(Datagram),
    /// ARP; its packet in the frame.
    Arp(Range<usize>),
    /// An echo request (ICMP or ICMPv6) for an address that the appliance answers for; the IP packet, and the ICMP message.
    Echo(Range<usize>, Range<usize>),
    /// Neighbour discovery (ICMPv6 133 to 137): the IP packet.
    Ndp(Range<usize>),
    /// A DHCP server's message, whatever address it is for.
    Dhcp,
}

/// Whom frames may be for.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    /// The appliance's Ethernet address.
    pub mac: [u8; 6],
    /// Addresses whose TCP and UDP is taken.
    pub own: alloc::vec::Vec<WideAddress>,
    /// Addresses that are answered for by ARP, NDP and echo only.
    pub vips: alloc::vec::Vec<WideAddress>,
}

impl Receiver {
    #[inline]
    fn is_own(&self, address: WideAddress) -> bool {
        self.own.contains(&address)
    }

    fn answers_for(&self, address: WideAddress) -> bool {
        self.is_own(address) || self.vips.contains(&address)
    }

    /// The segment in a frame of the most usual kind: TCP over IPv4 without options of IP, for an own address, whose checksums the device has found right. Of any
    /// other frame, and of one that is to be refused, [`claim`](Self::claim) says what it is.
    #[inline(always)]
    pub fn claim_plain(&self, frame: &[u8], state: ChecksumState) -> Option<Segment> {
        let header: &[u8; ETHERNET_BYTES + 40] = frame.first_chunk()?;
        let (link, ip) = header.split_first_chunk::<ETHERNET_BYTES>()?;
        let (ip, tcp) = ip.split_first_chunk::<20>()?;
        let word = |at: usize| u32::from_be_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        let (first_word, remote_bits, local_bits) = (word(0), word(12), word(16));
        let end = ETHERNET_BYTES + (first_word & 0xffff) as usize;
        let tcp: &[u8; 20] = tcp.first_chunk()?;
        let header_bytes = usize::from(tcp[12] >> 4) * 4;
        let payload_bytes = end.checked_sub(ETHERNET_BYTES + 20 + header_bytes)?;
        let local = widen_v4(local_bits);
        // Senders that no reply can go to are for `claim`, as is all that isn't first.
        let first = remote_bits >> 24;
        let is_plain = state == ChecksumState::Good
            && link[..6] == self.mac
            && u16::from_be_bytes([link[12], link[13]]) == TYPE_IPV4
            && first_word >> 24 == 0x45
            && word(4) & 0x3fff == 0
            && ip[9] == PROTOCOL_TCP
            && header_bytes >= 20
            && end <= frame.len()
            && (1..224).contains(&first)
            && first != 127
            && self.own.first() == Some(&local);
        is_plain.then(|| Segment {
            key: FlowKey {
                local,
                remote: widen_v4(remote_bits),
                local_port: u16::from_be_bytes([tcp[2], tcp[3]]),
                remote_port: u16::from_be_bytes([tcp[0], tcp[1]]),
            },
            flags: tcp[13],
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            payload_bytes,
            packet: ETHERNET_BYTES..end,
        })
    }

    /// Says what `frame` is.
    #[inline]
    pub fn claim(&self, frame: &[u8], state: ChecksumState) -> Result<Claim, Refusal> {
        if state == ChecksumState::Bad {
            return Err(Refusal::Checksum);
        }
        let header: &[u8; ETHERNET_BYTES] = frame.first_chunk().ok_or(Refusal::Unclaimed)?;
        let group = header[0] & 1 != 0;
        if !group && header[..6] != self.mac {
            return Err(Refusal::Unclaimed);
        }
        match u16::from_be_bytes([header[12], header[13]]) {
            TYPE_IPV4 => self.claim_ipv4(frame, state, group),
            TYPE_IPV6 => self.claim_ipv6(frame, state, group),
            TYPE_ARP => Ok(Claim::Arp(ETHERNET_BYTES..frame.len())),
            _ => Err(Refusal::Unclaimed),
        }
    }

    #[inline]
    fn claim_ipv4(&self, frame: &[u8], state: ChecksumState, group: bool) -> Result<Claim, Refusal> {
        let start = ETHERNET_BYTES;
        let header: &[u8; 20] = frame
            .get(start..)
            .and_then(|packet| packet.first_chunk())
            .ok_or(Refusal::Unclaimed)?;
        let header_bytes = usize::from(header[0] & 0x0f) * 4;
        let end = start + usize::from(u16::from_be_bytes([header[2], header[3]]));
        let more_or_offset = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        let body = start + header_bytes;
        if header[0] >> 4 != 4 || header_bytes < 20 || end > frame.len() || body > end || more_or_offset != 0
        {
            return Err(Refusal::Unclaimed);
        }
        let remote_bits = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
        let local = widen_v4(u32::from_be_bytes([
            header[16], header[17], header[18], header[19],
        ]));
        let protocol = header[9];
        if state == ChecksumState::Unknown
            && frame
                .get(start..body)
                .is_none_or(|header| checksum::data(header) != !0)
        {
            return Err(Refusal::Checksum);
        }
        if protocol == PROTOCOL_UDP
            && let Some([a, b, c, d]) = frame.get(body..end).and_then(|bytes| bytes.first_chunk())
            && [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])]
                == [PORT_DHCP_SERVER, PORT_DHCP_CLIENT]
        {
            return Ok(Claim::Dhcp);
        }
        // Senders that no reply can go to: "this network", loopback, multicast, reserved and broadcast.
        let first = remote_bits >> 24;
        if group || first == 0 || first == 127 || first >= 224 {
            return Err(Refusal::Unclaimed);
        }
        let remote = widen_v4(remote_bits);
        match protocol {
            PROTOCOL_TCP if self.is_own(local) => claim_tcp(frame, start, body..end, local, remote, state),
            PROTOCOL_UDP if self.is_own(local) => claim_udp(frame, start, body..end, local, remote, state),
            PROTOCOL_ICMP if self.answers_for(local) => {
                let message = frame.get(body..end).unwrap_or(&[]);
                if message.len() < 8 || message.first() != Some(&8) {
                    return Err(Refusal::Unclaimed);
                }
                // Devices look at TCP and UDP only.
                if checksum::data(message) != !0 {
                    return Err(Refusal::Checksum);
                }
                Ok(Claim::Echo(start..end, body..end))
            }
            _ => Err(Refusal::Unclaimed),
        }
    }

    #[inline]
    fn claim_ipv6(&self, frame: &[u8], state: ChecksumState, group: bool) -> Result<Claim, Refusal> {
        let start = ETHERNET_BYTES;
        let header: &[u8; 40] = frame
            .get(start..)
            .and_then(|packet| packet.first_chunk())
            .ok_or(Refusal::Unclaimed)?;
        let body = start + 40;
        let end = body + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 || end > frame.len() {
            return Err(Refusal::Unclaimed);
        }
        let (addresses, _) = header[8..].as_chunks::<16>();
        let [remote, local] = addresses else {
            return Err(Refusal::Unclaimed);
        };
        let (remote, local) = (u128::from_be_bytes(*remote), u128::from_be_bytes(*local));
        let next_header = header[6];
        let from_group = remote >> 120 == 0xff;
        // The unspecified sender (::) of duplicate address detection and mapped addresses are for NDP, or for nobody.
        let answerable = !from_group && remote >> 32 != 0xffff && remote > 1;
        match next_header {
            PROTOCOL_TCP if !group && answerable && self.is_own(local) => {
                claim_tcp(frame, start, body..end, local, remote, state)
            }
            PROTOCOL_UDP if !group && answerable && self.is_own(local) => {
                claim_udp(frame, start, body..end, local, remote, state)
            }
            PROTOCOL_ICMPV6 if !from_group => {
                let message = frame.get(body..end).unwrap_or(&[]);
                let kind = message.first().copied().unwrap_or(0);
                let discovery = (133..=137).contains(&kind) && header[7] == 255;
                let echo =
                    kind == 128 && message.len() >= 8 && !group && answerable && self.answers_for(local);
                if !discovery && !echo {
                    return Err(Refusal::Unclaimed);
                }
                if !transport_checksum_is_right(message, local, remote, IpProtocol::Icmpv6) {
                    return Err(Refusal::Checksum);
                }
                Ok(if echo {
                    Claim::Echo(start..end, body..end)
                } else {
                    Claim::Ndp(start..end)
                })
            }
            _ => Err(Refusal::Unclaimed),
        }
    }
}

fn transport_checksum_is_right(
    bytes: &[u8],
    local: WideAddress,
    remote: WideAddress,
    protocol: IpProtocol,
) -> bool {
    let (source, destination) = (IpAddress::from(narrow(remote)), IpAddress::from(narrow(local)));
    let pseudo = checksum::pseudo_header(&source, &destination, protocol, bytes.len() as u32);
    checksum::combine(&[pseudo, checksum::data(bytes)]) == !0
}

#[inline(always)]
fn claim_tcp(
    frame: &[u8],
    start: usize,
    body: Range<usize>,
    local: WideAddress,
    remote: WideAddress,
    state: ChecksumState,
) -> Result<Claim, Refusal> {
    let end = body.end;
    let bytes = frame.get(body).ok_or(Refusal::Unclaimed)?;
    let header: &[u8; 20] = bytes.first_chunk().ok_or(Refusal::Unclaimed)?;
    let header_bytes = usize::from(header[12] >> 4) * 4;
    if header_bytes < 20 || header_bytes > bytes.len() {
        return Err(Refusal::Unclaimed);
    }
    if state == ChecksumState::Unknown && !transport_checksum_is_right(bytes, local, remote, IpProtocol::Tcp)
    {
        return Err(Refusal::Checksum);
    }
    Ok(Claim::Tcp(Segment {
        key: FlowKey {
            local,
            remote,
            local_port: u16::from_be_bytes([header[2], header[3]]),
            remote_port: u16::from_be_bytes([header[0], header[1]]),
        },
        flags: header[13],
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        acknowledgement: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        window: u16::from_be_bytes([header[14], header[15]]),
        payload_bytes: bytes.len() - header_bytes,
        packet: start..end,
    }))
}

fn claim_udp(
    frame: &[u8],
    start: usize,
    body: Range<usize>,
    local: WideAddress,
    remote: WideAddress,
    state: ChecksumState,
) -> Result<Claim, Refusal> {
    let packet = start..body.end;
    let first = body.start;
    let bytes = frame.get(body).ok_or(Refusal::Unclaimed)?;
    let header: &[u8; 8] = bytes.first_chunk().ok_or(Refusal::Unclaimed)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let datagram = bytes
        .get(..length)
        .filter(|datagram| datagram.len() >= 8)
        .ok_or(Refusal::Unclaimed)?;
    let unsummed = header[6] == 0 && header[7] == 0;
    let is_ipv4 = remote >> 32 == 0xffff;
    let right = match state {
        // IPv4 senders may leave the sum out (RFC 768); IPv6 senders may not (RFC 8200, 8.1).
        _ if unsummed => is_ipv4,
        ChecksumState::Unknown => transport_checksum_is_right(datagram, local, remote, IpProtocol::Udp),
        _ => true,
    };
    if !right {
        return Err(Refusal::Checksum);
    }
    Ok(Claim::Udp(Datagram {
        key: FlowKey {
            local,
            remote,
            local_port: u16::from_be_bytes([header[2], header[3]]),
            remote_port: u16::from_be_bytes([header[0], header[1]]),
        },
        payload: first + 8..first + length,
        packet,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn receiver() -> Receiver {
        Receiver {
            mac: MAC,
            own: vec![widen_v4(0x0a00_0001), widen_v4(0x0a00_0002)],
            vips: vec![],
        }
    }

    /// A segment with two bytes of data to the first own address, from 10.0.0.9.
    fn plain_frame() -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&MAC);
        frame[12..14].copy_from_slice(&TYPE_IPV4.to_be_bytes());
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&42_u16.to_be_bytes());
        frame[23] = PROTOCOL_TCP;
        frame[26..30].copy_from_slice(&[10, 0, 0, 9]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
        frame[34..54].copy_from_slice(&[
            0x12, 0x34, 0x18, 0xeb, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 9, 10, 0, 0, 0, 0,
        ]);
        frame
    }

    #[test]
    fn the_usual_frame_is_plain() {
        let (receiver, frame) = (receiver(), plain_frame());
        let segment = receiver.claim_plain(&frame, ChecksumState::Good).unwrap();
        assert_eq!(segment.payload_bytes, 2);
        assert_eq!(
            receiver.claim(&frame, ChecksumState::Good),
            Ok(Claim::Tcp(segment))
        );
        assert_eq!(receiver.claim_plain(&frame, ChecksumState::Unknown), None);
    }

    proptest! {
        /// What the fast way takes is what the other one takes, whatever is changed in a frame and wherever it ends.
        #[test]
        fn both_ways_agree(
            changes in prop::collection::vec((0_usize..60, any::<u8>()), 0..4),
            bytes in 0_usize..=60,
        ) {
            let (receiver, mut frame) = (receiver(), plain_frame());
            for (at, byte) in changes {
                frame[at] = byte;
            }
            let frame = &frame[..bytes];
            if let Some(segment) = receiver.claim_plain(frame, ChecksumState::Good) {
                prop_assert_eq!(receiver.claim(frame, ChecksumState::Good), Ok(Claim::Tcp(segment)));
            }
        }
    }
}
