//! One queue: requests become commands, and completions finished requests.
//!
//! Blocks are in one of four places: in a command (`dma::nvme::IoQueue` has them), waiting to be handed in once more, finished and waiting to
//! be fetched, or not here at all. When the controller is reset those in commands wait to be handed in once more; none is dropped.

mod completion;

use crate::statistics::Counters;
use crate::units::{Unit, Units};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use completion::failed;
use dma::nvme::{CommandKind, IoQueue, Transfer};
use rref::block::{Block, Fault, Operation};
use rref::{BlockBatch, RRef};

/// How often a request is handed in at most.
const ATTEMPT_LIMIT: u8 = 4;

/// What the driver knows of the command in a slot.
#[derive(Clone, Copy, Default)]
struct UnderWay {
    /// When it was handed in; 0 when there is none.
    since_ns: u64,
    /// An abort of it was asked for then; 0 if not.
    aborted_ns: u64,
    /// How often its requests were handed in before.
    attempts: u8,
    /// Of a range: logical blocks that earlier commands covered.
    progress: u32,
    /// Logical blocks that this one covers when others are to follow; otherwise 0.
    covers: u32,
    /// Nobody wants its requests back.
    abandoned: bool,
}

/// A request that is to be handed in once more, alone.
struct Again {
    block: RRef<Block>,
    attempts: u8,
    progress: u32,
}

/// Whether the queue takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// They become commands.
    Open,
    /// They come back as they are, to be handed over again: the controller is on its way up.
    Held,
    /// They fail: there is no controller any more.
    Closed,
}

/// A command that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is to be aborted: its identifier.
    Abort(u16),
    /// It was aborted, and isn't answered still.
    Stuck,
}

/// One queue's requests.
pub struct Requests {
    ring: Option<IoQueue>,
    units: Arc<Units>,
    intake: Intake,
    under_way: Box<[UnderWay]>,
    commands: usize,
    again: VecDeque<Again>,
    finished: VecDeque<RRef<Block>>,
    /// What it counted.
    pub counters: Counters,
    /// Failures to be logged, at most one since it was last asked; one that somebody was told of before one that is tried again.
    pub last_error: Option<Failure>,
}

/// A request that failed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it was.
    pub operation: Option<Operation>,
    /// Of which unit.
    pub unit: u16,
    /// Where.
    pub address: u64,
    /// The completion's status.
    pub status: u16,
    /// What it was told, or would have been.
    pub fault: Fault,
    /// It is tried again, and nobody was told.
    pub again: bool,
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            ring: None,
            units: Arc::default(),
            intake: Intake::Held,
            under_way: Box::default(),
            commands: 0,
            again: VecDeque::new(),
            finished: VecDeque::new(),
            counters: Counters::default(),
            last_error: None,
        }
    }
}

impl Requests {
    /// The queue with the controller, once there is one.
    pub fn ring(&mut self) -> Option<&mut IoQueue> {
        self.ring.as_mut()
    }

    /// Gives it its queue.
    pub fn set_ring(&mut self, ring: IoQueue) {
        self.under_way = core::iter::repeat_n(UnderWay::default(), ring.depth()).collect();
        self.ring = Some(ring);
    }

    /// The units changed.
    pub fn set_units(&mut self, units: Arc<Units>) {
        self.units = units;
    }

    /// Requests that fit besides those that it has.
    pub fn depth(&self) -> usize {
        self.under_way.len()
    }

    /// Forgets everything that it holds. What is under way is dropped when it is done: [`has_abandoned`](Self::has_abandoned) says when.
    pub fn abandon(&mut self) {
        self.finished.clear();
        self.again.clear();
        for command in &mut self.under_way {
            command.abandoned = command.since_ns != 0;
        }
    }

    /// Whether commands are under way still, after a look at what was answered.
    pub fn is_draining(&mut self, now: impl Fn() -> u64) -> bool {
        self.take_completions(None, &now);
        self.commands != 0
    }

    /// Whether something that was abandoned is under way still, after a look at what was answered.
    pub fn has_abandoned(&mut self, now: impl Fn() -> u64) -> bool {
        let abandoned = |command: &UnderWay| command.abandoned;
        if !self.under_way.iter().any(abandoned) {
            return false;
        }
        self.take_completions(None, &now);
        self.under_way.iter().any(abandoned)
    }

