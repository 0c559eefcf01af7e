//! The commands, by group, and the table that finds them.
//!
//! Each file has a `COMMANDS` table; a command is a function of a [`Context`](crate::command::Context).

pub mod admin;
#[cfg(test)]
mod argument_tests;
pub mod bits;
pub mod blocking_lists;
pub mod clients;
#[cfg(test)]
mod collection_tests;
pub mod collections;
pub mod config;
pub mod connection;
pub mod dump;
pub mod expiry;
pub mod geo;
pub mod hashes;
pub mod hyper_log_log;
pub mod info;
pub mod introspection;
pub mod key_places;
pub mod keys;
pub mod lists;
pub mod pubsub;
#[cfg(test)]
mod restart_tests;
pub mod scan;
pub mod set_algebra;
pub mod sets;
pub mod slow_log;
pub mod sort;
pub mod sorted_set_algebra;
pub mod sorted_set_ranges;
pub mod sorted_sets;
pub mod stream_claims;
pub mod stream_groups;
pub mod stream_info;
pub mod stream_reads;
pub mod streams;
pub mod strings;
pub mod transactions;

use crate::command::{Command, Context, Flags};
use crate::error::CommandError;
use crate::protocol::Arguments;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// All commands, by the group that COMMAND DOCS names.
const GROUPS: &[(&str, &[Command])] = &[
    ("string", strings::COMMANDS),
    ("bitmap", bits::COMMANDS),
    ("generic", keys::COMMANDS),
    ("generic", expiry::COMMANDS),
    ("generic", dump::COMMANDS),
    ("connection", connection::COMMANDS),
    ("connection", clients::COMMANDS),
    ("hash", hashes::COMMANDS),
    ("list", lists::COMMANDS),
    ("list", blocking_lists::COMMANDS),
    ("set", sets::COMMANDS),
    ("set", set_algebra::COMMANDS),
    ("sorted-set", sorted_sets::COMMANDS),
    ("sorted-set", sorted_set_ranges::COMMANDS),
    ("sorted-set", sorted_set_algebra::COMMANDS),
    ("geo", geo::COMMANDS),
    ("hyperloglog", hyper_log_log::COMMANDS),
    ("stream", streams::COMMANDS),
    ("stream", stream_reads::COMMANDS),
    ("stream", stream_groups::COMMANDS),
    ("stream", stream_claims::COMMANDS),
    ("stream", stream_info::COMMANDS),
    ("generic", sort::COMMANDS),
    ("transactions", transactions::COMMANDS),
    ("pubsub", pubsub::COMMANDS),
    ("server", admin::COMMANDS),
    ("server", config::COMMANDS),
    ("server", info::COMMANDS),
    ("server", slow_log::COMMANDS),
    ("server", introspection::COMMANDS),
];

/// The group of a command.
pub fn group_of(command: &Command) -> &'static str {
    GROUPS
        .iter()
        .find(|(_, commands)| commands.iter().any(|other| other.name == command.name))
        .map_or("generic", |(group, _)| group)
}

/// Longest name of a command with its subcommand, in bytes.
const NAME_LIMIT_BYTES: usize = 48;

/// Mixed into the hashes of subcommands, so that a request's first word alone never names one.
const SUBCOMMAND: u64 = 0x5bd1_e995_9d1f_3b27;

/// Finds commands by name.
pub struct Table {
    commands: Vec<&'static Command>,
    index: HashTable<u16>,
    hasher: FixedState,
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

impl Table {
    /// The table of all commands.
    pub fn new() -> Table {
        let hasher = FixedState::with_seed(0);
        let commands: Vec<&'static Command> =
            GROUPS.iter().flat_map(|(_, commands)| commands.iter()).collect();
        let mut index = HashTable::new();
        let hash_of = |command: &Command| {
            let salt = if command.name.contains('|') { SUBCOMMAND } else { 0 };
            hasher.hash_one(command.name.as_bytes()) ^ salt
        };
        for (position, command) in commands.iter().enumerate() {
            index.insert_unique(hash_of(command), position as u16, |other| {
                commands
                    .get(usize::from(*other))
                    .map_or(0, |command| hash_of(command))
            });
        }
        Table {
            commands,
            index,
            hasher,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The command of this full name, "config|get" for a subcommand, in letters of any case.
    pub fn by_full_name(&self, name: &[u8]) -> Option<&'static Command> {
        let (name, subcommand) = match name.iter().position(|byte| *byte == b'|') {
            Some(bar) => (name.get(..bar)?, name.get(bar + 1..)?),
            None => (name, &b""[..]),
        };
        let command = self.get(self.find(name, subcommand)?)?;
        // A command that has no subcommands has none of this name.
        (subcommand.is_empty() || command.name.contains('|')).then_some(command)
    }

    /// All of them, subcommands behind their containers or elsewhere.
    pub fn iter(&self) -> impl Iterator<Item = &'static Command> {
        self.commands.iter().copied()
    }

