//! Scans: what they read and what they leave, and how they deal with damage.

use crate::engine::Engine;
use crate::layout::Layout;
use crate::simulated_disk::{BLOCK_BYTES, SimulatedDisk};
use crate::tests::{append, buffer, bytes, content, open, put};
use interface::key_value::{Entry, Reader, StoreError};
use rref::block::{Fault, Operation};
use std::collections::BTreeMap;

/// Values up to this length are asked for.
const LIMIT: u32 = 8256;

/// What a scan gives: a value's length, and the value if it came with the key.
fn scan(engine: &Engine<SimulatedDisk>) -> BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> {
    let mut all = BTreeMap::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let mut buffer = buffer();
        cursor = engine.scan(at, LIMIT, &mut buffer).unwrap();
        for entry in Reader::new(&buffer) {
            match entry.unwrap() {
                Entry::Put { key, value } => {
                    all.insert(key.to_vec(), (value.len() as u64, Some(value.to_vec())))
                }
                Entry::Key { key, value_bytes } => all.insert(key.to_vec(), (value_bytes, None)),
                other => panic!("{other:?} from a scan"),
            };
        }
    }
    all
}

/// A store as it is after a restart, and what a scan is to give: chunks of long strings for the most part, as the server writes them.
fn filled(disk: &SimulatedDisk, strings: u64) -> BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> {
    let engine = open(disk.clone()).unwrap();
    let mut expected = BTreeMap::new();
    for number in 0..strings {
        for chunk in 0..8_u64 {
            let key = [b"chunk", &number.to_be_bytes()[..], &chunk.to_be_bytes()].concat();
            put(&engine, &key, &bytes(chunk, 16_000));
            expected.insert(key, (16_000, None));
        }
        let (key, value) = (number.to_le_bytes().to_vec(), bytes(1000 + number, 40));
        put(&engine, &key, &value);
        expected.insert(key, (40, Some(value)));
    }
    // A key that is too long for the summary, and one that is gone.
    let long = vec![b'l'; 500];
    put(&engine, &long, &bytes(1, 9000));
    expected.insert(long, (9000, None));
    append(
        &engine,
        &[Entry::Delete {
            key: &0_u64.to_le_bytes(),
        }],
    )
    .unwrap();
    expected.remove(&0_u64.to_le_bytes()[..]);
    engine.commit(u64::MAX).unwrap();
    expected
}

/// Of a store of long values only what tells of them is read.
#[test]
fn long_values_are_not_read() {
    let disk = SimulatedDisk::new(32 << 20);
    let expected = filled(&disk, 100);
    let engine = open(disk.clone()).unwrap();
    let before = disk.0.lock().unwrap().reads;
    assert!(scan(&engine) == expected);
    let read_bytes = (disk.0.lock().unwrap().reads - before) * 4096;
    assert!(read_bytes < 100 * 8 * 16_000 / 4, "{read_bytes} bytes");
    drop(engine);
}

/// Without the summary the records themselves say what is there.
#[test]
fn a_damaged_summary_is_made_again() {
    let disk = SimulatedDisk::new(8 << 20);
    let expected = filled(&disk, 20);
    let engine = open(disk.clone()).unwrap();
    let layout = Layout { ..engine.layout };
    for segment in 0..layout.segments {
        let footer = layout.segment_start(segment) as usize + layout.footer_start();
        let mut inner = disk.0.lock().unwrap();
        // The last of the summary's blocks, and some footers.
        let from = if segment % 2 == 0 {
            footer - BLOCK_BYTES
        } else {
            footer
        };
        inner.content[from..from + BLOCK_BYTES].fill(0xa5);
    }
    assert!(scan(&engine) == expected);
    drop(engine);
    assert!(scan(&open(disk).unwrap()) == expected);
}

/// A record that can't be read right is left out, the others come.
#[test]
fn a_damaged_record_costs_itself_only() {
    let disk = SimulatedDisk::new(8 << 20);
    let mut expected = filled(&disk, 20);
    let engine = open(disk.clone()).unwrap();
    let victim = bytes(1007, 40);
    let mut content = disk.content();
    let at = content.windows(40).position(|window| window == victim).unwrap();
    content[at] ^= 1;
    disk.0.lock().unwrap().content = content;
    expected.remove(&7_u64.to_le_bytes()[..]);
    assert!(scan(&engine) == expected);
}

/// A disk that fails in the middle of a scan ends it with an error, and the next one begins anew.
#[test]
fn a_scan_on_a_failing_disk_can_be_begun_again() {
    let disk = SimulatedDisk::new(8 << 20);
    let expected = filled(&disk, 20);
    let engine = open(disk.clone()).unwrap();
    disk.fail(Operation::Read, 3, u64::MAX, Fault::Unreadable);
    let mut cursor = 0;
    let error = loop {
        match engine.scan(cursor, LIMIT, &mut buffer()) {
            Ok(next) => cursor = next.unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, StoreError::Device);
    disk.heal();
    assert!(scan(&engine) == expected);
}

/// While a scan is under way segments are cleaned and keys change: what is there all the time is given, with a value that it had.
#[test]
fn scans_beside_cleaning_give_everything() {
    let disk = SimulatedDisk::new(6 << 20);
    let engine = open(disk.clone()).unwrap();
    for number in 0..120_u64 {
        put(&engine, &number.to_le_bytes(), &bytes(number, 6000));
        put(
            &engine,
            &[b"old", &number.to_le_bytes()[..]].concat(),
            &bytes(number, 3000),
        );
    }
    for number in 0..120_u64 {
        append(
            &engine,
            &[Entry::Delete {
                key: &[b"old", &number.to_le_bytes()[..]].concat(),
            }],
        )
        .unwrap();
    }
    let before = content(&engine);
    assert_eq!(before.len(), 120);
    let (mut cursor, mut found, mut steps) = (Some(0), BTreeMap::new(), 0);
    while let Some(at) = cursor {
        let mut buffer = buffer();
        cursor = engine.scan(at, LIMIT, &mut buffer).unwrap();
        for entry in Reader::new(&buffer) {
            if let Entry::Put { key, value } = entry.unwrap() {
                found.insert(key.to_vec(), value.to_vec());
            }
        }
        steps += 1;
        if steps < 12 {
            engine.clean(true).unwrap();
        }
    }
    assert!(found == before);
    assert!(engine.statistics().cleaned_bytes > 0);
}
