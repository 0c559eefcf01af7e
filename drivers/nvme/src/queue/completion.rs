//! What becomes of commands: answers, and the lack of them.

use super::{ATTEMPT_LIMIT, Again, Failure, Intake, Late, Requests, UnderWay};
use crate::statistics::{Counters, moved_bytes};
use crate::status::Status;
use crate::units::Units;
use alloc::collections::VecDeque;
use rref::block::{Block, Fault};
use rref::{BlockBatch, RRef};

impl Requests {
    /// Fills a batch with finished requests.
    #[inline]
    pub(super) fn harvest(&mut self, batch: &mut BlockBatch, now: &impl Fn() -> u64) {
        if !self.has_finished() {
            return;
        }
        loop {
            while !self.finished.is_empty() && !batch.is_full() {
                if let Some(block) = self.finished.pop_front() {
                    // There is room.
                    drop(batch.push(block));
                }
            }
            if batch.is_full() || !self.take_completions(Some(batch), now) || self.finished.is_empty() {
                return;
            }
        }
    }

    /// Takes what the controller has answered: to `batch` as far as there is room, which ends it, and otherwise to those that wait to be
    /// fetched. Says whether there was anything.
    #[inline]
    pub(super) fn take_completions(
        &mut self,
        mut batch: Option<&mut BlockBatch>,
        now: &impl Fn() -> u64,
    ) -> bool {
        let Requests {
            ring: Some(ring),
            units,
            under_way,
            commands,
            again,
            finished,
            counters,
            last_error,
            ..
        } = self
        else {
            return false;
        };
        if !ring.has_completion() {
            return false;
        }
        let now_ns = now();
        while batch.as_ref().is_none_or(|batch| !batch.is_full()) {
            // Most are of one block, and succeed.
            if let Some((slot, block)) = ring.finished_one() {
                let command = under_way
                    .get_mut(usize::from(slot))
                    .map_or(UnderWay::default(), core::mem::take);
                *commands = commands.saturating_sub(1);
                counters.answered(now_ns.saturating_sub(command.since_ns));
                if !command.abandoned
                    && let Some(block) = succeed(block, &command, units, counters, again)
                {
                    match batch.as_mut() {
                        // There is room, by the loop's condition.
                        Some(batch) => drop(batch.push(block)),
                        None => finished.push_back(block),
                    }
                }
                if ring.has_completion() {
                    continue;
                }
                break;
            }
            let Some(mut done) = ring.finished() else { break };
            let command = under_way
                .get_mut(usize::from(done.slot()))
                .map_or(UnderWay::default(), core::mem::take);
            *commands = commands.saturating_sub(1);
            counters.answered(now_ns.saturating_sub(command.since_ns));
            let status = Status(done.status());
            if command.abandoned {
                continue;
            }
            let mut give = |block: RRef<Block>| {
                let rest = match batch.as_mut() {
                    Some(batch) => batch.push(block).err(),
                    None => Some(block),
                };
                if let Some(block) = rest {
                    finished.push_back(block);
                }
            };
            if !status.is_success() {
                let alone = done.len() <= 1;
                let retry = status.is_transient() && command.attempts + 1 < ATTEMPT_LIMIT;
                while let Some(block) = done.take() {
                    if !alone || retry {
                        last_error.get_or_insert(Failure::of(&block, status.fault(), status.0, true));
                        // One of several may be the cause; each is tried alone.
                        again.push_back(Again {
                            block,
                            attempts: command.attempts + u8::from(alone),
                            progress: command.progress,
                        });
                    } else {
                        give(failed(counters, last_error, block, status.fault(), status.0));
                    }
                }
                continue;
            }
            while let Some(block) = done.take() {
                if let Some(block) = succeed(block, &command, units, counters, again) {
                    give(block);
                }
            }
        }
        ring.acknowledge();
        if !again.is_empty() && self.intake == Intake::Open {
            self.hand_in_again(now_ns);
        }
        true
    }

    /// Looks for commands that took longer than `limit_ns`, or longer than `grace_ns` after their abort was asked for; `each` is told of them.
    pub fn look_for_late(
        &mut self,
        now: impl Fn() -> u64,
        limit_ns: u64,
        grace_ns: u64,
        mut each: impl FnMut(Late),
    ) {
        let late = |command: &UnderWay, now_ns: u64| {
            command.since_ns != 0 && now_ns.saturating_sub(command.since_ns) > limit_ns
        };
        if self.commands == 0 || !self.under_way.iter().any(|command| late(command, now())) {
            return;
        }
        // It may have been answered long ago, and nobody came to fetch it.
        self.take_completions(None, &now);
        let now_ns = now();
        let Some(ring) = &mut self.ring else { return };
        for (slot, command) in (0u8..).zip(self.under_way.iter_mut()) {
            if !late(command, now_ns) {
                continue;
            }
            if command.aborted_ns == 0 {
                command.aborted_ns = now_ns;
                self.counters.totals.timeouts += 1;
                if let Some(identifier) = ring.identifier_for_abort(slot) {
                    self.counters.totals.aborts += 1;
                    each(Late::Abort(identifier));
                }
            } else if now_ns.saturating_sub(command.aborted_ns) > grace_ns {
                each(Late::Stuck);
            }
        }
    }
}

impl Failure {
    fn of(block: &Block, fault: Fault, status: u16, again: bool) -> Failure {
        Failure {
            operation: block.operation(),
            unit: block.unit,
            address: block.address,
            status,
            fault,
            again,
        }
    }
}

/// Marks a request whose command succeeded as done, unless that covered a part of its range only.
#[inline(always)]
fn succeed(
    mut block: RRef<Block>,
    command: &UnderWay,
    units: &Units,
    counters: &mut Counters,
    again: &mut VecDeque<Again>,
) -> Option<RRef<Block>> {
    if let Some(operation) = block.operation() {
        let covered = command.progress.saturating_add(command.covers);
        if command.covers != 0 && covered < block.count {
            again.push_back(Again {
                block,
                attempts: command.attempts,
                progress: covered,
            });
            return None;
        }
        let block_bytes = units
            .get(block.unit)
            .map_or(0, |unit| unit.namespace.block_bytes());
        counters.done(operation, moved_bytes(&block, block_bytes));
    }
    block.complete();
    Some(block)
}

/// Marks a request as failed, and notes that for the log.
#[cold]
pub(super) fn failed(
    counters: &mut Counters,
    last_error: &mut Option<Failure>,
    mut block: RRef<Block>,
    fault: Fault,
    status: u16,
) -> RRef<Block> {
    counters.totals.errors += 1;
    *last_error = Some(Failure::of(&block, fault, status, false));
    block.fail(fault, status);
    block
}
