//! Tests of threads, timers and clocks.

use super::super::memory::{Frames, VirtualArea};
use super::super::paging::Access;
use super::super::thread::{self, Builder, ThreadId, Wake};
use super::super::{clock, cpu};
use super::wait_for;
use crate::time::NEVER;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

fn spawn(name: &str, cpu: u32, f: impl FnOnce() + Send + 'static) -> ThreadId {
    match thread::spawn(Builder::new(name).cpu(cpu), f) {
        Ok(id) => id,
        Err(error) => panic!("no thread: {error}"),
    }
}

pub fn early_wake_is_kept() {
    let me = thread::current_id();
    assert!(thread::unpark(me));
    assert!(thread::unpark(me));
    assert_eq!(thread::park_until(NEVER), Wake::Woken);
    // One token, not a count.
    assert_eq!(thread::park_until(clock::now_ns() + 1_000_000), Wake::TimedOut);
    assert_eq!(thread::park_until(0), Wake::TimedOut);
}

pub fn park_times_out() {
    for wait_ns in [1, 50_000, 3_000_000, 30_000_000] {
        let deadline = clock::now_ns() + wait_ns;
        assert_eq!(thread::park_until(deadline), Wake::TimedOut);
        assert!(clock::now_ns() >= deadline, "woken too early");
    }
}

pub fn cancel_ends_a_wait() {
    for cpu in 0..cpu::count() {
        let result = Arc::new(AtomicU64::new(0));
        let theirs = result.clone();
        let id = spawn("waiter", cpu, move || {
            let wake = thread::park();
            theirs.store(if wake == Wake::Cancelled { 1 } else { 2 }, Ordering::Release);
        });
        assert!(thread::cancel(id));
        wait_for("the cancelled thread", || result.load(Ordering::Acquire) != 0);
        assert_eq!(result.load(Ordering::Acquire), 1);
        wait_for("its end", || !thread::unpark(id));
        assert!(!thread::cancel(id), "an ended thread was found");
    }
    let me = thread::current_id();
    thread::cancel(me);
    thread::clear_cancellation(me);
    assert_eq!(thread::park_until(clock::now_ns() + 1000), Wake::TimedOut);
}

/// A host may take the CPU away before the last sleeper sleeps, or for a whole time slice between a waking and its note. So the order is tried again
/// with more time ahead; timers that mix it up do so every time.
pub fn sleepers_wake_in_order() {
    let mut orders = Vec::new();
    for lead_ms in [5, 20, 80, 320, 1280] {
        let order = order_of_sleepers(lead_ms);
        if order.is_sorted() {
            return;
        }
        orders.push(order);
    }
    panic!("sleepers woke in the orders {orders:?}");
}

/// The turns of sleepers in the order that they woke in; the first is to wake after `lead_ms`.
fn order_of_sleepers(lead_ms: u64) -> Vec<usize> {
    const SLEEPERS: usize = 20;
    let order = Arc::new(AtomicUsize::new(0));
    let turns: Arc<Vec<AtomicUsize>> =
        Arc::new((0..SLEEPERS).map(|_| AtomicUsize::new(usize::MAX)).collect());
    let start = clock::now_ns() + lead_ms * 1_000_000;
    for index in 0..SLEEPERS {
        let (order, turns) = (order.clone(), turns.clone());
        // Started in another order than they wake in.
        let turn = index * 7 % SLEEPERS;
        spawn("sleeper", 0, move || {
            thread::sleep_until(start + turn as u64 * 500_000);
            turns[order.fetch_add(1, Ordering::AcqRel)].store(turn, Ordering::Release);
        });
    }
    wait_for("sleepers", || {
        turns
            .iter()
            .all(|turn| turn.load(Ordering::Acquire) != usize::MAX)
    });
    turns.iter().map(|turn| turn.load(Ordering::Acquire)).collect()
}

