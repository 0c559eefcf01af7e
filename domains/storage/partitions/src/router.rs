//! The way of requests: to the device below with the partition's place put in, and each answer back to the domain that asked.
//!
//! Several domains may use a queue, the store and a measurement, say. The device knows one user only, this domain, so a request carries a
//! stamp: who made it, and what it asked for in the words of its unit. An answer that comes while somebody else asks is kept for its owner.
//!
//! What a dead incarnation of a user left under way is waited for before the next one gets anything through ([`Router::admit`]): a late write of the
//! old one must not hit what the new one wrote.

use crate::units::{Extent, Units};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::DerefMut;
use domain_rt::sync::Mutex;
use domain_rt::thread::{self, ThreadId, Wake};
use domain_rt::{Handle, OwnerId, clock};
use interface::block::{BlockDevice, BlockError, WaitResult};
use log::{info, warn};
use rref::block::{Fault, Operation, Progress};
use rref::{BATCH_CAPACITY, Block, BlockBatch, OutOfMemory, RRef};

/// Queues at most: no more than one a CPU is used.
pub const QUEUE_LIMIT: usize = 64;
/// Bits of a stamp's second word that name the unit; above them is the partition's first block.
const UNIT_BITS: u32 = 16;
/// How long a call waits for the device below to be there, milliseconds.
const DEVICE_WAIT_MS: u64 = 5_000;
/// How long one look at what a dead user left lasts, milliseconds.
const DRAIN_STEP_MS: u64 = 5;

/// One queue, on cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    device: Option<Handle<dyn BlockDevice>>,
    users: Vec<User>,
    /// Somebody waits in the device for this queue.
    has_waiter: bool,
    /// Others that wait for it: they look again when they are woken.
    sleepers: Vec<ThreadId>,
}

/// Who makes a call, and where among the queue's users it was found: others may be forgotten while the lock isn't held.
#[derive(Clone, Copy)]
struct Caller {
    id: OwnerId,
    place: usize,
}

/// What one incarnation of a domain has in one queue.
struct User {
    id: OwnerId,
    /// Requests that the device has.
    under_way: usize,
    /// Answers that came while somebody else asked, or had no room.
    finished: VecDeque<RRef<Block>>,
    /// All that was under way is gone.
    failed: Option<BlockError>,
}

impl User {
    /// Whether there is something to fetch.
    fn has_news(&self) -> bool {
        !self.finished.is_empty() || self.failed.is_some()
    }
}

/// The queues.
pub struct Router {
    import: &'static str,
    queues: Box<[Queue]>,
    /// The device below, as far as it is known to live.
    device: Mutex<Option<Handle<dyn BlockDevice>>>,
    /// One at a time waits for what the dead left.
    admission: Mutex<()>,
}

impl Router {
    /// Queues of the device behind `import`.
    pub fn new(import: &'static str) -> Router {
        Router {
            import,
            queues: (0..QUEUE_LIMIT).map(|_| Queue::default()).collect(),
            device: Mutex::new(None),
            admission: Mutex::new(()),
        }
    }

    fn queue(&self, queue: u16) -> Result<&Mutex<State>, BlockError> {
        let found = self.queues.get(usize::from(queue));
        found.map(|queue| &queue.0).ok_or(BlockError::NoQueue {
            queue,
            queues: QUEUE_LIMIT as u16,
        })
    }

    /// The device below. Nothing that an earlier incarnation of this domain handed to it is under way any more.
    pub fn device(&self) -> Result<Handle<dyn BlockDevice>, BlockError> {
        let mut known = self.device.lock();
        let mut not = OwnerId::NONE;
        if let Some(device) = known.as_ref() {
            if domain_rt::is_live(device.target()) {
                return Ok(device.clone());
            }
            not = device.target();
        }
        let device: Handle<dyn BlockDevice> =
            domain_rt::reconnect(self.import, not, DEVICE_WAIT_MS).map_err(|_| BlockError::NoDevice)?;
        device.abandon()?;
        Ok(known.insert(device).clone())
    }

    /// Hands requests of `user` over and gives back what is finished of its. `extent_of` says where a unit lies.
    pub fn exchange(
        &self,
        number: u16,
        user: OwnerId,
        requests: BlockBatch,
        extent_of: impl Fn(u16) -> Option<Extent>,
    ) -> Result<BlockBatch, BlockError> {
        let queue = self.queue(number)?;
        let (mut state, user) = self.enter(queue, user)?;
        let state = &mut *state;
        let (device, requests) = self.prepare(state, user, requests, &extent_of)?;
        let offered = requests.len();
        let answers = device.exchange(number, requests);
        settle(state, number, user, offered, &device, answers)
    }

