//! What the commands of all collections have in common: random choices, scans, removals, and the borrowing of a collection beside the reply.

use crate::command::Context;
use crate::error::CommandError;
use crate::glob;
use crate::keyspace::{Events, Keyspace};
use crate::number;
use crate::protocol::{Arguments, Reply};
use crate::stable_map::Slot;
use crate::value::Collection;
use alloc::vec::Vec;
use core::ops::Range;
use hashbrown::HashSet;

/// Elements that a command gives at most when it may give one several times: what a client can take in one reply.
const REPEATED_LIMIT: u64 = 1 << 20;

/// The collection in a slot, with nothing but the key space borrowed.
#[inline]
pub fn peek<T: Collection>(keyspace: &Keyspace, database: usize, slot: Slot) -> Option<&T> {
    keyspace.entry(database, slot)?.value.downcast()
}

/// SREM and its like: takes the elements from index 2 on out of the collection of the key at index 1, by `remove`, which tells whether there was one, and
/// replies how many there were.
///
/// # Errors
/// When the key holds something else.
pub fn remove_elements<T: Collection>(
    context: &mut Context<'_>,
    class: Events,
    event: &'static str,
    remove: impl Fn(&mut T, &[u8]) -> bool,
) -> Result<(), CommandError> {
    let (key, arguments) = (context.argument(1), context.arguments);
    let Some(slot) = context.collection::<T>(key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let mut removed = 0;
    if let Some((collection, id, journal)) = context.get_mut::<T>(slot) {
        let kind = collection.kind();
        for element in arguments.from(2) {
            if remove(collection, element) {
                journal.delete_element(id, kind, element);
                removed += 1;
            }
        }
    }
    if removed > 0 {
        context.changed(slot, class, event, key);
        context.remove_if_empty(slot, key);
    }
    context.reply.count(removed);
    Ok(())
}

/// How many random elements a command is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// So many different ones, or all.
    Distinct(usize),
    /// So many, each chosen from all.
    Repeated(usize),
}

impl Sample {
    /// What a count means: different ones if positive.
    ///
    /// # Errors
    /// When it is beyond what one reply can hold.
    pub fn new(count: i64) -> Result<Sample, CommandError> {
        if count >= 0 {
            return Ok(Sample::Distinct(usize::try_from(count).unwrap_or(usize::MAX)));
        }
        let count = count.unsigned_abs();
        if count > REPEATED_LIMIT {
            return Err(CommandError::Plain("ERR value is out of range"));
        }
        Ok(Sample::Repeated(count as usize))
    }

    /// Places of a collection of `length` elements.
    pub fn places(self, length: usize, keyspace: &mut Keyspace) -> Vec<usize> {
        let mut below = |limit: usize| ((u128::from(keyspace.random()) * limit as u128) >> 64) as usize;
        match self {
            _ if length == 0 => Vec::new(),
            Sample::Repeated(count) => (0..count).map(|_| below(length)).collect(),
            Sample::Distinct(count) if count >= length => (0..length).collect(),
            Sample::Distinct(count) if count > length / 3 => {
                let mut places: Vec<usize> = (0..length).collect();
                for at in 0..count {
                    places.swap(at, at + below(length - at));
                }
                places.truncate(count);
                places
            }
            Sample::Distinct(count) => {
                let mut seen = HashSet::<usize, foldhash::fast::FixedState>::default();
                let mut places = Vec::with_capacity(count);
                while places.len() < count {
                    let place = below(length);
                    if seen.insert(place) {
                        places.push(place);
                    }
                }
                places
            }
        }
    }
}

