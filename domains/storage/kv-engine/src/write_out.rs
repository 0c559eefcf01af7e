//! Writing out: how what is in memory comes to the disk, step by step, one thread at a time.
//!
//! The segment that is being sealed goes before the one that is open: its records are written, then flushed, and only then is its footer written and
//! the next segment begun on the disk. So a segment's footer, and the header of the next, say that all before them is durable.

use crate::disk::{Attempts, Disk, DiskError};
use crate::engine::{Engine, store_error};
use crate::layout::Header;
use crate::state::{State, Use};
use alloc::vec::Vec;
use domain_rt::sync::MutexGuard;
use domain_rt::thread::{self, ThreadId};
use interface::key_value::StoreError;
use log::warn;
use rref::block::{BLOCK_BYTES, Block, Fault};
use rref::{BATCH_CAPACITY, RRef};

/// Bytes that one forced command is to write at most; more is written and then flushed.
const FORCED_LIMIT_BYTES: usize = BATCH_CAPACITY * BLOCK_BYTES;

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// No segment is being sealed.
    Sealed,
    /// Less than this many bytes are in memory only.
    Written(usize),
    /// Every group up to this is durable.
    Durable(u64),
    /// All that is in memory is durable, records of no group included.
    AllDurable,
}

/// A thread that waits for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The thread.
    pub(crate) thread: ThreadId,
    /// What it waits to be reached by the one that writes out; it waits for cleaning if there is nothing.
    pub(crate) goal: Option<Goal>,
}

/// Wakes all that wait.
pub(crate) fn wake_all(mut state: MutexGuard<'_, State>) {
    let waiters = core::mem::take(&mut state.waiters);
    drop(state);
    for waiter in waiters {
        thread::unpark(waiter.thread);
    }
}

/// One step on the way.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Records of the segment of this serial number, up to an end, with which so much of the groups is written.
    Write {
        serial: u64,
        end: usize,
        sequence: u64,
        durable: bool,
    },
    /// A flush.
    Flush,
    /// Summary and footer of the segment that is being sealed.
    Ending,
    /// The header of a segment that didn't take an image of this serial number, which is elsewhere now.
    Vacate {
        segment: u32,
        serial: u64,
        durable: bool,
    },
}

