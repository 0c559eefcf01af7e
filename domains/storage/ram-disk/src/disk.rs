//! The device: pages by their number, and requests that are carried out in the call that brings them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use domain_rt::sync::Mutex;
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use rref::block::{BLOCK_BYTES, Fault, Operation};
use rref::{BATCH_CAPACITY, Block, BlockBatch, Text};

/// Bytes in a logical block.
const LOGICAL_BYTES: usize = 512;
/// Queues: it has as many as anybody could want, since none is kept.
const QUEUES: u16 = 64;

/// A disk in memory.
pub struct RamDisk {
    blocks: u64,
    state: Mutex<State>,
}

struct State {
    /// By number; pages that were never written read as zeros.
    pages: Vec<Option<Box<[u8; BLOCK_BYTES]>>>,
    statistics: BlockStatistics,
}

impl RamDisk {
    /// A disk of so many bytes, rounded down to whole pages.
    pub fn new(bytes: u64) -> RamDisk {
        let pages = bytes / BLOCK_BYTES as u64;
        RamDisk {
            blocks: pages * (BLOCK_BYTES / LOGICAL_BYTES) as u64,
            state: Mutex::new(State {
                pages: (0..pages).map(|_| None).collect(),
                statistics: BlockStatistics::default(),
            }),
        }
    }

    fn carry_out(&self, state: &mut State, request: &mut Block) {
        let statistics = &mut state.statistics;
        let operation = request.operation();
        if operation == Some(Operation::Flush) {
            statistics.flushes += 1;
            return request.complete();
        }
        let (address, count) = (request.address, u64::from(request.count));
        let is_on_disk = address.checked_add(count).is_some_and(|end| end <= self.blocks);
        let bytes = count as usize * LOGICAL_BYTES;
        let moves_data = matches!(operation, Some(Operation::Read | Operation::Write));
        if request.unit != 0 || count == 0 || !is_on_disk || moves_data && bytes > BLOCK_BYTES {
            statistics.errors += 1;
            return request.fail(Fault::OutOfRange, 0);
        }
        let start = address as usize * LOGICAL_BYTES;
        match operation {
            Some(Operation::Read) => {
                statistics.reads += 1;
                statistics.read_bytes += bytes as u64;
                state.read(start, request.data_mut().get_mut(..bytes).unwrap_or_default());
            }
            Some(Operation::Write) => {
                statistics.writes += 1;
                statistics.written_bytes += bytes as u64;
                state.write(start, request.data().get(..bytes).unwrap_or_default());
            }
            Some(_) => {
                statistics.discards += 1;
                state.clear(start, bytes);
            }
            None => {
                statistics.errors += 1;
                return request.fail(Fault::Unsupported, 0);
            }
        }
        request.complete();
    }
}

/// The parts of a range in pages: the page, where in it, how many bytes.
fn parts(start: usize, length: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = start;
    let end = start + length;
    core::iter::from_fn(move || {
        let (page, offset) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        let count = (BLOCK_BYTES - offset).min(end - at);
        at += count;
        (count != 0).then_some((page, offset, count))
    })
}

impl State {
    fn read(&self, start: usize, mut data: &mut [u8]) {
        for (page, offset, count) in parts(start, data.len()) {
            let Some((part, rest)) = data.split_at_mut_checked(count) else {
                return;
            };
            let page = self.pages.get(page).and_then(Option::as_ref);
            match page.and_then(|page| page.get(offset..offset + count)) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => part.fill(0),
            }
            data = rest;
        }
    }

    fn write(&mut self, start: usize, mut data: &[u8]) {
        for (page, offset, count) in parts(start, data.len()) {
            let Some((part, rest)) = data.split_at_checked(count) else {
                return;
            };
            let page = self.pages.get_mut(page);
            let page = page.map(|page| page.get_or_insert_with(|| Box::new([0; BLOCK_BYTES])));
            if let Some(bytes) = page.and_then(|page| page.get_mut(offset..offset + count)) {
                bytes.copy_from_slice(part);
            }
            data = rest;
        }
    }

    fn clear(&mut self, start: usize, length: usize) {
        for (page, offset, count) in parts(start, length) {
            let Some(page) = self.pages.get_mut(page) else {
                return;
            };
            if count == BLOCK_BYTES {
                *page = None;
            } else if let Some(bytes) = page
                .as_mut()
                .and_then(|page| page.get_mut(offset..offset + count))
            {
                bytes.fill(0);
            }
        }
    }
}

