//! Tests of `takeover.rs`: a table that was left, whole or damaged.

use std::vec::Vec;

use proptest::prelude::*;
use rref::SharedSlice;

use super::*;
use crate::connection_table::{BackendRef, Bucket, FlowState, Life};

extern crate std;

const ENTRIES: u32 = Capacity::SMALLEST;

fn capacity() -> Capacity {
    Capacity::new(ENTRIES).unwrap()
}

fn backend(slot: u16) -> BackendRef {
    BackendRef { slot, incarnation: 3 }
}

fn hash(flow: u64) -> u64 {
    flow.wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(31)
        .wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn established(table: &ConnectionTable, seconds: u16) -> Life {
    Life::new(FlowState::Established, table.now(), seconds)
}

/// Nothing of it can be found out to be wrong: every entry is one of a flow's two buckets' and all counts are right.
fn is_sound(table: &ConnectionTable) {
    let mut spilled = std::vec![0; table.buckets.len()];
    let mut entries = 0;
    for (index, bucket) in table.buckets.iter().enumerate() {
        for way in 0..BUCKET_ENTRIES {
            let is_guest = bucket.guests >> way & 1 != 0;
            if bucket.lives[way] == Life::EMPTY {
                assert!(!is_guest);
            } else {
                entries += 1;
                if is_guest {
                    spilled[table.other_bucket(index, bucket.tags[way])] += 1;
                }
            }
        }
    }
    assert_eq!(entries, table.statistics().entries);
    let counted: Vec<u16> = table.buckets.iter().map(|bucket| bucket.spilled).collect();
    assert_eq!(spilled, counted);
}

#[test]
fn all_flows_go_on_and_expired_ones_go() {
    host_platform::attach();
    let mut table = ConnectionTable::new(capacity()).unwrap();
    table.bequeath(100);
    table.advance(50);
    for flow in 0..1_000 {
        let seconds = if flow % 10 == 0 { 5 } else { 500 };
        let life = established(&table, seconds);
        assert!(table.insert(hash(flow), backend(flow as u16), life));
    }
    table.die();

    assert!(
        ConnectionTable::inherit(101, capacity(), 60).is_none(),
        "another CPU's"
    );
    let mut next = ConnectionTable::inherit(100, capacity(), 60).expect("it was left");
    is_sound(&next);
    assert_eq!(next.statistics().entries, 900);
    for flow in 0..1_000 {
        let found = next.find(hash(flow)).map(|entry| entry.backend());
        assert_eq!(found, (flow % 10 != 0).then_some(backend(flow as u16)));
    }
    // Hours after the start of the machine its first batch doesn't look like the end of a long silence.
    next.advance(61);
    assert_eq!(next.statistics().entries, 900);
}

#[test]
fn another_capacity_starts_empty() {
    host_platform::attach();
    let mut table = ConnectionTable::new(capacity()).unwrap();
    table.bequeath(102);
    table.die();
    assert!(ConnectionTable::inherit(102, Capacity::new(ENTRIES * 2).unwrap(), 0).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is in the memory, the table made of it is sound, and stays so in use.
    #[test]
    fn any_bytes_make_a_sound_table(seed: u64, dense: bool, seconds in 0u64..100_000) {
        host_platform::attach();
        let mut buckets: SharedSlice<Bucket> = SharedSlice::zeroed(capacity().buckets()).unwrap();
        buckets.bequeath(tag(103));
        for (index, bucket) in buckets.iter_mut().enumerate() {
            let word = |way: usize| hash(seed ^ (index * 16 + way) as u64);
            for way in 0..BUCKET_ENTRIES {
                bucket.tags[way] = word(way) as u32;
                bucket.backends[way] = backend((word(way) >> 32) as u16);
                if dense || word(way) >> 62 == 0 {
                    bucket.lives[way] = Life((word(way) >> 40) as u16);
                }
            }
            bucket.spilled = word(6) as u16;
            bucket.guests = (word(6) >> 16) as u8;
        }
        host_platform::leave(buckets);
        let mut table = ConnectionTable::inherit(103, capacity(), seconds).expect("it was left");
        is_sound(&table);
        for flow in 0..2_000 {
            let life = established(&table, 1 + (hash(flow) % 50) as u16);
            table.remember(hash(flow ^ seed), backend(flow as u16), life);
            if flow % 50 == 0 {
                table.advance(seconds + flow / 10);
            }
        }
        is_sound(&table);
    }

    /// A death in the middle of an insertion: some of its stores are done. All other flows are where they were.
    #[test]
    fn a_torn_entry_costs_its_own_flow_alone(victim in 0u64..1_300, parts in 0u8..32) {
        host_platform::attach();
        let mut table = ConnectionTable::new(capacity()).unwrap();
        table.bequeath(104);
        let life = established(&table, 500);
        let remembered: Vec<u64> = (0..1_300).filter(|flow| *flow != victim)
            .filter(|flow| table.insert(hash(*flow), backend(*flow as u16), life)).collect();
        let first = table.first_bucket(hash(victim));
        let second = table.other_bucket(first, super::super::tag_of(hash(victim)));
        // Into its first bucket, or as a guest into its second.
        let (index, is_guest) = if table.buckets[first].vacancy(table.now).is_some() { (first, false) } else { (second, true) };
        if let Some(way) = table.buckets[index].vacancy(table.now) {
            let bucket = &mut table.buckets[index];
            if parts & 1 != 0 { bucket.tags[way] = super::super::tag_of(hash(victim)) }
            if parts & 2 != 0 { bucket.backends[way] = backend(victim as u16) }
            if parts & 4 != 0 { bucket.lives[way] = life }
            if parts & 8 != 0 && is_guest { bucket.guests |= 1 << way }
            if parts & 16 != 0 && is_guest { table.buckets[first].spilled += 1 }
        }
        table.die();
        let mut next = ConnectionTable::inherit(104, capacity(), 1).expect("it was left");
        is_sound(&next);
        for flow in remembered {
            prop_assert_eq!(next.find(hash(flow)).map(|entry| entry.backend()), Some(backend(flow as u16)));
        }
    }
}
