//! A partition of a storage device as the engine's disk.
//!
//! Each thread uses the queue of its CPU if nobody else is using it, else another one's, and carries its requests out to the end. When the domain
//! behind the handle dies, what it held is lost ([`DiskError::Lost`]): the engine makes the requests again, after the next incarnation has
//! been told to forget what is left of them.

use crate::disk::{Disk, DiskError, Shape};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, clock, thread};
use interface::block::{BlockDevice, BlockError, UnitInfo, WaitResult};
use log::{info, warn};
use rref::block::Progress;
use rref::{BATCH_CAPACITY, Block, BlockBatch, RRef};

/// How long one wait for the device takes at most; then it is asked again.
const WAIT_NS: u64 = 1_000_000_000;
/// How long the device's domain may take to come back before requests fail.
const RECONNECT_MS: u64 = 10_000;
/// Bits of a request's cookie that are the engine's; the others say which call it belongs to.
const COOKIE_BITS: u32 = 32;

/// Why there is no partition to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindError {
    /// No unit is of the store's type.
    NoPartition,
    /// The device says so.
    Device(BlockError),
}

/// The device, whichever incarnation lives.
struct Link {
    handle: Handle<dyn BlockDevice>,
    /// The incarnation that was told to forget what was left.
    told: OwnerId,
}

struct Queue {
    /// The handle that was used last.
    handle: Option<Handle<dyn BlockDevice>>,
    waiting: VecDeque<RRef<Block>>,
    /// Counts calls, so that answers to an earlier one, which failed, aren't taken for answers.
    call: u64,
    batch: Option<BlockBatch>,
    /// Requests to hand over at once: fewer after the device had no room, so that answers have some in the batch.
    most: usize,
}

/// A partition.
pub struct Partition {
    import: &'static str,
    kind: [u8; 16],
    unit: AtomicU16,
    shape: Shape,
    link: Mutex<Link>,
    queues: Vec<Mutex<Queue>>,
}

fn find_unit(handle: &Handle<dyn BlockDevice>, kind: [u8; 16]) -> Result<(u16, UnitInfo), FindError> {
    let info = handle.info().map_err(FindError::Device)?;
    for unit in 0..info.units {
        match handle.unit(unit) {
            Ok(found) if found.kind == kind && found.blocks > 0 => return Ok((unit, found)),
            // Others may come and go.
            Ok(_) | Err(BlockError::NoUnit { .. }) => {}
            Err(error) => return Err(FindError::Device(error)),
        }
    }
    Err(FindError::NoPartition)
}

impl Partition {
    /// The first unit of type `kind` of the device behind `import`, which `handle` reaches.
    pub fn find(
        import: &'static str,
        handle: Handle<dyn BlockDevice>,
        kind: [u8; 16],
    ) -> Result<Partition, FindError> {
        let (unit, found) = find_unit(&handle, kind)?;
        // An earlier incarnation of this domain may have left writes under way.
        handle.abandon().map_err(FindError::Device)?;
        let queues = handle.info().map_err(FindError::Device)?.queues.max(1);
        let queue = || Queue {
            handle: None,
            waiting: VecDeque::new(),
            call: 0,
            batch: None,
            most: BATCH_CAPACITY,
        };
        let told = handle.target();
        Ok(Partition {
            import,
            kind,
            unit: AtomicU16::new(unit),
            shape: Shape {
                block_bytes: found.block_bytes,
                blocks: found.blocks,
                volatile_cache: found.volatile_cache,
                forced_writes: found.forced_writes,
                deallocate: found.deallocate,
            },
            link: Mutex::new(Link { handle, told }),
            queues: (0..queues).map(|_| Mutex::new(queue())).collect(),
        })
    }

    /// The living device. One that came after another one died is told to forget what was left with it, before anybody uses it.
    fn device(&self, dead: Option<OwnerId>) -> Result<Handle<dyn BlockDevice>, DiskError> {
        let mut link = self.link.lock();
        let mut dead = dead;
        while dead == Some(link.handle.target()) || link.told != link.handle.target() {
            if dead == Some(link.handle.target()) {
                link.handle = domain_rt::reconnect(self.import, link.handle.target(), RECONNECT_MS)
                    .map_err(|_| DiskError::Gone)?;
            }
            let target = link.handle.target();
            let taken = link
                .handle
                .abandon()
                .map_err(FindError::Device)
                .and_then(|()| find_unit(&link.handle, self.kind));
            match taken {
                Ok((unit, found)) if found.block_bytes == self.shape.block_bytes => {
                    self.unit.store(unit, Ordering::Relaxed);
                    link.told = target;
                    info!("the storage device is back, generation {}", target.generation());
                }
                Err(FindError::Device(BlockError::Dead(_))) => dead = Some(target),
                Ok(_) | Err(_) => {
                    warn!("the store's partition is gone");
                    return Err(DiskError::Gone);
                }
            }
        }
        Ok(link.handle.clone())
    }

