//! Commands of streams as logs: adding, trimming, ranges. Reading on is in `stream_reads.rs`, groups in `stream_groups.rs`, XINFO in `stream_info.rs`.

use super::collections::peek;
use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::number;
use crate::protocol::Reply;
use crate::stable_map::Slot;
use crate::types::Stream;
use crate::types::stream::{Fields, StreamId, entry_element};
use crate::value::Kind;
use alloc::format;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const FAST: Flags = Flags::WRITE.union(Flags::FAST);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("xadd", -5, FAST.union(Flags::DENYOOM), ONE_KEY, xadd),
    command("xdel", -3, FAST, ONE_KEY, xdel),
    command("xlen", 2, READ.union(Flags::FAST), ONE_KEY, xlen),
    command("xrange", -4, READ, ONE_KEY, |context| xrange(context, false)),
    command("xrevrange", -4, READ, ONE_KEY, |context| xrange(context, true)),
    command("xsetid", -3, FAST.union(Flags::DENYOOM), ONE_KEY, xsetid),
    command("xtrim", -4, Flags::WRITE, ONE_KEY, xtrim),
];

pub(super) const INVALID_ID: CommandError =
    CommandError::Plain("ERR Invalid stream ID specified as stream command argument");

/// An id as commands take it: "-" and "+" are the least and the greatest.
pub(super) fn parse_id(text: &[u8], sequence: u64) -> Result<StreamId, CommandError> {
    match text {
        b"-" => Ok(StreamId::LEAST),
        b"+" => Ok(StreamId::GREATEST),
        text => StreamId::parse(text, sequence).ok_or(INVALID_ID),
    }
}

/// The same without "-" and "+".
pub(super) fn parse_strict_id(text: &[u8], sequence: u64) -> Result<StreamId, CommandError> {
    StreamId::parse(text, sequence).ok_or(INVALID_ID)
}

/// Both ends of a range of ids, each included; "(" before an id leaves it out.
pub(super) fn parse_interval(first: &[u8], last: &[u8]) -> Result<(StreamId, StreamId), CommandError> {
    let first = match first {
        [b'(', id @ ..] => parse_strict_id(id, 0)?
            .next()
            .ok_or(CommandError::Plain("ERR invalid start ID for the interval"))?,
        id => parse_id(id, 0)?,
    };
    let last = match last {
        [b'(', id @ ..] => parse_strict_id(id, u64::MAX)?
            .previous()
            .ok_or(CommandError::Plain("ERR invalid end ID for the interval"))?,
        id => parse_id(id, u64::MAX)?,
    };
    Ok((first, last))
}

/// An id as a reply.
pub(super) fn write_id(reply: &mut Reply, id: StreamId) {
    reply.bulk(format!("{id}").as_bytes());
}

/// An entry as a reply.
pub(super) fn write_entry(reply: &mut Reply, id: StreamId, fields: &Fields) {
    reply.array(2);
    write_id(reply, id);
    reply.array(fields.iter().count());
    for part in fields.iter() {
        reply.bulk(part);
    }
}

/// What is too old to stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Threshold {
    Length(u64),
    Id(StreamId),
}

/// How a stream is trimmed.
#[derive(Clone, Copy)]
struct Trim {
    threshold: Threshold,
    /// With `~`: only what goes in one piece goes.
    approximate: bool,
    limit: Option<u64>,
}

/// Options of XADD and XTRIM.
#[derive(Default)]
struct TrimOptions {
    trim: Option<Trim>,
    limit: Option<u64>,
    no_create: bool,
}

