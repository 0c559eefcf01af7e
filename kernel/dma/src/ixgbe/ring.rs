//! What receive and transmit rings have in common: where a queue's registers are, how it is turned on and off.

use super::QueueClaim;
use crate::memory::Descriptors;
use crate::mmio::{Mmio, RegisterTimeout};
use core::fmt;
use core::sync::atomic::{AtomicI32, Ordering};

/// Receive queues of the device (datasheet 7.1).
pub const RECEIVE_QUEUES: u16 = 128;
/// Transmit queues of the device (datasheet 7.2).
pub const TRANSMIT_QUEUES: u16 = 128;
/// Queues that rings can be made for: RSS reaches 16 (7.1.2.8).
pub const QUEUE_LIMIT: u16 = 16;

/// Registers of a queue, from its base (8.2.3.8, 8.2.3.9).
pub const BASE_LOW: u32 = 0x00;
pub const BASE_HIGH: u32 = 0x04;
pub const LENGTH: u32 = 0x08;
pub const DCA_CONTROL: u32 = 0x0C;
pub const HEAD: u32 = 0x10;
pub const SRRCTL: u32 = 0x14;
pub const TAIL: u32 = 0x18;
pub const DCTL: u32 = 0x28;
pub const RSCCTL: u32 = 0x2C;
pub const WRITE_BACK_LOW: u32 = 0x38;
pub const WRITE_BACK_HIGH: u32 = 0x3C;
/// ENABLE in RXDCTL and TXDCTL.
pub const ENABLE: u32 = 1 << 25;

/// How long a queue may take to turn on or off. The datasheet names no bound; it is a matter of microseconds.
const SWITCH_LIMIT_US: u64 = 5_000;
/// What a disabled queue may still have on its way (4.6.7.1.2).
const DRAIN_US: u64 = 100;

/// Offset of `register` of receive queue `queue`: two groups of 64.
pub const fn receive_register(queue: u16, register: u32) -> u32 {
    let queue = queue as u32;
    let base = if queue < 64 {
        0x1000 + queue * 0x40
    } else {
        0xD000 + (queue - 64) * 0x40
    };
    base + register
}

/// Offset of `register` of transmit queue `queue`.
pub const fn transmit_register(queue: u16, register: u32) -> u32 {
    0x6000 + queue as u32 * 0x40 + register
}

/// Why a ring can't be made, started or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// No ring can be made for this queue.
    NoQueue {
        /// The queue.
        queue: u16,
    },
    /// The queue has a ring.
    InUse {
        /// The queue.
        queue: u16,
    },
    /// No memory for descriptors.
    OutOfMemory,
    /// The queue didn't turn on or off.
    Timeout(RegisterTimeout),
}

impl From<RegisterTimeout> for RingError {
    fn from(timeout: RegisterTimeout) -> Self {
        RingError::Timeout(timeout)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::NoQueue { queue } => write!(f, "no ring can be made for queue {queue}"),
            RingError::InUse { queue } => write!(f, "queue {queue} has a ring already"),
            RingError::OutOfMemory => f.write_str("no memory for descriptors"),
            RingError::Timeout(timeout) => timeout.fmt(f),
        }
    }
}

/// Counts running queues; -1 while a reset is on.
pub struct Switch(AtomicI32);

/// No queue runs, and none is started, while it lives.
pub struct NoneRunning<'a>(&'a Switch);

impl Switch {
    pub const fn new() -> Switch {
        Switch(AtomicI32::new(0))
    }

    /// Waits for a reset to end, and counts a queue as running.
    pub fn add(&self) {
        while self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count >= 0).then_some(count + 1)
            })
            .is_err()
        {
            (abi::sys().thread_yield)();
        }
    }

    /// A queue is off.
    pub fn remove(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Holds off starts; `None` when a queue runs or another reset is on.
    pub fn none(&self) -> Option<NoneRunning<'_>> {
        self.0
            .compare_exchange(0, -1, Ordering::AcqRel, Ordering::Acquire)
            .ok()
            .map(|_| NoneRunning(self))
    }
}

impl Drop for NoneRunning<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}

/// The mask that makes a slot of a running count; a size that rings can't have doesn't compile.
pub const fn mask_of(slots: usize) -> u32 {
    assert!(slots.is_power_of_two() && slots >= 8 && slots <= 4096);
    slots as u32 - 1
}

/// Turns the queue whose registers begin at `base` off and waits until it says so.
pub fn turn_off(registers: &Mmio, base: u32) -> Result<(), RegisterTimeout> {
    registers.write_trusted(base + DCTL, 0);
    registers
        .poll(base + DCTL, SWITCH_LIMIT_US, |value| value & ENABLE == 0)
        .map(|_| ())
}

/// Waits until nothing of a queue that is off is on its way: after that the device holds no buffer of it.
pub fn drain() {
    let now = abi::sys().now_ns;
    let until = now().saturating_add(DRAIN_US * 1000);
    while now() < until {
        core::hint::spin_loop();
    }
}

/// Turns it on with `control` and waits until it is.
pub fn turn_on(registers: &Mmio, base: u32, control: u32) -> Result<(), RegisterTimeout> {
    registers.write_trusted(base + DCTL, control | ENABLE);
    registers
        .poll(base + DCTL, SWITCH_LIMIT_US, |value| value & ENABLE != 0)
        .map(|_| ())
}

/// Tells the device where an off queue's descriptors are, with head and tail at the start.
pub fn set_extent<const SLOTS: usize>(claim: &QueueClaim, base: u32, memory: &Descriptors<SLOTS>) {
    let registers = claim.registers();
    let physical = memory.physical();
    registers.write_trusted(base + BASE_LOW, physical as u32);
    registers.write_trusted(base + BASE_HIGH, (physical >> 32) as u32);
    registers.write_trusted(base + LENGTH, Descriptors::<SLOTS>::BYTES as u32);
    registers.write_trusted(base + HEAD, 0);
}
