//! Strings: GET, SET and their kin.

use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::value::{StringValue, Value};

const READ: Flags = Flags::READONLY.union(Flags::FAST);
const WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("get", 2, READ, ONE_KEY, get),
    command("set", -3, WRITE, ONE_KEY, set),
];

fn get(context: &mut Context<'_>) -> Result<(), CommandError> {
    let Some(slot) = context.find(context.argument(1)) else {
        context.reply.null();
        return Ok(());
    };
    match context
        .server
        .keyspace
        .entry(context.database, slot)
        .map(|entry| &entry.value)
    {
        Some(Value::String(StringValue::Memory(bytes))) => context.reply.bulk(bytes),
        Some(_) => return Err(CommandError::WrongType),
        None => context.reply.null(),
    }
    Ok(())
}

fn set(context: &mut Context<'_>) -> Result<(), CommandError> {
    let (key, value) = (context.argument(1), context.argument(2));
    let slot = context.insert(key, Value::string(value))?;
    context.changed(slot, Events::STRING, "set", key);
    context.reply.ok();
    Ok(())
}
