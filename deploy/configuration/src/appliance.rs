//! config/appliance.toml: addresses, services, limits.
//!
//! The file is checked by the very readers that the domains use on the appliance, so what passes here is what they start
//! with. The types here are only what the host itself wants to know: addresses for the lab.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::{fmt, str::FromStr};

use serde::Deserialize;
use toml::Spanned;

use crate::error::{ConfigError, Source};

/// The file, as far as the host cares.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// `[network]`
    pub network: Network,
    /// `[httpd]`
    #[serde(default)]
    pub httpd: Httpd,
    /// `[maglev]`
    #[serde(default)]
    pub maglev: Maglev,
    /// `[storage]`, which only domains look at.
    #[serde(default, rename = "storage")]
    _storage: toml::Table,
    /// `[kv]`; without the section there is no key-value store.
    pub kv: Option<KeyValue>,
    /// `[store]`, which concerns only the key-value engine.
    #[serde(default, rename = "store")]
    _store: toml::Table,
    /// `[tcp]`, which concerns only the stack; named so that other unknown sections are refused.
    #[serde(default, rename = "tcp")]
    _tcp: toml::Table,
}

/// The appliance's own addresses.
#[derive(Clone, Debug, Deserialize)]
pub struct Network {
    /// Static IPv4 address.
    pub ipv4: Option<Prefixed<Ipv4Addr>>,
    /// Static IPv6 address.
    pub ipv6: Option<Prefixed<Ipv6Addr>>,
    /// Whether the IPv4 address comes from a DHCP server.
    #[serde(default)]
    pub dhcp: bool,
    /// Largest packet, in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
}

/// The web server.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Httpd {
    /// TCP port.
    pub port: u16,
}

impl Default for Httpd {
    fn default() -> Self {
        Self { port: 80 }
    }
}

/// The key-value store.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// TCP port.
    pub port: u16,
}

impl Default for KeyValue {
    fn default() -> Self {
        Self { port: 6379 }
    }
}

/// The load balancer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Maglev {
    /// `[[maglev.vip]]`
    pub vip: Vec<Vip>,
}

/// A balanced service.
#[derive(Clone, Debug, Deserialize)]
pub struct Vip {
    /// Unique name.
    pub name: String,
    /// Address that clients use.
    pub address: IpAddr,
    /// Port that clients use.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Who serves it.
    #[serde(default)]
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
pub struct Backend {
    /// Name, unique within the VIP; what the lookup table is computed from.
    pub name: Spanned<String>,
    /// Its own address, of the VIP's family.
    pub address: IpAddr,
}

fn default_mtu() -> u16 {
    1500
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
        let at_line = |line, key, problem| source.error_at(line, format!("{key}: {problem}"));
        netstack::config::check(&source.text).map_err(|message| source.section_error(message))?;
        httpd::config::check(&source.text).map_err(|error| at_line(error.line, error.key, error.problem))?;
        maglev::config::Config::from_toml(&source.text)
            .map_err(|error| at_line(error.line, error.key, error.problem))?;
        kv_server::config::check(&source.text)
            .map_err(|error| at_line(error.line, error.key, error.problem))?;
        partitions::config::Config::from_toml(&source.text)
            .map_err(|message| source.section_error(message))?;
        kv_engine::config::read(&source.text)
            .map_err(|error| at_line(error.line, error.key, error.problem))?;
        Ok(appliance)
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
        assert_eq!((appliance.network.mtu, appliance.httpd.port), (1500, 80));
        assert!(!appliance.network.dhcp && appliance.maglev.vip.is_empty());
    }

    #[test]
    fn every_domain_s_own_reader_is_asked() {
        for (text, expected) in [
            ("[network]\nmtu = 1500\n", "`ipv4`"),
            ("[network]\nipv4 = \"10.0.0.1\"\n", "appliance.toml:2:"),
            ("[network]\nipv4 = \"10.0.0.1/8\"\nmtu = 100\n", "mtu"),
            ("[network]\nipv4 = \"10.0.0.1/8\"\ncolour = 3\n", "colour"),
            (
                "[network]\nipv4 = \"10.0.0.1/8\"\n[httpd]\ncolour = 3\n",
                "appliance.toml:4:",
            ),
            (
                "[network]\nipv4 = \"10.0.0.1/8\"\n[maglev]\ntable_size = 10\n",
                "appliance.toml:4:",
            ),
            (
                "[network]\nipv4 = \"10.0.0.1/8\"\n[storage]\ncolour = 3\n",
                "colour",
            ),
            ("[network]\nipv4 = \"10.0.0.1/8\"\n[colour]\n", "colour"),
        ] {
            let error = check(text).unwrap_err();
            assert!(
                error.starts_with("appliance.toml:") && error.contains(expected),
                "{text}: {error}"
            );
        }
    }
}
