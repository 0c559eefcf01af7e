//! Power cuts: a workload is recorded write by write, and the store is opened with what a disk may have kept at every point of it.
//!
//! Of what wasn't flushed a disk keeps any part, in any order, torn at logical blocks. Whatever it kept, the store must open with all that was
//! acknowledged, and beyond that with whole groups in their order: exactly what the groups up to some number make.

use crate::engine::Engine;
use crate::layout::{Footer, Header, Layout, Superblock};
use crate::simulated_disk::{BLOCK_BYTES, Event, SimulatedDisk, Written, put};
use crate::tests::{append, assert_sound, bytes, content, open};
use fastrand::Rng;
use interface::key_value::{Entry, STORE_BYTES};
use std::collections::BTreeMap;

const DISK_BYTES: usize = (128 << 10) + 9 * (256 << 10);

/// A value by what it is made of, so that many of them can be kept.
type Value = (u64, usize);

/// What every key was after each group.
#[derive(Default)]
struct History {
    keys: BTreeMap<Vec<u8>, Vec<(u64, Option<Value>)>>,
}

impl History {
    fn set(&mut self, key: &[u8], sequence: u64, value: Option<Value>) {
        self.keys.entry(key.to_vec()).or_default().push((sequence, value));
    }

    fn clear(&mut self, sequence: u64) {
        for changes in self.keys.values_mut() {
            changes.push((sequence, None));
        }
    }

    /// What the store holds after so many groups.
    fn at(&self, sequence: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let value = |changes: &Vec<(u64, Option<Value>)>| {
            let last = changes.iter().rev().find(|(at, _)| *at <= sequence)?;
            last.1.map(|(seed, length)| bytes(seed, length))
        };
        let all = self.keys.iter();
        all.filter_map(|(key, changes)| Some((key.clone(), value(changes)?)))
            .collect()
    }
}

/// A workload that was run.
struct Run {
    /// What the disk held before.
    start: Vec<u8>,
    events: Vec<Event>,
    history: History,
    /// After how many events how much was acknowledged and appended.
    marks: Vec<(usize, u64, u64)>,
    cleaned_bytes: u64,
}

impl Run {
    /// What was acknowledged, and appended, when the first `events` had happened.
    fn known_at(&self, events: usize) -> (u64, u64) {
        let acknowledged = self.marks.iter().take_while(|mark| mark.0 <= events).last();
        let appended = self
            .marks
            .iter()
            .find(|mark| mark.0 > events)
            .or(self.marks.last());
        (
            acknowledged.map_or(0, |mark| mark.1),
            appended.map_or(0, |mark| mark.2),
        )
    }
}