    /// The same, and waits until there is something if that would give nothing back, until `deadline_ns` at most.
    pub fn exchange_until(
        &self,
        number: u16,
        user: OwnerId,
        requests: BlockBatch,
        extent_of: impl Fn(u16) -> Option<Extent>,
        deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let queue = self.queue(number)?;
        let (mut state, user) = self.enter(queue, user)?;
        if state.has_waiter || state.user(user).is_some_and(|own| own.has_news()) {
            drop(state);
            let batch = self.exchange(number, user.id, requests, extent_of)?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            self.wait(number, user.id, deadline_ns)?;
            return self.exchange(number, user.id, batch, |_| None);
        }
        let (device, requests) = self.prepare(&mut state, user, requests, &extent_of)?;
        // Others may use the queue meanwhile. They find what is under way counted already, and leave answers with their owner.
        let offered = requests.len();
        if let Some(own) = state.user(user) {
            own.under_way += offered;
        }
        state.has_waiter = true;
        drop(state);
        let answers = device.exchange_until(number, requests, deadline_ns);
        let mut state = queue.lock();
        state.has_waiter = false;
        // Whoever is woken may take the place.
        wake(&mut state.sleepers);
        settle(&mut state, number, user, 0, &device, answers)
    }

    // The three parts of both calls are put together in each: a request passes here, and a call would cost as much as the part.
    /// Locks a queue for `user`, which is known there then.
    #[inline(always)]
    fn enter<'a>(
        &self,
        queue: &'a Mutex<State>,
        user: OwnerId,
    ) -> Result<(impl DerefMut<Target = State> + use<'a>, Caller), BlockError> {
        let mut state = queue.lock();
        if let Some(place) = state.users.iter().position(|known| known.id == user) {
            return Ok((state, Caller { id: user, place }));
        }
        drop(state);
        self.admit(user)?;
        state = queue.lock();
        // Another thread of the same user may have come first: a user is known once, or what one place counts as under way would be answered at the other.
        let known = state.users.iter().position(|known| known.id == user);
        let place = known.unwrap_or(state.users.len());
        if known.is_none() {
            state.users.push(User {
                id: user,
                under_way: 0,
                finished: VecDeque::new(),
                failed: None,
            });
        }
        Ok((state, Caller { id: user, place }))
    }

    /// Puts stamps on requests; gives those that are to be handed over, and the device.
    #[inline(always)]
    fn prepare(
        &self,
        state: &mut State,
        user: Caller,
        mut requests: BlockBatch,
        extent_of: &impl Fn(u16) -> Option<Extent>,
    ) -> Result<(Handle<dyn BlockDevice>, BlockBatch), BlockError> {
        let own = state.user(user).ok_or(BlockError::OutOfMemory)?;
        if let Some(error) = own.failed.take() {
            return Err(error);
        }
        let mut refused = 0;
        for request in requests.iter_mut() {
            refused += usize::from(!stamp(request, user.id, extent_of));
        }
        if refused != 0 {
            requests = take_refused(requests, own)?;
        }
        // Nothing is lost to a device that died while nothing was under way, if that is found out before it gets anything.
        let is_idle = state.users.iter().all(|known| known.under_way == 0);
        let known = state.device.as_ref();
        let device = match known.filter(|device| !is_idle || domain_rt::is_live(device.target())) {
            Some(device) => device.clone(),
            None => {
                let device = self.device()?;
                state.device.insert(device).clone()
            }
        };
        Ok((device, requests))
    }

    /// Blocks until `user` has something to fetch, or until `deadline_ns`.
    pub fn wait(&self, number: u16, user: OwnerId, deadline_ns: u64) -> Result<WaitResult, BlockError> {
        let queue = self.queue(number)?;
        loop {
            let mut state = queue.lock();
            if state.has_news(user) {
                return Ok(WaitResult::Ready);
            }
            if let Some(device) = state.device.clone()
                && !state.has_waiter
            {
                state.has_waiter = true;
                drop(state);
                let result = device.wait(number, deadline_ns);
                let mut state = queue.lock();
                state.has_waiter = false;
                // Whoever is woken may take the place.
                wake(&mut state.sleepers);
                return match result {
                    // The exchange that follows says so, or finds the next one.
                    Err(BlockError::Dead(_)) => Ok(WaitResult::Ready),
                    result => result,
                };
            }
            if state.device.is_none() {
                return Ok(WaitResult::Ready);
            }
            let this = thread::id();
            state.sleepers.push(this);
            drop(state);
            let woken = thread::park_until(deadline_ns);
            queue.lock().sleepers.retain(|sleeper| *sleeper != this);
            match woken {
                Wake::Cancelled => return Ok(WaitResult::Cancelled),
                _ if clock::now_ns() >= deadline_ns => return Ok(WaitResult::TimedOut),
                _ => {}
            }
        }
    }

    /// Waits until nothing of earlier incarnations of `user` is under way, in any queue.
    #[cold]
    fn admit(&self, user: OwnerId) -> Result<(), BlockError> {
        self.drain(|known| known.slot() == user.slot() && known != user)
    }

    /// Waits until nothing of any incarnation of `user` is under way, and forgets it.
    pub fn abandon(&self, user: OwnerId) -> Result<(), BlockError> {
        self.drain(|known| known.slot() == user.slot())
    }

    fn drain(&self, is_meant: impl Fn(OwnerId) -> bool) -> Result<(), BlockError> {
        let _alone = self.admission.lock();
        for (number, queue) in (0..).zip(&self.queues) {
            // Polled, since somebody else may wait in the device for this queue; it happens once in a user's life.
            while !queue.0.lock().is_drained(number, &is_meant)? {
                thread::sleep_ms(DRAIN_STEP_MS);
            }
        }
        Ok(())
    }

    /// Requests under way of all users, for the end of this domain's life as a user of the device below.
    #[cfg(test)]
    pub fn under_way(&self) -> usize {
        let of = |queue: &Queue| {
            queue
                .0
                .lock()
                .users
                .iter()
                .map(|user| user.under_way)
                .sum::<usize>()
        };
        self.queues.iter().map(of).sum()
    }
}