impl State {
    fn reached(&self, goal: Goal) -> bool {
        match goal {
            Goal::Sealed => self.sealing.is_none(),
            Goal::Written(limit) => self
                .open
                .as_ref()
                .is_none_or(|image| image.tail - image.written.min(image.tail) < limit),
            Goal::Durable(sequence) => self.durable >= sequence,
            Goal::AllDurable => {
                self.sealing.is_none()
                    && self.vacated.is_empty()
                    && self
                        .open
                        .as_ref()
                        .is_none_or(|image| image.is_durable(&self.layout) || image.is_empty())
            }
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Reaches a goal, by writing out or by waiting for the thread that does; the last group that is durable then.
    pub(crate) fn write_out(&self, goal: Goal) -> Result<u64, StoreError> {
        let mut attempts = Attempts::default();
        let mut state = self.state.lock();
        loop {
            if state.reached(goal) {
                return Ok(state.durable);
            }
            if state.writing {
                let failures = state.failures;
                state.waiters.push(Waiter {
                    thread: thread::id(),
                    goal: Some(goal),
                });
                drop(state);
                self.wait()?;
                state = self.state.lock();
                if state.failures != failures {
                    return Err(StoreError::Device);
                }
                continue;
            }
            let mut requests = core::mem::take(&mut state.requests);
            let step = match self.plan(&mut state, goal, &mut requests) {
                Ok(Some(step)) => step,
                Ok(None) => {
                    let durable = state.durable;
                    wake_all(state);
                    return Ok(durable);
                }
                Err(error) => {
                    wake_all(state);
                    return Err(store_error(error));
                }
            };
            state.writing = true;
            drop(state);
            let result = self.runs.run(&mut requests);
            state = self.state.lock();
            state.writing = false;
            state.requests = requests;
            let mut failed = None;
            match result {
                Ok(()) => self.advance(&mut state, step),
                Err(error) => {
                    Self::retreat(&mut state, step, error);
                    if !attempts.failed(error) {
                        if Self::step_aside(&mut state, step, error) {
                            attempts = Attempts::default();
                        } else {
                            state.failures += 1;
                            failed = Some(error);
                        }
                    }
                }
            }
            if let Some(error) = failed {
                wake_all(state);
                return Err(store_error(error));
            }
            if state.reached(goal) {
                // One of those for whom it isn't enough goes on.
                let durable = state.durable;
                wake_all(state);
                return Ok(durable);
            }
            if !state.waiters.is_empty() {
                // Whoever needs more than was reached by this step would only wait again.
                let waiters = core::mem::take(&mut state.waiters);
                let is_due = |waiter: &Waiter| waiter.goal.is_none_or(|goal| state.reached(goal));
                let (due, rest): (Vec<_>, Vec<_>) = waiters.into_iter().partition(is_due);
                state.waiters = rest;
                drop(state);
                for waiter in due {
                    thread::unpark(waiter.thread);
                }
                state = self.state.lock();
            }
        }
    }

    /// The next step, and the requests that it takes.
    fn plan(
        &self,
        state: &mut State,
        goal: Goal,
        requests: &mut Vec<RRef<Block>>,
    ) -> Result<Option<Step>, DiskError> {
        requests.clear();
        let cached = self.runs.shape().volatile_cache;
        let layout = state.layout;
        let forces = cached && self.runs.shape().forced_writes;
        if let Some(vacated) = state.next_vacant() {
            if vacated.is_written {
                self.runs.flush_request(requests)?;
                return Ok(Some(Step::Flush));
            }
            let (segment, serial) = (vacated.segment, vacated.serial);
            let mut header = alloc::vec![0; layout.block_bytes as usize];
            Header::encode_free(layout.store, serial).write_to(&mut header);
            self.runs
                .write_requests(layout.segment_start(segment), &header, forces, requests)?;
            state.counters.written_bytes += header.len() as u64;
            return Ok(Some(Step::Vacate {
                segment,
                serial,
                durable: forces || !cached,
            }));
        }
        let sequence = state.appended;
        if let Some(image) = &mut state.sealing {
            if !image.is_written(&layout) {
                let (serial, sequence) = (image.serial, image.sequence);
                let (offset, bytes) = image.unwritten(&layout);
                self.runs.write_requests(offset, bytes, false, requests)?;
                state.counters.written_bytes += bytes.len() as u64;
                return Ok(Some(Step::Write {
                    serial,
                    end: layout.round_up(image.tail),
                    sequence,
                    durable: !cached,
                }));
            }
            if !image.is_durable(&layout) {
                self.runs.flush_request(requests)?;
                return Ok(Some(Step::Flush));
            }
            let (offset, bytes) = image.ending(&layout);
            self.runs.write_requests(offset, &bytes, false, requests)?;
            state.counters.written_bytes += bytes.len() as u64;
            return Ok(Some(Step::Ending));
        }
        let Some(image) = &mut state.open else {
            return Ok(None);
        };
        let is_durable = matches!(goal, Goal::Durable(_) | Goal::AllDurable);
        if image.is_written(&layout) {
            if !is_durable || image.is_durable(&layout) {
                return Ok(None);
            }
            self.runs.flush_request(requests)?;
            return Ok(Some(Step::Flush));
        }
        let serial = image.serial;
        let (offset, bytes) = image.unwritten(&layout);
        let force = forces && is_durable && !state.unflushed && bytes.len() <= FORCED_LIMIT_BYTES;
        self.runs.write_requests(offset, bytes, force, requests)?;
        state.counters.written_bytes += bytes.len() as u64;
        Ok(Some(Step::Write {
            serial,
            end: image.tail,
            sequence,
            durable: force || !cached,
        }))
    }

    /// A step was carried out.
    fn advance(&self, state: &mut State, step: Step) {
        match step {
            Step::Write {
                serial,
                end,
                sequence,
                durable,
            } => {
                state.unflushed |= !durable;
                let images = [&mut state.open, &mut state.sealing];
                if let Some(image) = images.into_iter().flatten().find(|image| image.serial == serial) {
                    image.written = end;
                    image.written_sequence = sequence;
                    if durable {
                        image.durable = end;
                        state.durable = state.durable.max(sequence);
                        state.counters.flushes += u64::from(self.runs.shape().volatile_cache);
                    }
                }
            }
            Step::Flush => {
                state.unflushed = false;
                state.counters.flushes += 1;
                let written = state.vacated.iter().filter(|vacated| vacated.is_written);
                for segment in written.map(|vacated| vacated.segment).collect::<Vec<_>>() {
                    state.vacate(segment);
                }
                for image in [&mut state.open, &mut state.sealing].into_iter().flatten() {
                    image.durable = image.written;
                    if image.written > 0 {
                        state.durable = state.durable.max(image.written_sequence);
                    }
                }
            }
            Step::Vacate { segment, durable, .. } => {
                state.unflushed |= !durable;
                if durable {
                    state.vacate(segment);
                } else if let Some(vacated) = state.vacated.iter_mut().find(|other| other.segment == segment)
                {
                    vacated.is_written = true;
                }
            }
            Step::Ending => {
                state.unflushed |= self.runs.shape().volatile_cache;
                if let Some(image) = state.sealing.take() {
                    if let Some(segment) = state.segments.get_mut(image.segment as usize) {
                        segment.usage = Use::Sealed;
                    }
                    state.spare.push(image.into_bytes());
                    state.spare.truncate(2);
                }
            }
        }
    }

    /// What a place of the disk doesn't take goes elsewhere, if there is a place; whether to go on.
    fn step_aside(state: &mut State, step: Step, error: DiskError) -> bool {
        if error != DiskError::Fault(Fault::WriteFault) {
            return false;
        }
        let serial = match step {
            Step::Write { serial, .. } => Some(serial),
            Step::Ending => state.sealing.as_ref().map(|image| image.serial),
            Step::Vacate { segment, serial, .. } => {
                // It keeps a header that a start may find: its successor must stay, so that there is always one that has more.
                state.vacated.retain(|other| other.segment != segment);
                if let Some(&number) = state.log.get(&serial)
                    && let Some(segment) = state.segments.get_mut(number as usize)
                {
                    segment.is_stuck = true;
                }
                return true;
            }
            Step::Flush => None,
        };
        let has_moved = serial.is_some_and(|serial| state.move_image(serial));
        if has_moved {
            warn!("a segment can't be written: what belongs there goes to another one");
        }
        has_moved
    }

    /// A step failed. After a flush that failed nobody knows what the disk still has of what was written before: it is written again.
    fn retreat(state: &mut State, step: Step, error: DiskError) {
        state.last_error = Some(error);
        state.counters.disk_errors += 1;
        // A forced or plain write that failed may be there or not, whole or in part: it can be lost again, too.
        state.unflushed = true;
        if matches!(step, Step::Flush) {
            let durable = state.durable;
            for image in [&mut state.open, &mut state.sealing].into_iter().flatten() {
                image.written = image.durable;
                image.written_sequence = durable;
            }
            for vacated in &mut state.vacated {
                vacated.is_written = false;
            }
        }
    }
}