    /// Does `work` with a queue that nobody else uses.
    fn with_queue<R>(&self, work: impl FnOnce(u16, &mut Queue) -> R) -> Option<R> {
        let own = usize::from(thread::cpu()) % self.queues.len().max(1);
        let others = (0..self.queues.len()).map(|index| (own + index) % self.queues.len());
        for index in others {
            if let Some(mut queue) = self.queues.get(index).and_then(|queue| queue.try_lock()) {
                return Some(work(index as u16, &mut queue));
            }
        }
        let mut queue = self.queues.get(own)?.lock();
        Some(work(own as u16, &mut queue))
    }

    fn run_on(
        &self,
        number: u16,
        queue: &mut Queue,
        requests: &mut Vec<RRef<Block>>,
    ) -> Result<(), DiskError> {
        let handle = match queue.handle.take() {
            Some(handle) => handle,
            None => self.device(None)?,
        };
        let unit = self.unit.load(Ordering::Relaxed);
        queue.call = queue.call.wrapping_add(1) & ((1 << COOKIE_BITS) - 1);
        let total = requests.len();
        queue.most = BATCH_CAPACITY;
        queue.waiting.clear();
        queue.waiting.extend(requests.drain(..));
        for request in &mut queue.waiting {
            request.unit = unit;
            request.cookie |= queue.call << COOKIE_BITS;
        }
        while requests.len() < total {
            match self.step(number, queue, &handle, requests) {
                Ok(()) => {}
                Err(BlockError::Dead(_)) => {
                    // Whoever comes next connects; this one's requests are gone.
                    requests.clear();
                    self.device(Some(handle.target()))?;
                    return Err(DiskError::Lost);
                }
                Err(BlockError::Lost) => {
                    requests.clear();
                    queue.handle = Some(handle);
                    return Err(DiskError::Lost);
                }
                Err(BlockError::OutOfMemory) => return Err(DiskError::OutOfMemory),
                Err(_) => return Err(DiskError::Gone),
            }
        }
        queue.handle = Some(handle);
        Ok(())
    }

    /// Hands over what fits into a batch, takes what is finished, and waits if there was neither.
    fn step(
        &self,
        number: u16,
        queue: &mut Queue,
        handle: &Handle<dyn BlockDevice>,
        finished: &mut Vec<RRef<Block>>,
    ) -> Result<(), BlockError> {
        let mut batch = match queue.batch.take() {
            Some(batch) => batch,
            None => BlockBatch::new().map_err(|_| BlockError::OutOfMemory)?,
        };
        while batch.len() < queue.most
            && let Some(request) = queue.waiting.pop_front()
        {
            // There is room: `most` is no more than a batch.
            drop(batch.push(request));
        }
        let handed_over = batch.len();
        let deadline_ns = || clock::now_ns().saturating_add(WAIT_NS);
        // When all is handed over there is nothing left but to wait.
        let mut batch = if queue.waiting.is_empty() {
            handle.exchange_until(number, batch, deadline_ns())?
        } else {
            handle.exchange(number, batch)?
        };
        let (before, mut refused) = (finished.len(), 0);
        while let Some(mut request) = batch.pop() {
            if request.cookie >> COOKIE_BITS != queue.call {
                continue;
            }
            match request.progress() {
                // From the end, so that they stand in their order again.
                Progress::Submitted => {
                    refused += 1;
                    queue.waiting.push_front(request);
                }
                Progress::Done | Progress::Failed => {
                    request.cookie &= (1 << COOKIE_BITS) - 1;
                    finished.push(request);
                }
            }
        }
        queue.batch = Some(batch);
        let answered = finished.len() - before;
        queue.most = if refused > 0 {
            answered.min(BATCH_CAPACITY)
        } else {
            // One at least: a device that has nothing of ours may have had no room for another reason.
            (queue.most + answered).clamp(1, BATCH_CAPACITY)
        };
        // Nothing came back, and what could be handed over was.
        if answered == 0 && (queue.waiting.is_empty() || handed_over == refused) {
            match handle.wait(number, deadline_ns())? {
                // A domain that this thread came through is dead; what is under way is finished nevertheless.
                WaitResult::Cancelled => thread::yield_now(),
                WaitResult::Ready | WaitResult::TimedOut => {}
            }
        }
        Ok(())
    }
}

impl Disk for Partition {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        self.with_queue(|number, queue| self.run_on(number, queue, requests))
            .unwrap_or(Err(DiskError::Gone))
    }
}
