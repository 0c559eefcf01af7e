//! Values go there and come back, and whatever else comes does no harm.

use super::{open, read, seal};
use crate::testing::Bench;
use alloc::vec::Vec;
use proptest::prelude::*;

/// What DUMP says of the key `a`.
fn dumped(bench: &mut Bench) -> Vec<u8> {
    let slot = bench.server.keyspace.find(0, b"a").unwrap();
    let entry = bench.server.keyspace.entry(0, slot).unwrap();
    let collection = entry.value.collection().unwrap();
    let is_stream = collection.kind() == crate::value::Kind::Stream;
    seal(super::write_collection(collection).unwrap(), is_stream)
}

#[test]
fn every_type_comes_back() {
    for (fill, ask) in [
        ("rpush a 1 two 3.5", "lrange b 0 -1"),
        ("sadd a 1 two 3.5", "sismember b two"),
        ("hset a f 1 g two", "hget b g"),
        ("zadd a 1.5 x -inf y 3 z", "zrange b 0 -1 withscores"),
        ("xadd a 5-1 f v g w", "xrange b - +"),
    ] {
        let mut bench = Bench::default();
        bench.run(fill);
        let dump = dumped(&mut bench);
        assert_eq!(bench.send(&[b"restore", b"b", b"0", &dump]), "+OK\r\n", "{fill}");
        let expected = bench.run(&ask.replace(" b", " a"));
        assert_eq!(bench.run(ask), expected);
    }
}

#[test]
fn a_stream_comes_back_with_its_groups() {
    let mut bench = Bench::default();
    for number in 1..300 {
        bench.run(&alloc::format!("xadd a {number}-1 field {number}"));
    }
    bench.run("xdel a 7-1 299-1");
    bench.run("xgroup create a group 0");
    bench.run("xreadgroup group group alice count 5 streams a >");
    let dump = dumped(&mut bench);
    assert_eq!(bench.send(&[b"restore", b"b", b"0", &dump]), "+OK\r\n");
    for ask in ["xrange a - +", "xpending a group", "xinfo groups a", "xlen a"] {
        let expected = bench.run(ask);
        assert_eq!(bench.run(&ask.replace(" a", " b")), expected);
    }
}

/// What Redis 7.0 answers to DUMP is read, with its checksum.
#[test]
fn what_redis_writes_is_read() {
    for (dump, ask, answer) in [
        (
            // A string of 60 times "ab", compressed.
            &b"\x00\xc3\x0a@x\x02aba\xe0j\x01\x01ab\x0a\x00\xb2\x88p\x8cS\x07\x16\xd2"[..],
            "getrange k 115 130",
            "$5\r\nbabab\r\n",
        ),
        (
            b"\x10))\x00\x00\x00\x08\x00\x81a\x02\x05\x01\x81b\x02\x85hello\x06\x81c\x02\xd4H\x02\x81d\x02\
              \xf4\x14\x1a\x99\xbe\x1c\x00\x00\x00\x09\xff\x0a\x00\x93%\x5c\x16{\xc1S\x97",
            "hmget k a b c d",
            "*4\r\n$1\r\n5\r\n$5\r\nhello\r\n$5\r\n-3000\r\n$12\r\n123456789012\r\n",
        ),
        (
            b"\x0b\x0e\x02\x00\x00\x00\x03\x00\x00\x00\x01\x00\x02\x00,\x01\x0a\x00\xe5\x10\xb2\x8e{\x95)\xaa",
            "smismember k 2 300 4",
            "*3\r\n:1\r\n:1\r\n:0\r\n",
        ),
        (
            b"\x11\x14\x14\x00\x00\x00\x04\x00\x81x\x02\x831.5\x04\x81y\x02\x02\x01\xff\x0a\x00\xc0~Qq\xabd\x12%",
            "zrange k 0 -1 withscores",
            "*4\r\n$1\r\nx\r\n$3\r\n1.5\r\n$1\r\ny\r\n$1\r\n2\r\n",
        ),
        (
            b"\x12\x01\x02\x0f\x0f\x00\x00\x00\x03\x00\x81a\x02\x81b\x02d\x01\xff\x0a\x00H\xebiWK\x10\x90.",
            "lrange k 0 -1",
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n$3\r\n100\r\n",
        ),
        (
            b"\x13\x01\x10\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01\x1d\x1d\x00\x00\x00\
              \x0a\x00\x01\x01\x00\x01\x01\x01\x81f\x02\x00\x01\x02\x01\x00\x01\x00\x01\x81v\x02\x04\x01\xff\x01\
              \x05\x01\x05\x01\x00\x00\x01\x01\x01g\x05\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\
              \x00\x00\x00\x00\x01\x93\xa8\xd4\xfd\xa1\x01\x00\x00\x01\x01\x05alice\x93\xa8\xd4\xfd\xa1\x01\x00\
              \x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01\x0a\x00\xa7\x5c@\xe4\xb34oe",
            "xpending k g",
            "*4\r\n:1\r\n$3\r\n5-1\r\n$3\r\n5-1\r\n*1\r\n*2\r\n$5\r\nalice\r\n$1\r\n1\r\n",
        ),
    ] {
        let mut bench = Bench::default();
        assert_eq!(bench.send(&[b"restore", b"k", b"0", dump]), "+OK\r\n", "{ask}");
        assert_eq!(bench.run(ask), answer);
    }
}

#[test]
fn a_changed_bit_is_noticed() {
    let sealed = seal(super::write_string(b"hello"), false);
    assert!(open(&sealed).is_ok());
    for place in 0..sealed.len() {
        let mut other = sealed.clone();
        other[place] ^= 1;
        assert!(open(&other).is_err(), "{place}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(kind in 0_u8..24, bytes: Vec<u8>) {
        let mut value = alloc::vec![kind];
        value.extend(bytes);
        let _ = read(&value);
    }

    #[test]
    fn a_damaged_stream_is_read_or_refused(place: prop::sample::Index, byte: u8) {
        let mut bench = Bench::default();
        bench.run("xadd a 5-1 f v");
        bench.run("xgroup create a g 0");
        bench.run("xreadgroup group g c streams a >");
        let dump = dumped(&mut bench);
        let mut value = open(&dump).unwrap().to_vec();
        let place = place.index(value.len());
        value[place] = byte;
        let _ = read(&value);
    }
}
