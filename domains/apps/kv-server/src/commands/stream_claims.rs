//! XCLAIM and XAUTOCLAIM: entries that one consumer has and doesn't acknowledge go to another.

use super::stream_reads::no_group;
use super::streams::{parse_interval, parse_strict_id, write_entry, write_id};
use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::error::CommandError;
use crate::journal::Journal;
use crate::keyspace::Events;
use crate::number;
use crate::types::Stream;
use crate::types::stream::{
    StreamId, consumer_element, consumer_value, group_element, group_value, pending_element, pending_value,
};
use crate::types::stream_group::Group;
use crate::value::Kind;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const CLAIM: Flags = Flags::WRITE.union(Flags::FAST);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("xautoclaim", -6, CLAIM, ONE_KEY, xautoclaim),
    command("xclaim", -6, CLAIM, ONE_KEY, xclaim),
];

/// How entries change hands.
#[derive(Default)]
struct Claim {
    idle_ms: u64,
    delivered_ms: Option<u64>,
    deliveries: Option<u64>,
    force: bool,
    only_ids: bool,
    last_id: Option<StreamId>,
}

impl Claim {
    /// Reads the options of XCLAIM from an index on.
    fn parse(context: &Context<'_>, mut at: usize, idle_ms: u64) -> Result<Claim, CommandError> {
        let (arguments, now_ms) = (context.arguments, context.server.keyspace.now_ms);
        let mut claim = Claim {
            idle_ms,
            ..Claim::default()
        };
        while at < arguments.len() {
            let number = |name: &str| {
                let number = number::integer(arguments.get(at + 1));
                number.ok_or_else(|| {
                    CommandError::Text(format!("ERR Invalid {name} option argument for XCLAIM"))
                })
            };
            let more = at + 1 < arguments.len();
            if arguments.is(at, "force") {
                claim.force = true;
            } else if arguments.is(at, "justid") {
                claim.only_ids = true;
            } else if more && arguments.is(at, "idle") {
                let ago = u64::try_from(number("IDLE")?).unwrap_or(0);
                claim.delivered_ms = Some(now_ms.saturating_sub(ago));
                at += 1;
            } else if more && arguments.is(at, "time") {
                claim.delivered_ms = Some(u64::try_from(number("TIME")?).unwrap_or(0).min(now_ms));
                at += 1;
            } else if more && arguments.is(at, "retrycount") {
                claim.deliveries = Some(u64::try_from(number("RETRYCOUNT")?).unwrap_or(0));
                at += 1;
            } else if more && arguments.is(at, "lastid") {
                claim.last_id = Some(parse_strict_id(arguments.get(at + 1), 0)?);
                at += 1;
            } else {
                return Err(CommandError::Text(format!(
                    "ERR Unrecognized XCLAIM option '{}'",
                    String::from_utf8_lossy(arguments.get(at))
                )));
            }
            at += 1;
        }
        Ok(claim)
    }

    /// Gives an entry to a consumer, if it is idle for long enough; whether it is.
    fn give(&self, group: &mut Group, id: StreamId, consumer: &[u8], now_ms: u64) -> bool {
        let old = group.pending.get(&id);
        let deliveries = match old {
            Some(old) if now_ms.saturating_sub(old.delivered_ms) < self.idle_ms => return false,
            Some(old) => old.deliveries,
            None if self.force => 0,
            None => return false,
        };
        let deliveries = match self.deliveries {
            Some(deliveries) => deliveries,
            None if self.only_ids => deliveries,
            None => deliveries + 1,
        };
        group.assign(id, consumer, self.delivered_ms.unwrap_or(now_ms), deliveries);
        true
    }
}

/// Notes that a consumer asked, and that it was given something if so; whether it is a new one.
fn note_active(
    group: &mut Group,
    name: &[u8],
    consumer: &[u8],
    now_ms: u64,
    active: bool,
    collection: u64,
    journal: &mut Journal,
) -> bool {
    // Giving it something has made it: with its time it is noted first.
    let (_, state, _) = group.consumer(consumer);
    let new = state.seen_ms == 0;
    state.seen_ms = now_ms;
    if active {
        state.active_ms = Some(now_ms);
    }
    if new || active {
        journal.put_element(
            collection,
            Kind::Stream,
            &consumer_element(name, consumer),
            &consumer_value(state),
        );
    }
    new
}

