//! The shadow over drivers that die, through the real proxies.

use crate::driver::Driver;
use crate::shadow::{GIVE_UP_MS, Shadow};
use alloc::sync::Arc;
use interface::block::{BlockDevice, BlockDeviceInfo, BlockError, BlockStatistics, UnitInfo, WaitResult};
use outage::Outages;
use proptest::prelude::*;
use rref::block::{Fault, Operation, Progress};
use rref::{BATCH_CAPACITY, Block, BlockBatch, RRef, Text};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What outlives drivers: addresses with what was last written there.
type Medium = Arc<Mutex<HashMap<u64, u8>>>;

/// A driver that holds requests until it is told to carry them out.
struct PlayedDriver {
    medium: Medium,
    held: Mutex<BTreeMap<u16, VecDeque<RRef<Block>>>>,
    /// Requests that a queue holds at most.
    depth: AtomicUsize,
    /// Requests that each call carries out, the newest first.
    pace: AtomicUsize,
    /// What was handed over, by kind and address.
    seen: Mutex<Vec<(Operation, u64)>>,
    abandoned: AtomicU64,
    gone: AtomicBool,
    /// What happens once while a caller waits in it.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl PlayedDriver {
    fn carry_out(&self, block: &mut Block) {
        match block.operation() {
            Some(Operation::Write) => {
                self.medium.lock().unwrap().insert(block.address, block.data()[0]);
            }
            Some(Operation::Read) => {
                let byte = self.medium.lock().unwrap().get(&block.address).copied();
                block.data_mut().fill(byte.unwrap_or(0));
            }
            _ => {}
        }
        block.complete();
    }

    /// The driver dies, and the kernel leaves what it held to the shadow. Some of it was carried out.
    fn die(&self, import: &str, carried_out: usize) {
        host_platform::kill(import);
        let held = core::mem::take(&mut *self.held.lock().unwrap());
        for (number, mut block) in held.into_values().flatten().enumerate() {
            if number < carried_out {
                self.carry_out(&mut block);
            }
            host_platform::leave_block(block);
        }
    }
}

impl BlockDevice for PlayedDriver {
    fn info(&self) -> Result<BlockDeviceInfo, BlockError> {
        Ok(BlockDeviceInfo {
            units: 1,
            queues: 4,
            queue_depth: self.depth.load(Ordering::Relaxed) as u16,
            changes: 0,
            model: Text::EMPTY,
        })
    }

    fn unit(&self, unit: u16) -> Result<UnitInfo, BlockError> {
        Err(BlockError::NoUnit { unit, units: 0 })
    }

    fn exchange(&self, queue: u16, mut requests: BlockBatch) -> Result<BlockBatch, BlockError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(BlockError::NoDevice);
        }
        let mut held = self.held.lock().unwrap();
        let held = held.entry(queue).or_default();
        while held.len() < self.depth.load(Ordering::Relaxed)
            && let Some(request) = requests.pop_front()
        {
            assert_eq!(request.progress(), Progress::Submitted);
            let operation = request.operation().unwrap();
            self.seen.lock().unwrap().push((operation, request.address));
            held.push_back(request);
        }
        let mut answers = BlockBatch::new().unwrap();
        let pace = self.pace.load(Ordering::Relaxed).min(requests.room());
        for mut block in held.split_off(held.len() - held.len().min(pace)) {
            self.carry_out(&mut block);
            assert!(answers.push(block).is_ok());
        }
        answers.append(&mut requests);
        Ok(answers)
    }

    fn exchange_until(
        &self,
        queue: u16,
        requests: BlockBatch,
        _deadline_ns: u64,
    ) -> Result<BlockBatch, BlockError> {
        let batch = self.exchange(queue, requests)?;
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        if batch.is_empty() {
            self.exchange(queue, batch)
        } else {
            Ok(batch)
        }
    }

    fn wait(&self, _queue: u16, _deadline_ns: u64) -> Result<WaitResult, BlockError> {
        Ok(WaitResult::TimedOut)
    }

    fn abandon(&self) -> Result<(), BlockError> {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        self.held.lock().unwrap().clear();
        Ok(())
    }

    fn statistics(&self) -> Result<BlockStatistics, BlockError> {
        Ok(BlockStatistics {
            writes: self.seen.lock().unwrap().len() as u64,
            ..BlockStatistics::default()
        })
    }
}