/// Puts, deletions, long values, clears, commits, and cleaning because the disk is small.
///
/// What is on the disk before is of `earlier`.
fn work(disk: &SimulatedDisk, seed: u64, rounds: u64, earlier: &History) -> Run {
    let engine = open(disk.clone()).unwrap();
    let start = disk.content();
    disk.record();
    let mut random = Rng::with_seed(seed);
    let mut history = History::default();
    let mut marks = Vec::new();
    let mut sequence = engine.appended();
    for (key, value) in content(&engine) {
        let mut all = earlier
            .keys
            .get(&key)
            .unwrap()
            .iter()
            .filter_map(|(_, value)| *value);
        let made = all.find(|made| bytes(made.0, made.1) == value);
        history.set(&key, sequence, Some(made.unwrap()));
    }
    for round in 0..rounds {
        sequence += 1;
        let key = |random: &mut Rng| format!("key{}", random.u32(..300)).into_bytes();
        match random.u32(..400) {
            0 => {
                append(&engine, &[Entry::Clear]).unwrap();
                history.clear(sequence);
            }
            1..8 => {
                let (key, value) = (key(&mut random), (round, random.usize(1..120_000)));
                let mut offset = 0;
                for piece in bytes(value.0, value.1).chunks(STORE_BYTES) {
                    engine.stage(round, offset, piece).unwrap();
                    offset += piece.len() as u64;
                }
                let named = Entry::PutStaged {
                    key: &key,
                    value: round,
                    value_bytes: offset,
                };
                append(&engine, &[named]).unwrap();
                history.set(&key, sequence, Some(value));
            }
            8..100 => {
                let key = key(&mut random);
                append(&engine, &[Entry::Delete { key: &key }]).unwrap();
                history.set(&key, sequence, None);
            }
            _ => {
                // Several keys that are there together or not at all.
                let changes: Vec<_> = (0..random.u64(1..5))
                    .map(|index| {
                        // Some so long that the summary has their keys.
                        let longest = if random.u8(..8) == 0 { 7000 } else { 2500 };
                        (key(&mut random), (round * 8 + index, random.usize(..longest)))
                    })
                    .collect();
                let values: Vec<_> = changes.iter().map(|(_, value)| bytes(value.0, value.1)).collect();
                let entries: Vec<_> = changes
                    .iter()
                    .zip(&values)
                    .map(|((key, _), value)| Entry::Put { key, value })
                    .collect();
                append(&engine, &entries).unwrap();
                for (key, value) in &changes {
                    history.set(key, sequence, Some(*value));
                }
            }
        }
        assert_eq!(engine.appended(), sequence);
        if random.u8(..12) == 0 {
            engine.commit(sequence).unwrap();
        }
        marks.push((disk.events().len(), engine.committed(), sequence));
    }
    Run {
        start,
        events: disk.events(),
        history,
        marks,
        cleaned_bytes: engine.statistics().cleaned_bytes,
    }
}

/// What a disk holds after a power cut: all that is durable, and of the rest each block with a chance that is drawn too, in any order of
/// the writes.
fn cut(durable: &[u8], pending: &[Vec<Written>], random: &mut Rng) -> Vec<u8> {
    let mut content = durable.to_vec();
    let mut order: Vec<_> = pending.iter().collect();
    let kept = [0, 50, 90, 100][random.usize(..4)];
    if random.bool() {
        random.shuffle(&mut order);
    }
    let torn = random.bool();
    for write in order {
        let whole = random.u8(..100) < kept;
        for written in write {
            if if torn { random.u8(..100) < kept } else { whole } {
                put(&mut content, written);
            }
        }
    }
    content
}

/// Calls `each` with what a disk may hold at every point, so many times at each.
fn at_every_point(run: &Run, times: usize, seed: u64, mut each: impl FnMut(usize, Vec<u8>)) {
    let mut random = Rng::with_seed(seed);
    let mut durable = run.start.clone();
    let mut pending: Vec<Vec<Written>> = Vec::new();
    for (index, event) in run.events.iter().enumerate() {
        match event {
            Event::Flush => {
                for _ in 0..times {
                    each(index, cut(&durable, &pending, &mut random));
                }
                for written in pending.drain(..).flatten() {
                    put(&mut durable, &written);
                }
            }
            Event::Write { blocks, forced } => {
                pending.push(blocks.clone());
                for _ in 0..times {
                    each(index, cut(&durable, &pending, &mut random));
                }
                if *forced {
                    for written in pending.pop().into_iter().flatten() {
                        put(&mut durable, &written);
                    }
                }
            }
        }
    }
}

/// What was recovered is what some number of groups make, none of the acknowledged missing.
fn assert_prefix(run: &Run, events: usize, engine: &Engine<SimulatedDisk>) {
    let (acknowledged, appended) = run.known_at(events);
    let recovered = engine.appended();
    assert!(
        (acknowledged..=appended).contains(&recovered),
        "after {events} events {recovered} groups, of {acknowledged} to {appended}"
    );
    assert!(
        content(engine) == run.history.at(recovered),
        "after {events} events, {recovered} groups"
    );
}

