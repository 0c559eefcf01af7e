//! The last step of a frame to be sent: its Ethernet header, its checksums, and what it says.
//!
//! Where the device computes TCP's and UDP's checksum, it wants the sum of the pseudo-header in the field, and a zero in
//! IPv4's, which it fills in too.

use crate::demultiplex::{ETHERNET_BYTES, FlowKey, narrow};
use rref::packet::ChecksumRequest;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, checksum};

/// An Ethernet header, ready to be copied.
pub type LinkHeader = [u8; ETHERNET_BYTES];

/// A header for IPv4 or IPv6.
pub fn link_header(destination: [u8; 6], source: [u8; 6], is_ipv4: bool) -> LinkHeader {
    let mut header = [0; ETHERNET_BYTES];
    let (addresses, kind) = header.split_at_mut(12);
    let (to, from) = addresses.split_at_mut(6);
    to.copy_from_slice(&destination);
    from.copy_from_slice(&source);
    kind.copy_from_slice(&if is_ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    header
}

/// The header of an answer to `frame`.
pub fn answering_header(frame: &[u8], source: [u8; 6]) -> LinkHeader {
    let mut header = [0; ETHERNET_BYTES];
    if let Some(received) = frame.first_chunk::<ETHERNET_BYTES>() {
        let [_, _, _, _, _, _, a, b, c, d, e, f, high, low] = *received;
        let [g, h, i, j, k, l] = source;
        header = [a, b, c, d, e, f, g, h, i, j, k, l, high, low];
    }
    header
}

/// Sum of 16-bit words, not yet folded.
#[inline]
fn sum_words(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<2>();
    words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum()
}

/// The same of eight bytes, without a loop.
#[inline]
fn sum_eight([a, b, c, d, e, f, g, h]: [u8; 8]) -> u32 {
    let (high, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    (high >> 16) + (high & 0xffff) + (low >> 16) + (low & 0xffff)
}

#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Completes the checksums of a frame from smoltcp, itself or by asking the device.
#[inline]
pub fn finish(frame: &mut [u8], offload: bool) -> ChecksumRequest {
    let Some((link, packet)) = frame.split_at_mut_checked(ETHERNET_BYTES) else {
        return ChecksumRequest::None;
    };
    let is_ipv4 = link.get(12) == Some(&0x08);
    // Frames from smoltcp have neither options nor extension headers.
    let (protocol, header_bytes) = match (is_ipv4, packet.get(9), packet.get(6)) {
        (true, Some(protocol), _) => (*protocol, 20),
        (false, _, Some(next)) => (*next, 40),
        _ => return ChecksumRequest::None,
    };
    let Some((header, transport)) = packet.split_at_mut_checked(header_bytes) else {
        return ChecksumRequest::None;
    };
    let request = match protocol {
        6 if offload => ChecksumRequest::Tcp,
        17 if offload => ChecksumRequest::Udp,
        _ => ChecksumRequest::None,
    };
    let field = match request {
        ChecksumRequest::Tcp => 16,
        ChecksumRequest::Udp => 6,
        ChecksumRequest::None => {
            if is_ipv4 {
                fill_ipv4_checksum(header);
            }
            return ChecksumRequest::None;
        }
    };
    let length = transport.len() as u32;
    let addresses = match header.get(12..20).and_then(|addresses| addresses.first_chunk()) {
        Some(ipv4) if is_ipv4 => sum_eight(*ipv4),
        _ => header.get(8..40).map_or(0, sum_words),
    };
    let sum = addresses + u32::from(protocol) + length;
    if let Some(bytes) = transport.get_mut(field..field + 2) {
        bytes.copy_from_slice(&fold(sum).to_be_bytes());
    }
    if is_ipv4 && let Some(bytes) = header.get_mut(10..12) {
        bytes.copy_from_slice(&[0, 0]);
    }
    request
}

/// Writes the checksum of an IPv4 header.
pub fn fill_ipv4_checksum(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&[0, 0]);
    }
    let sum = !checksum::data(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a TCP segment that is being sent says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentSegment {
    /// See [`crate::demultiplex::flag`].
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window as in the header.
    pub window: u16,
    /// Bytes of data.
    pub payload_bytes: u32,
}

impl SentSegment {
    /// Reads it from an IP packet that smoltcp made.
    #[inline]
    pub fn read(packet: &[u8]) -> Option<SentSegment> {
        let header_bytes = if packet.first()? >> 4 == 4 { 20 } else { 40 };
        let segment = packet.get(header_bytes..)?;
        let header: &[u8; 20] = segment.first_chunk()?;
        let data_offset = usize::from(header[12] >> 4) * 4;
        Some(SentSegment {
            flags: header[13],
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            acknowledgement: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            window: u16::from_be_bytes([header[14], header[15]]),
            payload_bytes: segment.len().saturating_sub(data_offset) as u32,
        })
    }
}

/// Writes the IP packet of a bare acknowledgement to `out`; its length, 0 when it doesn't fit.
pub fn acknowledgement(
    key: &FlowKey,
    sequence: u32,
    acknowledged: u32,
    window: u16,
    out: &mut [u8],
) -> usize {
    let (source, destination) = (
        IpAddress::from(narrow(key.local)),
        IpAddress::from(narrow(key.remote)),
    );
    let segment = TcpRepr {
        src_port: key.local_port,
        dst_port: key.remote_port,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(sequence as i32),
        ack_number: Some(TcpSeqNumber(acknowledged as i32)),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let packet = IpRepr::new(source, destination, IpProtocol::Tcp, segment.buffer_len(), 64);
    let length = packet.buffer_len();
    let Some(out) = out.get_mut(..length) else {
        return 0;
    };
    let capabilities = ChecksumCapabilities::default();
    packet.emit(&mut *out, &capabilities);
    if let Some(bytes) = out.get_mut(packet.header_len()..) {
        segment.emit(
            &mut TcpPacket::new_unchecked(bytes),
            &source,
            &destination,
            &capabilities,
        );
    }
    length
}
