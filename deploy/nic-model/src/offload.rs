//! What the transmit path does to a frame's bytes: checksum insertion, VLAN insertion, segmentation (datasheet 7.2.4, 7.2.5).
//!
//! Works on complete frames in memory; knows descriptors only as the context they give.

use crate::checksum;

/// Where headers are and how long, as a context descriptor says (datasheet 7.2.3.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Length of the Ethernet header.
    pub mac_length: usize,
    /// Length of the IP header.
    pub network_length: usize,
    /// Length of the TCP or UDP header; used by segmentation only.
    pub transport_length: usize,
    /// Most payload bytes of a segment.
    pub segment_length: usize,
    /// The IP header is IPv4's.
    pub is_v4: bool,
    /// The transport is TCP, otherwise UDP.
    pub is_tcp: bool,
    /// Tag to insert when the data descriptor asks for one.
    pub vlan: u16,
}

impl Context {
    /// Reads a context descriptor's two words.
    pub fn decode(low: u64, high: u64) -> Self {
        Self {
            mac_length: (low >> 9 & 0x7F) as usize,
            network_length: (low & 0x1FF) as usize,
            transport_length: (high >> 40 & 0xFF) as usize,
            segment_length: (high >> 48) as usize,
            is_v4: high >> 10 & 1 != 0,
            is_tcp: high >> 11 & 3 == 1,
            vlan: (low >> 16) as u16,
        }
    }

    fn transport_at(&self) -> usize {
        self.mac_length + self.network_length
    }

    fn checksum_at(&self) -> usize {
        self.transport_at() + if self.is_tcp { 16 } else { 6 }
    }
}

/// The context's offsets lie outside the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadContext;

