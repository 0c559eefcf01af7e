//! Ethernet addresses of neighbours: ARP (RFC 826) and neighbour discovery (RFC 4861), both ways.
//!
//! One table for all shards, since an answer comes to one receive queue only. The packet path doesn't look here: connections that
//! come from outside are answered to the station that their packets come from.

use crate::addresses::Addresses;
use crate::demultiplex::ETHERNET_BYTES;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

/// Neighbours that are remembered at most.
const LIMIT: usize = 4096;
/// Questions that wait to be sent at most.
const QUESTION_LIMIT: usize = 64;
/// Time between questions for the same neighbour.
const ASK_INTERVAL_NS: u64 = 1_000_000_000;
/// Age from which a neighbour is asked again while its address stays in use.
const STALE_NS: u64 = 30_000_000_000;
/// Questions without an answer after which a stale address is given up.
const ASK_LIMIT: u8 = 3;

/// An Ethernet address.
pub type Mac = [u8; 6];

type Hasher = core::hash::BuildHasherDefault<SipHasher13>;

struct Neighbour {
    mac: Option<Mac>,
    confirmed_ns: u64,
    asked_ns: u64,
    asks: u8,
}

/// The table, and the questions that are to be asked.
#[derive(Default)]
pub struct Neighbours {
    table: HashMap<IpAddr, Neighbour, Hasher>,
    questions: Vec<IpAddr>,
}

impl Neighbours {
    /// The address of a neighbour, if it is known; puts a question into the queue when it isn't, or is old.
    pub fn resolve(&mut self, address: IpAddr, now_ns: u64) -> Option<Mac> {
        if self.table.len() >= LIMIT && !self.table.contains_key(&address) {
            self.make_room();
        }
        let neighbour = self.table.entry(address).or_insert(Neighbour {
            mac: None,
            confirmed_ns: 0,
            asked_ns: 0,
            asks: 0,
        });
        let fresh = neighbour.mac.is_some() && now_ns.saturating_sub(neighbour.confirmed_ns) < STALE_NS;
        let may_ask = neighbour.asks == 0 || now_ns.saturating_sub(neighbour.asked_ns) >= ASK_INTERVAL_NS;
        if !fresh && may_ask {
            if neighbour.asks >= ASK_LIMIT {
                neighbour.mac = None;
            }
            neighbour.asks = neighbour.asks.saturating_add(1);
            neighbour.asked_ns = now_ns;
            if self.questions.len() < QUESTION_LIMIT {
                self.questions.push(address);
            }
        }
        neighbour.mac
    }

    fn make_room(&mut self) {
        let oldest = self
            .table
            .iter()
            .min_by_key(|(_, neighbour)| neighbour.confirmed_ns);
        if let Some(address) = oldest.map(|(address, _)| *address) {
            self.table.remove(&address);
        }
    }

    /// Notes what a neighbour says of itself; true when someone may have waited for it.
    fn learn(&mut self, address: IpAddr, mac: Mac, now_ns: u64) -> bool {
        if mac[0] & 1 != 0 || mac == [0; 6] || address.is_unspecified() || address.is_multicast() {
            return false;
        }
        if self.table.len() >= LIMIT && !self.table.contains_key(&address) {
            self.make_room();
        }
        let old = self.table.insert(
            address,
            Neighbour {
                mac: Some(mac),
                confirmed_ns: now_ns,
                asked_ns: 0,
                asks: 0,
            },
        );
        old.is_none_or(|old| old.mac != Some(mac))
    }

    /// Neighbours that wait to be asked for, each once.
    pub fn take_questions(&mut self) -> Vec<IpAddr> {
        core::mem::take(&mut self.questions)
    }

    /// Whether there are questions.
    pub fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }
}

/// What came of a neighbour's frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Length of the answer in the buffer, Ethernet header and all; 0 for none.
    pub answer_bytes: usize,
    /// An address is new.
    pub learnt: bool,
}

/// Handles an ARP packet; `out` takes the answer's frame.
pub fn receive_arp(
    packet: &[u8],
    addresses: &Addresses,
    mac: Mac,
    neighbours: &mut Neighbours,
    now_ns: u64,
    out: &mut [u8],
) -> Heard {
    let parsed = ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet));
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = parsed
    else {
        return Heard::default();
    };
    let source = IpAddr::V4(source_protocol_addr);
    let for_us = addresses.answers_for(target_protocol_addr.into());
    if !for_us || addresses.answers_for(source) {
        return Heard::default();
    }
    // RFC 826: who asks for us is about to talk to us. A sender 0.0.0.0 only probes (RFC 5227).
    let on_link = addresses.next_hop(source) == Some(source);
    let learnt = on_link && neighbours.learn(source, source_hardware_addr.0, now_ns);
    let answer_bytes = match operation {
        ArpOperation::Request => {
            let answer = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(mac),
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            write_arp(&answer, source_hardware_addr.0, mac, out)
        }
        _ => 0,
    };
    Heard { answer_bytes, learnt }
}

fn write_arp(packet: &ArpRepr, destination: Mac, source: Mac, out: &mut [u8]) -> usize {
    let length = ETHERNET_BYTES + packet.buffer_len();
    let Some((link, body)) = out
        .get_mut(..length)
        .and_then(|out| out.split_at_mut_checked(ETHERNET_BYTES))
    else {
        return 0;
    };
    write_link(link, destination, source, [0x08, 0x06]);
    packet.emit(&mut ArpPacket::new_unchecked(body));
    length
}

