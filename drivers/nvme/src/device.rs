//! The device as others see it: `BlockDevice`, with a lock for each queue.

use crate::admin::Admin;
use crate::error::DeviceError;
use crate::events::History;
use crate::identify::ControllerData;
use crate::queue::{Intake, Requests};
use crate::statistics::Counters;
use crate::units::Units;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use dma::nvme::{Controller, Status};
use dma::{Interrupt, Wake};
use domain_rt::clock::now_ns;
use domain_rt::sync::Mutex;
use domain_rt::thread;
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use interface::storage_health::{ControllerState, EventKind};
use rref::{BlockBatch, Text};

/// Queues at most.
const QUEUE_LIMIT: u16 = 16;
/// Entries that a queue is asked to have.
pub const QUEUE_ENTRIES: u32 = 128;
/// A sleeper looks at memory at least this often, in case an interrupt was lost.
const SLEEP_NS: u64 = 100_000_000;
/// Without an interrupt it looks this often.
const POLL_NS: u64 = 500_000;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A command for I/O, milliseconds; then it is aborted.
    pub command_ms: u64,
    /// An aborted command, milliseconds; then the controller is reset.
    pub abort_ms: u64,
    /// An admin command of start-up, milliseconds.
    pub admin_ms: u64,
    /// An admin command that a caller waits for, milliseconds.
    pub health_ms: u64,
    /// What is under way when the controller is to be shut down, milliseconds.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            command_ms: 10_000,
            abort_ms: 2_000,
            admin_ms: 5_000,
            health_ms: 1_000,
            drain_ms: 5_000,
        }
    }
}

/// One queue, and its interrupt if it has one.
pub struct Queue {
    /// Its requests.
    pub requests: Mutex<Requests>,
    interrupt: Option<Interrupt>,
    interrupts: AtomicU64,
}

impl Queue {
    /// Sleeps until the controller may have answered something, or until `deadline_ns`.
    fn sleep(&self, now_ns: u64, deadline_ns: u64) -> Wake {
        let until = |interval_ns: u64| deadline_ns.min(now_ns.saturating_add(interval_ns));
        let wake = match &self.interrupt {
            Some(interrupt) => interrupt.wait(until(SLEEP_NS)),
            None => match thread::park_until(until(POLL_NS)) {
                thread::Wake::Cancelled => Wake::Cancelled,
                _ => Wake::TimedOut,
            },
        };
        if wake == Wake::Interrupt {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
        }
        wake
    }
}

/// What is known of the controller.
pub struct Identity {
    /// What it said of itself.
    pub data: ControllerData,
    /// Version of the specification.
    pub version: u32,
    /// Its volatile write cache is on.
    pub volatile_cache: bool,
}

/// An NVMe controller, or the lack of one.
pub struct Device {
    /// The controller's admin side; `None` when there is no controller.
    pub admin: Option<Mutex<Admin>>,
    /// A look at the controller without the lock.
    pub status: Option<Status>,
    /// Its interrupt for what isn't I/O.
    pub interrupt: Option<Interrupt>,
    /// A queue for each CPU; those from `active` on are not used.
    pub queues: Box<[Queue]>,
    /// Queues in use.
    pub active: AtomicU16,
    /// See `state`.
    pub state: AtomicU8,
    /// What it is, once that is known.
    pub identity: Mutex<Option<Identity>>,
    /// Its namespaces.
    pub units: Mutex<Arc<Units>>,
    /// Counts changes of them.
    pub changes: AtomicU32,
    /// What happened.
    pub history: Mutex<History>,
    /// A reset was asked for.
    pub reset_wanted: AtomicBool,
    /// Interrupts for what isn't I/O.
    pub interrupts: AtomicU64,
    /// How long things may take.
    pub limits: Limits,
}

impl Device {
    /// A claimed controller, with a queue for each of `cpus` CPUs. It isn't touched before [`bring_up`](Self::bring_up).
    pub fn new(controller: Controller, cpus: u16, limits: Limits) -> Device {
        let cpus = cpus.clamp(1, QUEUE_LIMIT);
        let interrupt = controller.interrupt(0, 0);
        let queues = (0..cpus)
            .map(|cpu| Queue {
                requests: Mutex::default(),
                interrupt: controller.interrupt(u32::from(cpu) + 1, cpu),
                interrupts: AtomicU64::new(0),
            })
            .collect();
        Device {
            // As many as there may be, until it is known how many there are.
            active: AtomicU16::new(cpus),
            status: Some(controller.status()),
            admin: Some(Mutex::new(Admin::new(controller))),
            interrupt,
            queues,
            ..Device::absent(limits)
        }
    }

    /// No controller.
    pub fn absent(limits: Limits) -> Device {
        Device {
            admin: None,
            status: None,
            interrupt: None,
            queues: Box::default(),
            active: AtomicU16::new(0),
            state: AtomicU8::new(ControllerState::Starting as u8),
            identity: Mutex::new(None),
            units: Mutex::default(),
            changes: AtomicU32::new(0),
            history: Mutex::default(),
            reset_wanted: AtomicBool::new(false),
            interrupts: AtomicU64::new(0),
            limits,
        }
    }

