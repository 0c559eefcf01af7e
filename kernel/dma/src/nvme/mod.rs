//! NVMe controllers, as far as they touch memory (NVM Express base specification 2.0, NVM command set 1.0, PCIe transport 1.0; what is used
//! of them is as in NVMe 1.4).
//!
//! [`Controller`] claims the function, turns the controller off and on, and has the admin queue ([`admin`]). [`IoQueue`] is a pair of I/O
//! queues that owns every block of the commands under way in it. What is asked of the controller, how long an answer may take and what
//! is done about its lack is the driver's.
//!
//! When a block comes out: when a completion with the identifier of its command was posted, or when the controller has said since that it
//! isn't ready (CSTS.RDY 0 after CC.EN 0), or when it was taken off the bus. The last two are one count, the *epoch*: what a queue holds
//! that was started in an earlier epoch, no controller knows of any more.

pub mod admin;
mod identifiers;
mod io;
mod namespace;
mod protection;
mod registers;
mod ring;

pub use admin::{AdminCommand, AdminCompletion, Feature};
pub use io::{
    Accepted, Command, CommandKind, Finished, IoQueue, QueueError, RANGE_LIMIT, TRANSFER_BLOCKS, Transfer,
};
pub use namespace::{Namespace, NamespaceError};
pub use registers::Capabilities;

use crate::device::{ClaimError, Class, Device, Identity};
use crate::interrupt::Interrupt;
use crate::mmio::{Mmio, RegisterTimeout};
use admin::AdminQueue;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use namespace::Source;
use protection::WRITABLE;

/// Mass storage, non-volatile memory, NVM Express I/O controller.
pub const CLASS: Class = Class {
    class: 0x01,
    subclass: 0x08,
    interface: 0x02,
};

/// I/O queues that can be made, counted from 1.
pub const QUEUE_LIMIT: u16 = 63;

/// Why the controller isn't where it was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerError {
    /// No register answers: it was removed, or was taken off the bus.
    Gone,
    /// It reports a fatal error (CSTS.CFS).
    Fatal,
    /// It didn't become ready, or not ready, in time.
    Timeout(RegisterTimeout),
    /// Its smallest page is larger than ours, in bytes.
    PageSize(u64),
    /// It has no NVM command set.
    NoNvmCommands,
    /// No memory for its queues.
    OutOfMemory,
}

impl fmt::Display for ControllerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControllerError::Gone => f.write_str("the controller is gone"),
            ControllerError::Fatal => f.write_str("the controller reports a fatal error"),
            ControllerError::Timeout(timeout) => timeout.fmt(f),
            ControllerError::PageSize(bytes) => write!(f, "its smallest page has {bytes} bytes"),
            ControllerError::NoNvmCommands => f.write_str("it doesn't take the NVM command set"),
            ControllerError::OutOfMemory => f.write_str("no memory for its queues"),
        }
    }
}

/// Numbers of controllers.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

/// What the controller, its queues and namespaces share.
struct Shared {
    device: Device,
    registers: Mmio,
    capabilities: Capabilities,
    /// Counts the controllers of this domain.
    number: u32,
    /// I/O queues that exist, a bit each.
    queues: AtomicU64,
    /// Counts the times that the controller was found off.
    epoch: AtomicU32,
    /// It was taken off the bus, for good.
    stopped: AtomicBool,
}

impl Shared {
    #[inline(always)]
    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Where what it says now comes from.
    #[inline(always)]
    fn source(&self) -> Source {
        Source {
            controller: self.number,
            epoch: self.epoch(),
        }
    }

    /// The controller has nothing of what it was told before.
    fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

/// Read access to the registers, for whoever doesn't have the controller.
#[derive(Clone)]
pub struct Status(Arc<Shared>);

impl Status {
    /// CSTS (3.1.3.6); all ones when the controller is gone.
    pub fn read(&self) -> u32 {
        self.0.registers.read(registers::CSTS)
    }

    /// Whether the controller is gone. On most buses nothing answers with all ones, on some (QEMU, once the registers are unmapped) with zeros, which no
    /// version number is.
    pub fn is_gone(&self) -> bool {
        match self.read() {
            registers::GONE => true,
            0 => self.0.registers.read(registers::VS) == 0,
            _ => false,
        }
    }

    /// Whether it reports a fatal error.
    pub fn is_fatal(&self) -> bool {
        let value = self.read();
        value != registers::GONE && value & registers::CSTS_FATAL != 0
    }

    /// Whether it takes commands.
    pub fn is_ready(&self) -> bool {
        let value = self.read();
        value != registers::GONE && value & registers::CSTS_READY != 0
    }

