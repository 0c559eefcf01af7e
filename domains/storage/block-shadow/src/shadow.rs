//! The device that callers see.
//!
//! While a driver lives a call goes straight through: a stamp on each request, and a look at each answer's. A call that meets a dead driver
//! takes over what that one had; from there on requests go through the queue's own list, until that is empty again. No call but `wait`
//! and those that belong to no queue waits for a driver.

use crate::counters::Counters;
use crate::driver::Driver;
use crate::queue::{Queue, State, queue_of};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, clock};
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use log::{info, warn};
use rref::{Block, BlockBatch, OutOfMemory};

/// How long a call that belongs to no queue waits for a driver at most, milliseconds.
pub const CONTROL_WAIT_MS: u64 = 5_000;
/// How long requests wait for a driver. Then they fail, as [`rref::block::Fault::Gone`].
pub const GIVE_UP_MS: u64 = 30_000;
/// Queues at most: no more than one a CPU is used.
const QUEUE_LIMIT: usize = 64;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// The storage device that outlives its driver.
pub struct Shadow {
    driver: Driver,
    queues: Box<[Queue]>,
    /// For calls that belong to no queue.
    control: Mutex<Option<Handle<dyn BlockDevice>>>,
    counters: Mutex<Counters>,
    replayed: AtomicU64,
    /// Number of the newest term.
    terms: AtomicU64,
    /// How long requests wait for a driver.
    give_up_ms: u64,
    /// Bytes in a block of the unit that was asked for last: units of one device seldom differ, and this is for statistics.
    block_bytes: AtomicU64,
}

impl Shadow {
    /// A shadow of `driver`, which lets requests fail when there was none for `give_up_ms`.
    pub fn new(driver: Driver, give_up_ms: u64) -> Shadow {
        // Terms of an earlier incarnation have smaller numbers: none makes one a nanosecond.
        let first = clock::now_ns().max(1);
        Shadow {
            driver,
            queues: (0..QUEUE_LIMIT).map(|_| Queue::new(first)).collect(),
            control: Mutex::new(None),
            counters: Mutex::default(),
            replayed: AtomicU64::new(0),
            terms: AtomicU64::new(first),
            give_up_ms,
            block_bytes: AtomicU64::new(0),
        }
    }