/// The next driver behind `import`.
fn driver(import: &str, medium: &Medium) -> &'static PlayedDriver {
    let driver: &'static PlayedDriver = Box::leak(Box::new(PlayedDriver {
        medium: medium.clone(),
        held: Mutex::default(),
        depth: AtomicUsize::new(64),
        pace: AtomicUsize::new(usize::MAX),
        seen: Mutex::default(),
        abandoned: AtomicU64::new(0),
        gone: AtomicBool::new(false),
        meanwhile: Mutex::default(),
    }));
    host_platform::provide_mortal::<dyn BlockDevice>(import, driver);
    host_platform::inherit_from(import);
    driver
}

fn shadow(import: &'static str) -> (Shadow, Arc<Outages>, Medium) {
    host_platform::attach();
    while Block::inherit().is_some() {}
    let outages = Arc::new(Outages::default());
    let shadow = Shadow::new(Driver::new(import, outages.clone()), GIVE_UP_MS);
    (shadow, outages, Medium::default())
}

fn request(operation: Operation, address: u64, byte: u8) -> RRef<Block> {
    let mut block = Block::allocate().unwrap();
    block.request(operation, address, 8);
    block.data_mut().fill(byte);
    block.cookie = address ^ 0xabcd;
    block
}

fn write(address: u64, byte: u8) -> RRef<Block> {
    request(Operation::Write, address, byte)
}

fn batch(requests: Vec<RRef<Block>>) -> BlockBatch {
    let mut batch = BlockBatch::new().unwrap();
    for request in requests {
        assert!(batch.push(request).is_ok());
    }
    batch
}

fn exchange(shadow: &Shadow, queue: u16, requests: Vec<RRef<Block>>) -> Vec<RRef<Block>> {
    let answers = shadow.exchange(queue, batch(requests));
    let mut answers = answers.expect("no caller sees the driver die");
    core::iter::from_fn(|| answers.pop_front()).collect()
}

fn exchange_until(shadow: &Shadow, queue: u16, requests: Vec<RRef<Block>>) -> Vec<RRef<Block>> {
    let answers = shadow.exchange_until(queue, batch(requests), 0);
    let mut answers = answers.expect("no caller sees the driver die");
    core::iter::from_fn(|| answers.pop_front()).collect()
}

fn done(answers: &[RRef<Block>]) -> Vec<u64> {
    let mut done: Vec<u64> = answers
        .iter()
        .filter(|block| block.progress() == Progress::Done)
        .map(|block| block.address)
        .collect();
    done.sort_unstable();
    done
}

#[test]
fn what_a_dead_driver_had_is_handed_to_the_next_in_order() {
    let (shadow, outages, medium) = shadow("order");
    let first = driver("order", &medium);
    first.pace.store(0, Ordering::Relaxed);
    assert!(exchange(&shadow, 0, vec![write(1, 1), write(2, 2)]).is_empty());
    assert!(exchange(&shadow, 0, vec![request(Operation::Flush, 0, 0), write(3, 3)]).is_empty());
    first.die("order", 1);
    let second = driver("order", &medium);
    let answers = exchange(&shadow, 0, vec![write(4, 4)]);
    // What was behind the flush waits for it, and it for the answers to what was before it.
    let mut all = done(&answers);
    for _ in 0..3 {
        all.extend(done(&exchange(&shadow, 0, Vec::new())));
    }
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4]);
    assert_eq!(
        *second.seen.lock().unwrap(),
        [
            (Operation::Write, 1),
            (Operation::Write, 2),
            (Operation::Flush, 0),
            (Operation::Write, 3),
            (Operation::Write, 4)
        ]
    );
    let statistics = shadow.statistics().unwrap();
    assert_eq!((statistics.restarts, statistics.replayed), (1, 5));
    assert!(outages.take().is_some(), "a request had to wait");
    assert_eq!(
        second.abandoned.load(Ordering::Relaxed),
        0,
        "nothing of before is under way"
    );
}

