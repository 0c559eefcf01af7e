//! Tests of frames, heap, areas and TLB shootdown.

use super::super::memory::{Frames, Stack, VirtualArea, free_pages};
use super::super::paging::Access;
use super::super::{clock, cpu, thread};
use super::wait_for;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub fn frames_come_back() {
    let before = free_pages();
    let mut runs = Vec::with_capacity(200);
    for round in 1..200_usize {
        let align = 1 << (round % 5);
        let Ok(run) = Frames::allocate(round % 37 + 1, align) else {
            panic!("out of memory")
        };
        assert!(
            run.physical().is_multiple_of(align as u64 * 4096),
            "misaligned run"
        );
        // SAFETY: Owned memory.
        unsafe { run.as_pointer().write_bytes(round as u8, run.bytes()) };
        runs.push((round as u8, run));
    }
    for (value, run) in &runs {
        // SAFETY: Owned and initialised above.
        let bytes = unsafe { core::slice::from_raw_parts(run.as_pointer(), run.bytes()) };
        assert!(bytes.iter().all(|byte| byte == value), "two runs overlap");
    }
    drop(runs);
    assert_eq!(free_pages(), before);
}

pub fn heap_keeps_contents() {
    let blocks: Vec<Vec<usize>> = (0..500).map(|index| alloc::vec![index; index * 7 + 1]).collect();
    for (index, block) in blocks.iter().enumerate() {
        assert!(block.iter().all(|&word| word == index));
    }
    let large = alloc::vec![0x5a_u8; 5 << 20];
    assert!(large.iter().all(|&byte| byte == 0x5a));
}

/// The image's own `memcpy` and its kin, against loops that the compiler can't turn into calls of them.
pub fn memory_functions() {
    const ROOM: usize = 600;
    let fresh = || core::array::from_fn::<u8, ROOM, _>(|index| (index * 31 + index / 7) as u8);
    let sizes = (0..70).chain([127, 128, 129, 191, 192, 200, 255, 256, 257, 300]);
    for length in sizes {
        for offset in [0_usize, 1, 7, 8, 15] {
            for distance in [-70_isize, -64, -16, -9, -1, 1, 5, 16, 63, 64, 70, 230] {
                let from = 200 + offset;
                let to = from.wrapping_add_signed(distance);
                if to + length > ROOM || from + length > ROOM {
                    continue;
                }
                let mut moved = fresh();
                moved.copy_within(from..from + length, to);
                let old = fresh();
                for (index, &byte) in moved.iter().enumerate() {
                    let inside = (to..to + length).contains(&index);
                    let expected = if inside {
                        old[index - to + from]
                    } else {
                        old[index]
                    };
                    assert!(
                        core::hint::black_box(byte) == expected,
                        "move of {length} by {distance} at {index}"
                    );
                }
            }
            let (mut copy, source) = ([0xee_u8; ROOM], fresh());
            copy[offset..offset + length].copy_from_slice(core::hint::black_box(&source[3..3 + length]));
            assert!(
                copy[offset..offset + length]
                    .iter()
                    .zip(&source[3..])
                    .all(|(a, b)| core::hint::black_box(a) == b)
            );
            assert!(copy[offset + length] == 0xee && (offset == 0 || copy[offset - 1] == 0xee));
            let mut filled = fresh();
            filled[offset..offset + length].fill(core::hint::black_box(0x5c));
            for (index, (&now, &before)) in filled.iter().zip(&fresh()).enumerate() {
                let inside = (offset..offset + length).contains(&index);
                assert!(
                    core::hint::black_box(now) == if inside { 0x5c } else { before },
                    "fill of {length}"
                );
            }
            let (left, mut right) = (fresh(), fresh());
            assert!(core::hint::black_box(&left[offset..offset + length]) == &right[offset..offset + length]);
            for index in (offset..offset + length).step_by(5) {
                right[index] ^= 0x81;
                let (a, b) = (&left[offset..offset + length], &right[offset..offset + length]);
                assert_eq!(core::hint::black_box(a).cmp(b), left[index].cmp(&right[index]));
                right[index] ^= 0x81;
            }
        }
    }
}

