//! Commands on ranges of sorted sets: by rank, by score, by member.

use super::collections::peek;
use super::set_algebra::store_result;
use super::sorted_sets::write_score;
use crate::command::{Command, Context, Flags, Keys, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::types::range::{self, LexRange, ScoreRange};
use crate::types::{Limits, SortedSet};
use crate::value::{Collection, Kind};
use alloc::sync::Arc;
use alloc::vec::Vec;

type Outcome = Result<(), CommandError>;

const READ: Flags = Flags::READONLY;
const FAST: Flags = Flags::READONLY.union(Flags::FAST);
const TWO_KEYS: Keys = Keys {
    first: 1,
    last: 2,
    step: 1,
};

/// The table.
pub const COMMANDS: &[Command] = &[
    command("zcount", 4, FAST, ONE_KEY, |context| count(context, By::Score)),
    command("zlexcount", 4, FAST, ONE_KEY, |context| {
        count(context, By::Member)
    }),
    command("zrange", -4, READ, ONE_KEY, |context| {
        let request = Request::parse(context, 2, Some(By::Rank), None)?;
        answer(context, &request)
    }),
    command("zrangebylex", -4, READ, ONE_KEY, |context| {
        fixed(context, By::Member, false)
    }),
    command("zrangebyscore", -4, READ, ONE_KEY, |context| {
        fixed(context, By::Score, false)
    }),
    command(
        "zrangestore",
        -5,
        Flags::WRITE.union(Flags::DENYOOM),
        TWO_KEYS,
        zrangestore,
    ),
    command("zremrangebylex", 4, Flags::WRITE, ONE_KEY, |context| {
        remove(context, By::Member, "zremrangebylex")
    }),
    command("zremrangebyrank", 4, Flags::WRITE, ONE_KEY, |context| {
        remove(context, By::Rank, "zremrangebyrank")
    }),
    command("zremrangebyscore", 4, Flags::WRITE, ONE_KEY, |context| {
        remove(context, By::Score, "zremrangebyscore")
    }),
    command("zrevrange", -4, READ, ONE_KEY, |context| {
        fixed(context, By::Rank, true)
    }),
    command("zrevrangebylex", -4, READ, ONE_KEY, |context| {
        fixed(context, By::Member, true)
    }),
    command("zrevrangebyscore", -4, READ, ONE_KEY, |context| {
        fixed(context, By::Score, true)
    }),
];

/// What the ends of a range are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Member,
}

/// Both ends, read.
enum Ends<'a> {
    Rank(i64, i64),
    Score(ScoreRange),
    Member(LexRange<'a>),
}

impl<'a> Ends<'a> {
    fn parse(context: &Context<'a>, by: By, low: usize, high: usize) -> Result<Ends<'a>, CommandError> {
        let (from, to) = (context.argument(low), context.argument(high));
        Ok(match by {
            By::Rank => Ends::Rank(context.integer(low)?, context.integer(high)?),
            By::Score => Ends::Score(
                ScoreRange::parse(from, to).ok_or(CommandError::Plain("ERR min or max is not a float"))?,
            ),
            By::Member => Ends::Member(
                LexRange::parse(from, to)
                    .ok_or(CommandError::Plain("ERR min or max not valid string range item"))?,
            ),
        })
    }

    /// The ranks, from the first up to but not including the second.
    fn ranks(&self, set: &SortedSet) -> (usize, usize) {
        match self {
            Ends::Rank(first, last) => range::indexes(*first, *last, set.len()),
            Ends::Score(range) => set.ranks_by_score(range),
            Ends::Member(range) => set.ranks_by_member(range),
        }
    }
}

/// What a command asks for.
struct Request<'a> {
    ends: Ends<'a>,
    reverse: bool,
    /// Members to leave out at the start, and to give at most; negative for none and all.
    offset: i64,
    count: i64,
    with_scores: bool,
}

