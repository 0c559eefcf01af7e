//! Commands of lists that don't wait; those that do are in `blocking_lists.rs`.

use super::collections::{key_count, peek};
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, ONE_KEY, command};
use crate::error::CommandError;
use crate::journal::Journal;
use crate::keyspace::Events;
use crate::number;
use crate::stable_map::Slot;
use crate::types::list::{End, NoPosition, Position, element};
use crate::types::{List, range};
use crate::value::{Collection, Kind};
use alloc::boxed::Box;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const GROW: Flags = Flags::WRITE.union(Flags::DENYOOM);
const PUSH: Flags = GROW.union(Flags::FAST);
const POP: Flags = Flags::WRITE.union(Flags::FAST);
const READ: Flags = Flags::READONLY;
const TWO_KEYS: Keys = Keys {
    first: 1,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("lindex", 3, READ, ONE_KEY, lindex),
    command("linsert", 5, GROW, ONE_KEY, linsert),
    command("llen", 2, READ.union(Flags::FAST), ONE_KEY, llen),
    command("lmove", 5, GROW, TWO_KEYS, lmove),
    command(
        "lmpop",
        -4,
        Flags::WRITE.union(Flags::MOVABLE_KEYS),
        NO_KEYS,
        lmpop,
    ),
    command("lpop", -2, POP, ONE_KEY, |context| pop(context, End::Left)),
    command("lpos", -3, READ, ONE_KEY, lpos),
    command("lpush", -3, PUSH, ONE_KEY, |context| {
        push(context, End::Left, true)
    }),
    command("lpushx", -3, PUSH, ONE_KEY, |context| {
        push(context, End::Left, false)
    }),
    command("lrange", 4, READ, ONE_KEY, lrange),
    command("lrem", 4, Flags::WRITE, ONE_KEY, lrem),
    command("lset", 4, GROW, ONE_KEY, lset),
    command("ltrim", 4, Flags::WRITE, ONE_KEY, ltrim),
    command("rpop", -2, POP, ONE_KEY, |context| pop(context, End::Right)),
    command("rpoplpush", 3, GROW, TWO_KEYS, rpoplpush),
    command("rpush", -3, PUSH, ONE_KEY, |context| {
        push(context, End::Right, true)
    }),
    command("rpushx", -3, PUSH, ONE_KEY, |context| {
        push(context, End::Right, false)
    }),
];

/// The list of the key at index 1, with nothing but the key space borrowed.
macro_rules! list {
    ($context:ident) => {
        match $context.collection::<List>($context.argument(1))? {
            Some(slot) => peek::<List>(&$context.server.keyspace, $context.database, slot),
            None => None,
        }
    };
}

fn push_event(end: End) -> &'static str {
    match end {
        End::Left => "lpush",
        End::Right => "rpush",
    }
}

fn pop_event(end: End) -> &'static str {
    match end {
        End::Left => "lpop",
        End::Right => "rpop",
    }
}

/// The end that a word names.
pub(super) fn parse_end(word: &[u8]) -> Result<End, CommandError> {
    if word.eq_ignore_ascii_case(b"left") {
        Ok(End::Left)
    } else if word.eq_ignore_ascii_case(b"right") {
        Ok(End::Right)
    } else {
        Err(CommandError::Syntax)
    }
}

/// Adds an element by `place` and journals it; when the numbers have run out there, the list is numbered anew first.
fn add(
    list: &mut List,
    id: u64,
    journal: &mut Journal,
    value: &[u8],
    place: impl Fn(&mut List, Box<[u8]>) -> Result<Position, NoPosition>,
) {
    let position = place(list, Box::from(value)).or_else(|NoPosition| {
        for item in list.iter() {
            journal.delete_element(id, Kind::List, &element(item.position));
        }
        list.renumber();
        for item in list.iter() {
            journal.put_element(id, Kind::List, &element(item.position), &item.value);
        }
        place(list, Box::from(value))
    });
    // After numbering there is room everywhere: no list is that long.
    if let Ok(position) = position {
        journal.put_element(id, Kind::List, &element(position), value);
    }
}

