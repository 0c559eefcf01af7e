//! Commands of collections as a client sees them: replies in both protocols, who is served when several wait, what stays small.

use crate::testing::{Bench, connect};
use std::string::String;
use std::vec::Vec;

/// Replies on one line: line ends are blanks.
fn run(bench: &mut Bench, line: &str) -> String {
    let reply = bench.run(line).replace("\r\n", " ");
    String::from(reply.trim_end())
}

fn check(bench: &mut Bench, steps: &[(&str, &str)]) {
    for (line, reply) in steps {
        assert_eq!(run(bench, line), *reply, "{line}");
    }
}

#[test]
fn doubles_maps_and_sets_have_their_types_in_resp3() {
    let mut bench = Bench::default();
    check(
        &mut bench,
        &[
            ("zadd z 1.5 a inf b", ":2"),
            ("hset h f v", ":1"),
            ("sadd s m", ":1"),
            ("zscore z a", "$3 1.5"),
            ("zrange z 0 0 withscores", "*2 $1 a $3 1.5"),
            ("hgetall h", "*2 $1 f $1 v"),
            ("smembers s", "*1 $1 m"),
        ],
    );
    bench.run("hello 3");
    check(
        &mut bench,
        &[
            ("zscore z a", ",1.5"),
            ("zscore z none", "_"),
            ("zrange z 0 -1 withscores", "*2 *2 $1 a ,1.5 *2 $1 b ,inf"),
            ("zpopmin z", "*2 $1 a ,1.5"),
            ("zpopmax z 1", "*1 *2 $1 b ,inf"),
            ("hgetall h", "%1 $1 f $1 v"),
            ("hgetall none", "%0"),
            ("hrandfield h 1 withvalues", "*1 *2 $1 f $1 v"),
            ("smembers s", "~1 $1 m"),
            ("sinter s none", "~0"),
            ("lpop none 1", "_"),
            ("xadd x 1-1 f v", "$3 1-1"),
            ("xread streams x 0", "%1 $1 x *1 *2 $3 1-1 *2 $1 f $1 v"),
        ],
    );
}

#[test]
fn encodings_follow_the_sizes() {
    let mut bench = Bench::default();
    let long = "x".repeat(65);
    let steps = [
        ("sadd s 1 2 3", "s", "intset"),
        ("sadd s a", "s", "listpack"),
        ("srem s a", "s", "listpack"),
        ("hset h f v", "h", "listpack"),
        ("zadd z 1 a", "z", "listpack"),
        ("rpush l a", "l", "listpack"),
        ("xadd x * f v", "x", "stream"),
    ];
    for (line, key, encoding) in steps {
        bench.run(line);
        let wanted = format!("${} {encoding}", encoding.len());
        assert_eq!(
            run(&mut bench, &format!("object encoding {key}")),
            wanted,
            "{line}"
        );
    }
    for (line, key, encoding) in [
        (format!("sadd s {long}"), "s", "hashtable"),
        (format!("hset h f {long}"), "h", "hashtable"),
        (format!("zadd z 1 {long}"), "z", "skiplist"),
        (format!("rpush l {}", "y".repeat(9_000)), "l", "quicklist"),
    ] {
        bench.run(&line);
        let wanted = format!("${} {encoding}", encoding.len());
        assert_eq!(
            run(&mut bench, &format!("object encoding {key}")),
            wanted,
            "{line}"
        );
    }
    bench.run("config set set-max-intset-entries 2");
    bench.run("sadd t 1 2 3");
    assert_eq!(run(&mut bench, "object encoding t"), "$8 listpack");
}