    /// Whether an exchange would give something back.
    #[inline(always)]
    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty() || self.ring.as_ref().is_some_and(IoQueue::has_completion)
    }

    /// What becomes of requests from now on. Those that wait are handed in, or fail, at once.
    pub fn set_intake(&mut self, intake: Intake, now_ns: u64) {
        self.intake = intake;
        match intake {
            Intake::Open => self.hand_in_again(now_ns),
            Intake::Held => {}
            Intake::Closed => {
                self.take_back(false);
                while let Some(again) = self.again.pop_front() {
                    self.fail(again.block, Fault::Gone, 0);
                }
            }
        }
    }

    /// After the controller was turned off: what was under way waits to be handed in once more. `blamed` when that counts as an attempt.
    pub fn take_back(&mut self, blamed: bool) {
        let Requests { ring, under_way, .. } = self;
        let Some(ring) = ring else { return };
        let mut failed = VecDeque::new();
        while let Some((slot, block)) = ring.take_back() {
            let command = under_way.get(usize::from(slot)).copied().unwrap_or_default();
            let attempts = command.attempts + u8::from(blamed);
            if command.abandoned {
                drop(block);
            } else if attempts >= ATTEMPT_LIMIT {
                failed.push_back(block);
            } else {
                self.again.push_back(Again {
                    block,
                    attempts,
                    progress: command.progress,
                });
            }
        }
        under_way.fill(UnderWay::default());
        self.commands = 0;
        for block in failed {
            self.fail(block, Fault::TimedOut, 0);
        }
    }

    /// Takes requests, and gives back finished ones and behind them those that there is no room for.
    #[inline]
    pub fn exchange(&mut self, mut batch: BlockBatch, now: impl Fn() -> u64) -> BlockBatch {
        if !self.again.is_empty() && self.intake == Intake::Open {
            self.hand_in_again(now());
        }
        if !batch.is_empty() {
            self.hand_in(&mut batch, &now);
        }
        let left = batch.len();
        self.harvest(&mut batch, &now);
        if left != 0 && batch.len() != left {
            // Finished ones to the front.
            for _ in 0..left {
                let Some(block) = batch.pop_front() else { break };
                // There is room: it was there before.
                drop(batch.push(block));
            }
        }
        batch
    }

    /// Fills an empty batch with finished requests.
    #[inline]
    pub fn fetch(&mut self, mut batch: BlockBatch, now: impl Fn() -> u64) -> BlockBatch {
        self.harvest(&mut batch, &now);
        batch
    }

    /// Makes commands of requests from the front of `batch`, as many as there is room for.
    #[inline]
    fn hand_in(&mut self, batch: &mut BlockBatch, now: &impl Fn() -> u64) {
        let Requests {
            ring: Some(ring),
            units,
            intake: Intake::Open,
            under_way,
            commands,
            again,
            counters,
            ..
        } = self
        else {
            return self.turn_away(batch);
        };
        let now_ns = now();
        let refused = loop {
            let Some(first) = batch.get(0) else { break None };
            let (number, force) = (first.unit, first.force_unit_access());
            let Some(unit) = units.get(number) else {
                break Some(Fault::Gone);
            };
            let Some(operation) = first.operation() else {
                break Some(Fault::Unsupported);
            };
            if let Some(fault) = unit.objection(operation, first) {
                break Some(fault);
            }
            if operation == Operation::Flush && !unit.volatile_cache {
                if let Some(mut block) = batch.pop_front() {
                    block.complete();
                    counters.done(operation, 0);
                    self.finished.push_back(block);
                }
                continue;
            }
            let count = first.count;
            let transfer = match operation {
                Operation::Read => Some(Transfer::Read),
                Operation::Write if force => Some(Transfer::WriteThrough),
                Operation::Write => Some(Transfer::Write),
                _ => None,
            };
            if let Some(transfer) = transfer
                && batch
                    .get(1)
                    .is_none_or(|next| next.address != first.address.wrapping_add(u64::from(count)))
            {
                // Alone in its command, as most are: the short way.
                if ring.room() == 0 {
                    break None;
                }
                let Some(block) = batch.pop_front() else {
                    break None;
                };
                match ring.submit_one(&unit.namespace, transfer, block) {
                    Ok(slot) => {
                        note(under_way, slot, now_ns, 0, 0, 0);
                        *commands += 1;
                        counters.totals.commands += 1;
                    }
                    Err(block) => {
                        again.push_back(Again {
                            block,
                            attempts: 0,
                            progress: 0,
                        });
                        break None;
                    }
                }
                continue;
            }
            let (kind, covers) = command_kind(unit, operation, first.address, count, force, 0);
            let Some(mut command) = ring.command(&unit.namespace, kind) else {
                break None;
            };
            let slot = command.slot();
            // Whole ranges may share a deallocation; one that needs several commands, and a write of zeroes, is alone.
            let limit = match operation {
                Operation::Read | Operation::Write => unit.transfer_pages,
                Operation::Flush => u32::MAX,
                Operation::Deallocate if covers == count => unit.ranges,
                Operation::Deallocate | Operation::WriteZeroes => 1,
            };
            let mut blocks = 0;
            let mut front = batch.front();
            while blocks < limit {
                let taken = front.take_if(|block| {
                    let same = blocks == 0
                        || block.unit == number
                            && block.operation() == Some(operation)
                            && block.force_unit_access() == force
                            && (operation != Operation::Deallocate
                                || unit.objection(operation, block).is_none()
                                    && block.count <= unit.range_blocks);
                    if same { command.accept(block) } else { None }
                });
                let Some((block, _)) = taken else { break };
                if operation == Operation::Deallocate {
                    // There is room: the unit's ranges are what a command holds at most.
                    let range = if blocks == 0 { covers } else { block.count };
                    command.add_range(block.address, range);
                }
                if let Err(block) = command.push(block) {
                    again.push_back(Again {
                        block,
                        attempts: 0,
                        progress: 0,
                    });
                    break;
                }
                blocks += 1;
            }
            if command.submit() {
                let part = if covers == count { 0 } else { covers };
                note(under_way, slot, now_ns, 0, 0, part);
                *commands += 1;
                counters.totals.commands += 1;
            }
        };
        ring.publish();
        if let Some(fault) = refused {
            self.refuse(batch, fault, now);
        }
    }

    /// Fails the first of a batch before it became a command, and goes on with the others.
    #[cold]
    fn refuse(&mut self, batch: &mut BlockBatch, fault: Fault, now: &impl Fn() -> u64) {
        if let Some(block) = batch.pop_front() {
            self.fail(block, fault, 0);
        }
        if !batch.is_empty() {
            self.hand_in(batch, now);
        }
    }

    /// What becomes of requests while none become commands.
    #[cold]
    fn turn_away(&mut self, batch: &mut BlockBatch) {
        if self.intake == Intake::Closed {
            while let Some(block) = batch.pop_front() {
                self.fail(block, Fault::Gone, 0);
            }
        }
    }

    #[cold]
    fn fail(&mut self, block: RRef<Block>, fault: Fault, status: u16) {
        self.finished.push_back(failed(
            &mut self.counters,
            &mut self.last_error,
            block,
            fault,
            status,
        ));
    }

    /// Hands requests in once more, each in a command of its own.
    #[cold]
    fn hand_in_again(&mut self, now_ns: u64) {
        while let Some(next) = self.again.front() {
            let block = &next.block;
            let unit = self.units.get(block.unit).copied();
            let (Some(unit), Some(operation)) = (unit, block.operation()) else {
                if let Some(again) = self.again.pop_front() {
                    self.fail(again.block, Fault::Gone, 0);
                }
                continue;
            };
            if let Some(fault) = unit.objection(operation, block) {
                // The namespace may be another than when it was first handed in.
                if let Some(again) = self.again.pop_front() {
                    self.fail(again.block, fault, 0);
                }
                continue;
            }
            let (attempts, progress) = (next.attempts, next.progress.min(block.count.saturating_sub(1)));
            let (address, count) = (block.address, block.count);
            let force = block.force_unit_access();
            let (kind, covers) = command_kind(&unit, operation, address, count, force, progress);
            let Some(ring) = self.ring.as_mut() else { break };
            let Some(mut command) = ring.command(&unit.namespace, kind) else {
                break;
            };
            let slot = command.slot();
            if operation == Operation::Deallocate {
                command.add_range(address.saturating_add(u64::from(progress)), covers);
            }
            let Some(again) = self.again.pop_front() else {
                break;
            };
            match command.push(again.block) {
                Ok(()) => {
                    if command.submit() {
                        let part = if progress + covers >= count { 0 } else { covers };
                        note(&mut self.under_way, slot, now_ns, attempts, progress, part);
                        self.commands += 1;
                        self.counters.totals.commands += 1;
                    }
                }
                Err(block) => {
                    drop(command);
                    self.fail(block, Fault::Internal, 0);
                }
            }
        }
        if let Some(ring) = &mut self.ring {
            ring.publish();
        }
    }
}