/// Adds values at an end of the list in a slot.
pub(super) fn push_values<'v>(
    context: &mut Context<'_>,
    slot: Slot,
    key: &[u8],
    end: End,
    values: impl Iterator<Item = &'v [u8]>,
) {
    let limits = context.server.config.limits;
    if let Some((list, id, journal)) = context.get_mut::<List>(slot) {
        for value in values {
            add(list, id, journal, value, |list, value| list.push(end, value));
        }
        list.fit(&limits);
    }
    context.changed(slot, Events::LIST, push_event(end), key);
}

/// Takes up to `count` values from an end of the list in a slot; the key goes with the last.
pub(super) fn pop_values(
    context: &mut Context<'_>,
    slot: Slot,
    key: &[u8],
    end: End,
    count: usize,
) -> Vec<Box<[u8]>> {
    let limits = context.server.config.limits;
    let mut values = Vec::new();
    if let Some((list, id, journal)) = context.get_mut::<List>(slot) {
        while values.len() < count
            && let Some(item) = list.pop(end)
        {
            journal.delete_element(id, Kind::List, &element(item.position));
            values.push(item.value);
        }
        list.fit(&limits);
    }
    if !values.is_empty() {
        context.changed(slot, Events::LIST, pop_event(end), key);
        context.remove_if_empty(slot, key);
    }
    values
}

fn push(context: &mut Context<'_>, end: End, create: bool) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let slot = match create {
        true => context.collection_or_new(key, |_| List::default())?,
        false => match context.collection::<List>(key)? {
            Some(slot) => slot,
            None => {
                context.reply.integer(0);
                return Ok(());
            }
        },
    };
    push_values(context, slot, key, end, arguments.from(2));
    let length = context.get::<List>(slot).map_or(0, Collection::len);
    context.reply.count(length);
    Ok(())
}

/// A count of elements to take.
fn pop_count(text: &[u8]) -> Result<usize, CommandError> {
    const POSITIVE: CommandError = CommandError::Plain("ERR value is out of range, must be positive");
    usize::try_from(number::integer(text).ok_or(POSITIVE)?).map_err(|_| POSITIVE)
}

fn pop(context: &mut Context<'_>, end: End) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    if arguments.len() > 3 {
        return Err(CommandError::Arity(pop_event(end).into()));
    }
    let counted = arguments.len() == 3;
    let count = if counted { pop_count(arguments.get(2))? } else { 1 };
    let Some(slot) = context.collection::<List>(key)? else {
        if counted {
            context.reply.null_array();
        } else {
            context.reply.null();
        }
        return Ok(());
    };
    let values = pop_values(context, slot, key, end, count);
    if counted {
        context.reply.array(values.len());
    }
    for value in values {
        context.reply.bulk(&value);
    }
    Ok(())
}

fn llen(context: &mut Context<'_>) -> Outcome {
    let length = list!(context).map_or(0, Collection::len);
    context.reply.count(length);
    Ok(())
}

fn lindex(context: &mut Context<'_>) -> Outcome {
    let Some(list) = list!(context) else {
        context.reply.null();
        return Ok(());
    };
    let length = list.len();
    let index = context.integer(2)?;
    let item = list!(context).and_then(|list| list.get(range::index(index, length)?));
    context.reply.bulk_or_null(item.map(|item| &*item.value));
    Ok(())
}

fn lrange(context: &mut Context<'_>) -> Outcome {
    let (first, last) = (context.integer(2)?, context.integer(3)?);
    let Some(list) = list!(context) else {
        context.reply.array(0);
        return Ok(());
    };
    let (start, end) = range::indexes(first, last, list.len());
    context.reply.array(end - start);
    for item in list.range(start, end) {
        context.reply.bulk(&item.value);
    }
    Ok(())
}

fn lset(context: &mut Context<'_>) -> Outcome {
    let (key, value) = (context.argument(1), context.argument(3));
    let slot = context.collection::<List>(key)?.ok_or(CommandError::NoSuchKey)?;
    let index = context.integer(2)?;
    let limits = context.server.config.limits;
    if let Some((list, id, journal)) = context.get_mut::<List>(slot) {
        let position = range::index(index, list.len()).and_then(|index| list.set(index, Box::from(value)));
        let position = position.ok_or(CommandError::IndexOutOfRange)?;
        journal.put_element(id, Kind::List, &element(position), value);
        list.fit(&limits);
    }
    context.changed(slot, Events::LIST, "lset", key);
    context.reply.ok();
    Ok(())
}

