//! CONFIG GET, SET and RESETSTAT.
//!
//! What the operator's file says can be changed until the next start; what Redis has and this server has no use for is there with its default, so
//! that clients and tools which ask for it find it. It can be set where that promises nothing.

use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::config::{Config, Durability, OutputLimit};
use crate::error::CommandError;
use crate::glob;
use crate::keyspace::Events;
use crate::server::Statistics;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

const ADMIN: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("config", -2, ADMIN.union(Flags::CONTAINER), NO_KEYS, help),
    command("config|help", 2, ADMIN, NO_KEYS, help),
    command("config|get", -3, ADMIN, NO_KEYS, get),
    command("config|set", -4, ADMIN, NO_KEYS, set),
    command("config|resetstat", 2, ADMIN, NO_KEYS, reset_statistics),
    command("config|rewrite", 2, ADMIN, NO_KEYS, |_| {
        Err(CommandError::Plain(
            "ERR The server is running without a config file",
        ))
    }),
];

/// Settings that change nothing here but what they say, with their defaults. The sizes decide what OBJECT ENCODING says.
pub const FREE: &[(&str, &str)] = &[
    ("active-expire-effort", "1"),
    ("activedefrag", "no"),
    ("activerehashing", "yes"),
    ("hash-max-listpack-entries", "128"),
    ("hash-max-listpack-value", "64"),
    ("hash-max-ziplist-entries", "128"),
    ("hash-max-ziplist-value", "64"),
    ("hll-sparse-max-bytes", "3000"),
    ("hz", "10"),
    ("latency-monitor-threshold", "0"),
    ("latency-tracking", "yes"),
    ("lazyfree-lazy-expire", "no"),
    ("lazyfree-lazy-server-del", "no"),
    ("lazyfree-lazy-user-del", "no"),
    ("lazyfree-lazy-user-flush", "no"),
    ("lfu-decay-time", "1"),
    ("lfu-log-factor", "10"),
    ("list-compress-depth", "0"),
    ("list-max-listpack-size", "-2"),
    ("list-max-ziplist-size", "-2"),
    ("lua-time-limit", "5000"),
    ("maxmemory-samples", "5"),
    ("busy-reply-threshold", "5000"),
    ("repl-backlog-size", "1048576"),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("set-max-listpack-value", "64"),
    ("slowlog-log-slower-than", "10000"),
    ("slowlog-max-len", "128"),
    ("stop-writes-on-bgsave-error", "yes"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
    ("tracking-table-max-keys", "1000000"),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("zset-max-ziplist-entries", "128"),
    ("zset-max-ziplist-value", "64"),
];

/// Settings that can't be changed.
const FIXED: &[(&str, &str)] = &[
    ("appendonly", "yes"),
    ("bind", "*"),
    ("cluster-enabled", "no"),
    ("daemonize", "no"),
    ("databases", "16"),
    ("dir", "/"),
    ("io-threads", "1"),
    ("maxmemory-policy", "noeviction"),
    ("save", ""),
    ("supervised", "no"),
    ("unixsocket", ""),
];

/// All settings with their values.
fn all(config: &Config, events: Events) -> Vec<(&'static str, String)> {
    let limit = |name: &str, limit: OutputLimit| {
        format!(
            "{name} {} {} {}",
            limit.hard_bytes, limit.soft_bytes, limit.soft_s
        )
    };
    let none = OutputLimit {
        hard_bytes: 0,
        soft_bytes: 0,
        soft_s: 0,
    };
    let password = config
        .password
        .as_ref()
        .map(|password| String::from_utf8_lossy(password).into_owned());
    let mut settings = alloc::vec![
        ("appendfsync", config.durability.name().to_string()),
        (
            "client-output-buffer-limit",
            format!(
                "{} {} {}",
                limit("normal", config.normal_output),
                limit("slave", none),
                limit("pubsub", config.pubsub_output)
            ),
        ),
        (
            "client-query-buffer-limit",
            config.request_limit_bytes.to_string()
        ),
        ("maxclients", config.client_limit.to_string()),
        ("maxmemory", config.maximum_memory_bytes.to_string()),
        ("notify-keyspace-events", letters(events)),
        ("port", config.port.to_string()),
        ("proto-max-bulk-len", config.bulk_limit_bytes.to_string()),
        ("requirepass", password.unwrap_or_default()),
        ("timeout", config.timeout_s.to_string()),
    ];
    settings.extend(FIXED.iter().map(|(name, value)| (*name, value.to_string())));
    settings.extend(FREE.iter().map(|(name, value)| {
        let own = config.free.get(*name);
        (*name, own.cloned().unwrap_or_else(|| value.to_string()))
    }));
    settings.sort();
    settings
}

fn get(context: &mut Context<'_>) -> Result<(), CommandError> {
    let settings = all(&context.server.config, context.server.keyspace.wanted_events);
    let patterns: Vec<Vec<u8>> = context
        .arguments
        .from(2)
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    let found: Vec<&(&str, String)> = settings
        .iter()
        .filter(|(name, _)| {
            patterns
                .iter()
                .any(|pattern| glob::matches(pattern, name.as_bytes()))
        })
        .collect();
    context.reply.map(found.len());
    for (name, value) in found {
        context.reply.bulk(name.as_bytes());
        context.reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn set(context: &mut Context<'_>) -> Result<(), CommandError> {
    let count = context.arguments.len();
    if count % 2 == 1 {
        return Err(CommandError::Arity("config|set".into()));
    }
    // All of them or none.
    let mut config = context.server.config.clone();
    let mut events = context.server.keyspace.wanted_events;
    let mut seen: Vec<String> = Vec::new();
    for index in (2..count).step_by(2) {
        let name = String::from_utf8_lossy(context.argument(index)).to_ascii_lowercase();
        if seen.contains(&name) {
            return Err(failure(&name, "duplicate parameter"));
        }
        let value = String::from_utf8_lossy(context.argument(index + 1)).into_owned();
        if let Err(problem) = apply(&mut config, &mut events, &name, &value) {
            return Err(match problem {
                Problem::Unknown => CommandError::Text(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                )),
                Problem::Fixed => failure(&name, "can't set immutable config"),
                Problem::Value(text) => failure(&name, &text),
            });
        }
        seen.push(name);
    }
    context.server.timing.configure(&config);
    context.server.config = config;
    context.server.keyspace.wanted_events = events;
    context.reply.ok();
    Ok(())
}

fn failure(name: &str, problem: &str) -> CommandError {
    CommandError::Text(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {problem}"
    ))
}

enum Problem {
    Unknown,
    Fixed,
    Value(String),
}

impl From<&str> for Problem {
    fn from(text: &str) -> Problem {
        Problem::Value(text.into())
    }
}

fn apply(config: &mut Config, events: &mut Events, name: &str, value: &str) -> Result<(), Problem> {
    match name {
        "appendfsync" => {
            config.durability = Durability::from_name(value.as_bytes())
                .ok_or("argument(s) must be one of the following: everysec, always, no")?;
        }
        "maxmemory" => {
            config.maximum_memory_bytes = memory(value).ok_or("argument must be a memory value")?
        }
        "proto-max-bulk-len" => {
            let bytes = memory(value).ok_or("argument must be a memory value")?;
            if !(1 << 20..=512 << 20).contains(&bytes) {
                return Err("argument must be between 1048576 and 536870912 inclusive".into());
            }
            config.bulk_limit_bytes = bytes;
        }
        "client-query-buffer-limit" => {
            let bytes = memory(value).ok_or("argument must be a memory value")?;
            config.request_limit_bytes = bytes.clamp(1 << 20, 2 << 30);
        }
        "maxclients" => {
            let number = value
                .parse()
                .ok()
                .filter(|number| (1..=1_000_000).contains(number));
            config.client_limit = number.ok_or("argument must be between 1 and 1000000 inclusive")?;
        }
        "timeout" => {
            config.timeout_s = value
                .parse()
                .map_err(|_| "argument couldn't be parsed into an integer")?
        }
        "requirepass" => {
            config.password = (!value.is_empty()).then(|| value.as_bytes().into());
        }
        "notify-keyspace-events" => {
            *events = from_letters(value).ok_or("Invalid event class character. Use 'Ag$lszhxeKEtmdn'.")?;
        }
        "client-output-buffer-limit" => output_limits(config, value)?,
        "maxmemory-policy" if value == "noeviction" => {}
        "port" if value.parse() == Ok(config.port) => {}
        "save" | "appendonly" | "dir" | "databases" | "port" | "bind" => {
            let current = FIXED.iter().find(|(fixed, _)| *fixed == name);
            // Tools switch saving off, or set what is so already.
            if name != "save" && current.is_none_or(|(_, current)| *current != value) {
                return Err(Problem::Fixed);
            }
        }
        name if FIXED.iter().any(|(fixed, _)| *fixed == name) => return Err(Problem::Fixed),
        name => {
            let (free, default) = FREE
                .iter()
                .find(|(free, _)| *free == name)
                .ok_or(Problem::Unknown)?;
            let was_number = default.parse::<i64>().is_ok();
            if was_number && value.parse::<i64>().is_err() {
                return Err("argument couldn't be parsed into an integer".into());
            }
            if !was_number && !matches!(value, "yes" | "no") {
                return Err("argument must be 'yes' or 'no'".into());
            }
            config.free.insert(free, value.into());
            set_size(config, free, value)?;
            // Each size has an old name and a new one.
            let twin = if free.contains("listpack") {
                free.replace("listpack", "ziplist")
            } else {
                free.replace("ziplist", "listpack")
            };
            if let Some((twin, _)) = FREE.iter().find(|(other, _)| *other == twin) {
                config.free.insert(twin, value.into());
            }
        }
    }
    Ok(())
}

/// Takes a size that decides what OBJECT ENCODING says.
fn set_size(config: &mut Config, name: &str, value: &str) -> Result<(), Problem> {
    let number: i64 = value.parse().unwrap_or_default();
    if name.starts_with("list-max-") {
        config.limits.list_size = number;
    } else if let Some(limit) = config.limits.by_name(name) {
        *limit = usize::try_from(number)
            .map_err(|_| "argument must be between 0 and 9223372036854775807 inclusive")?;
    }
    Ok(())
}

/// A count of bytes with a unit.
fn memory(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match lower.get(digits.len()..)? {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn output_limits(config: &mut Config, value: &str) -> Result<(), Problem> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    for group in words.chunks_exact(4) {
        let [class, hard, soft, seconds] = group else {
            continue;
        };
        let wrong = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        let limit = OutputLimit {
            hard_bytes: memory(hard).ok_or(wrong)?,
            soft_bytes: memory(soft).ok_or(wrong)?,
            soft_s: seconds.parse().map_err(|_| wrong)?,
        };
        match class.to_ascii_lowercase().as_str() {
            "normal" => config.normal_output = limit,
            "pubsub" => config.pubsub_output = limit,
            "slave" | "replica" => {}
            _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
        }
    }
    Ok(())
}

const LETTERS: &[(char, Events)] = &[
    ('g', Events::GENERIC),
    ('$', Events::STRING),
    ('l', Events::LIST),
    ('s', Events::SET),
    ('h', Events::HASH),
    ('z', Events::SORTED_SET),
    ('x', Events::EXPIRED),
    ('e', Events::EVICTED),
    ('t', Events::STREAM),
    ('K', Events::KEYSPACE),
    ('E', Events::KEYEVENT),
    ('m', Events::KEY_MISS),
    ('n', Events::NEW),
];

fn letters(events: Events) -> String {
    let all = events.contains(Events::ALL);
    let mut text = String::new();
    if all {
        text.push('A');
    }
    for (letter, event) in LETTERS {
        if events.contains(*event) && !(all && Events::ALL.contains(*event)) {
            text.push(*letter);
        }
    }
    text
}

fn from_letters(text: &str) -> Option<Events> {
    let mut events = Events::empty();
    for letter in text.chars() {
        events |= match letter {
            'A' => Events::ALL,
            // Modules' keys, of which there are none.
            'd' => Events::empty(),
            letter => LETTERS.iter().find(|(own, _)| *own == letter)?.1,
        };
    }
    Some(events)
}

fn reset_statistics(context: &mut Context<'_>) -> Result<(), CommandError> {
    let commands = context.server.table.len();
    context.server.statistics = Statistics::new(commands);
    context.server.keyspace.expired = 0;
    context.reply.ok();
    Ok(())
}

fn help(context: &mut Context<'_>) -> Result<(), CommandError> {
    let lines = ["GET <pattern>", "RESETSTAT", "SET <directive> <value>"];
    super::help(context, "CONFIG", &lines)
}
