//! A disk's blocks for this domain itself: partition tables are read and written by requests like any other, one after the other.

use crate::gpt::{Medium, MediumError};
use crate::router::Router;
use crate::units::Extent;
use domain_rt::{clock, thread};
use interface::block::{BlockError, UnitInfo, WaitResult};
use log::warn;
use rref::block::{BLOCK_BYTES, Fault, Operation, Progress};
use rref::{Block, BlockBatch, OwnerId, RRef};

/// The queue that tables are read and written through.
const QUEUE: u16 = 0;
/// How often a request that is lost is made again.
const ATTEMPTS: u32 = 10;
/// How often one is made that fails for a reason that may pass.
const FAILURES: u32 = 4;
/// How long that reason is given to pass each time, milliseconds.
const PAUSE_MS: u64 = 10;
/// How long one request may take, milliseconds: longer than the driver gives a command before it resets the device.
const PATIENCE_MS: u64 = 60_000;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// A disk, with the right to read and write all of it.
pub struct Disk<'a> {
    pub router: &'a Router,
    /// This domain.
    pub user: OwnerId,
    /// The disk, as a unit of the device below.
    pub unit: u16,
    pub info: UnitInfo,
}

impl Disk<'_> {
    /// Makes one request, and waits for its answer; makes it again when it is lost on its way, or failed for a reason that may pass.
    fn ask(
        &self,
        operation: Operation,
        first: u64,
        count: u32,
        data: Option<&[u8]>,
    ) -> Result<RRef<Block>, MediumError> {
        let (mut lost, mut failed) = (0, 0);
        while lost < ATTEMPTS {
            let Some(answer) = self.attempt(operation, first, count, data)? else {
                lost += 1;
                continue;
            };
            if answer.progress() == Progress::Done {
                return Ok(answer);
            }
            failed += 1;
            let may_pass = matches!(
                answer.fault(),
                Some(Fault::TimedOut | Fault::Internal | Fault::WriteFault | Fault::Unreadable)
            );
            if !may_pass || failed == FAILURES {
                warn!(
                    "disk {}: {operation:?} of block {first} failed: {:?} (status {:#06x})",
                    self.unit,
                    answer.fault(),
                    answer.device_status
                );
                break;
            }
            thread::sleep_ms(PAUSE_MS);
        }
        Err(MediumError)
    }

    /// Makes one request, and waits for its answer, whatever that is; `None` if it is lost.
    fn attempt(
        &self,
        operation: Operation,
        first: u64,
        count: u32,
        data: Option<&[u8]>,
    ) -> Result<Option<RRef<Block>>, MediumError> {
        let mut block = Block::allocate().map_err(|_| MediumError)?;
        block.request(operation, first, count);
        block.unit = self.unit;
        if let Some(data) = data {
            block
                .data_mut()
                .iter_mut()
                .zip(data)
                .for_each(|(to, from)| *to = *from);
        }
        let whole = Extent {
            disk: self.unit,
            first: 0,
            blocks: self.info.blocks,
        };
        let mut pending = Some(block);
        let deadline_ns = clock::now_ns().saturating_add(PATIENCE_MS * MS);
        loop {
            let mut batch = BlockBatch::new().map_err(|_| MediumError)?;
            if let Some(block) = pending.take() {
                // An empty batch has room.
                drop(batch.push(block));
            }
            let mut answers = match self.router.exchange(QUEUE, self.user, batch, |_| Some(whole)) {
                Ok(answers) => answers,
                Err(BlockError::Lost) => return Ok(None),
                Err(error) => {
                    warn!("disk {}: {error}", self.unit);
                    return Err(MediumError);
                }
            };
            match answers.pop() {
                Some(answer) => match answer.progress() {
                    Progress::Submitted => pending = Some(answer),
                    Progress::Done | Progress::Failed => return Ok(Some(answer)),
                },
                None if clock::now_ns() >= deadline_ns => return Err(MediumError),
                None => {}
            }
            match self.router.wait(QUEUE, self.user, deadline_ns) {
                Ok(WaitResult::Cancelled) | Err(_) => return Err(MediumError),
                Ok(WaitResult::Ready | WaitResult::TimedOut) => {}
            }
        }
    }

    fn blocks_of(&self, bytes: usize) -> u32 {
        (bytes / self.block_bytes()) as u32
    }
}

impl Medium for Disk<'_> {
    fn block_bytes(&self) -> usize {
        self.info.block_bytes as usize
    }

    fn blocks(&self) -> u64 {
        self.info.blocks
    }

    fn read(&mut self, first: u64, data: &mut [u8]) -> Result<(), MediumError> {
        let mut at = first;
        for part in data.chunks_mut(BLOCK_BYTES) {
            let count = self.blocks_of(part.len());
            let answer = self.ask(Operation::Read, at, count, None)?;
            part.iter_mut()
                .zip(answer.data())
                .for_each(|(to, from)| *to = *from);
            at += u64::from(count);
        }
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), MediumError> {
        let mut at = first;
        for part in data.chunks(BLOCK_BYTES) {
            let count = self.blocks_of(part.len());
            self.ask(Operation::Write, at, count, Some(part))?;
            at += u64::from(count);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.ask(Operation::Flush, 0, 0, None).map(drop)
    }
}