fn write_link(link: &mut [u8], destination: Mac, source: Mac, kind: [u8; 2]) {
    let bytes = destination.iter().chain(&source).chain(&kind);
    for (to, from) in link.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Handles an ICMPv6 packet of neighbour discovery; `out` takes the answer's frame.
pub fn receive_ndp(
    packet: &[u8],
    addresses: &Addresses,
    mac: Mac,
    neighbours: &mut Neighbours,
    now_ns: u64,
    out: &mut [u8],
) -> Heard {
    let Ok(packet) = Ipv6Packet::new_checked(packet) else {
        return Heard::default();
    };
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let capabilities = ChecksumCapabilities::ignored();
    let message = Icmpv6Packet::new_checked(packet.payload())
        .and_then(|message| Icmpv6Repr::parse(&source, &destination, &message, &capabilities));
    match message {
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr })) => {
            if !addresses.answers_for(target_addr.into()) || addresses.answers_for(source.into()) {
                return Heard::default();
            }
            let asker = lladdr.and_then(ethernet_address);
            let learnt = match asker {
                Some(asker) if !source.is_unspecified() => neighbours.learn(source.into(), asker, now_ns),
                _ => false,
            };
            // Duplicate address detection asks from the unspecified address, and all nodes hear the answer (RFC 4861, 7.2.4).
            let (to, to_mac, solicited) = if source.is_unspecified() {
                (ALL_NODES, [0x33, 0x33, 0, 0, 0, 1], NdiscNeighborFlags::empty())
            } else {
                let known = asker.or_else(|| {
                    neighbours
                        .table
                        .get(&IpAddr::V6(source))
                        .and_then(|known| known.mac)
                });
                let Some(to_mac) = known else {
                    neighbours.resolve(source.into(), now_ns);
                    return Heard::default();
                };
                (source, to_mac, NdiscNeighborFlags::SOLICITED)
            };
            let answer = NdiscRepr::NeighborAdvert {
                flags: solicited | NdiscNeighborFlags::OVERRIDE,
                target_addr,
                lladdr: Some(RawHardwareAddress::from(EthernetAddress(mac))),
            };
            let answer_bytes = write_ndp(answer, target_addr, to, to_mac, mac, out);
            Heard { answer_bytes, learnt }
        }
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            target_addr, lladdr, ..
        })) => {
            // Only for questions that were asked: others are not to fill the table.
            let learnt = match lladdr.and_then(ethernet_address) {
                Some(teller)
                    if !addresses.answers_for(target_addr.into())
                        && neighbours.table.contains_key(&IpAddr::V6(target_addr)) =>
                {
                    neighbours.learn(target_addr.into(), teller, now_ns)
                }
                _ => false,
            };
            Heard {
                answer_bytes: 0,
                learnt,
            }
        }
        _ => Heard::default(),
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn ethernet_address(raw: RawHardwareAddress) -> Option<Mac> {
    raw.as_bytes().try_into().ok()
}

fn write_ndp(
    message: NdiscRepr<'_>,
    from: Ipv6Addr,
    to: Ipv6Addr,
    to_mac: Mac,
    mac: Mac,
    out: &mut [u8],
) -> usize {
    let message = Icmpv6Repr::Ndisc(message);
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    let length = ETHERNET_BYTES + header.buffer_len() + message.buffer_len();
    let Some((link, packet)) = out
        .get_mut(..length)
        .and_then(|out| out.split_at_mut_checked(ETHERNET_BYTES))
    else {
        return 0;
    };
    write_link(link, to_mac, mac, [0x86, 0xdd]);
    let mut packet = Ipv6Packet::new_unchecked(packet);
    header.emit(&mut packet);
    message.emit(
        &from,
        &to,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
    length
}

/// The frame that asks for a neighbour's Ethernet address; `None` when there is no address to ask from.
pub fn question(address: IpAddr, addresses: &Addresses, mac: Mac) -> Option<Vec<u8>> {
    let source = addresses.source_for(address)?;
    let mut frame = vec![0; 128];
    let length = match (source, address) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let packet = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: EthernetAddress(mac),
                source_protocol_addr: source,
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: target,
            };
            write_arp(&packet, [0xff; 6], mac, &mut frame)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let [.., a, b, c] = target.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let message = NdiscRepr::NeighborSolicit {
                target_addr: target,
                lladdr: Some(RawHardwareAddress::from(EthernetAddress(mac))),
            };
            write_ndp(
                message,
                source,
                group,
                [0x33, 0x33, 0xff, a, b, c],
                mac,
                &mut frame,
            )
        }
        _ => 0,
    };
    frame.truncate(length);
    (length > 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_once_a_second_and_gives_up_a_silent_one() {
        let mut neighbours = Neighbours::default();
        let address: IpAddr = "10.0.0.2".parse().expect("an address");
        let mac = [2, 0, 0, 0, 0, 1];
        assert_eq!(neighbours.resolve(address, 0), None);
        assert_eq!(neighbours.resolve(address, 1000), None);
        assert_eq!(neighbours.take_questions(), [address]);
        assert!(neighbours.learn(address, mac, 2000));
        assert!(!neighbours.learn(address, mac, 3000));
        assert_eq!(neighbours.resolve(address, STALE_NS), Some(mac));
        assert!(!neighbours.has_questions());
        let late = STALE_NS + 3000;
        for second in 0..3 {
            assert_eq!(
                neighbours.resolve(address, late + second * ASK_INTERVAL_NS),
                Some(mac)
            );
        }
        assert_eq!(neighbours.resolve(address, late + 3 * ASK_INTERVAL_NS), None);
        assert_eq!(neighbours.take_questions().len(), 4);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut neighbours = Neighbours::default();
        for number in 0..2 * LIMIT as u32 {
            let address = core::net::Ipv4Addr::from(0x0a00_0001 + number);
            neighbours.learn(address.into(), [2, 0, 0, 0, 0, 1], u64::from(number));
        }
        assert_eq!(neighbours.table.len(), LIMIT);
    }
}
