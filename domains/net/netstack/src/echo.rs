//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 4.2): the answer is the request with addresses turned round.
//!
//! Done here rather than in smoltcp so that the balancer's addresses answer too.

use crate::demultiplex::{ETHERNET_BYTES, narrow};
use crate::transmit::{answering_header, fill_ipv4_checksum};
use core::ops::Range;
use smoltcp::wire::{IpAddress, IpProtocol, checksum};

/// Hops that an answer may take.
const HOP_LIMIT: u8 = 64;

/// Writes the answer to the echo request in `frame` to `out`; its length, `None` when it doesn't fit.
///
/// `packet` and `message` are where [`crate::demultiplex`] found the IP packet and the ICMP message.
pub fn answer(
    frame: &[u8],
    packet: Range<usize>,
    message: Range<usize>,
    mac: [u8; 6],
    out: &mut [u8],
) -> Option<usize> {
    let length = packet.end;
    let out = out.get_mut(..length)?;
    out.copy_from_slice(frame.get(..length)?);
    out.get_mut(..ETHERNET_BYTES)?
        .copy_from_slice(&answering_header(frame, mac));
    let (head, body) = out.split_at_mut_checked(message.start)?;
    let header = head.get_mut(packet.start..)?;
    let is_ipv4 = header.first()? >> 4 == 4;
    let (first_address, address_bytes, hop_limit) = if is_ipv4 { (12, 4, 8) } else { (8, 16, 7) };
    let addresses = header.get_mut(first_address..first_address + 2 * address_bytes)?;
    let (source, destination) = addresses.split_at_mut(address_bytes);
    source.swap_with_slice(destination);
    *header.get_mut(hop_limit)? = HOP_LIMIT;
    if is_ipv4 {
        fill_ipv4_checksum(header);
    }
    *body.first_mut()? = if is_ipv4 { 0 } else { 129 };
    body.get_mut(2..4)?.copy_from_slice(&[0, 0]);
    let mut sum = checksum::data(body);
    if !is_ipv4 {
        let (addresses, _) = header.get(8..40)?.as_chunks::<16>();
        let [source, destination] = addresses else {
            return None;
        };
        let source = IpAddress::from(narrow(u128::from_be_bytes(*source)));
        let destination = IpAddress::from(narrow(u128::from_be_bytes(*destination)));
        let pseudo = checksum::pseudo_header(&source, &destination, IpProtocol::Icmpv6, body.len() as u32);
        sum = checksum::combine(&[sum, pseudo]);
    }
    body.get_mut(2..4)?.copy_from_slice(&(!sum).to_be_bytes());
    Some(length)
}
