//! Physically contiguous memory that a device reads and writes: where descriptors live.
//!
//! It is never freed before its domain dies: hardware may hold a ring's base long after software has lost interest in it.

use abi::TransmitPlace;
use abi::place::DESCRIPTOR_BYTES;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// A descriptor as two words; what they mean is the device's.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct Descriptor {
    low: u64,
    high: u64,
}

/// Zeroed, page-aligned memory of `SLOTS` descriptors that a device shares.
///
/// `SLOTS` is a power of two, and any count names a slot: its remainder. Accesses are volatile, since hardware changes the words; no
/// reference into the memory is ever made.
pub struct Descriptors<const SLOTS: usize> {
    slots: Slots<SLOTS>,
    physical: u64,
}

/// Where the descriptors are: a copy for loops, whose optimiser can't know that nothing else changes the original.
#[derive(Clone, Copy)]
pub struct Slots<const SLOTS: usize> {
    base: NonNull<Descriptor>,
    owns: PhantomData<Descriptor>,
}

// SAFETY: The memory belongs to this value alone (and the device); it is not tied to a thread.
unsafe impl<const SLOTS: usize> Send for Descriptors<SLOTS> {}

impl<const SLOTS: usize> Descriptors<SLOTS> {
    /// Length in bytes.
    pub const BYTES: usize = {
        assert!(SLOTS.is_power_of_two());
        SLOTS * size_of::<Descriptor>()
    };

    /// Memory for device `device`; `None` when there is none.
    pub fn allocate(device: u64) -> Option<Self> {
        let raw = (abi::sys().dma_allocate)(device, Self::BYTES);
        Some(Descriptors {
            slots: Slots::new(NonNull::new(raw.base.cast())?),
            physical: raw.physical,
        })
    }

    /// The same from the process's allocator, with addresses that are the process's own.
    #[cfg(feature = "host")]
    pub fn of_process() -> Option<Self> {
        let layout = core::alloc::Layout::from_size_align(Self::BYTES, 4096).ok()?;
        // SAFETY: The layout is not empty.
        let base = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) })?;
        Some(Descriptors {
            slots: Slots::new(base.cast()),
            physical: base.as_ptr() as u64,
        })
    }

    /// The place of count 0 in these descriptors as the transmit ring of `queue`.
    pub fn transmit_place(&self, queue: u16) -> TransmitPlace {
        const { assert!(SLOTS <= 1 << 15 && size_of::<Descriptor>() == DESCRIPTOR_BYTES) };
        TransmitPlace::first(self.slots.base.as_ptr() as usize, queue, SLOTS)
    }

    /// Address of the first byte for the device.
    pub fn physical(&self) -> u64 {
        self.physical
    }

    /// Access to the slots; the ring that owns this is the only user.
    #[inline(always)]
    pub fn slots(&self) -> Slots<SLOTS> {
        self.slots
    }
}

impl<const SLOTS: usize> Slots<SLOTS> {
    /// `base` is the first of `SLOTS` descriptors that are never freed.
    fn new(base: NonNull<Descriptor>) -> Self {
        Slots {
            base,
            owns: PhantomData,
        }
    }

    #[inline(always)]
    fn slot(self, count: u32) -> *mut Descriptor {
        // SAFETY: The remainder is below `SLOTS`, so the result is inside the memory, which lives as long as the domain.
        unsafe { self.base.as_ptr().add(count as usize & (SLOTS - 1)) }
    }

    /// The first word of slot `count`.
    #[inline(always)]
    pub fn low(self, count: u32) -> u64 {
        // SAFETY: `slot` is inside the memory and aligned; no reference to it exists.
        unsafe { (&raw const (*self.slot(count)).low).read_volatile() }
    }

    /// The second word of slot `count`.
    #[inline(always)]
    pub fn high(self, count: u32) -> u64 {
        // SAFETY: As `low`.
        unsafe { (&raw const (*self.slot(count)).high).read_volatile() }
    }

    /// Sets both words of slot `count`, the first one first.
    #[inline(always)]
    pub fn write(self, count: u32, low: u64, high: u64) {
        // SAFETY: As `low`.
        unsafe {
            (&raw mut (*self.slot(count)).low).write_volatile(low);
            (&raw mut (*self.slot(count)).high).write_volatile(high);
        }
    }

    /// Sets the second word of slot `count`.
    #[inline(always)]
    pub fn write_high(self, count: u32, high: u64) {
        // SAFETY: As `low`.
        unsafe { (&raw mut (*self.slot(count)).high).write_volatile(high) }
    }
}