fn linsert(context: &mut Context<'_>) -> Outcome {
    let (key, pivot, value) = (context.argument(1), context.argument(3), context.argument(4));
    let behind = if context.arguments.is(2, "after") {
        1
    } else if context.arguments.is(2, "before") {
        0
    } else {
        return Err(CommandError::Syntax);
    };
    let Some(slot) = context.collection::<List>(key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let limits = context.server.config.limits;
    let mut length = 0;
    if let Some((list, id, journal)) = context.get_mut::<List>(slot) {
        let Some(index) = list.iter().position(|item| *item.value == *pivot) else {
            context.reply.integer(-1);
            return Ok(());
        };
        add(list, id, journal, value, |list, value| {
            list.insert(index + behind, value)
        });
        list.fit(&limits);
        length = list.len();
    }
    context.changed(slot, Events::LIST, "linsert", key);
    context.reply.count(length);
    Ok(())
}

fn lrem(context: &mut Context<'_>) -> Outcome {
    let (key, value, count) = (context.argument(1), context.argument(3), context.integer(2)?);
    let Some(slot) = context.collection::<List>(key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let limits = context.server.config.limits;
    let limit = if count == 0 {
        u64::MAX
    } else {
        count.unsigned_abs()
    };
    let mut removed = 0;
    if let Some((list, id, journal)) = context.get_mut::<List>(slot) {
        removed = list.remove_equal(
            value,
            limit,
            if count < 0 { End::Right } else { End::Left },
            |position| {
                journal.delete_element(id, Kind::List, &element(position));
            },
        );
        list.fit(&limits);
    }
    if removed > 0 {
        context.changed(slot, Events::LIST, "lrem", key);
        context.remove_if_empty(slot, key);
    }
    context.reply.count(removed);
    Ok(())
}

fn ltrim(context: &mut Context<'_>) -> Outcome {
    let (key, first, last) = (context.argument(1), context.integer(2)?, context.integer(3)?);
    if let Some(slot) = context.collection::<List>(key)? {
        let length = context.get::<List>(slot).map_or(0, Collection::len);
        let (start, end) = range::indexes(first, last, length);
        let limits = context.server.config.limits;
        if let Some((list, id, journal)) = context.get_mut::<List>(slot) {
            for (end, count) in [(End::Right, length - end), (End::Left, start)] {
                for item in (0..count).map_while(|_| list.pop(end)) {
                    journal.delete_element(id, Kind::List, &element(item.position));
                }
            }
            list.fit(&limits);
        }
        context.changed(slot, Events::LIST, "ltrim", key);
        context.remove_if_empty(slot, key);
    }
    context.reply.ok();
    Ok(())
}

fn lpos(context: &mut Context<'_>) -> Outcome {
    let (value, arguments) = (context.argument(2), context.arguments);
    let (mut rank, mut count, mut limit) = (1, None, 0);
    let mut at = 3;
    while at < arguments.len() {
        if at + 1 == arguments.len() {
            return Err(CommandError::Syntax);
        }
        let number = context.integer(at + 1);
        if arguments.is(at, "rank") {
            rank = number?;
            if rank == 0 {
                return Err(CommandError::Plain(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
            if rank == i64::MIN {
                return Err(CommandError::Plain("ERR value is out of range"));
            }
        } else if arguments.is(at, "count") {
            let text = CommandError::Plain("ERR COUNT can't be negative");
            count = Some(
                number
                    .ok()
                    .and_then(|count| usize::try_from(count).ok())
                    .ok_or(text)?,
            );
        } else if arguments.is(at, "maxlen") {
            let text = CommandError::Plain("ERR MAXLEN can't be negative");
            limit = number
                .ok()
                .and_then(|limit| usize::try_from(limit).ok())
                .ok_or(text)?;
        } else {
            return Err(CommandError::Syntax);
        }
        at += 2;
    }
    let mut found = Vec::new();
    if let Some(list) = list!(context) {
        let wanted = match count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let limit = if limit == 0 { list.len() } else { limit };
        let skip = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
        let matching = |item: &crate::types::list::Item| *item.value == *value;
        let places = list.iter().map(matching).enumerate();
        found = if rank > 0 {
            let places = places.take(limit).filter(|(_, equal)| *equal);
            places.skip(skip).take(wanted).map(|(at, _)| at).collect()
        } else {
            let places = places.rev().take(limit).filter(|(_, equal)| *equal);
            places.skip(skip).take(wanted).map(|(at, _)| at).collect()
        };
    }
    match count {
        Some(_) => {
            context.reply.array(found.len());
            for at in found {
                context.reply.count(at);
            }
        }
        None => match found.first() {
            Some(&at) => context.reply.count(at),
            None => context.reply.null(),
        },
    }
    Ok(())
}

/// Moves an element from an end of a list to an end of another, or the same; `None` when there is none to move.
pub(super) fn move_value(
    context: &mut Context<'_>,
    from: (&[u8], End),
    to: (&[u8], End),
) -> Result<Option<Box<[u8]>>, CommandError> {
    let Some(source) = context.collection::<List>(from.0)? else {
        return Ok(None);
    };
    let target = context.collection::<List>(to.0)?;
    if from.0 == to.0 {
        // The key mustn't go with the last element.
        let limits = context.server.config.limits;
        let mut value = None;
        if let Some((list, id, journal)) = context.get_mut::<List>(source)
            && let Some(item) = list.pop(from.1)
        {
            journal.delete_element(id, Kind::List, &element(item.position));
            add(list, id, journal, &item.value, |list, value| {
                list.push(to.1, value)
            });
            list.fit(&limits);
            value = Some(item.value);
        }
        context.notify(Events::LIST, pop_event(from.1), from.0);
        context.changed(source, Events::LIST, push_event(to.1), to.0);
        return Ok(value);
    }
    let target = match target {
        Some(slot) => slot,
        None => context.collection_or_new(to.0, |_| List::default())?,
    };
    let Some(value) = pop_values(context, source, from.0, from.1, 1).pop() else {
        return Ok(None);
    };
    push_values(context, target, to.0, to.1, core::iter::once(&*value));
    Ok(Some(value))
}

fn lmove(context: &mut Context<'_>) -> Outcome {
    let from = (context.argument(1), parse_end(context.argument(3))?);
    let to = (context.argument(2), parse_end(context.argument(4))?);
    let value = move_value(context, from, to)?;
    context.reply.bulk_or_null(value.as_deref());
    Ok(())
}

fn rpoplpush(context: &mut Context<'_>) -> Outcome {
    let (from, to) = (
        (context.argument(1), End::Right),
        (context.argument(2), End::Left),
    );
    let value = move_value(context, from, to)?;
    context.reply.bulk_or_null(value.as_deref());
    Ok(())
}

/// The keys, end and count of LMPOP, whose number of keys is at `index`.
pub(super) fn parse_multiple_pop(
    context: &Context<'_>,
    index: usize,
) -> Result<(usize, End, usize), CommandError> {
    let keys_end = key_count(context, index)?;
    let arguments = context.arguments;
    if keys_end >= arguments.len() {
        return Err(CommandError::Syntax);
    }
    let end = parse_end(arguments.get(keys_end))?;
    let count = pop_limit(context, keys_end + 1)?;
    Ok((keys_end, end, count))
}

/// The COUNT option at an index, the last of a command; 1 if there is none.
pub(super) fn pop_limit(context: &Context<'_>, index: usize) -> Result<usize, CommandError> {
    let arguments = context.arguments;
    if index == arguments.len() {
        return Ok(1);
    }
    if index + 2 != arguments.len() || !arguments.is(index, "count") {
        return Err(CommandError::Syntax);
    }
    let count = number::integer(arguments.get(index + 1)).and_then(|count| usize::try_from(count).ok());
    count
        .filter(|&count| count > 0)
        .ok_or(CommandError::Plain("ERR count should be greater than 0"))
}

/// Answers with a key and the values that were taken from it.
pub(super) fn write_popped(context: &mut Context<'_>, key: &[u8], values: &[Box<[u8]>]) {
    context.reply.array(2);
    context.reply.bulk(key);
    context.reply.array(values.len());
    for value in values {
        context.reply.bulk(value);
    }
}

fn lmpop(context: &mut Context<'_>) -> Outcome {
    let (keys_end, end, count) = parse_multiple_pop(context, 1)?;
    for key in context.arguments.range(2..keys_end) {
        if let Some(slot) = context.collection::<List>(key)? {
            let values = pop_values(context, slot, key, end, count);
            write_popped(context, key, &values);
            return Ok(());
        }
    }
    context.reply.null_array();
    Ok(())
}
