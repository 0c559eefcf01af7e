//! The `[network]` and `[tcp]` sections of config/appliance.toml, and the VIPs' addresses from `[[maglev.vip]]`.
//!
//! Reads and checks; other sections are other domains' and are not looked at.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde::{Deserialize, Deserializer, de};
use settings::{Section, SettingsError, Spanned};

/// Longest and shortest packet that an interface can be set to, bytes.
const MTU_RANGE: core::ops::RangeInclusive<u16> = 1280..=9000;

/// What the operator's file says of the stack.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Addresses and routers.
    pub network: Network,
    /// TCP's limits and timers.
    pub tcp: Tcp,
    /// Addresses of the balancer's services: answered for by ARP, NDP and echo, never by TCP or UDP.
    pub vips: Vec<IpAddr>,
}

/// An address with the length of its network's prefix, "10.82.99.10/24" in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixed<A> {
    /// The address.
    pub address: A,
    /// Bits of it that name the network.
    pub prefix_length: u8,
}

impl<A: fmt::Display> fmt::Display for Prefixed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

/// `[network]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The appliance's IPv4 address; unused with `dhcp`.
    #[serde(deserialize_with = "prefixed_v4")]
    pub ipv4: Option<Prefixed<Ipv4Addr>>,
    /// The appliance's IPv6 address, beside its link-local one.
    #[serde(deserialize_with = "prefixed_v6")]
    pub ipv6: Option<Prefixed<Ipv6Addr>>,
    /// IPv4 router.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 router.
    pub gateway6: Option<Ipv6Addr>,
    /// Ask a DHCP server for the IPv4 address and router.
    pub dhcp: bool,
    /// Longest packet, bytes, without the Ethernet header.
    #[serde(deserialize_with = "mtu")]
    pub mtu: u16,
    /// VLAN that the appliance's own traffic is in, where the device takes tags off; untagged without.
    pub vlan: Option<u16>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            ipv4: None,
            ipv6: None,
            gateway: None,
            gateway6: None,
            dhcp: false,
            mtu: 1500,
            vlan: None,
        }
    }
}

/// `[tcp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// Connections at most on each shard; SYNs over them are dropped.
    #[serde(deserialize_with = "connections")]
    pub connections: u32,
    /// Receive buffer of a connection that has buffers, bytes, and so the window that is announced.
    #[serde(deserialize_with = "buffer_bytes")]
    pub receive_buffer_bytes: u32,
    /// Transmit buffer of a connection that has buffers, bytes; half or a quarter of it when memory gets short.
    #[serde(deserialize_with = "buffer_bytes")]
    pub transmit_buffer_bytes: u32,
    /// Memory for buffers at most, all shards together, bytes. Connections that are quiet or exchange single segments have none.
    pub memory_bytes: u64,
    /// Idle time after which a peer is asked whether it still lives, seconds; 0 for never.
    pub keep_alive_s: u32,
    /// Silence of a peer after which its connection is reset, seconds; counts only with keep-alive.
    #[serde(deserialize_with = "positive")]
    pub timeout_s: u32,
    /// How long a connection that the application has closed may wait for its peer to close too, seconds.
    #[serde(deserialize_with = "positive")]
    pub linger_s: u32,
    /// How long an acknowledgement waits for data to go with it, milliseconds: 40, as Linux has them wait at least. An answer that takes a disk comes in that time.
    pub acknowledgement_delay_ms: u32,
    /// Hold back small segments while others are in flight (RFC 896).
    pub nagle: bool,
}

