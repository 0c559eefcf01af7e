//! Time: nanoseconds since the kernel's first instruction, on all CPUs; the one-shot timer; the date.
//!
//! The time-stamp counter is the clock. Its rate and that of the local APIC's timer are measured once,
//! against the ACPI timer or, without one, against the legacy interval timer.

use super::acpi::Platform;
use super::{apic, boot};
use crate::time::{NS_PER_SECOND, Rate, unix_seconds};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use x86_64::instructions::port::Port;

/// The ACPI timer's rate (ACPI 6.5, chapter 4.8.3.3).
const ACPI_TIMER_HZ: u64 = 3_579_545;
/// The interval timer's rate.
const INTERVAL_TIMER_HZ: u64 = 1_193_182;
/// How long the rates are measured.
const MEASURE_US: u64 = 20_000;
/// Ticks of the time-stamp counter after which a reference clock that doesn't move is given up (seconds on
/// any machine).
const GIVE_UP_TICKS: u64 = 20_000_000_000;

struct Rates {
    counter: Rate,
    timer: Rate,
}

/// Set once in `start`, before other CPUs run, and constant afterwards.
static RATES: spin_once::Once<Rates> = spin_once::Once::new();
static BOOT_UNIX_NS: AtomicU64 = AtomicU64::new(0);

/// A value that is written once.
mod spin_once {
    use super::{AtomicBool, Ordering};
    use core::cell::UnsafeCell;
    use core::mem::MaybeUninit;

    pub struct Once<T> {
        ready: AtomicBool,
        value: UnsafeCell<MaybeUninit<T>>,
    }

    // SAFETY: The value is written before `ready` is set and never afterwards; from then on it is only read.
    unsafe impl<T: Send + Sync> Sync for Once<T> {}

    impl<T> Once<T> {
        pub const fn new() -> Self {
            Self {
                ready: AtomicBool::new(false),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            }
        }

        #[inline(always)]
        pub fn get(&self) -> Option<&T> {
            // SAFETY: `ready` says that the value is initialised.
            self.ready
                .load(Ordering::Acquire)
                .then(|| unsafe { (*self.value.get()).assume_init_ref() })
        }

        /// # Safety
        /// Called once, while nothing else uses the value.
        pub unsafe fn set(&self, value: T) {
            // SAFETY: By the contract.
            unsafe { (*self.value.get()).write(value) };
            self.ready.store(true, Ordering::Release);
        }
    }
}

/// The time-stamp counter.
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: Every processor with long mode has the counter, and reading it has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A clock of known rate that the others are measured against.
enum Reference {
    Acpi { port: u16, mask: u32 },
    Interval,
}

impl Reference {
    fn hz(&self) -> u64 {
        match self {
            Self::Acpi { .. } => ACPI_TIMER_HZ,
            Self::Interval => INTERVAL_TIMER_HZ,
        }
    }

    /// The clock's value, counting upwards.
    fn read(&self) -> u32 {
        match *self {
            // SAFETY: The port of the ACPI timer, which can only be read.
            Self::Acpi { port, .. } => unsafe { Port::<u32>::new(port).read() },
            // SAFETY: Channel 0 of the interval timer: latch, then the two halves of the count, which goes
            // down.
            Self::Interval => unsafe {
                Port::<u8>::new(0x43).write(0);
                let low = Port::<u8>::new(0x40).read();
                let high = Port::<u8>::new(0x40).read();
                u32::from(!u16::from_le_bytes([low, high]))
            },
        }
    }

    fn elapsed(&self, from: u32, to: u32) -> u32 {
        let mask = match *self {
            Self::Acpi { mask, .. } => mask,
            Self::Interval => 0xffff,
        };
        to.wrapping_sub(from) & mask
    }

    /// The clock's and the counter's value at (nearly) the same moment: of several pairs that which was read
    /// the fastest, since the reading may be interrupted by whatever runs below us.
    fn pair(&self) -> (u32, u64) {
        let mut best = (u64::MAX, 0, 0);
        for _ in 0..8 {
            let before = counter();
            let value = self.read();
            let after = counter();
            if after - before < best.0 {
                best = (after - before, value, before + (after - before) / 2);
            }
        }
        (best.1, best.2)
    }
}