pub fn cross_cpu_ping_pong() {
    const ROUNDS: u64 = 3000;
    for other in 0..cpu::count() {
        let me = thread::current_id();
        let ball = Arc::new(AtomicU64::new(0));
        let theirs = ball.clone();
        let player = spawn("player", other, move || {
            for round in 0..ROUNDS {
                while theirs.load(Ordering::Acquire) != 2 * round + 1 {
                    thread::park();
                }
                theirs.store(2 * round + 2, Ordering::Release);
                thread::unpark(me);
            }
        });
        for round in 0..ROUNDS {
            ball.store(2 * round + 1, Ordering::Release);
            thread::unpark(player);
            while ball.load(Ordering::Acquire) != 2 * round + 2 {
                let wake = thread::park_until(clock::now_ns() + 10_000_000_000);
                assert!(
                    wake == Wake::Woken,
                    "a wake was lost in round {round} with CPU {other}"
                );
            }
        }
    }
}

/// Spins for a while with known values in general and vector registers, and in the red zone; false if one has
/// changed.
fn registers_survive(seed: u64, rounds: u64) -> bool {
    let (mut changed, mut count) = (0_u64, rounds);
    // SAFETY: Uses registers and the red zone below the stack pointer only, and declares what it changes.
    unsafe {
        asm!(
            "movq xmm3, {seed}",
            "movq xmm14, {seed}",
            "mov r8, {seed}",
            "mov r15, {seed}",
            "mov [rsp - 128], {seed}",
            "mov [rsp - 8], {seed}",
            "2:",
            "dec {count}",
            "jnz 2b",
            "movq {scratch}, xmm3",
            "xor {scratch}, {seed}",
            "or {changed}, {scratch}",
            "movq {scratch}, xmm14",
            "xor {scratch}, {seed}",
            "or {changed}, {scratch}",
            "xor r8, {seed}",
            "or {changed}, r8",
            "xor r15, {seed}",
            "or {changed}, r15",
            "mov {scratch}, [rsp - 128]",
            "xor {scratch}, {seed}",
            "or {changed}, {scratch}",
            "mov {scratch}, [rsp - 8]",
            "xor {scratch}, {seed}",
            "or {changed}, {scratch}",
            seed = in(reg) seed,
            count = inout(reg) count,
            changed = inout(reg) changed,
            scratch = out(reg) _,
            out("xmm3") _, out("xmm14") _, out("r8") _, out("r15") _,
        );
    }
    let _ = count;
    changed == 0
}

pub fn preemption_keeps_registers() {
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicUsize::new(0));
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..3).map(|_| AtomicU64::new(0)).collect());
    let target = cpu::count() - 1;
    for index in 0..3_u64 {
        let (stop, running, counts) = (stop.clone(), running.clone(), counts.clone());
        running.fetch_add(1, Ordering::AcqRel);
        spawn("spinner", target, move || {
            while !stop.load(Ordering::Acquire) {
                assert!(
                    registers_survive(0x1111_2222_3333_0000 + index, 200_000),
                    "a register was lost"
                );
                counts[index as usize].fetch_add(1, Ordering::AcqRel);
            }
            running.fetch_sub(1, Ordering::AcqRel);
        });
    }
    // None of them ever yields, so each gets on only by being preempted.
    wait_for("every spinner", || {
        counts.iter().all(|count| count.load(Ordering::Acquire) >= 100)
    });
    stop.store(true, Ordering::Release);
    wait_for("the spinners' end", || running.load(Ordering::Acquire) == 0);
}

pub fn ended_threads_give_everything_back() {
    let ended = Arc::new(AtomicUsize::new(0));
    for batch in 1..=50_usize {
        for index in 0..8 {
            let ended = ended.clone();
            spawn("short", index % cpu::count(), move || {
                ended.fetch_add(1, Ordering::AcqRel);
            });
        }
        wait_for("short threads", || ended.load(Ordering::Acquire) == batch * 8);
    }
}