/// Computes the IPv4 header's checksum.
pub fn insert_network_checksum(frame: &mut [u8], context: &Context) -> Result<(), BadContext> {
    let header = frame
        .get_mut(context.mac_length..context.transport_at())
        .ok_or(BadContext)?;
    let field = header.get_mut(10..12).ok_or(BadContext)?;
    field.fill(0);
    let sum = !checksum::fold(checksum::add(0, header));
    header
        .get_mut(10..12)
        .ok_or(BadContext)?
        .copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Completes the TCP or UDP checksum; its field holds the pseudo-header's sum, to which `length` is added.
pub fn insert_transport_checksum(frame: &mut [u8], context: &Context, length: u32) -> Result<(), BadContext> {
    let segment = frame.get(context.transport_at()..).ok_or(BadContext)?;
    let mut sum = !checksum::fold(checksum::add(length, segment));
    if sum == 0 && !context.is_tcp {
        sum = 0xFFFF;
    }
    let at = context.checksum_at();
    frame
        .get_mut(at..at + 2)
        .ok_or(BadContext)?
        .copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The ones'-complement sum from `start` on, complemented and put at `at`: the legacy descriptor's offload (7.2.3.2.1).
pub fn insert_legacy_checksum(frame: &mut [u8], start: usize, at: usize) -> Result<(), BadContext> {
    let sum = !checksum::fold(checksum::add(0, frame.get(start..).ok_or(BadContext)?));
    frame
        .get_mut(at..at + 2)
        .ok_or(BadContext)?
        .copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Puts an 802.1Q header behind the addresses.
pub fn insert_vlan(frame: &mut Vec<u8>, kind: u16, tag: u16) {
    if frame.len() >= 12 {
        let [a, b] = kind.to_be_bytes();
        let [c, d] = tag.to_be_bytes();
        frame.splice(12..12, [a, b, c, d]);
    }
}

/// Masks for TCP flags of the first, middle and last segment (DTXTCPFLGL, DTXTCPFLGH).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagMasks {
    /// First segment.
    pub first: u16,
    /// Segments between.
    pub middle: u16,
    /// Last segment.
    pub last: u16,
}

/// Cuts a frame into segments of at most `context.segment_length` payload bytes and gives each, finished, to `emit`.
///
/// Lengths, IPv4 identification, sequence numbers, flags and checksums are those of the segment (datasheet 7.2.4.5).
pub fn segment(
    frame: &[u8],
    context: &Context,
    flags: FlagMasks,
    mut emit: impl FnMut(&mut Vec<u8>),
) -> Result<(), BadContext> {
    let header_length = context.transport_at() + context.transport_length;
    let least = if context.is_tcp { 20 } else { 8 };
    let network_least = if context.is_v4 { 20 } else { 40 };
    let well_formed = context.segment_length > 0
        && context.transport_length >= least
        && context.network_length >= network_least
        && context.mac_length >= 14
        && header_length < frame.len();
    if !well_formed {
        return Err(BadContext);
    }
    let (header, payload) = frame.split_at(header_length);
    let count = payload.len().div_ceil(context.segment_length);
    let mut out = Vec::with_capacity(header_length + context.segment_length + 4);
    for (i, chunk) in payload.chunks(context.segment_length).enumerate() {
        out.clear();
        out.extend_from_slice(header);
        out.extend_from_slice(chunk);
        let mask = if i + 1 == count {
            flags.last
        } else if i == 0 {
            flags.first
        } else {
            flags.middle
        };
        finish_segment(&mut out, context, i, mask)?;
        emit(&mut out);
    }
    Ok(())
}

fn finish_segment(out: &mut [u8], context: &Context, index: usize, mask: u16) -> Result<(), BadContext> {
    let network = context.mac_length;
    let transport = context.transport_at();
    let transport_total = out.len() - transport;
    let mut put = |at: usize, value: u16| match out.get_mut(at..at + 2) {
        Some(field) => {
            field.copy_from_slice(&value.to_be_bytes());
            Ok(())
        }
        None => Err(BadContext),
    };
    if context.is_v4 {
        put(network + 2, (context.network_length + transport_total) as u16)?;
    } else {
        put(
            network + 4,
            (context.network_length - 40 + transport_total) as u16,
        )?;
    }
    if !context.is_tcp {
        put(transport + 4, transport_total as u16)?;
    }
    let field = |out: &[u8], at: usize| -> Result<u16, BadContext> {
        let bytes = out.get(at..at + 2).ok_or(BadContext)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    if context.is_v4 {
        let id = field(out, network + 4)?.wrapping_add(index as u16);
        out.get_mut(network + 4..network + 6)
            .ok_or(BadContext)?
            .copy_from_slice(&id.to_be_bytes());
        insert_network_checksum(out, context)?;
    }
    if context.is_tcp {
        let at = transport + 4;
        let sequence = u32::from(field(out, at)?) << 16 | u32::from(field(out, at + 2)?);
        let sequence = sequence.wrapping_add((index * context.segment_length) as u32);
        out.get_mut(at..at + 4)
            .ok_or(BadContext)?
            .copy_from_slice(&sequence.to_be_bytes());
        let offset_and_flags = field(out, transport + 12)?;
        let masked = offset_and_flags & (0xF000 | mask);
        out.get_mut(transport + 12..transport + 14)
            .ok_or(BadContext)?
            .copy_from_slice(&masked.to_be_bytes());
    }
    insert_transport_checksum(out, context, transport_total as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{self, samples};

    const FLAGS: FlagMasks = FlagMasks {
        first: 0xFF6,
        middle: 0xFF6,
        last: 0xF7F,
    };

    /// A TCP frame as a driver hands it over for segmentation: pseudo-header sum without length, no checksums.
    fn tcp_for_segmentation(payload: &[u8]) -> (Vec<u8>, Context) {
        let mut frame = samples::udp(5, &[])[..34].to_vec();
        frame[23] = 6;
        frame[16..18].fill(0);
        frame[24..26].fill(0);
        let pseudo = checksum::fold(checksum::add(6, &frame[26..34]));
        let mut header = vec![0u8; 20];
        header[4..8].copy_from_slice(&0xFFFF_FF00u32.to_be_bytes());
        header[12] = 0x50;
        header[13] = 0x19; // FIN, PSH, ACK.
        header[16..18].copy_from_slice(&pseudo.to_be_bytes());
        frame.extend(header);
        frame.extend_from_slice(payload);
        let context = Context {
            mac_length: 14,
            network_length: 20,
            transport_length: 20,
            segment_length: 100,
            is_v4: true,
            is_tcp: true,
            vlan: 0,
        };
        (frame, context)
    }

    #[test]
    fn segments_are_whole_valid_frames() {
        let payload: Vec<u8> = (0..250).map(|i| i as u8).collect();
        let (frame, context) = tcp_for_segmentation(&payload);
        let mut segments = vec![];
        segment(&frame, &context, FLAGS, |s| segments.push(s.clone())).expect("well-formed");

        assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [154, 154, 104]);
        let mut joined = vec![];
        for (i, segment) in segments.iter().enumerate() {
            let parsed = headers::parse(segment, 0x8100);
            let checks = parsed.verify(segment);
            assert_eq!(
                (checks.network, checks.transport),
                (Some(true), Some(true)),
                "segment {i}"
            );
            let sequence = u32::from_be_bytes([segment[38], segment[39], segment[40], segment[41]]);
            assert_eq!(sequence, 0xFFFF_FF00u32.wrapping_add(100 * i as u32));
            assert_eq!(segment[47], if i == 2 { 0x19 } else { 0x10 });
            assert_eq!(u16::from_be_bytes([segment[18], segment[19]]), 1 + i as u16);
            joined.extend_from_slice(&segment[54..]);
        }
        assert_eq!(joined, payload);
    }

    #[test]
    fn checksum_insertion_completes_a_datagram() {
        let good = samples::udp(9, b"some payload");
        let mut frame = good.clone();
        let length = (frame.len() - 34) as u32;
        let pseudo = checksum::fold(checksum::add(17 + length, &frame[26..34]));
        frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
        frame[24..26].fill(0);
        let context = Context {
            mac_length: 14,
            network_length: 20,
            is_v4: true,
            ..Context::default()
        };
        insert_network_checksum(&mut frame, &context).expect("in range");
        insert_transport_checksum(&mut frame, &context, 0).expect("in range");
        assert_eq!(frame, good);
    }

    #[test]
    fn offsets_outside_the_frame_are_refused() {
        let context = Context {
            mac_length: 120,
            network_length: 400,
            ..Context::default()
        };
        let mut frame = vec![0; 60];
        assert_eq!(insert_network_checksum(&mut frame, &context), Err(BadContext));
        assert_eq!(
            insert_transport_checksum(&mut frame, &context, 0),
            Err(BadContext)
        );
        assert_eq!(insert_legacy_checksum(&mut frame, 70, 10), Err(BadContext));
        assert_eq!(segment(&frame, &context, FLAGS, |_| {}), Err(BadContext));
    }

    #[test]
    fn vlan_header_goes_behind_the_addresses() {
        let mut frame = samples::udp(9, b"x");
        let plain = frame.clone();
        insert_vlan(&mut frame, 0x8100, 0x2005);
        assert_eq!(headers::parse(&frame, 0x8100).vlan, Some(0x2005));
        frame.drain(12..16);
        assert_eq!(frame, plain);
    }
}
