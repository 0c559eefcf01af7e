//! Finds the headers of a received frame as the device's parser does (datasheet 7.1.4 "Receive Filtering", 7.1.10).
//!
//! Any bytes are accepted: what doesn't parse is left out. Checks no checksum itself except on request.

use crate::checksum;

/// Length of destination, source and EtherType.
pub const ETHERNET_LENGTH: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_SCTP: u8 = 132;

/// Which Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4; whether its header has options.
    V4 {
        /// The header is longer than 20 bytes.
        options: bool,
    },
    /// IPv6; whether it has extension headers.
    V6 {
        /// At least one extension header.
        extensions: bool,
    },
}

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Where a frame's headers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The tag of the outer VLAN header, if there is one.
    pub vlan: Option<u16>,
    /// The Internet protocol.
    pub network: Option<Network>,
    /// Where its header starts.
    pub network_at: usize,
    /// The transport, of a datagram that isn't a fragment.
    pub transport: Option<Transport>,
    /// Where its header starts (also that of a fragment's data).
    pub transport_at: usize,
    /// End of the datagram by its own length, at most the frame's end.
    pub end: usize,
}

/// What verifying a frame's checksums gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumResult {
    /// Whether the IPv4 header's is right, if there is one.
    pub network: Option<bool>,
    /// Whether TCP's or UDP's is right, if one was checked.
    pub transport: Option<bool>,
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// Parses a frame; `vlan_type` is the EtherType that marks a VLAN header.
pub fn parse(frame: &[u8], vlan_type: u16) -> Headers {
    let mut headers = Headers {
        end: frame.len(),
        ..Headers::default()
    };
    let Some(mut kind) = be16(frame, 12) else {
        return headers;
    };
    headers.network_at = ETHERNET_LENGTH;
    if kind == vlan_type
        && let (Some(tag), Some(inner)) = (be16(frame, 14), be16(frame, 16))
    {
        headers.vlan = Some(tag);
        headers.network_at += 4;
        kind = inner;
    }
    let found = match kind {
        ETHERTYPE_IPV4 => parse_v4(frame, headers),
        ETHERTYPE_IPV6 => parse_v6(frame, headers),
        _ => None,
    };
    found.unwrap_or(headers)
}

fn parse_v4(frame: &[u8], mut headers: Headers) -> Option<Headers> {
    let at = headers.network_at;
    let first = *frame.get(at)?;
    let header_length = usize::from(first & 0xF) * 4;
    let total = usize::from(be16(frame, at + 2)?);
    let fragment = be16(frame, at + 6)?;
    let protocol = *frame.get(at + 9)?;
    if first >> 4 != 4 || header_length < 20 || total < header_length || at + header_length > frame.len() {
        return None;
    }
    headers.network = Some(Network::V4 {
        options: header_length > 20,
    });
    headers.transport_at = at + header_length;
    headers.end = (at + total).min(frame.len());
    let whole = at + total <= frame.len() && fragment & 0x3FFF == 0;
    headers.transport = if whole {
        transport(protocol, headers.transport_at, headers.end)
    } else {
        None
    };
    Some(headers)
}

fn parse_v6(frame: &[u8], mut headers: Headers) -> Option<Headers> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let at = headers.network_at;
    let first = *frame.get(at)?;
    let payload = usize::from(be16(frame, at + 4)?);
    let mut next = *frame.get(at + 6)?;
    if first >> 4 != 6 || frame.len() < at + 40 {
        return None;
    }
    headers.transport_at = at + 40;
    headers.end = (at + 40 + payload).min(frame.len());
    let mut extensions = false;
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
        let (Some(following), Some(units)) = (
            frame.get(headers.transport_at),
            frame.get(headers.transport_at + 1),
        ) else {
            break;
        };
        extensions = true;
        next = *following;
        headers.transport_at += (usize::from(*units) + 1) * 8;
    }
    const FRAGMENT: u8 = 44;
    headers.network = Some(Network::V6 {
        extensions: extensions || next == FRAGMENT,
    });
    let whole = at + 40 + payload <= frame.len();
    headers.transport = if whole {
        transport(next, headers.transport_at, headers.end)
    } else {
        None
    };
    Some(headers)
}

/// The transport, when its fixed header lies within the datagram.
fn transport(protocol: u8, at: usize, end: usize) -> Option<Transport> {
    let (kind, length) = match protocol {
        PROTOCOL_TCP => (Transport::Tcp, 20),
        PROTOCOL_UDP => (Transport::Udp, 8),
        PROTOCOL_SCTP => (Transport::Sctp, 12),
        _ => return None,
    };
    (at + length <= end).then_some(kind)
}

