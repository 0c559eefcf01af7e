//! config/appliance.toml: addresses, services, limits.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use crate::error::{ConfigError, Source};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// `[network]`
    pub network: Network,
    /// `[httpd]`
    pub httpd: Httpd,
    /// `[maglev]`
    #[serde(default)]
    pub maglev: Maglev,
}

/// The appliance's own addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Static IPv4 address; needed unless `dhcp` is set.
    pub ipv4: Option<Prefixed<Ipv4Addr>>,
    /// Static IPv6 address.
    pub ipv6: Option<Prefixed<Ipv6Addr>>,
    /// IPv4 router.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 router.
    pub gateway6: Option<Ipv6Addr>,
    /// Whether the IPv4 address comes from a DHCP server.
    #[serde(default)]
    pub dhcp: bool,
    /// Largest packet, in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: Spanned<u16>,
}

/// The HTTP server's limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Httpd {
    /// TCP port.
    pub port: u16,
    /// Open connections at most.
    pub connections: Option<u32>,
    /// Bytes of request line and headers at most.
    pub header_bytes: Option<u32>,
    /// Milliseconds until a request must be complete.
    pub request_timeout_ms: Option<u32>,
    /// Milliseconds after which a connection without a request is closed.
    pub idle_timeout_ms: Option<u32>,
}

/// The load balancer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Maglev {
    /// `[[maglev.vip]]`
    #[serde(default)]
    pub vip: Vec<Vip>,
    /// Sizes and times of the balancer itself, which it checks with its own reader.
    #[serde(flatten)]
    pub settings: toml::Table,
}

/// A balanced service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Unique name.
    pub name: Spanned<String>,
    /// Address that clients use.
    pub address: IpAddr,
    /// Port that clients use.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Who serves it.
    pub backends: Vec<Backend>,
}

/// Transport of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// A server behind a VIP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Name, unique within the VIP; what the lookup table is computed from.
    pub name: Spanned<String>,
    /// Its own address, of the VIP's family.
    pub address: IpAddr,
    /// Share of new connections, relative to the others.
    #[serde(default = "default_weight")]
    pub weight: u32,
}

fn default_mtu() -> Spanned<u16> {
    Spanned::new(0..0, 1500)
}

fn default_weight() -> u32 {
    1
}

/// An address with the prefix length of its network, as in `10.82.99.10/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixed<A> {
    /// The address.
    pub address: A,
    /// Bits of the network's prefix.
    pub prefix: u8,
}

impl<A: fmt::Display> fmt::Display for Prefixed<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Address families, for the longest prefix they have.
trait Family: FromStr {
    const BITS: u8;
}

impl Family for Ipv4Addr {
    const BITS: u8 = 32;
}

impl Family for Ipv6Addr {
    const BITS: u8 = 128;
}

impl<'de, A: Family> Deserialize<'de> for Prefixed<A> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.split_once('/')
            .and_then(|(address, prefix)| {
                let prefix = prefix.parse().ok().filter(|bits| *bits <= A::BITS)?;
                Some(Self {
                    address: address.parse().ok()?,
                    prefix,
                })
            })
            .ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "`{text}` is no address with a prefix length of 0 to {}",
                    A::BITS
                ))
            })
    }
}

impl Appliance {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// With file and line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::check(&Source::read(path)?)
    }

    fn check(source: &Source) -> Result<Self, ConfigError> {
        let appliance: Self = source.parse()?;
        let network = &appliance.network;
        if network.ipv4.is_none() && !network.dhcp {
            return Err(source.error(0..0, "[network] needs `ipv4`, or `dhcp = true`"));
        }
        let mtu = *network.mtu.get_ref();
        // 1280 is the least that IPv6 works with (RFC 8200, section 5).
        if !(1280..=9000).contains(&mtu) {
            return Err(source.error(
                network.mtu.span(),
                format!("an MTU of {mtu} is outside 1280 to 9000"),
            ));
        }
        let mut names = BTreeSet::new();
        for vip in &appliance.maglev.vip {
            if !names.insert(vip.name.get_ref()) {
                let message = format!("there is another VIP called `{}`", vip.name.get_ref());
                return Err(source.error(vip.name.span(), message));
            }
            vip.check(source)?;
        }
        Ok(appliance)
    }
}

impl Vip {
    fn check(&self, source: &Source) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        for backend in &self.backends {
            let name = backend.name.get_ref();
            if !names.insert(name) {
                let message = format!(
                    "VIP `{}` has another backend called `{name}`",
                    self.name.get_ref()
                );
                return Err(source.error(backend.name.span(), message));
            }
            if backend.address.is_ipv4() != self.address.is_ipv4() {
                let message = format!("backend `{name}` and its VIP must both be IPv4 or both IPv6");
                return Err(source.error(backend.name.span(), message));
            }
        }
        if self.backends.is_empty() {
            let message = format!("VIP `{}` has no backends", self.name.get_ref());
            return Err(source.error(self.name.span(), message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[network]\nipv4 = \"10.0.0.1/8\"\n[httpd]\nport = 80\n";

    fn check(text: &str) -> Result<Appliance, String> {
        let source = Source {
            path: "appliance.toml".into(),
            text: text.to_owned(),
        };
        Appliance::check(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/appliance.toml");
        let appliance = Appliance::read(&path).unwrap();
        assert_eq!(appliance.network.ipv4.unwrap().to_string(), "10.82.99.10/24");
        assert_eq!(appliance.maglev.vip[0].backends.len(), 4);
    }

    #[test]
    fn defaults() {
        let appliance = check(GOOD).unwrap();
        assert_eq!(*appliance.network.mtu.get_ref(), 1500);
        assert!(!appliance.network.dhcp && appliance.maglev.vip.is_empty());
    }

    #[test]
    fn errors_name_file_and_line() {
        let unknown = check(&format!("{GOOD}colour = 3\n")).unwrap_err();
        assert!(
            unknown.starts_with("appliance.toml:5: ") && unknown.contains("colour"),
            "{unknown}"
        );
        let address = check("[network]\nipv4 = \"10.0.0.1\"\n[httpd]\nport = 80\n").unwrap_err();
        assert!(address.starts_with("appliance.toml:2: "), "{address}");
        let port = check("[network]\nipv4 = \"10.0.0.1/8\"\n[httpd]\nport = 99999\n").unwrap_err();
        assert!(port.starts_with("appliance.toml:4: "), "{port}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(
            check("[network]\nmtu = 1500\n[httpd]\nport = 80\n")
                .unwrap_err()
                .contains("ipv4")
        );
        assert!(
            check("[network]\ndhcp = true\nmtu = 100\n[httpd]\nport = 80\n")
                .unwrap_err()
                .contains(":3:")
        );
        let vip = "[[maglev.vip]]\nname = \"a\"\naddress = \"1.2.3.4\"\nport = 1\nprotocol = \"tcp\"\n";
        assert!(
            check(&format!("{GOOD}{vip}backends = []\n"))
                .unwrap_err()
                .contains("no backends")
        );
        let mixed = format!("{GOOD}{vip}backends = [{{ name = \"b\", address = \"::1\" }}]\n");
        assert!(check(&mixed).unwrap_err().contains("IPv6"));
        let twice = format!(
            "{GOOD}{vip}backends = [{{ name = \"b\", address = \"1.1.1.1\" }}, {{ name = \"b\", address = \"1.1.1.2\" }}]\n"
        );
        assert!(check(&twice).unwrap_err().contains("another backend"));
    }
}
