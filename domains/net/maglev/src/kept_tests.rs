//! Tests of `kept.rs`: what comes through a death at any moment.

use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use super::*;

extern crate std;

fn roster(number: u16) -> Roster {
    Roster {
        seed: [7; 16],
        table_size: 65_537,
        vips: vec![("web".to_string(), [10, 0, 0, 100].into(), 80, true)],
        slots: vec![
            (
                number,
                Some(Tenant {
                    vip: 0,
                    name: "one".to_string(),
                    address: [10, 0, 0, 1].into(),
                    weight: 3,
                    draining: true,
                }),
            ),
            (5, None),
        ],
        neighbours: vec![([10, 0, 0, 1].into(), [2, 0, 0, 0, 0, 1])],
        source_mac: [2; 6],
    }
}

#[test]
fn the_first_start_finds_nothing() {
    host_platform::attach();
    let (_, left) = Kept::open(5).unwrap();
    assert_eq!(left, Left::default());
}

#[test]
fn the_newest_roster_comes_through() {
    host_platform::attach();
    let (mut kept, _) = Kept::open(5).unwrap();
    for number in 0..5 {
        assert!(kept.save(&roster(number)));
        kept.beat(100);
        kept.die();
        let (next, left) = Kept::open(101).unwrap();
        assert_eq!(left.roster, Some(roster(number)));
        assert!(left.tables);
        kept = next;
    }
}

#[test]
fn old_tables_are_not_used() {
    host_platform::attach();
    let (mut kept, _) = Kept::open(5).unwrap();
    assert!(kept.save(&roster(1)));
    kept.beat(100);
    kept.die();
    let (_, left) = Kept::open(101 + u64::from(LONGEST_TIMEOUT_SECONDS)).unwrap();
    assert!(left.roster.is_some() && !left.tables);
}

#[test]
fn what_kills_each_incarnation_is_given_up() {
    host_platform::attach();
    let (mut kept, _) = Kept::open(5).unwrap();
    assert!(kept.save(&roster(1)));
    kept.beat(6);
    for _ in 0..YOUNG_DEATHS {
        kept.die();
        let (next, left) = Kept::open(7).unwrap();
        assert!(left.roster.is_some());
        kept = next;
    }
    kept.die();
    let (mut kept, left) = Kept::open(7).unwrap();
    assert_eq!((left.roster, left.young_deaths), (None, YOUNG_DEATHS));
    assert!(kept.save(&roster(2)));
    kept.die();
    let (_, left) = Kept::open(7).unwrap();
    assert_eq!(left.roster, Some(roster(2)), "a fresh start is another matter");
}

proptest! {
    /// A death in the middle of `save`, however far it came: the roster is the new one or the one before.
    #[test]
    fn a_torn_copy_is_never_read(written in 0usize..400, from_behind: bool) {
        host_platform::attach();
        let (mut kept, _) = Kept::open(5).unwrap();
        assert!(kept.save(&roster(1)));
        assert!(kept.save(&roster(2)));
        // Number 3 goes into the second copy; only its beginning changes.
        let range = COPY_BYTES..COPY_BYTES + 400;
        let before = kept.copies[range.clone()].to_vec();
        assert!(kept.save(&roster(3)));
        let after = kept.copies[range.clone()].to_vec();
        let changed: std::vec::Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        prop_assert!(changed.len() > 8);
        let done = written.min(changed.len());
        let undone = if from_behind { &changed[..changed.len() - done] } else { &changed[done..] };
        for &at in undone {
            kept.copies[range.start + at] = before[at];
        }
        let whole = undone.is_empty();
        kept.die();
        let (_, left) = Kept::open(6).unwrap();
        prop_assert_eq!(left.roster, Some(roster(if whole { 3 } else { 2 })));
    }

    /// Whatever is in the memory, it is read without harm.
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u64..300) {
        host_platform::attach();
        let (mut kept, _) = Kept::open(5).unwrap();
        kept.copies[HEAD_BYTES..HEAD_BYTES + bytes.len()].copy_from_slice(&bytes);
        kept.copies[..8].copy_from_slice(&9u64.to_le_bytes());
        kept.copies[8..16].copy_from_slice(&length.to_le_bytes());
        kept.die();
        let (_, left) = Kept::open(6).unwrap();
        prop_assert_eq!(left.roster, None);
    }
}
