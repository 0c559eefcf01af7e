//! XINFO: what a stream, its groups and their consumers are like.

use super::stream_groups::missing_group;
use super::streams::{write_entry, write_id};
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, command};
use crate::error::CommandError;
use crate::protocol::Reply;
use crate::types::Stream;
use crate::types::stream::StreamId;
use crate::types::stream_group::Group;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const KEY_OF_SUBCOMMAND: Keys = Keys {
    first: 2,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("xinfo", -2, READ.union(Flags::CONTAINER), NO_KEYS, help),
    command("xinfo|consumers", 4, READ, KEY_OF_SUBCOMMAND, consumers),
    command("xinfo|groups", 3, READ, KEY_OF_SUBCOMMAND, groups),
    command("xinfo|help", 2, Flags::LOADING.union(Flags::STALE), NO_KEYS, help),
    command("xinfo|stream", -3, READ, KEY_OF_SUBCOMMAND, stream),
];

fn help(context: &mut Context<'_>) -> Outcome {
    const LINES: &[&str] = &[
        "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CONSUMERS <key> <groupname>",
        "    Show consumers of <groupname>.",
        "GROUPS <key>",
        "    Show the stream consumer groups.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Show information about the stream.",
        "HELP",
        "    Print this help.",
    ];
    context.reply.array(LINES.len());
    for line in LINES {
        context.reply.simple(line);
    }
    Ok(())
}

/// Calls `write` with the stream of the key at index 2, the reply and the time in milliseconds.
fn with_stream(
    context: &mut Context<'_>,
    write: impl FnOnce(&Stream, &mut Reply, u64) -> Outcome,
) -> Outcome {
    let slot = context
        .collection::<Stream>(context.argument(2))?
        .ok_or(CommandError::NoSuchKey)?;
    let now_ms = context.server.keyspace.now_ms;
    let mut reply = core::mem::take(&mut context.reply);
    let outcome = match context.get::<Stream>(slot) {
        Some(stream) => write(stream, &mut reply, now_ms),
        None => Err(CommandError::NoSuchKey),
    };
    context.reply = reply;
    outcome
}

fn field_id(reply: &mut Reply, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    write_id(reply, id);
}

fn field_number(reply: &mut Reply, name: &str, number: u64) {
    reply.bulk(name.as_bytes());
    reply.integer(number as i64);
}

fn field_optional(reply: &mut Reply, name: &str, number: Option<i64>) {
    reply.bulk(name.as_bytes());
    match number {
        Some(number) => reply.integer(number),
        None => reply.null(),
    }
}

