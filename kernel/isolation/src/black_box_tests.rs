//! Tests of the bounds of what is kept, and of the walk over stacks that somebody has made up.

use super::*;
use proptest::prelude::*;
use std::vec;

fn event(text: &str, at_ns: u64) -> Event {
    Event {
        at_ns,
        generation: 1,
        kind: EventKind::Logged,
        text: Text::new(text),
        count: 1,
    }
}

fn black_box(number: u64, slot: u16) -> BlackBox {
    BlackBox::new(number, OwnerId::new(slot, number), Counters::default())
}

#[test]
fn the_last_events_are_kept_and_repetitions_counted() {
    let mut events = Events::new();
    assert_eq!(events.last().count(), 0);
    for number in 0..EVENT_LIMIT as u64 * 2 {
        events.add(event(&std::format!("event {number}"), number));
    }
    for at_ns in 100..105 {
        events.add(event("refused", at_ns));
    }
    let last: Vec<Event> = events.last().collect();
    assert_eq!(last.len(), EVENT_LIMIT);
    let newest = last.last().expect("there are events");
    assert_eq!((newest.count, newest.at_ns), (5, 104));
    let numbers: Vec<u64> = last.iter().map(|event| event.at_ns).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(
        numbers.first(),
        Some(&(EVENT_LIMIT as u64 + 1)),
        "none between is missing"
    );
}

#[test]
fn the_same_event_of_another_incarnation_is_another_event() {
    let mut events = Events::new();
    events.add(event("loaded", 1));
    events.add(Event {
        generation: 2,
        ..event("loaded", 2)
    });
    assert_eq!(events.last().count(), 2);
}

#[test]
fn a_crash_loop_does_not_push_out_what_happened_to_others() {
    let mut archive = Archive::new();
    assert!(archive.add(black_box(1, 7)).is_none());
    for number in 2..1000 {
        let gone = archive.add(black_box(number, 3));
        assert_eq!(gone.is_some(), number > BOX_LIMIT as u64);
    }
    assert_eq!(archive.find(1).map(|kept| kept.owner.slot()), Some(7));
    assert!(archive.find(999).is_some(), "the newest is there");
    assert!(archive.find(2).is_none());
    assert!(archive.of(OwnerId::new(3, 999)).is_some());
    assert!(archive.of(OwnerId::new(3, 2)).is_none());
}

fn seen(id: u64, position: Position, methods: &[&str]) -> SeenThread {
    SeenThread {
        id,
        name: Text::EMPTY,
        cpu: 0,
        position,
        fault: None,
        frames: heapless::Vec::new(),
        is_exact: true,
        links: methods
            .iter()
            .map(|method| Link {
                callee: OwnerId::new(1, 1),
                method: Text::new(method),
            })
            .collect(),
    }
}

#[test]
fn a_thread_is_seen_once_and_those_without_room_are_counted() {
    let mut kept = black_box(1, 1);
    for id in [1, 2, 1, 3, 4, 5, 6] {
        kept.see(seen(id, Position::InDomain, &[]));
    }
    assert_eq!(kept.threads.len(), THREAD_LIMIT);
    assert_eq!(kept.more_threads, 2);
}

/// Ten threads leave the domain in any order: the one at fault is kept, then those in crossings, then others as they come.
#[test]
fn the_threads_that_tell_most_are_kept() {
    let threads = [
        seen(1, Position::InKernel, &[""]),
        seen(2, Position::InKernel, &[]),
        seen(3, Position::InDomain, &[""]),
        seen(4, Position::InKernel, &["Sockets.wait", ""]),
        seen(5, Position::InDomain, &["NetDevice.exchange", ""]),
        seen(6, Position::AtFault, &[""]),
        seen(7, Position::InKernel, &["Sockets.wait", ""]),
        seen(8, Position::InKernel, &[""]),
        seen(9, Position::InDomain, &[]),
        seen(10, Position::InKernel, &[]),
    ];
    for start in 0..threads.len() {
        let mut kept = black_box(1, 1);
        let rotated = threads.iter().cycle().skip(start).take(threads.len());
        rotated.cloned().for_each(|thread| kept.see(thread));
        let mut ids: Vec<u64> = kept.threads.iter().map(|thread| thread.id).collect();
        assert_eq!(ids.first(), Some(&6), "from {start}");
        assert_eq!(ids.get(1), Some(&5), "from {start}");
        ids.sort_unstable();
        assert_eq!(ids, [4, 5, 6, 7], "from {start}");
        assert_eq!(kept.more_threads, 6);
    }
}

/// A stack from `START` upwards. Code is at multiples of 16 from `CODE` on, with a call before each.
struct Made {
    words: Vec<u64>,
}

