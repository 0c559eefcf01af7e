//! Strings: GET, SET and their kin.

use crate::command::{ALL_KEYS, Command, Context, Flags, Keys, ONE_KEY, command};
use crate::decimal;
use crate::error::CommandError;
use crate::keyspace::{Events, NEVER_MS, NotInMemory};
use crate::number::{self, Digits};
use alloc::vec::Vec;

const READ: Flags = Flags::READONLY.union(Flags::FAST);
const SLOW_READ: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM);
const FAST_WRITE: Flags = WRITE.union(Flags::FAST);
const PAIRS: Keys = Keys {
    first: 1,
    last: -1,
    step: 2,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("get", 2, READ, ONE_KEY, get),
    command("set", -3, WRITE.union(Flags::BRIEF), ONE_KEY, set),
    command("setnx", 3, FAST_WRITE, ONE_KEY, set_if_absent),
    command("setex", 4, WRITE, ONE_KEY, |context| {
        set_with_expiry(context, "setex", 1000)
    }),
    command("psetex", 4, WRITE, ONE_KEY, |context| {
        set_with_expiry(context, "psetex", 1)
    }),
    command("getset", 3, FAST_WRITE, ONE_KEY, get_and_set),
    command(
        "getdel",
        2,
        Flags::WRITE.union(Flags::FAST),
        ONE_KEY,
        get_and_delete,
    ),
    command(
        "getex",
        -2,
        Flags::WRITE.union(Flags::FAST),
        ONE_KEY,
        get_and_expire,
    ),
    command("mget", -2, READ, ALL_KEYS, get_many),
    command("mset", -3, WRITE, PAIRS, |context| set_many(context, false)),
    command("msetnx", -3, WRITE, PAIRS, |context| set_many(context, true)),
    command("append", 3, FAST_WRITE, ONE_KEY, append),
    command("strlen", 2, READ, ONE_KEY, length),
    command("incr", 2, FAST_WRITE, ONE_KEY, |context| increment(context, 1)),
    command("decr", 2, FAST_WRITE, ONE_KEY, |context| increment(context, -1)),
    command("incrby", 3, FAST_WRITE, ONE_KEY, |context| {
        let by = context.integer(2)?;
        increment(context, by)
    }),
    command("decrby", 3, FAST_WRITE, ONE_KEY, |context| {
        let by = context.integer(2)?;
        let by = by
            .checked_neg()
            .ok_or(CommandError::Plain("ERR decrement would overflow"))?;
        increment(context, by)
    }),
    command("incrbyfloat", 3, FAST_WRITE, ONE_KEY, increment_float),
    command("getrange", 4, SLOW_READ, ONE_KEY, range),
    command("substr", 4, SLOW_READ, ONE_KEY, range),
    command("setrange", 4, WRITE, ONE_KEY, set_range),
    command(
        "lcs",
        -3,
        SLOW_READ,
        Keys {
            first: 1,
            last: 2,
            step: 1,
        },
        longest_common,
    ),
];

fn get(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let server = &mut *context.server;
    let found = server
        .keyspace
        .string_in_memory(context.database, key, context.touches);
    match found {
        Ok(Some(bytes)) => {
            server.statistics.hits += 1;
            context.reply.bulk(bytes);
            return Ok(());
        }
        Ok(None) => {
            server.statistics.misses += 1;
            context.reply.null();
            return Ok(());
        }
        Err(NotInMemory) => {}
    }
    match context.string(key)? {
        Some(slot) => context.reply_string(slot),
        None => {
            context.reply.null();
            Ok(())
        }
    }
}

/// When a key is to expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// Never.
    None,
    /// As before.
    Keep,
    /// At this time, milliseconds since 1970.
    At(u64),
}

/// A point in time from a number of units of `unit_ms`, counted from now or from 1970.
fn expiry(
    context: &Context<'_>,
    index: usize,
    unit_ms: i64,
    relative: bool,
    name: &str,
) -> Result<u64, CommandError> {
    let invalid = || CommandError::Text(alloc::format!("ERR invalid expire time in '{name}' command"));
    let number = context.integer(index)?;
    if number <= 0 {
        return Err(invalid());
    }
    let base = if relative {
        context.server.keyspace.now_ms as i64
    } else {
        0
    };
    let at = number
        .checked_mul(unit_ms)
        .and_then(|span| span.checked_add(base))
        .ok_or_else(invalid)?;
    Ok(at as u64)
}