#[test]
fn a_batch_that_finds_the_driver_dead_is_not_lost() {
    let (shadow, _, medium) = shadow("too late");
    let first = driver("too late", &medium);
    exchange(&shadow, 0, vec![write(9, 9)]);
    first.die("too late", 0);
    // There is no driver: the call takes the requests in and doesn't wait.
    assert!(exchange(&shadow, 0, vec![write(1, 1), write(2, 2)]).is_empty());
    assert!(exchange(&shadow, 0, vec![write(3, 3)]).is_empty());
    driver("too late", &medium);
    assert_eq!(shadow.wait(0, 0), Ok(WaitResult::Ready));
    assert_eq!(done(&exchange(&shadow, 0, Vec::new())), [1, 2, 3]);
    assert_eq!(medium.lock().unwrap().len(), 4);
}

#[test]
fn a_driver_may_die_again_before_anybody_has_looked() {
    let (shadow, _, medium) = shadow("again");
    let first = driver("again", &medium);
    first.pace.store(0, Ordering::Relaxed);
    exchange(&shadow, 0, vec![write(1, 1)]);
    exchange(&shadow, 1, vec![write(2, 2)]);
    first.die("again", 0);
    driver("again", &medium).die("again", 0);
    let third = driver("again", &medium);
    third.pace.store(0, Ordering::Relaxed);
    // This thread takes over what both queues had, and dies with its own in the next driver.
    exchange(&shadow, 0, Vec::new());
    third.die("again", 0);
    driver("again", &medium);
    assert_eq!(done(&exchange(&shadow, 1, Vec::new())), [2]);
    assert_eq!(done(&exchange(&shadow, 0, Vec::new())), [1]);
}

#[test]
fn a_new_shadow_calls_off_what_the_last_one_had_and_replays_none_of_it() {
    let (old, _, medium) = shadow("heritage");
    let first = driver("heritage", &medium);
    first.pace.store(0, Ordering::Relaxed);
    exchange(&old, 0, vec![write(1, 1), write(2, 1)]);
    drop(old);
    let new = Shadow::new(Driver::new("heritage", Arc::default()), GIVE_UP_MS);
    exchange(&new, 0, vec![write(1, 2)]);
    assert_eq!(
        first.abandoned.load(Ordering::Relaxed),
        2,
        "each one when it first connects"
    );
    // What the old one had comes back late all the same, and is left.
    let mut stale = write(2, 1);
    stale.shadow = [1 << 16, 77, 0, 0];
    host_platform::leave_block(stale);
    first.die("heritage", 0);
    let second = driver("heritage", &medium);
    assert_eq!(done(&exchange(&new, 0, Vec::new())), [1]);
    assert_eq!(*second.seen.lock().unwrap(), [(Operation::Write, 1)]);
    assert_eq!(medium.lock().unwrap().get(&1), Some(&2));
}

#[test]
fn what_was_abandoned_comes_back_to_nobody() {
    let (shadow, _, medium) = shadow("abandon");
    let first = driver("abandon", &medium);
    first.pace.store(0, Ordering::Relaxed);
    exchange(&shadow, 0, vec![write(1, 1)]);
    // The kernel may leave what was under way when both die at once.
    let mut late = Vec::new();
    for block in first.held.lock().unwrap().remove(&0).unwrap() {
        late.push(block);
    }
    shadow.abandon().unwrap();
    first.die("abandon", 0);
    late.into_iter().for_each(host_platform::leave_block);
    let second = driver("abandon", &medium);
    assert_eq!(done(&exchange(&shadow, 0, vec![write(5, 5)])), [5]);
    assert_eq!(*second.seen.lock().unwrap(), [(Operation::Write, 5)]);
}

/// While one caller waits in the driver that dies, another of the same queue meets the death and hands both their requests to the next driver: what the first
/// then brings home from the old one changes nothing of that.
#[test]
fn a_death_that_another_caller_meets_first_is_met_once() {
    let (shadow, _, medium) = shadow("met once");
    let shadow: &'static Shadow = Box::leak(Box::new(shadow));
    let first = driver("met once", &medium);
    // A first call connects.
    exchange(shadow, 0, vec![write(9, 9)]);
    first.pace.store(0, Ordering::Relaxed);
    let known = medium.clone();
    *first.meanwhile.lock().unwrap() = Some(Box::new(move || {
        first.die("met once", 0);
        let second = driver("met once", &known);
        second.pace.store(0, Ordering::Relaxed);
        assert!(exchange(shadow, 0, vec![write(2, 2), request(Operation::Flush, 0, 0)]).is_empty());
        second.pace.store(usize::MAX, Ordering::Relaxed);
    }));
    let mut all = done(&exchange_until(shadow, 0, vec![write(1, 1)]));
    for _ in 0..4 {
        all.extend(done(&exchange_until(shadow, 0, Vec::new())));
    }
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    assert_eq!(shadow.statistics().unwrap().replayed, 3);
}