    fn next_term(&self) -> u64 {
        self.terms.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn queue(&self, queue: u16) -> Result<&Queue, BlockError> {
        self.queues.get(usize::from(queue)).ok_or(BlockError::NoQueue {
            queue,
            queues: QUEUE_LIMIT as u16,
        })
    }

    /// Takes over what dead drivers had; whether there was anything.
    fn collect(&self) -> bool {
        let (mut kept, mut dropped) = (0u64, 0u64);
        while let Some(block) = Block::inherit() {
            let queue = self.queues.get(usize::from(queue_of(&block)));
            if queue.is_some_and(|queue| queue.inherit(block)) {
                kept += 1;
            } else {
                dropped += 1;
            }
        }
        if kept != 0 {
            self.replayed.fetch_add(kept, Ordering::Relaxed);
            info!("{kept} requests that the last driver had go to the next one");
        }
        if dropped != 0 {
            info!("{dropped} requests of the last driver's nobody waits for any more");
        }
        kept != 0
    }

    fn connect(&self, not: OwnerId, deadline_ns: u64) -> Option<Handle<dyn BlockDevice>> {
        self.driver.connect(not, deadline_ns, || self.collect())
    }

    /// The handle for calls that belong to no queue, to another incarnation than `not`.
    fn control_handle(&self, not: OwnerId, deadline_ns: u64) -> Option<Handle<dyn BlockDevice>> {
        let known = self.control.lock().clone();
        if let Some(handle) = known
            && handle.target() != not
        {
            return Some(handle);
        }
        // The lock isn't held meanwhile: whoever comes here waits in the kernel, not for the lock.
        let handle = self.connect(not, deadline_ns)?;
        *self.control.lock() = Some(handle.clone());
        Some(handle)
    }

    /// Makes a call that belongs to no queue, on one driver after the other until one lives through it.
    fn control<R>(
        &self,
        call: impl Fn(&Handle<dyn BlockDevice>) -> Result<R, BlockError>,
    ) -> Result<(R, OwnerId), BlockError> {
        let deadline_ns = clock::now_ns().saturating_add(CONTROL_WAIT_MS * MS);
        let mut not = OwnerId::NONE;
        loop {
            let handle = self
                .control_handle(not, deadline_ns)
                .ok_or(BlockError::NoDevice)?;
            match call(&handle) {
                Err(BlockError::Dead(_)) if clock::now_ns() < deadline_ns => not = handle.target(),
                Err(BlockError::Dead(_)) => return Err(BlockError::NoDevice),
                Err(error) => return Err(error),
                Ok(answer) => return Ok((answer, handle.target())),
            }
        }
    }

    /// The queue's driver; `None` while there is none. Whatever waited for one too long fails here.
    fn driver_of(&self, queue: &Queue, state: &mut State) -> Option<Handle<dyn BlockDevice>> {
        if let Some(driver) = &state.driver {
            return Some(driver.clone());
        }
        let now_ns = clock::now_ns();
        match self.connect(state.dead, now_ns) {
            Some(driver) => {
                state.found_driver(driver.clone());
                Some(driver)
            }
            None => {
                state.lost_driver(state.dead, now_ns);
                if now_ns >= self.give_up_ns(state) {
                    warn!("there is no driver for {} ms: requests fail", self.give_up_ms);
                    self.collect();
                    queue.fail_waiting(state, self.next_term());
                }
                None
            }
        }
    }

    /// A call found the driver dead, to which it was to hand `offered` requests.
    fn meet_death(&self, state: &mut State, dead: OwnerId, offered: usize) {
        let now_ns = clock::now_ns();
        if offered != 0 || state.is_used() {
            self.driver.outages().meet(now_ns);
        }
        state.lost_driver(dead, now_ns);
    }

    /// An exchange that doesn't go straight through.
    #[cold]
    fn exchange_slowly(
        &self,
        queue: &Queue,
        state: &mut State,
        number: u16,
        mut requests: Option<BlockBatch>,
    ) -> Result<BlockBatch, BlockError> {
        if let Some(requests) = &mut requests {
            state.accept(requests);
        }
        let emptied = requests.take_if(|requests| requests.is_empty());
        let mut batch = emptied.map_or_else(|| self.new_batch(queue, state), Ok)?;
        loop {
            queue.take_inherited(state);
            let Some(driver) = self.driver_of(queue, state) else {
                break;
            };
            queue.take_inherited(state);
            let offered = state.fill(&mut batch);
            match driver.exchange(number, batch) {
                Ok(answers) => {
                    state.handed_over(offered);
                    let (empty, has_room) = queue.sort(state, answers);
                    batch = empty;
                    if state.has_finished() && self.driver.outages().is_open() {
                        self.driver.outages().end(clock::now_ns());
                    }
                    state.watch = self.driver.outages().is_open();
                    if offered == 0 || !has_room {
                        break;
                    }
                }
                Err(BlockError::Dead(_)) => {
                    self.meet_death(state, driver.target(), offered);
                    batch = self.new_batch(queue, state)?;
                }
                Err(error) => {
                    queue.forget(state, self.next_term());
                    return Err(error);
                }
            }
        }
        Ok(state.answer(requests, batch))
    }

    /// What `exchange_until` does when it doesn't go straight through.
    #[cold]
    fn exchange_in_steps(
        &self,
        number: u16,
        requests: BlockBatch,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let batch = self.exchange(number, requests)?;
        if !batch.is_empty() {
            return Ok(batch);
        }
        self.wait(number, deadline_ns)?;
        self.exchange(number, batch)
    }

    /// When requests that wait for a driver fail; never while there is one.
    fn give_up_ns(&self, state: &State) -> u64 {
        match state.down_since_ns {
            0 => clock::NEVER,
            since => since.saturating_add(self.give_up_ms * MS),
        }
    }

    /// An empty batch. Without one there is no answer, and everything under way is given up.
    fn new_batch(&self, queue: &Queue, state: &mut State) -> Result<BlockBatch, BlockError> {
        BlockBatch::new().map_err(|OutOfMemory| {
            queue.forget(state, self.next_term());
            BlockError::OutOfMemory
        })
    }
}

impl BlockDevice for Shadow {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        Ok(self.control(|driver| driver.info())?.0)
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        let (info, _) = self.control(|driver| driver.unit(unit))?;
        self.block_bytes.store(info.block_bytes.into(), Ordering::Relaxed);
        Ok(info)
    }