const START: u64 = 0x7000;
const CODE: u64 = 0x10_0000;

impl Memory for Made {
    fn word(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(START)?;
        self.words.get(usize::try_from(offset / 8).ok()?).copied()
    }

    fn code_before(&self, address: u64) -> Option<[u8; 7]> {
        let is_code = (CODE..CODE + 0x1000).contains(&address);
        is_code.then_some(if address.is_multiple_of(16) {
            [0x90, 0x90, 0xe8, 1, 2, 3, 4]
        } else {
            [0x90; 7]
        })
    }
}

fn walked(words: Vec<u64>, frame: u64) -> (Vec<u64>, bool) {
    let mut found = Vec::new();
    let is_exact = walk(&Made { words }, START, frame, |address| {
        found.push(address);
        found.len() < FRAME_LIMIT
    });
    (found, is_exact)
}

#[test]
fn frame_pointers_are_followed_and_nothing_else_is_taken() {
    let words = vec![
        CODE + 0x100, // left over from a call that has returned
        START + 0x20,
        CODE + 0x10,
        0xdead,
        0,
        CODE + 0x20,
        7,
    ];
    assert_eq!(walked(words, START + 8), (vec![CODE + 0x10, CODE + 0x20], true));
}

#[test]
fn without_frame_pointers_the_stack_is_searched() {
    let words = vec![5, CODE + 0x10, CODE + 0x11, CODE + 0x30, START];
    let (found, is_exact) = walked(words.clone(), 0xdead_beef);
    assert_eq!(found, [CODE + 0x10, CODE + 0x30]);
    assert!(!is_exact);
    // As after a function that used the frame pointer for something else.
    assert_eq!(walked(words, 0), (found, false));
}

#[test]
fn a_chain_that_breaks_is_continued_by_searching() {
    let words = vec![12345, CODE + 0x10, CODE + 0x20, 3, CODE + 0x30];
    assert_eq!(
        walked(words, START),
        (vec![CODE + 0x10, CODE + 0x20, CODE + 0x30], false)
    );
}

#[test]
fn a_frame_that_points_downwards_or_to_itself_ends_the_chain() {
    for next in [START, START + 8] {
        let (found, is_exact) = walked(vec![0, next, CODE + 0x10, 0], START + 8);
        assert_eq!((found, is_exact), (vec![CODE + 0x10], false));
    }
}

#[test]
fn every_form_of_call_is_one() {
    struct Code([u8; 7]);
    impl Memory for Code {
        fn word(&self, _: u64) -> Option<u64> {
            None
        }
        fn code_before(&self, _: u64) -> Option<[u8; 7]> {
            Some(self.0)
        }
    }
    // Of `objdump`: call rel32; *%rax; *(%rax); *0x8(%rax); *0x1000(%rax); *(%rax,%rcx,8); *0x8(%rsp); *0x1000(%rax,%rcx,8); *0x1000(%rip).
    let calls: [&[u8]; 9] = [
        &[0xe8, 1, 0, 0, 0],
        &[0xff, 0xd0],
        &[0xff, 0x10],
        &[0xff, 0x50, 0x08],
        &[0xff, 0x90, 0, 0x10, 0, 0],
        &[0xff, 0x14, 0xc8],
        &[0xff, 0x54, 0x24, 0x08],
        &[0xff, 0x94, 0xc8, 0, 0x10, 0, 0],
        &[0xff, 0x15, 0, 0x10, 0, 0],
    ];
    for call in calls {
        let mut code = [0x90; 7];
        code[7 - call.len()..].copy_from_slice(call);
        assert!(is_return_address(&Code(code), 1), "{call:x?}");
    }
    for other in [[0x90; 7], [0xff; 7], [0, 0, 0, 0, 0, 0xff, 0xe0], [0; 7]] {
        assert!(!is_return_address(&Code(other), 1), "{other:x?}");
    }
}

proptest! {
    /// Whatever is on a stack and in the registers, the walk ends, finds return addresses only, and no word twice.
    #[test]
    fn any_stack_is_walked_to_its_end(
        words in proptest::collection::vec(prop_oneof![any::<u64>(), (0u64..64).prop_map(|n| START + n * 8), (0u64..256).prop_map(|n| CODE + n)], 0..64),
        frame in prop_oneof![any::<u64>(), (0u64..64).prop_map(|n| START + n * 8)],
        stack in prop_oneof![any::<u64>(), Just(START)],
    ) {
        let total = words.len();
        let made = Made { words };
        let mut found = Vec::new();
        walk(&made, stack, frame, |address| { found.push(address); true });
        prop_assert!(found.len() <= total);
        prop_assert!(found.iter().all(|&address| is_return_address(&made, address)));
    }
}