fn xclaim(context: &mut Context<'_>) -> Outcome {
    let (key, name, consumer) = (context.argument(1), context.argument(2), context.argument(3));
    let arguments = context.arguments;
    let slot = context.collection::<Stream>(key)?;
    let group = slot.and_then(|slot| context.get::<Stream>(slot)?.groups.get(name));
    let (Some(slot), Some(_)) = (slot, group) else {
        return Err(no_group(key, name, ""));
    };
    let idle_ms = number::integer(arguments.get(4)).ok_or(CommandError::Plain(
        "ERR Invalid min-idle-time argument for XCLAIM",
    ))?;
    let idle_ms = u64::try_from(idle_ms).unwrap_or(0);
    let ids: Vec<StreamId> = arguments
        .from(5)
        .map_while(|text| StreamId::parse(text, 0))
        .collect();
    let claim = Claim::parse(context, 5 + ids.len(), idle_ms)?;
    let now_ms = context.server.keyspace.now_ms;
    let mut reply = core::mem::take(&mut context.reply);
    let mark = reply.begin();
    let mut given = 0;
    let mut created = false;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(mut group) = stream.groups.remove(name)
    {
        if let Some(last_id) = claim.last_id.filter(|id| *id > group.last_id) {
            group.last_id = last_id;
            journal.put_element(
                collection,
                Kind::Stream,
                &group_element(name),
                &group_value(&group),
            );
        }
        for id in ids {
            let element = pending_element(name, id);
            let Some(fields) = stream.get(id) else {
                // An entry that is gone can't be read by anybody.
                if group.release(id).is_some() {
                    journal.delete_element(collection, Kind::Stream, &element);
                }
                continue;
            };
            if !claim.give(&mut group, id, consumer, now_ms) {
                continue;
            }
            if let Some(pending) = group.pending.get(&id) {
                journal.put_element(collection, Kind::Stream, &element, &pending_value(pending));
            }
            match claim.only_ids {
                true => write_id(&mut reply, id),
                false => write_entry(&mut reply, id, fields),
            }
            given += 1;
        }
        created = note_active(&mut group, name, consumer, now_ms, given > 0, collection, journal);
        stream.groups.insert(Box::from(name), group);
    }
    reply.end_array(mark, given);
    context.reply = reply;
    if created {
        context.notify(Events::STREAM, "xgroup-createconsumer", key);
    }
    context.server.keyspace.changed(context.database, slot);
    Ok(())
}

fn xautoclaim(context: &mut Context<'_>) -> Outcome {
    let (key, name, consumer) = (context.argument(1), context.argument(2), context.argument(3));
    let arguments = context.arguments;
    let idle_ms = number::integer(arguments.get(4)).ok_or(CommandError::Plain(
        "ERR Invalid min-idle-time argument for XAUTOCLAIM",
    ))?;
    let (start, _) = parse_interval(arguments.get(5), b"+")?;
    let mut count = 100;
    let mut claim = Claim {
        idle_ms: u64::try_from(idle_ms).unwrap_or(0),
        ..Claim::default()
    };
    let mut at = 6;
    while at < arguments.len() {
        if arguments.is(at, "count") && at + 1 < arguments.len() {
            let number = context
                .integer(at + 1)
                .ok()
                .and_then(|count| usize::try_from(count).ok());
            // Ten times as many are looked at.
            count = number
                .filter(|&count| count > 0 && count < usize::MAX / 16)
                .ok_or(CommandError::Plain("ERR COUNT must be > 0"))?;
            at += 2;
        } else if arguments.is(at, "justid") {
            claim.only_ids = true;
            at += 1;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let slot = context.collection::<Stream>(key)?;
    let group = slot.and_then(|slot| context.get::<Stream>(slot)?.groups.get(name));
    let (Some(slot), Some(_)) = (slot, group) else {
        return Err(no_group(key, name, ""));
    };
    let now_ms = context.server.keyspace.now_ms;
    let mut reply = core::mem::take(&mut context.reply);
    let mut created = false;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot)
        && let Some(mut group) = stream.groups.remove(name)
    {
        let mut next = StreamId::LEAST;
        let (mut taken, mut gone) = (Vec::new(), Vec::new());
        let candidates: Vec<StreamId> = group
            .pending
            .range(start..)
            .map(|(id, _)| *id)
            .take(count * 10 + 1)
            .collect();
        for (looked_at, id) in candidates.into_iter().enumerate() {
            if looked_at == count * 10 || taken.len() + gone.len() == count {
                next = id;
                break;
            }
            if stream.get(id).is_none() {
                group.release(id);
                journal.delete_element(collection, Kind::Stream, &pending_element(name, id));
                gone.push(id);
            } else if claim.give(&mut group, id, consumer, now_ms) {
                if let Some(pending) = group.pending.get(&id) {
                    let element = pending_element(name, id);
                    journal.put_element(collection, Kind::Stream, &element, &pending_value(pending));
                }
                taken.push(id);
            }
        }
        created = note_active(
            &mut group,
            name,
            consumer,
            now_ms,
            !taken.is_empty(),
            collection,
            journal,
        );
        stream.groups.insert(Box::from(name), group);
        reply.array(3);
        write_id(&mut reply, next);
        reply.array(taken.len());
        for id in taken {
            match stream.get(id) {
                Some(fields) if !claim.only_ids => write_entry(&mut reply, id, fields),
                _ => write_id(&mut reply, id),
            }
        }
        reply.array(gone.len());
        for id in gone {
            write_id(&mut reply, id);
        }
    }
    context.reply = reply;
    if created {
        context.notify(Events::STREAM, "xgroup-createconsumer", key);
    }
    context.server.keyspace.changed(context.database, slot);
    Ok(())
}