fn set(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(2));
    if context.arguments.len() == 3 {
        let slot = context.set_string(key, value, false)?;
        context.changed(slot, Events::STRING, "set", key);
        context.reply.ok();
        return Ok(());
    }
    set_with_options(context, key, value)
}

fn set_with_options(context: &mut Context<'_>, key: &[u8], value: &[u8]) -> Result<(), CommandError> {
    let (mut absent, mut present, mut gives) = (false, false, false);
    let mut expires = Expiry::None;
    let mut index = 3;
    while index < context.arguments.len() {
        let option = context.argument(index).to_ascii_uppercase();
        let has_next = index + 1 < context.arguments.len();
        match (option.as_slice(), expires) {
            (b"NX", _) if !present => absent = true,
            (b"XX", _) if !absent => present = true,
            (b"GET", _) => gives = true,
            (b"KEEPTTL", Expiry::None) => expires = Expiry::Keep,
            (b"EX" | b"PX" | b"EXAT" | b"PXAT", Expiry::None) if has_next => {
                let unit_ms = if option.first() == Some(&b'E') { 1000 } else { 1 };
                let at = expiry(context, index + 1, unit_ms, option.len() == 2, "set")?;
                expires = Expiry::At(at);
                index += 1;
            }
            _ => return Err(CommandError::Syntax),
        }
        index += 1;
    }
    let before = if gives {
        context.string(key)?
    } else {
        context.find(key)
    };
    if gives {
        match before {
            Some(slot) => context.reply_string(slot)?,
            None => context.reply.null(),
        }
    }
    if absent && before.is_some() || present && before.is_none() {
        if !gives {
            context.reply.null();
        }
        return Ok(());
    }
    let slot = context.set_string_at(key, before, value, expires == Expiry::Keep)?;
    if let Expiry::At(at) = expires {
        context.server.keyspace.set_expiry(context.database, slot, at);
    }
    context.changed(slot, Events::STRING, "set", key);
    if let Expiry::At(_) = expires {
        context.notify(Events::GENERIC, "expire", key);
    }
    if !gives {
        context.reply.ok();
    }
    Ok(())
}

fn set_if_absent(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(2));
    if context.find(key).is_some() {
        context.reply.integer(0);
        return Ok(());
    }
    let slot = context.set_string(key, value, false)?;
    context.changed(slot, Events::STRING, "set", key);
    context.reply.integer(1);
    Ok(())
}

fn set_with_expiry(context: &mut Context<'_>, name: &str, unit_ms: i64) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(3));
    let at = expiry(context, 2, unit_ms, true, name)?;
    let slot = context.set_string(key, value, false)?;
    context.server.keyspace.set_expiry(context.database, slot, at);
    context.changed(slot, Events::STRING, "set", key);
    context.notify(Events::GENERIC, "expire", key);
    context.reply.ok();
    Ok(())
}

fn get_and_set(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(2));
    match context.string(key)? {
        Some(slot) => context.reply_string(slot)?,
        None => context.reply.null(),
    }
    let slot = context.set_string(key, value, false)?;
    context.changed(slot, Events::STRING, "set", key);
    Ok(())
}

fn get_and_delete(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let Some(slot) = context.string(key)? else {
        context.reply.null();
        return Ok(());
    };
    context.reply_string(slot)?;
    context.remove(slot);
    context.notify(Events::GENERIC, "del", key);
    Ok(())
}

