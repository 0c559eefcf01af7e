//! Tests of `connection_table.rs`: against a model that forgets nothing early, and at the table's limits.

use std::collections::HashMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

extern crate std;

/// A mixing function (SplitMix64's), for hashes that look random.
fn mix(number: u64) -> u64 {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ state >> 31
}

fn backend(slot: u16) -> BackendRef {
    BackendRef { slot, incarnation: 9 }
}

fn table(entries: u32) -> ConnectionTable {
    host_platform::attach();
    ConnectionTable::new(Capacity::new(entries).unwrap()).unwrap()
}

fn found(table: &mut ConnectionTable, hash: u64) -> Option<BackendRef> {
    table.find(hash).map(|entry| entry.backend())
}

fn remember(table: &mut ConnectionTable, hash: u64, slot: u16, state: FlowState, seconds: u16) -> bool {
    let life = Life::new(state, table.now(), seconds);
    table.remember(hash, backend(slot), life)
}

#[test]
fn capacities_are_powers_of_two() {
    assert_eq!(Capacity::new(1_024).map(Capacity::get), Ok(1_024));
    assert_eq!(
        Capacity::new(1_025),
        Err(CapacityError::NotPowerOfTwo { entries: 1_025 })
    );
    assert_eq!(Capacity::new(0), Err(CapacityError::OutOfRange { entries: 0 }));
}

/// As many flows as the table was made for find a place, but for one in ten thousand where chance is against it.
#[test]
fn holds_as_many_flows_as_it_was_made_for() {
    for entries in [1 << 10, 1 << 14, 1 << 18] {
        let mut table = table(entries);
        for flow in 0..u64::from(entries) {
            remember(&mut table, mix(flow), flow as u16, FlowState::Established, 100);
        }
        let lost = (0..u64::from(entries))
            .filter(|&flow| found(&mut table, mix(flow)).is_none())
            .count();
        assert_eq!(lost as u64, table.statistics().overflowed);
        assert_eq!(table.statistics().entries, u64::from(entries) - lost as u64);
        assert!(lost * 10_000 <= entries as usize, "{lost} of {entries}");
    }
}

/// Filled far beyond its size, it says so, keeps what it has, and what it has is right.
#[test]
fn overflow_changes_nothing_that_is_remembered() {
    let mut table = table(1 << 10);
    let kept: Vec<u64> = (0..1 << 14)
        .filter(|&flow| remember(&mut table, mix(flow), flow as u16, FlowState::Established, 100))
        .collect();
    assert!(kept.len() <= 1_536);
    assert!(kept.len() > 1_400, "{} of 1,536 places used", kept.len());
    for flow in kept {
        assert_eq!(found(&mut table, mix(flow)), Some(backend(flow as u16)));
    }
}

/// A flood of SYNs takes the places of half-open connections only, and a newcomer gets a place in spite of it.
#[test]
fn a_flood_of_syns_displaces_itself() {
    let mut table = table(1 << 10);
    for flow in 0..700 {
        assert!(remember(
            &mut table,
            mix(flow),
            flow as u16,
            FlowState::Established,
            100
        ));
    }
    for flow in 10_000..30_000 {
        remember(&mut table, mix(flow), 0, FlowState::Opening, 60);
    }
    assert!(table.statistics().displaced > 10_000);
    for flow in 0..700 {
        assert_eq!(found(&mut table, mix(flow)), Some(backend(flow as u16)));
    }
    let newcomers = (50_000..50_100).filter(|&flow| {
        remember(&mut table, mix(flow), 7, FlowState::Opening, 60) && found(&mut table, mix(flow)).is_some()
    });
    assert!(newcomers.count() >= 95);
}

#[test]
fn entries_expire_on_time_and_are_swept() {
    let mut table = table(1 << 10);
    table.advance(1_000);
    for flow in 0..500 {
        remember(
            &mut table,
            mix(flow),
            1,
            FlowState::Established,
            10 + (flow % 2) as u16,
        );
    }
    table.advance(1_009);
    assert!((0..500).all(|flow| found(&mut table, mix(flow)).is_some()));
    table.advance(1_010);
    assert!((0..500).all(|flow| found(&mut table, mix(flow)).is_some() == (flow % 2 == 1)));
    for second in 1_011..1_011 + 2 * SWEEP_PERIOD_SECONDS as u64 {
        table.advance(second);
    }
    assert_eq!(table.statistics().entries, 0);
    // Places of guests were given back to the account of their first buckets, too.
    assert!(
        table
            .buckets
            .iter()
            .all(|bucket| bucket.spilled == 0 && bucket.guests == 0)
    );
}

/// Time in an entry wraps after 16,384 s: what expired long ago must not come back to life, with packets or without.
#[test]
fn expired_entries_stay_dead_when_time_wraps() {
    for step in [1, 63, 1_000, 8_000, 8_191, 8_192, 16_383, 16_384, 100_000] {
        let mut table = table(1 << 10);
        for flow in 0..300 {
            remember(&mut table, mix(flow), 1, FlowState::Established, 5);
        }
        let mut now = 6;
        while now < 40_000 + step {
            table.advance(now);
            assert!(
                (0..300).all(|flow| found(&mut table, mix(flow)).is_none()),
                "step {step}, second {now}"
            );
            now += step;
        }
    }
}

#[test]
fn time_never_goes_backwards() {
    let mut table = table(1 << 10);
    table.advance(100);
    remember(&mut table, mix(1), 1, FlowState::Established, 10);
    table.advance(50);
    table.advance(109);
    assert!(found(&mut table, mix(1)).is_some());
    table.advance(110);
    assert!(found(&mut table, mix(1)).is_none());
}

#[derive(Clone, Debug)]
enum Operation {
    Remember { flow: u64, slot: u16, seconds: u16 },
    Find { flow: u64 },
    Wait { seconds: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..1_000_u64, any::<u16>(), 1..200_u16)
            .prop_map(|(flow, slot, seconds)| Operation::Remember { flow, slot, seconds }),
        4 => (0..1_000_u64).prop_map(|flow| Operation::Find { flow }),
        1 => prop_oneof![9 => 0..30_u64, 1 => 0..20_000_u64].prop_map(|seconds| Operation::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is done, the table says what a plain map with deadlines says, as long as it is not overfull.
    #[test]
    fn agrees_with_a_plain_map(operations in prop::collection::vec(operation(), 1..3_000)) {
        let mut table = table(1 << 10);
        let mut model = HashMap::new();
        let mut now = 0;
        for operation in operations {
            match operation {
                Operation::Remember { flow, slot, seconds } => {
                    if remember(&mut table, mix(flow), slot, FlowState::Established, seconds) {
                        model.insert(flow, (slot, now + u64::from(seconds)));
                    }
                }
                Operation::Find { flow } => {
                    let expected = model.get(&flow).filter(|(_, deadline)| *deadline > now);
                    prop_assert_eq!(found(&mut table, mix(flow)), expected.map(|(slot, _)| backend(*slot)));
                }
                Operation::Wait { seconds } => {
                    now += seconds;
                    table.advance(now);
                }
            }
        }
        let alive = table.buckets.iter().flat_map(|bucket| bucket.lives).filter(|life| *life != Life::EMPTY);
        prop_assert_eq!(alive.count() as u64, table.statistics().entries);
    }
}
