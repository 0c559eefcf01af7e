//! One queue: what waits to be handed to a driver, what waits to be given back, and whose requests are whose.
//!
//! Each request carries a stamp: its queue, its number there, and the queue's *term*, which ends when everything under way is given up. The driver gives
//! back, or leaves, what it has; a request of a term that has ended is dropped, whoever brings it, and whenever.

use crate::counters::Tally;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId};
use interface::block::BlockDevice;
use rref::block::{Fault, Operation, Progress};
use rref::{BATCH_CAPACITY, Block, BlockBatch, RRef};

/// Bits of a stamp's first word that name the queue.
const QUEUE_BITS: u32 = 16;
/// Requests that wait here at most; more are given back as having no room.
const WAITING_LIMIT: usize = 1024;

/// One queue, on cache lines of its own.
#[repr(align(64))]
pub struct Queue {
    pub state: Mutex<State>,
    /// Number of the term; unique since the machine started.
    term: AtomicU64,
    /// What dead drivers had, to be handed over again.
    inherited: Mutex<Vec<RRef<Block>>>,
    has_inherited: AtomicBool,
}

/// What belongs to whoever makes a call for the queue.
pub struct State {
    /// The driver, if one is known to live.
    pub driver: Option<Handle<dyn BlockDevice>>,
    /// The last incarnation that is known to be dead.
    pub dead: OwnerId,
    /// Since when there is none, nanoseconds; 0 while there is one.
    pub down_since_ns: u64,
    /// Requests to be handed over before any other, in their order.
    waiting: VecDeque<RRef<Block>>,
    /// Answers that had no room in a batch.
    finished: VecDeque<RRef<Block>>,
    /// Requests that the driver has.
    under_way: usize,
    /// Number of the newest request.
    newest: u64,
    /// What was given back, in numbers.
    pub tally: Tally,
    /// The driver had no room for what waits.
    is_full: bool,
    /// What ends an outage may happen here.
    pub watch: bool,
}

/// The queue that a stamp names.
pub fn queue_of(block: &Block) -> u16 {
    block.shadow[0] as u16
}

impl Queue {
    /// Queue of a first term.
    pub fn new(term: u64) -> Queue {
        Queue {
            state: Mutex::new(State {
                driver: None,
                dead: OwnerId::NONE,
                down_since_ns: 0,
                waiting: VecDeque::new(),
                finished: VecDeque::new(),
                under_way: 0,
                newest: 0,
                tally: Tally::default(),
                is_full: false,
                watch: false,
            }),
            term: AtomicU64::new(term),
            inherited: Mutex::new(Vec::new()),
            has_inherited: AtomicBool::new(false),
        }
    }

    /// Whether a request is this queue's and of its term.
    pub fn is_current(&self, block: &Block) -> bool {
        block.shadow[1] == self.term.load(Ordering::Relaxed)
    }

    /// Takes a request that a dead driver had; drops it if it is of an earlier term. Whether it will be handed over again.
    pub fn inherit(&self, mut block: RRef<Block>) -> bool {
        if !self.is_current(&block) {
            return false;
        }
        // Whatever the dead driver thought of it: nobody has heard.
        block.submit();
        self.inherited.lock().push(block);
        self.has_inherited.store(true, Ordering::Release);
        true
    }

    /// Whether a dead driver had requests of this queue's that nobody has looked at yet.
    pub fn has_inherited(&self) -> bool {
        self.has_inherited.load(Ordering::Acquire)
    }

    /// Puts what dead drivers had where it belongs in the order.
    pub fn take_inherited(&self, state: &mut State) {
        if !self.has_inherited() {
            return;
        }
        let mut inherited = self.inherited.lock();
        self.has_inherited.store(false, Ordering::Relaxed);
        state
            .waiting
            .extend(inherited.drain(..).filter(|block| self.is_current(block)));
        drop(inherited);
        state
            .waiting
            .make_contiguous()
            .sort_unstable_by_key(|block| block.shadow[0]);
        state.watch = true;
    }

    /// Stamps the requests of a batch.
    #[inline]
    pub fn stamp(&self, state: &mut State, queue: u16, requests: &mut BlockBatch) {
        let term = self.term.load(Ordering::Relaxed);
        for request in requests.iter_mut() {
            state.newest += 1;
            request.shadow[0] = state.newest << QUEUE_BITS | u64::from(queue);
            request.shadow[1] = term;
        }
    }

