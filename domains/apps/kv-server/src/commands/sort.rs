//! SORT: the elements of a list, set or sorted set in order of themselves or of other keys, and what other keys hold for them.

use super::set_algebra::store_result;
use crate::command::{Command, Context, Flags, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::number;
use crate::types::list::End;
use crate::types::{Hash, List, Set, SortedSet};
use crate::value::Kind;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

type Outcome = Result<(), CommandError>;

/// The table.
pub const COMMANDS: &[Command] = &[
    command(
        "sort",
        -2,
        Flags::WRITE.union(Flags::DENYOOM).union(Flags::MOVABLE_KEYS),
        ONE_KEY,
        |context| sort(context, true),
    ),
    command(
        "sort_ro",
        -2,
        Flags::READONLY.union(Flags::MOVABLE_KEYS),
        ONE_KEY,
        |context| sort(context, false),
    ),
];

/// What a command asks for.
#[derive(Default)]
struct Request<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    limit: Option<(i64, i64)>,
    descending: bool,
    alphabetic: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn parse(context: &Context<'a>, may_store: bool) -> Result<Request<'a>, CommandError> {
        let arguments = context.arguments;
        let mut request = Request::default();
        let mut at = 2;
        while at < arguments.len() {
            let more = arguments.len() - at - 1;
            if arguments.is(at, "asc") {
                request.descending = false;
            } else if arguments.is(at, "desc") {
                request.descending = true;
            } else if arguments.is(at, "alpha") {
                request.alphabetic = true;
            } else if arguments.is(at, "limit") && more >= 2 {
                request.limit = Some((context.integer(at + 1)?, context.integer(at + 2)?));
                at += 2;
            } else if may_store && arguments.is(at, "store") && more >= 1 {
                request.store = Some(arguments.get(at + 1));
                at += 1;
            } else if arguments.is(at, "by") && more >= 1 {
                request.by = Some(arguments.get(at + 1));
                at += 1;
            } else if arguments.is(at, "get") && more >= 1 {
                request.get.push(arguments.get(at + 1));
                at += 1;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        Ok(request)
    }

    /// Whether elements stay in the order that they are in: BY names the same key for all.
    fn keeps_order(&self) -> bool {
        self.by.is_some_and(|pattern| !pattern.contains(&b'*'))
    }
}

/// What an element is compared by.
enum Weight {
    Number(f64),
    Text(Option<Box<[u8]>>),
}

impl Weight {
    fn compare(&self, other: &Weight) -> Ordering {
        match (self, other) {
            (Weight::Number(first), Weight::Number(second)) => {
                first.partial_cmp(second).unwrap_or(Ordering::Equal)
            }
            (Weight::Text(first), Weight::Text(second)) => first.cmp(second),
            (Weight::Number(_), Weight::Text(_)) => Ordering::Less,
            (Weight::Text(_), Weight::Number(_)) => Ordering::Greater,
        }
    }
}

/// What the key holds that `pattern` names for `element`: a string, or a field of a hash behind "->".
fn look_up(
    context: &mut Context<'_>,
    pattern: &[u8],
    element: &[u8],
) -> Result<Option<Box<[u8]>>, CommandError> {
    if pattern == b"#" {
        return Ok(Some(Box::from(element)));
    }
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else {
        return Ok(None);
    };
    let (before, behind) = pattern.split_at_checked(star).unwrap_or((pattern, &[]));
    let behind = behind.get(1..).unwrap_or_default();
    let arrow = behind.windows(2).position(|pair| pair == b"->");
    let (behind, field) = match arrow {
        Some(arrow) if arrow + 2 < behind.len() => {
            (behind.get(..arrow).unwrap_or_default(), behind.get(arrow + 2..))
        }
        _ => (behind, None),
    };
    let key = [before, element, behind].concat();
    if let Some(field) = field {
        return match context.collection::<Hash>(&key) {
            Ok(slot) => {
                let hash = slot.and_then(|slot| context.get::<Hash>(slot));
                Ok(hash.and_then(|hash| hash.get(field)).map(Box::from))
            }
            Err(CommandError::WrongType) => Ok(None),
            Err(error) => Err(error),
        };
    }
    match context.string(&key) {
        Ok(Some(slot)) => Ok(Some(Box::from(&*context.bytes(slot)?))),
        Ok(None) | Err(CommandError::WrongType) => Ok(None),
        Err(error) => Err(error),
    }
}

fn elements(context: &mut Context<'_>, request: &Request<'_>) -> Result<Vec<Box<[u8]>>, CommandError> {
    let Some(slot) = context.find(context.argument(1)) else {
        return Ok(Vec::new());
    };
    let elements = match context.kind(slot) {
        Some(Kind::List) => context
            .get::<List>(slot)
            .map(|list| list.iter().map(|item| item.value.clone()).collect()),
        Some(Kind::Set) => context
            .get::<Set>(slot)
            .map(|set| set.iter().map(Box::from).collect()),
        Some(Kind::SortedSet) => context.get::<SortedSet>(slot).map(|set| {
            let members = set.iter().map(|entry| Box::from(&*entry.member));
            // Without sorting, the set's own order counts, whichever way round it was asked for.
            if request.descending && request.keeps_order() {
                members.rev().collect()
            } else {
                members.collect()
            }
        }),
        _ => return Err(CommandError::WrongType),
    };
    Ok(elements.unwrap_or_default())
}

fn sort(context: &mut Context<'_>, may_store: bool) -> Outcome {
    let mut request = Request::parse(context, may_store)?;
    let is_set = match context.find(context.argument(1)) {
        Some(slot) => context.kind(slot) == Some(Kind::Set),
        None => false,
    };
    let mut elements = elements(context, &request)?;
    let mut keeps_order = request.keeps_order();
    if keeps_order && is_set && request.store.is_some() {
        // What is stored mustn't depend on the order of a hash table.
        keeps_order = false;
        request.by = None;
        request.alphabetic = true;
    }
    if !keeps_order {
        elements = in_order(context, &request, elements)?;
    }
    let (offset, count) = request.limit.unwrap_or((0, -1));
    let offset = usize::try_from(offset).unwrap_or(0);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut given: Vec<Option<Box<[u8]>>> = Vec::new();
    for element in elements.into_iter().skip(offset).take(count) {
        if request.get.is_empty() {
            given.push(Some(element));
            continue;
        }
        for pattern in &request.get {
            given.push(look_up(context, pattern, &element)?);
        }
    }
    let Some(target) = request.store else {
        context.reply.array(given.len());
        for value in &given {
            context.reply.bulk_or_null(value.as_deref());
        }
        return Ok(());
    };
    let mut list = List::default();
    for value in given {
        // A new list has positions for all that fits the memory.
        let _ = list.push(End::Right, value.unwrap_or_default());
    }
    list.fit(&context.server.config.limits);
    context.reply.count(list.iter().len());
    store_result(context, target, Events::LIST, "sortstore", list)
}

fn in_order(
    context: &mut Context<'_>,
    request: &Request<'_>,
    elements: Vec<Box<[u8]>>,
) -> Result<Vec<Box<[u8]>>, CommandError> {
    let mut weighted: Vec<(Weight, Box<[u8]>)> = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match request.by {
            Some(pattern) => look_up(context, pattern, &element)?,
            None => Some(element.clone()),
        };
        let weight = match (request.alphabetic, text) {
            (true, text) => Weight::Text(text),
            // No text, or an empty one, is zero.
            (false, text) => match text.as_deref().unwrap_or_default() {
                [] => Weight::Number(0.0),
                text => Weight::Number(number::float(text).ok_or(CommandError::Plain(
                    "ERR One or more scores can't be converted into double",
                ))?),
            },
        };
        weighted.push((weight, element));
    }
    weighted.sort_by(|(first, first_element), (second, second_element)| {
        // Equal numbers: in the order of the elements. Equal texts stay in the order that they are in.
        let order = first.compare(second).then_with(|| match first {
            Weight::Number(_) => first_element.cmp(second_element),
            Weight::Text(_) => Ordering::Equal,
        });
        if request.descending {
            order.reverse()
        } else {
            order
        }
    });
    Ok(weighted.into_iter().map(|(_, element)| element).collect())
}