#[test]
fn every_power_cut_leaves_what_was_acknowledged() {
    let disk = SimulatedDisk::new(DISK_BYTES);
    power_cuts(&work(&disk, 11, 2500, &History::default()));
}

/// The same where only flushes make anything durable.
#[test]
fn every_power_cut_without_forced_writes_leaves_what_was_acknowledged() {
    let disk = SimulatedDisk::new(DISK_BYTES).without_forced_writes();
    power_cuts(&work(&disk, 13, 1500, &History::default()));
}

/// The same with places that take no writes: what was to be there goes elsewhere, and a start in the middle of that finds both.
#[test]
fn every_power_cut_on_a_disk_with_bad_places_leaves_what_was_acknowledged() {
    for seed in 0..2 {
        let disk = SimulatedDisk::new(DISK_BYTES);
        let disk = if seed == 1 {
            disk.without_forced_writes()
        } else {
            disk
        };
        drop(open(disk.clone()).unwrap());
        let mut random = Rng::with_seed(seed);
        for segment in [1, 5] {
            let start = (128 << 10) + segment * (256 << 10);
            disk.spoil(start + random.u64(1..256 << 10));
        }
        let run = work(&disk, 61 + seed, 900, &History::default());
        assert!(disk.0.lock().unwrap().refusals > 3);
        power_cuts(&run);
    }
}

fn power_cuts(run: &Run) {
    assert!(run.cleaned_bytes > 0);
    let mut points = 0;
    at_every_point(run, 1, 12, |index, image| {
        points += 1;
        let disk = SimulatedDisk::with_content(image);
        let engine = open(disk.clone()).unwrap();
        assert_prefix(run, index, &engine);
        // Life goes on, and what was dropped stays dropped.
        if points % 7 == 0 {
            let recovered = engine.appended();
            let next = append(
                &engine,
                &[Entry::Put {
                    key: b"after",
                    value: b"1",
                }],
            )
            .unwrap();
            assert_eq!(next, recovered + 1);
            engine.commit(next).unwrap();
            assert_sound(&engine);
            drop(engine);
            let mut expected = run.history.at(recovered);
            expected.insert(b"after".to_vec(), b"1".to_vec());
            let engine = open(disk).unwrap();
            assert!(content(&engine) == expected, "reopened after event {index}");
        }
    });
    println!("{points} power cuts");
    assert!(points > 500, "only {points} points");
}

/// Opening writes, too: a power cut while a store is being opened after another one.
#[test]
fn power_cuts_while_opening_lose_nothing() {
    let disk = SimulatedDisk::new(DISK_BYTES);
    let run = work(&disk, 21, 1200, &History::default());
    let mut points = 0;
    at_every_point(&run, 1, 22, |index, image| {
        points += 1;
        if points % 11 != 0 {
            return;
        }
        let disk = SimulatedDisk::with_content(image.clone());
        disk.record();
        let engine = open(disk.clone()).unwrap();
        let opening = Run {
            start: image,
            events: disk.events(),
            history: History::default(),
            marks: Vec::new(),
            cleaned_bytes: 0,
        };
        drop(engine);
        at_every_point(&opening, 1, points, |_, image| {
            assert_prefix(&run, index, &open(SimulatedDisk::with_content(image)).unwrap());
        });
    });
}

/// A workload on a store that was opened from a cut one: what the first life left can't mix with the second.
#[test]
fn two_lives_do_not_mix() {
    for seed in 0..6 {
        let disk = SimulatedDisk::new(DISK_BYTES);
        let first = work(&disk, 31 + seed, 900, &History::default());
        // A point in the second half, so that there is something.
        let chosen = first.events.len() / 2 + Rng::with_seed(seed).usize(..first.events.len() / 2);
        let mut image = Vec::new();
        at_every_point(&first, 1, 32 + seed, |index, at| {
            if index == chosen {
                image = at;
            }
        });
        let disk = SimulatedDisk::with_content(image);
        let second = work(&disk, 33 + seed, 700, &first.history);
        let mut points = 0;
        at_every_point(&second, 1, 34 + seed, |index, image| {
            points += 1;
            if points % 5 == 0 {
                assert_prefix(&second, index, &open(SimulatedDisk::with_content(image)).unwrap());
            }
        });
    }
}

