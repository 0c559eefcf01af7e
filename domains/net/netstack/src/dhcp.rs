//! The IPv4 address from a DHCP server (RFC 2131), by smoltcp's client on an interface of its own.
//!
//! Runs on shard 0. What it learns goes to every shard by way of [`crate::stack::Common`].

use crate::addresses::OwnAddress;
use crate::demultiplex::ETHERNET_BYTES;
use crate::device::{Capabilities, Exchange};
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4::{Event, Socket};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

/// Longest DHCP message that is sent or received, as an IP packet, bytes.
const MTU: u16 = 1500;

/// What a DHCP server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address; `None` when the lease is over.
    pub address: Option<OwnAddress>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
}

/// A DHCP client.
pub struct Client {
    interface: Interface,
    set: SocketSet<'static>,
    handle: SocketHandle,
    next_ns: u64,
}

const CAPABILITIES: Capabilities = Capabilities {
    mtu: MTU,
    transmit_checksum: false,
    ethernet: true,
};

impl Client {
    /// A client for the device of this address.
    pub fn new(mac: [u8; 6], random: u64, now: Instant) -> Client {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = random;
        let mut device = Exchange::new(CAPABILITIES, None, &mut []);
        let interface = Interface::new(config, &mut device, now);
        let mut set = SocketSet::new(vec![]);
        let handle = set.add(Socket::new());
        Client {
            interface,
            set,
            handle,
            next_ns: 0,
        }
    }

    /// Handles a frame: a DHCP server's, or an ARP answer.
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        let mut out = [0; ETHERNET_BYTES + MTU as usize];
        let mut device = Exchange::new(CAPABILITIES, Some(frame), &mut out);
        // Whatever the interface answers itself (ARP, ICMP) is the stack's to answer.
        self.interface
            .poll_ingress_single(now, &mut device, &mut self.set);
        self.next_ns = 0;
    }

    /// Sends what is due to `send`, and says what has changed.
    pub fn poll(&mut self, now_ns: u64, now: Instant, mut send: impl FnMut(Vec<u8>)) -> Option<Lease> {
        if now_ns < self.next_ns {
            return None;
        }
        // A client sends one message at a time, and an ARP request before it.
        for _ in 0..4 {
            let mut out = [0; ETHERNET_BYTES + MTU as usize];
            let mut device = Exchange::new(CAPABILITIES, None, &mut out);
            self.interface.poll_egress(now, &mut device, &mut self.set);
            let length = device.sent_bytes();
            match out.get(..length) {
                Some(frame) if length > 0 => send(frame.into()),
                _ => break,
            }
        }
        let lease = match self.set.get_mut::<Socket<'_>>(self.handle).poll() {
            None => None,
            Some(Event::Deconfigured) => {
                self.interface.update_ip_addrs(|addresses| addresses.clear());
                self.interface.routes_mut().remove_default_ipv4_route();
                Some(Lease {
                    address: None,
                    gateway: None,
                })
            }
            Some(Event::Configured(config)) => {
                let (address, router) = (config.address, config.router);
                self.interface.update_ip_addrs(|addresses| {
                    addresses.clear();
                    // An empty list has room for one.
                    addresses.push(IpCidr::Ipv4(address)).ok();
                });
                if let Some(router) = router {
                    // The table has room for one route of each kind.
                    self.interface.routes_mut().add_default_ipv4_route(router).ok();
                }
                Some(Lease {
                    address: Some(OwnAddress {
                        address: address.address().into(),
                        prefix_length: address.prefix_len(),
                    }),
                    gateway: router,
                })
            }
        };
        let next = self.interface.poll_at(now, &self.set);
        self.next_ns = next.map_or(u64::MAX, |at| (at.total_micros() as u64).saturating_mul(1000));
        lease
    }

    /// When it wants to be polled again.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }
}
