//! The device: queues, the cache that a power cut empties, and faults.

use crate::faults::Faults;
use crate::image::Image;
use crate::recording::{Event, Recording};
use fastrand::Rng;
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use rref::block::{BLOCK_BYTES, Fault, Operation, Progress};
use rref::{BATCH_CAPACITY, Block, BlockBatch, RRef, Text};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a disk is like. It has one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in a logical block.
    pub block_bytes: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Writes are lost by a power cut until they are flushed or forced.
    pub volatile_cache: bool,
    /// Logical blocks that a power cut leaves all old or all new when one request writes them.
    pub atomic_blocks: u32,
    /// Queues.
    pub queues: u16,
    /// Requests under way in a queue at most.
    pub queue_depth: u16,
    /// The unit's [`UnitInfo::kind`].
    pub kind: [u8; 16],
}

impl Geometry {
    /// A usual disk of so many bytes: blocks of 512 bytes, a cache, one queue.
    pub fn of_bytes(bytes: u64) -> Geometry {
        Geometry {
            block_bytes: 512,
            blocks: bytes / 512,
            volatile_cache: true,
            atomic_blocks: 1,
            queues: 1,
            queue_depth: 64,
            kind: [0; 16],
        }
    }
}

struct Pending {
    request: RRef<Block>,
    /// The point at which it was handed over.
    submitted: usize,
    /// Calls until it is carried out.
    turns: u32,
}

struct State {
    image: Image,
    recording: Recording,
    /// Everything is kept since this was set, not only what isn't durable.
    records: bool,
    queues: Vec<VecDeque<Pending>>,
    faults: Faults,
    random: Rng,
    /// Requests of these kinds that fail: how many more are carried out before, and how.
    planned: Vec<(Operation, u64, Fault)>,
    removed: bool,
    changes: u32,
    statistics: BlockStatistics,
}

/// A storage device in memory.
pub struct VirtualDisk {
    geometry: Geometry,
    state: Mutex<State>,
}

