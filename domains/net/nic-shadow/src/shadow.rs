//! The device that callers see.
//!
//! Each queue keeps its own handle to the driver, so its thread shares nothing on the packet path. A call into a dead driver
//! waits here for the next one. Only when there is none for [`OUTAGE_WAIT_MS`] the caller goes on, with nothing received and
//! its frames lost, and its next call waits again.

use crate::counters::Counters;
use crate::driver::Driver;
use alloc::boxed::Box;
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, clock};
use interface::net::{
    DeviceInfo, Exchanged, LinkState, NetConfiguration, NetDevice, NetError, NetStatistics, WaitResult,
};
use rref::packet::Verdict;
use rref::{OutOfMemory, PacketBatch};

/// How long a call waits for a driver at most, milliseconds.
pub const OUTAGE_WAIT_MS: u64 = 5_000;
/// Queues at most: the 82599 has 128 receive queues, but no more than one a CPU is used.
const QUEUE_LIMIT: usize = 64;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// One queue's way to the driver, on cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Queue(Mutex<QueueState>);

#[derive(Default)]
struct QueueState {
    driver: Option<Handle<dyn NetDevice>>,
    /// The first packet since a death may pass here.
    watch: bool,
}

/// The network device that outlives its driver.
pub struct Shadow {
    driver: Driver,
    queues: Box<[Queue]>,
    /// For calls that belong to no queue.
    control: Mutex<Option<Handle<dyn NetDevice>>>,
    info: Mutex<Option<DeviceInfo>>,
    counters: Mutex<Counters>,
}

/// The batches of an exchange, until a driver takes them.
type Batches = Option<(PacketBatch, PacketBatch)>;

impl Shadow {
    /// A shadow of `driver`.
    pub fn new(driver: Driver) -> Shadow {
        Shadow {
            driver,
            queues: (0..QUEUE_LIMIT).map(|_| Queue::default()).collect(),
            control: Mutex::new(None),
            info: Mutex::new(None),
            counters: Mutex::default(),
        }
    }

    /// Waits for a first driver; whether there is one.
    pub fn connect(&self, wait_ms: u64) -> bool {
        self.control_handle(OwnerId::NONE, deadline(wait_ms)).is_some()
    }

    /// The handle for calls that belong to no queue, to another incarnation than `not`.
    fn control_handle(&self, not: OwnerId, deadline_ns: u64) -> Option<Handle<dyn NetDevice>> {
        let known = self.control.lock().clone();
        if let Some(handle) = known
            && handle.target() != not
        {
            return Some(handle);
        }
        // The lock isn't held meanwhile: whoever comes here waits in the kernel, not for the lock.
        let handle = self.driver.connect(not, deadline_ns)?;
        *self.control.lock() = Some(handle.clone());
        Some(handle)
    }

    /// Makes a call that belongs to no queue, on one driver after the other until one lives through it.
    fn control<R>(
        &self,
        call: impl Fn(&Handle<dyn NetDevice>) -> Result<R, NetError>,
    ) -> Result<(R, OwnerId), NetError> {
        let deadline_ns = deadline(OUTAGE_WAIT_MS);
        let mut not = OwnerId::NONE;
        loop {
            let handle = self.control_handle(not, deadline_ns).ok_or(NetError::NoDevice)?;
            match call(&handle) {
                Err(NetError::Dead(_)) if clock::now_ns() < deadline_ns => not = handle.target(),
                Err(NetError::Dead(_)) => return Err(NetError::NoDevice),
                Err(error) => return Err(error),
                Ok(answer) => return Ok((answer, handle.target())),
            }
        }
    }

    /// Whether a queue's exchanges have more to do than to pass on: the first packet since a death, or frames that the dead driver was to
    /// send.
    fn has_more_to_do(&self, queue: u16) -> bool {
        self.driver.outages().is_open() || self.driver.unsent().is_waiting(queue)
    }

    fn queue(&self, queue: u16) -> Result<&Queue, NetError> {
        self.queues.get(usize::from(queue)).ok_or(NetError::NoQueue {
            queue,
            queues: QUEUE_LIMIT as u16,
        })
    }

    /// An exchange that meets no living driver at first, or is the first since a death.
    #[cold]
    fn exchange_slowly(
        &self,
        state: &mut QueueState,
        queue: u16,
        mut not: OwnerId,
        mut batches: Batches,
    ) -> Result<Exchanged, NetError> {
        let deadline_ns = deadline(OUTAGE_WAIT_MS);
        loop {
            let living = state.driver.take().filter(|handle| handle.target() != not);
            let handle = match living {
                Some(handle) => handle,
                None => {
                    let Some(handle) = self.driver.connect(not, deadline_ns) else {
                        return nothing(batches);
                    };
                    state.watch = self.has_more_to_do(queue);
                    handle
                }
            };
            let old = self.driver.unsent().take(queue);
            let resends = old.is_some();
            let (transmit, empty) = match old {
                // The caller's own come back to it, as if there was no room for them.
                Some(old) => (old, batch()?),
                None => match batches.take() {
                    Some(batches) => batches,
                    None => (batch()?, batch()?),
                },
            };
            let offered = frames(&transmit);
            let result = handle.exchange(queue, transmit, empty);
            match &result {
                Err(NetError::Dead(_)) => {
                    not = handle.target();
                    if clock::now_ns() >= deadline_ns {
                        return nothing(None);
                    }
                    continue;
                }
                Ok(exchanged) if state.watch => {
                    if !exchanged.received.is_empty() || frames(&exchanged.spare) < offered {
                        self.driver.outages().end(clock::now_ns());
                    }
                    // Another queue may have seen the first packet.
                    state.watch = self.has_more_to_do(queue);
                }
                _ => {}
            }
            state.driver = Some(handle);
            return if resends {
                self.after_resending(state, queue, result?, batches)
            } else {
                result
            };
        }
    }
}

