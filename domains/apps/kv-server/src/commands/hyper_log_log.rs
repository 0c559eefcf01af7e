//! PFADD, PFCOUNT and PFMERGE: counting distinct elements in little memory.

use crate::command::{ALL_KEYS, Command, Context, Flags, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::stable_map::Slot;
use crate::types::hyper_log_log::{Broken, HyperLogLog};

const WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("pfadd", -2, WRITE.union(Flags::FAST), ONE_KEY, add),
    command("pfcount", -2, Flags::READONLY, ALL_KEYS, count),
    command("pfmerge", -2, WRITE, ALL_KEYS, merge),
];

/// What a key has, if it is there.
fn load(context: &mut Context<'_>, key: &[u8]) -> Result<Option<(Slot, HyperLogLog)>, CommandError> {
    let Some(slot) = context.string(key)? else {
        return Ok(None);
    };
    match HyperLogLog::read(&context.bytes(slot)?) {
        Ok(log) => Ok(Some((slot, log))),
        Err(Broken::Header) => Err(CommandError::Plain(
            "WRONGTYPE Key is not a valid HyperLogLog string value.",
        )),
        Err(Broken::Runs) => Err(CommandError::Plain("INVALIDOBJ Corrupted HLL object detected")),
    }
}

fn store(
    context: &mut Context<'_>,
    key: &[u8],
    log: &HyperLogLog,
    event: &'static str,
) -> Result<(), CommandError> {
    let slot = context.set_string(key, &log.write(), true)?;
    context.changed(slot, Events::STRING, event, key);
    Ok(())
}

fn add(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let present = load(context, key)?;
    let mut changed = present.is_none();
    let mut log = present.map(|(_, log)| log).unwrap_or_default();
    for element in context.arguments.from(2) {
        changed |= log.add(element);
    }
    if changed {
        store(context, key, &log, "pfadd")?;
    }
    context.reply.flag(changed);
    Ok(())
}

fn count(context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut all = HyperLogLog::default();
    for key in context.arguments.from(1) {
        if let Some((_, log)) = load(context, key)? {
            all.merge(&log);
        }
    }
    context.reply.integer(all.count() as i64);
    Ok(())
}

fn merge(context: &mut Context<'_>) -> Result<(), CommandError> {
    let mut all = HyperLogLog::default();
    // The target counts too.
    for key in context.arguments.from(1) {
        if let Some((_, log)) = load(context, key)? {
            all.merge(&log);
        }
    }
    store(context, context.argument(1), &all, "pfadd")?;
    context.reply.ok();
    Ok(())
}