/// Any byte changed in a store: it opens or says that it can't, and gives no value that was never written.
#[test]
fn damage_is_never_read_as_a_value() {
    let disk = SimulatedDisk::new(DISK_BYTES);
    let run = work(&disk, 41, 1500, &History::default());
    let image = disk.content();
    let mut random = Rng::with_seed(42);
    for _ in 0..300 {
        let mut image = image.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..image.len() / BLOCK_BYTES) * BLOCK_BYTES;
            match random.u8(..3) {
                0 => image[at + random.usize(..64)] ^= 1 << random.u8(..8),
                1 => image[at..at + BLOCK_BYTES].fill(0),
                _ => image[at..at + BLOCK_BYTES].fill_with(|| random.u8(..)),
            }
        }
        let Ok(engine) = open(SimulatedDisk::with_content(image)) else {
            continue;
        };
        let mut cursor = 0;
        while let Some(next) = engine.check(cursor).unwrap().next {
            cursor = next;
        }
        for (key, changes) in &run.history.keys {
            if let Ok(value) = crate::tests::read(&engine, key) {
                let mut all = changes.iter().filter_map(|(_, value)| *value);
                assert!(all.any(|made| bytes(made.0, made.1) == value));
            }
        }
        append(
            &engine,
            &[Entry::Put {
                key: b"after",
                value: b"1",
            }],
        )
        .unwrap();
        engine.commit(u64::MAX).unwrap();
    }
}

/// Superblocks, headers and footers with right checksums and any numbers in them: opening takes them in peace.
#[test]
fn forged_numbers_are_taken_in_peace() {
    let disk = SimulatedDisk::new(DISK_BYTES);
    work(&disk, 51, 600, &History::default());
    let image = disk.content();
    let Superblock::Store { layout, .. } = Layout::decode(&image[..BLOCK_BYTES], image.len() as u64) else {
        panic!("there is a store");
    };
    let mut random = Rng::with_seed(52);
    for _ in 0..500 {
        let mut image = image.clone();
        let mut number = || match random.u8(..4) {
            0 => random.u64(..20),
            1 => u64::MAX - random.u64(..3),
            2 => random.u64(..1 << 20),
            _ => random.u64(..),
        };
        let numbers = [(); 4].map(|()| number());
        let segment = random.u32(..layout.segments);
        let start = layout.segment_start(segment) as usize;
        let [serial, previous, previous_end, sequence] = numbers;
        match random.u8(..4) {
            0 => {
                let header = Header {
                    serial,
                    previous,
                    previous_end,
                    sequence,
                };
                header.encode(layout.store).write_to(&mut image[start..]);
            }
            1 => Header::encode_free(layout.store, serial).write_to(&mut image[start..]),
            2 => {
                let footer = Footer {
                    serial: random.u64(..20),
                    end: previous_end,
                    words: previous,
                    summary_crc: 0,
                    sequence,
                };
                let end = start + layout.footer_start();
                footer.encode(layout.store).write_to(&mut image[end..]);
            }
            _ => {
                let forged = Layout {
                    segments: serial as u32,
                    segment_bytes: previous as u32,
                    ..layout
                };
                forged.encode(sequence).write_to(&mut image);
            }
        }
        let Ok(engine) = open(SimulatedDisk::with_content(image)) else {
            continue;
        };
        content(&engine);
        // An append may be refused, no more.
        let _ = append(
            &engine,
            &[Entry::Put {
                key: b"after",
                value: b"1",
            }],
        );
        let _ = engine.commit(u64::MAX);
        let _ = engine.compact();
        content(&engine);
    }
}
