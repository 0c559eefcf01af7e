//! Commands that add to sorted sets, take from them, and look members up; ranges are in `sorted_set_ranges.rs`, combinations in `sorted_set_algebra.rs`.

use super::blocking_lists::{keys, ready};
use super::collections::{Sample, Scan, key_count, peek, remove_elements};
use super::lists::pop_limit;
use crate::client::TimeoutReply;
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::number;
use crate::protocol::Reply;
use crate::stable_map::Slot;
use crate::types::SortedSet;
use crate::types::number::format_double;
use crate::types::ordered::Scored;
use crate::value::{Collection, Kind};
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const FAST: Flags = Flags::READONLY.union(Flags::FAST);
const CHANGE: Flags = Flags::WRITE.union(Flags::FAST);
const ADD: Flags = CHANGE.union(Flags::DENYOOM);
const WAIT: Flags = Flags::WRITE.union(Flags::NOSCRIPT).union(Flags::BLOCKING);
const ALL_BUT_TIMEOUT: Keys = Keys {
    first: 1,
    last: -2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("bzmpop", -5, WAIT.union(Flags::MOVABLE_KEYS), NO_KEYS, bzmpop),
    command(
        "bzpopmax",
        -3,
        WAIT.union(Flags::FAST),
        ALL_BUT_TIMEOUT,
        |context| blocking_pop(context, Extreme::Greatest),
    ),
    command(
        "bzpopmin",
        -3,
        WAIT.union(Flags::FAST),
        ALL_BUT_TIMEOUT,
        |context| blocking_pop(context, Extreme::Least),
    ),
    command("zadd", -4, ADD, ONE_KEY, zadd),
    command("zcard", 2, FAST, ONE_KEY, zcard),
    command("zincrby", 4, ADD, ONE_KEY, zincrby),
    command(
        "zmpop",
        -4,
        Flags::WRITE.union(Flags::MOVABLE_KEYS),
        NO_KEYS,
        zmpop,
    ),
    command("zmscore", -3, FAST, ONE_KEY, zmscore),
    command("zpopmax", -2, CHANGE, ONE_KEY, |context| {
        pop(context, Extreme::Greatest)
    }),
    command("zpopmin", -2, CHANGE, ONE_KEY, |context| {
        pop(context, Extreme::Least)
    }),
    command("zrandmember", -2, READ, ONE_KEY, zrandmember),
    command("zrank", -3, FAST, ONE_KEY, |context| rank(context, false)),
    command("zrem", -3, CHANGE, ONE_KEY, zrem),
    command("zrevrank", -3, FAST, ONE_KEY, |context| rank(context, true)),
    command("zscan", -3, READ, ONE_KEY, zscan),
    command("zscore", 3, FAST, ONE_KEY, zscore),
];

/// The sorted set of the key at index 1, with nothing but the key space borrowed.
macro_rules! sorted_set {
    ($context:ident) => {
        match $context.collection::<SortedSet>($context.argument(1))? {
            Some(slot) => peek::<SortedSet>(&$context.server.keyspace, $context.database, slot),
            None => None,
        }
    };
}

/// A score, as a double in RESP3.
pub(super) fn write_score(reply: &mut Reply, score: f64) {
    reply.double_text(format_double(score).as_bytes());
}

/// Which members are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extreme {
    Least,
    Greatest,
}

/// What ZADD is to do with a member and its score.
#[derive(Clone, Copy, Default)]
struct AddOptions {
    only_new: bool,
    only_present: bool,
    only_greater: bool,
    only_less: bool,
    count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// Reads the options from index 2 on: and where the first score is.
    fn parse(context: &Context<'_>) -> (AddOptions, usize) {
        let mut options = AddOptions::default();
        let mut at = 2;
        while at < context.arguments.len() {
            let option = match context.arguments.get(at) {
                word if word.eq_ignore_ascii_case(b"nx") => &mut options.only_new,
                word if word.eq_ignore_ascii_case(b"xx") => &mut options.only_present,
                word if word.eq_ignore_ascii_case(b"gt") => &mut options.only_greater,
                word if word.eq_ignore_ascii_case(b"lt") => &mut options.only_less,
                word if word.eq_ignore_ascii_case(b"ch") => &mut options.count_changed,
                word if word.eq_ignore_ascii_case(b"incr") => &mut options.increment,
                _ => break,
            };
            *option = true;
            at += 1;
        }
        (options, at)
    }