    /// Gives up everything under way: it is not given back, and if a driver leaves it, it is not handed over again.
    pub fn forget(&self, state: &mut State, term: u64) {
        self.term.store(term, Ordering::Relaxed);
        state.waiting.clear();
        state.finished.clear();
        state.under_way = 0;
        self.inherited.lock().clear();
    }

    /// Lets all that waits fail, and gives up what a driver may still leave.
    pub fn fail_waiting(&self, state: &mut State, term: u64) {
        self.take_inherited(state);
        let waiting = core::mem::take(&mut state.waiting);
        let mut finished = core::mem::take(&mut state.finished);
        self.forget(state, term);
        for mut request in waiting {
            request.fail(Fault::Gone, 0);
            finished.push_back(request);
        }
        state.finished = finished;
    }

    /// Counts an answer of a driver that got `offered` requests. Gives it back unless something in it must be looked at one by one.
    #[inline]
    pub fn account(
        &self,
        state: &mut State,
        offered: usize,
        answers: BlockBatch,
    ) -> Result<BlockBatch, BlockBatch> {
        if answers.iter().all(|block| self.is_current(block)) {
            state.under_way = (state.under_way + offered).saturating_sub(answers.len());
            answers.iter().for_each(|answer| state.tally.add(answer));
            Ok(answers)
        } else {
            state.under_way += offered;
            Err(answers)
        }
    }

    /// Takes an answer apart: what is done is to be given back, what had no room is to be handed over next, what is nobody's is dropped. Gives
    /// the empty batch, and whether everything had room.
    pub fn sort(&self, state: &mut State, mut answers: BlockBatch) -> (BlockBatch, bool) {
        state.is_full = false;
        while let Some(block) = answers.pop() {
            if !self.is_current(&block) {
                continue;
            }
            state.under_way = state.under_way.saturating_sub(1);
            if block.progress() == Progress::Submitted {
                state.is_full = true;
                state.waiting.push_front(block);
            } else {
                state.tally.add(&block);
                state.finished.push_back(block);
            }
        }
        (answers, !state.is_full)
    }
}

impl State {
    /// Whether requests can go straight through.
    #[inline]
    pub fn is_clear(&self) -> bool {
        self.waiting.is_empty() && self.finished.is_empty() && !self.watch
    }

    /// Whether somebody waits for something.
    pub fn is_used(&self) -> bool {
        self.under_way != 0 || !self.waiting.is_empty()
    }

    /// Whether there is something to give back.
    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Whether nothing can happen until somebody hands over what waits.
    pub fn is_stuck(&self) -> bool {
        self.under_way == 0 && !self.waiting.is_empty() && !self.is_full
    }

    /// The driver is gone, with all that it had.
    pub fn lost_driver(&mut self, dead: OwnerId, now_ns: u64) {
        self.driver = None;
        self.dead = dead;
        self.under_way = 0;
        if self.down_since_ns == 0 {
            self.down_since_ns = now_ns.max(1);
        }
    }

    /// There is a driver.
    pub fn found_driver(&mut self, driver: Handle<dyn BlockDevice>) {
        self.driver = Some(driver);
        self.down_since_ns = 0;
    }

    /// Takes requests in, behind those that wait, as many as there is room for.
    pub fn accept(&mut self, requests: &mut BlockBatch) {
        while self.waiting.len() < WAITING_LIMIT
            && let Some(request) = requests.pop_front()
        {
            self.waiting.push_back(request);
        }
    }

    /// Moves what is to be handed over next to `batch`, which is empty: a flush only when everything before it has been answered. How many.
    pub fn fill(&mut self, batch: &mut BlockBatch) -> usize {
        // Room for an answer is left in any case: a device that is full gives none back in a full batch.
        while batch.room() > 1
            && let Some(request) = self.waiting.pop_front()
        {
            let is_flush = request.operation() == Some(Operation::Flush);
            if is_flush && self.under_way + batch.len() != 0 {
                self.waiting.push_front(request);
                break;
            }
            // There is room by the loop's condition.
            drop(batch.push(request));
        }
        batch.len()
    }

    /// The driver has `count` more requests.
    pub fn handed_over(&mut self, count: usize) {
        self.under_way += count;
    }

    /// The answer to a call whose requests in `rest` had no room: what is finished, as much as fits, before them.
    pub fn answer(&mut self, rest: Option<BlockBatch>, mut empty: BlockBatch) -> BlockBatch {
        let room = BATCH_CAPACITY - rest.as_ref().map_or(0, BlockBatch::len);
        for block in self.finished.drain(..self.finished.len().min(room)) {
            drop(empty.push(block));
        }
        if let Some(mut rest) = rest {
            empty.append(&mut rest);
        }
        empty
    }
}