/// Measures the rates and reads the date.
pub(super) fn start(platform: &Platform) {
    let reference = match platform.timer {
        Some((port, wide)) => Reference::Acpi {
            port,
            mask: if wide { u32::MAX } else { 0x00ff_ffff },
        },
        None => {
            // SAFETY: Channel 0 of the interval timer: free-running over the whole range.
            unsafe {
                Port::<u8>::new(0x43).write(0x34_u8);
                Port::<u8>::new(0x40).write(0_u8);
                Port::<u8>::new(0x40).write(0_u8);
            }
            Reference::Interval
        }
    };
    let wanted = (reference.hz() * MEASURE_US / 1_000_000) as u32;
    let (first, counter_first) = reference.pair();
    apic::set_timer(u32::MAX);
    while reference.elapsed(first, reference.read()) < wanted {
        assert!(
            counter() - counter_first < GIVE_UP_TICKS,
            "the reference clock doesn't run"
        );
        core::hint::spin_loop();
    }
    let timer_ticks = u32::MAX - apic::timer_remaining();
    let (last, counter_last) = reference.pair();
    apic::set_timer(0);
    let elapsed = u64::from(reference.elapsed(first, last)).max(1);
    let hz = |ticks: u64| (u128::from(ticks) * u128::from(reference.hz()) / u128::from(elapsed)) as u64;
    let rates = Rates {
        counter: Rate::from_hz(hz(counter_last - counter_first)),
        timer: Rate::from_hz(hz(timer_ticks.into())),
    };
    log::debug!(
        "time-stamp counter {} kHz, timer {} kHz",
        rates.counter.hz() / 1000,
        rates.timer.hz() * apic::TIMER_DIVISOR / 1000
    );
    // SAFETY: Once, on the boot CPU, before others run; `now_ns` before this finds the value not ready.
    unsafe { RATES.set(rates) };
    let unix_ns = read_date().saturating_mul(NS_PER_SECOND);
    BOOT_UNIX_NS.store(unix_ns.saturating_sub(now_ns()), Ordering::Relaxed);
}

/// Nanoseconds since the kernel's first instruction; monotonic, and the same on all CPUs. 0 until the clock
/// runs.
#[inline]
pub fn now_ns() -> u64 {
    match RATES.get() {
        Some(rates) => rates.counter.ns(counter().saturating_sub(boot::first_tick())),
        None => 0,
    }
}

/// Nanoseconds since 1970 (UTC), by the machine's battery-backed clock at boot, which has a resolution of a
/// second.
pub fn unix_time_ns() -> u64 {
    BOOT_UNIX_NS.load(Ordering::Relaxed).saturating_add(now_ns())
}

/// Interrupts this CPU at `deadline_ns`, or earlier if the timer's range ends before it.
pub(super) fn arm_timer(now_ns: u64, deadline_ns: u64) {
    if let Some(rates) = RATES.get() {
        let ticks = rates
            .timer
            .ticks(deadline_ns.saturating_sub(now_ns))
            .saturating_add(1);
        apic::set_timer(u32::try_from(ticks).unwrap_or(u32::MAX));
    }
}

/// Waits without giving up the CPU; for hardware that needs a pause.
pub fn busy_wait_us(microseconds: u64) {
    let end = now_ns() + microseconds * 1000;
    while now_ns() < end {
        core::hint::spin_loop();
    }
}

/// Seconds since 1970 by the CMOS clock; 0 if it gives no stable answer.
fn read_date() -> u64 {
    fn register(index: u8) -> u8 {
        // SAFETY: The CMOS clock's index and data port; reading changes nothing.
        unsafe {
            Port::<u8>::new(0x70).write(index | 0x80);
            Port::<u8>::new(0x71).read()
        }
    }
    fn snapshot() -> [u8; 6] {
        [0, 2, 4, 7, 8, 9].map(register)
    }
    // Twice the same, outside of an update; an update takes 2 ms at most.
    let mut previous = snapshot();
    for _ in 0..10_000 {
        let updating = register(0x0a) & 0x80 != 0;
        let now = snapshot();
        if !updating && now == previous {
            break;
        }
        previous = now;
    }
    let format = register(0x0b);
    let decode = |value: u8| -> u64 {
        if format & 4 != 0 {
            value.into()
        } else {
            u64::from(value >> 4) * 10 + u64::from(value & 15)
        }
    };
    let [second, minute, hour, day, month, year] = previous;
    let mut hours = decode(hour & 0x7f);
    if format & 2 == 0 {
        hours = hours % 12 + if hour & 0x80 != 0 { 12 } else { 0 };
    }
    let (month, day) = (decode(month), decode(day));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return 0;
    }
    unix_seconds(
        2000 + decode(year),
        month,
        day,
        hours,
        decode(minute),
        decode(second),
    )
}