    /// Whether a shutdown is complete.
    pub fn is_shut_down(&self) -> bool {
        let value = self.read();
        value != registers::GONE && value & registers::CSTS_SHUTDOWN_MASK == registers::CSTS_SHUTDOWN_COMPLETE
    }
}

/// A claimed NVMe controller.
pub struct Controller {
    shared: Arc<Shared>,
    admin: Option<AdminQueue>,
}

impl Controller {
    /// Claims the `index`-th device of the manifest, and leaves it as it is.
    pub fn claim(index: usize) -> Result<Controller, ClaimError> {
        Controller::new(Device::claim(index)?)
    }

    /// Takes over a claimed device.
    ///
    /// An earlier life may have left it running, with queues in memory that belongs to others by now. It doesn't master the bus before the
    /// first memory is allocated for it, and that is after [`turn_off`](Self::turn_off) has seen it off.
    pub fn new(device: Device) -> Result<Controller, ClaimError> {
        if device.class() != CLASS {
            return Err(ClaimError::WrongDevice(device.identity()));
        }
        let mut registers = device.registers(0, registers::DOORBELLS, WRITABLE)?;
        let capabilities = Capabilities::read(&registers);
        if !capabilities.is_gone() {
            let doorbells = 2 * (u32::from(QUEUE_LIMIT) + 1) * capabilities.doorbell_stride();
            // As many doorbells as the window has: a stride is chosen by makers of controllers for software, with large ones.
            registers = device
                .registers(0, registers::DOORBELLS + doorbells, WRITABLE)
                .or_else(|_| device.registers(0, 2 * registers::DOORBELLS, WRITABLE))?;
        }
        Ok(Controller {
            shared: Arc::new(Shared {
                device,
                registers,
                capabilities,
                number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
                queues: AtomicU64::new(0),
                epoch: AtomicU32::new(0),
                stopped: AtomicBool::new(false),
            }),
            admin: None,
        })
    }

    /// Vendor and device.
    pub fn identity(&self) -> Identity {
        self.shared.device.identity()
    }

