//! Keys of any type: DEL, RENAME, SCAN, OBJECT and their kin.

use super::scan::{ScanOptions, cursor};
use crate::command::{ALL_KEYS, Command, Context, Flags, Keys, NO_KEYS, ONE_KEY, command};
use crate::error::CommandError;
use crate::glob;
use crate::journal::USER_KEY_LIMIT_BYTES;
use crate::keyspace::{DATABASES, Events};
use crate::stable_map::Slot;
use crate::value::{Kind, StringValue, Value};
use alloc::boxed::Box;
use alloc::vec::Vec;

const READ: Flags = Flags::READONLY;
const FAST_READ: Flags = Flags::READONLY.union(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const FAST_WRITE: Flags = Flags::WRITE.union(Flags::FAST);
const TWO_KEYS: Keys = Keys {
    first: 1,
    last: 2,
    step: 1,
};
const SECOND: Keys = Keys {
    first: 2,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("del", -2, WRITE, ALL_KEYS, delete),
    command("unlink", -2, FAST_WRITE, ALL_KEYS, delete),
    command("exists", -2, FAST_READ, ALL_KEYS, exists),
    command("touch", -2, FAST_READ, ALL_KEYS, touch),
    command("type", 2, FAST_READ, ONE_KEY, kind),
    command("rename", 3, WRITE, TWO_KEYS, |context| rename(context, false)),
    command("renamenx", 3, FAST_WRITE, TWO_KEYS, |context| {
        rename(context, true)
    }),
    command("copy", -3, WRITE.union(Flags::DENYOOM), TWO_KEYS, copy),
    command("move", 3, FAST_WRITE, ONE_KEY, move_key),
    command("keys", 2, READ, NO_KEYS, keys),
    command("scan", -2, READ, NO_KEYS, scan),
    command("randomkey", 1, READ, NO_KEYS, random),
    command("dbsize", 1, FAST_READ, NO_KEYS, size),
    command("flushdb", -1, WRITE, NO_KEYS, |context| flush(context, false)),
    command("flushall", -1, WRITE, NO_KEYS, |context| flush(context, true)),
    command("swapdb", 3, FAST_WRITE, NO_KEYS, swap),
    command("object", -2, READ.union(Flags::CONTAINER), SECOND, help),
    command("object|help", 2, READ, NO_KEYS, help),
    command("object|encoding", 3, READ, SECOND, encoding),
    command("object|refcount", 3, READ, SECOND, |context| {
        about(context, About::References)
    }),
    command("object|idletime", 3, READ, SECOND, |context| {
        about(context, About::Idle)
    }),
    command("object|freq", 3, READ, SECOND, |context| {
        about(context, About::Frequency)
    }),
    command("memory", -2, READ.union(Flags::CONTAINER), SECOND, memory_help),
    command("memory|help", 2, READ, NO_KEYS, memory_help),
    command("memory|usage", -3, READ, SECOND, memory_usage),
    command("memory|stats", 2, READ, NO_KEYS, memory_statistics),
    command("memory|doctor", 2, READ, NO_KEYS, |context| {
        context.reply.verbatim(b"Nothing to report.\n");
        Ok(())
    }),
    command("memory|purge", 2, READ, NO_KEYS, |context| {
        context.reply.ok();
        Ok(())
    }),
];

fn delete(context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut count = 0;
    for key in context.arguments.from(1) {
        if let Some(slot) = context.server.keyspace.find(context.database, key) {
            context.remove(slot);
            context.notify(Events::GENERIC, "del", key);
            count += 1;
        }
    }
    context.reply.integer(count);
    Ok(())
}

fn exists(context: &mut Context<'_>) -> Result<(), CommandError> {
    let keys = context.arguments.from(1);
    let count = keys.filter(|key| context.look(key).is_some()).count();
    context.reply.count(count);
    Ok(())
}

fn touch(context: &mut Context<'_>) -> Result<(), CommandError> {
    let keys = context.arguments.from(1);
    let count = keys.filter(|key| context.find(key).is_some()).count();
    context.reply.count(count);
    Ok(())
}

fn kind(context: &mut Context<'_>) -> Result<(), CommandError> {
    let slot = context.look(context.argument(1));
    let name = slot
        .and_then(|slot| context.kind(slot))
        .map_or("none", Kind::name);
    context.reply.simple(name);
    Ok(())
}

fn rename(context: &mut Context<'_>, only_absent: bool) -> Result<(), CommandError> {
    let (from, to) = (context.argument(1), context.argument(2));
    let slot = context.find(from).ok_or(CommandError::NoSuchKey)?;
    let other = context.server.keyspace.find(context.database, to);
    if only_absent && other.is_some() {
        context.reply.integer(0);
        return Ok(());
    }
    if to.len() > USER_KEY_LIMIT_BYTES {
        return Err(CommandError::KeyTooLong);
    }
    if from != to {
        let database = context.database;
        if let Some(other) = other {
            context.remove(other);
        }
        move_entry(context, slot, database, to);
        context.notify(Events::GENERIC, "rename_from", from);
        context.notify(Events::GENERIC, "rename_to", to);
    }
    if only_absent {
        context.reply.integer(1);
    } else {
        context.reply.ok();
    }
    Ok(())
}

/// Moves the key in a slot with all that it has, to another name or database.
fn move_entry(context: &mut Context<'_>, slot: Slot, database: usize, to: &[u8]) {
    let keyspace = &mut context.server.keyspace;
    if let Some(entry) = keyspace.detach(context.database, slot)
        && let Some(slot) = keyspace.place(database, to, entry.value, entry.id, entry.expires_ms)
    {
        keyspace.changed(database, slot);
    }
}

/// The database of this argument.
fn other_database(context: &Context<'_>, index: usize, not: CommandError) -> Result<usize, CommandError> {
    let number = context.integer(index).map_err(|_| not)?;
    usize::try_from(number)
        .ok()
        .filter(|number| *number < DATABASES)
        .ok_or(CommandError::Plain("ERR DB index is out of range"))
}

fn move_key(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let to = other_database(context, 2, CommandError::NotInteger)?;
    if to == context.database {
        return Err(CommandError::Plain(
            "ERR source and destination objects are the same",
        ));
    }
    let Some(slot) = context.find(key) else {
        context.reply.integer(0);
        return Ok(());
    };
    if context.server.keyspace.find(to, key).is_some() {
        context.reply.integer(0);
        return Ok(());
    }
    move_entry(context, slot, to, key);
    context.notify(Events::GENERIC, "move_from", key);
    context
        .server
        .keyspace
        .notify(Events::GENERIC, "move_to", to, key);
    context.reply.integer(1);
    Ok(())
}

fn copy(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (from, to) = (context.argument(1), context.argument(2));
    let (mut database, mut replace) = (context.database, false);
    let mut index = 3;
    while index < context.arguments.len() {
        if context.arguments.is(index, "replace") {
            replace = true;
        } else if context.arguments.is(index, "db") && index + 1 < context.arguments.len() {
            index += 1;
            database = other_database(context, index, CommandError::NotInteger)?;
        } else {
            return Err(CommandError::Syntax);
        }
        index += 1;
    }
    if database == context.database && from == to {
        return Err(CommandError::Plain(
            "ERR source and destination objects are the same",
        ));
    }
    let Some(slot) = context.find(from) else {
        context.reply.integer(0);
        return Ok(());
    };
    let other = context.server.keyspace.find(database, to);
    if other.is_some() && !replace {
        context.reply.integer(0);
        return Ok(());
    }
    if to.len() > USER_KEY_LIMIT_BYTES {
        return Err(CommandError::KeyTooLong);
    }
    let seed = context.server.keyspace.random();
    let Some(entry) = context.entry(slot) else {
        return Ok(());
    };
    let expires_ms = entry.expires_ms;
    let (value, id) = match entry.value.collection() {
        Some(collection) => (collection.duplicate(seed), None),
        None => {
            let (value, id) = context.copy_string(slot)?;
            (value, Some(id))
        }
    };
    let keyspace = &mut context.server.keyspace;
    if let Some(other) = other {
        keyspace.remove(database, other);
    }
    let slot = match id {
        Some(id) => keyspace.place(database, to, value, id, expires_ms),
        None => keyspace.insert(database, to, value),
    };
    if let Some(slot) = slot {
        keyspace.set_expiry(database, slot, expires_ms);
        keyspace.changed(database, slot);
        keyspace.notify(Events::GENERIC, "copy_to", database, to);
    }
    context.reply.integer(1);
    Ok(())
}

fn keys(context: &mut Context<'_>) -> Result<(), CommandError> {
    let pattern = context.argument(1);
    let now_ms = context.server.keyspace.now_ms;
    let mark = context.reply.begin();
    let mut count = 0;
    if let Some(database) = context.server.keyspace.database(context.database) {
        for (_, key, entry) in database.keys.iter() {
            let is_live = entry.expires_ms == 0 || entry.expires_ms > now_ms;
            if is_live && glob::matches(pattern, key) {
                context.reply.bulk(key);
                count += 1;
            }
        }
    }
    context.reply.end_array(mark, count);
    Ok(())
}

fn scan(context: &mut Context<'_>) -> Result<(), CommandError> {
    let from = cursor(context, 1)?;
    let options = ScanOptions::read(context, 2, true)?;
    let mut found: Vec<Box<[u8]>> = Vec::new();
    let mut expired: Vec<Box<[u8]>> = Vec::new();
    let mut next = 0;
    if let Some(database) = context.server.keyspace.database(context.database) {
        let keys = &database.keys;
        let end = from
            .saturating_add(options.count as u64)
            .min(u64::from(keys.slot_count()));
        for number in from..end {
            let slot = Slot::new(number as u32);
            let Some((key, entry)) = keys.entry(slot) else {
                continue;
            };
            if entry.expires_ms != 0 && entry.expires_ms <= context.server.keyspace.now_ms {
                expired.push(key.into());
            } else if options.matches(key) && options.kind.is_none_or(|kind| kind == entry.value.kind()) {
                found.push(key.into());
            }
        }
        if end < u64::from(keys.slot_count()) {
            next = end;
        }
    }
    for key in expired {
        context.server.keyspace.find(context.database, &key);
    }
    context.reply.array(2);
    context.reply.bulk_integer(next as i64);
    context.reply.array(found.len());
    for key in found {
        context.reply.bulk(&key);
    }
    Ok(())
}

fn random(context: &mut Context<'_>) -> Result<(), CommandError> {
    for _ in 0..100 {
        let random = context.server.keyspace.random();
        let Some(database) = context.server.keyspace.database(context.database) else {
            break;
        };
        let Some(key) = database
            .keys
            .random(random)
            .and_then(|slot| database.keys.key(slot))
            .map(Box::<[u8]>::from)
        else {
            break;
        };
        if context.server.keyspace.find(context.database, &key).is_some() {
            context.reply.bulk(&key);
            return Ok(());
        }
    }
    context.reply.null();
    Ok(())
}

fn size(context: &mut Context<'_>) -> Result<(), CommandError> {
    let database = context.server.keyspace.database(context.database);
    context
        .reply
        .count(database.map_or(0, |database| database.keys.len()));
    Ok(())
}

fn flush(context: &mut Context<'_>, all: bool) -> Result<(), CommandError> {
    match context.arguments.len() {
        1 => {}
        2 if context.arguments.is(1, "async") || context.arguments.is(1, "sync") => {}
        _ => return Err(CommandError::Syntax),
    }
    if all {
        context.server.keyspace.flush_all();
    } else {
        context.server.keyspace.flush(context.database);
    }
    context.reply.ok();
    Ok(())
}

fn swap(context: &mut Context<'_>) -> Result<(), CommandError> {
    let first = other_database(context, 1, CommandError::Plain("ERR invalid first DB index"))?;
    let second = other_database(context, 2, CommandError::Plain("ERR invalid second DB index"))?;
    context.server.keyspace.swap(first, second);
    context.reply.ok();
    Ok(())
}

/// Where a key is, without counting this as a use of it.
fn look(context: &mut Context<'_>, key: &[u8]) -> Option<Slot> {
    context.server.keyspace.find(context.database, key)
}

fn encoding(context: &mut Context<'_>) -> Result<(), CommandError> {
    let Some(slot) = look(context, context.argument(2)) else {
        context.reply.null();
        return Ok(());
    };
    let text = match context.entry(slot).map(|entry| &entry.value) {
        Some(Value::String(StringValue::Memory(bytes))) => match bytes.len() {
            0..=20 if crate::number::integer(bytes).is_some() => "int",
            0..=44 => "embstr",
            _ => "raw",
        },
        Some(Value::Collection(collection)) => collection.encoding(),
        _ => "raw",
    };
    context.reply.bulk(text.as_bytes());
    Ok(())
}

/// What OBJECT is asked.
#[derive(Clone, Copy)]
enum About {
    References,
    Idle,
    Frequency,
}

fn about(context: &mut Context<'_>, about: About) -> Result<(), CommandError> {
    let Some(slot) = look(context, context.argument(2)) else {
        context.reply.null();
        return Ok(());
    };
    let now_s = context.server.keyspace.now_ms / 1000;
    match about {
        About::References => context.reply.integer(1),
        About::Idle => {
            let used_s = context.entry(slot).map_or(0, |entry| u64::from(entry.used_s));
            context.reply.integer(now_s.saturating_sub(used_s) as i64);
        }
        About::Frequency => {
            return Err(CommandError::Plain(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }
    Ok(())
}

/// What INFO says of memory, by the names that tools look for.
fn memory_statistics(context: &mut Context<'_>) -> Result<(), CommandError> {
    let server = &context.server;
    let used = server.keyspace.used_bytes;
    let keys: usize = (0..DATABASES)
        .filter_map(|number| server.keyspace.database(number))
        .map(|database| database.keys.len())
        .sum();
    let numbers = [
        ("peak.allocated", used.max(server.statistics.peak_bytes)),
        ("total.allocated", used),
        ("startup.allocated", 0),
        ("clients.normal", server.buffered_bytes),
        ("keys.count", keys),
        ("keys.bytes-per-key", used.checked_div(keys).unwrap_or_default()),
        ("dataset.bytes", used),
    ];
    context.reply.map(numbers.len());
    for (name, number) in numbers {
        context.reply.bulk(name.as_bytes());
        context.reply.count(number);
    }
    Ok(())
}

fn memory_usage(context: &mut Context<'_>) -> Result<(), CommandError> {
    match context.arguments.len() {
        3 => {}
        5 if context.arguments.is(3, "samples") => {
            if context.integer(4)? < 0 {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    }
    let key = context.argument(2);
    match look(context, key).and_then(|slot| context.entry(slot)) {
        Some(entry) => {
            let bytes = 120 + key.len() + entry.value.memory_bytes();
            context.reply.count(bytes);
        }
        None => context.reply.null(),
    }
    Ok(())
}

fn help(context: &mut Context<'_>) -> Result<(), CommandError> {
    let lines = [
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
    ];
    super::help(context, "OBJECT", &lines)
}

fn memory_help(context: &mut Context<'_>) -> Result<(), CommandError> {
    let lines = ["DOCTOR", "PURGE", "STATS", "USAGE <key> [SAMPLES <count>]"];
    super::help(context, "MEMORY", &lines)
}
