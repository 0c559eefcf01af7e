//! The `[kv]` section of the operator's file, config/appliance.toml, and what CONFIG SET changes of it while the server runs.
//!
//! Reads and checks; other sections are other domains' and are not looked at.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt;
use serde::Deserialize;
use settings::{Section, SettingsError, Spanned};

/// When a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on the disk.
    Always,
    /// At once; it is on the disk a second later.
    EverySecond,
    /// At once; it is on the disk when the store writes it.
    No,
}

impl Durability {
    /// As `appendfsync` names it.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Always => "always",
            Durability::EverySecond => "everysec",
            Durability::No => "no",
        }
    }

    /// What `appendfsync` names.
    pub fn from_name(name: &[u8]) -> Option<Durability> {
        [Durability::Always, Durability::EverySecond, Durability::No]
            .into_iter()
            .find(|durability| name.eq_ignore_ascii_case(durability.name().as_bytes()))
    }
}

/// How much output may wait for a kind of client, in bytes; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// At more than this the connection ends.
    pub hard_bytes: u64,
    /// At more than this for `soft_s` too.
    pub soft_bytes: u64,
    /// Seconds.
    pub soft_s: u64,
}

/// The settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// There is a section: without one there is no service.
    pub enabled: bool,
    /// `port`: TCP port; 6379 by default.
    pub port: u16,
    /// `password`: what AUTH is to show; none by default.
    pub password: Option<Box<[u8]>>,
    /// `appendfsync`: "always", "everysec" (the default) or "no".
    pub durability: Durability,
    /// `maxclients`: open connections at most; 10,000 by default.
    pub client_limit: u32,
    /// `maxmemory_mib`: memory for keys and values, in MiB; 0 for what the domain has. CONFIG SET maxmemory is in bytes.
    pub maximum_memory_bytes: u64,
    /// `timeout_s`: idle clients are disconnected after this; 0, the default, for never.
    pub timeout_s: u64,
    /// `request_mib`: an argument at most, in MiB; 512 by default. CONFIG SET proto-max-bulk-len is in bytes.
    pub bulk_limit_bytes: u64,
    /// `buffer_mib`: a request that is coming in at most, in MiB; 1024 by default.
    pub request_limit_bytes: u64,
    /// Output of ordinary clients.
    pub normal_output: OutputLimit,
    /// Output of subscribers.
    pub pubsub_output: OutputLimit,
    /// What CONFIG SET set of what has no other place.
    pub free: BTreeMap<&'static str, String>,
    /// Up to which size collections count as small; CONFIG SET alone changes it.
    pub limits: crate::types::Limits,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("port", &self.port)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            enabled: false,
            port: 6379,
            password: None,
            durability: Durability::EverySecond,
            client_limit: 10_000,
            maximum_memory_bytes: 0,
            timeout_s: 0,
            bulk_limit_bytes: 512 << 20,
            request_limit_bytes: 1 << 30,
            normal_output: OutputLimit {
                hard_bytes: 0,
                soft_bytes: 0,
                soft_s: 0,
            },
            pubsub_output: OutputLimit {
                hard_bytes: 32 << 20,
                soft_bytes: 8 << 20,
                soft_s: 60,
            },
            free: BTreeMap::new(),
            limits: crate::types::Limits::DEFAULT,
        }
    }
}

#[derive(Deserialize)]
struct File {
    kv: Option<Keys>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Keys {
    port: Option<Spanned<i64>>,
    password: Option<Spanned<String>>,
    appendfsync: Option<Spanned<String>>,
    maxclients: Option<Spanned<i64>>,
    maxmemory_mib: Option<Spanned<i64>>,
    timeout_s: Option<Spanned<i64>>,
    request_mib: Option<Spanned<i64>>,
    buffer_mib: Option<Spanned<i64>>,
}

/// Reads the whole of config/appliance.toml; without a `[kv]` section nothing is served.
///
/// # Errors
/// The first mistake found.
pub fn read(text: &str) -> Result<Config, SettingsError> {
    let section = Section::new("kv", text);
    let mut config = Config::default();
    let Some(keys) = section.parse::<File>()?.kv else {
        return Ok(config);
    };
    config.enabled = true;
    section.number("port", &keys.port, 1..=65_535, &mut config.port)?;
    section.number(
        "maxclients",
        &keys.maxclients,
        1..=1_000_000,
        &mut config.client_limit,
    )?;
    section.number("timeout_s", &keys.timeout_s, 0..=1 << 31, &mut config.timeout_s)?;
    for (key, given, range, bytes) in [
        (
            "maxmemory_mib",
            &keys.maxmemory_mib,
            0..=1 << 30,
            &mut config.maximum_memory_bytes,
        ),
        (
            "request_mib",
            &keys.request_mib,
            1..=512,
            &mut config.bulk_limit_bytes,
        ),
        (
            "buffer_mib",
            &keys.buffer_mib,
            1..=2048,
            &mut config.request_limit_bytes,
        ),
    ] {
        section.mebibytes(key, given, range, bytes)?;
    }
    if let Some(given) = &keys.appendfsync {
        config.durability = Durability::from_name(given.get_ref().as_bytes()).ok_or_else(|| {
            let problem = format!("{:?} is not \"always\", \"everysec\" or \"no\"", given.get_ref());
            section.error(given, "appendfsync", problem)
        })?;
    }
    if let Some(given) = &keys.password {
        if given.get_ref().is_empty() || given.get_ref().len() > 512 {
            return Err(section.error(given, "password", "it takes 1 to 512 characters"));
        }
        config.password = Some(given.get_ref().as_bytes().into());
    }
    Ok(config)
}