pub fn areas_give_everything_back() {
    // The first round may let the heap grow.
    for round in 0..20 {
        let before = free_pages();
        {
            let Ok(stack) = Stack::allocate(9) else {
                panic!("no stack")
            };
            let Ok(mut area) = VirtualArea::reserve(600) else {
                panic!("no area")
            };
            let Ok(run) = Frames::allocate(3, 1) else {
                panic!("no frames")
            };
            assert!(
                area.map(599, run, Access::ReadWrite).is_err(),
                "mapped beyond the end"
            );
            let Ok(run) = Frames::allocate(3, 1) else {
                panic!("no frames")
            };
            assert!(area.map(597, run, Access::ReadWrite).is_ok());
            let Ok(run) = Frames::allocate(1, 1) else {
                panic!("no frames")
            };
            assert!(area.map(598, run, Access::ReadWrite).is_err(), "mapped twice");
            let word = (area.start() + 599 * 4096 + 8) as *mut u64;
            // SAFETY: Mapped above, owned by `area`.
            unsafe {
                word.write_volatile(77);
                assert_eq!(word.read_volatile(), 77);
            }
            assert!(stack.bottom() + 9 * 4096 == stack.top());
        }
        assert!(
            round == 0 || free_pages() == before,
            "round {round}: {} instead of {before}",
            free_pages()
        );
    }
}

/// Every CPU reads one address again and again while the page behind it changes; once the change has
/// returned, no CPU may read the old page.
pub fn no_cpu_sees_an_old_mapping() {
    struct Shared {
        address: AtomicUsize,
        round: AtomicU64,
        done: AtomicBool,
        answers: Vec<AtomicU64>,
        left: AtomicUsize,
    }
    let count = cpu::count();
    let shared = Arc::new(Shared {
        address: AtomicUsize::new(0),
        round: AtomicU64::new(0),
        done: AtomicBool::new(false),
        answers: (0..count).map(|_| AtomicU64::new(0)).collect(),
        left: AtomicUsize::new(count as usize),
    });
    for index in 0..count {
        let shared = shared.clone();
        let reader = move || {
            let mut answered = 0;
            while !shared.done.load(Ordering::Acquire) {
                let round = shared.round.load(Ordering::Acquire);
                if round != answered {
                    let address = shared.address.load(Ordering::Acquire) as *const u64;
                    // SAFETY: The area stays mapped until every reader has answered.
                    let value = unsafe { address.read_volatile() };
                    assert_eq!(value, round, "CPU {index} reads through an old mapping");
                    answered = round;
                    shared.answers[index as usize].store(round, Ordering::Release);
                }
                // Sleeping keeps what the TLB holds, and leaves the host's CPUs to the other readers.
                thread::sleep_until(clock::now_ns() + 50_000);
            }
            shared.left.fetch_sub(1, Ordering::AcqRel);
        };
        let spawned = thread::spawn(thread::Builder::new("reader").cpu(index), reader);
        assert!(spawned.is_ok());
    }
    for round in 1..=100 {
        let Ok(mut area) = VirtualArea::reserve(1) else {
            panic!("no area")
        };
        let Ok(run) = Frames::allocate(1, 1) else {
            panic!("no frame")
        };
        // SAFETY: Owned.
        unsafe { run.as_pointer().cast::<u64>().write_volatile(round) };
        assert!(area.map(0, run, Access::ReadWrite).is_ok());
        // First fit: the address is always the same one.
        let previous = shared.address.swap(area.start(), Ordering::AcqRel);
        assert!(previous == 0 || previous == area.start(), "the address changed");
        shared.round.store(round, Ordering::Release);
        wait_for("readers", || {
            shared
                .answers
                .iter()
                .all(|answer| answer.load(Ordering::Acquire) == round)
        });
    }
    shared.done.store(true, Ordering::Release);
    wait_for("readers to end", || shared.left.load(Ordering::Acquire) == 0);
}