    /// The score that a member gets; `None` when it is left alone.
    fn score(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, CommandError> {
        let score = match old {
            Some(_) if self.only_new => return Ok(None),
            None if self.only_present => return Ok(None),
            Some(old) if self.increment => old + given,
            _ => given,
        };
        if score.is_nan() {
            return Err(CommandError::Plain("ERR resulting score is not a number (NaN)"));
        }
        let unwanted =
            old.is_some_and(|old| (self.only_greater && score <= old) || (self.only_less && score >= old));
        Ok(Some(score).filter(|_| !unwanted))
    }
}

pub(super) fn zadd(context: &mut Context<'_>) -> Outcome {
    let (options, first) = AddOptions::parse(context);
    add(context, options, first)
}

fn zincrby(context: &mut Context<'_>) -> Outcome {
    let options = AddOptions {
        increment: true,
        ..AddOptions::default()
    };
    add(context, options, 2)
}

/// Adds the scores and members from index `first` on.
fn add(context: &mut Context<'_>, options: AddOptions, first: usize) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let count = arguments.len() - first;
    if count == 0 || count % 2 == 1 {
        return Err(CommandError::Syntax);
    }
    if options.only_new && options.only_present {
        return Err(CommandError::Plain(
            "ERR XX and NX options at the same time are not compatible",
        ));
    }
    if (options.only_greater && options.only_less)
        || (options.only_new && (options.only_greater || options.only_less))
    {
        return Err(CommandError::Plain(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if options.increment && count > 2 {
        return Err(CommandError::Plain(
            "ERR INCR option supports a single increment-element pair",
        ));
    }
    let scores: Vec<f64> = (first..arguments.len())
        .step_by(2)
        .map(|at| context.float(at))
        .collect::<Result<_, _>>()?;
    let present = context.collection::<SortedSet>(key)?;
    if present.is_none() && options.only_present {
        if options.increment {
            context.reply.null();
        } else {
            context.reply.integer(0);
        }
        return Ok(());
    }
    let slot = match present {
        Some(slot) => slot,
        None => context.collection_or_new(key, SortedSet::new)?,
    };
    let limits = context.server.config.limits;
    let (mut added, mut updated, mut last) = (0, 0, None);
    let mut outcome = Ok(());
    if let Some((set, id, journal)) = context.get_mut::<SortedSet>(slot) {
        for (given, at) in scores.into_iter().zip((first + 1..).step_by(2)) {
            let member = arguments.get(at);
            let old = set.score(member);
            match options.score(old, given) {
                Ok(Some(score)) => {
                    last = Some(score);
                    if old == Some(score) {
                        continue;
                    }
                    set.set(member, score, &limits);
                    journal.put_element(id, Kind::SortedSet, member, &score.to_le_bytes());
                    match old {
                        Some(_) => updated += 1,
                        None => added += 1,
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
    }
    if added + updated > 0 {
        let event = if options.increment { "zincr" } else { "zadd" };
        context.changed(slot, Events::SORTED_SET, event, key);
    }
    context.remove_if_empty(slot, key);
    outcome?;
    match (options.increment, last) {
        (true, Some(score)) => write_score(&mut context.reply, score),
        (true, None) => context.reply.null(),
        (false, _) if options.count_changed => context.reply.count(added + updated),
        (false, _) => context.reply.count(added),
    }
    Ok(())
}

fn zrem(context: &mut Context<'_>) -> Outcome {
    remove_elements(
        context,
        Events::SORTED_SET,
        "zrem",
        |set: &mut SortedSet, member| set.remove(member).is_some(),
    )
}

fn zcard(context: &mut Context<'_>) -> Outcome {
    let length = sorted_set!(context).map_or(0, Collection::len);
    context.reply.count(length);
    Ok(())
}

fn zscore(context: &mut Context<'_>) -> Outcome {
    let member = context.argument(2);
    match sorted_set!(context).and_then(|set| set.score(member)) {
        Some(score) => write_score(&mut context.reply, score),
        None => context.reply.null(),
    }
    Ok(())
}

fn zmscore(context: &mut Context<'_>) -> Outcome {
    let members = context.arguments.from(2);
    let set = sorted_set!(context);
    context.reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => write_score(&mut context.reply, score),
            None => context.reply.null(),
        }
    }
    Ok(())
}

fn rank(context: &mut Context<'_>, reverse: bool) -> Outcome {
    let (member, arguments) = (context.argument(2), context.arguments);
    if arguments.len() > 4 {
        let name = if reverse { "zrevrank" } else { "zrank" };
        return Err(CommandError::Arity(name.into()));
    }
    let with_score = arguments.len() == 4;
    if with_score && !arguments.is(3, "withscore") {
        return Err(CommandError::Syntax);
    }
    let found = sorted_set!(context).and_then(|set| {
        let rank = set.rank(member)?;
        let rank = if reverse { set.len() - 1 - rank } else { rank };
        Some((rank, set.score(member)?))
    });
    match (found, with_score) {
        (Some((rank, score)), true) => {
            context.reply.array(2);
            context.reply.count(rank);
            write_score(&mut context.reply, score);
        }
        (Some((rank, _)), false) => context.reply.count(rank),
        (None, true) => context.reply.null_array(),
        (None, false) => context.reply.null(),
    }
    Ok(())
}

/// Takes up to `count` members of the sorted set in a slot; the key goes with the last.
fn take(context: &mut Context<'_>, slot: Slot, key: &[u8], extreme: Extreme, count: usize) -> Vec<Scored> {
    let mut taken = Vec::new();
    if let Some((set, id, journal)) = context.get_mut::<SortedSet>(slot) {
        let length = set.len();
        let count = count.min(length);
        match extreme {
            Extreme::Least => taken.extend(set.range(0, count).cloned()),
            Extreme::Greatest => taken.extend(set.range(length - count, length).rev().cloned()),
        }
        for Scored { member, .. } in &taken {
            set.remove(member);
            journal.delete_element(id, Kind::SortedSet, member);
        }
    }
    if !taken.is_empty() {
        let event = match extreme {
            Extreme::Least => "zpopmin",
            Extreme::Greatest => "zpopmax",
        };
        context.changed(slot, Events::SORTED_SET, event, key);
        context.remove_if_empty(slot, key);
    }
    taken
}

fn pop(context: &mut Context<'_>, extreme: Extreme) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    if arguments.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let counted = arguments.len() == 3;
    let count = match counted {
        true => {
            const POSITIVE: CommandError = CommandError::Plain("ERR value is out of range, must be positive");
            let count = number::integer(arguments.get(2)).ok_or(POSITIVE)?;
            usize::try_from(count).map_err(|_| POSITIVE)?
        }
        false => 1,
    };
    let taken = match context.collection::<SortedSet>(key)? {
        Some(slot) => take(context, slot, key, extreme, count),
        None => Vec::new(),
    };
    let pairs = counted && context.reply.resp3;
    context.reply.array(taken.len() * if pairs { 1 } else { 2 });
    for Scored { score, member } in taken {
        if pairs {
            context.reply.array(2);
        }
        context.reply.bulk(&member);
        write_score(&mut context.reply, score);
    }
    Ok(())
}

fn blocking_pop(context: &mut Context<'_>, extreme: Extreme) -> Outcome {
    let last = context.arguments.len() - 1;
    let timeout_ms = context.timeout_ms(last)?;
    for key in context.arguments.range(1..last) {
        if let Some(slot) = ready::<SortedSet>(context, key)? {
            for Scored { score, member } in take(context, slot, key, extreme, 1) {
                context.reply.array(3);
                context.reply.bulk(key);
                context.reply.bulk(&member);
                write_score(&mut context.reply, score);
            }
            return Ok(());
        }
    }
    let keys = keys(context, 1, last);
    context.block(keys, timeout_ms, TimeoutReply::NullArray);
    Ok(())
}

/// Reads the arguments of ZMPOP, whose number of keys is at `index`, and takes from the first key that has members: whether there is one.
fn pop_first(context: &mut Context<'_>, index: usize) -> Result<(bool, usize), CommandError> {
    let end = key_count(context, index)?;
    let arguments = context.arguments;
    let extreme = if arguments.is(end, "min") {
        Extreme::Least
    } else if arguments.is(end, "max") {
        Extreme::Greatest
    } else {
        return Err(CommandError::Syntax);
    };
    let count = pop_limit(context, end + 1)?;
    for key in arguments.range(index + 1..end) {
        if let Some(slot) = ready::<SortedSet>(context, key)? {
            let taken = take(context, slot, key, extreme, count);
            context.reply.array(2);
            context.reply.bulk(key);
            context.reply.array(taken.len());
            for Scored { score, member } in taken {
                context.reply.array(2);
                context.reply.bulk(&member);
                write_score(&mut context.reply, score);
            }
            return Ok((true, end));
        }
    }
    Ok((false, end))
}

fn zmpop(context: &mut Context<'_>) -> Outcome {
    if !pop_first(context, 1)?.0 {
        context.reply.null_array();
    }
    Ok(())
}

fn bzmpop(context: &mut Context<'_>) -> Outcome {
    let timeout_ms = context.timeout_ms(1)?;
    let (done, end) = pop_first(context, 2)?;
    if !done {
        let keys = keys(context, 3, end);
        context.block(keys, timeout_ms, TimeoutReply::NullArray);
    }
    Ok(())
}

fn zrandmember(context: &mut Context<'_>) -> Outcome {
    let (key, arguments) = (context.argument(1), context.arguments);
    let counted = arguments.len() > 2;
    let with_scores = arguments.len() == 4 && arguments.is(3, "withscores");
    let count = if counted { context.integer(2)? } else { 1 };
    if arguments.len() > 4 || (arguments.len() == 4 && !with_scores) {
        return Err(CommandError::Syntax);
    }
    if with_scores && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(CommandError::Plain("ERR value is out of range"));
    }
    let sample = Sample::new(count)?;
    let Some(slot) = context.collection::<SortedSet>(key)? else {
        if counted {
            context.reply.array(0);
        } else {
            context.reply.null();
        }
        return Ok(());
    };
    let length = context.get::<SortedSet>(slot).map_or(0, Collection::len);
    let places = sample.places(length, &mut context.server.keyspace);
    let Some(set) = peek::<SortedSet>(&context.server.keyspace, context.database, slot) else {
        return Ok(());
    };
    let pairs = with_scores && context.reply.resp3;
    if counted {
        let each = if with_scores && !pairs { 2 } else { 1 };
        context.reply.array(places.len() * each);
    }
    for (member, score) in places.into_iter().filter_map(|place| set.at(place)) {
        if pairs {
            context.reply.array(2);
        }
        context.reply.bulk(member);
        if with_scores {
            write_score(&mut context.reply, score);
        }
    }
    Ok(())
}

fn zscan(context: &mut Context<'_>) -> Outcome {
    let arguments = context.arguments;
    let set = sorted_set!(context).map(|set| (set, set.is_small()));
    Scan::reply(
        &mut context.reply,
        arguments,
        set,
        |set, place| set.at(place),
        |reply, score| {
            reply.bulk(format_double(score).as_bytes());
            1
        },
    )
}
