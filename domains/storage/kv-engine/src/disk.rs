//! The disk as the engine sees it: whole requests carried out in the caller's thread, and bytes moved in runs of them.
//!
//! What is behind it is for [`Disk`]'s implementations: a partition (`device.rs`), or a disk with faults in tests.

use alloc::vec::Vec;
use domain_rt::sync::Mutex;
use rref::RRef;
use rref::block::{BLOCK_BYTES, Block, Fault, Operation, Progress};

/// Blocks that are kept for the next requests.
const POOL_BLOCKS: usize = 256;
/// Blocks that are under way at once for a long run.
const WINDOW_BLOCKS: usize = 256;

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a logical block: a power of two from 512 to 4,096.
    pub block_bytes: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Writes can be lost by a power cut until they are flushed or forced.
    pub volatile_cache: bool,
    /// Forced writes are durable when they are done; where they aren't, only a flush makes anything durable.
    pub forced_writes: bool,
    /// Logical blocks can be deallocated.
    pub deallocate: bool,
}

impl Shape {
    /// Bytes of the whole.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_bytes))
    }
}

/// Why requests weren't carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The disk answered so.
    Fault(Fault),
    /// Requests are gone with a domain that held them, and may have been carried out or not: make them again.
    Lost,
    /// There is no disk, or it has failed for good.
    Gone,
    /// No memory for requests.
    OutOfMemory,
}

/// Tries something again that may have failed for a passing reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    failed: u32,
    lost: u32,
}

/// Times that a request is tried.
pub const ATTEMPTS: u32 = 4;
/// Times that requests are made again which were lost with a domain that held them.
pub const LOST_ATTEMPTS: u32 = 100;

impl Attempts {
    /// Counts a failure; whether to try again.
    pub fn failed(&mut self, error: DiskError) -> bool {
        match error {
            DiskError::Lost => self.lost += 1,
            DiskError::Fault(Fault::TimedOut | Fault::Internal | Fault::WriteFault | Fault::Unreadable) => {
                self.failed += 1
            }
            _ => return false,
        }
        self.failed < ATTEMPTS && self.lost < LOST_ATTEMPTS
    }
}

/// Does `work`, and again for as long as that may help.
fn persistently<R>(mut work: impl FnMut() -> Result<R, DiskError>) -> Result<R, DiskError> {
    let mut attempts = Attempts::default();
    loop {
        match work() {
            Err(error) if attempts.failed(error) => {}
            result => return result,
        }
    }
}

/// A disk.
pub trait Disk: Send + Sync {
    /// What it is.
    fn shape(&self) -> Shape;

    /// Carries out all of `requests`, in any order, and gives the same blocks back, in any order, each with its outcome.
    ///
    /// # Errors
    /// When requests were lost, or there is no disk. What failed by itself is in its block.
    fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError>;
}

/// A disk, and the blocks that requests are made of.
pub struct Runs<D> {
    disk: D,
    shape: Shape,
    pool: Mutex<Vec<RRef<Block>>>,
}

impl<D: Disk> Runs<D> {
    /// Around a disk.
    pub fn new(disk: D) -> Runs<D> {
        let shape = disk.shape();
        Runs {
            disk,
            shape,
            pool: Mutex::default(),
        }
    }

