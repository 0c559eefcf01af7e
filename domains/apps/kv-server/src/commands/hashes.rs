//! Commands of hashes.

use super::collections::{Sample, Scan, peek, remove_elements};
use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::decimal;
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::number;
use crate::types::Hash;
use crate::value::{Collection, Kind};
use alloc::string::String;

type Outcome = Result<(), CommandError>;

const WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST);
const READ: Flags = Flags::READONLY;
const FAST: Flags = Flags::READONLY.union(Flags::FAST);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("hdel", -3, Flags::WRITE.union(Flags::FAST), ONE_KEY, hdel),
    command("hexists", 3, FAST, ONE_KEY, hexists),
    command("hget", 3, FAST, ONE_KEY, hget),
    command("hgetall", 2, READ, ONE_KEY, hgetall),
    command("hincrby", 4, WRITE, ONE_KEY, hincrby),
    command("hincrbyfloat", 4, WRITE, ONE_KEY, hincrbyfloat),
    command("hkeys", 2, READ, ONE_KEY, hkeys),
    command("hlen", 2, FAST, ONE_KEY, hlen),
    command("hmget", -3, FAST, ONE_KEY, hmget),
    command("hmset", -4, WRITE, ONE_KEY, hmset),
    command("hrandfield", -2, READ, ONE_KEY, hrandfield),
    command("hscan", -3, READ, ONE_KEY, hscan),
    command("hset", -4, WRITE, ONE_KEY, hset),
    command("hsetnx", 4, WRITE, ONE_KEY, hsetnx),
    command("hstrlen", 3, FAST, ONE_KEY, hstrlen),
    command("hvals", 2, READ, ONE_KEY, hvals),
];

/// The hash of the key at index 1, with nothing but the key space borrowed.
macro_rules! hash {
    ($context:ident) => {
        match $context.collection::<Hash>($context.argument(1))? {
            Some(slot) => peek::<Hash>(&$context.server.keyspace, $context.database, slot),
            None => None,
        }
    };
}

/// Sets the fields from index 2 on: how many are new.
fn set_fields(context: &mut Context<'_>, name: &str) -> Result<usize, CommandError> {
    let arguments = context.arguments;
    if arguments.len() % 2 == 1 {
        return Err(CommandError::Arity(String::from(name)));
    }
    let key = context.argument(1);
    let slot = context.collection_or_new(key, Hash::new)?;
    let limits = context.server.config.limits;
    let mut new = 0;
    if let Some((hash, id, journal)) = context.get_mut::<Hash>(slot) {
        for at in (2..arguments.len()).step_by(2) {
            let (field, value) = (arguments.get(at), arguments.get(at + 1));
            new += usize::from(hash.set(field, value, &limits));
            journal.put_element(id, Kind::Hash, field, value);
        }
    }
    context.changed(slot, Events::HASH, "hset", key);
    Ok(new)
}

fn hset(context: &mut Context<'_>) -> Outcome {
    let new = set_fields(context, "hset")?;
    context.reply.count(new);
    Ok(())
}

fn hmset(context: &mut Context<'_>) -> Outcome {
    set_fields(context, "hmset")?;
    context.reply.ok();
    Ok(())
}

/// Sets one field.
fn set_field(context: &mut Context<'_>, field: &[u8], value: &[u8], event: &'static str) -> Outcome {
    let key = context.argument(1);
    let slot = context.collection_or_new(key, Hash::new)?;
    let limits = context.server.config.limits;
    if let Some((hash, id, journal)) = context.get_mut::<Hash>(slot) {
        hash.set(field, value, &limits);
        journal.put_element(id, Kind::Hash, field, value);
    }
    context.changed(slot, Events::HASH, event, key);
    Ok(())
}

fn hsetnx(context: &mut Context<'_>) -> Outcome {
    let (field, value) = (context.argument(2), context.argument(3));
    let present = hash!(context).is_some_and(|hash| hash.get(field).is_some());
    if !present {
        set_field(context, field, value, "hset")?;
    }
    context.reply.flag(!present);
    Ok(())
}

fn hget(context: &mut Context<'_>) -> Outcome {
    let field = context.argument(2);
    let value = hash!(context).and_then(|hash| hash.get(field));
    context.reply.bulk_or_null(value);
    Ok(())
}

