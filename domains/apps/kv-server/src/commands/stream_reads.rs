//! XREAD and XREADGROUP: what is new in streams since an id, or since a group last read, waiting for it if there is nothing.

use super::blocking_lists::keys;
use super::collections::peek;
use super::streams::{parse_strict_id, write_entry, write_id};
use crate::client::TimeoutReply;
use crate::command::{Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::protocol::{OwnedCommand, Reply};
use crate::stable_map::Slot;
use crate::types::Stream;
use crate::types::stream::{
    StreamId, consumer_element, consumer_value, group_element, group_value, pending_element, pending_value,
};
use crate::value::Kind;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const WAIT: Flags = Flags::BLOCKING.union(Flags::MOVABLE_KEYS);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("xread", -4, Flags::READONLY.union(WAIT), NO_KEYS, |context| {
        read(context, false)
    }),
    command("xreadgroup", -7, Flags::WRITE.union(WAIT), NO_KEYS, |context| {
        read(context, true)
    }),
];

/// What a command asks for.
#[derive(Default)]
struct Request<'a> {
    /// How long to wait, if it is to wait; `Some(None)` for ever.
    block: Option<Option<u64>>,
    count: usize,
    group: Option<(&'a [u8], &'a [u8])>,
    no_acknowledge: bool,
    /// Index of the first key, and how many there are; as many ids follow.
    keys: usize,
    streams: usize,
}

/// From where a stream is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Behind this entry.
    Id(StreamId),
    /// Behind the last that is there now.
    End,
    /// What the group hasn't read.
    New,
}