/// The arguments of a scan.
pub struct Scan<'a> {
    cursor: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Scan<'a> {
    /// Reads the cursor at index 2.
    ///
    /// # Errors
    /// When it is none.
    fn cursor(arguments: Arguments<'a>) -> Result<u64, CommandError> {
        core::str::from_utf8(arguments.get(2))
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(CommandError::Plain("ERR invalid cursor"))
    }

    /// Reads the options behind the cursor.
    ///
    /// # Errors
    /// When they aren't a scan's.
    fn parse(cursor: u64, arguments: Arguments<'a>) -> Result<Scan<'a>, CommandError> {
        let mut scan = Scan {
            cursor,
            pattern: None,
            count: 10,
        };
        let mut at = 3;
        while at < arguments.len() {
            if at + 1 == arguments.len() {
                return Err(CommandError::Syntax);
            }
            if arguments.is(at, "count") {
                let count = number::integer(arguments.get(at + 1)).ok_or(CommandError::NotInteger)?;
                scan.count = usize::try_from(count)
                    .ok()
                    .filter(|&count| count > 0)
                    .ok_or(CommandError::Syntax)?;
            } else if arguments.is(at, "match") {
                scan.pattern = Some(arguments.get(at + 1)).filter(|pattern| *pattern != b"*");
            } else {
                return Err(CommandError::Syntax);
            }
            at += 2;
        }
        Ok(scan)
    }

    /// Whether an element of this name is wanted.
    fn wants(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// The places that are next in a collection of `length`, and the cursor to go on with.
    ///
    /// A scan goes from the last place to the first: removing an element moves the last one to its place, which is never from the part that is to come
    /// into the part that has been.
    fn places(&self, length: usize, small: bool) -> (Range<usize>, u64) {
        if small {
            return (0..length, 0);
        }
        let end = match usize::try_from(self.cursor) {
            Ok(0) | Err(_) => length,
            Ok(cursor) => cursor.min(length),
        };
        let start = end.saturating_sub(self.count);
        (start..end, start as u64)
    }

    /// Replies to SSCAN and its like: the cursor to go on with, and the elements that are next, each by its name and what `write` writes behind it,
    /// which it says the number of. `small` tells whether all are given at once.
    ///
    /// # Errors
    /// When the arguments aren't a scan's.
    pub fn reply<'c, C: Collection, V>(
        reply: &mut Reply,
        arguments: Arguments<'a>,
        collection: Option<(&'c C, bool)>,
        at: impl Fn(&'c C, usize) -> Option<(&'c [u8], V)>,
        write: impl Fn(&mut Reply, V) -> usize,
    ) -> Result<(), CommandError> {
        let cursor = Scan::cursor(arguments)?;
        let Some((collection, small)) = collection else {
            Scan::write_cursor(reply, 0);
            reply.array(0);
            return Ok(());
        };
        let scan = Scan::parse(cursor, arguments)?;
        let (places, next) = scan.places(collection.len(), small);
        Scan::write_cursor(reply, next);
        let mark = reply.begin();
        let mut given = 0;
        let elements = places.filter_map(|place| at(collection, place));
        for (name, value) in elements.filter(|(name, _)| scan.wants(name)) {
            reply.bulk(name);
            given += 1 + write(reply, value);
        }
        reply.end_array(mark, given);
        Ok(())
    }

    /// Begins the reply: the cursor.
    fn write_cursor(reply: &mut Reply, next: u64) {
        reply.array(2);
        let mut digits = itoa::Buffer::new();
        reply.bulk(digits.format(next).as_bytes());
    }
}

/// The count of keys at an index, and the index behind the last key.
///
/// # Errors
/// When it isn't positive, or beyond the arguments.
pub fn key_count(context: &Context<'_>, index: usize) -> Result<usize, CommandError> {
    const POSITIVE: CommandError = CommandError::Plain("ERR numkeys should be greater than 0");
    let count = number::integer(context.argument(index)).ok_or(POSITIVE)?;
    let count = usize::try_from(count)
        .ok()
        .filter(|&count| count > 0)
        .ok_or(POSITIVE)?;
    let end = count.checked_add(index + 1).ok_or(CommandError::Syntax)?;
    if end > context.arguments.len() {
        return Err(CommandError::Syntax);
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedCommand;
    use indexmap::IndexSet;
    use proptest::prelude::*;

    proptest! {
        /// What is there from the start of a scan to its end is given, whatever is added and removed meanwhile.
        #[test]
        fn a_scan_misses_nothing_that_stays(count in 1_usize..8, length in 0_u32..60, changes in prop::collection::vec((any::<u32>(), any::<bool>()), 0..60)) {
            let mut members: IndexSet<u32, foldhash::fast::FixedState> = (0..length).collect();
            let mut staying: HashSet<u32, foldhash::fast::FixedState> = (0..length).collect();
            let mut given = HashSet::<u32, foldhash::fast::FixedState>::default();
            let mut changes = changes.into_iter();
            let mut scan = Scan { cursor: 0, pattern: None, count };
            for _ in 0..200 {
                let (places, next) = scan.places(members.len(), false);
                given.extend(places.filter_map(|place| members.get_index(place)));
                if next == 0 {
                    break;
                }
                scan.cursor = next;
                if let Some((number, add)) = changes.next() {
                    if add {
                        members.insert(1_000 + number % 1_000);
                    } else if let Some(&gone) = members.get_index(number as usize % members.len().max(1)) {
                        members.swap_remove(&gone);
                        staying.remove(&gone);
                    }
                }
            }
            prop_assert!(staying.is_subset(&given));
        }

        #[test]
        fn samples_are_what_they_say(seed: u64, length in 0_usize..50, count in -60_i64..60) {
            let mut keyspace = Keyspace::new(seed, 1);
            let places = Sample::new(count).unwrap().places(length, &mut keyspace);
            prop_assert!(places.iter().all(|&place| place < length));
            if count >= 0 {
                prop_assert_eq!(places.len(), length.min(count as usize));
                let mut sorted = places.clone();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert_eq!(sorted.len(), places.len());
            } else if length > 0 {
                prop_assert_eq!(places.len() as i64, -count);
            }
        }
    }

    #[test]
    fn scan_options_are_read() {
        let parse = |text: &str| {
            let command = OwnedCommand::new(text.split(' ').map(str::as_bytes));
            Scan::cursor(command.arguments())
                .and_then(|cursor| Scan::parse(cursor, command.arguments()))
                .map(|scan| (scan.cursor, scan.count, scan.pattern.map(<[u8]>::to_vec)))
        };
        assert_eq!(parse("HSCAN k 0"), Ok((0, 10, None)));
        assert_eq!(
            parse("HSCAN k 7 COUNT 3 match a*"),
            Ok((7, 3, Some(b"a*".to_vec())))
        );
        assert_eq!(parse("HSCAN k 0 COUNT 0"), Err(CommandError::Syntax));
        assert_eq!(parse("HSCAN k 0 COUNT"), Err(CommandError::Syntax));
        assert_eq!(parse("HSCAN k x"), Err(CommandError::Plain("ERR invalid cursor")));
    }
}