impl<'a> Request<'a> {
    /// Reads the ends at `index` and the options behind them. `free` is the default of a command whose options say what the ends are; `fixed` what
    /// another's name says, with the direction.
    fn parse(
        context: &Context<'a>,
        index: usize,
        free: Option<By>,
        fixed: Option<(By, bool)>,
    ) -> Result<Request<'a>, CommandError> {
        let arguments = context.arguments;
        let (mut by, mut reverse) = fixed.unwrap_or((free.unwrap_or(By::Rank), false));
        let (mut with_scores, mut limit) = (false, None);
        let mut at = index + 2;
        while at < arguments.len() {
            if arguments.is(at, "withscores") {
                with_scores = true;
            } else if arguments.is(at, "limit") && at + 2 < arguments.len() {
                limit = Some((context.integer(at + 1)?, context.integer(at + 2)?));
                at += 2;
            } else if free.is_some() && arguments.is(at, "rev") {
                reverse = true;
            } else if free.is_some() && arguments.is(at, "bylex") {
                by = By::Member;
            } else if free.is_some() && arguments.is(at, "byscore") {
                by = By::Score;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        if limit.is_some() && by == By::Rank {
            return Err(CommandError::Plain(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Member {
            return Err(CommandError::Plain(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // Backwards, the greater end is named first, but for ranks, which count from the other end.
        let (low, high) = if reverse && by != By::Rank {
            (index + 1, index)
        } else {
            (index, index + 1)
        };
        let (offset, count) = limit.unwrap_or((0, -1));
        Ok(Request {
            ends: Ends::parse(context, by, low, high)?,
            reverse,
            offset,
            count,
            with_scores,
        })
    }

    /// The ranks of what is asked for, from the first up to but not including the second, whichever way it is given.
    fn ranks(&self, set: &SortedSet) -> (usize, usize) {
        let (mut start, mut end) = self.ends.ranks(set);
        if self.reverse && matches!(self.ends, Ends::Rank(..)) {
            (start, end) = (set.len() - end, set.len() - start);
        }
        let Ok(offset) = usize::try_from(self.offset) else {
            return (0, 0);
        };
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        if self.reverse {
            end = end.saturating_sub(offset).max(start);
            start = start.max(end.saturating_sub(count));
        } else {
            start = start.saturating_add(offset).min(end);
            end = end.min(start.saturating_add(count));
        }
        (start, end)
    }
}

fn fixed(context: &mut Context<'_>, by: By, reverse: bool) -> Outcome {
    let request = Request::parse(context, 2, None, Some((by, reverse)))?;
    answer(context, &request)
}

fn answer(context: &mut Context<'_>, request: &Request<'_>) -> Outcome {
    let slot = context.collection::<SortedSet>(context.argument(1))?;
    let set = slot.and_then(|slot| peek::<SortedSet>(&context.server.keyspace, context.database, slot));
    let Some(set) = set else {
        context.reply.array(0);
        return Ok(());
    };
    let (start, end) = request.ranks(set);
    let mut members = set.range(start, end);
    let pairs = request.with_scores && context.reply.resp3;
    let each = if request.with_scores && !pairs { 2 } else { 1 };
    context.reply.array(members.len() * each);
    while let Some(entry) = if request.reverse {
        members.next_back()
    } else {
        members.next()
    } {
        if pairs {
            context.reply.array(2);
        }
        context.reply.bulk(&entry.member);
        if request.with_scores {
            write_score(&mut context.reply, entry.score);
        }
    }
    Ok(())
}

fn zrangestore(context: &mut Context<'_>) -> Outcome {
    let request = Request::parse(context, 3, Some(By::Rank), None)?;
    if request.with_scores {
        return Err(CommandError::Syntax);
    }
    let (target, source) = (context.argument(1), context.argument(2));
    let limits: Limits = context.server.config.limits;
    let mut result = SortedSet::new(context.server.keyspace.random());
    if let Some(slot) = context.collection::<SortedSet>(source)?
        && let Some(set) = context.get::<SortedSet>(slot)
    {
        let (start, end) = request.ranks(set);
        for entry in set.range(start, end) {
            result.set(&entry.member, entry.score, &limits);
        }
    }
    context.reply.count(result.len());
    store_result(context, target, Events::SORTED_SET, "zrangestore", result)
}

fn count(context: &mut Context<'_>, by: By) -> Outcome {
    let ends = Ends::parse(context, by, 2, 3)?;
    let slot = context.collection::<SortedSet>(context.argument(1))?;
    let (start, end) = slot
        .and_then(|slot| context.get::<SortedSet>(slot))
        .map_or((0, 0), |set| ends.ranks(set));
    context.reply.count(end - start);
    Ok(())
}

fn remove(context: &mut Context<'_>, by: By, event: &'static str) -> Outcome {
    let key = context.argument(1);
    let ends = Ends::parse(context, by, 2, 3)?;
    let Some(slot) = context.collection::<SortedSet>(key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let mut members: Vec<Arc<[u8]>> = Vec::new();
    if let Some((set, id, journal)) = context.get_mut::<SortedSet>(slot) {
        let (start, end) = ends.ranks(set);
        members.extend(set.range(start, end).map(|entry| entry.member.clone()));
        for member in &members {
            set.remove(member);
            journal.delete_element(id, Kind::SortedSet, member);
        }
    }
    if !members.is_empty() {
        context.changed(slot, Events::SORTED_SET, event, key);
        context.remove_if_empty(slot, key);
    }
    context.reply.count(members.len());
    Ok(())
}
