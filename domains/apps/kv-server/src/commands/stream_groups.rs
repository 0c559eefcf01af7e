//! Commands of consumer groups: XGROUP, XACK and XPENDING; claiming is in `stream_claims.rs`.

use super::stream_reads::no_group;
use super::streams::{parse_id, parse_interval, parse_strict_id, write_id};
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, ONE_KEY, command};
use crate::error::CommandError;
use crate::journal::Journal;
use crate::keyspace::Events;
use crate::stable_map::Slot;
use crate::types::Stream;
use crate::types::stream::{
    StreamId, consumer_element, consumer_value, group_element, group_value, pending_element,
};
use crate::types::stream_group::Group;
use crate::value::Kind;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const FAST: Flags = Flags::WRITE.union(Flags::FAST);
const GROW: Flags = Flags::WRITE.union(Flags::DENYOOM);
const KEY_OF_SUBCOMMAND: Keys = Keys {
    first: 2,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("xack", -4, FAST, ONE_KEY, xack),
    command("xgroup", -2, Flags::CONTAINER, NO_KEYS, help),
    command("xgroup|create", -5, GROW, KEY_OF_SUBCOMMAND, create),
    command(
        "xgroup|createconsumer",
        5,
        GROW,
        KEY_OF_SUBCOMMAND,
        create_consumer,
    ),
    command(
        "xgroup|delconsumer",
        5,
        Flags::WRITE,
        KEY_OF_SUBCOMMAND,
        delete_consumer,
    ),
    command("xgroup|destroy", 4, Flags::WRITE, KEY_OF_SUBCOMMAND, destroy),
    command(
        "xgroup|help",
        2,
        Flags::LOADING.union(Flags::STALE),
        NO_KEYS,
        help,
    ),
    command("xgroup|setid", -5, Flags::WRITE, KEY_OF_SUBCOMMAND, set_id),
    command("xpending", -3, Flags::READONLY, ONE_KEY, xpending),
];

fn help(context: &mut Context<'_>) -> Outcome {
    const LINES: &[&str] = &[
        "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CREATE <key> <groupname> <id|$> [MKSTREAM] [ENTRIESREAD entries_read]",
        "    Create a new consumer group.",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Create a new consumer in the specified group.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Remove the specified consumer.",
        "DESTROY <key> <groupname>",
        "    Remove the specified group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Set the current group ID and entries_read counter.",
        "HELP",
        "    Print this help.",
    ];
    context.reply.array(LINES.len());
    for line in LINES {
        context.reply.simple(line);
    }
    Ok(())
}