fn get_and_expire(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let option = context.argument(2).to_ascii_uppercase();
    let expires = match (option.as_slice(), context.arguments.len()) {
        (_, 2) => Expiry::Keep,
        (b"PERSIST", 3) => Expiry::None,
        (b"EX" | b"PX" | b"EXAT" | b"PXAT", 4) => {
            let unit_ms = if option.first() == Some(&b'E') { 1000 } else { 1 };
            Expiry::At(expiry(context, 3, unit_ms, option.len() == 2, "getex")?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let Some(slot) = context.string(key)? else {
        context.reply.null();
        return Ok(());
    };
    context.reply_string(slot)?;
    let has_expiry = context
        .entry(slot)
        .is_some_and(|entry| entry.expires_ms != NEVER_MS);
    let database = context.database;
    match expires {
        Expiry::Keep => {}
        Expiry::None if !has_expiry => {}
        Expiry::None => {
            context.server.keyspace.set_expiry(database, slot, NEVER_MS);
            context.changed(slot, Events::GENERIC, "persist", key);
        }
        Expiry::At(at) if at <= context.server.keyspace.now_ms => {
            context.remove(slot);
            context.notify(Events::GENERIC, "del", key);
        }
        Expiry::At(at) => {
            context.server.keyspace.set_expiry(database, slot, at);
            context.changed(slot, Events::GENERIC, "expire", key);
        }
    }
    Ok(())
}

fn get_many(context: &mut Context<'_>) -> Result<(), CommandError> {
    let keys = context.arguments.from(1);
    context.reply.array(keys.len());
    for key in keys {
        match context.string(key) {
            Ok(Some(slot)) => context.reply_string(slot)?,
            Ok(None) | Err(_) => context.reply.null(),
        }
    }
    Ok(())
}

fn set_many(context: &mut Context<'_>, only_absent: bool) -> Result<(), CommandError> {
    let count = context.arguments.len();
    if count.is_multiple_of(2) {
        let name = if only_absent { "msetnx" } else { "mset" };
        return Err(CommandError::Arity(name.into()));
    }
    if only_absent {
        for index in (1..count).step_by(2) {
            if context.find(context.argument(index)).is_some() {
                context.reply.integer(0);
                return Ok(());
            }
        }
    }
    for index in (1..count).step_by(2) {
        let (key, value) = (context.argument(index), context.argument(index + 1));
        let slot = context.set_string(key, value, false)?;
        context.changed(slot, Events::STRING, "set", key);
    }
    if only_absent {
        context.reply.integer(1);
    } else {
        context.reply.ok();
    }
    Ok(())
}

fn append(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(2));
    let length = match context.string(key)? {
        Some(slot) => {
            let before = context.string_length(slot);
            let slot = context.write_at(key, slot, before, value)?;
            context.changed(slot, Events::STRING, "append", key);
            before + value.len() as u64
        }
        None => {
            let slot = context.set_string(key, value, false)?;
            context.changed(slot, Events::STRING, "append", key);
            value.len() as u64
        }
    };
    context.reply.integer(length as i64);
    Ok(())
}

fn length(context: &mut Context<'_>) -> Result<(), CommandError> {
    let length = context
        .string(context.argument(1))?
        .map_or(0, |slot| context.string_length(slot));
    context.reply.integer(length as i64);
    Ok(())
}

fn increment(context: &mut Context<'_>, by: i64) -> Result<(), CommandError> {
    let key = context.argument(1);
    let slot = context.string(key)?;
    let before = match slot {
        Some(slot) if context.string_length(slot) > 20 => return Err(CommandError::NotInteger),
        Some(slot) => number::integer(&context.bytes(slot)?).ok_or(CommandError::NotInteger)?,
        None => 0,
    };
    let after = before
        .checked_add(by)
        .ok_or(CommandError::Plain("ERR increment or decrement would overflow"))?;
    let mut digits = Digits::default();
    let slot = context.set_string_at(key, slot, digits.of(after), true)?;
    context.changed(slot, Events::STRING, "incrby", key);
    context.reply.integer(after);
    Ok(())
}

fn increment_float(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, by) = (context.argument(1), context.argument(2));
    let slot = context.string(key)?;
    let sum = match slot {
        Some(slot) => {
            let before = context.bytes(slot)?;
            number::float(&before).ok_or(CommandError::NotFloat)?;
            decimal::add(&before, by)?
        }
        None => decimal::add(b"0", by)?,
    };
    let slot = context.set_string_at(key, slot, sum.as_bytes(), true)?;
    context.changed(slot, Events::STRING, "incrbyfloat", key);
    context.reply.bulk(sum.as_bytes());
    Ok(())
}

/// The part of `length` bytes that inclusive indices name, negative ones counted from the end; `None` if it is empty.
pub fn part(start: i64, end: i64, length: u64) -> Option<(u64, u64)> {
    let length = length as i64;
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let from_end = |index: i64| {
        if index < 0 {
            index.saturating_add(length)
        } else {
            index
        }
    };
    let start = from_end(start).max(0);
    let end = from_end(end).max(0).min(length - 1);
    (length > 0 && start <= end).then_some((start as u64, end as u64 + 1))
}

fn range(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (start, end) = (context.integer(2)?, context.integer(3)?);
    let slot = context.string(context.argument(1))?;
    let bytes =
        match slot.and_then(|slot| part(start, end, context.string_length(slot)).map(|part| (slot, part))) {
            Some((slot, (first, last))) => context.bytes_between(slot, first, last)?.into_owned(),
            None => Vec::new(),
        };
    context.reply.bulk(&bytes);
    Ok(())
}

fn set_range(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(3));
    let offset =
        u64::try_from(context.integer(2)?).map_err(|_| CommandError::Plain("ERR offset is out of range"))?;
    let slot = context.string(key)?;
    if value.is_empty() {
        let length = slot.map_or(0, |slot| context.string_length(slot));
        context.reply.integer(length as i64);
        return Ok(());
    }
    let fits = offset
        .checked_add(value.len() as u64)
        .is_some_and(|end| end <= context.server.config.bulk_limit_bytes);
    if !fits {
        return Err(CommandError::StringTooLong);
    }
    let slot = match slot {
        Some(slot) => slot,
        None => context.set_string(key, b"", false)?,
    };
    let slot = context.write_at(key, slot, offset, value)?;
    context.changed(slot, Events::STRING, "setrange", key);
    let length = context.string_length(slot);
    context.reply.integer(length as i64);
    Ok(())
}

