//! GEOADD, GEOSEARCH and their kin: sorted sets whose scores are places.

use super::set_algebra::store_result;
use super::sorted_sets::zadd;
use crate::command::{Command, Context, Flags, Keys, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::protocol::OwnedCommand;
use crate::types::SortedSet;
use crate::types::geo::{Area, Point, Shape};
use crate::types::number::format_double;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM);
const STORE: Flags = WRITE.union(Flags::MOVABLE_KEYS);
const TWO_KEYS: Keys = Keys {
    first: 1,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("geoadd", -5, WRITE, ONE_KEY, add),
    command("geodist", -4, READ, ONE_KEY, distance),
    command("geohash", -2, READ, ONE_KEY, hash),
    command("geopos", -2, READ, ONE_KEY, position),
    command("georadius", -6, STORE, ONE_KEY, |context| {
        radius(context, Form::POINT_STORE)
    }),
    command("georadius_ro", -6, READ, ONE_KEY, |context| {
        radius(context, Form::POINT)
    }),
    command("georadiusbymember", -5, STORE, ONE_KEY, |context| {
        radius(context, Form::MEMBER_STORE)
    }),
    command("georadiusbymember_ro", -5, READ, ONE_KEY, |context| {
        radius(context, Form::MEMBER)
    }),
    command("geosearch", -7, READ, ONE_KEY, |context| {
        let source = context.argument(1);
        let query = Query::parse(context, source, 2, false)?;
        search(context, source, query)
    }),
    command("geosearchstore", -8, WRITE, TWO_KEYS, |context| {
        let source = context.argument(2);
        let mut query = Query::parse(context, source, 3, true)?;
        query.target = Some(context.argument(1));
        search(context, source, query)
    }),
];

/// Metres in a unit.
fn unit(text: &[u8]) -> Result<f64, CommandError> {
    match text.to_ascii_lowercase().as_slice() {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(CommandError::Plain(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        )),
    }
}

fn point(context: &Context<'_>, index: usize) -> Result<Point, CommandError> {
    let point = Point {
        longitude: context.float(index)?,
        latitude: context.float(index + 1)?,
    };
    if point.is_valid() {
        return Ok(point);
    }
    Err(CommandError::Text(format!(
        "ERR invalid longitude,latitude pair {:.6},{:.6}",
        point.longitude, point.latitude
    )))
}

fn add(context: &mut Context<'_>) -> Outcome {
    let arguments = context.arguments;
    let mut first = 2;
    while ["nx", "xx", "ch"]
        .iter()
        .any(|option| arguments.is(first, option))
    {
        first += 1;
    }
    let count = arguments.len().saturating_sub(first);
    let is_both = (2..first).any(|index| arguments.is(index, "nx"))
        && (2..first).any(|index| arguments.is(index, "xx"));
    if is_both || count == 0 || !count.is_multiple_of(3) {
        return Err(CommandError::Syntax);
    }
    // What ZADD would be given.
    let mut words: Vec<Vec<u8>> = alloc::vec![b"zadd".to_vec()];
    words.extend(arguments.from(1).take(first - 1).map(<[u8]>::to_vec));
    for index in (first..arguments.len()).step_by(3) {
        words.push(format_double(point(context, index)?.score()).into_bytes());
        words.push(arguments.get(index + 2).to_vec());
    }
    let command = OwnedCommand::new(words.iter().map(Vec::as_slice));
    let mut inner = Context {
        server: &mut *context.server,
        client: context.client,
        arguments: command.arguments(),
        reply: core::mem::take(&mut context.reply),
        database: context.database,
        touches: context.touches,
        retried: context.retried,
        deny_blocking: context.deny_blocking,
    };
    let outcome = zadd(&mut inner);
    context.reply = inner.reply;
    outcome
}