fn hmget(context: &mut Context<'_>) -> Outcome {
    let fields = context.arguments.from(2);
    let hash = hash!(context);
    context.reply.array(fields.len());
    for field in fields {
        context.reply.bulk_or_null(hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hdel(context: &mut Context<'_>) -> Outcome {
    remove_elements(context, Events::HASH, "hdel", Hash::remove)
}

fn hexists(context: &mut Context<'_>) -> Outcome {
    let field = context.argument(2);
    let present = hash!(context).is_some_and(|hash| hash.get(field).is_some());
    context.reply.flag(present);
    Ok(())
}

fn hlen(context: &mut Context<'_>) -> Outcome {
    let length = hash!(context).map_or(0, Collection::len);
    context.reply.count(length);
    Ok(())
}

fn hstrlen(context: &mut Context<'_>) -> Outcome {
    let field = context.argument(2);
    let length = hash!(context)
        .and_then(|hash| hash.get(field))
        .map_or(0, <[u8]>::len);
    context.reply.count(length);
    Ok(())
}

fn hgetall(context: &mut Context<'_>) -> Outcome {
    let Some(hash) = hash!(context) else {
        context.reply.map(0);
        return Ok(());
    };
    context.reply.map(hash.len());
    for (field, value) in hash.iter() {
        context.reply.bulk(field);
        context.reply.bulk(value);
    }
    Ok(())
}

fn hkeys(context: &mut Context<'_>) -> Outcome {
    let Some(hash) = hash!(context) else {
        context.reply.array(0);
        return Ok(());
    };
    context.reply.array(hash.len());
    for (field, _) in hash.iter() {
        context.reply.bulk(field);
    }
    Ok(())
}

fn hvals(context: &mut Context<'_>) -> Outcome {
    let Some(hash) = hash!(context) else {
        context.reply.array(0);
        return Ok(());
    };
    context.reply.array(hash.len());
    for (_, value) in hash.iter() {
        context.reply.bulk(value);
    }
    Ok(())
}

fn hincrby(context: &mut Context<'_>) -> Outcome {
    let field = context.argument(2);
    let increment = context.integer(3)?;
    let number = match hash!(context).and_then(|hash| hash.get(field)) {
        Some(value) => {
            number::integer(value).ok_or(CommandError::Plain("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let sum = number
        .checked_add(increment)
        .ok_or(CommandError::Plain("ERR increment or decrement would overflow"))?;
    set_field(
        context,
        field,
        itoa::Buffer::new().format(sum).as_bytes(),
        "hincrby",
    )?;
    context.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(context: &mut Context<'_>) -> Outcome {
    let (field, increment) = (context.argument(2), context.argument(3));
    if !context.float(3)?.is_finite() {
        return Err(CommandError::Plain("ERR value is NaN or Infinity"));
    }
    let value = hash!(context).and_then(|hash| hash.get(field)).unwrap_or(b"0");
    if number::float(value).is_none() {
        return Err(CommandError::Plain("ERR hash value is not a float"));
    }
    let sum = decimal::add(value, increment)?;
    set_field(context, field, sum.as_bytes(), "hincrbyfloat")?;
    context.reply.bulk(sum.as_bytes());
    Ok(())
}

fn hrandfield(context: &mut Context<'_>) -> Outcome {
    let arguments = context.arguments;
    let slot = |context: &mut Context<'_>| context.collection::<Hash>(context.argument(1));
    if arguments.len() == 2 {
        let length = hash!(context).map_or(0, Collection::len);
        let place = Sample::Repeated(1).places(length, &mut context.server.keyspace);
        let entry = hash!(context).and_then(|hash| hash.at(place.first().copied()?));
        context.reply.bulk_or_null(entry.map(|(field, _)| field));
        return Ok(());
    }
    let count = context.integer(2)?;
    let with_values = arguments.len() == 4 && arguments.is(3, "withvalues");
    if arguments.len() > 4 || (arguments.len() == 4 && !with_values) {
        return Err(CommandError::Syntax);
    }
    if with_values && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(CommandError::Plain("ERR value is out of range"));
    }
    let sample = Sample::new(count)?;
    let Some(slot) = slot(context)? else {
        context.reply.array(0);
        return Ok(());
    };
    let length = context.get::<Hash>(slot).map_or(0, Collection::len);
    let places = sample.places(length, &mut context.server.keyspace);
    let Some(hash) = peek::<Hash>(&context.server.keyspace, context.database, slot) else {
        return Ok(());
    };
    let pairs = with_values && context.reply.resp3;
    context
        .reply
        .array(places.len() * if with_values && !pairs { 2 } else { 1 });
    for (field, value) in places.into_iter().filter_map(|place| hash.at(place)) {
        if pairs {
            context.reply.array(2);
        }
        context.reply.bulk(field);
        if with_values {
            context.reply.bulk(value);
        }
    }
    Ok(())
}

fn hscan(context: &mut Context<'_>) -> Outcome {
    let arguments = context.arguments;
    let hash = hash!(context).map(|hash| (hash, hash.is_small()));
    Scan::reply(
        &mut context.reply,
        arguments,
        hash,
        |hash, place| hash.at(place),
        |reply, value| {
            reply.bulk(value);
            1
        },
    )
}