/// A run that both strings have: where it ends in each, inclusive, and its length.
struct Run {
    first_end: usize,
    second_end: usize,
    length: usize,
}

fn longest_common(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (mut only_length, mut with_index, mut with_lengths, mut least) = (false, false, false, 0);
    let mut index = 3;
    while index < context.arguments.len() {
        if context.arguments.is(index, "len") {
            only_length = true;
        } else if context.arguments.is(index, "idx") {
            with_index = true;
        } else if context.arguments.is(index, "withmatchlen") {
            with_lengths = true;
        } else if context.arguments.is(index, "minmatchlen") && index + 1 < context.arguments.len() {
            index += 1;
            least = context.integer(index)?.max(0) as usize;
        } else {
            return Err(CommandError::Syntax);
        }
        index += 1;
    }
    if only_length && with_index {
        return Err(CommandError::Plain(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    let mut texts: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    for (text, index) in texts.iter_mut().zip(1..) {
        let wrong = |_| CommandError::Plain("ERR The specified keys must contain string values");
        if let Some(slot) = context.string(context.argument(index)).map_err(wrong)? {
            *text = context.bytes(slot)?.into_owned();
        }
    }
    let [first, second] = texts;
    let cells = (first.len() + 1) as u64 * (second.len() + 1) as u64;
    if cells > 1 << 26 {
        return Err(CommandError::Plain(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let (length, common, runs) = common_subsequence(&first, &second);
    if only_length {
        context.reply.count(length);
    } else if with_index {
        let runs: Vec<Run> = runs
            .into_iter()
            .filter(|run| run.length >= least.max(1))
            .collect();
        context.reply.map(2);
        context.reply.bulk(b"matches");
        context.reply.array(runs.len());
        for run in runs {
            context.reply.array(if with_lengths { 3 } else { 2 });
            for end in [run.first_end, run.second_end] {
                context.reply.array(2);
                context.reply.count(end + 1 - run.length);
                context.reply.count(end);
            }
            if with_lengths {
                context.reply.count(run.length);
            }
        }
        context.reply.bulk(b"len");
        context.reply.count(length);
    } else {
        context.reply.bulk(&common);
    }
    Ok(())
}

/// The longest common subsequence of two strings: its length, its bytes, and its runs from the last to the first.
fn common_subsequence(first: &[u8], second: &[u8]) -> (usize, Vec<u8>, Vec<Run>) {
    let width = second.len() + 1;
    let mut lengths = alloc::vec![0_u32; (first.len() + 1) * width];
    let at = |lengths: &[u32], i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or_default();
    for (i, left) in first.iter().enumerate() {
        for (j, right) in second.iter().enumerate() {
            let best = if left == right {
                at(&lengths, i, j) + 1
            } else {
                at(&lengths, i, j + 1).max(at(&lengths, i + 1, j))
            };
            if let Some(cell) = lengths.get_mut((i + 1) * width + j + 1) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (first.len(), second.len());
    let total = at(&lengths, i, j) as usize;
    let mut common = Vec::with_capacity(total);
    let mut runs: Vec<Run> = Vec::new();
    while i > 0 && j > 0 {
        let (left, right) = (first.get(i - 1), second.get(j - 1));
        if left == right {
            common.extend(left);
            match runs.last_mut() {
                Some(run) if run.first_end + 1 == i + run.length && run.second_end + 1 == j + run.length => {
                    run.length += 1;
                }
                _ => runs.push(Run {
                    first_end: i - 1,
                    second_end: j - 1,
                    length: 1,
                }),
            }
            (i, j) = (i - 1, j - 1);
        } else if at(&lengths, i - 1, j) > at(&lengths, i, j - 1) {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    common.reverse();
    (total, common, runs)
}