impl Headers {
    /// Source and destination address, if the frame has them.
    pub fn addresses<'a>(&self, frame: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let at = self.network_at;
        let (start, length) = match self.network? {
            Network::V4 { .. } => (at + 12, 4),
            Network::V6 { .. } => (at + 8, 16),
        };
        Some((
            frame.get(start..start + length)?,
            frame.get(start + length..start + 2 * length)?,
        ))
    }

    /// The pseudo-header's sum for a transport of this length.
    pub fn pseudo_sum(&self, frame: &[u8], protocol: u8, length: usize) -> Option<u32> {
        let (source, destination) = self.addresses(frame)?;
        let sum = checksum::add(checksum::add(0, source), destination);
        Some(sum + u32::from(protocol) + (length as u32 & 0xFFFF) + (length as u32 >> 16))
    }

    /// Verifies what the device verifies: IPv4 headers, TCP and UDP.
    ///
    /// A UDP checksum of zero over IPv4 counts as wrong, as the 82599 does (specification update, erratum 44).
    pub fn verify(&self, frame: &[u8]) -> ChecksumResult {
        let mut result = ChecksumResult::default();
        if let Some(Network::V4 { .. }) = self.network
            && let Some(header) = frame.get(self.network_at..self.transport_at)
        {
            result.network = Some(checksum::fold(checksum::add(0, header)) == 0xFFFF);
        }
        let protocol = match self.transport {
            Some(Transport::Tcp) => PROTOCOL_TCP,
            Some(Transport::Udp) => PROTOCOL_UDP,
            Some(Transport::Sctp) | None => return result,
        };
        if let Some(segment) = frame.get(self.transport_at..self.end)
            && let Some(pseudo) = self.pseudo_sum(frame, protocol, segment.len())
        {
            let unset = protocol == PROTOCOL_UDP && segment.get(6..8) == Some(&[0, 0]);
            result.transport = Some(!unset && checksum::fold(checksum::add(pseudo, segment)) == 0xFFFF);
        }
        result
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Frames for tests of this crate.

    use crate::checksum;

    /// Addresses of the two ends.
    pub(crate) const DESTINATION: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
    const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

    /// A UDP datagram over IPv4 with right checksums.
    pub(crate) fn udp(source_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [DESTINATION.as_slice(), &SOURCE, &[0x08, 0x00]].concat();
        let total = 28 + payload.len() as u16;
        let mut ip = vec![
            0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let sum = !checksum::fold(checksum::add(0, &ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut segment = [
            source_port.to_be_bytes(),
            53u16.to_be_bytes(),
            (total - 20).to_be_bytes(),
            [0, 0],
        ]
        .concat();
        segment.extend_from_slice(payload);
        let pseudo = checksum::add(u32::from(total - 20) + 17, &ip[12..20]);
        let sum = !checksum::fold(checksum::add(pseudo, &segment));
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(segment);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn udp_over_ipv4() {
        let frame = samples::udp(1000, b"hello");
        let headers = parse(&frame, 0x8100);
        assert_eq!(headers.network, Some(Network::V4 { options: false }));
        assert_eq!(
            (headers.transport, headers.transport_at),
            (Some(Transport::Udp), 34)
        );
        assert_eq!(
            headers.verify(&frame),
            ChecksumResult {
                network: Some(true),
                transport: Some(true)
            }
        );
    }

    #[test]
    fn tagged_frames_parse_behind_the_tag() {
        let mut frame = samples::udp(1000, b"hello");
        frame.splice(12..12, [0x81, 0x00, 0x20, 0x07]);
        let headers = parse(&frame, 0x8100);
        assert_eq!((headers.vlan, headers.network_at), (Some(0x2007), 18));
        assert_eq!(headers.verify(&frame).transport, Some(true));
    }

    proptest! {
        /// One flipped bit behind the Ethernet header never passes.
        #[test]
        fn flipped_bits_are_found(at in 34usize..60, bit in 0u8..8) {
            let mut frame = samples::udp(1000, &[7; 40]);
            frame[at] ^= 1 << bit;
            let headers = parse(&frame, 0x8100);
            prop_assert_ne!(headers.verify(&frame).transport, Some(true));
        }

        /// No bytes make the parser fail, and offsets stay in the frame.
        #[test]
        fn any_bytes_parse(start in any::<[u8; 12]>(), kind in prop_oneof![Just(0x0800u16), Just(0x86DD), Just(0x8100), any::<u16>()],
                           rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let frame = [start.as_slice(), &kind.to_be_bytes(), &rest].concat();
            let headers = parse(&frame, 0x8100);
            prop_assert!(headers.end <= frame.len());
            headers.verify(&frame);
            headers.addresses(&frame);
        }
    }
}
