//! Intersections, unions and differences of sets.

use super::collections::{key_count, peek};
use crate::command::{ALL_KEYS, Command, Context, Flags, NO_KEYS, command};
use crate::error::CommandError;
use crate::keyspace::{Events, Keyspace};
use crate::stable_map::Slot;
use crate::types::Set;
use crate::value::{Collection, Value};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const STORE: Flags = Flags::WRITE.union(Flags::DENYOOM);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("sdiff", -2, READ, ALL_KEYS, |context| {
        answer(context, Operation::Difference)
    }),
    command("sdiffstore", -3, STORE, ALL_KEYS, |context| {
        store(context, Operation::Difference, "sdiffstore")
    }),
    command("sinter", -2, READ, ALL_KEYS, |context| {
        answer(context, Operation::Intersection)
    }),
    command(
        "sintercard",
        -3,
        READ.union(Flags::MOVABLE_KEYS),
        NO_KEYS,
        sintercard,
    ),
    command("sinterstore", -3, STORE, ALL_KEYS, |context| {
        store(context, Operation::Intersection, "sinterstore")
    }),
    command("sunion", -2, READ, ALL_KEYS, |context| {
        answer(context, Operation::Union)
    }),
    command("sunionstore", -3, STORE, ALL_KEYS, |context| {
        store(context, Operation::Union, "sunionstore")
    }),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Difference,
    Intersection,
    Union,
}

/// The sets of the keys at a range of indices; `None` for one that isn't there.
fn slots(context: &mut Context<'_>, keys: Range<usize>) -> Result<Vec<Option<Slot>>, CommandError> {
    let keys = context.arguments.range(keys);
    keys.map(|key| context.collection::<Set>(key)).collect()
}

/// Calls `visit` with each member of the result, once, until it says that it has enough.
fn combine(
    keyspace: &Keyspace,
    database: usize,
    slots: &[Option<Slot>],
    operation: Operation,
    seed: u64,
    visit: &mut dyn FnMut(&[u8]) -> bool,
) {
    let sets: Vec<Option<&Set>> = slots
        .iter()
        .map(|slot| slot.and_then(|slot| peek(keyspace, database, slot)))
        .collect();
    match operation {
        Operation::Intersection => {
            let Some(mut sets) = sets.into_iter().collect::<Option<Vec<&Set>>>() else {
                return;
            };
            sets.sort_by_key(|set| set.len());
            let Some((smallest, others)) = sets.split_first() else {
                return;
            };
            for member in smallest.iter() {
                if others.iter().all(|set| set.contains(member)) && !visit(member) {
                    return;
                }
            }
        }
        Operation::Difference => {
            let Some((Some(first), others)) = sets.split_first() else {
                return;
            };
            for member in first.iter() {
                if !others.iter().flatten().any(|set| set.contains(member)) && !visit(member) {
                    return;
                }
            }
        }
        Operation::Union => {
            let mut seen = hashbrown::HashSet::with_hasher(foldhash::fast::FixedState::with_seed(seed));
            for member in sets.into_iter().flatten().flat_map(Set::iter) {
                if seen.insert(member) && !visit(member) {
                    return;
                }
            }
        }
    }
}

fn answer(context: &mut Context<'_>, operation: Operation) -> Outcome {
    let slots = slots(context, 1..context.arguments.len())?;
    let seed = context.server.keyspace.random();
    let reply = &mut context.reply;
    let mark = reply.begin();
    let mut given = 0;
    combine(
        &context.server.keyspace,
        context.database,
        &slots,
        operation,
        seed,
        &mut |member| {
            reply.bulk(member);
            given += 1;
            true
        },
    );
    reply.end_set(mark, given);
    Ok(())
}

fn store(context: &mut Context<'_>, operation: Operation, event: &'static str) -> Outcome {
    let slots = slots(context, 2..context.arguments.len())?;
    let key = context.argument(1);
    let limits = context.server.config.limits;
    let seed = context.server.keyspace.random();
    let mut result = Set::new(seed);
    combine(
        &context.server.keyspace,
        context.database,
        &slots,
        operation,
        seed,
        &mut |member| {
            result.add(member, &limits);
            true
        },
    );
    context.reply.count(result.len());
    store_result(context, key, Events::SET, event, result)
}

/// Puts a result under a key, whatever was there; an empty one removes the key.
pub(super) fn store_result<T: Collection>(
    context: &mut Context<'_>,
    key: &[u8],
    class: Events,
    event: &'static str,
    result: T,
) -> Outcome {
    if result.is_empty() {
        if let Some(slot) = context.find(key) {
            context.remove(slot);
            context.notify(Events::GENERIC, "del", key);
        }
        return Ok(());
    }
    let slot = context.insert(key, Value::Collection(Box::new(result)))?;
    context.changed(slot, class, event, key);
    Ok(())
}

fn sintercard(context: &mut Context<'_>) -> Outcome {
    let end = key_count(context, 1).map_err(|error| match error {
        CommandError::Syntax => {
            CommandError::Plain("ERR Number of keys can't be greater than number of args")
        }
        other => other,
    })?;
    let limit = cardinality_limit(context, end)?;
    let slots = slots(context, 2..end)?;
    let mut count = 0;
    combine(
        &context.server.keyspace,
        context.database,
        &slots,
        Operation::Intersection,
        0,
        &mut |_| {
            count += 1;
            count != limit
        },
    );
    context.reply.count(count);
    Ok(())
}

/// The LIMIT of SINTERCARD and ZINTERCARD, which may be at `index`; 0 for none.
pub(super) fn cardinality_limit(context: &Context<'_>, index: usize) -> Result<usize, CommandError> {
    let arguments = context.arguments;
    let mut limit = 0;
    let mut at = index;
    while at < arguments.len() {
        if at + 1 == arguments.len() || !arguments.is(at, "limit") {
            return Err(CommandError::Syntax);
        }
        let number = context
            .integer(at + 1)
            .ok()
            .and_then(|limit| usize::try_from(limit).ok());
        limit = number.ok_or(CommandError::Plain("ERR LIMIT can't be negative"))?;
        at += 2;
    }
    Ok(limit)
}
