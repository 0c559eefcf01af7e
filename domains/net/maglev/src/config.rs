//! The `[maglev]` section of the operator's file, config/appliance.toml.
//!
//! Reads and checks; other sections of the file are other domains' and are not looked at.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::Deserialize;
use settings::{Section, SettingsError, Spanned};

use crate::connection_table::{Capacity, LONGEST_TIMEOUT_SECONDS};
use crate::control::{BackendSpec, VipSpec};
use crate::hash::HashSeed;
use crate::lifetime::Timeouts;
use crate::packet::Protocol;
use crate::table::TableSize;

/// What the operator's file says of the balancer, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `table_size`: entries of each VIP's lookup table, a prime; 65,537 by default.
    pub table_size: TableSize,
    /// `connection_table_size`: connections that each CPU remembers, a power of two; 262,144 by default.
    pub connection_table_size: Capacity,
    /// `tcp_opening_seconds`, `tcp_established_seconds`, `tcp_closing_seconds`, `udp_seconds`.
    pub timeouts: Timeouts,
    /// `hash_seed`: 32 hexadecimal digits that all balancers of a cluster share; by default a random seed is used.
    pub hash_seed: Option<HashSeed>,
    /// `[[maglev.vip]]`: VIPs with their backends.
    pub vips: Vec<(VipSpec, Vec<BackendSpec>)>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    maglev: Keys,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Keys {
    table_size: Option<Spanned<u32>>,
    connection_table_size: Option<Spanned<u32>>,
    tcp_opening_seconds: Option<Spanned<i64>>,
    tcp_established_seconds: Option<Spanned<i64>>,
    tcp_closing_seconds: Option<Spanned<i64>>,
    udp_seconds: Option<Spanned<i64>>,
    hash_seed: Option<Spanned<String>>,
    #[serde(default)]
    vip: Vec<VipSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VipSection {
    name: Spanned<String>,
    address: Spanned<String>,
    port: Spanned<u16>,
    protocol: Spanned<String>,
    #[serde(default)]
    backends: Vec<BackendSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendSection {
    name: Spanned<String>,
    address: Spanned<String>,
    #[serde(default = "default_weight")]
    weight: u16,
}

fn default_weight() -> u16 {
    1
}

impl Config {
    /// Reads the whole of config/appliance.toml; a file without a `[maglev]` section is a balancer without VIPs.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        let section = Section::new("maglev", text);
        let keys = section.parse::<File>()?.maglev;

        let mut config = Self::default();
        if let Some(size) = &keys.table_size {
            config.table_size =
                TableSize::new(*size.get_ref()).map_err(|error| section.error(size, "table_size", error))?;
        }
        if let Some(size) = &keys.connection_table_size {
            config.connection_table_size = Capacity::new(*size.get_ref())
                .map_err(|error| section.error(size, "connection_table_size", error))?;
        }
        let timeouts = &mut config.timeouts;
        for (key, given, timeout) in [
            (
                "tcp_opening_seconds",
                &keys.tcp_opening_seconds,
                &mut timeouts.tcp_opening_seconds,
            ),
            (
                "tcp_established_seconds",
                &keys.tcp_established_seconds,
                &mut timeouts.tcp_established_seconds,
            ),
            (
                "tcp_closing_seconds",
                &keys.tcp_closing_seconds,
                &mut timeouts.tcp_closing_seconds,
            ),
            ("udp_seconds", &keys.udp_seconds, &mut timeouts.udp_seconds),
        ] {
            section.number(key, given, 1..=i64::from(LONGEST_TIMEOUT_SECONDS), timeout)?;
        }
        if let Some(digits) = &keys.hash_seed {
            let seed = parse_seed(digits.get_ref());
            let seed = seed.ok_or_else(|| section.error(digits, "hash_seed", "not 32 hexadecimal digits"))?;
            config.hash_seed = Some(seed);
        }
        let reader = VipReader(section);
        for vip in &keys.vip {
            let vip = reader.vip(vip, &config.vips)?;
            config.vips.push(vip);
        }
        Ok(config)
    }
}

fn parse_seed(digits: &str) -> Option<HashSeed> {
    let mut seed = [0; 16];
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, start) in seed.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(start..start + 2)?, 16).ok()?;
    }
    Some(HashSeed(seed))
}

/// Reads the VIPs of the section.
struct VipReader<'a>(Section<'a>);

