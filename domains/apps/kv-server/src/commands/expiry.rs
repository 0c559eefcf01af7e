//! EXPIRE, TTL and their kin.

use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::{Events, NEVER_MS};

const READ: Flags = Flags::READONLY.union(Flags::FAST);
const WRITE: Flags = Flags::WRITE.union(Flags::FAST);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("expire", -3, WRITE, ONE_KEY, |context| {
        expire(context, "expire", 1000, true)
    }),
    command("pexpire", -3, WRITE, ONE_KEY, |context| {
        expire(context, "pexpire", 1, true)
    }),
    command("expireat", -3, WRITE, ONE_KEY, |context| {
        expire(context, "expireat", 1000, false)
    }),
    command("pexpireat", -3, WRITE, ONE_KEY, |context| {
        expire(context, "pexpireat", 1, false)
    }),
    command("persist", 2, WRITE, ONE_KEY, persist),
    command("ttl", 2, READ, ONE_KEY, |context| left(context, 1000, true)),
    command("pttl", 2, READ, ONE_KEY, |context| left(context, 1, true)),
    command("expiretime", 2, READ, ONE_KEY, |context| {
        left(context, 1000, false)
    }),
    command("pexpiretime", 2, READ, ONE_KEY, |context| left(context, 1, false)),
];

fn expire(context: &mut Context<'_>, name: &str, unit_ms: i64, relative: bool) -> Result<(), CommandError> {
    let invalid = || CommandError::Text(alloc::format!("ERR invalid expire time in '{name}' command"));
    let key = context.argument(1);
    let number = context.integer(2)?;
    let (mut none, mut some, mut later, mut sooner) = (false, false, false, false);
    for index in 3..context.arguments.len() {
        if context.arguments.is(index, "nx") {
            none = true;
        } else if context.arguments.is(index, "xx") {
            some = true;
        } else if context.arguments.is(index, "gt") {
            later = true;
        } else if context.arguments.is(index, "lt") {
            sooner = true;
        } else {
            let option = alloc::string::String::from_utf8_lossy(context.argument(index)).into_owned();
            return Err(CommandError::Text(alloc::format!(
                "ERR Unsupported option {option}"
            )));
        }
    }
    if none && (some || later || sooner) {
        return Err(CommandError::Plain(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if later && sooner {
        return Err(CommandError::Plain(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    let now_ms = context.server.keyspace.now_ms;
    let base = if relative { now_ms as i64 } else { 0 };
    let at = number
        .checked_mul(unit_ms)
        .and_then(|span| span.checked_add(base))
        .ok_or_else(invalid)?;
    let Some(slot) = context.find(key) else {
        context.reply.integer(0);
        return Ok(());
    };
    let present = context.entry(slot).map_or(NEVER_MS, |entry| entry.expires_ms);
    let has_expiry = present != NEVER_MS;
    let refused = none && has_expiry
        || some && !has_expiry
        || later && (!has_expiry || at <= present as i64)
        || sooner && has_expiry && at >= present as i64;
    if refused {
        context.reply.integer(0);
        return Ok(());
    }
    if at <= now_ms as i64 {
        context.remove(slot);
        context.notify(Events::GENERIC, "del", key);
    } else {
        context
            .server
            .keyspace
            .set_expiry(context.database, slot, at as u64);
        context.changed(slot, Events::GENERIC, "expire", key);
    }
    context.reply.integer(1);
    Ok(())
}

fn persist(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let slot = context.find(key);
    let expiring = slot.filter(|slot| {
        context
            .entry(*slot)
            .is_some_and(|entry| entry.expires_ms != NEVER_MS)
    });
    if let Some(slot) = expiring {
        context
            .server
            .keyspace
            .set_expiry(context.database, slot, NEVER_MS);
        context.changed(slot, Events::GENERIC, "persist", key);
    }
    context.reply.flag(expiring.is_some());
    Ok(())
}

fn left(context: &mut Context<'_>, unit_ms: u64, relative: bool) -> Result<(), CommandError> {
    let slot = context.look(context.argument(1));
    let answer = match slot
        .and_then(|slot| context.entry(slot))
        .map(|entry| entry.expires_ms)
    {
        None => -2,
        Some(NEVER_MS) => -1,
        Some(at) if relative => {
            let left_ms = at.saturating_sub(context.server.keyspace.now_ms);
            ((left_ms + unit_ms / 2) / unit_ms) as i64
        }
        Some(at) => (at.div_ceil(unit_ms)) as i64,
    };
    context.reply.integer(answer);
    Ok(())
}
