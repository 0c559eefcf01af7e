//! The Intel 82599, as far as it touches memory (datasheet 82599, section numbers at each register).
//!
//! [`Adapter`] claims the device, silences what an earlier life left running, and makes rings ([`ReceiveRing`], [`TransmitRing`]).
//! Everything else about the device (reset, link, filters, interrupts, statistics) is the driver's, through
//! [`Adapter::registers`], whose allow-list is in `protection.rs`.

mod descriptor;
mod protection;
mod queue;
mod receive;
mod ring;
mod transmit;

pub use descriptor::{ContextDescriptor, ReceiveStatus, TransmitFlags, TransportChecksum};
pub use receive::ReceiveRing;
pub use ring::RingError;
pub use transmit::{FrameKind, TransmitRing};

use crate::device::{ClaimError, Device, Identity};
use crate::interrupt::Interrupt;
use crate::mmio::{Mmio, RegisterTimeout};
use abi::sys::RestStep;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use protection::WRITABLE;
use ring::{DCTL, ENABLE, QUEUE_LIMIT, RECEIVE_QUEUES, Switch, TRANSMIT_QUEUES};

/// The 82599 with SFP+.
pub const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x10FB,
};

/// Bytes of BAR 0 that hold registers (datasheet 8.1.1).
const WINDOW_BYTES: u32 = 0x2_0000;
/// Device control (8.2.3.1.1 CTRL). Its reset bits are written here only.
const CTRL: u32 = 0x0;
const CTRL_MASTER_DISABLE: u32 = 1 << 2;
const CTRL_LRST: u32 = 1 << 3;
const CTRL_RST: u32 = 1 << 26;
/// Receive enable (8.2.3.8.10 RXCTRL).
const RXCTRL: u32 = 0x3000;
/// Transmit enable (8.2.3.9.2 DMATXCTL); other bits at their reset value.
const DMATXCTL: u32 = 0x4A80;

/// Why the device isn't reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetError {
    /// A ring is running, or couldn't be stopped.
    RingsRunning,
    /// The reset didn't end.
    Timeout(RegisterTimeout),
}

impl From<RegisterTimeout> for ResetError {
    fn from(timeout: RegisterTimeout) -> Self {
        ResetError::Timeout(timeout)
    }
}

/// A claimed 82599.
pub struct Adapter {
    shared: Arc<Shared>,
}

/// What rings and the adapter share.
pub(crate) struct Shared {
    device: Device,
    registers: Mmio,
    /// Every queue was off when this driver began, seen by the kernel as it brought the device to rest.
    is_off: bool,
    /// Queues that have a ring, a bit each.
    receive_rings: AtomicU64,
    transmit_rings: AtomicU64,
    /// Queues that are on, or may be. A reset, after which a ring's idea of its queue is wrong, needs there to be none.
    running: Switch,
    /// Queues that rings can be made for: one a CPU at most.
    queue_limit: u16,
}

/// How the device is brought to rest, with queues below `queue_limit` that may be on (4.6.7.1, 4.6.8.1 "Dynamic Enabling and Disabling"):
/// receive and transmit stop, then every queue, and each says so.
fn way_to_rest(queue_limit: u16) -> Vec<RestStep> {
    let write = |offset, value| RestStep {
        offset,
        mask: 0,
        value,
    };
    let queues = || {
        (0..queue_limit).flat_map(|queue| {
            [
                ring::receive_register(queue, DCTL),
                ring::transmit_register(queue, DCTL),
            ]
        })
    };
    [write(RXCTRL, 0), write(DMATXCTL, 0)]
        .into_iter()
        .chain(queues().map(|register| write(register, 0)))
        .chain(queues().map(|offset| RestStep {
            offset,
            mask: ENABLE,
            value: 0,
        }))
        .collect()
}

/// Tells the device to stop, and every queue that may be on to turn off. Writes are posted: no answer is waited for here. A ring does that for its own
/// queue before it is used.
fn turn_off(device: &Device, registers: &Mmio, queue_limit: u16) {
    registers.write_trusted(RXCTRL, 0);
    registers.write_trusted(DMATXCTL, 0);
    // Firmware may have used any queue. A driver before this one had them all turned off here, before it had memory, and then used
    // those that a ring can be made for.
    let (receive_queues, transmit_queues) = if device.had_memory() {
        (queue_limit, queue_limit)
    } else {
        (RECEIVE_QUEUES, TRANSMIT_QUEUES)
    };
    for queue in 0..receive_queues {
        registers.write_trusted(ring::receive_register(queue, DCTL), 0);
    }
    for queue in 0..transmit_queues {
        registers.write_trusted(ring::transmit_register(queue, DCTL), 0);
    }
}

impl Adapter {
    /// Claims the `index`-th device of the manifest, with every queue off.
    pub fn claim(index: usize) -> Result<Adapter, ClaimError> {
        Adapter::new(Device::claim(index)?)
    }

