//! Where the keys of a command are that doesn't have them at fixed places: behind their number, behind STREAMS, behind STORE.

use crate::command::{Command, Flags};
use crate::number;
use crate::protocol::Arguments;
use alloc::vec::Vec;

/// The indexes of the keys of `command`, whose name is at the index `start` of `arguments`, counted from there.
pub fn key_places(command: &Command, arguments: Arguments<'_>, start: usize) -> Vec<usize> {
    let count = arguments.len().saturating_sub(start);
    let mut found: Vec<usize> = Vec::new();
    let fixed = command.keys;
    if fixed.first > 0 {
        let last = match fixed.last {
            last if last < 0 => (count as i64 + i64::from(last)) as usize,
            last => last as usize,
        };
        found.extend((fixed.first as usize..=last).step_by(fixed.step.max(1) as usize));
    }
    if command.flags.contains(Flags::MOVABLE_KEYS) {
        match command.name {
            "sort" => found.extend(stored_at(arguments, start)),
            "sort_ro" => {}
            "georadius" | "georadiusbymember" => found.extend(geo_target(arguments, start)),
            "xread" | "xreadgroup" => found.extend(streams(arguments, start)),
            name => {
                // "numkeys key [key ...]", in front of it a timeout or the target.
                let place = match name {
                    "blmpop" | "bzmpop" => 2,
                    name if name.ends_with("store") => 2,
                    _ => 1,
                };
                let number = number::integer(arguments.get(start + place)).unwrap_or_default();
                let number = usize::try_from(number).unwrap_or_default().min(count);
                found.extend(place + 1..place + 1 + number);
            }
        }
    }
    found.retain(|place| *place < count);
    found
}

/// What a command does with the key at a place, as COMMAND GETKEYSANDFLAGS says it.
pub fn key_uses(command: &Command, place: usize) -> &'static [&'static str] {
    let name = command.name;
    let is_read = command.flags.contains(Flags::READONLY) || !command.flags.contains(Flags::WRITE);
    // The target is the first key, but SORT's.
    let is_target = match name {
        "sort" => place > 1,
        "bitop" => place == 2,
        name => name.ends_with("store") && place == 1,
    };
    match name {
        _ if is_target => &["OW", "update"],
        _ if is_read => &["RO", "access"],
        "set" | "mset" | "setex" | "psetex" => &["OW", "update"],
        "msetnx" | "setnx" => &["OW", "insert"],
        "del" | "unlink" => &["RM", "delete"],
        "sort" => &["RO", "access"],
        "copy" if place == 1 => &["RO", "access"],
        "copy" => &["OW", "update"],
        "bitop" => &["RO", "access"],
        "rename" | "renamenx" if place == 1 => &["RW", "access", "delete"],
        "rename" => &["OW", "update"],
        "renamenx" => &["OW", "insert"],
        "lmove" | "blmove" | "rpoplpush" | "brpoplpush" | "smove" if place == 1 => {
            &["RW", "access", "delete"]
        }
        "lmove" | "blmove" | "rpoplpush" | "brpoplpush" | "smove" | "lpush" | "rpush" | "lpushx"
        | "rpushx" | "linsert" | "sadd" | "append" => &["RW", "insert"],
        name if name.contains("pop") => &["RW", "access", "delete"],
        "getdel" => &["RW", "access", "delete"],
        "hdel" | "srem" | "zrem" | "lrem" | "ltrim" | "xdel" | "xtrim" => &["RW", "delete"],
        name if name.starts_with("zremrange") => &["RW", "delete"],
        name if name.ends_with("store") => &["RO", "access"],
        _ => &["RW", "access", "update"],
    }
}

/// The target of SORT: behind the last STORE.
fn stored_at(arguments: Arguments<'_>, start: usize) -> Option<usize> {
    let mut target = None;
    let mut at = start + 2;
    while at < arguments.len() {
        if arguments.is(at, "limit") {
            at += 2;
        } else if arguments.is(at, "get") || arguments.is(at, "by") {
            at += 1;
        } else if arguments.is(at, "store") {
            at += 1;
            target = Some(at - start);
        }
        at += 1;
    }
    target
}

/// The target of GEORADIUS: behind STORE or STOREDIST, the last of them.
fn geo_target(arguments: Arguments<'_>, start: usize) -> Option<usize> {
    (start + 5..arguments.len())
        .rev()
        .find(|at| arguments.is(at - 1, "store") || arguments.is(at - 1, "storedist"))
        .map(|at| at - start)
}

/// The keys behind STREAMS: half of what follows.
fn streams(arguments: Arguments<'_>, start: usize) -> core::ops::Range<usize> {
    let mut at = start + 1;
    while at < arguments.len() && !arguments.is(at, "streams") {
        at += match () {
            () if arguments.is(at, "group") => 3,
            () if arguments.is(at, "block") || arguments.is(at, "count") => 2,
            () => 1,
        };
    }
    let first = at + 1;
    let number = arguments.len().saturating_sub(first) / 2;
    first - start..first - start + number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Table;
    use crate::protocol::OwnedCommand;

    #[test]
    fn keys_are_found_wherever_they_are() {
        let table = Table::new();
        for (line, keys) in [
            ("get a", "a"),
            ("mset a 1 b 2", "a b"),
            ("blpop a b 0", "a b"),
            ("zunionstore t 2 a b weights 1 2", "t a b"),
            ("zinter 2 a b withscores", "a b"),
            ("lmpop 2 a b left", "a b"),
            ("blmpop 0 2 a b left", "a b"),
            ("sort a by w_* get # store b", "a b"),
            ("sort a store x store b", "a b"),
            ("sort_ro a get store", "a"),
            ("georadius a 1 2 3 km store b", "a b"),
            ("georadiusbymember a m 3 km asc", "a"),
            ("xread count 2 block 0 streams a b 0 0", "a b"),
            ("xreadgroup group streams c streams a >", "a"),
        ] {
            let command = OwnedCommand::new(line.split(' ').map(str::as_bytes));
            let arguments = command.arguments();
            let found = table
                .find(arguments.get(0), b"")
                .and_then(|position| table.get(position));
            let places = key_places(found.expect(line), arguments, 0);
            let named: Vec<_> = places.into_iter().map(|place| arguments.get(place)).collect();
            assert_eq!(named.join(&b' '), keys.as_bytes(), "{line}");
        }
    }
}