    /// The command at a place.
    #[inline]
    pub fn get(&self, position: usize) -> Option<&'static Command> {
        self.commands.get(position).copied()
    }

    #[inline]
    fn find_exactly(&self, name: &[u8], salt: u64) -> Option<usize> {
        let hash = self.hasher.hash_one(name) ^ salt;
        let found = self.index.find(hash, |position| {
            self.commands
                .get(usize::from(*position))
                .is_some_and(|command| command.name.as_bytes() == name)
        });
        found.map(|position| usize::from(*position))
    }

    /// The place of the command of this name, or of its subcommand if it has such; in letters of any case.
    #[inline]
    pub fn find(&self, name: &[u8], subcommand: &[u8]) -> Option<usize> {
        let mut lower = [0; NAME_LIMIT_BYTES];
        let own = lower.get_mut(..name.len())?;
        for (to, from) in own.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        let position = self.find_exactly(own, 0)?;
        let is_container = self
            .get(position)
            .is_some_and(|command| command.flags.contains(Flags::CONTAINER));
        if !is_container || subcommand.is_empty() {
            return Some(position);
        }
        let full = name.len() + 1 + subcommand.len();
        let rest = lower.get_mut(name.len()..full)?;
        let (bar, rest) = rest.split_first_mut()?;
        *bar = b'|';
        for (to, from) in rest.iter_mut().zip(subcommand) {
            *to = from.to_ascii_lowercase();
        }
        self.find_exactly(lower.get(..full)?, SUBCOMMAND)
    }
}

/// The text for a command that isn't there.
pub fn unknown(table: &Table, arguments: &Arguments<'_>) -> String {
    let name = arguments.get(0);
    let mut text = String::new();
    let lossy = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.get(..bytes.len().min(128)).unwrap_or_default()).into_owned()
    };
    if let Some(position) = table.find(name, b"")
        && let Some(command) = table.get(position)
        && command.flags.contains(Flags::CONTAINER)
    {
        let _ = write!(
            text,
            "ERR unknown subcommand '{}'. Try {} HELP.",
            lossy(arguments.get(1)),
            command.name.to_ascii_uppercase()
        );
        return text;
    }
    let _ = write!(
        text,
        "ERR unknown command '{}', with args beginning with: ",
        lossy(name)
    );
    let mut left = 128;
    for argument in arguments.from(1) {
        let shown = lossy(argument.get(..argument.len().min(left)).unwrap_or_default());
        let before = text.len();
        let _ = write!(text, "'{shown}' ");
        left = left.saturating_sub(text.len() - before);
        if left == 0 {
            break;
        }
    }
    text
}

/// Answers HELP of a command that has subcommands, and the command without any.
pub fn help(context: &mut Context<'_>, name: &str, lines: &[&str]) -> Result<(), CommandError> {
    if context.arguments.len() < 2 {
        return Err(CommandError::Arity(name.to_ascii_lowercase()));
    }
    context.reply.array(lines.len() + 3);
    let title = alloc::format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    context.reply.simple(&title);
    for line in lines {
        context.reply.simple(line);
    }
    context.reply.simple("HELP");
    context.reply.simple("    Print this help.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A group that is left out of the table compiles; users would miss it.
    #[test]
    fn commands_are_there_once() {
        let names: Vec<&str> = Table::new().iter().map(|command| command.name).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(distinct.len(), names.len());
        let wanted = "get set bitcount del expire ping multi subscribe wait config info command \
            hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset hsetnx hstrlen hvals \
            blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange lrem lset ltrim \
            rpop rpoplpush rpush rpushx \
            sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop srandmember srem \
            sscan sunion sunionstore \
            bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop \
            zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex \
            zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore \
            xack xadd xautoclaim xclaim xdel xgroup xgroup|create xinfo xinfo|stream xlen xpending xrange xread xreadgroup \
            xrevrange xsetid xtrim \
            geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore \
            pfadd pfcount pfmerge dump restore slowlog|get latency|history client|list client|kill \
            sort sort_ro";
        for name in wanted.split_ascii_whitespace() {
            assert!(distinct.contains(name), "{name}");
        }
    }
}