fn stream(context: &mut Context<'_>) -> Outcome {
    let arguments = context.arguments;
    let full = arguments.len() > 3 && arguments.is(3, "full");
    let mut limit = 10;
    match arguments.len() {
        3 => {}
        4 if full => {}
        6 if full && arguments.is(4, "count") => {
            limit = usize::try_from(context.integer(5)?).unwrap_or(10);
        }
        _ => return Err(CommandError::Syntax),
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    with_stream(context, |stream, reply, _| {
        let nodes = stream.length().div_ceil(100) as u64;
        reply.map(if full { 9 } else { 10 });
        field_number(reply, "length", stream.length() as u64);
        field_number(reply, "radix-tree-keys", nodes);
        field_number(reply, "radix-tree-nodes", nodes + 1);
        field_id(reply, "last-generated-id", stream.last_id);
        field_id(reply, "max-deleted-entry-id", stream.deleted_id);
        field_number(reply, "entries-added", stream.added);
        field_id(
            reply,
            "recorded-first-entry-id",
            stream.first_id().unwrap_or(StreamId::LEAST),
        );
        if full {
            write_full(stream, reply, limit);
            return Ok(());
        }
        field_number(reply, "groups", stream.groups.len() as u64);
        let mut entries = stream.range(StreamId::LEAST, StreamId::GREATEST);
        let first = entries.next();
        for (name, entry) in [
            ("first-entry", first),
            ("last-entry", entries.next_back().or(first)),
        ] {
            reply.bulk(name.as_bytes());
            match entry {
                Some((id, fields)) => write_entry(reply, id, fields),
                None => reply.null(),
            }
        }
        Ok(())
    })
}

fn write_full(stream: &Stream, reply: &mut Reply, limit: usize) {
    reply.bulk(b"entries");
    reply.array(stream.length().min(limit));
    for (id, fields) in stream.range(StreamId::LEAST, StreamId::GREATEST).take(limit) {
        write_entry(reply, id, fields);
    }
    reply.bulk(b"groups");
    reply.array(stream.groups.len());
    for (name, group) in &stream.groups {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        field_id(reply, "last-delivered-id", group.last_id);
        field_optional(reply, "entries-read", group.entries_read.map(u64::cast_signed));
        field_optional(reply, "lag", stream.lag(group));
        field_number(reply, "pel-count", group.pending.len() as u64);
        write_pending(group, reply, limit);
    }
}

/// What is pending in a group, and its consumers with theirs.
fn write_pending(group: &Group, reply: &mut Reply, limit: usize) {
    reply.bulk(b"pending");
    reply.array(group.pending.len().min(limit));
    for (id, pending) in group.pending.iter().take(limit) {
        reply.array(4);
        write_id(reply, *id);
        reply.bulk(&pending.consumer);
        reply.integer(pending.delivered_ms as i64);
        reply.integer(pending.deliveries as i64);
    }
    reply.bulk(b"consumers");
    reply.array(group.consumers.len());
    for (name, consumer) in &group.consumers {
        reply.map(5);
        reply.bulk(b"name");
        reply.bulk(name);
        field_number(reply, "seen-time", consumer.seen_ms);
        reply.bulk(b"active-time");
        reply.integer(consumer.active_ms.map_or(-1, |active_ms| active_ms as i64));
        field_number(reply, "pel-count", consumer.pending.len() as u64);
        reply.bulk(b"pending");
        reply.array(consumer.pending.len().min(limit));
        for id in consumer.pending.iter().take(limit) {
            let pending = group.pending.get(id);
            reply.array(3);
            write_id(reply, *id);
            reply.integer(pending.map_or(0, |pending| pending.delivered_ms as i64));
            reply.integer(pending.map_or(0, |pending| pending.deliveries as i64));
        }
    }
}

fn groups(context: &mut Context<'_>) -> Outcome {
    with_stream(context, |stream, reply, _| {
        reply.array(stream.groups.len());
        for (name, group) in &stream.groups {
            reply.map(6);
            reply.bulk(b"name");
            reply.bulk(name);
            field_number(reply, "consumers", group.consumers.len() as u64);
            field_number(reply, "pending", group.pending.len() as u64);
            field_id(reply, "last-delivered-id", group.last_id);
            field_optional(reply, "entries-read", group.entries_read.map(u64::cast_signed));
            field_optional(reply, "lag", stream.lag(group));
        }
        Ok(())
    })
}

fn consumers(context: &mut Context<'_>) -> Outcome {
    let (key, name) = (context.argument(2), context.argument(3));
    with_stream(context, |stream, reply, now_ms| {
        let Some(group) = stream.groups.get(name) else {
            return Err(missing_group(name, key));
        };
        reply.array(group.consumers.len());
        for (name, consumer) in &group.consumers {
            reply.map(4);
            reply.bulk(b"name");
            reply.bulk(name);
            field_number(reply, "pending", consumer.pending.len() as u64);
            field_number(reply, "idle", now_ms.saturating_sub(consumer.seen_ms));
            reply.bulk(b"inactive");
            reply.integer(
                consumer
                    .active_ms
                    .map_or(-1, |active_ms| now_ms.saturating_sub(active_ms) as i64),
            );
        }
        Ok(())
    })
}