/// The place of a member of the set under a key.
fn place(context: &mut Context<'_>, key: &[u8], member: &[u8]) -> Result<Option<Point>, CommandError> {
    let Some(slot) = context.collection::<SortedSet>(key)? else {
        return Ok(None);
    };
    let score = context.get::<SortedSet>(slot).and_then(|set| set.score(member));
    Ok(score.map(Point::of_score))
}

fn distance(context: &mut Context<'_>) -> Outcome {
    let metres = match context.arguments.len() {
        4 => 1.0,
        5 => unit(context.argument(4))?,
        _ => return Err(CommandError::Syntax),
    };
    let key = context.argument(1);
    let from = place(context, key, context.argument(2))?;
    let to = place(context, key, context.argument(3))?;
    match (from, to) {
        (Some(from), Some(to)) => {
            let text = format!("{:.4}", from.distance(to) / metres);
            context.reply.bulk(text.as_bytes());
        }
        _ => context.reply.null(),
    }
    Ok(())
}

fn hash(context: &mut Context<'_>) -> Outcome {
    let key = context.argument(1);
    context.collection::<SortedSet>(key)?;
    context.reply.array(context.arguments.len() - 2);
    for member in context.arguments.from(2) {
        let hash = place(context, key, member)?.map(Point::geohash);
        context
            .reply
            .bulk_or_null(hash.as_ref().map(<[u8; 11]>::as_slice));
    }
    Ok(())
}

fn position(context: &mut Context<'_>) -> Outcome {
    let key = context.argument(1);
    context.collection::<SortedSet>(key)?;
    context.reply.array(context.arguments.len() - 2);
    for member in context.arguments.from(2) {
        match place(context, key, member)? {
            Some(point) => write_point(context, point),
            None => context.reply.null_array(),
        }
    }
    Ok(())
}

fn write_point(context: &mut Context<'_>, point: Point) {
    context.reply.array(2);
    for degrees in [point.longitude, point.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        context.reply.double_text(text.as_bytes());
    }
}

/// Which of the four commands of GEORADIUS.
#[derive(Clone, Copy)]
struct Form {
    by_member: bool,
    stores: bool,
}

impl Form {
    const POINT: Form = Form {
        by_member: false,
        stores: false,
    };
    const POINT_STORE: Form = Form {
        stores: true,
        ..Form::POINT
    };
    const MEMBER: Form = Form {
        by_member: true,
        ..Form::POINT
    };
    const MEMBER_STORE: Form = Form {
        stores: true,
        ..Form::MEMBER
    };
}

/// What is searched for, and what of it is told.
#[derive(Default)]
struct Query<'a> {
    middle: Option<Point>,
    shape: Option<Shape>,
    /// Metres in the unit of distances.
    metres: f64,
    with_distance: bool,
    with_hash: bool,
    with_point: bool,
    /// At most so many; 0 for all.
    count: usize,
    any: bool,
    /// Descending if true.
    order: Option<bool>,
    target: Option<&'a [u8]>,
    stores_distance: bool,
}

const NO_MEMBER: CommandError = CommandError::Plain("ERR could not decode requested zset member");

/// A length in metres, behind which its unit is.
fn length(
    context: &Context<'_>,
    index: usize,
    not_numeric: &'static str,
    negative: &'static str,
) -> Result<f64, CommandError> {
    let length = context
        .float(index)
        .map_err(|_| CommandError::Plain(not_numeric))?;
    if length < 0.0 {
        return Err(CommandError::Plain(negative));
    }
    Ok(length)
}

fn circle(context: &Context<'_>, index: usize) -> Result<(Shape, f64), CommandError> {
    let radius = length(
        context,
        index,
        "ERR need numeric radius",
        "ERR radius cannot be negative",
    )?;
    let metres = unit(context.argument(index + 1))?;
    let radius = radius * metres;
    Ok((Shape::Circle { radius }, metres))
}