impl VirtualDisk {
    /// A disk of zeros.
    pub fn new(geometry: Geometry) -> VirtualDisk {
        let image = Image::new(geometry.block_bytes as usize);
        let recording = Recording {
            base: image.clone(),
            events: Vec::new(),
            atomic_blocks: geometry.atomic_blocks as usize,
            volatile_cache: geometry.volatile_cache,
        };
        VirtualDisk {
            geometry,
            state: Mutex::new(State {
                image,
                recording,
                records: false,
                queues: (0..geometry.queues).map(|_| VecDeque::new()).collect(),
                faults: Faults::default(),
                random: Rng::with_seed(0),
                planned: Vec::new(),
                removed: false,
                changes: 0,
                statistics: BlockStatistics::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets these faults happen from now on, when `seed` says so.
    pub fn set_faults(&self, faults: Faults, seed: u64) {
        let mut state = self.state();
        state.faults = faults;
        state.random = Rng::with_seed(seed);
    }

    /// Lets one request of a kind fail after `before` further ones of that kind.
    pub fn fail_after(&self, before: u64, operation: Operation, fault: Fault) {
        self.state().planned.push((operation, before, fault));
    }

    /// Takes the disk away: every call says so. What was under way comes to nothing.
    pub fn remove(&self) {
        self.state().removed = true;
    }

    /// Says that its units have changed.
    pub fn change(&self) {
        self.state().changes += 1;
    }

    /// What reads give now.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// From now on everything is recorded; what was done before counts as durable.
    pub fn record(&self) {
        let mut state = self.state();
        state.records = true;
        state.recording.base = state.image.clone();
        state.recording.events.clear();
        for pending in state.queues.iter_mut().flatten() {
            pending.submitted = 0;
        }
    }

    /// The point of the recording now: all that happened so far is before it.
    pub fn point(&self) -> usize {
        self.state().recording.points()
    }

    /// What was recorded; without [`record`](Self::record) what isn't durable yet.
    pub fn recording(&self) -> Recording {
        self.state().recording.clone()
    }

    fn queue_error(&self, queue: u16) -> BlockError {
        BlockError::NoQueue {
            queue,
            queues: self.geometry.queues,
        }
    }
}

impl State {
    /// Carries a request out. The answer is in the request.
    fn carry_out(&mut self, geometry: &Geometry, request: &mut Block, submitted: usize) {
        let Some(operation) = request.operation() else {
            return self.fail(request, Fault::Unsupported);
        };
        if let Some(fault) = self.planned_fault(operation) {
            return self.fail(request, fault);
        }
        if operation == Operation::Flush {
            return self.flush(request, submitted);
        }
        let (address, count) = (request.address, u64::from(request.count));
        let moves_data = matches!(operation, Operation::Read | Operation::Write);
        let on_disk = address
            .checked_add(count)
            .is_some_and(|end| end <= geometry.blocks);
        let bytes = count * u64::from(geometry.block_bytes);
        if request.unit != 0 || count == 0 || !on_disk || moves_data && bytes > BLOCK_BYTES as u64 {
            return self.fail(request, Fault::OutOfRange);
        }
        match operation {
            Operation::Read => self.read(request, bytes as usize),
            Operation::Write => self.write(geometry, request, bytes as usize, submitted),
            _ => {
                self.image.discard(address, count);
                self.happened(Event::Discard {
                    address,
                    count,
                    submitted,
                });
                self.statistics.discards += 1;
                request.complete();
            }
        }
    }

    fn fail(&mut self, request: &mut Block, fault: Fault) {
        self.statistics.errors += 1;
        request.fail(fault, 0);
    }

    /// Counts down what was planned for requests of this kind.
    fn planned_fault(&mut self, operation: Operation) -> Option<Fault> {
        let mut due = None;
        self.planned.retain_mut(|(of, before, fault)| {
            if *of != operation {
                return true;
            }
            if *before == 0 && due.is_none() {
                due = Some(*fault);
                return false;
            }
            *before = before.saturating_sub(1);
            true
        });
        due
    }

    fn flush(&mut self, request: &mut Block, submitted: usize) {
        if self.faults.failed_flush.happens(&mut self.random) {
            return self.fail(request, Fault::Internal);
        }
        self.happened(Event::Flush { submitted });
        self.statistics.flushes += 1;
        request.complete();
    }

    fn read(&mut self, request: &mut Block, bytes: usize) {
        if self.faults.failed_read.happens(&mut self.random) {
            return self.fail(request, Fault::Unreadable);
        }
        let address = request.address;
        let data = &mut request.data_mut()[..bytes];
        self.image.read(address, data);
        if self.faults.corrupted_read.happens(&mut self.random) {
            flip_a_bit(data, &mut self.random);
        }
        self.statistics.reads += 1;
        self.statistics.read_bytes += bytes as u64;
        request.complete();
    }

    fn write(&mut self, geometry: &Geometry, request: &mut Block, bytes: usize, submitted: usize) {
        let mut address = request.address;
        let mut data = request.data()[..bytes].to_vec();
        let forced = request.force_unit_access();
        let fails = self.faults.failed_write.happens(&mut self.random);
        if fails {
            self.fail(request, Fault::WriteFault);
        } else {
            self.statistics.writes += 1;
            self.statistics.written_bytes += bytes as u64;
            request.complete();
        }
        if self.faults.lost.happens(&mut self.random) {
            return;
        }
        if self.faults.corrupted_write.happens(&mut self.random) {
            flip_a_bit(&mut data, &mut self.random);
        }
        if self.faults.misdirected.happens(&mut self.random) {
            address = self.random.u64(0..=geometry.blocks - u64::from(request.count));
        }
        let block_bytes = geometry.block_bytes as usize;
        if fails || self.faults.torn.happens(&mut self.random) {
            for (index, part) in data.chunks(block_bytes).enumerate() {
                if self.random.bool() {
                    self.written(address + index as u64, part, forced, submitted);
                }
            }
        } else {
            self.written(address, &data, forced, submitted);
        }
    }

    fn written(&mut self, address: u64, data: &[u8], forced: bool, submitted: usize) {
        self.image.write(address, data);
        self.happened(Event::Write {
            address,
            data: data.into(),
            forced,
            submitted,
        });
    }

    fn happened(&mut self, event: Event) {
        self.recording.events.push(event);
    }

    /// Forgets one by one what is durable, unless it is recorded. Only while nothing is under way, since requests remember points.
    fn forget_durable(&mut self) {
        if self.records || !self.queues.iter().all(VecDeque::is_empty) {
            return;
        }
        let recording = &mut self.recording;
        let flushed = recording.flushed_at(recording.points());
        recording.base = recording.image_at(flushed);
        recording.events.drain(..flushed);
        for event in &mut recording.events {
            event.set_submitted(event.submitted().saturating_sub(flushed));
        }
    }

    /// Takes the requests whose turn it is.
    fn due(&mut self, queue: usize, limit: usize) -> Vec<Pending> {
        let Some(pending) = self.queues.get_mut(queue) else {
            return Vec::new();
        };
        let (mut due, rest): (VecDeque<Pending>, VecDeque<Pending>) = core::mem::take(pending)
            .into_iter()
            .partition(|pending| pending.turns == 0);
        *pending = rest;
        pending.iter_mut().for_each(|pending| pending.turns -= 1);
        if self.faults.reordered {
            self.random.shuffle(due.make_contiguous());
        }
        while due.len() > limit {
            pending.extend(due.pop_back());
        }
        due.into()
    }
}

impl BlockDevice for VirtualDisk {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        if self.state().removed {
            return Err(BlockError::NoDevice);
        }
        Ok(BlockDeviceInfo {
            units: 1,
            queues: self.geometry.queues,
            queue_depth: self.geometry.queue_depth,
            changes: self.state().changes,
            model: Text::new("virtual disk"),
        })
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        let state = self.state();
        if state.removed {
            return Err(BlockError::NoDevice);
        }
        if unit != 0 {
            return Err(BlockError::NoUnit { unit, units: 1 });
        }
        Ok(UnitInfo {
            block_bytes: self.geometry.block_bytes,
            blocks: self.geometry.blocks,
            volatile_cache: self.geometry.volatile_cache,
            forced_writes: true,
            read_only: false,
            deallocate: true,
            atomic_blocks: self.geometry.atomic_blocks,
            transfer_blocks: (BATCH_CAPACITY * BLOCK_BYTES) as u32 / self.geometry.block_bytes,
            kind: self.geometry.kind,
            name: Text::new("virtual"),
        })
    }

    fn exchange(&self, queue: u16, mut requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        let mut state = self.state();
        let state = &mut *state;
        if queue >= self.geometry.queues {
            return Err(self.queue_error(queue));
        }
        if state.removed {
            return Err(BlockError::NoDevice);
        }
        let submitted = state.recording.points();
        let mut depth = usize::from(self.geometry.queue_depth);
        if state.faults.shallow != 0 {
            depth = depth.min(usize::from(state.faults.shallow));
        }
        // What is due makes room first: a disk that is full of it would else give none back in a full batch, and stay so.
        let mut due = state.due(usize::from(queue), BATCH_CAPACITY);
        let under_way = &mut state.queues[usize::from(queue)];
        while under_way.len() < depth
            && let Some(request) = requests.pop_front()
        {
            assert_eq!(
                request.progress(),
                Progress::Submitted,
                "a request must be marked so to be carried out"
            );
            let slow = state.faults.slow.happens(&mut state.random);
            let turns = if slow {
                state.random.u32(0..=state.faults.slow_turns)
            } else {
                0
            };
            under_way.push_back(Pending {
                request,
                submitted,
                turns,
            });
        }
        // Answers go before what had no room.
        let mut answers = BlockBatch::new().map_err(|_| BlockError::OutOfMemory)?;
        if due.len() < requests.room() {
            due.extend(state.due(usize::from(queue), requests.room() - due.len()));
        }
        let later = due.split_off(due.len().min(requests.room()));
        state.queues[usize::from(queue)].extend(later);
        for mut pending in due {
            state.carry_out(&self.geometry, &mut pending.request, pending.submitted);
            assert!(answers.push(pending.request).is_ok(), "there is room");
        }
        answers.append(&mut requests);
        state.forget_durable();
        Ok(answers)
    }

    fn exchange_until(
        &self,
        queue: u16,
        requests: BlockBatch,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let batch = self.exchange(queue, requests)?;
        if !batch.is_empty() {
            return Ok(batch);
        }
        self.wait(queue, deadline_ns)?;
        self.exchange(queue, batch)
    }

    fn wait(&self, queue: u16, _deadline_ns: u64) -> Result<WaitResult, BlockError> {
        let mut state = self.state();
        if queue >= self.geometry.queues {
            return Err(self.queue_error(queue));
        }
        if state.removed {
            return Err(BlockError::NoDevice);
        }
        let under_way = &mut state.queues[usize::from(queue)];
        let Some(turns) = under_way.iter().map(|pending| pending.turns).min() else {
            return Ok(WaitResult::TimedOut);
        };
        under_way.iter_mut().for_each(|pending| pending.turns -= turns);
        Ok(WaitResult::Ready)
    }

    fn abandon(&self) -> Result<(), BlockError> {
        let mut state = self.state();
        if state.removed {
            return Err(BlockError::NoDevice);
        }
        let state = &mut *state;
        for queue in 0..state.queues.len() {
            let mut under_way = core::mem::take(&mut state.queues[queue]);
            if state.faults.reordered {
                state.random.shuffle(under_way.make_contiguous());
            }
            for mut pending in under_way {
                // Some come to nothing.
                if state.random.bool() {
                    state.carry_out(&self.geometry, &mut pending.request, pending.submitted);
                }
            }
        }
        state.forget_durable();
        Ok(())
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        Ok(self.state().statistics)
    }
}

fn flip_a_bit(data: &mut [u8], random: &mut Rng) {
    let at = random.usize(0..data.len());
    data[at] ^= 1 << random.u32(0..8);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