#[test]
fn a_device_that_is_gone_is_not_a_dead_driver() {
    let (shadow, _, medium) = shadow("gone");
    let first = driver("gone", &medium);
    exchange(&shadow, 0, vec![write(1, 1)]);
    first.gone.store(true, Ordering::Relaxed);
    let answers = shadow.exchange(0, batch(vec![write(1, 1)]));
    assert_eq!(answers.err(), Some(BlockError::NoDevice));
}

#[test]
fn what_has_no_room_goes_back_or_waits_its_turn() {
    let (shadow, _, medium) = shadow("room");
    let first = driver("room", &medium);
    first.depth.store(2, Ordering::Relaxed);
    first.pace.store(0, Ordering::Relaxed);
    exchange(&shadow, 0, Vec::new());
    let back = exchange(&shadow, 0, (0..5).map(|address| write(address, 1)).collect());
    assert_eq!(back.len(), 3);
    assert!(back.iter().all(|block| block.progress() == Progress::Submitted));
    first.die("room", 0);
    let second = driver("room", &medium);
    second.depth.store(2, Ordering::Relaxed);
    second.pace.store(1, Ordering::Relaxed);
    let mut all = done(&exchange(&shadow, 0, back));
    for _ in 0..10 {
        assert_ne!(shadow.wait(0, 0), Ok(WaitResult::Cancelled));
        all.extend(done(&exchange(&shadow, 0, Vec::new())));
    }
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4]);
    let seen: Vec<u64> = second
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, address)| *address)
        .collect();
    assert_eq!(seen, [0, 1, 2, 3, 4], "in their order");
}

#[test]
fn without_a_driver_nothing_waits_and_there_is_no_device() {
    let (shadow, _, _) = shadow("never");
    assert_eq!(shadow.info(), Err(BlockError::NoDevice));
    assert!(exchange(&shadow, 0, vec![write(1, 1)]).is_empty());
    assert_eq!(shadow.abandon(), Ok(()));
    assert_eq!(shadow.statistics(), Ok(BlockStatistics::default()));
    assert!(matches!(
        shadow.exchange(999, batch(Vec::new())),
        Err(BlockError::NoQueue { queue: 999, .. })
    ));
}

#[test]
fn what_has_failed_is_not_carried_out_later() {
    let (_, _, medium) = shadow("give up");
    let shadow = Shadow::new(Driver::new("give up", Arc::default()), 0);
    let first = driver("give up", &medium);
    first.pace.store(0, Ordering::Relaxed);
    exchange(&shadow, 0, vec![write(1, 1)]);
    host_platform::kill("give up");
    let answers = exchange(&shadow, 0, vec![write(2, 2)]);
    assert_eq!(answers.len(), 1, "the other is still to be left");
    assert_eq!(answers[0].fault(), Some(Fault::Gone));
    first.die("give up", 0);
    let second = driver("give up", &medium);
    assert_eq!(done(&exchange(&shadow, 0, vec![write(3, 3)])), [3]);
    assert_eq!(*second.seen.lock().unwrap(), [(Operation::Write, 3)]);
}

#[test]
fn a_call_for_no_queue_waits_for_the_next_driver() {
    let (shadow, _, medium) = shadow("blocks");
    driver("blocks", &medium);
    assert_eq!(shadow.info().map(|info| info.queues), Ok(4));
    host_platform::kill("blocks");
    let restart = std::thread::spawn(move || {
        host_platform::attach();
        std::thread::sleep(std::time::Duration::from_millis(20));
        driver("blocks", &medium);
    });
    assert_eq!(shadow.info().map(|info| info.queues), Ok(4));
    restart.join().unwrap();
}