impl Default for Tcp {
    fn default() -> Self {
        Tcp {
            connections: 16_384,
            receive_buffer_bytes: 16 * 1024,
            transmit_buffer_bytes: 64 * 1024,
            memory_bytes: 320 * 1024 * 1024,
            keep_alive_s: 75,
            timeout_s: 300,
            linger_s: 60,
            acknowledgement_delay_ms: 40,
            nagle: false,
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    network: Network,
    #[serde(default)]
    tcp: Tcp,
    #[serde(default)]
    maglev: Balancer,
}

#[derive(Deserialize, Default)]
struct Balancer {
    #[serde(default)]
    vip: Vec<Vip>,
}

#[derive(Deserialize)]
struct Vip {
    address: Spanned<IpAddr>,
}

/// Reads the text of config/appliance.toml; sections that are missing have their defaults.
///
/// # Errors
/// The first mistake found.
pub fn read(text: &str) -> Result<Config, SettingsError> {
    let file: File = Section::new("network", text).parse()?;
    let own = [
        file.network.ipv4.map(|own| IpAddr::V4(own.address)),
        file.network.ipv6.map(|own| IpAddr::V6(own.address)),
    ];
    let is_own = |vip: &&Vip| own.contains(&Some(*vip.address.get_ref()));
    if let Some(vip) = file.maglev.vip.iter().find(is_own) {
        let problem = format!(
            "{} is the appliance's own address; a service needs one of its own",
            vip.address.get_ref()
        );
        return Err(Section::new("maglev", text).error(&vip.address, "vip.address", problem));
    }
    let mut vips: Vec<IpAddr> = file.maglev.vip.iter().map(|vip| *vip.address.get_ref()).collect();
    vips.sort_unstable();
    vips.dedup();
    Ok(Config {
        network: file.network,
        tcp: file.tcp,
        vips,
    })
}

fn prefixed<A: core::str::FromStr>(text: &str, longest: u8) -> Option<Prefixed<A>> {
    let (address, prefix_length) = text.split_once('/')?;
    let prefix_length: u8 = prefix_length.parse().ok()?;
    (1..=longest).contains(&prefix_length).then_some(())?;
    Some(Prefixed {
        address: address.parse().ok()?,
        prefix_length,
    })
}

fn prefixed_v4<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Prefixed<Ipv4Addr>>, D::Error> {
    let text = String::deserialize(input)?;
    let value: Option<Prefixed<Ipv4Addr>> = prefixed(&text, 32);
    match value {
        Some(own)
            if !own.address.is_unspecified()
                && !own.address.is_multicast()
                && !own.address.is_broadcast()
                && !own.address.is_loopback() =>
        {
            Ok(Some(own))
        }
        _ => Err(de::Error::custom(format!(
            "`{text}` is not a host's address with a prefix length, like \"10.82.99.10/24\""
        ))),
    }
}

fn prefixed_v6<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Prefixed<Ipv6Addr>>, D::Error> {
    let text = String::deserialize(input)?;
    let value: Option<Prefixed<Ipv6Addr>> = prefixed(&text, 128);
    match value {
        Some(own)
            if !own.address.is_unspecified()
                && !own.address.is_multicast()
                && !own.address.is_loopback()
                && own.address.to_ipv4_mapped().is_none() =>
        {
            Ok(Some(own))
        }
        _ => Err(de::Error::custom(format!(
            "`{text}` is not a host's address with a prefix length, like \"fd82:99::10/64\""
        ))),
    }
}

fn ranged<'de, D, T>(input: D, range: core::ops::RangeInclusive<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + fmt::Display + Copy,
{
    let value = T::deserialize(input)?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(de::Error::custom(format!(
        "{value} is out of range: {} to {}",
        range.start(),
        range.end()
    )))
}

fn mtu<'de, D: Deserializer<'de>>(input: D) -> Result<u16, D::Error> {
    ranged(input, MTU_RANGE)
}

fn connections<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    ranged(input, 1..=1_000_000)
}

fn buffer_bytes<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    ranged(input, 8 * 1024..=16 * 1024 * 1024)
}

fn positive<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    ranged(input, 1..=86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const EXAMPLE: &str = r#"
[network]
ipv4 = "10.82.99.10/24"
ipv6 = "fd82:99::10/64"
gateway = "10.82.99.1"
mtu = 1500
[httpd]
port = 80
[tcp]
connections = 4096
keep_alive_s = 30
[[maglev.vip]]
name = "web"
address = "10.82.99.100"
port = 80
protocol = "tcp"
[[maglev.vip]]
name = "web6"
address = "fd82:99::100"
"#;

    #[test]
    fn reads_its_sections_and_leaves_others() {
        let config = read(EXAMPLE).expect("the example is right");
        let ipv4 = config.network.ipv4.expect("given");
        assert_eq!(ipv4.address, Ipv4Addr::new(10, 82, 99, 10));
        assert_eq!(ipv4.prefix_length, 24);
        assert_eq!(config.network.gateway, Some(Ipv4Addr::new(10, 82, 99, 1)));
        assert_eq!(config.tcp.connections, 4096);
        assert_eq!(config.tcp.keep_alive_s, 30);
        assert_eq!(config.vips.len(), 2);
    }

    #[test]
    fn the_shipped_file_is_right() {
        assert_eq!(
            read(include_str!("../../../../config/appliance.toml")).err(),
            None
        );
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        for (text, word, line) in [
            ("[network]\nipv4 = \"10.0.0.1\"\n", "10.0.0.1", "line 2"),
            ("[network]\nmtu = 100\n", "100 is out of range", "line 2"),
            ("[network]\n\nmtuu = 1500\n", "mtuu", "line 3"),
            ("[tcp]\ntimeout_s = 0\n", "0 is out of range", "line 2"),
            (
                "[[maglev.vip]]\naddress = \"10.0.0\"\n",
                "address: invalid",
                "line 2",
            ),
        ] {
            let error = read(text).expect_err("wrong").to_string();
            assert!(error.contains(word), "{error}");
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn a_vip_is_not_the_appliances_own_address() {
        let text = "[network]\nipv4 = \"10.0.0.1/8\"\n[[maglev.vip]]\naddress = \"10.0.0.1\"\n";
        assert_eq!(
            read(text).expect_err("wrong").to_string(),
            "line 4: maglev.vip.address: 10.0.0.1 is the appliance's own address; a service needs one of its own"
        );
    }
}