    /// What the disk is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    fn block(&self) -> Result<RRef<Block>, DiskError> {
        if let Some(block) = self.pool.lock().pop() {
            return Ok(block);
        }
        Block::allocate().map_err(|_| DiskError::OutOfMemory)
    }

    fn put_back(&self, blocks: &mut Vec<RRef<Block>>) {
        let mut pool = self.pool.lock();
        let room = POOL_BLOCKS.saturating_sub(pool.len());
        pool.extend(blocks.drain(..room.min(blocks.len())));
        drop(pool);
        blocks.clear();
    }

    fn blocks_of(&self, bytes: usize) -> u32 {
        bytes as u32 / self.shape.block_bytes
    }

    /// Requests that write `bytes` from `offset` on, both whole logical blocks; what a page of data has behind the last is not sent.
    pub fn write_requests(
        &self,
        offset: u64,
        bytes: &[u8],
        force: bool,
        requests: &mut Vec<RRef<Block>>,
    ) -> Result<(), DiskError> {
        let mut address = offset / u64::from(self.shape.block_bytes);
        for page in bytes.chunks(BLOCK_BYTES) {
            let mut block = self.block()?;
            let count = self.blocks_of(page.len());
            block.request(Operation::Write, address, count);
            block.set_force_unit_access(force);
            if let Some(to) = block.data_mut().get_mut(..page.len()) {
                to.copy_from_slice(page);
            }
            address += u64::from(count);
            requests.push(block);
        }
        Ok(())
    }

    /// A request that makes what was written durable.
    pub fn flush_request(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        let mut block = self.block()?;
        block.request(Operation::Flush, 0, 0);
        requests.push(block);
        Ok(())
    }

    /// Carries requests out and keeps their blocks for others.
    ///
    /// # Errors
    /// The first request's that failed; the others were carried out or have failed too.
    pub fn run(&self, requests: &mut Vec<RRef<Block>>) -> Result<(), DiskError> {
        let mut result = self.disk.run(requests);
        if result.is_ok() {
            let failed = requests.iter().find(|block| block.progress() != Progress::Done);
            if let Some(block) = failed {
                result = Err(DiskError::Fault(block.fault().unwrap_or(Fault::Internal)));
            }
        }
        self.put_back(requests);
        result
    }

    /// Writes whole logical blocks, durably when `force`; again if that may help.
    pub fn write(&self, offset: u64, bytes: &[u8], force: bool) -> Result<(), DiskError> {
        let force = force && self.shape.volatile_cache;
        let mut requests = Vec::new();
        for (index, part) in bytes.chunks(WINDOW_BLOCKS * BLOCK_BYTES).enumerate() {
            let at = offset + (index * WINDOW_BLOCKS * BLOCK_BYTES) as u64;
            persistently(|| {
                requests.clear();
                self.write_requests(at, part, force && self.shape.forced_writes, &mut requests)?;
                self.run(&mut requests)
            })?;
        }
        if force && !self.shape.forced_writes {
            return self.flush();
        }
        Ok(())
    }

    /// Makes all that was written durable.
    pub fn flush(&self) -> Result<(), DiskError> {
        if !self.shape.volatile_cache {
            return Ok(());
        }
        let mut requests = Vec::new();
        self.flush_request(&mut requests)?;
        self.run(&mut requests)
    }

    /// Reads whole logical blocks, again if that may help.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let mut requests = Vec::new();
        let mut start = offset;
        for part in into.chunks_mut(WINDOW_BLOCKS * BLOCK_BYTES) {
            persistently(|| self.read_once(&[(start, part.len())], part, &mut requests))?;
            start += part.len() as u64;
        }
        Ok(())
    }

    /// Reads stretches of whole logical blocks, each at an offset and so many bytes long, into `into`, one behind the other: all at once, so no more than
    /// a few megabytes. Again if that may help.
    pub fn read_stretches(&self, stretches: &[(u64, usize)], into: &mut [u8]) -> Result<(), DiskError> {
        let mut requests = Vec::new();
        persistently(|| self.read_once(stretches, into, &mut requests))
    }

    fn read_once(
        &self,
        stretches: &[(u64, usize)],
        into: &mut [u8],
        requests: &mut Vec<RRef<Block>>,
    ) -> Result<(), DiskError> {
        requests.clear();
        let mut place = 0;
        for &(offset, bytes) in stretches {
            let first = offset / u64::from(self.shape.block_bytes);
            for start in (0..bytes).step_by(BLOCK_BYTES) {
                let mut block = self.block()?;
                let count = self.blocks_of(BLOCK_BYTES.min(bytes - start));
                block.request(Operation::Read, first + u64::from(self.blocks_of(start)), count);
                block.cookie = (place + start) as u64;
                requests.push(block);
            }
            place += bytes;
        }
        let mut result = self.disk.run(requests);
        if result.is_ok() {
            for block in requests.iter() {
                if block.progress() != Progress::Done {
                    result = Err(DiskError::Fault(block.fault().unwrap_or(Fault::Internal)));
                    break;
                }
                let (start, length) = (
                    block.cookie as usize,
                    block.count as usize * self.shape.block_bytes as usize,
                );
                let to = into.get_mut(start..start + length);
                if let (Some(to), Some(from)) = (to, block.data().get(..length)) {
                    to.copy_from_slice(from);
                }
            }
        }
        self.put_back(requests);
        result
    }

    /// Reads one logical block at each of `offsets`, and gives each to `each`, in any order, with its position among the offsets. One that
    /// is read again after a failure may be given again.
    pub fn read_scattered(
        &self,
        offsets: &[u64],
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<(), DiskError> {
        let mut requests = Vec::new();
        for (window, offsets) in offsets.chunks(WINDOW_BLOCKS).enumerate() {
            persistently(|| {
                requests.clear();
                for (index, offset) in offsets.iter().enumerate() {
                    let mut block = self.block()?;
                    block.request(Operation::Read, offset / u64::from(self.shape.block_bytes), 1);
                    block.cookie = (window * WINDOW_BLOCKS + index) as u64;
                    requests.push(block);
                }
                self.disk.run(&mut requests)?;
                for block in &requests {
                    if block.progress() != Progress::Done {
                        return Err(DiskError::Fault(block.fault().unwrap_or(Fault::Internal)));
                    }
                    let data = block.data().get(..self.shape.block_bytes as usize);
                    each(block.cookie as usize, data.unwrap_or_default());
                }
                Ok(())
            })?;
            self.put_back(&mut requests);
        }
        Ok(())
    }
}
