//! Whatever a client sends as arguments is answered: no command of a collection gives up on a number or a word.

use super::{
    blocking_lists, hashes, lists, set_algebra, sets, sort, sorted_set_algebra, sorted_set_ranges,
    sorted_sets,
};
use super::{stream_claims, stream_groups, stream_info, stream_reads, streams};
use crate::testing::Bench;
use proptest::prelude::*;
use std::vec::Vec;

const WORDS: &[&str] = &[
    "l",
    "h",
    "s",
    "z",
    "x",
    "string",
    "none",
    "l",
    "h",
    "s",
    "z",
    "x",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "-2",
    "10",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551615-18446744073709551615",
    "18446744073709551615-*",
    "9223372036854775806",
    "-9223372036854775807",
    "4611686018427387904",
    "1e308",
    "-1e308",
    "inf",
    "-inf",
    "nan",
    "0.1",
    "(1",
    "(inf",
    "[a",
    "(b",
    "-",
    "+",
    "*",
    "~",
    "=",
    "$",
    ">",
    "",
    "a",
    "b",
    "left",
    "right",
    "before",
    "after",
    "min",
    "max",
    "limit",
    "count",
    "withscores",
    "withvalues",
    "withscore",
    "match",
    "by",
    "get",
    "store",
    "alpha",
    "desc",
    "rank",
    "maxlen",
    "minid",
    "nx",
    "xx",
    "gt",
    "lt",
    "ch",
    "incr",
    "rev",
    "byscore",
    "bylex",
    "weights",
    "aggregate",
    "sum",
    "streams",
    "group",
    "g",
    "c",
    "block",
    "noack",
    "idle",
    "time",
    "retrycount",
    "force",
    "justid",
    "lastid",
    "mkstream",
    "entriesread",
    "entriesadded",
    "maxdeletedid",
    "full",
    "nomkstream",
    "create",
    "setid",
    "destroy",
    "createconsumer",
    "delconsumer",
    "stream",
    "groups",
    "consumers",
    "1-1",
    "5-0",
    "(5-0",
    "(0-0",
    "(18446744073709551615-18446744073709551615",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_arguments_are_answered(commands in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<prop::sample::Index>(), 0..9)), 1..150)) {
        let names: Vec<&str> = [
            blocking_lists::COMMANDS, hashes::COMMANDS, lists::COMMANDS, set_algebra::COMMANDS, sets::COMMANDS, sort::COMMANDS,
            sorted_set_algebra::COMMANDS, sorted_set_ranges::COMMANDS, sorted_sets::COMMANDS, stream_claims::COMMANDS,
            stream_groups::COMMANDS, stream_info::COMMANDS, stream_reads::COMMANDS, streams::COMMANDS,
        ].iter().flat_map(|group| group.iter().map(|command| command.name)).collect();
        let mut bench = Bench::default();
        for line in [
            "rpush l 1 2 3 a b", "hset h a 1 b 2", "sadd s 1 2 a b", "zadd z 1 a 2 b -inf c", "xadd x 1-1 a b", "xadd x 5-0 a b",
            "xgroup create x g 0", "set string v",
        ] {
            bench.run(line);
        }
        for (name, words) in commands {
            // A subcommand is two words.
            let mut arguments: Vec<&[u8]> = name.get(&names).split('|').map(str::as_bytes).collect();
            arguments.extend(words.iter().map(|word| word.get(WORDS).as_bytes()));
            let reply = bench.send(&arguments);
            if reply.is_empty() {
                // It waits; its time comes.
                let waited = bench.server.waiting_count();
                prop_assert_eq!(waited, 1);
                let client = bench.client;
                bench.server.unblock(client, |server, reply, timeout| server.reply_timeout(reply, timeout));
                prop_assert!(!bench.heard(client).is_empty());
            } else {
                prop_assert!(reply.ends_with("\r\n"));
            }
        }
    }
}