impl Shadow {
    /// The answer of an exchange that sent a dead driver's frames: what had no room goes next, and the caller's batches come back.
    fn after_resending(
        &self,
        state: &mut QueueState,
        queue: u16,
        exchanged: Exchanged,
        batches: Batches,
    ) -> Result<Exchanged, NetError> {
        let Exchanged { received, spare } = exchanged;
        if spare
            .get(0)
            .is_some_and(|packet| packet.verdict == Verdict::Transmit)
        {
            self.driver.unsent().put_back(queue, spare);
            state.watch = true;
        }
        let spare = match batches {
            Some((mut transmit, mut empty)) => {
                // Behind the unsent frames as many of the others as fit; the rest goes back to the shared heap.
                transmit.append(&mut empty);
                transmit
            }
            None => batch()?,
        };
        Ok(Exchanged { received, spare })
    }
}

impl NetDevice for Shadow {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        // A driver's successor drives the same device.
        if let Some(info) = *self.info.lock() {
            return Ok(info);
        }
        let (info, _) = self.control(|driver| driver.info())?;
        *self.info.lock() = Some(info);
        Ok(info)
    }

    fn configure(&self, configuration: NetConfiguration) -> Result<(), NetError> {
        // Set first: a driver that comes up from here on is told it, whoever connects.
        let before = self.driver.set_configuration(Some(configuration));
        match self.control(|driver| driver.configure(configuration)) {
            Ok(_) | Err(NetError::NoDevice) => Ok(()),
            Err(error) => {
                self.driver.set_configuration(before);
                Err(error)
            }
        }
    }

    fn link(&self) -> Result<LinkState, NetError> {
        match self.control(|driver| driver.link()) {
            Ok((link, _)) => Ok(link),
            // No driver, no link.
            Err(NetError::NoDevice) => Ok(LinkState::default()),
            Err(error) => Err(error),
        }
    }

    fn exchange(&self, queue: u16, transmit: PacketBatch, empty: PacketBatch) -> Result<Exchanged, NetError> {
        let mut state = self.queue(queue)?.0.lock();
        if let Some(driver) = &state.driver
            && !state.watch
        {
            match driver.exchange(queue, transmit, empty) {
                Err(NetError::Dead(_)) => {
                    let dead = driver.target();
                    self.exchange_slowly(&mut state, queue, dead, None)
                }
                result => result,
            }
        } else {
            self.exchange_slowly(&mut state, queue, OwnerId::NONE, Some((transmit, empty)))
        }
    }

    fn wait(&self, queue: u16, deadline_ns: u64) -> Result<WaitResult, NetError> {
        let queue_state = &self.queue(queue)?.0;
        let Some(driver) = queue_state.lock().driver.clone() else {
            return Ok(WaitResult::Ready);
        };
        match driver.wait(queue, deadline_ns) {
            // An idle queue doesn't wait for its next frame to meet the next driver.
            Err(NetError::Dead(_)) => {
                let next = self.driver.connect(driver.target(), deadline(OUTAGE_WAIT_MS));
                if let Some(next) = next {
                    let mut state = queue_state.lock();
                    state.driver = Some(next);
                    state.watch = self.has_more_to_do(queue);
                }
                Ok(WaitResult::Ready)
            }
            result => result,
        }
    }

    fn statistics(&self) -> Result<NetStatistics, NetError> {
        let statistics = match self.control(|driver| driver.statistics()) {
            Ok((reading, incarnation)) => self.counters.lock().add(incarnation, reading),
            Err(NetError::NoDevice) => self.counters.lock().known(),
            Err(error) => return Err(error),
        };
        Ok(NetStatistics {
            restarts: self.driver.restarts(),
            ..statistics
        })
    }
}

fn deadline(wait_ms: u64) -> u64 {
    clock::now_ns().saturating_add(wait_ms * MS)
}

fn batch() -> Result<PacketBatch, NetError> {
    PacketBatch::new().map_err(|OutOfMemory| NetError::OutOfMemory)
}

/// Frames to send in a batch.
fn frames(batch: &PacketBatch) -> usize {
    batch
        .iter()
        .filter(|packet| packet.verdict == Verdict::Transmit)
        .count()
}

/// The answer when there is no driver: nothing came, the frames are lost, the empty packets come back if they are still here.
fn nothing(batches: Batches) -> Result<Exchanged, NetError> {
    let spare = match batches {
        Some((_, empty)) => empty,
        None => batch()?,
    };
    Ok(Exchanged {
        received: batch()?,
        spare,
    })
}
