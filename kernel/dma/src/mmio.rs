//! Registers of a device in a BAR: 32-bit accesses, bounds-checked, with a guard on what a driver may write.
//!
//! Reads are free for all registers: none of them changes what memory the device uses. Writes by a driver go through an
//! allow-list; everything else, and so each register that holds an address, is for trusted code ([`Mmio::write_trusted`]).

use abi::sys;
use core::fmt;

/// Registers from `first` to `last` (offsets of 32-bit words, both included) that a driver may write.
#[derive(Clone, Copy, Debug)]
pub struct WritableRange {
    /// First offset.
    pub first: u32,
    /// Last offset.
    pub last: u32,
    /// What they are, by the data sheet's names.
    pub name: &'static str,
}

/// Shorthand for tables.
pub(crate) const fn writable(first: u32, last: u32, name: &'static str) -> WritableRange {
    WritableRange { first, last, name }
}

/// A register that didn't come to the awaited value in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterTimeout {
    /// Offset of the register.
    pub register: u32,
    /// Its last value.
    pub value: u32,
}

impl fmt::Display for RegisterTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "register {:#07x} stays at {:#010x}", self.register, self.value)
    }
}

/// A mapped register window.
pub struct Mmio {
    bar: Bar,
    length: u32,
    writable: &'static [WritableRange],
}

pub(crate) enum Bar {
    /// Where it is mapped, uncached.
    Mapped(*mut u8),
    #[cfg(feature = "host")]
    Model(alloc::sync::Arc<dyn crate::host::Model>),
}

// SAFETY: The mapping belongs to the domain, not to a thread; device registers take accesses from any CPU, each a single
// 32-bit bus transaction.
unsafe impl Send for Mmio {}
// SAFETY: As above.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// `writable` is sorted by offset and doesn't overlap.
    pub(crate) fn new(bar: Bar, length: u32, writable: &'static [WritableRange]) -> Mmio {
        Mmio {
            bar,
            length,
            writable,
        }
    }

    #[inline(always)]
    fn in_window(&self, offset: u32) -> bool {
        offset.is_multiple_of(4) && offset < self.length
    }

    /// Reads a register. Outside the window the answer is all ones, as from a device that is gone.
    #[inline]
    pub fn read(&self, offset: u32) -> u32 {
        if !self.in_window(offset) {
            return u32::MAX;
        }
        match &self.bar {
            // SAFETY: The window is mapped for the domain's life, and a whole aligned word at `offset` lies in it (checked; the
            // length is a multiple of 4 for every table of this crate).
            Bar::Mapped(base) => unsafe { base.add(offset as usize).cast::<u32>().read_volatile() },
            #[cfg(feature = "host")]
            Bar::Model(model) => model.read(offset),
        }
    }

    /// Whether a driver may write this register.
    pub fn is_writable(&self, offset: u32) -> bool {
        let after = self.writable.partition_point(|range| range.first <= offset);
        self.in_window(offset)
            && after
                .checked_sub(1)
                .and_then(|index| self.writable.get(index))
                .is_some_and(|range| offset <= range.last)
    }

    /// Writes a register.
    ///
    /// # Panics
    /// When the register isn't one that drivers may write: one that holds an address, a ring's length, head, tail or enable, or
    /// one that isn't listed. Offsets are constants of the driver, so this is a mistake in it, not something that input reaches.
    #[inline]
    pub fn write(&self, offset: u32, value: u32) {
        assert!(
            self.is_writable(offset),
            "register {offset:#x} is not a driver's to write"
        );
        self.write_trusted(offset, value);
    }

    /// Writes any register of the window; nothing happens outside of it.
    #[inline]
    pub(crate) fn write_trusted(&self, offset: u32, value: u32) {
        if !self.in_window(offset) {
            return;
        }
        match &self.bar {
            // SAFETY: As `read`. What the write makes the device do with memory is the caller's argument: the allow-list, or a ring.
            Bar::Mapped(base) => unsafe { base.add(offset as usize).cast::<u32>().write_volatile(value) },
            #[cfg(feature = "host")]
            Bar::Model(model) => model.write(offset, value),
        }
    }

    /// Reads a register until `done`, at most for `limit_us` microseconds, and at least twice.
    pub fn poll(
        &self,
        offset: u32,
        limit_us: u64,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, RegisterTimeout> {
        let deadline = (sys().now_ns)().saturating_add(limit_us.saturating_mul(1000));
        loop {
            let expired = (sys().now_ns)() >= deadline;
            let value = self.read(offset);
            if done(value) {
                return Ok(value);
            }
            if expired {
                return Err(RegisterTimeout {
                    register: offset,
                    value,
                });
            }
            (sys().thread_yield)();
        }
    }

    /// The same for waits that may be long: after the first two milliseconds the thread sleeps between two looks, a millisecond each.
    pub fn poll_patiently(
        &self,
        offset: u32,
        limit_us: u64,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, RegisterTimeout> {
        const EAGER_US: u64 = 2_000;
        const SLEEP_NS: u64 = 1_000_000;
        let deadline_ns = (sys().now_ns)().saturating_add(limit_us.saturating_mul(1000));
        if let Ok(value) = self.poll(offset, limit_us.min(EAGER_US), &done) {
            return Ok(value);
        }
        loop {
            let now_ns = (sys().now_ns)();
            let value = self.read(offset);
            if done(value) {
                return Ok(value);
            }
            if now_ns >= deadline_ns {
                return Err(RegisterTimeout {
                    register: offset,
                    value,
                });
            }
            (sys().thread_park)(now_ns.saturating_add(SLEEP_NS));
        }
    }
}
