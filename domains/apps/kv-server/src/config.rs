//! The `[kv]` section of the operator's file, config/appliance.toml, and what CONFIG SET changes of it while the server runs.
//!
//! Reads and checks; other sections are other domains' and are not looked at. An error names the line and the key in words that an operator can
//! act on.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::ops::RangeInclusive;
use serde::Deserialize;
use toml::Spanned;

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

/// A mistake in the operator's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {key}: {problem}")]
pub struct ConfigError {
    /// Line of the file, from 1.
    pub line: usize,
    /// The key concerned.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Deserialize)]
struct File {
    kv: Option<Section>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Section {
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
pub fn read(text: &str) -> Result<Config, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    let mut config = Config::default();
    let Some(section) = file.kv else {
        return Ok(config);
    };
    config.enabled = true;
    set(text, "port", &section.port, 1..=65_535, &mut config.port)?;
    let clients = 1..=1_000_000;
    set(
        text,
        "maxclients",
        &section.maxclients,
        clients,
        &mut config.client_limit,
    )?;
    let megabytes = 0..=1 << 30;
    let memory = &mut config.maximum_memory_bytes;
    set_mib(text, "maxmemory_mib", &section.maxmemory_mib, megabytes, memory)?;
    set(
        text,
        "timeout_s",
        &section.timeout_s,
        0..=1 << 31,
        &mut config.timeout_s,
    )?;
    set_mib(
        text,
        "request_mib",
        &section.request_mib,
        1..=512,
        &mut config.bulk_limit_bytes,
    )?;
    set_mib(
        text,
        "buffer_mib",
        &section.buffer_mib,
        1..=2048,
        &mut config.request_limit_bytes,
    )?;
    if let Some(given) = &section.appendfsync {
        config.durability = Durability::from_name(given.get_ref().as_bytes()).ok_or_else(|| ConfigError {
            line: line(text, given.span().start),
            key: "appendfsync".into(),
            problem: format!("{:?} is not \"always\", \"everysec\" or \"no\"", given.get_ref()),
        })?;
    }
    if let Some(given) = &section.password {
        if given.get_ref().is_empty() || given.get_ref().len() > 512 {
            return Err(ConfigError {
                line: line(text, given.span().start),
                key: "password".into(),
                problem: "it takes 1 to 512 characters".into(),
            });
        }
        config.password = Some(given.get_ref().as_bytes().into());
    }
    Ok(config)
}

/// Checks the `[kv]` section of config/appliance.toml.
///
/// # Errors
/// The first mistake found.
pub fn check(text: &str) -> Result<(), ConfigError> {
    read(text).map(|_| ())
}

fn set_mib(
    text: &str,
    key: &str,
    given: &Option<Spanned<i64>>,
    range: RangeInclusive<i64>,
    value: &mut u64,
) -> Result<(), ConfigError> {
    let mut mib = *value >> 20;
    set(text, key, given, range, &mut mib)?;
    *value = mib << 20;
    Ok(())
}

fn set<T: TryFrom<i64>>(
    text: &str,
    key: &str,
    given: &Option<Spanned<i64>>,
    range: RangeInclusive<i64>,
    value: &mut T,
) -> Result<(), ConfigError> {
    let Some(given) = given else { return Ok(()) };
    let number = *given.get_ref();
    match T::try_from(number) {
        Ok(number_fits) if range.contains(&number) => *value = number_fits,
        _ => {
            return Err(ConfigError {
                line: line(text, given.span().start),
                key: key.to_string(),
                problem: format!("{number} is not from {} to {}", range.start(), range.end()),
            });
        }
    }
    Ok(())
}

/// Line of a byte offset, from 1.
fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let line = line(text, start);
    let key = text.lines().nth(line - 1).unwrap_or_default();
    let key = key.split(['=', '#']).next().unwrap_or_default().trim();
    ConfigError {
        line,
        key: if key.is_empty() { "kv" } else { key }.to_string(),
        problem: error.message().to_string(),
    }
}