impl TrimOptions {
    /// Reads the options from index 2 on, and where they end. For XADD, what is none is the id.
    fn parse(context: &Context<'_>, adding: bool) -> Result<(TrimOptions, usize), CommandError> {
        let arguments = context.arguments;
        let mut options = TrimOptions::default();
        let mut at = 2;
        while at < arguments.len() {
            let more = arguments.len() - at - 1;
            let by_length = arguments.is(at, "maxlen");
            if more > 0 && (by_length || arguments.is(at, "minid")) {
                if options.trim.is_some() {
                    return Err(CommandError::Plain(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                let exactness = arguments.get(at + 1);
                let approximate = more > 1 && exactness == b"~";
                at += 1 + usize::from(more > 1 && matches!(exactness, b"~" | b"="));
                let threshold = match by_length {
                    true => Threshold::Length(
                        u64::try_from(context.integer(at)?)
                            .map_err(|_| CommandError::Plain("ERR The MAXLEN argument must be >= 0."))?,
                    ),
                    false => Threshold::Id(parse_strict_id(arguments.get(at), 0)?),
                };
                options.trim = Some(Trim {
                    threshold,
                    approximate,
                    limit: None,
                });
            } else if more > 0 && arguments.is(at, "limit") {
                let limit = u64::try_from(context.integer(at + 1)?)
                    .map_err(|_| CommandError::Plain("ERR The LIMIT argument must be >= 0."))?;
                options.limit = Some(limit);
                at += 1;
            } else if adding && arguments.is(at, "nomkstream") {
                options.no_create = true;
            } else if adding {
                break;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        match (&mut options.trim, options.limit) {
            (None, Some(_)) => {
                return Err(CommandError::Plain(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                ));
            }
            (Some(trim), Some(_)) if !trim.approximate => {
                return Err(CommandError::Plain(
                    "ERR syntax error, LIMIT cannot be used without the special ~ option",
                ));
            }
            (Some(trim), limit) => trim.limit = limit,
            (None, None) => {}
        }
        Ok((options, at))
    }
}

impl Trim {
    /// How many entries go.
    fn count(&self, stream: &Stream, node_entries: usize) -> usize {
        let excess = match self.threshold {
            Threshold::Length(length) => (stream.length() as u64).saturating_sub(length),
            Threshold::Id(id) => match id.previous() {
                Some(last) => stream.range(StreamId::LEAST, last).count() as u64,
                None => 0,
            },
        };
        if !self.approximate {
            return excess as usize;
        }
        let node = node_entries.max(1) as u64;
        let limit = match self.limit {
            None => node * 100,
            Some(0) => u64::MAX,
            Some(limit) => limit,
        };
        let excess = excess.min(limit);
        if excess >= stream.length() as u64 {
            return stream.length();
        }
        // Pieces are counted from the first entry that there ever was: what is left of the oldest one goes before whole ones do.
        let oldest = node - stream.added.saturating_sub(stream.length() as u64) % node;
        match excess.checked_sub(oldest) {
            Some(rest) => (oldest + rest / node * node) as usize,
            None => 0,
        }
    }

    /// Trims the stream in a slot: how many entries went.
    fn run(&self, context: &mut Context<'_>, slot: Slot) -> usize {
        let node_entries = context.server.config.limits.stream_node_entries;
        let mut trimmed = 0;
        let mut record = false;
        if let Some((stream, id, journal)) = context.get_mut::<Stream>(slot) {
            for _ in 0..self.count(stream, node_entries) {
                let Some(oldest) = stream.trim_first() else { break };
                record |= stream.must_record(oldest);
                journal.delete_element(id, Kind::Stream, &entry_element(oldest));
                trimmed += 1;
            }
        }
        if record {
            record_metadata(context, slot);
        }
        trimmed
    }
}

/// Journals a stream's metadata.
pub(super) fn record_metadata(context: &mut Context<'_>, slot: Slot) {
    if let Some((stream, ..)) = context.get_mut::<Stream>(slot) {
        stream.record();
    }
    context.journal_key(slot);
}

/// The id that an entry gets which is to be added under the id that `text` asks for.
fn new_id(text: &[u8], last: StreamId, now_ms: u64) -> Result<StreamId, CommandError> {
    const EXHAUSTED: CommandError =
        CommandError::Plain("ERR The stream has exhausted the last possible ID, unable to add more items");
    const TOO_SMALL: CommandError = CommandError::Plain(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    );
    if text == b"*" {
        let now = StreamId {
            milliseconds: now_ms,
            sequence: 0,
        };
        return if now > last {
            Ok(now)
        } else {
            last.next().ok_or(EXHAUSTED)
        };
    }
    if let Some(milliseconds) = text.strip_suffix(b"-*") {
        let first = parse_strict_id(milliseconds, 0)?;
        if milliseconds.contains(&b'-') {
            return Err(INVALID_ID);
        }
        if first.milliseconds < last.milliseconds {
            return Err(if last == StreamId::GREATEST {
                EXHAUSTED
            } else {
                TOO_SMALL
            });
        }
        if first.milliseconds > last.milliseconds {
            return Ok(first);
        }
        let sequence = last.sequence.checked_add(1).ok_or(TOO_SMALL)?;
        return Ok(StreamId { sequence, ..first });
    }
    let id = parse_strict_id(text, 0)?;
    if id == StreamId::LEAST {
        return Err(CommandError::Plain(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    match id > last {
        true => Ok(id),
        false if last == StreamId::GREATEST => Err(EXHAUSTED),
        false => Err(TOO_SMALL),
    }
}

fn xadd(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let (options, at) = TrimOptions::parse(context, true)?;
    let parts = arguments.len().saturating_sub(at + 1);
    let id_text = arguments.get(at);
    // A wrong id is told before a wrong number of arguments.
    if id_text != b"*" {
        new_id(id_text, StreamId::LEAST, 0)?;
    }
    if parts == 0 || parts % 2 == 1 {
        return Err(CommandError::Arity("xadd".into()));
    }
    let present = context.collection::<Stream>(key)?;
    if present.is_none() && options.no_create {
        context.reply.null();
        return Ok(());
    }
    let last_id = present
        .and_then(|slot| context.get::<Stream>(slot))
        .map_or(StreamId::LEAST, |stream| stream.last_id);
    let id = new_id(id_text, last_id, context.server.keyspace.now_ms)?;
    let slot = match present {
        Some(slot) => slot,
        None => context.collection_or_new(key, |_| Stream::default())?,
    };
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot) {
        let fields = Fields::new(arguments.from(at + 1));
        journal.put_element(collection, Kind::Stream, &entry_element(id), fields.packed());
        stream.add(id, fields);
    }
    let trimmed = options.trim.map_or(0, |trim| trim.run(context, slot));
    context.changed(slot, Events::STREAM, "xadd", key);
    if trimmed > 0 {
        context.notify(Events::STREAM, "xtrim", key);
    }
    write_id(&mut context.reply, id);
    Ok(())
}

fn xtrim(context: &mut Context<'_>) -> Outcome {
    let key = context.argument(1);
    let (options, _) = TrimOptions::parse(context, false)?;
    let trim = options.trim.ok_or(CommandError::Syntax)?;
    let Some(slot) = context.collection::<Stream>(key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let trimmed = trim.run(context, slot);
    if trimmed > 0 {
        context.changed(slot, Events::STREAM, "xtrim", key);
    }
    context.reply.count(trimmed);
    Ok(())
}

fn xdel(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let Some(slot) = context.collection::<Stream>(key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let ids: Vec<StreamId> = arguments
        .from(2)
        .map(|text| parse_strict_id(text, 0))
        .collect::<Result<_, _>>()?;
    let mut removed = 0;
    if let Some((stream, collection, journal)) = context.get_mut::<Stream>(slot) {
        for id in ids {
            if stream.remove(id) {
                journal.delete_element(collection, Kind::Stream, &entry_element(id));
                removed += 1;
            }
        }
    }
    if removed > 0 {
        record_metadata(context, slot);
        context.changed(slot, Events::STREAM, "xdel", key);
    }
    context.reply.count(removed);
    Ok(())
}

fn xlen(context: &mut Context<'_>) -> Outcome {
    let slot = context.collection::<Stream>(context.argument(1))?;
    let stream = slot.and_then(|slot| context.get::<Stream>(slot));
    let length = stream.map_or(0, Stream::length);
    context.reply.count(length);
    Ok(())
}

fn xrange(context: &mut Context<'_>, reverse: bool) -> Outcome {
    let arguments = context.arguments;
    let (low, high) = if reverse { (3, 2) } else { (2, 3) };
    let (first, last) = parse_interval(arguments.get(low), arguments.get(high))?;
    let mut limit = None;
    let mut at = 4;
    while at < arguments.len() {
        if at + 1 == arguments.len() || !arguments.is(at, "count") {
            return Err(CommandError::Syntax);
        }
        limit = Some(usize::try_from(context.integer(at + 1)?).unwrap_or(0));
        at += 2;
    }
    let slot = context.collection::<Stream>(arguments.get(1))?;
    let stream = slot.and_then(|slot| peek::<Stream>(&context.server.keyspace, context.database, slot));
    let Some(stream) = stream else {
        context.reply.array(0);
        return Ok(());
    };
    if limit == Some(0) {
        context.reply.null_array();
        return Ok(());
    }
    let mark = context.reply.begin();
    let mut given = 0;
    let mut entries = stream.range(first, last);
    while given < limit.unwrap_or(usize::MAX)
        && let Some((id, fields)) = if reverse {
            entries.next_back()
        } else {
            entries.next()
        }
    {
        write_entry(&mut context.reply, id, fields);
        given += 1;
    }
    context.reply.end_array(mark, given);
    Ok(())
}

fn xsetid(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let last_id = parse_strict_id(arguments.get(2), 0)?;
    let (mut added, mut deleted_id) = (None, None);
    let mut at = 3;
    while at < arguments.len() {
        if at + 1 == arguments.len() {
            return Err(CommandError::Syntax);
        }
        if arguments.is(at, "entriesadded") {
            let number = number::integer(arguments.get(at + 1)).ok_or(CommandError::NotInteger)?;
            added = Some(
                u64::try_from(number)
                    .map_err(|_| CommandError::Plain("ERR entries_added must be positive"))?,
            );
        } else if arguments.is(at, "maxdeletedid") {
            let id = parse_strict_id(arguments.get(at + 1), 0)?;
            if id > last_id {
                return Err(CommandError::Plain(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            deleted_id = Some(id);
        } else {
            return Err(CommandError::Syntax);
        }
        at += 2;
    }
    let slot = context
        .collection::<Stream>(key)?
        .ok_or(CommandError::NoSuchKey)?;
    if let Some((stream, ..)) = context.get_mut::<Stream>(slot) {
        if last_id < stream.deleted_id {
            return Err(CommandError::Plain(
                "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
            ));
        }
        let newest = stream.range(StreamId::LEAST, StreamId::GREATEST).next_back();
        if newest.is_some_and(|(newest, _)| last_id < newest) {
            return Err(CommandError::Plain(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|added| added < stream.length() as u64) {
            return Err(CommandError::Plain(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
        stream.last_id = last_id;
        stream.added = added.unwrap_or(stream.added);
        stream.deleted_id = deleted_id
            .filter(|id| *id != StreamId::LEAST)
            .unwrap_or(stream.deleted_id);
    }
    record_metadata(context, slot);
    context.changed(slot, Events::STREAM, "xsetid", key);
    context.reply.ok();
    Ok(())
}