/// What becomes of a device's answers to a call in which `user` handed over `offered` requests that aren't counted yet.
#[inline(always)]
fn settle(
    state: &mut State,
    number: u16,
    user: Caller,
    offered: usize,
    device: &Handle<dyn BlockDevice>,
    answers: Result<BlockBatch, BlockError>,
) -> Result<BlockBatch, BlockError> {
    // Another caller may have met its death since: what is under way is the next one's then, and what was lost has been noted.
    let is_same = (state.device.as_ref()).is_some_and(|known| known.target() == device.target());
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(error) => {
            if is_same {
                gone(state, user.id, offered, error)?;
            } else if let Some(error) = state.user(user).and_then(|own| own.failed.take()) {
                return Err(error);
            }
            return BlockBatch::new().map_err(|OutOfMemory| BlockError::OutOfMemory);
        }
    };
    let own = state.user(user).ok_or(BlockError::OutOfMemory)?;
    own.under_way += if is_same { offered } else { answers.len() };
    // Finished ones come first.
    let is_submitted = |answer: &Block| answer.progress() == Progress::Submitted;
    let is_full = answers.len() == BATCH_CAPACITY && answers.get(0).is_some_and(is_submitted);
    if !is_full && own.finished.is_empty() && answers.iter().all(|answer| owner_of(answer) == user.id) {
        own.under_way = own.under_way.saturating_sub(answers.len());
        answers.iter_mut().for_each(restore);
        return Ok(answers);
    }
    let (mut answers, mut no_room) = state.sort(answers, user.id);
    if is_full && no_room.len() == BATCH_CAPACITY {
        // The device is full, and had no room in the batch for answers either.
        match device.exchange(number, answers) {
            Ok(more) => answers = state.sort(more, user.id).0,
            Err(error) => {
                gone(state, user.id, 0, error)?;
                return BlockBatch::new().map_err(|OutOfMemory| BlockError::OutOfMemory);
            }
        }
    }
    let own = state.user(user).ok_or(BlockError::OutOfMemory)?;
    let room = BATCH_CAPACITY - no_room.len();
    for answer in own.finished.drain(..own.finished.len().min(room)) {
        drop(answers.push(answer));
    }
    for request in no_room.drain(..) {
        drop(answers.push(request));
    }
    Ok(answers)
}

impl State {
    /// What a user has here.
    #[inline(always)]
    fn user(&mut self, caller: Caller) -> Option<&mut User> {
        let is_caller = |known: &User| known.id == caller.id;
        let place = if self.users.get(caller.place).is_some_and(is_caller) {
            caller.place
        } else {
            self.users.iter().position(is_caller)?
        };
        self.users.get_mut(place)
    }

    /// Whether a user has something to fetch.
    fn has_news(&self, id: OwnerId) -> bool {
        self.users.iter().any(|known| known.id == id && known.has_news())
    }

    /// Gives each answer to its owner; gives the empty batch, and those of `caller`'s that had no room, in their order.
    fn sort(&mut self, mut answers: BlockBatch, caller: OwnerId) -> (BlockBatch, Vec<RRef<Block>>) {
        let mut no_room = Vec::new();
        let mut is_for_others = false;
        while let Some(mut answer) = answers.pop_front() {
            let owner = owner_of(&answer);
            // Of nobody any more.
            let Some(user) = self.users.iter_mut().find(|known| known.id == owner) else {
                continue;
            };
            user.under_way = user.under_way.saturating_sub(1);
            restore(&mut answer);
            if owner == caller && answer.progress() == Progress::Submitted {
                no_room.push(answer);
            } else {
                is_for_others |= owner != caller;
                user.finished.push_back(answer);
            }
        }
        if is_for_others {
            wake(&mut self.sleepers);
        }
        (answers, no_room)
    }