/// What command a request becomes from its `progress`-th logical block on, and how many of a range that covers; 0 where blocks are moved.
#[inline(always)]
fn command_kind(
    unit: &Unit,
    operation: Operation,
    address: u64,
    count: u32,
    force_unit_access: bool,
    progress: u32,
) -> (CommandKind, u32) {
    match operation {
        Operation::Read => (CommandKind::Read, 0),
        Operation::Write => (CommandKind::Write { force_unit_access }, 0),
        Operation::Flush => (CommandKind::Flush, 0),
        Operation::WriteZeroes => {
            let covers = (count - progress).min(unit.write_zeroes_blocks);
            let kind = CommandKind::WriteZeroes {
                address: address.saturating_add(u64::from(progress)),
                count: covers,
            };
            (kind, covers)
        }
        Operation::Deallocate => (CommandKind::Deallocate, (count - progress).min(unit.range_blocks)),
    }
}

/// Notes a command that was handed in.
#[inline(always)]
fn note(under_way: &mut [UnderWay], slot: u8, since_ns: u64, attempts: u8, progress: u32, covers: u32) {
    if let Some(place) = under_way.get_mut(usize::from(slot)) {
        *place = UnderWay {
            since_ns,
            aborted_ns: 0,
            attempts,
            progress,
            covers,
            abandoned: false,
        };
    }
}
