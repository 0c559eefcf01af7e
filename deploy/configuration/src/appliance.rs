//! config/appliance.toml: addresses, services, limits.
//!
//! The file is checked by the very readers that the domains use on the appliance, so what passes here is what they start
//! with. The types here are only what the host itself wants to know: addresses for the lab.

use std::net::IpAddr;
use std::path::Path;

pub use netstack::config::{Network, Prefixed};
use serde::Deserialize;
use settings::{Section, SettingsError, Spanned};

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

impl Appliance {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// With file and line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::check(&Source::read(path)?)
    }

    fn check(source: &Source) -> Result<Self, ConfigError> {
        let section_error =
            |error: SettingsError| source.error_at(error.line, format!("{}: {}", error.key, error.problem));
        let whole = Section::new("network", &source.text);
        let appliance: Self = whole.parse().map_err(section_error)?;
        let network = &appliance.network;
        if network.ipv4.is_none() && !network.dhcp {
            return Err(source.error(0..0, "[network] needs `ipv4`, or `dhcp = true`"));
        }
        netstack::config::read(&source.text).map_err(section_error)?;
        httpd::config::read(&source.text).map_err(section_error)?;
        maglev::config::Config::from_toml(&source.text).map_err(section_error)?;
        kv_server::config::read(&source.text).map_err(section_error)?;
        partitions::config::read(&source.text).map_err(section_error)?;
        kv_engine::config::read(&source.text).map_err(section_error)?;
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