impl<'a> Query<'a> {
    /// Reads GEOSEARCH's arguments from `index` on.
    fn parse(
        context: &mut Context<'a>,
        source: &[u8],
        mut index: usize,
        stores: bool,
    ) -> Result<Query<'a>, CommandError> {
        let mut query = Query::default();
        let mut member = None;
        let (mut from, mut by) = (0, 0);
        while index < context.arguments.len() {
            let left = context.arguments.len() - index - 1;
            if from == 0 && context.arguments.is(index, "frommember") && left >= 1 {
                member = Some(context.argument(index + 1));
                from += 1;
                index += 2;
            } else if from == 0 && context.arguments.is(index, "fromlonlat") && left >= 2 {
                query.middle = Some(point(context, index + 1)?);
                from += 1;
                index += 3;
            } else if by == 0 && context.arguments.is(index, "byradius") && left >= 2 {
                let (shape, metres) = circle(context, index + 1)?;
                (query.shape, query.metres) = (Some(shape), metres);
                by += 1;
                index += 3;
            } else if by == 0 && context.arguments.is(index, "bybox") && left >= 3 {
                let negative = "ERR height or width cannot be negative";
                let width = length(context, index + 1, "ERR need numeric width", negative)?;
                let height = length(context, index + 2, "ERR need numeric height", negative)?;
                query.metres = unit(context.argument(index + 3))?;
                query.shape = Some(Shape::Box {
                    width: width * query.metres,
                    height: height * query.metres,
                });
                by += 1;
                index += 4;
            } else if stores && context.arguments.is(index, "storedist") {
                query.stores_distance = true;
                index += 1;
            } else {
                index = query.option(context, index)?;
            }
        }
        let name = if stores { "geosearchstore" } else { "geosearch" };
        if from != 1 {
            return Err(CommandError::Text(format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}"
            )));
        }
        if by != 1 {
            return Err(CommandError::Text(format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {name}"
            )));
        }
        if stores && (query.with_distance || query.with_hash || query.with_point) {
            return Err(CommandError::Text(format!(
                "ERR {name} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        query.check()?;
        if let Some(member) = member {
            query.find_middle(context, source, member)?;
        }
        Ok(query)
    }

    /// Takes a member's place as the middle; a key that isn't there has none, and nothing is found.
    fn find_middle(&mut self, context: &mut Context<'a>, source: &[u8], member: &[u8]) -> Outcome {
        self.middle = place(context, source, member)?;
        if self.middle.is_none() && context.look(source).is_some() {
            return Err(NO_MEMBER);
        }
        Ok(())
    }

    /// Reads an option that all searches have; gives where the next is.
    fn option(&mut self, context: &Context<'a>, index: usize) -> Result<usize, CommandError> {
        let arguments = context.arguments;
        match arguments.get(index).to_ascii_lowercase().as_slice() {
            b"withdist" => self.with_distance = true,
            b"withhash" => self.with_hash = true,
            b"withcoord" => self.with_point = true,
            b"any" => self.any = true,
            b"asc" => self.order = Some(false),
            b"desc" => self.order = Some(true),
            b"count" if index + 1 < arguments.len() => {
                let count = usize::try_from(context.integer(index + 1)?).unwrap_or_default();
                if count == 0 {
                    return Err(CommandError::Plain("ERR COUNT must be > 0"));
                }
                self.count = count;
                return Ok(index + 2);
            }
            _ => return Err(CommandError::Syntax),
        }
        Ok(index + 1)
    }

    fn check(&self) -> Outcome {
        if self.any && self.count == 0 {
            return Err(CommandError::Plain(
                "ERR the ANY argument requires COUNT argument",
            ));
        }
        Ok(())
    }
}

fn radius(context: &mut Context<'_>, form: Form) -> Outcome {
    let source = context.argument(1);
    let mut query = Query::default();
    let reach = if form.by_member { 3 } else { 4 };
    context.collection::<SortedSet>(source)?;
    if !form.by_member {
        query.middle = Some(point(context, 2)?);
    }
    let (shape, metres) = circle(context, reach)?;
    (query.shape, query.metres) = (Some(shape), metres);
    let mut index = reach + 2;
    while index < context.arguments.len() {
        let has_next = index + 1 < context.arguments.len();
        let stores = form.stores && has_next;
        if stores && context.arguments.is(index, "store") {
            query.target = Some(context.argument(index + 1));
            query.stores_distance = false;
            index += 2;
        } else if stores && context.arguments.is(index, "storedist") {
            query.target = Some(context.argument(index + 1));
            query.stores_distance = true;
            index += 2;
        } else {
            index = query.option(context, index)?;
        }
    }
    if query.target.is_some() && (query.with_distance || query.with_hash || query.with_point) {
        return Err(CommandError::Plain(
            "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
        ));
    }
    query.check()?;
    if form.by_member {
        query.find_middle(context, source, context.argument(2))?;
    }
    search(context, source, query)
}

/// A member that was found.
struct Found {
    member: Vec<u8>,
    score: f64,
    distance: f64,
}

fn search(context: &mut Context<'_>, source: &[u8], query: Query<'_>) -> Outcome {
    let slot = context.collection::<SortedSet>(source)?;
    let set = slot.and_then(|slot| context.get::<SortedSet>(slot));
    let mut found = match (set, query.middle, query.shape) {
        (Some(set), Some(middle), Some(shape)) => {
            let limit = if query.any { query.count } else { usize::MAX };
            members(set, &Area { middle, shape }, limit)
        }
        _ => Vec::new(),
    };
    // The nearest are wanted, if not all are.
    let order = query.order.or((query.count > 0 && !query.any).then_some(false));
    match order {
        Some(false) => found.sort_by(|one, other| one.distance.total_cmp(&other.distance)),
        Some(true) => found.sort_by(|one, other| other.distance.total_cmp(&one.distance)),
        None => {}
    }
    if query.count > 0 {
        found.truncate(query.count);
    }
    match query.target {
        Some(target) => store(context, target, &query, &found),
        None => {
            write(context, &query, &found);
            Ok(())
        }
    }
}

/// The members of a set in an area, at most so many.
fn members(set: &SortedSet, area: &Area, limit: usize) -> Vec<Found> {
    let mut found = Vec::new();
    for (first, end) in area.score_ranges() {
        let (from, to) = set.ranks_from(first, end);
        for scored in set.range(from, to) {
            if let Some(distance) = area.distance(Point::of_score(scored.score)) {
                found.push(Found {
                    member: scored.member.to_vec(),
                    score: scored.score,
                    distance,
                });
                if found.len() >= limit {
                    return found;
                }
            }
        }
    }
    found
}

fn store(context: &mut Context<'_>, target: &[u8], query: &Query<'_>, found: &[Found]) -> Outcome {
    let mut set = SortedSet::new(context.server.keyspace.random());
    let limits = context.server.config.limits;
    for one in found {
        let score = if query.stores_distance {
            one.distance / query.metres
        } else {
            one.score
        };
        set.set(&one.member, score, &limits);
    }
    store_result(context, target, Events::SORTED_SET, "geosearchstore", set)?;
    context.reply.count(found.len());
    Ok(())
}

fn write(context: &mut Context<'_>, query: &Query<'_>, found: &[Found]) {
    let parts = [query.with_distance, query.with_hash, query.with_point];
    let count = parts.iter().filter(|wanted| **wanted).count();
    context.reply.array(found.len());
    for one in found {
        if count > 0 {
            context.reply.array(count + 1);
        }
        context.reply.bulk(&one.member);
        if query.with_distance {
            let text: String = format!("{:.4}", one.distance / query.metres);
            context.reply.bulk(text.as_bytes());
        }
        if query.with_hash {
            context.reply.integer(one.score as i64);
        }
        if query.with_point {
            write_point(context, Point::of_score(one.score));
        }
    }
}