    /// The registers; all can be read.
    pub fn registers(&self) -> &Mmio {
        &self.shared.registers
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    /// VS (3.1.3.2): major version in bits 16 to 31, minor in 8 to 15.
    pub fn version(&self) -> u32 {
        self.shared.registers.read(registers::VS)
    }

    /// A view of its state.
    pub fn status(&self) -> Status {
        Status(self.shared.clone())
    }

    /// Routes MSI-X entry `entry` to `cpu`; `None` when no vector is left.
    pub fn interrupt(&self, entry: u32, cpu: u16) -> Option<Interrupt> {
        self.shared.device.interrupt(entry, cpu)
    }

    /// Turns the controller off and waits until it is (3.5.1 "Memory-based controller initialization", 3.7.2 "Controller level reset"):
    /// everything under way in it is forgotten. Takes as long as CAP.TO allows at most, twice if it was found on its way up.
    pub fn turn_off(&mut self) -> Result<(), ControllerError> {
        let shared = &self.shared;
        if shared.stopped.load(Ordering::Acquire) {
            return Err(ControllerError::Gone);
        }
        let registers = &shared.registers;
        let limit_us = shared.capabilities.ready_limit_us();
        let configuration = registers.read(registers::CC);
        let status = registers.read(registers::CSTS);
        if status == registers::GONE {
            return Err(ControllerError::Gone);
        }
        if configuration & registers::CC_ENABLE != 0 {
            if status & (registers::CSTS_READY | registers::CSTS_FATAL) == 0 {
                // On its way up: EN may be cleared only when it is there, or will never be.
                let arrived = |value| value & (registers::CSTS_READY | registers::CSTS_FATAL) != 0;
                registers.poll_patiently(registers::CSTS, limit_us, arrived).ok();
            }
            let off = configuration & !(registers::CC_ENABLE | registers::CC_SHUTDOWN_MASK);
            registers.write_trusted(registers::CC, off);
        }
        let off = |value| value & registers::CSTS_READY == 0 || value == registers::GONE;
        match registers.poll_patiently(registers::CSTS, limit_us, off) {
            Ok(registers::GONE) => Err(ControllerError::Gone),
            Ok(_) => {
                shared.advance();
                Ok(())
            }
            Err(timeout) => Err(ControllerError::Timeout(timeout)),
        }
    }

    /// Turns it on with an empty admin queue, after [`turn_off`](Self::turn_off), and waits until it is ready.
    pub fn turn_on(&mut self) -> Result<(), ControllerError> {
        let shared = &self.shared;
        let capabilities = shared.capabilities;
        if capabilities.page_bytes() > 4096 {
            return Err(ControllerError::PageSize(capabilities.page_bytes()));
        }
        if !capabilities.has_nvm_commands() {
            return Err(ControllerError::NoNvmCommands);
        }
        let registers = &shared.registers;
        let status = registers.read(registers::CSTS);
        if status == registers::GONE || shared.stopped.load(Ordering::Acquire) {
            return Err(ControllerError::Gone);
        }
        // Off by `turn_off`, in this life: only then there may be memory.
        if shared.epoch() == 0 || status & registers::CSTS_READY != 0 {
            return Err(ControllerError::Timeout(RegisterTimeout {
                register: registers::CSTS,
                value: status,
            }));
        }
        if self.admin.is_none() {
            self.admin = AdminQueue::new(shared);
        }
        let admin = self.admin.as_mut().ok_or(ControllerError::OutOfMemory)?;
        // A controller that couldn't read its queues reports that as fatal; the reset that follows would find them as far away.
        shared.device.use_memory();
        admin.start();
        let (submission, completion) = admin.addresses();
        let size = admin.entries() - 1;
        registers.write_trusted(registers::AQA, size << 16 | size);
        registers.write_trusted(registers::ASQ, submission as u32);
        registers.write_trusted(registers::ASQ + 4, (submission >> 32) as u32);
        registers.write_trusted(registers::ACQ, completion as u32);
        registers.write_trusted(registers::ACQ + 4, (completion >> 32) as u32);
        registers.write_trusted(registers::CC, registers::CC_VALUE | registers::CC_ENABLE);
        let arrived = |value| value & (registers::CSTS_READY | registers::CSTS_FATAL) != 0;
        match registers.poll_patiently(registers::CSTS, capabilities.ready_limit_us(), arrived) {
            Ok(registers::GONE) => Err(ControllerError::Gone),
            Ok(value) if value & registers::CSTS_FATAL != 0 => Err(ControllerError::Fatal),
            Ok(_) => Ok(()),
            Err(timeout) => Err(ControllerError::Timeout(timeout)),
        }
    }

    /// Tells it that power will go (3.6.1 "Normal shutdown"); [`Status::is_shut_down`] says when it is ready for that.
    pub fn begin_shutdown(&mut self) {
        let registers = &self.shared.registers;
        let configuration = registers.read(registers::CC);
        if configuration != registers::GONE && configuration & registers::CC_ENABLE != 0 {
            let shutdown = configuration & !registers::CC_SHUTDOWN_MASK | registers::CC_SHUTDOWN_NORMAL;
            registers.write_trusted(registers::CC, shutdown);
        }
    }

    /// Takes it off the bus for the rest of this domain's life, for a controller that is gone or can't be turned off: what its queues hold
    /// can be had back then.
    pub fn stop(&mut self) {
        let shared = &self.shared;
        shared.stopped.store(true, Ordering::Release);
        shared.device.stop();
        shared.advance();
    }

    /// The admin queue; there is one once the controller was turned on.
    pub fn admin(&mut self) -> Option<&mut AdminQueue> {
        self.admin.as_mut()
    }

    /// A pair of I/O queues of at most `entries`, number `queue` from 1 to [`QUEUE_LIMIT`], which the controller doesn't know yet.
    pub fn io_queue(&self, queue: u16, entries: u32) -> Result<IoQueue, QueueError> {
        let shared = &self.shared;
        // Memory lets the device master the bus.
        if shared.epoch() == 0 || shared.stopped.load(Ordering::Acquire) {
            return Err(QueueError::NotTurnedOff);
        }
        IoQueue::new(QueueClaim::new(shared, queue)?, entries)
    }
}

/// The right to program one pair of I/O queues.
struct QueueClaim {
    shared: Arc<Shared>,
    queue: u16,
    kept: bool,
}

impl QueueClaim {
    fn new(shared: &Arc<Shared>, queue: u16) -> Result<QueueClaim, QueueError> {
        if queue == 0 || queue > QUEUE_LIMIT {
            return Err(QueueError::NoQueue { queue });
        }
        let bit = 1u64 << queue;
        if shared.queues.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return Err(QueueError::InUse { queue });
        }
        Ok(QueueClaim {
            shared: shared.clone(),
            queue,
            kept: false,
        })
    }
}

impl Drop for QueueClaim {
    fn drop(&mut self) {
        if !self.kept {
            self.shared
                .queues
                .fetch_and(!(1u64 << self.queue), Ordering::AcqRel);
        }
    }
}