    fn exchange(&self, number: u16, mut requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        let queue = self.queue(number)?;
        let mut state = queue.state.lock();
        let state = &mut *state;
        queue.stamp(state, number, &mut requests);
        let mut requests = Some(requests);
        if let Some(driver) = &state.driver
            && state.is_clear()
            && !queue.has_inherited()
            && let Some(requests) = requests.take()
        {
            let offered = requests.len();
            match driver.exchange(number, requests) {
                Ok(answers) => match queue.account(state, offered, answers) {
                    Ok(answers) => return Ok(answers),
                    Err(mixed) => {
                        let (empty, _) = queue.sort(state, mixed);
                        return Ok(state.answer(None, empty));
                    }
                },
                Err(BlockError::Dead(_)) => {
                    let dead = driver.target();
                    self.meet_death(state, dead, offered);
                }
                Err(error) => {
                    queue.forget(state, self.next_term());
                    return Err(error);
                }
            }
        }
        self.exchange_slowly(queue, state, number, requests)
    }

    fn exchange_until(
        &self,
        number: u16,
        mut requests: BlockBatch,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let queue = self.queue(number)?;
        let mut state = queue.state.lock();
        let driver = match &state.driver {
            Some(driver) if state.is_clear() && !queue.has_inherited() => driver.clone(),
            _ => {
                drop(state);
                return self.exchange_in_steps(number, requests, deadline_ns);
            }
        };
        queue.stamp(&mut state, number, &mut requests);
        let offered = requests.len();
        state.handed_over(offered);
        // Not over the wait: a flush of another caller's that is held back counts what is under way.
        drop(state);
        let result = driver.exchange_until(number, requests, deadline_ns);
        let mut state = queue.state.lock();
        let state = &mut *state;
        // Another caller may have met the driver's death since, and what is under way is the next one's.
        let is_same = (state.driver.as_ref()).is_some_and(|of| of.target() == driver.target());
        match result {
            Ok(answers) => {
                if !is_same {
                    state.handed_over(answers.len());
                }
                queue.account(state, 0, answers).or_else(|mixed| {
                    let (empty, _) = queue.sort(state, mixed);
                    Ok(state.answer(None, empty))
                })
            }
            Err(BlockError::Dead(_)) => {
                if is_same {
                    self.meet_death(state, driver.target(), offered);
                }
                let empty = self.new_batch(queue, state)?;
                self.exchange_slowly(queue, state, number, Some(empty))
            }
            Err(error) => {
                if is_same {
                    queue.forget(state, self.next_term());
                }
                Err(error)
            }
        }
    }

    fn wait(&self, number: u16, deadline_ns: u64) -> Result<WaitResult, BlockError> {
        let queue = self.queue(number)?;
        let (driver, dead, give_up_ns) = {
            let state = queue.state.lock();
            if state.has_finished() || queue.has_inherited() || state.driver.is_some() && state.is_stuck() {
                return Ok(WaitResult::Ready);
            }
            (state.driver.clone(), state.dead, self.give_up_ns(&state))
        };
        let dead = match driver {
            Some(driver) => match driver.wait(number, deadline_ns) {
                Err(BlockError::Dead(_)) => {
                    let mut state = queue.state.lock();
                    // Nobody else makes calls for this queue; but what is found is kept in any case.
                    if state
                        .driver
                        .as_ref()
                        .is_some_and(|of| of.target() == driver.target())
                    {
                        self.meet_death(&mut state, driver.target(), 0);
                    }
                    driver.target()
                }
                result => return result,
            },
            None => dead,
        };
        // With a driver, what it had is handed to the next one by the exchange that follows.
        match self.connect(dead, deadline_ns.min(give_up_ns)) {
            Some(next) => {
                queue.state.lock().found_driver(next);
                Ok(WaitResult::Ready)
            }
            None if clock::now_ns() >= give_up_ns => Ok(WaitResult::Ready),
            None if clock::now_ns() >= deadline_ns => Ok(WaitResult::TimedOut),
            None => Ok(WaitResult::Cancelled),
        }
    }

    fn abandon(&self) -> Result<(), BlockError> {
        for queue in &self.queues {
            queue.forget(&mut queue.state.lock(), self.next_term());
        }
        match self.control(|driver| driver.abandon()) {
            // Nothing is under way where there is no driver, and what a dead one had is of an earlier term.
            Ok(_) | Err(BlockError::NoDevice) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        let mut statistics = match self.control(|driver| driver.statistics()) {
            Ok((reading, incarnation)) => self.counters.lock().add(incarnation, reading),
            Err(BlockError::NoDevice) => self.counters.lock().known(),
            Err(error) => return Err(error),
        };
        let block_bytes = self.block_bytes.load(Ordering::Relaxed);
        for queue in &self.queues {
            let tally = queue.state.lock().tally;
            tally.add_to(&mut statistics, block_bytes);
        }
        Ok(BlockStatistics {
            restarts: self.driver.restarts(),
            replayed: self.replayed.load(Ordering::Relaxed),
            ..statistics
        })
    }
}