impl VipReader<'_> {
    fn vip(
        &self,
        section: &VipSection,
        others: &[(VipSpec, Vec<BackendSpec>)],
    ) -> Result<(VipSpec, Vec<BackendSpec>), SettingsError> {
        let name = self.name(&section.name, "vip.name")?;
        if others.iter().any(|(vip, _)| vip.name == name) {
            return Err(self
                .0
                .error(&section.name, "vip.name", format!("{name} is there twice")));
        }
        let protocol = match section.protocol.get_ref().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                let problem = format!("\"{other}\" is neither \"tcp\" nor \"udp\"");
                return Err(self.0.error(&section.protocol, "vip.protocol", problem));
            }
        };
        let port = *section.port.get_ref();
        if port == 0 {
            return Err(self.0.error(&section.port, "vip.port", "0 is not a port"));
        }
        let address = self.address(&section.address, "vip.address")?;
        let spec = VipSpec {
            name,
            address,
            port,
            protocol,
        };
        let same = |vip: &VipSpec| (vip.address, vip.port, vip.protocol) == (address, port, protocol);
        if let Some((other, _)) = others.iter().find(|(vip, _)| same(vip)) {
            let problem = format!("{address}, port and protocol are those of VIP {}", other.name);
            return Err(self.0.error(&section.address, "vip.address", problem));
        }

        let mut backends: Vec<BackendSpec> = Vec::new();
        for backend in &section.backends {
            let name = self.name(&backend.name, "vip.backends.name")?;
            if backends.iter().any(|other| other.name == name) {
                return Err(self.0.error(
                    &backend.name,
                    "vip.backends.name",
                    format!("{name} is there twice"),
                ));
            }
            let address = self.address(&backend.address, "vip.backends.address")?;
            backends.push(BackendSpec {
                name,
                address,
                weight: backend.weight,
            });
        }
        Ok((spec, backends))
    }

    fn name(&self, name: &Spanned<String>, key: &str) -> Result<String, SettingsError> {
        let text = name.get_ref();
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
        if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
            let problem = format!("\"{text}\" is not 1 to 63 letters, digits or any of - _ . :");
            return Err(self.0.error(name, key, problem));
        }
        Ok(text.clone())
    }

    fn address(&self, address: &Spanned<String>, key: &str) -> Result<IpAddr, SettingsError> {
        let text = address.get_ref();
        text.parse().map_err(|_| {
            self.0
                .error(address, key, format!("\"{text}\" is not an IP address"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[network]
ipv4 = "10.82.99.10/24"

[maglev]
table_size = 16381
connection_table_size = 4096
udp_seconds = 30
hash_seed = "000102030405060708090a0b0c0d0e0f"

[[maglev.vip]]
name = "web"
address = "10.82.99.100"
port = 80
protocol = "tcp"
backends = [
    { name = "backend1", address = "10.82.99.11", weight = 3 },
    { name = "backend2", address = "fd82:99::12" },
]
"#;

    #[test]
    fn reads_a_whole_section() {
        let config = Config::from_toml(FILE).unwrap();
        assert_eq!(config.table_size.get(), 16_381);
        assert_eq!(config.connection_table_size.get(), 4_096);
        assert_eq!(
            config.timeouts,
            Timeouts {
                udp_seconds: 30,
                ..Timeouts::default()
            }
        );
        assert_eq!(config.hash_seed.map(|seed| seed.0[15]), Some(15));
        let (vip, backends) = &config.vips[0];
        assert_eq!(
            (vip.name.as_str(), vip.port, vip.protocol),
            ("web", 80, Protocol::Tcp)
        );
        assert_eq!(
            backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(),
            [3, 1]
        );
    }

    #[test]
    fn a_file_without_the_section_is_a_balancer_without_vips() {
        assert_eq!(
            Config::from_toml("[network]\nmtu = 1500\n"),
            Ok(Config::default())
        );
    }

    /// Each mistake with the line and the key that it is reported at.
    #[test]
    fn mistakes_are_named() {
        for (from, to, line, key) in [
            ("16381", "16382", 6, "maglev.table_size"),
            ("16381", "\"many\"", 6, "table_size"),
            ("table_size = 16381", "tabel_size = 16381", 6, "tabel_size"),
            ("4096", "4095", 7, "maglev.connection_table_size"),
            ("udp_seconds = 30", "udp_seconds = 0", 8, "maglev.udp_seconds"),
            ("udp_seconds = 30", "udp_seconds = 8192", 8, "maglev.udp_seconds"),
            ("0d0e0f", "0d0e0", 9, "maglev.hash_seed"),
            ("0d0e0f", "0d0e+f", 9, "maglev.hash_seed"),
            ("\"web\"", "\"the web\"", 12, "maglev.vip.name"),
            ("\"10.82.99.100\"", "\"10.82.99\"", 13, "maglev.vip.address"),
            ("port = 80", "port = 0", 14, "maglev.vip.port"),
            ("port = 80", "port = 80000", 14, "port"),
            ("\"tcp\"", "\"sctp\"", 15, "maglev.vip.protocol"),
            ("10.82.99.11", "backend1", 17, "maglev.vip.backends.address"),
            ("backend2", "backend1", 18, "maglev.vip.backends.name"),
        ] {
            assert!(FILE.contains(from));
            let error = Config::from_toml(&FILE.replacen(from, to, 1)).unwrap_err();
            assert_eq!((error.line, error.key.as_str()), (line, key), "{error}");
        }
    }

    #[test]
    fn a_vip_that_is_there_twice_is_refused() {
        let vip = "[[maglev.vip]]\nname = \"a\"\naddress = \"10.0.0.1\"\nport = 1\nprotocol = \"udp\"\n";
        let same_name = alloc::format!("{vip}{}", vip.replace("10.0.0.1", "10.0.0.2"));
        assert_eq!(Config::from_toml(&same_name).unwrap_err().line, 7);
        let same_address = alloc::format!("{vip}{}", vip.replace("\"a\"", "\"b\""));
        assert_eq!(Config::from_toml(&same_address).unwrap_err().line, 8);
    }
}
