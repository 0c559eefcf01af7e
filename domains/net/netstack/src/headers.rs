//! Headers of segments of connections without a socket, written in one go.

use crate::demultiplex::{ETHERNET_BYTES, FlowKey, narrow};
use crate::transmit::{LinkHeader, SentSegment};
use smoltcp::wire::{IpAddress, IpProtocol, checksum};

/// TCP's number in an IP header.
const TCP_PROTOCOL: u32 = 6;

/// Headers of segments over IPv4 whose checksums are the device's: it wants the sum of the pseudo-header in TCP's field.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Headers {
    /// IPv4's and TCP's, with zeros where segments differ.
    bytes: [u8; 40],
    /// Sum of the pseudo-header without the segment's length.
    sum: u32,
}

impl Ipv4Headers {
    /// Of a connection over IPv4.
    pub fn new(key: &FlowKey) -> Ipv4Headers {
        let (local, remote) = (key.local as u32, key.remote as u32);
        let mut bytes = [0; 40];
        bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP_PROTOCOL as u8, 0, 0]);
        bytes[12..16].copy_from_slice(&local.to_be_bytes());
        bytes[16..20].copy_from_slice(&remote.to_be_bytes());
        bytes[20..22].copy_from_slice(&key.local_port.to_be_bytes());
        bytes[22..24].copy_from_slice(&key.remote_port.to_be_bytes());
        bytes[32] = 0x50;
        Ipv4Headers {
            bytes,
            sum: (local >> 16) + (local & 0xffff) + (remote >> 16) + (remote & 0xffff) + TCP_PROTOCOL,
        }
    }

    /// Writes the headers of a segment. Not inlined: on its own it has registers enough.
    #[inline(never)]
    pub fn write(&self, header: &mut [u8; 54], link: &LinkHeader, segment: &SentSegment) {
        let segment_bytes = segment.payload_bytes + 20;
        let sum = self.sum + segment_bytes;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        header[..14].copy_from_slice(link);
        header[14..].copy_from_slice(&self.bytes);
        header[16..18].copy_from_slice(&(segment_bytes as u16 + 20).to_be_bytes());
        header[38..42].copy_from_slice(&segment.sequence.to_be_bytes());
        header[42..46].copy_from_slice(&segment.acknowledgement.to_be_bytes());
        header[47] = segment.flags;
        header[48..50].copy_from_slice(&segment.window.to_be_bytes());
        header[50..52].copy_from_slice(&(sum as u16).to_be_bytes());
    }
}

/// Writes the headers of a segment, without checksums.
pub fn write_headers(frame: &mut [u8], link: &[u8], key: &FlowKey, segment: &SentSegment) {
    let is_ipv4 = key.remote >> 32 == 0xffff;
    let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET_BYTES) else {
        return;
    };
    ethernet.copy_from_slice(link);
    let total = packet.len() as u16;
    let transport = if is_ipv4 {
        let Some((header, transport)) = packet.split_first_chunk_mut::<20>() else {
            return;
        };
        let [a, b] = total.to_be_bytes();
        *header = [0x45, 0, a, b, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[12..16].copy_from_slice(&(key.local as u32).to_be_bytes());
        header[16..20].copy_from_slice(&(key.remote as u32).to_be_bytes());
        transport
    } else {
        let Some((header, transport)) = packet.split_first_chunk_mut::<40>() else {
            return;
        };
        let [a, b] = total.saturating_sub(40).to_be_bytes();
        header[..8].copy_from_slice(&[0x60, 0, 0, 0, a, b, 6, 64]);
        header[8..24].copy_from_slice(&key.local.to_be_bytes());
        header[24..40].copy_from_slice(&key.remote.to_be_bytes());
        transport
    };
    if let Some(header) = transport.first_chunk_mut::<20>() {
        header[0..2].copy_from_slice(&key.local_port.to_be_bytes());
        header[2..4].copy_from_slice(&key.remote_port.to_be_bytes());
        header[4..8].copy_from_slice(&segment.sequence.to_be_bytes());
        header[8..12].copy_from_slice(&segment.acknowledgement.to_be_bytes());
        header[12..14].copy_from_slice(&[0x50, segment.flags]);
        header[14..16].copy_from_slice(&segment.window.to_be_bytes());
        header[16..20].copy_from_slice(&[0; 4]);
    }
}

/// Computes TCP's checksum of a frame whose segment begins at `start`.
pub fn write_checksum(frame: &mut [u8], start: usize, key: &FlowKey) {
    let Some(segment) = frame.get_mut(start..) else {
        return;
    };
    let (source, destination) = (
        IpAddress::from(narrow(key.local)),
        IpAddress::from(narrow(key.remote)),
    );
    let pseudo = checksum::pseudo_header(&source, &destination, IpProtocol::Tcp, segment.len() as u32);
    let sum = !checksum::combine(&[pseudo, checksum::data(segment)]);
    if let Some(field) = segment.get_mut(16..18) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
