//! What commands journal gives the same key space again.
//!
//! Random commands run on a server; its groups go into a map that stands for the store; a second server loads it in any order. Both must have the same
//! keys with the same elements, and the store nothing but what they need.

use crate::journal::for_each_entry;
use crate::keyspace::Keyspace;
use crate::loading::Loading;
use crate::testing::Bench;
use crate::value::Value;
use interface::key_value::Entry;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

type Store = BTreeMap<Vec<u8>, Vec<u8>>;

/// Key, metadata and elements of everything that there is.
type Content = BTreeMap<Vec<u8>, (&'static str, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>)>;

/// Moves what is journaled into the store.
fn append(keyspace: &mut Keyspace, store: &mut Store) {
    let groups: Vec<_> = keyspace.journal.take_groups().drain(..).collect();
    for group in groups {
        for_each_entry(&group.entries, |entry| match *entry {
            Entry::Put { key, value } => {
                store.insert(key.to_vec(), value.to_vec());
            }
            Entry::PutStaged { key, value, .. } => {
                let staged = group.staged.iter().find(|staged| staged.number == value);
                store.insert(key.to_vec(), staged.expect("staged in its group").bytes.clone());
            }
            Entry::Delete { key } => {
                store.remove(key);
            }
            Entry::Clear => store.clear(),
            Entry::Key { .. } => {}
        });
    }
}

fn content(keyspace: &Keyspace) -> Content {
    let mut all = Content::new();
    let database = keyspace.database(0).expect("a database");
    for (_, key, entry) in database.keys.iter() {
        let (mut metadata, mut elements) = (Vec::new(), BTreeMap::new());
        match &entry.value {
            Value::String(string) => metadata.extend(string.len().to_le_bytes()),
            Value::Collection(collection) => {
                collection.metadata(&mut metadata);
                collection.for_each_element(&mut |element, value| {
                    assert!(elements.insert(element.to_vec(), value.to_vec()).is_none());
                });
            }
        }
        all.insert(key.to_vec(), (entry.value.kind().name(), metadata, elements));
    }
    all
}

/// One command of a few keys, members and numbers.
fn command() -> impl Strategy<Value = String> {
    const TEMPLATES: &[&str] = &[
        "lpush L M M",
        "rpush L M M M",
        "linsert L before M M",
        "linsert L after M M",
        "lset L N M",
        "lrem L N M",
        "ltrim L 1 -2",
        "lpop L 2",
        "rpop L",
        "lmove L L left right",
        "lmove L L right right",
        "lmpop 2 L L right count 2",
        "sort L alpha store L",
        "hset H M M M M",
        "hdel H M M",
        "hincrby H M N",
        "hincrbyfloat H n N.5",
        "hsetnx H M M",
        "sadd S M M M",
        "srem S M",
        "spop S",
        "spop S 3",
        "smove S S M",
        "sunionstore S S S",
        "sinterstore S S S",
        "sdiffstore S S S",
        "zadd Z N M N M",
        "zadd Z gt ch N M",
        "zincrby Z N M",
        "zrem Z M",
        "zpopmin Z 2",
        "zpopmax Z",
        "zunionstore Z 2 Z S weights 2 N",
        "zinterstore Z 2 Z Z aggregate max",
        "zdiffstore Z 2 Z Z",
        "zrangestore Z Z 0 2",
        "zremrangebyrank Z 0 0",
        "zremrangebyscore Z N N",
        "xadd X * M M",
        "xadd X maxlen 5 * M M M M",
        "xadd X minid ~ 3 * M M",
        "xtrim X maxlen = 3",
        "xdel X 1700000000000-0 1700000000000-N",
        "xgroup create X g 0 mkstream",
        "xgroup create X M $",
        "xgroup destroy X g",
        "xgroup delconsumer X g M",
        "xgroup setid X g 0",
        "xreadgroup group g M count 2 streams X >",
        "xreadgroup group g M noack streams X >",
        "xreadgroup group g M streams X 0",
        "xack X g 1700000000000-0 1700000000000-1",
        "xclaim X g M 0 1700000000000-0 1700000000000-1 force",
        "xautoclaim X g M 0 0",
        "xsetid X 1700000000009-0",
        "copy L L replace",
        "copy X X replace",
        "copy Z Z replace",
        "rename H H",
        "rename S S",
        "del L",
        "del X",
        "set H M",
        "set S M",
        "expire Z 1000",
        "persist Z",
    ];
    (0..TEMPLATES.len(), proptest::collection::vec(0_u8..8, 12)).prop_map(|(template, choices)| {
        let mut choices = choices.into_iter().cycle();
        let mut next = || choices.next().unwrap_or(0);
        let words = TEMPLATES[template].split(' ').map(|word| match word {
            "L" | "H" | "S" | "Z" | "X" => format!("{}{}", word.to_lowercase(), next() % 3),
            // One member is too long for a name in the store, one value too long for an entry.
            "M" => match next() {
                0 => "long".repeat(400),
                number => format!("m{number}"),
            },
            word if word.contains('N') => word.replace('N', &format!("{}", next() % 5)),
            word => String::from(word),
        });
        words.collect::<Vec<_>>().join(" ")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_restart_finds_the_same_key_space(commands in proptest::collection::vec(command(), 1..120), seed: u64) {
        let mut bench = Bench::default();
        let mut store = Store::new();
        for command in &commands {
            bench.run(command);
            append(&mut bench.server.keyspace, &mut store);
        }
        while bench.server.keyspace.remove_remains(10) {}
        append(&mut bench.server.keyspace, &mut store);
        let wanted = content(&bench.server.keyspace);
        let elements: usize = wanted.values().map(|(_, _, elements)| elements.len()).sum();
        prop_assert_eq!(store.len(), wanted.len() + elements);

        let mut entries: Vec<_> = store.iter().collect();
        let mut random = seed | 1;
        for last in (1..entries.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            entries.swap(last, (random >> 33) as usize % (last + 1));
        }
        let mut again = Bench::default();
        let mut loading = Loading::default();
        for (name, value) in entries {
            loading.take(&mut again.server.keyspace, name, value);
        }
        let loaded = loading.finish(&mut again.server.keyspace);
        prop_assert_eq!((loaded.strays, loaded.malformed), (0, 0));
        prop_assert_eq!(content(&again.server.keyspace), wanted);
        for key in ["l0", "l1", "l2"] {
            let command = format!("lrange {key} 0 -1");
            prop_assert_eq!(again.run(&command), bench.run(&command));
        }
        for key in ["z0", "z1", "z2"] {
            let command = format!("zrange {key} 0 -1 withscores");
            prop_assert_eq!(again.run(&command), bench.run(&command));
        }
        for key in ["x0", "x1", "x2"] {
            let command = format!("xinfo stream {key} full count 0");
            prop_assert_eq!(again.run(&command), bench.run(&command));
        }
    }
}