    /// What the controller is doing.
    pub fn state(&self) -> ControllerState {
        const STATES: [ControllerState; 6] = [
            ControllerState::Starting,
            ControllerState::Ready,
            ControllerState::Resetting,
            ControllerState::ShutDown,
            ControllerState::Removed,
            ControllerState::Failed,
        ];
        let state = self.state.load(Ordering::Acquire);
        STATES
            .into_iter()
            .find(|known| *known as u8 == state)
            .unwrap_or(ControllerState::Failed)
    }

    /// Notes what it does from now on.
    pub fn set_state(&self, state: ControllerState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Queues in use.
    pub fn active(&self) -> &[Queue] {
        let active = usize::from(self.active.load(Ordering::Acquire));
        self.queues.get(..active).unwrap_or(&self.queues)
    }

    /// What becomes of requests from now on, in all queues.
    pub fn set_intake(&self, intake: Intake) {
        for queue in &self.queues {
            queue.requests.lock().set_intake(intake, now_ns());
        }
    }

    /// Which MSI-X entry queue `index` has.
    pub fn vector(&self, index: usize) -> Option<u16> {
        let queue = self.queues.get(index)?;
        queue.interrupt.as_ref()?;
        u16::try_from(index + 1).ok()
    }

    /// Notes an event.
    pub fn record(&self, kind: EventKind) {
        self.history.lock().record(now_ns(), kind);
    }

    /// All queues' counters.
    pub fn counters(&self) -> Counters {
        let mut total = Counters::default();
        for queue in &self.queues {
            queue.requests.lock().counters.add_to(&mut total);
            total.totals.interrupts += queue.interrupts.load(Ordering::Relaxed);
        }
        total
    }

    fn queue(&self, queue: u16) -> Result<&Queue, BlockError> {
        let active = self.active();
        active.get(usize::from(queue)).ok_or(BlockError::NoQueue {
            queue,
            queues: active.len() as u16,
        })
    }

    fn answer(&self) -> Result<(), BlockError> {
        match self.state() {
            _ if self.admin.is_none() => Err(BlockError::NoDevice),
            ControllerState::Removed => Err(BlockError::NoDevice),
            ControllerState::Failed | ControllerState::ShutDown => Err(BlockError::Failed),
            _ => Ok(()),
        }
    }
}

/// What is exported: the device, shared with the thread that looks after it.
pub struct Exported(pub Arc<Device>);

impl BlockDevice for Exported {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        let device = &self.0;
        device.answer()?;
        let depth = device
            .active()
            .first()
            .map_or(0, |queue| queue.requests.lock().depth());
        Ok(BlockDeviceInfo {
            units: device.units.lock().len() as u16,
            queues: device.active().len() as u16,
            queue_depth: depth as u16,
            changes: device.changes.load(Ordering::Acquire),
            model: device
                .identity
                .lock()
                .as_ref()
                .map_or(Text::EMPTY, |identity| identity.data.model),
        })
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        let device = &self.0;
        device.answer()?;
        let units = device.units.lock();
        units.get(unit).map(|unit| unit.info()).ok_or(BlockError::NoUnit {
            unit,
            units: units.len() as u16,
        })
    }

    fn exchange(&self, queue: u16, requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        let queue = self.0.queue(queue)?;
        Ok(queue.requests.lock().exchange(requests, now_ns))
    }

    fn exchange_until(
        &self,
        queue: u16,
        requests: BlockBatch,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let queue = self.0.queue(queue)?;
        // The clock is read when requests are handed in, and that is when the sleep begins.
        let time_ns = Cell::new(0);
        let handed_in = || {
            time_ns.set(now_ns());
            time_ns.get()
        };
        let batch = queue.requests.lock().exchange(requests, handed_in);
        if !batch.is_empty() {
            return Ok(batch);
        }
        // An interrupt that came since the last sleep ends this one at once: none is missed. Whatever ends it, there is one look: if another caller was
        // faster, this one returns to those that know whose answers are where.
        let began_ns = match time_ns.get() {
            0 => now_ns(),
            read => read,
        };
        queue.sleep(began_ns, deadline_ns);
        Ok(queue.requests.lock().fetch(batch, now_ns))
    }

    fn wait(&self, queue: u16, deadline_ns: u64) -> Result<WaitResult, BlockError> {
        let queue = self.0.queue(queue)?;
        loop {
            if queue.requests.lock().has_finished() {
                return Ok(WaitResult::Ready);
            }
            let now = now_ns();
            if now >= deadline_ns {
                return Ok(WaitResult::TimedOut);
            }
            if queue.sleep(now, deadline_ns) == Wake::Cancelled {
                return Ok(WaitResult::Cancelled);
            }
        }
    }

    fn abandon(&self) -> Result<(), BlockError> {
        for queue in &self.0.queues {
            queue.requests.lock().abandon();
        }
        // What isn't answered is aborted, and the controller reset if that doesn't help: it ends, also for one that hangs.
        while self
            .0
            .queues
            .iter()
            .any(|queue| queue.requests.lock().has_abandoned(now_ns))
        {
            thread::sleep_ms(1);
        }
        Ok(())
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        let device = &self.0;
        let mut totals = device.counters().totals;
        totals.interrupts += device.interrupts.load(Ordering::Relaxed);
        totals.resets = device.history.lock().resets();
        Ok(totals)
    }
}

impl From<DeviceError> for BlockError {
    fn from(_: DeviceError) -> Self {
        BlockError::Failed
    }
}