    /// Takes over a claimed device.
    ///
    /// Firmware may have left queues enabled whose rings and buffers belong to others by now. They are told to stop before
    /// anything else happens. For that to be soon enough, the kernel doesn't let the device master the bus before the first
    /// memory is allocated for it (`SysTable::dma_allocate`), or has brought it to rest after a life of this driver by the steps that are given
    /// here: then nothing of an earlier life is on, and nothing has to be told or asked, each of which costs a way over the bus.
    pub fn new(device: Device) -> Result<Adapter, ClaimError> {
        if device.identity() != IDENTITY {
            return Err(ClaimError::WrongDevice(device.identity()));
        }
        let registers = device.registers(0, WINDOW_BYTES, WRITABLE)?;
        let queue_limit = if device.is_model() {
            QUEUE_LIMIT
        } else {
            u16::try_from((abi::sys().cpu_count)()).map_or(QUEUE_LIMIT, |cpus| cpus.clamp(1, QUEUE_LIMIT))
        };
        device.rest_by(0, &way_to_rest(queue_limit))?;
        // By these very steps: there are no others.
        let is_off = device.is_at_rest();
        if !is_off {
            turn_off(&device, &registers, queue_limit);
        }
        Ok(Adapter {
            shared: Arc::new(Shared {
                device,
                registers,
                is_off,
                receive_rings: AtomicU64::new(0),
                transmit_rings: AtomicU64::new(0),
                running: Switch::new(),
                queue_limit,
            }),
        })
    }

    /// Whether a driver had this device before, since the machine started: then it was brought up by this code and nothing else.
    pub fn had_driver(&self) -> bool {
        self.shared.device.had_memory()
    }

    /// The registers; writable are those that don't concern memory.
    pub fn registers(&self) -> &Mmio {
        &self.shared.registers
    }

    /// Resets the device (4.2.1.6.1 "Software Reset"), with the link when `link`, and waits for the bits to clear, at most `limit_us`. Wait
    /// 10 ms longer before other registers are used (4.6.3.2).
    pub fn reset(&self, link: bool, limit_us: u64) -> Result<(), ResetError> {
        let _no_ring = self.shared.running.none().ok_or(ResetError::RingsRunning)?;
        let bits = if link { CTRL_RST | CTRL_LRST } else { CTRL_RST };
        let registers = self.registers();
        registers.write_trusted(CTRL, bits);
        registers.poll(CTRL, limit_us, |value| value & (CTRL_RST | CTRL_LRST) == 0)?;
        Ok(())
    }

    /// Asks the device to stop mastering the bus (5.2.5.3.2), or lets it again; STATUS says when it has.
    pub fn set_master_disable(&self, disable: bool) {
        let value = if disable { CTRL_MASTER_DISABLE } else { 0 };
        self.registers().write_trusted(CTRL, value);
    }

    /// Routes MSI-X entry `entry` to `cpu`; `None` when no vector is left.
    pub fn interrupt(&self, entry: u32, cpu: u16) -> Option<Interrupt> {
        self.shared.device.interrupt(entry, cpu)
    }

    /// A receive ring for `queue`, which is off until [`ReceiveRing::start`]. `SLOTS` is a power of two from 8 to 4096.
    pub fn receive_ring<const SLOTS: usize>(&self, queue: u16) -> Result<ReceiveRing<SLOTS>, RingError> {
        ReceiveRing::new(QueueClaim::new(&self.shared, queue, |shared| {
            &shared.receive_rings
        })?)
    }

    /// A transmit ring for `queue`, which is off until [`TransmitRing::start`]. `SLOTS` is a power of two from 8 to 4096.
    pub fn transmit_ring<const SLOTS: usize>(&self, queue: u16) -> Result<TransmitRing<SLOTS>, RingError> {
        TransmitRing::new(QueueClaim::new(&self.shared, queue, |shared| {
            &shared.transmit_rings
        })?)
    }
}

/// The right to program one queue: there is at most one ring for each, because the tail that one ring writes would release slots of
/// another.
pub(crate) struct QueueClaim {
    shared: Arc<Shared>,
    queue: u16,
    claimed: fn(&Shared) -> &AtomicU64,
    kept: bool,
}

impl QueueClaim {
    fn new(
        shared: &Arc<Shared>,
        queue: u16,
        claimed: fn(&Shared) -> &AtomicU64,
    ) -> Result<QueueClaim, RingError> {
        if queue >= shared.queue_limit {
            return Err(RingError::NoQueue { queue });
        }
        let bit = 1u64 << queue;
        if claimed(shared).fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return Err(RingError::InUse { queue });
        }
        Ok(QueueClaim {
            shared: shared.clone(),
            queue,
            claimed,
            kept: false,
        })
    }

    #[inline(always)]
    fn registers(&self) -> &Mmio {
        &self.shared.registers
    }

    /// Turns the queue, whose registers begin at `base`, off before it is used for the first time. One that was used by this driver is off, or its
    /// claim is kept.
    fn turn_off(&self, base: u32) -> Result<(), RegisterTimeout> {
        if self.shared.is_off {
            return Ok(());
        }
        ring::turn_off(self.registers(), base)
    }

    /// Makes the claim last as long as the domain: the queue couldn't be turned off.
    fn keep(&mut self) {
        self.kept = true;
    }

    fn descriptors<const SLOTS: usize>(&self) -> Result<crate::memory::Descriptors<SLOTS>, RingError> {
        self.shared.device.descriptors().ok_or(RingError::OutOfMemory)
    }
}

impl Drop for QueueClaim {
    fn drop(&mut self) {
        if !self.kept {
            (self.claimed)(&self.shared).fetch_and(!(1u64 << self.queue), Ordering::AcqRel);
        }
    }
}
