//! Unions, intersections and differences of sorted sets, of sets too, whose members then have the score 1.

use super::collections::peek;
use super::set_algebra::{cardinality_limit, store_result};
use super::sorted_sets::write_score;
use crate::command::{Command, Context, Flags, Keys, NO_KEYS, command};
use crate::error::CommandError;
use crate::keyspace::{Events, Keyspace};
use crate::number;
use crate::stable_map::Slot;
use crate::types::ordered::Scored;
use crate::types::{Set, SortedSet};
use crate::value::{Collection, Kind};
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY.union(Flags::MOVABLE_KEYS);
const STORE: Flags = Flags::WRITE.union(Flags::DENYOOM).union(Flags::MOVABLE_KEYS);
/// The target alone is at a fixed place.
const TARGET: Keys = Keys {
    first: 1,
    last: 1,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("zdiff", -3, READ, NO_KEYS, |context| {
        answer(context, Operation::Difference, "zdiff")
    }),
    command("zdiffstore", -4, STORE, TARGET, |context| {
        store(context, Operation::Difference, "zdiffstore")
    }),
    command("zinter", -3, READ, NO_KEYS, |context| {
        answer(context, Operation::Intersection, "zinter")
    }),
    command("zintercard", -3, READ, NO_KEYS, zintercard),
    command("zinterstore", -4, STORE, TARGET, |context| {
        store(context, Operation::Intersection, "zinterstore")
    }),
    command("zunion", -3, READ, NO_KEYS, |context| {
        answer(context, Operation::Union, "zunion")
    }),
    command("zunionstore", -4, STORE, TARGET, |context| {
        store(context, Operation::Union, "zunionstore")
    }),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Difference,
    Intersection,
    Union,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Least,
    Greatest,
}

impl Aggregate {
    fn combine(self, first: f64, second: f64) -> f64 {
        match self {
            Aggregate::Sum => {
                let sum = first + second;
                // Infinities of both signs: Redis says 0.
                if sum.is_nan() { 0.0 } else { sum }
            }
            // Of two zeros with different signs, the first stays.
            Aggregate::Least if second < first => second,
            Aggregate::Greatest if second > first => second,
            Aggregate::Least | Aggregate::Greatest => first,
        }
    }
}