/// Everything at once, from every CPU: threads are made and end, areas come and go (each with a TLB flush on
/// all CPUs), and everybody wakes and cancels everybody. Nothing may deadlock, and nothing may be lost.
pub fn storm() {
    let workers = 2 * cpu::count() as usize;
    let children_ended = Arc::new(AtomicUsize::new(0));
    let workers_ended = Arc::new(AtomicUsize::new(0));
    let everybody: Arc<Vec<AtomicU64>> = Arc::new((0..workers).map(|_| AtomicU64::new(0)).collect());
    const CHILDREN: usize = 25;
    for index in 0..workers {
        let (children_ended, workers_ended) = (children_ended.clone(), workers_ended.clone());
        let everybody = everybody.clone();
        spawn("storm", index as u32 % cpu::count(), move || {
            everybody[index].store(thread::current_id().number(), Ordering::Release);
            for round in 0..CHILDREN {
                let (ended, others) = (children_ended.clone(), everybody.clone());
                spawn("storm child", (index + round) as u32 % cpu::count(), move || {
                    for other in others.iter() {
                        let id = ThreadId::from_number(other.load(Ordering::Acquire));
                        if round % 3 == 0 {
                            thread::cancel(id)
                        } else {
                            thread::unpark(id)
                        };
                    }
                    thread::park_until(clock::now_ns() + 100_000);
                    ended.fetch_add(1, Ordering::AcqRel);
                });
                let Ok(mut area) = VirtualArea::reserve(round % 5 + 3) else {
                    panic!("no area")
                };
                let Ok(run) = Frames::allocate(round % 5 + 1, 1) else {
                    panic!("no frames")
                };
                assert!(area.map(1, run, Access::ReadWrite).is_ok());
                let word = (area.start() + 4096) as *mut usize;
                // SAFETY: Mapped above, owned by `area`.
                unsafe { word.write_volatile(index) };
                let _ = thread::park_until(clock::now_ns() + 50_000);
                // SAFETY: As above.
                assert_eq!(unsafe { word.read_volatile() }, index, "two areas share memory");
                if round % 2 == 0 {
                    thread::yield_now();
                }
            }
            workers_ended.fetch_add(1, Ordering::AcqRel);
        });
    }
    wait_for("the storm to end", || {
        workers_ended.load(Ordering::Acquire) == workers
            && children_ended.load(Ordering::Acquire) == workers * CHILDREN
    });
}

pub fn time_agrees() {
    // One clock reading passed around: each CPU's must not be before the one it gets.
    let latest = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    for index in 0..cpu::count() {
        let (latest, done) = (latest.clone(), done.clone());
        spawn("clock", index, move || {
            for _ in 0..20_000 {
                let seen = latest.load(Ordering::SeqCst);
                let now = clock::now_ns();
                assert!(
                    now >= seen,
                    "the clock of CPU {index} is {} ns behind",
                    seen - now
                );
                latest.fetch_max(now, Ordering::SeqCst);
            }
            done.fetch_add(1, Ordering::AcqRel);
        });
    }
    wait_for("clock threads", || {
        done.load(Ordering::Acquire) == cpu::count() as usize
    });
    assert!(
        clock::unix_time_ns() > 1_700_000_000_000_000_000,
        "the date is before 2023"
    );
}

/// With nothing to do but one sleeper, CPUs are interrupted for its deadline only.
pub fn idle_machine_is_quiet() {
    thread::sleep_until(clock::now_ns() + 20_000_000);
    let interrupts = || {
        (0..cpu::count())
            .map(super::super::interrupts::count)
            .sum::<u64>()
    };
    let before = interrupts();
    thread::sleep_until(clock::now_ns() + 300_000_000);
    let taken = interrupts() - before;
    // A tick of even 100 Hz would make 30 on each CPU; a few are console output and timers that were set
    // before.
    assert!(taken < 12, "{taken} interrupts while idle");
}
