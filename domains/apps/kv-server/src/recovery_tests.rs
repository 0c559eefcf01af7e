//! What the journal writes is what a start reads: after any commands, and cut off behind any group.

use crate::journal::{REDO_KEY, SPACES_KEY, Staged, for_each_entry, read_redo};
use crate::keyspace::{DATABASES, Keyspace};
use crate::loading::Loading;
use crate::testing::Bench;
use crate::value::{StringValue, Value};
use interface::key_value::Entry;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::prelude::v1::*;

type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

fn apply(disk: &mut Disk, entries: &[u8], staged: &[Staged]) {
    for_each_entry(entries, |entry| match entry {
        Entry::Put { key, value } => {
            disk.insert(key.to_vec(), value.to_vec());
        }
        Entry::PutStaged { key, value, .. } => {
            let staged = staged.iter().find(|staged| staged.number == *value);
            disk.insert(key.to_vec(), staged.expect("it was staged").bytes.clone());
        }
        Entry::Delete { key } => {
            disk.remove(*key);
        }
        Entry::Clear => disk.clear(),
        Entry::Key { .. } => unreachable!("only scans give these"),
    });
}

/// All keys with what they hold, in an order of their own.
fn content(keyspace: &Keyspace) -> Vec<String> {
    let mut lines = Vec::new();
    for number in 0..DATABASES {
        let Some(database) = keyspace.database(number) else {
            continue;
        };
        for (_, key, entry) in database.keys.iter() {
            let mut elements = Vec::new();
            match &entry.value {
                Value::String(StringValue::Memory(bytes)) => elements.push(format!("{bytes:?}")),
                Value::String(StringValue::Stored { length }) => elements.push(format!("{length} stored")),
                Value::Collection(collection) => {
                    let mut metadata = Vec::new();
                    collection.metadata(&mut metadata);
                    elements.push(format!("{metadata:?}"));
                    collection.for_each_element(&mut |element, value| {
                        elements.push(format!("{element:?}={value:?}"))
                    });
                }
            }
            elements.sort();
            lines.push(format!("{number} {key:?} {} {elements:?}", entry.expires_ms));
        }
    }
    lines.sort();
    lines
}

/// What a start makes of a disk.
fn start(disk: &Disk) -> Vec<String> {
    let mut disk = disk.clone();
    if let Some(redo) = disk.remove(REDO_KEY) {
        for (entries, staged) in read_redo(&redo).expect("a long unit") {
            apply(&mut disk, &entries, &staged);
        }
    }
    let mut keyspace = Keyspace::new(99, 0);
    if let Some(spaces) = disk.get(SPACES_KEY) {
        keyspace.load_spaces(spaces).expect("spaces");
    }
    let mut loading = Loading::default();
    for (name, value) in &disk {
        loading.take(&mut keyspace, name, value);
    }
    let loaded = loading.finish(&mut keyspace);
    assert_eq!(loaded.malformed, 0);
    content(&keyspace)
}

/// Runs commands, and after each compares what a start would find, whichever of its groups were the last: most groups of one command.
fn check(commands: &[String]) -> usize {
    let mut bench = Bench::default();
    let mut disk = Disk::new();
    let mut before = content(&bench.server.keyspace);
    let mut most = 0;
    for command in commands {
        bench.run(command);
        bench.server.keyspace.remove_remains(3);
        let after = content(&bench.server.keyspace);
        let groups: Vec<_> = core::mem::take(bench.server.keyspace.journal.take_groups()).into();
        most = most.max(groups.len());
        for (place, group) in groups.iter().enumerate() {
            apply(&mut disk, &group.entries, &group.staged);
            let found = start(&disk);
            let is_last = place + 1 == groups.len();
            assert!(
                found == after || found == before && !is_last,
                "after group {place} of {} of {command:.60}",
                groups.len()
            );
        }
        assert_eq!(start(&disk), after, "{command:.60}");
        before = after;
    }
    most
}

fn command() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("a"), Just("b"), Just("c")];
    let member = 0..6_u8;
    (key.clone(), key, member, -5..40_i64, 0..28_u8).prop_map(|(key, other, member, number, which)| {
        match which {
            0 | 1 => format!("set {key} {number}"),
            2 => format!("append {key} {}", "x".repeat(number.unsigned_abs() as usize)),
            3 => format!("set {key} v px 100000"),
            4 => format!("pexpire {key} 5000{member}"),
            5 => format!("persist {key}"),
            6 => format!("del {key}"),
            7 => format!("rename {key} {other}"),
            8 => format!("copy {key} {other} replace"),
            9 => format!("rpush {key} {member} {number}"),
            10 => format!("lpush {key} {member}"),
            11 => format!("lpop {key}"),
            12 => format!("linsert {key} before {member} {number}"),
            13 => format!("lrem {key} 0 {member}"),
            14 => format!("sadd {key} {member} {number}"),
            15 => format!("srem {key} {member}"),
            16 => format!("hset {key} f{member} {number}"),
            17 => format!("hdel {key} f{member}"),
            18 => format!("zadd {key} {number} m{member}"),
            19 => format!("zpopmin {key}"),
            20 => format!("xadd {key} * f {number}"),
            21 => format!("xtrim {key} maxlen 2"),
            22 => String::from("flushdb"),
            23 => String::from("swapdb 0 1"),
            24 => format!("move {key} 1"),
            25 => String::from("multi"),
            26 => String::from("exec"),
            _ => format!("setrange {key} {} y", number.unsigned_abs()),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever clients do, a start finds it.
    #[test]
    fn a_start_finds_what_was_there(commands in proptest::collection::vec(command(), 1..60)) {
        check(&commands);
    }
}

/// A command whose entries are more than a group: there as a whole or not at all, wherever the groups end.
#[test]
fn a_long_unit_is_whole_or_not_at_all() {
    let many: String = (0..6000).map(|number| format!(" member-{number}")).collect();
    let long = "x".repeat(20_000);
    let groups = check(&[
        String::from("set before 1"),
        format!("rpush list{many}"),
        format!("sadd set{many}"),
        String::from("multi"),
        format!("hset hash f {long} g {long}"),
        format!("rpush list {long}"),
        String::from("set after 2"),
        String::from("exec"),
        String::from("rename list set"),
        String::from("flushall"),
    ]);
    assert!(groups > 5, "{groups} groups");
}

/// Elements that are too long to name an entry are named by their digest.
#[test]
fn long_elements_come_back() {
    let (first, second) = ("a".repeat(5000), "b".repeat(40_000));
    check(&[
        format!("sadd s {first} {second} short"),
        format!("hset h {second} {first}"),
        format!("srem s {first}"),
        format!("hdel h {second}"),
    ]);
}

/// What is left of keys that are gone is removed from the store, all of it.
#[test]
fn nothing_is_left_of_what_was_deleted() {
    let mut bench = Bench::default();
    let mut disk = Disk::new();
    let many: String = (0..500).map(|number| format!(" {number}")).collect();
    for command in [
        format!("rpush a{many}"),
        format!("sadd b{many}"),
        String::from("zadd c 1 a 2 b"),
        String::from("hset d f v"),
        String::from("set e v"),
        String::from("del a"),
        String::from("set b x"),
        String::from("flushall"),
    ] {
        bench.run(&command);
    }
    while bench.server.keyspace.remove_remains(100) {}
    for group in bench.server.keyspace.journal.take_groups().drain(..) {
        apply(&mut disk, &group.entries, &group.staged);
    }
    disk.remove(SPACES_KEY);
    assert_eq!(disk, Disk::new());
    assert_eq!(bench.server.keyspace.used_bytes, 0);
}