    /// Forgets the users that are meant if nothing of theirs is under way; whether that is so. Takes what is finished from the device.
    fn is_drained(&mut self, number: u16, is_meant: &impl Fn(OwnerId) -> bool) -> Result<bool, BlockError> {
        let is_left = |user: &User| is_meant(user.id) && user.under_way != 0;
        if self.users.iter().any(is_left)
            && let Some(device) = self.device.clone()
        {
            let empty = BlockBatch::new().map_err(|OutOfMemory| BlockError::OutOfMemory)?;
            match device.exchange(number, empty) {
                Ok(answers) => drop(self.sort(answers, OwnerId::NONE)),
                // What the device had comes to nothing.
                Err(error) => {
                    if let Err(error) = gone(self, OwnerId::NONE, 0, error) {
                        warn!("what an earlier user left under way came to nothing: {error}");
                    }
                }
            }
        }
        let is_drained = !self.users.iter().any(is_left);
        self.users.retain(|user| !is_meant(user.id) || is_left(user));
        Ok(is_drained)
    }
}

/// The device below has given up a queue, or has died. An error if `caller`, who was handing over `offered` requests, has lost any.
#[cold]
fn gone(state: &mut State, caller: OwnerId, offered: usize, error: BlockError) -> Result<(), BlockError> {
    let died = matches!(error, BlockError::Dead(_));
    let error = if died {
        info!("the device below died");
        state.device = None;
        // Not a death that they must look for another incarnation after.
        BlockError::Lost
    } else {
        error
    };
    let mut lost = offered;
    for user in &mut state.users {
        if user.id == caller {
            lost += user.under_way;
        }
        // What a device has given up it gives up for everybody.
        if user.under_way != 0 || !died {
            user.under_way = 0;
            user.finished.clear();
            user.failed = (user.id != caller).then_some(error);
        }
    }
    wake(&mut state.sleepers);
    if lost == 0 && died { Ok(()) } else { Err(error) }
}

#[inline(always)]
fn wake(sleepers: &mut Vec<ThreadId>) {
    if !sleepers.is_empty() {
        wake_all(sleepers);
    }
}

#[cold]
fn wake_all(sleepers: &mut Vec<ThreadId>) {
    for sleeper in sleepers.drain(..) {
        thread::unpark(sleeper);
    }
}

/// Who made a request.
fn owner_of(block: &Block) -> OwnerId {
    OwnerId(block.shadow[2])
}

/// Puts a request's stamp on and its partition's place in; false, and the request has failed, if it isn't within its unit.
#[inline]
fn stamp(request: &mut Block, user: OwnerId, extent_of: &impl Fn(u16) -> Option<Extent>) -> bool {
    let extent = extent_of(request.unit).filter(|extent| {
        let end = request.address.checked_add(u64::from(request.count));
        end.is_some_and(|end| end <= extent.blocks)
    });
    let Some(extent) = extent else {
        request.fail(Fault::OutOfRange, 0);
        return false;
    };
    // A flush is for all of the disk.
    let first = match request.operation() {
        Some(Operation::Flush) | None => 0,
        Some(_) => extent.first,
    };
    request.shadow[2] = user.0;
    request.shadow[3] = first << UNIT_BITS | u64::from(request.unit);
    request.unit = extent.disk;
    request.address += first;
    true
}

/// Takes a partition's place out of an answer again.
#[inline]
fn restore(answer: &mut Block) {
    answer.unit = answer.shadow[3] as u16;
    answer.address = answer.address.wrapping_sub(answer.shadow[3] >> UNIT_BITS);
}

/// Takes out what `stamp` has refused: it is finished.
#[cold]
fn take_refused(mut requests: BlockBatch, own: &mut User) -> Result<BlockBatch, BlockError> {
    let mut rest = BlockBatch::new().map_err(|OutOfMemory| BlockError::OutOfMemory)?;
    while let Some(request) = requests.pop_front() {
        if request.progress() == Progress::Failed {
            own.finished.push_back(request);
        } else {
            drop(rest.push(request));
        }
    }
    Ok(rest)
}

/// Where each unit of `units` lies, with a note of who uses it.
pub fn extents<'a>(units: &'a Units, user: OwnerId) -> impl Fn(u16) -> Option<Extent> + 'a {
    move |unit| {
        units.set_user(unit, user);
        units.extent(unit)
    }
}
