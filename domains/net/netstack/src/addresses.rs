//! The appliance's own addresses, the VIPs it answers for, and where other networks are.

use crate::config::Config;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use interface::net::MacAddress;

/// One of the appliance's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of it that name its network.
    pub prefix_length: u8,
}

impl OwnAddress {
    fn on_link(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = u32::from(own) ^ u32::from(other);
                differing.leading_zeros() >= u32::from(self.prefix_length)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = u128::from(own) ^ u128::from(other);
                differing.leading_zeros() >= u32::from(self.prefix_length)
            }
            _ => false,
        }
    }
}

/// What the appliance is called, and its routers.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    own: Vec<OwnAddress>,
    vips: Vec<IpAddr>,
    gateway: Option<Ipv4Addr>,
    gateway6: Option<Ipv6Addr>,
}

impl Addresses {
    /// As the file says, with the link-local IPv6 address of `mac` (RFC 4291, appendix A).
    pub fn new(config: &Config, mac: MacAddress) -> Addresses {
        let mut own = Vec::new();
        if let (Some(ipv4), false) = (config.network.ipv4, config.network.dhcp) {
            own.push(OwnAddress {
                address: ipv4.address.into(),
                prefix_length: ipv4.prefix_length,
            });
        }
        if let Some(ipv6) = config.network.ipv6 {
            own.push(OwnAddress {
                address: ipv6.address.into(),
                prefix_length: ipv6.prefix_length,
            });
        }
        own.push(OwnAddress {
            address: link_local(mac).into(),
            prefix_length: 64,
        });
        Addresses {
            own,
            vips: config.vips.clone(),
            gateway: config.network.gateway,
            gateway6: config.network.gateway6,
        }
    }

    /// The appliance's own addresses.
    pub fn own(&self) -> &[OwnAddress] {
        &self.own
    }

    /// The balancer's addresses.
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// Whether the appliance takes TCP and UDP for `address`.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.iter().any(|own| own.address == address)
    }

    /// Whether the appliance answers ARP, NDP and echo requests for `address`.
    pub fn answers_for(&self, address: IpAddr) -> bool {
        self.is_own(address) || self.vips.contains(&address)
    }

    /// The address to send to `remote` from.
    pub fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let same_family = |own: &&OwnAddress| own.address.is_ipv4() == remote.is_ipv4();
        self.own
            .iter()
            .filter(same_family)
            .find(|own| own.on_link(remote))
            .or_else(|| self.own.iter().find(same_family))
            .map(|own| own.address)
    }

    /// The neighbour to hand a packet for `remote` to; `None` when there is no way to it.
    pub fn next_hop(&self, remote: IpAddr) -> Option<IpAddr> {
        if self.own.iter().any(|own| own.on_link(remote)) {
            return Some(remote);
        }
        match remote {
            IpAddr::V4(_) => self.gateway.map(IpAddr::V4),
            IpAddr::V6(_) => self.gateway6.map(IpAddr::V6),
        }
    }

    /// Replaces the IPv4 address and router, as DHCP says; `None` when the lease is over.
    pub fn set_ipv4(&mut self, address: Option<OwnAddress>, gateway: Option<Ipv4Addr>) {
        self.own.retain(|own| own.address.is_ipv6());
        self.own.extend(address.filter(|own| own.address.is_ipv4()));
        self.gateway = gateway;
    }

    /// Ethernet multicast groups that NDP needs: all nodes, and the solicited-node group of each IPv6 address (RFC 2464, 7).
    pub fn multicast_groups(&self) -> Vec<MacAddress> {
        let mut groups = alloc::vec![MacAddress([0x33, 0x33, 0, 0, 0, 1])];
        let addresses = self.own.iter().map(|own| own.address);
        for address in addresses.chain(self.vips.iter().copied()) {
            if let IpAddr::V6(address) = address {
                let [.., a, b, c] = address.octets();
                let group = MacAddress([0x33, 0x33, 0xff, a, b, c]);
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
        groups
    }
}

/// The link-local address that is made of an Ethernet address.
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let config = crate::config::read(
            "[network]\nipv4 = \"10.82.99.10/24\"\nipv6 = \"fd82:99::10/64\"\ngateway = \"10.82.99.1\"\n[[maglev.vip]]\naddress = \"fd82:99::100\"\n",
        )
        .expect("right");
        Addresses::new(&config, MacAddress([0x52, 0x54, 0, 1, 2, 3]))
    }

    #[test]
    fn finds_the_next_hop() {
        let addresses = addresses();
        let near = "10.82.99.77".parse().expect("an address");
        let far = "192.0.2.1".parse().expect("an address");
        let far6 = "2001:db8::1".parse().expect("an address");
        assert_eq!(addresses.next_hop(near), Some(near));
        assert_eq!(addresses.next_hop(far), "10.82.99.1".parse().ok());
        assert_eq!(addresses.next_hop(far6), None);
        assert_eq!(
            addresses.source_for("fe80::1".parse().expect("an address")),
            "fe80::5054:ff:fe01:203".parse().ok()
        );
    }

    #[test]
    fn joins_the_groups_of_its_own_and_the_vips() {
        let groups = addresses().multicast_groups();
        assert!(groups.contains(&MacAddress([0x33, 0x33, 0xff, 0, 1, 0])));
        assert!(groups.contains(&MacAddress([0x33, 0x33, 0xff, 0, 0, 0x10])));
        assert!(groups.contains(&MacAddress([0x33, 0x33, 0xff, 1, 2, 3])));
        assert_eq!(groups.len(), 4);
    }
}