#[test]
fn counters_go_on_over_a_restart() {
    let (shadow, _, medium) = shadow("counters");
    let first = driver("counters", &medium);
    exchange(&shadow, 0, vec![write(1, 1), write(2, 2)]);
    assert_eq!(shadow.statistics().unwrap().writes, 2);
    first.die("counters", 0);
    driver("counters", &medium);
    exchange(&shadow, 0, vec![write(3, 3)]);
    assert_eq!(shadow.statistics().unwrap().writes, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever order of calls and deaths: each request comes back done and once, to its queue, with its own data and cookie; a write that
    /// was answered is never overwritten by an older one's replay.
    #[test]
    fn any_order_of_calls_and_deaths_is_hidden(
        steps in proptest::collection::vec((0u8..7, 0u16..3, 0usize..40), 1..80)
    ) {
        let (shadow, outages, medium) = shadow("any order");
        host_platform::kill("any order");
        let mut current = driver("any order", &medium);
        // By queue: what is under way, by cookie; a place is written by one request at a time, as whoever needs an order does.
        let mut under_way: HashMap<u64, (u16, Operation, u64, u8)> = HashMap::new();
        let mut answered: HashMap<u64, u8> = HashMap::new();
        let mut cookie = 0u64;
        let last = steps.len();
        let end = (0..200).map(|number| (6, number % 3, 40));
        for (number, (step, queue, count)) in steps.into_iter().chain(end).enumerate() {
            let mut requests = Vec::new();
            let mut is_down = false;
            match step {
                0 => {
                    current.die("any order", count);
                    current = driver("any order", &medium);
                    current.pace.store(count % 4, Ordering::Relaxed);
                    current.depth.store(1 + count, Ordering::Relaxed);
                }
                1 => {
                    // No driver for a while.
                    current.die("any order", count);
                    is_down = true;
                }
                2 => current.pace.store(count % 5, Ordering::Relaxed),
                _ => {
                    if number >= last {
                        current.pace.store(usize::MAX, Ordering::Relaxed);
                        current.depth.store(64, Ordering::Relaxed);
                    }
                    for place in 0..count.min(BATCH_CAPACITY) as u64 {
                        let address = u64::from(queue) * 1000 + place;
                        if step == 6 || under_way.values().any(|(_, _, at, _)| *at == address) {
                            continue;
                        }
                        cookie += 1;
                        let operation = [Operation::Write, Operation::Write, Operation::Flush, Operation::Read][(cookie % 4) as usize];
                        let mut block = request(operation, address, cookie as u8);
                        block.cookie = cookie;
                        under_way.insert(cookie, (queue, operation, address, cookie as u8));
                        requests.push(block);
                    }
                }
            }
            let mut back = requests;
            for turn in 0..3 {
                let requests = core::mem::take(&mut back);
                let answers = match (number + turn) % 2 {
                    0 => exchange(&shadow, queue, requests),
                    _ => exchange_until(&shadow, queue, requests),
                };
                for answer in answers {
                    if answer.progress() == Progress::Submitted {
                        back.push(answer);
                        continue;
                    }
                    prop_assert_eq!(answer.fault(), None::<Fault>);
                    let (of, operation, address, byte) = under_way.remove(&answer.cookie).expect("once");
                    prop_assert_eq!((of, Some(operation), address), (queue, answer.operation(), answer.address));
                    match operation {
                        Operation::Write => { answered.insert(address, byte); }
                        Operation::Read => prop_assert_eq!(
                            answer.data()[0], answered.get(&address).copied().unwrap_or(0)
                        ),
                        _ => {}
                    }
                }
                prop_assert_ne!(shadow.wait(queue, 0), Ok(WaitResult::Cancelled));
            }
            if is_down {
                current = driver("any order", &medium);
            }
            // What still has no room is given up by its caller.
            for block in back {
                under_way.remove(&block.cookie);
            }
        }
        prop_assert!(under_way.is_empty(), "{:?} are lost", under_way);
        let medium = medium.lock().unwrap();
        for (address, byte) in &answered {
            prop_assert_eq!(medium.get(address), Some(byte));
        }
        while outages.take().is_some() {}
    }
}