/// What is combined.
enum Source<'a> {
    Nothing,
    Set(&'a Set),
    Sorted(&'a SortedSet),
}

impl<'a> Source<'a> {
    fn len(&self) -> usize {
        match self {
            Source::Nothing => 0,
            Source::Set(set) => set.len(),
            Source::Sorted(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Nothing => None,
            Source::Set(set) => set.contains(member).then_some(1.0),
            Source::Sorted(set) => set.score(member),
        }
    }

    /// The member and score at a place from 0 to `len() - 1`.
    fn at(&self, place: usize) -> Option<(&'a [u8], f64)> {
        match self {
            Source::Nothing => None,
            Source::Set(set) => set.at(place).map(|member| (member, 1.0)),
            Source::Sorted(set) => set.at(place),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&'a [u8], f64)> {
        (0..self.len()).filter_map(|place| self.at(place))
    }
}

/// What a command asks for.
struct Request {
    slots: Vec<Option<Slot>>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// Where the sets and sorted sets of the keys at a range of indices are.
fn slots(context: &mut Context<'_>, keys: Range<usize>) -> Result<Vec<Option<Slot>>, CommandError> {
    let mut slots = Vec::with_capacity(keys.len());
    for key in context.arguments.range(keys) {
        let slot = context.find(key);
        if let Some(slot) = slot
            && !matches!(context.kind(slot), Some(Kind::Set | Kind::SortedSet))
        {
            return Err(CommandError::WrongType);
        }
        slots.push(slot);
    }
    Ok(slots)
}

/// The index behind the keys whose number is at `index`.
fn keys_end(context: &Context<'_>, index: usize, name: &str) -> Result<usize, CommandError> {
    let Some(count) = usize::try_from(context.integer(index)?)
        .ok()
        .filter(|&count| count > 0)
    else {
        return Err(CommandError::Text(format!(
            "ERR at least 1 input key is needed for '{name}' command"
        )));
    };
    let end = count.checked_add(index + 1).ok_or(CommandError::Syntax)?;
    if end > context.arguments.len() {
        return Err(CommandError::Syntax);
    }
    Ok(end)
}

impl Request {
    /// Reads the number of keys at `index`, the keys, and the options behind them.
    fn parse(
        context: &mut Context<'_>,
        index: usize,
        operation: Operation,
        name: &str,
        may_have_scores: bool,
    ) -> Result<Request, CommandError> {
        let arguments = context.arguments;
        let Some(count) = usize::try_from(context.integer(index)?)
            .ok()
            .filter(|&count| count > 0)
        else {
            return Err(CommandError::Text(format!(
                "ERR at least 1 input key is needed for '{name}' command"
            )));
        };
        let end = count.checked_add(index + 1).ok_or(CommandError::Syntax)?;
        if end > arguments.len() {
            return Err(CommandError::Syntax);
        }
        let mut request = Request {
            slots: slots(context, index + 1..end)?,
            weights: alloc::vec![1.0; count],
            aggregate: Aggregate::Sum,
            with_scores: false,
        };
        let mut at = end;
        while at < arguments.len() {
            let weighted = operation != Operation::Difference;
            if weighted && arguments.is(at, "weights") && at + count < arguments.len() {
                for (weight, text) in request.weights.iter_mut().zip(arguments.from(at + 1)) {
                    *weight =
                        number::float(text).ok_or(CommandError::Plain("ERR weight value is not a float"))?;
                }
                at += count + 1;
            } else if weighted && arguments.is(at, "aggregate") && at + 1 < arguments.len() {
                request.aggregate = match arguments.get(at + 1) {
                    word if word.eq_ignore_ascii_case(b"sum") => Aggregate::Sum,
                    word if word.eq_ignore_ascii_case(b"min") => Aggregate::Least,
                    word if word.eq_ignore_ascii_case(b"max") => Aggregate::Greatest,
                    _ => return Err(CommandError::Syntax),
                };
                at += 2;
            } else if may_have_scores && arguments.is(at, "withscores") {
                request.with_scores = true;
                at += 1;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(request)
    }

    fn result(&self, context: &mut Context<'_>, operation: Operation) -> SortedSet {
        let limits = context.server.config.limits;
        let mut result = SortedSet::new(context.server.keyspace.random());
        let sources = sources(&context.server.keyspace, context.database, &self.slots);
        let weigh = |weight: f64, score: f64| {
            let product = weight * score;
            // Zero times infinity: Redis says 0.
            if product.is_nan() { 0.0 } else { product }
        };
        let mut weighted: Vec<(&Source<'_>, f64)> =
            sources.iter().zip(self.weights.iter().copied()).collect();
        match operation {
            Operation::Union => {
                for (source, weight) in weighted {
                    for (member, score) in source.iter() {
                        let score = weigh(weight, score);
                        let score = match result.score(member) {
                            Some(other) => self.aggregate.combine(other, score),
                            None => score,
                        };
                        result.set(member, score, &limits);
                    }
                }
            }
            Operation::Intersection => {
                weighted.sort_by_key(|(source, _)| source.len());
                let Some(((smallest, weight), others)) = weighted.split_first() else {
                    return result;
                };
                for (member, score) in smallest.iter() {
                    let score = others
                        .iter()
                        .try_fold(weigh(*weight, score), |total, (source, weight)| {
                            let score = weigh(*weight, source.score(member)?);
                            Some(self.aggregate.combine(total, score))
                        });
                    if let Some(score) = score {
                        result.set(member, score, &limits);
                    }
                }
            }
            Operation::Difference => {
                let Some((first, others)) = sources.split_first() else {
                    return result;
                };
                for (member, score) in first.iter() {
                    if others.iter().all(|source| source.score(member).is_none()) {
                        result.set(member, score, &limits);
                    }
                }
            }
        }
        result
    }
}

fn sources<'a>(keyspace: &'a Keyspace, database: usize, slots: &[Option<Slot>]) -> Vec<Source<'a>> {
    let source = |slot: &Option<Slot>| {
        let Some(slot) = *slot else { return Source::Nothing };
        match (peek(keyspace, database, slot), peek(keyspace, database, slot)) {
            (Some(set), _) => Source::Set(set),
            (_, Some(set)) => Source::Sorted(set),
            (None, None) => Source::Nothing,
        }
    };
    slots.iter().map(source).collect()
}

fn answer(context: &mut Context<'_>, operation: Operation, name: &str) -> Outcome {
    let request = Request::parse(context, 1, operation, name, true)?;
    let result = request.result(context, operation);
    let pairs = request.with_scores && context.reply.resp3;
    let each = if request.with_scores && !pairs { 2 } else { 1 };
    context.reply.array(result.len() * each);
    for Scored { score, member } in result.iter() {
        if pairs {
            context.reply.array(2);
        }
        context.reply.bulk(member);
        if request.with_scores {
            write_score(&mut context.reply, *score);
        }
    }
    Ok(())
}

fn store(context: &mut Context<'_>, operation: Operation, event: &'static str) -> Outcome {
    let request = Request::parse(context, 2, operation, event, false)?;
    let key = context.argument(1);
    let result = request.result(context, operation);
    context.reply.count(result.len());
    store_result(context, key, Events::SORTED_SET, event, result)
}

fn zintercard(context: &mut Context<'_>) -> Outcome {
    let end = keys_end(context, 1, "zintercard")?;
    let limit = cardinality_limit(context, end)?;
    let slots = slots(context, 2..end)?;
    let mut sources = sources(&context.server.keyspace, context.database, &slots);
    sources.sort_by_key(Source::len);
    let limit = if limit == 0 { usize::MAX } else { limit };
    let count = sources.split_first().map_or(0, |(smallest, others)| {
        let members = smallest.iter();
        let common = members.filter(|(member, _)| others.iter().all(|source| source.score(member).is_some()));
        common.take(limit).count()
    });
    context.reply.count(count);
    Ok(())
}