/// Who waits longest is served first, one client for each element, and whoever finds nothing waits on.
#[test]
fn waiting_clients_are_served_in_order() {
    let mut bench = Bench::default();
    let first = connect(&mut bench.server);
    let second = connect(&mut bench.server);
    let third = connect(&mut bench.server);
    assert_eq!(bench.run_as(first, "blpop a b 0"), "");
    assert_eq!(bench.run_as(second, "brpop b 0"), "");
    assert_eq!(bench.run_as(third, "blmove b c left right 5"), "");
    check(&mut bench, &[("rpush b 1 2", ":2")]);
    assert_eq!(bench.heard(first), "*2\r\n$1\r\nb\r\n$1\r\n1\r\n");
    assert_eq!(bench.heard(second), "*2\r\n$1\r\nb\r\n$1\r\n2\r\n");
    assert_eq!(bench.heard(third), "");
    check(
        &mut bench,
        &[("exists b", ":0"), ("set b string", "+OK"), ("del b", ":1")],
    );
    assert_eq!(bench.heard(third), "");
    check(&mut bench, &[("lpush b 3", ":1"), ("lrange c 0 -1", "*1 $1 3")]);
    assert_eq!(bench.heard(third), "$1\r\n3\r\n");
    assert_eq!(bench.server.waiting_count(), 0);
}

#[test]
fn waiting_ends_with_its_time() {
    let mut bench = Bench::default();
    let other = connect(&mut bench.server);
    assert_eq!(bench.run_as(other, "bzpopmin z 0.5"), "");
    bench.pass_ms(499);
    assert_eq!(bench.heard(other), "");
    bench.pass_ms(1);
    assert_eq!(bench.heard(other), "*-1\r\n");
    check(&mut bench, &[("zadd z 1 a", ":1"), ("zcard z", ":1")]);
}

/// In a transaction nobody waits: the answer is that there is nothing.
#[test]
fn a_transaction_does_not_wait() {
    let mut bench = Bench::default();
    for line in [
        "multi",
        "blpop a 0",
        "blmove a b left left 0",
        "bzmpop 0 1 z min",
        "xread block 0 streams x $",
    ] {
        bench.run(line);
    }
    assert_eq!(run(&mut bench, "exec"), "*4 *-1 $-1 *-1 *-1");
}

/// What "$" meant when the command came counts, however often the stream changes before it goes on.
#[test]
fn a_reader_gets_what_came_behind_its_question() {
    let mut bench = Bench::default();
    bench.run("xadd x 1-0 f old");
    let reader = connect(&mut bench.server);
    assert_eq!(bench.run_as(reader, "xread block 0 streams y x 0 $"), "");
    check(
        &mut bench,
        &[
            ("multi", "+OK"),
            ("xadd x 2-0 f a", "+QUEUED"),
            ("xadd x 3-0 f b", "+QUEUED"),
        ],
    );
    bench.run("exec");
    assert_eq!(
        bench.heard(reader).replace("\r\n", " "),
        "*1 *2 $1 x *2 *2 $3 2-0 *2 $1 f $1 a *2 $3 3-0 *2 $1 f $1 b "
    );
}

#[test]
fn a_group_gives_each_entry_to_one_consumer_until_it_is_acknowledged() {
    let mut bench = Bench::default();
    check(
        &mut bench,
        &[
            ("xgroup create x g 0 mkstream", "+OK"),
            (
                "xgroup create x g 0",
                "-BUSYGROUP Consumer Group name already exists",
            ),
            ("xadd x 1-0 f a", "$3 1-0"),
            ("xadd x 2-0 f b", "$3 2-0"),
            (
                "xreadgroup group g c1 count 1 streams x >",
                "*1 *2 $1 x *1 *2 $3 1-0 *2 $1 f $1 a",
            ),
            (
                "xreadgroup group g c2 streams x >",
                "*1 *2 $1 x *1 *2 $3 2-0 *2 $1 f $1 b",
            ),
            ("xreadgroup group g c2 streams x >", "*-1"),
            (
                "xpending x g",
                "*4 :2 $3 1-0 $3 2-0 *2 *2 $2 c1 $1 1 *2 $2 c2 $1 1",
            ),
            ("xack x g 1-0 9-0", ":1"),
            ("xclaim x g c1 0 2-0 justid", "*1 $3 2-0"),
            (
                "xreadgroup group g c1 streams x 0",
                "*1 *2 $1 x *1 *2 $3 2-0 *2 $1 f $1 b",
            ),
            ("xdel x 2-0", ":1"),
            ("xautoclaim x g c2 0 0", "*3 $3 0-0 *0 *1 $3 2-0"),
            ("xpending x g", "*4 :0 $-1 $-1 *-1"),
            (
                "xreadgroup group none c streams x >",
                "-NOGROUP No such key 'x' or consumer group 'none' in XREADGROUP with GROUP option",
            ),
        ],
    );
}