impl<'a> Request<'a> {
    fn parse(context: &Context<'a>, grouped: bool) -> Result<Request<'a>, CommandError> {
        let arguments = context.arguments;
        let mut request = Request {
            count: usize::MAX,
            ..Request::default()
        };
        let mut at = 1;
        while at < arguments.len() {
            let more = arguments.len() - at - 1;
            if more > 0 && arguments.is(at, "block") {
                let text = CommandError::Plain("ERR timeout is not an integer or out of range");
                let timeout_ms = context.integer(at + 1).map_err(|_| text)?;
                let timeout_ms =
                    u64::try_from(timeout_ms).map_err(|_| CommandError::Plain("ERR timeout is negative"))?;
                request.block = Some((timeout_ms > 0).then_some(timeout_ms));
                at += 2;
            } else if more > 0 && arguments.is(at, "count") {
                request.count = match usize::try_from(context.integer(at + 1)?) {
                    Ok(0) | Err(_) => usize::MAX,
                    Ok(count) => count,
                };
                at += 2;
            } else if more > 0 && arguments.is(at, "streams") {
                request.keys = at + 1;
                request.streams = more / 2;
                if more % 2 == 1 {
                    let (name, id) = if grouped {
                        ("xreadgroup", ">")
                    } else {
                        ("xread", "$")
                    };
                    return Err(CommandError::Text(format!(
                        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{id}' must be specified."
                    )));
                }
                break;
            } else if more > 1 && arguments.is(at, "group") {
                if !grouped {
                    return Err(CommandError::Plain(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                request.group = Some((arguments.get(at + 1), arguments.get(at + 2)));
                at += 3;
            } else if arguments.is(at, "noack") {
                if !grouped {
                    return Err(CommandError::Plain(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                request.no_acknowledge = true;
                at += 1;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if request.streams == 0 {
            return Err(CommandError::Syntax);
        }
        if grouped && request.group.is_none() {
            return Err(CommandError::Plain("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    fn from(&self, text: &[u8]) -> Result<From, CommandError> {
        match text {
            b"$" if self.group.is_some() => Err(CommandError::Plain(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
            )),
            b"$" => Ok(From::End),
            b">" if self.group.is_none() => Err(CommandError::Plain(
                "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
            )),
            b">" => Ok(From::New),
            text => Ok(From::Id(parse_strict_id(text, 0)?)),
        }
    }
}

/// The error for a group that isn't there.
pub(super) fn no_group(key: &[u8], group: &[u8], tail: &str) -> CommandError {
    CommandError::Text(format!(
        "NOGROUP No such key '{}' or consumer group '{}'{tail}",
        String::from_utf8_lossy(key),
        String::from_utf8_lossy(group)
    ))
}

fn read(context: &mut Context<'_>, grouped: bool) -> Outcome {
    let arguments = context.arguments;
    let request = Request::parse(context, grouped)?;
    // What "$" means is settled when the command comes, not when it goes on.
    let mut settled: Vec<Option<StreamId>> = Vec::with_capacity(request.streams);
    let mut sources: Vec<(&[u8], Option<Slot>, From)> = Vec::with_capacity(request.streams);
    for at in request.keys..request.keys + request.streams {
        let key = arguments.get(at);
        let slot = match context.collection::<Stream>(key) {
            // Who waits for a stream isn't told that something else has taken its place; a group's reader is.
            Err(CommandError::WrongType) if context.retried && !grouped => None,
            other => other?,
        };
        let stream = slot.and_then(|slot| context.get::<Stream>(slot));
        if let Some((group, _)) = request.group
            && stream.is_none_or(|stream| !stream.groups.contains_key(group))
        {
            return Err(no_group(key, group, " in XREADGROUP with GROUP option"));
        }
        let mut from = request.from(arguments.get(at + request.streams))?;
        let mut end = None;
        if from == From::End {
            let last = stream.map_or(StreamId::LEAST, |stream| stream.last_id);
            from = From::Id(last);
            end = Some(last);
        }
        settled.push(end);
        sources.push((key, slot, from));
    }
    let mut ready = Vec::new();
    for (key, slot, from) in sources {
        let Some(slot) = slot else { continue };
        let Some(stream) = context.get::<Stream>(slot) else {
            continue;
        };
        let has_behind = |id: StreamId| match id.next() {
            Some(first) => stream.range(first, StreamId::GREATEST).next().is_some(),
            None => false,
        };
        let serves = match (request.group, from) {
            // A consumer's own history is an answer, even if it is empty.
            (Some(_), From::Id(_)) => true,
            (Some((name, _)), _) => stream
                .groups
                .get(name)
                .is_some_and(|group| has_behind(group.last_id)),
            (None, From::Id(id)) => has_behind(id),
            (None, _) => false,
        };
        if serves {
            ready.push((key, slot, from));
        }
    }
    if let Some((group, consumer)) = request.group {
        for at in request.keys..request.keys + request.streams {
            note_consumer(context, arguments.get(at), group, consumer)?;
        }
    }
    if !ready.is_empty() {
        if context.reply.resp3 {
            context.reply.map(ready.len());
        } else {
            context.reply.array(ready.len());
        }
        for (key, slot, from) in ready {
            if !context.reply.resp3 {
                context.reply.array(2);
            }
            context.reply.bulk(key);
            match (request.group, from) {
                (Some((group, consumer)), From::New) => {
                    read_new(context, slot, (group, consumer), &request);
                }
                (Some((group, consumer)), From::Id(id)) => {
                    read_history(context, slot, (group, consumer), id, request.count);
                }
                (_, From::Id(id)) => write_behind(context, slot, id, request.count),
                (_, From::End | From::New) => context.reply.array(0),
            }
        }
        return Ok(());
    }
    let Some(timeout_ms) = request.block else {
        context.reply.null_array();
        return Ok(());
    };
    wait(context, &request, timeout_ms, &settled);
    Ok(())
}

/// Has the client wait, with each "$" replaced by the id that it stands for.
fn wait(
    context: &mut Context<'_>,
    request: &Request<'_>,
    timeout_ms: Option<u64>,
    settled: &[Option<StreamId>],
) {
    if context.deny_blocking {
        context.reply.null_array();
        return;
    }
    let arguments = context.arguments;
    let ids = request.keys + request.streams;
    let mut texts: Vec<Box<[u8]>> = arguments.range(0..ids).map(Box::from).collect();
    for (text, end) in arguments.from(ids).zip(settled) {
        texts.push(match end {
            Some(id) => format!("{id}").into_bytes().into_boxed_slice(),
            None => Box::from(text),
        });
    }
    let command = OwnedCommand::new(texts.iter().map(|text| &**text));
    let keys = keys(context, request.keys, ids);
    let (client, retried) = (context.client, context.retried);
    context.server.block(
        client,
        keys,
        command,
        timeout_ms,
        TimeoutReply::NullArray,
        retried,
    );
}

fn write_behind(context: &mut Context<'_>, slot: Slot, id: StreamId, count: usize) {
    let Some(stream) = peek::<Stream>(&context.server.keyspace, context.database, slot) else {
        return;
    };
    let mark = context.reply.begin();
    let mut given = 0;
    if let Some(first) = id.next() {
        for (id, fields) in stream.range(first, StreamId::GREATEST).take(count) {
            write_entry(&mut context.reply, id, fields);
            given += 1;
        }
    }
    context.reply.end_array(mark, given);
}

/// Notes that a consumer asks, which makes it exist.
fn note_consumer(context: &mut Context<'_>, key: &[u8], group: &[u8], consumer: &[u8]) -> Outcome {
    let Some(slot) = context.collection::<Stream>(key)? else {
        return Ok(());
    };
    let now_ms = context.server.keyspace.now_ms;
    let mut created = false;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(state) = stream.groups.get_mut(group)
    {
        let (_, reader, new) = state.consumer(consumer);
        reader.seen_ms = now_ms;
        created = new;
        if new {
            let element = consumer_element(group, consumer);
            journal.put_element(collection, Kind::Stream, &element, &consumer_value(reader));
        }
    }
    if created {
        context.changed(slot, Events::STREAM, "xgroup-createconsumer", key);
    }
    Ok(())
}

/// Gives a consumer what its group hasn't read.
fn read_new(context: &mut Context<'_>, slot: Slot, (name, consumer): (&[u8], &[u8]), request: &Request<'_>) {
    let now_ms = context.server.keyspace.now_ms;
    let mut reply = core::mem::take(&mut context.reply);
    let mark = reply.begin();
    let mut given = 0;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(mut group) = stream.groups.remove(name)
    {
        let first = group.last_id.next().unwrap_or(StreamId::GREATEST);
        for (id, fields) in stream.range(first, StreamId::GREATEST).take(request.count) {
            group.entries_read = match group.entries_read {
                Some(read) if !stream.has_gap_behind(id) => Some(read + 1),
                _ => stream.entries_up_to(id),
            };
            group.last_id = id;
            if !request.no_acknowledge {
                group.assign(id, consumer, now_ms, 1);
                if let Some(pending) = group.pending.get(&id) {
                    let element = pending_element(name, id);
                    journal.put_element(collection, Kind::Stream, &element, &pending_value(pending));
                }
            }
            write_entry(&mut reply, id, fields);
            given += 1;
        }
        if given > 0 {
            let (_, reader, _) = group.consumer(consumer);
            reader.active_ms = Some(now_ms);
            let value = consumer_value(reader);
            journal.put_element(
                collection,
                Kind::Stream,
                &consumer_element(name, consumer),
                &value,
            );
            journal.put_element(
                collection,
                Kind::Stream,
                &group_element(name),
                &group_value(&group),
            );
        }
        stream.groups.insert(Box::from(name), group);
    }
    reply.end_array(mark, given);
    context.reply = reply;
    if given > 0 {
        context.server.keyspace.changed(context.database, slot);
    }
}

/// Gives a consumer again what it hasn't acknowledged.
fn read_history(
    context: &mut Context<'_>,
    slot: Slot,
    (name, consumer): (&[u8], &[u8]),
    id: StreamId,
    count: usize,
) {
    let now_ms = context.server.keyspace.now_ms;
    let mut reply: Reply = core::mem::take(&mut context.reply);
    let mark = reply.begin();
    let mut given = 0;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(mut group) = stream.groups.remove(name)
    {
        let own: Vec<StreamId> = match (group.consumers.get(consumer), id.next()) {
            (Some(reader), Some(first)) => reader.pending.range(first..).take(count).copied().collect(),
            _ => Vec::new(),
        };
        for id in own {
            given += 1;
            let Some(fields) = stream.get(id) else {
                reply.array(2);
                write_id(&mut reply, id);
                reply.null_array();
                continue;
            };
            if let Some(pending) = group.pending.get_mut(&id) {
                pending.delivered_ms = now_ms;
                pending.deliveries += 1;
                journal.put_element(
                    collection,
                    Kind::Stream,
                    &pending_element(name, id),
                    &pending_value(pending),
                );
            }
            write_entry(&mut reply, id, fields);
        }
        stream.groups.insert(Box::from(name), group);
    }
    reply.end_array(mark, given);
    context.reply = reply;
}
