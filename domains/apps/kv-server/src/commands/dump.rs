//! DUMP and RESTORE: a key's value in Redis' own format, for moving it from one server to another.

use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::dump::{self, Restored};
use crate::error::CommandError;
use crate::keyspace::{Events, NEVER_MS};
use crate::stable_map::Slot;
use crate::types::list::End;
use crate::types::{Hash, List, Set, SortedSet};
use crate::value::{Collection, Kind, Malformed, Value};
use alloc::boxed::Box;

/// The table.
pub const COMMANDS: &[Command] = &[
    command("dump", 2, Flags::READONLY, ONE_KEY, dump_value),
    command(
        "restore",
        -4,
        Flags::WRITE.union(Flags::DENYOOM),
        ONE_KEY,
        restore,
    ),
];

const BAD: CommandError = CommandError::Plain("ERR Bad data format");

fn dump_value(context: &mut Context<'_>) -> Result<(), CommandError> {
    let Some(slot) = context.find(context.argument(1)) else {
        context.reply.null();
        return Ok(());
    };
    let kind = context.kind(slot);
    let collection = context.entry(slot).and_then(|entry| entry.value.collection());
    let value = match collection.map(dump::write_collection) {
        Some(value) => value.ok_or(CommandError::WrongType)?,
        None => dump::write_string(&context.bytes(slot)?),
    };
    let sealed = dump::seal(value, kind == Some(Kind::Stream));
    context.reply.bulk(&sealed);
    Ok(())
}

/// What RESTORE is told besides the value.
#[derive(Default)]
struct Options {
    replaces: bool,
    absolute: bool,
    idle_s: u64,
}

fn options(context: &Context<'_>) -> Result<Options, CommandError> {
    let mut options = Options::default();
    let mut frequency = false;
    let mut index = 4;
    while index < context.arguments.len() {
        let has_next = index + 1 < context.arguments.len();
        if context.arguments.is(index, "replace") {
            options.replaces = true;
        } else if context.arguments.is(index, "absttl") {
            options.absolute = true;
        } else if context.arguments.is(index, "idletime") && has_next && !frequency {
            index += 1;
            options.idle_s = u64::try_from(context.integer(index)?)
                .map_err(|_| CommandError::Plain("ERR Invalid IDLETIME value, must be >= 0"))?;
        } else if context.arguments.is(index, "freq") && has_next && options.idle_s == 0 {
            index += 1;
            frequency = true;
            if !(0..=255).contains(&context.integer(index)?) {
                return Err(CommandError::Plain(
                    "ERR Invalid FREQ value, must be >= 0 and <= 255",
                ));
            }
        } else {
            return Err(CommandError::Syntax);
        }
        index += 1;
    }
    Ok(options)
}

fn restore(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let options = options(context)?;
    let present = context.server.keyspace.find(context.database, key);
    if present.is_some() && !options.replaces {
        return Err(CommandError::Plain("BUSYKEY Target key name already exists."));
    }
    let span_ms = u64::try_from(context.integer(2)?)
        .map_err(|_| CommandError::Plain("ERR Invalid TTL value, must be >= 0"))?;
    let value = dump::open(context.argument(3))
        .map_err(|_| CommandError::Plain("ERR DUMP payload version or checksum are wrong"))?;
    let value = dump::read(value).map_err(|_| BAD)?;
    let now_ms = context.server.keyspace.now_ms;
    let expires_ms = match (span_ms, options.absolute) {
        (0, _) => NEVER_MS,
        (at_ms, true) => at_ms,
        (span_ms, false) => now_ms.saturating_add(span_ms),
    };
    if expires_ms != NEVER_MS && expires_ms <= now_ms {
        if let Some(slot) = present {
            context.remove(slot);
            context.notify(Events::GENERIC, "del", key);
        }
        context.reply.ok();
        return Ok(());
    }
    let slot = put(context, key, value)?;
    let database = context.database;
    context.server.keyspace.set_expiry(database, slot, expires_ms);
    if let Some(entry) = context.server.keyspace.entry_mut(database, slot) {
        entry.used_s = entry
            .used_s
            .saturating_sub(u32::try_from(options.idle_s).unwrap_or(u32::MAX));
    }
    context.changed(slot, Events::GENERIC, "restore", key);
    context.reply.ok();
    Ok(())
}

/// Puts a value under the key, whatever was there.
fn put(context: &mut Context<'_>, key: &[u8], value: Restored) -> Result<Slot, CommandError> {
    let seed = context.server.keyspace.random();
    let limits = context.server.config.limits;
    let collection: Box<dyn Collection> = match value {
        Restored::String(bytes) => return context.set_string(key, &bytes, false),
        Restored::List(elements) => {
            let mut list = List::default();
            for element in elements {
                let pushed = list.push(End::Right, element.into_boxed_slice());
                pushed.map_err(|_| BAD)?;
            }
            list.fit(&limits);
            Box::new(list)
        }
        Restored::Set(members) => {
            let mut set = Set::new(seed);
            each_once(members.iter().map(|member| set.add(member, &limits)))?;
            Box::new(set)
        }
        Restored::Hash(fields) => {
            let mut hash = Hash::new(seed);
            each_once(
                fields
                    .iter()
                    .map(|(field, value)| hash.set(field, value, &limits)),
            )?;
            Box::new(hash)
        }
        Restored::SortedSet(members) => {
            let mut set = SortedSet::new(seed);
            each_once(
                members
                    .iter()
                    .map(|(member, score)| set.set(member, *score, &limits).is_none()),
            )?;
            Box::new(set)
        }
        Restored::Stream(stream) => Box::new(stream),
    };
    context.insert(key, Value::Collection(collection))
}

/// Whether each of them was new.
fn each_once(mut new: impl Iterator<Item = bool>) -> Result<(), CommandError> {
    if new.all(|new| new) { Ok(()) } else { Err(BAD) }
}

impl From<Malformed> for CommandError {
    fn from(_: Malformed) -> Self {
        BAD
    }
}