/// Insertions at one place use up the positions between two elements; the list is numbered anew and goes on.
#[test]
fn a_list_takes_any_number_of_insertions_at_one_place() {
    let mut bench = Bench::default();
    bench.run("rpush l first last");
    for number in 0..200 {
        assert_eq!(
            run(&mut bench, &format!("linsert l before last {number}")),
            format!(":{}", number + 3)
        );
    }
    assert_eq!(run(&mut bench, "lindex l 100"), "$2 99");
    assert_eq!(run(&mut bench, "lindex l -2"), "$3 199");
}

#[test]
fn a_scan_of_a_large_set_gives_all_of_it() {
    let mut bench = Bench::default();
    for start in (0..1_000).step_by(100) {
        let members: Vec<String> = (start..start + 100).map(|number| format!("m{number}")).collect();
        bench.run(&format!("sadd s {}", members.join(" ")));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = String::from("0");
    loop {
        let reply = bench.run(&format!("sscan s {cursor} count 37"));
        let mut words = reply
            .split("\r\n")
            .filter(|word| !word.starts_with(['*', '$']) && !word.is_empty());
        cursor = words.next().map(String::from).expect("a cursor");
        seen.extend(words.map(String::from));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 1_000);
}

#[test]
fn wrong_types_and_arguments_are_told_as_redis_does() {
    let mut bench = Bench::default();
    bench.run("set string v");
    for line in [
        "lpush string a",
        "hget string f",
        "sadd string a",
        "zadd string 1 a",
        "xadd string * f v",
        "sort string",
        "blpop string 0",
        "sunion string",
        "zunion 1 string",
        "xread streams string 0",
    ] {
        assert_eq!(
            run(&mut bench, line),
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
            "{line}"
        );
    }
    check(
        &mut bench,
        &[
            (
                "zadd z nx xx 1 a",
                "-ERR XX and NX options at the same time are not compatible",
            ),
            ("zadd z nan a", "-ERR value is not a valid float"),
            ("zadd z inf a", ":1"),
            ("zincrby z -inf a", "-ERR resulting score is not a number (NaN)"),
            ("zrangebyscore z x 1", "-ERR min or max is not a float"),
            (
                "zunion 0 z",
                "-ERR at least 1 input key is needed for 'zunion' command",
            ),
            ("hset h f", "-ERR wrong number of arguments for 'hset' command"),
            (
                "hset h f v g",
                "-ERR wrong number of arguments for 'hset' command",
            ),
            ("hset h f v", ":1"),
            ("hincrby h f 1", "-ERR hash value is not an integer"),
            ("lset none 0 v", "-ERR no such key"),
            ("rpush l a", ":1"),
            ("lset l 5 v", "-ERR index out of range"),
            ("spop s -1", "-ERR value is out of range, must be positive"),
            ("srandmember s -9223372036854775808", "-ERR value is out of range"),
            ("lmpop 0 l left", "-ERR numkeys should be greater than 0"),
            ("blpop l x", "-ERR timeout is not a float or out of range"),
            (
                "xadd x 0-0 f v",
                "-ERR The ID specified in XADD must be greater than 0-0",
            ),
        ],
    );
}
