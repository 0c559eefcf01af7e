//! Commands of sets; those that combine several are in `set_algebra.rs`.

use super::collections::{Sample, Scan, peek, remove_elements};
use crate::command::{Command, Context, Flags, Keys, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::types::Set;
use crate::value::{Collection, Kind};
use alloc::boxed::Box;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const FAST: Flags = Flags::READONLY.union(Flags::FAST);
const CHANGE: Flags = Flags::WRITE.union(Flags::FAST);
const TWO_KEYS: Keys = Keys {
    first: 1,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("sadd", -3, CHANGE.union(Flags::DENYOOM), ONE_KEY, sadd),
    command("scard", 2, FAST, ONE_KEY, scard),
    command("sismember", 3, FAST, ONE_KEY, sismember),
    command("smembers", 2, READ, ONE_KEY, smembers),
    command("smismember", -3, FAST, ONE_KEY, smismember),
    command("smove", 4, CHANGE, TWO_KEYS, smove),
    command("spop", -2, CHANGE, ONE_KEY, spop),
    command("srandmember", -2, READ, ONE_KEY, srandmember),
    command("srem", -3, CHANGE, ONE_KEY, srem),
    command("sscan", -3, READ, ONE_KEY, sscan),
];

/// The set of the key at index 1, with nothing but the key space borrowed.
macro_rules! set {
    ($context:ident) => {
        match $context.collection::<Set>($context.argument(1))? {
            Some(slot) => peek::<Set>(&$context.server.keyspace, $context.database, slot),
            None => None,
        }
    };
}

fn sadd(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let slot = context.collection_or_new(key, Set::new)?;
    let limits = context.server.config.limits;
    let mut added = 0;
    if let Some((set, id, journal)) = context.get_mut::<Set>(slot) {
        for member in arguments.from(2) {
            if set.add(member, &limits) {
                journal.put_element(id, Kind::Set, member, &[]);
                added += 1;
            }
        }
    }
    if added > 0 {
        context.changed(slot, Events::SET, "sadd", key);
    }
    context.reply.count(added);
    Ok(())
}

fn srem(context: &mut Context<'_>) -> Outcome {
    remove_elements(context, Events::SET, "srem", Set::remove)
}

fn smove(context: &mut Context<'_>) -> Outcome {
    let (source, target, member) = (context.argument(1), context.argument(2), context.argument(3));
    let from = context.collection::<Set>(source)?;
    let Some(from) = from else {
        context.reply.integer(0);
        return Ok(());
    };
    let to = context.collection::<Set>(target)?;
    let present = context.get::<Set>(from).is_some_and(|set| set.contains(member));
    if !present || to == Some(from) {
        context.reply.flag(present);
        return Ok(());
    }
    if let Some((set, id, journal)) = context.get_mut::<Set>(from) {
        set.remove(member);
        journal.delete_element(id, Kind::Set, member);
    }
    context.changed(from, Events::SET, "srem", source);
    context.remove_if_empty(from, source);
    let to = context.collection_or_new(target, Set::new)?;
    let limits = context.server.config.limits;
    let mut added = false;
    if let Some((set, id, journal)) = context.get_mut::<Set>(to) {
        added = set.add(member, &limits);
        journal.put_element(id, Kind::Set, member, &[]);
    }
    if added {
        context.changed(to, Events::SET, "sadd", target);
    }
    context.reply.integer(1);
    Ok(())
}

fn scard(context: &mut Context<'_>) -> Outcome {
    let length = set!(context).map_or(0, Collection::len);
    context.reply.count(length);
    Ok(())
}

fn sismember(context: &mut Context<'_>) -> Outcome {
    let member = context.argument(2);
    let present = set!(context).is_some_and(|set| set.contains(member));
    context.reply.flag(present);
    Ok(())
}

fn smismember(context: &mut Context<'_>) -> Outcome {
    let members = context.arguments.from(2);
    let set = set!(context);
    context.reply.array(members.len());
    for member in members {
        context.reply.flag(set.is_some_and(|set| set.contains(member)));
    }
    Ok(())
}

fn smembers(context: &mut Context<'_>) -> Outcome {
    let Some(set) = set!(context) else {
        context.reply.set(0);
        return Ok(());
    };
    context.reply.set(set.len());
    for member in set.iter() {
        context.reply.bulk(member);
    }
    Ok(())
}

fn spop(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    if arguments.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let counted = arguments.len() == 3;
    let count = match counted {
        true => {
            const POSITIVE: CommandError = CommandError::Plain("ERR value is out of range, must be positive");
            let count = context.integer(2).map_err(|_| POSITIVE)?;
            usize::try_from(count).map_err(|_| POSITIVE)?
        }
        false => 1,
    };
    let Some(slot) = context.collection::<Set>(key)? else {
        if counted {
            context.reply.set(0);
        } else {
            context.reply.null();
        }
        return Ok(());
    };
    let length = context.get::<Set>(slot).map_or(0, Collection::len);
    let places = Sample::Distinct(count).places(length, &mut context.server.keyspace);
    let mut members: Vec<Box<[u8]>> = Vec::with_capacity(places.len());
    if let Some((set, id, journal)) = context.get_mut::<Set>(slot) {
        members.extend(
            places
                .into_iter()
                .filter_map(|place| set.at(place))
                .map(Box::from),
        );
        if members.len() < set.len() {
            for member in &members {
                set.remove(member);
                journal.delete_element(id, Kind::Set, member);
            }
        }
    }
    if counted {
        context.reply.set(members.len());
    }
    for member in &members {
        context.reply.bulk(member);
    }
    if !members.is_empty() {
        context.changed(slot, Events::SET, "spop", key);
        if members.len() == length {
            context.remove(slot);
            context.notify(Events::GENERIC, "del", key);
        }
    }
    Ok(())
}

fn srandmember(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    if arguments.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let counted = arguments.len() == 3;
    let sample = match counted {
        true => Sample::new(context.integer(2)?)?,
        false => Sample::Repeated(1),
    };
    let Some(slot) = context.collection::<Set>(key)? else {
        if counted {
            context.reply.array(0);
        } else {
            context.reply.null();
        }
        return Ok(());
    };
    let length = context.get::<Set>(slot).map_or(0, Collection::len);
    let places = sample.places(length, &mut context.server.keyspace);
    let Some(set) = peek::<Set>(&context.server.keyspace, context.database, slot) else {
        return Ok(());
    };
    if counted {
        context.reply.array(places.len());
    }
    for member in places.into_iter().filter_map(|place| set.at(place)) {
        context.reply.bulk(member);
    }
    Ok(())
}

fn sscan(context: &mut Context<'_>) -> Outcome {
    let arguments = context.arguments;
    let set = set!(context).map(|set| (set, set.is_small()));
    Scan::reply(
        &mut context.reply,
        arguments,
        set,
        |set, place| Some((set.at(place)?, ())),
        |_, ()| 0,
    )
}