/// Where the stream of the key at index 2 is, which must exist.
fn existing(context: &mut Context<'_>) -> Result<Slot, CommandError> {
    context.collection::<Stream>(context.argument(2))?.ok_or(CommandError::Plain(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// The error for a group that isn't there.
pub(super) fn missing_group(group: &[u8], key: &[u8]) -> CommandError {
    CommandError::Text(format!(
        "NOGROUP No such consumer group '{}' for key name '{}'",
        String::from_utf8_lossy(group),
        String::from_utf8_lossy(key)
    ))
}

/// The options MKSTREAM and ENTRIESREAD from index 5 on.
fn group_options(context: &Context<'_>, creating: bool) -> Result<(bool, Option<u64>), CommandError> {
    let arguments = context.arguments;
    let (mut make, mut read) = (false, None);
    let mut at = 5;
    while at < arguments.len() {
        if creating && arguments.is(at, "mkstream") {
            make = true;
            at += 1;
        } else if arguments.is(at, "entriesread") && at + 1 < arguments.len() {
            let number = context.integer(at + 1)?;
            if number < -1 {
                return Err(CommandError::Plain(
                    "ERR value for ENTRIESREAD must be positive or -1",
                ));
            }
            read = u64::try_from(number).ok();
            at += 2;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((make, read))
}

/// The id at index 4, "$" for the last of the stream.
fn start_id(context: &Context<'_>, slot: Option<Slot>) -> Result<StreamId, CommandError> {
    match context.argument(4) {
        b"$" => Ok(slot
            .and_then(|slot| context.get::<Stream>(slot))
            .map_or(StreamId::LEAST, |stream| stream.last_id)),
        text => parse_id(text, 0),
    }
}

fn create(context: &mut Context<'_>) -> Outcome {
    let (key, name) = (context.argument(2), context.argument(3));
    let (make, entries_read) = group_options(context, true)?;
    let present = match make {
        true => context.collection::<Stream>(key)?,
        false => Some(existing(context)?),
    };
    let last_id = start_id(context, present)?;
    let slot = match present {
        Some(slot) => slot,
        None => context.collection_or_new(key, |_| Stream::default())?,
    };
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot) {
        if stream.groups.contains_key(name) {
            return Err(CommandError::Plain(
                "BUSYGROUP Consumer Group name already exists",
            ));
        }
        let group = Group {
            last_id,
            entries_read,
            ..Group::default()
        };
        journal.put_element(
            collection,
            Kind::Stream,
            &group_element(name),
            &group_value(&group),
        );
        stream.groups.insert(Box::from(name), group);
    }
    context.changed(slot, Events::STREAM, "xgroup-create", key);
    context.reply.ok();
    Ok(())
}

/// Changes the group at index 3 of the stream in a slot.
fn with_group<R>(
    context: &mut Context<'_>,
    slot: Slot,
    change: impl FnOnce(&mut Group, u64, &mut Journal) -> R,
) -> Result<R, CommandError> {
    let (key, name) = (context.argument(2), context.argument(3));
    let parts = context.get_mut::<Stream>(slot);
    let (stream, collection, journal) = parts.ok_or_else(|| missing_group(name, key))?;
    let group = stream
        .groups
        .get_mut(name)
        .ok_or_else(|| missing_group(name, key))?;
    Ok(change(group, collection, journal))
}

fn set_id(context: &mut Context<'_>) -> Outcome {
    let (key, name) = (context.argument(2), context.argument(3));
    let (_, entries_read) = group_options(context, false)?;
    let slot = existing(context)?;
    with_group(context, slot, |_, _, _| ())?;
    let last_id = start_id(context, Some(slot))?;
    with_group(context, slot, |group, collection, journal| {
        group.last_id = last_id;
        group.entries_read = entries_read;
        journal.put_element(
            collection,
            Kind::Stream,
            &group_element(name),
            &group_value(group),
        );
    })?;
    context.changed(slot, Events::STREAM, "xgroup-setid", key);
    context.reply.ok();
    Ok(())
}

fn destroy(context: &mut Context<'_>) -> Outcome {
    let (key, name) = (context.argument(2), context.argument(3));
    let slot = existing(context)?;
    let mut destroyed = false;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(group) = stream.groups.remove(name)
    {
        for id in group.pending.keys() {
            journal.delete_element(collection, Kind::Stream, &pending_element(name, *id));
        }
        for consumer in group.consumers.keys() {
            journal.delete_element(collection, Kind::Stream, &consumer_element(name, consumer));
        }
        journal.delete_element(collection, Kind::Stream, &group_element(name));
        destroyed = true;
    }
    if destroyed {
        context.changed(slot, Events::STREAM, "xgroup-destroy", key);
    }
    context.reply.flag(destroyed);
    Ok(())
}

fn create_consumer(context: &mut Context<'_>) -> Outcome {
    let (key, name, consumer) = (context.argument(2), context.argument(3), context.argument(4));
    let slot = existing(context)?;
    let now_ms = context.server.keyspace.now_ms;
    let created = with_group(context, slot, |group, collection, journal| {
        let (_, state, new) = group.consumer(consumer);
        if new {
            state.seen_ms = now_ms;
            let element = consumer_element(name, consumer);
            journal.put_element(collection, Kind::Stream, &element, &consumer_value(state));
        }
        new
    })?;
    if created {
        context.changed(slot, Events::STREAM, "xgroup-createconsumer", key);
    }
    context.reply.flag(created);
    Ok(())
}

fn delete_consumer(context: &mut Context<'_>) -> Outcome {
    let (key, name, consumer) = (context.argument(2), context.argument(3), context.argument(4));
    let slot = existing(context)?;
    let removed = with_group(context, slot, |group, collection, journal| {
        let state = group.consumers.remove(consumer)?;
        for id in &state.pending {
            group.pending.remove(id);
            journal.delete_element(collection, Kind::Stream, &pending_element(name, *id));
        }
        journal.delete_element(collection, Kind::Stream, &consumer_element(name, consumer));
        Some(state.pending.len())
    })?;
    if removed.is_some() {
        context.changed(slot, Events::STREAM, "xgroup-delconsumer", key);
    }
    context.reply.count(removed.unwrap_or(0));
    Ok(())
}

fn xack(context: &mut Context<'_>) -> Outcome {
    let (key, name, arguments) = (context.argument(1), context.argument(2), context.arguments);
    let slot = context.collection::<Stream>(key)?;
    let group = slot.and_then(|slot| context.get::<Stream>(slot)?.groups.get(name));
    let (Some(slot), Some(_)) = (slot, group) else {
        context.reply.integer(0);
        return Ok(());
    };
    let ids: Vec<StreamId> = arguments
        .from(3)
        .map(|text| parse_strict_id(text, 0))
        .collect::<Result<_, _>>()?;
    let mut acknowledged = 0;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(group) = stream.groups.get_mut(name)
    {
        for id in ids {
            if group.release(id).is_some() {
                journal.delete_element(collection, Kind::Stream, &pending_element(name, id));
                acknowledged += 1;
            }
        }
    }
    if acknowledged > 0 {
        context.server.keyspace.changed(context.database, slot);
    }
    context.reply.count(acknowledged);
    Ok(())
}

fn xpending(context: &mut Context<'_>) -> Outcome {
    let (key, name, arguments) = (context.argument(1), context.argument(2), context.arguments);
    let extended = arguments.len() > 3;
    let mut at = 3;
    let (mut idle_ms, mut ends, mut limit, mut consumer) =
        (0, (StreamId::LEAST, StreamId::GREATEST), 0, None);
    if extended {
        if arguments.is(3, "idle") {
            if arguments.len() < 8 {
                return Err(CommandError::Syntax);
            }
            idle_ms = u64::try_from(context.integer(4)?).unwrap_or(0);
            at = 5;
        }
        if arguments.len() < at + 3 || arguments.len() > at + 4 {
            return Err(CommandError::Syntax);
        }
        limit = usize::try_from(context.integer(at + 2)?).unwrap_or(0);
        ends = parse_interval(arguments.get(at), arguments.get(at + 1))?;
        consumer = (arguments.len() > at + 3).then(|| arguments.get(at + 3));
    }
    let slot = context.collection::<Stream>(key)?;
    let now_ms = context.server.keyspace.now_ms;
    let mut reply = core::mem::take(&mut context.reply);
    let group = slot.and_then(|slot| context.get::<Stream>(slot)?.groups.get(name));
    let outcome = match group {
        None => Err(no_group(key, name, "")),
        Some(group) if !extended => {
            reply.array(4);
            reply.count(group.pending.len());
            match (group.pending.first_key_value(), group.pending.last_key_value()) {
                (Some((first, _)), Some((last, _))) => {
                    write_id(&mut reply, *first);
                    write_id(&mut reply, *last);
                    let busy = group
                        .consumers
                        .iter()
                        .filter(|(_, state)| !state.pending.is_empty());
                    reply.array(busy.clone().count());
                    for (consumer, state) in busy {
                        reply.array(2);
                        reply.bulk(consumer);
                        reply.bulk(format!("{}", state.pending.len()).as_bytes());
                    }
                }
                _ => {
                    reply.null();
                    reply.null();
                    reply.null_array();
                }
            }
            Ok(())
        }
        Some(group) => {
            let mark = reply.begin();
            let mut given = 0;
            let range = if ends.0 <= ends.1 {
                Some(ends.0..=ends.1)
            } else {
                None
            };
            let entries = range
                .map(|range| group.pending.range(range))
                .into_iter()
                .flatten();
            let wanted = entries.filter(|(_, pending)| {
                consumer.is_none_or(|consumer| *pending.consumer == *consumer)
                    && now_ms.saturating_sub(pending.delivered_ms) >= idle_ms
            });
            for (id, pending) in wanted.take(limit) {
                reply.array(4);
                write_id(&mut reply, *id);
                reply.bulk(&pending.consumer);
                reply.integer(now_ms.saturating_sub(pending.delivered_ms) as i64);
                reply.integer(pending.deliveries as i64);
                given += 1;
            }
            reply.end_array(mark, given);
            Ok(())
        }
    };
    context.reply = reply;
    outcome
}
