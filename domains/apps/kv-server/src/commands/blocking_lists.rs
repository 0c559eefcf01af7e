//! Commands of lists that wait until there is something to take.

use super::lists::{move_value, parse_end, parse_multiple_pop, pop_values, write_popped};
use crate::client::TimeoutReply;
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, command};
use crate::error::CommandError;
use crate::stable_map::Slot;
use crate::types::List;
use crate::types::list::End;
use crate::value::Collection;
use alloc::boxed::Box;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const WAIT: Flags = Flags::WRITE.union(Flags::NOSCRIPT).union(Flags::BLOCKING);
const MOVE: Flags = WAIT.union(Flags::DENYOOM);
const ALL_BUT_TIMEOUT: Keys = Keys {
    first: 1,
    last: -2,
    step: 1,
};
const TWO_KEYS: Keys = Keys {
    first: 1,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("blmove", 6, MOVE, TWO_KEYS, blmove),
    command("blmpop", -5, WAIT.union(Flags::MOVABLE_KEYS), NO_KEYS, blmpop),
    command("blpop", -3, WAIT, ALL_BUT_TIMEOUT, |context| {
        pop(context, End::Left)
    }),
    command("brpop", -3, WAIT, ALL_BUT_TIMEOUT, |context| {
        pop(context, End::Right)
    }),
    command("brpoplpush", 4, MOVE, TWO_KEYS, brpoplpush),
];

/// Where the collection of a key is. A key that holds another type is an error for who asks, but not for who waits already.
pub(super) fn ready<T: Collection>(
    context: &mut Context<'_>,
    key: &[u8],
) -> Result<Option<Slot>, CommandError> {
    match context.collection::<T>(key) {
        Err(CommandError::WrongType) if context.retried => Ok(None),
        other => other,
    }
}

/// Copies of the keys at a range of indices.
pub(super) fn keys(context: &Context<'_>, from: usize, to: usize) -> Vec<Box<[u8]>> {
    context.arguments.range(from..to).map(Box::from).collect()
}

fn pop(context: &mut Context<'_>, end: End) -> Outcome {
    let last = context.arguments.len() - 1;
    let timeout_ms = context.timeout_ms(last)?;
    for key in context.arguments.range(1..last) {
        if let Some(slot) = ready::<List>(context, key)? {
            let values = pop_values(context, slot, key, end, 1);
            context.reply.array(2);
            context.reply.bulk(key);
            for value in values {
                context.reply.bulk(&value);
            }
            return Ok(());
        }
    }
    let keys = keys(context, 1, last);
    context.block(keys, timeout_ms, TimeoutReply::NullArray);
    Ok(())
}

fn blmpop(context: &mut Context<'_>) -> Outcome {
    let timeout_ms = context.timeout_ms(1)?;
    let (keys_end, end, count) = parse_multiple_pop(context, 2)?;
    for key in context.arguments.range(3..keys_end) {
        if let Some(slot) = ready::<List>(context, key)? {
            let values = pop_values(context, slot, key, end, count);
            write_popped(context, key, &values);
            return Ok(());
        }
    }
    let keys = keys(context, 3, keys_end);
    context.block(keys, timeout_ms, TimeoutReply::NullArray);
    Ok(())
}

fn move_or_wait(context: &mut Context<'_>, from: End, to: End, timeout_ms: Option<u64>) -> Outcome {
    let (source, target) = (context.argument(1), context.argument(2));
    if ready::<List>(context, source)?.is_some()
        && let Some(value) = move_value(context, (source, from), (target, to))?
    {
        context.reply.bulk(&value);
        return Ok(());
    }
    let keys = keys(context, 1, 2);
    let timeout = if context.deny_blocking {
        TimeoutReply::Null
    } else {
        TimeoutReply::NullArray
    };
    context.block(keys, timeout_ms, timeout);
    Ok(())
}

fn blmove(context: &mut Context<'_>) -> Outcome {
    let (from, to) = (parse_end(context.argument(3))?, parse_end(context.argument(4))?);
    let timeout_ms = context.timeout_ms(5)?;
    move_or_wait(context, from, to, timeout_ms)
}

fn brpoplpush(context: &mut Context<'_>) -> Outcome {
    let timeout_ms = context.timeout_ms(3)?;
    move_or_wait(context, End::Right, End::Left, timeout_ms)
}