impl BlockDevice for RamDisk {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        Ok(BlockDeviceInfo {
            units: 1,
            queues: QUEUES,
            queue_depth: BATCH_CAPACITY as u16,
            changes: 0,
            model: Text::new("RAM disk"),
        })
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        if unit != 0 {
            return Err(BlockError::NoUnit { unit, units: 1 });
        }
        Ok(UnitInfo {
            block_bytes: LOGICAL_BYTES as u32,
            blocks: self.blocks,
            volatile_cache: false,
            forced_writes: true,
            read_only: false,
            deallocate: true,
            atomic_blocks: (BLOCK_BYTES / LOGICAL_BYTES) as u32,
            transfer_blocks: (BATCH_CAPACITY * BLOCK_BYTES / LOGICAL_BYTES) as u32,
            kind: [0; 16],
            name: Text::new("ram"),
        })
    }

    fn exchange(&self, queue: u16, mut requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        if queue >= QUEUES {
            return Err(BlockError::NoQueue {
                queue,
                queues: QUEUES,
            });
        }
        let mut state = self.state.lock();
        state.statistics.commands += requests.len() as u64;
        for request in requests.iter_mut() {
            self.carry_out(&mut state, request);
        }
        Ok(requests)
    }

    fn exchange_until(
        &self,
        queue: u16,
        requests: BlockBatch,
        _deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        self.exchange(queue, requests)
    }

    fn wait(&self, _queue: u16, _deadline_ns: u64) -> Result<WaitResult, BlockError> {
        // Everything was answered in its call.
        Ok(WaitResult::TimedOut)
    }

    fn abandon(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        Ok(self.state.lock().statistics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rref::block::Progress;

    fn run(disk: &RamDisk, operation: Operation, address: u64, count: u32, byte: u8) -> (Progress, Vec<u8>) {
        let mut block = Block::allocate().unwrap();
        block.request(operation, address, count);
        block.data_mut().fill(byte);
        let mut batch = BlockBatch::new().unwrap();
        assert!(batch.push(block).is_ok());
        let answer = disk.exchange(0, batch).unwrap().pop().unwrap();
        (answer.progress(), answer.data().to_vec())
    }

    #[test]
    fn what_is_beyond_its_end_or_a_page_fails() {
        host_platform::attach();
        let disk = RamDisk::new(1 << 20);
        for (operation, address, count) in [
            (Operation::Read, 2048, 1),
            (Operation::Write, 2041, 8),
            (Operation::Write, u64::MAX, 8),
            (Operation::Read, 0, 9),
            (Operation::Deallocate, 0, 2049),
            (Operation::Write, 0, 0),
        ] {
            assert_eq!(run(&disk, operation, address, count, 1).0, Progress::Failed);
        }
        assert_eq!(disk.statistics().unwrap().errors, 6);
    }

    proptest! {
        /// It reads as a plain array of bytes would.
        #[test]
        fn it_is_an_array(steps in proptest::collection::vec((0u8..4, 0u64..100, 1u32..9), 1..100)) {
            host_platform::attach();
            let disk = RamDisk::new(16 * 4096);
            let mut model = vec![0u8; 16 * 4096];
            for (number, (step, address, count)) in steps.into_iter().enumerate() {
                let range = address as usize * 512..(address as usize + count as usize) * 512;
                let byte = number as u8 + 1;
                match step {
                    0 => {
                        let (progress, data) = run(&disk, Operation::Read, address, count, byte);
                        prop_assert_eq!(progress, Progress::Done);
                        prop_assert!(data[..range.len()] == model[range]);
                    }
                    1 => {
                        run(&disk, Operation::WriteZeroes, address, count * 2, 0);
                        model[address as usize * 512..(address as usize + 2 * count as usize) * 512].fill(0);
                    }
                    _ => {
                        run(&disk, Operation::Write, address, count, byte);
                        model[range].fill(byte);
                    }
                }
            }
        }
    }
}
