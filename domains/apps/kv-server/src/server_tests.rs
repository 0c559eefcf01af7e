//! What clients see of the server as a whole: transactions, subscriptions, waiting, passwords, limits, time.

use crate::config::Config;
use crate::server::{After, Phase};
use crate::testing::{Bench, connect};
use interface::key_value::StoreError;
use std::prelude::v1::*;

#[test]
fn a_transaction_runs_at_once_or_not_at_all() {
    let mut bench = Bench::default();
    let other = connect(&mut bench.server);
    assert_eq!(bench.run("exec"), "-ERR EXEC without MULTI\r\n");
    assert_eq!(bench.run("watch a"), "+OK\r\n");
    assert_eq!(bench.run("multi"), "+OK\r\n");
    assert_eq!(bench.run("set a 1"), "+QUEUED\r\n");
    assert_eq!(bench.run("lpush a 1"), "+QUEUED\r\n");
    assert_eq!(
        bench.run("exec"),
        "*2\r\n+OK\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    );
    bench.run("watch a");
    bench.run("multi");
    bench.run("set a 2");
    bench.run_as(other, "set a 3");
    assert_eq!(bench.run("exec"), "*-1\r\n");
    assert_eq!(bench.run("get a"), "$1\r\n3\r\n");
    bench.run("multi");
    assert!(bench.run("nonsense").starts_with("-ERR unknown command"));
    assert!(bench.run("exec").starts_with("-EXECABORT"));
}

#[test]
fn a_watched_key_changes_with_its_database() {
    let mut bench = Bench::default();
    let other = connect(&mut bench.server);
    bench.run("set a 1");
    bench.run("watch a");
    bench.run_as(other, "flushall");
    bench.run("multi");
    assert_eq!(bench.run("exec"), "*-1\r\n");
}

#[test]
fn messages_reach_those_who_listen() {
    let mut bench = Bench::default();
    let (first, second) = (connect(&mut bench.server), connect(&mut bench.server));
    assert_eq!(
        bench.run_as(first, "subscribe news"),
        "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
    );
    bench.run_as(second, "hello 3");
    bench.run_as(second, "psubscribe n*");
    assert_eq!(bench.run("publish news hi"), ":2\r\n");
    assert_eq!(
        bench.heard(first),
        "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n"
    );
    assert_eq!(
        bench.heard(second),
        ">4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$2\r\nhi\r\n"
    );
    assert!(
        bench
            .run_as(first, "get a")
            .starts_with("-ERR Can't execute 'get'")
    );
    // RESP3 lets it ask for more.
    assert_eq!(bench.run_as(second, "get a"), "_\r\n");
    assert_eq!(bench.run("pubsub numpat"), ":1\r\n");
    bench.server.disconnect(second);
    assert_eq!(bench.run("pubsub numpat"), ":0\r\n");
}

#[test]
fn events_of_keys_are_published() {
    let mut bench = Bench::default();
    let listener = connect(&mut bench.server);
    bench.run("config set notify-keyspace-events KEA");
    bench.run_as(listener, "psubscribe __key*__:*");
    bench.run("set a 1 px 10");
    let heard = bench.heard(listener);
    assert!(
        heard.contains("__keyspace@0__:a") && heard.contains("__keyevent@0__:expire"),
        "{heard}"
    );
    bench.pass_ms(20);
    assert!(bench.heard(listener).contains("expired"));
}

#[test]
fn who_waits_is_served_in_turn() {
    let mut bench = Bench::default();
    let (first, second) = (connect(&mut bench.server), connect(&mut bench.server));
    assert_eq!(bench.run_as(first, "blpop l 0"), "");
    assert_eq!(bench.run_as(second, "blpop l 1"), "");
    bench.run("rpush l a");
    assert_eq!(bench.heard(first), "*2\r\n$1\r\nl\r\n$1\r\na\r\n");
    assert_eq!(bench.heard(second), "");
    bench.pass_ms(1001);
    assert_eq!(bench.heard(second), "*-1\r\n");
    assert_eq!(bench.server.waiting_count(), 0);
    // In a transaction nobody waits.
    bench.run("multi");
    bench.run("blpop l 0");
    assert_eq!(bench.run("exec"), "*1\r\n*-1\r\n");
}

#[test]
fn keys_expire() {
    let mut bench = Bench::default();
    bench.run("set a 1 ex 10");
    assert_eq!(bench.run("ttl a"), ":10\r\n");
    bench.pass_ms(9_999);
    assert_eq!(bench.run("exists a"), ":1\r\n");
    bench.pass_ms(1);
    assert_eq!(bench.run("exists a"), ":0\r\n");
    assert_eq!(bench.run("dbsize"), ":0\r\n");
    bench.run("set a 1");
    assert_eq!(bench.run("expire a -1"), ":1\r\n");
    assert_eq!(bench.run("get a"), "$-1\r\n");
}

#[test]
fn a_password_is_asked_for() {
    let mut bench = Bench::default();
    bench.run("config set requirepass secret");
    let stranger = connect(&mut bench.server);
    assert_eq!(
        bench.run_as(stranger, "get a"),
        "-NOAUTH Authentication required.\r\n"
    );
    assert!(bench.run_as(stranger, "auth wrong").starts_with("-WRONGPASS"));
    assert_eq!(bench.run_as(stranger, "auth secret"), "+OK\r\n");
    assert_eq!(bench.run_as(stranger, "get a"), "$-1\r\n");
    assert!(!format!("{:?}", bench.server.config).contains("secret"));
}

#[test]
fn memory_has_a_limit_for_writes_only() {
    let mut bench = Bench::default();
    bench.run("set a 1");
    bench.run("config set maxmemory 1");
    assert_eq!(
        bench.run("set b 1"),
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    );
    assert_eq!(bench.run("get a"), "$1\r\n1\r\n");
    assert_eq!(bench.run("del a"), ":1\r\n");
    assert_eq!(bench.server.keyspace.used_bytes, 0);
}

#[test]
fn the_store_decides_what_is_served() {
    let mut bench = Bench::default();
    bench.server.phase = Phase::Loading(3);
    assert_eq!(
        bench.run("get a"),
        "-LOADING Redis is loading the dataset in memory\r\n"
    );
    assert!(bench.run("info").contains("loading:1"));
    bench.server.phase = Phase::WriteFailed(StoreError::Full);
    assert_eq!(bench.run("get a"), "$-1\r\n");
    assert!(bench.run("set a 1").starts_with("-MISCONF"));
    bench.server.phase = Phase::Unavailable(StoreError::NoPartition);
    assert!(bench.run("get a").starts_with("-MISCONF"));
}

#[test]
fn a_paused_client_is_executed_later() {
    let mut bench = Bench::default();
    bench.run("client pause 100 write");
    let command = crate::protocol::OwnedCommand::new([&b"set"[..], b"a", b"1"].into_iter());
    let index = bench.client;
    assert_eq!(
        bench.server.execute(index, command.arguments(), 0),
        After::Postponed
    );
    assert_eq!(bench.run("get a"), "$-1\r\n");
    bench.server.keyspace.now_ms += 100;
    bench.server.do_due();
    assert_eq!(bench.server.execute(index, command.arguments(), 0), After::Data);
    assert_eq!(bench.heard(index), "+OK\r\n");
}

#[test]
fn replies_can_be_left_out() {
    let mut bench = Bench::default();
    assert_eq!(bench.run("client reply skip"), "");
    assert_eq!(bench.run("set a 1"), "");
    assert_eq!(bench.run("get a"), "$1\r\n1\r\n");
    assert_eq!(bench.run("client reply off"), "");
    assert_eq!(bench.run("get a"), "");
    assert_eq!(bench.run("client reply on"), "+OK\r\n");
}

#[test]
fn a_scan_finds_what_stays() {
    let mut bench = Bench::default();
    for number in 0..300 {
        bench.run(&format!("set key:{number} {number}"));
    }
    let (mut cursor, mut found) = (String::from("0"), std::collections::BTreeSet::new());
    loop {
        let reply = bench.run(&format!("scan {cursor} count 7"));
        let words: Vec<&str> = reply.split("\r\n").collect();
        cursor = words[2].to_owned();
        found.extend(
            words
                .iter()
                .filter(|word| word.starts_with("key:"))
                .map(|word| (*word).to_owned()),
        );
        // The table grows and shrinks meanwhile.
        let extra = found.len();
        bench.run(&format!("set extra:{extra} 1"));
        bench.run(&format!("del extra:{}", extra / 2));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 300);
}

#[test]
fn the_operators_file_is_read() {
    let text = "[kv]\nport = 7000\nappendfsync = 'always'\npassword = 'x'\nmaxmemory_mib = 3\n";
    let config = crate::config::read(text).expect("good");
    assert_eq!(
        (config.enabled, config.port, config.maximum_memory_bytes),
        (true, 7000, 3 << 20)
    );
    assert!(
        !crate::config::read("[network]\nmtu = 1500\n")
            .expect("good")
            .enabled
    );
    for (text, line) in [
        ("[kv]\nport = 0\n", 2),
        ("[kv]\n\nappendfsync = 'sometimes'\n", 3),
        ("[kv]\ncolour = 3\n", 2),
        ("[kv]\npassword = ''\n", 2),
    ] {
        let error = crate::config::read(text).expect_err(text);
        assert_eq!(error.line, line, "{error}");
    }
    assert_eq!(Config::default().port, 6379);
}
