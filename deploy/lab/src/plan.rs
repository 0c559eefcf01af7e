//! Who is in the lab, with which addresses: derived from config/appliance.toml, so that the two can't disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use configuration::appliance::{Appliance, Prefixed, Protocol};

/// A node: a network namespace with one interface on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its address on the lab's network.
    pub ipv4: Prefixed<Ipv4Addr>,
    /// Its IPv6 address, when the lab has an IPv6 network.
    pub ipv6: Option<Prefixed<Ipv6Addr>>,
    /// VIPs that it holds on its loopback interface, for direct routing.
    pub vips: BTreeSet<IpAddr>,
    /// What it serves, on its own addresses and on the VIPs; empty for the client.
    pub listen: BTreeSet<SocketAddr>,
}

/// The lab's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The appliance's address.
    pub appliance: Prefixed<Ipv4Addr>,
    /// Its IPv6 address.
    pub appliance6: Option<Prefixed<Ipv6Addr>>,
    /// Port of its web server.
    pub http_port: u16,
    /// The first TCP VIP over IPv4.
    pub vip: Option<(Ipv4Addr, u16)>,
    /// Port of the key-value store, when the configuration has one.
    pub kv: Option<u16>,
    /// Largest packet on the bridge, in bytes.
    pub mtu: u16,
    /// `client`, `backend1` … by name.
    pub nodes: BTreeMap<String, Node>,
}

/// The client's host number in both networks.
const CLIENT: u8 = 2;

impl Plan {
    /// The lab around an appliance with this configuration.
    ///
    /// # Errors
    /// When the appliance has no static address, or a backend is not on its network: direct routing needs that.
    pub fn new(appliance: &Appliance) -> Result<Self> {
        let address = appliance
            .network
            .ipv4
            .context("the lab needs a static `ipv4` under [network]")?;
        let address6 = appliance.network.ipv6;
        let client = Node {
            ipv4: host(address, CLIENT),
            ipv6: address6.map(|address6| host6(address6, CLIENT)),
            vips: BTreeSet::new(),
            listen: BTreeSet::new(),
        };
        let mut plan = Self {
            appliance: address,
            appliance6: address6,
            http_port: appliance.httpd.port,
            vip: None,
            kv: appliance.kv.as_ref().map(|kv| kv.port),
            mtu: appliance.network.mtu,
            nodes: [("client".to_owned(), client)].into(),
        };
        for vip in &appliance.maglev.vip {
            if let (IpAddr::V4(ipv4), Protocol::Tcp, None) = (vip.address, vip.protocol, plan.vip) {
                plan.vip = Some((ipv4, vip.port));
            }
            for backend in &vip.backends {
                plan.add_backend(
                    backend.name.get_ref(),
                    backend.address,
                    SocketAddr::new(vip.address, vip.port),
                )?;
            }
        }
        plan.nodes
            .retain(|_, node| node.ipv4.address != Ipv4Addr::UNSPECIFIED);
        Ok(plan)
    }

    fn add_backend(&mut self, name: &str, address: IpAddr, vip: SocketAddr) -> Result<()> {
        ensure!(name != "client", "a backend can't be called `client`");
        let on_network = match address {
            IpAddr::V4(ipv4) => {
                network(self.appliance, ipv4) == network(self.appliance, self.appliance.address)
            }
            IpAddr::V6(ipv6) => self
                .appliance6
                .is_some_and(|own| network6(own, ipv6) == network6(own, own.address)),
        };
        ensure!(
            on_network,
            "backend `{name}` ({address}) is not on the appliance's network, which direct routing needs"
        );
        let node = self.nodes.entry(name.to_owned()).or_insert_with(|| Node {
            ipv4: Prefixed {
                address: Ipv4Addr::UNSPECIFIED,
                prefix_length: self.appliance.prefix_length,
            },
            ipv6: None,
            vips: BTreeSet::new(),
            listen: BTreeSet::new(),
        });
        match address {
            IpAddr::V4(ipv4) => node.ipv4.address = ipv4,
            IpAddr::V6(ipv6) => {
                let prefix = self.appliance6.map_or(64, |own| own.prefix_length);
                node.ipv6 = Some(Prefixed {
                    address: ipv6,
                    prefix_length: prefix,
                });
            }
        }
        node.vips.insert(vip.ip());
        node.listen.insert(vip);
        node.listen.insert(SocketAddr::new(address, vip.port()));
        Ok(())
    }

    /// URL of the appliance's web server.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.appliance.address.into(), self.http_port)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn network(own: Prefixed<Ipv4Addr>, address: Ipv4Addr) -> u32 {
    address.to_bits() & mask(own.prefix_length)
}

fn host(own: Prefixed<Ipv4Addr>, number: u8) -> Prefixed<Ipv4Addr> {
    let bits = network(own, own.address) | u32::from(number);
    Prefixed {
        address: Ipv4Addr::from_bits(bits),
        prefix_length: own.prefix_length,
    }
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

fn network6(own: Prefixed<Ipv6Addr>, address: Ipv6Addr) -> u128 {
    address.to_bits() & mask6(own.prefix_length)
}

fn host6(own: Prefixed<Ipv6Addr>, number: u8) -> Prefixed<Ipv6Addr> {
    let bits = network6(own, own.address) | u128::from(number);
    Prefixed {
        address: Ipv6Addr::from_bits(bits),
        prefix_length: own.prefix_length,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shipped() -> Appliance {
        Appliance::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/appliance.toml")).unwrap()
    }

    #[test]
    fn the_shipped_configuration_gives_the_documented_lab() {
        let plan = Plan::new(&shipped()).unwrap();
        assert_eq!(
            plan.nodes.keys().collect::<Vec<_>>(),
            ["backend1", "backend2", "backend3", "backend4", "client"]
        );
        assert_eq!(plan.nodes["client"].ipv4.to_string(), "10.82.99.2/24");
        assert_eq!(plan.nodes["client"].ipv6.unwrap().to_string(), "fd82:99::2/64");
        let backend = &plan.nodes["backend4"];
        assert_eq!(backend.ipv4.to_string(), "10.82.99.14/24");
        assert_eq!(backend.ipv6.unwrap().to_string(), "fd82:99::14/64");
        assert_eq!(backend.vips.len(), 2);
        assert_eq!(backend.listen.len(), 4);
        assert_eq!(plan.vip, Some((Ipv4Addr::new(10, 82, 99, 100), 80)));
    }

    #[test]
    fn a_backend_elsewhere_is_refused() {
        let mut appliance = shipped();
        appliance.maglev.vip[0].backends[0].address = Ipv4Addr::new(192, 168, 1, 1).into();
        assert!(
            Plan::new(&appliance)
                .unwrap_err()
                .to_string()
                .contains("192.168.1.1")
        );
    }
}
