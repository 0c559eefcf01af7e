//! Crossings and shared objects through a generated proxy, on the host.

use core::sync::atomic::{AtomicU64, Ordering};
use rref::{
    BATCH_CAPACITY, Batch, Exchange, Handle, Interface, OutOfMemory, OwnerId, Packet, PacketBatch, RRef,
    RpcError, Share, interface,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
enum CountError {
    Dead(RpcError),
}

impl From<RpcError> for CountError {
    fn from(error: RpcError) -> Self {
        CountError::Dead(error)
    }
}

#[interface]
trait Counter {
    fn add(&self, amount: u64) -> Result<u64, CountError>;
    fn weigh(&self, lent: &RRef<Packet>) -> Result<u64, CountError>;
    fn reverse(&self, packets: PacketBatch) -> Result<PacketBatch, CountError>;
    fn caller(&self) -> Result<OwnerId, CountError>;
}

struct Plain(AtomicU64);

impl Counter for Plain {
    fn add(&self, amount: u64) -> Result<u64, CountError> {
        Ok(self.0.fetch_add(amount, Ordering::Relaxed) + amount)
    }

    fn weigh(&self, lent: &RRef<Packet>) -> Result<u64, CountError> {
        Ok(lent.len() as u64)
    }

    fn reverse(&self, mut packets: PacketBatch) -> Result<PacketBatch, CountError> {
        for packet in packets.iter_mut() {
            packet.frame_mut().reverse();
        }
        Ok(packets)
    }

    fn caller(&self) -> Result<OwnerId, CountError> {
        Ok(rref::caller())
    }
}

fn connect(name: &str) -> Handle<dyn Counter> {
    host_platform::attach();
    let object: &'static dyn Counter = Box::leak(Box::new(Plain(AtomicU64::new(0))));
    host_platform::provide::<dyn Counter>(name, object);
    Handle::connect(name, OwnerId::NONE, 0).expect("provided above")
}

#[test]
fn a_call_reaches_the_object_and_its_answer_comes_back() {
    let counter = connect("answer");
    assert_eq!(counter.add(2), Ok(2));
    assert_eq!(counter.add(3), Ok(5));
}

#[test]
fn the_callee_sees_who_calls() {
    assert_eq!(connect("caller").caller(), Ok(host_platform::host_domain()));
    assert_eq!(rref::caller(), OwnerId::KERNEL, "the chain is as before");
}

#[test]
fn a_lent_object_stays_the_callers() -> Result<(), OutOfMemory> {
    let counter = connect("lent");
    let mut packet = Packet::allocate()?;
    packet.resize(60);
    assert_eq!(counter.weigh(&packet), Ok(60));
    assert_eq!(packet.owner(), host_platform::host_domain());
    Ok(())
}

#[test]
fn a_batch_moves_there_and_back_with_its_packets() -> Result<(), OutOfMemory> {
    let counter = connect("batch");
    let mut batch = PacketBatch::new()?;
    for value in 0..3u8 {
        let mut packet = Packet::allocate()?;
        packet.resize(2).copy_from_slice(&[value, 9]);
        assert!(batch.push(packet).is_ok());
    }
    let mut batch = counter.reverse(batch).expect("the callee lives");
    let first = batch.pop_front().expect("three were pushed");
    assert_eq!(first.frame(), [9, 0]);
    assert_eq!(first.owner(), host_platform::host_domain());
    assert_eq!(batch.pop().expect("two are left").frame(), [9, 2]);
    assert_eq!(batch.len(), 1);
    Ok(())
}

#[test]
fn a_full_batch_gives_the_object_back() -> Result<(), OutOfMemory> {
    host_platform::attach();
    let mut batch: Batch<u64> = Batch::new()?;
    for value in 0..BATCH_CAPACITY as u64 {
        assert!(batch.push(RRef::new(value)?).is_ok());
    }
    let rejected = batch.push(RRef::new(99)?).expect_err("it is full");
    assert_eq!(*rejected, 99);
    assert!(batch.iter().copied().eq(0..BATCH_CAPACITY as u64));
    Ok(())
}

/// Objects are freed once each, wherever they hang when they are dropped.
#[test]
fn random_queues_keep_order_and_lose_nothing() {
    use proptest::prelude::*;
    proptest!(|(steps in proptest::collection::vec(0u8..7, 0..300))| {
        host_platform::attach();
        let mut batch: Batch<u64> = Batch::new().expect("unlimited");
        let mut model = std::collections::VecDeque::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => match batch.push(RRef::new(number as u64).expect("unlimited")) {
                    Ok(()) => model.push_back(number as u64),
                    Err(_) => prop_assert_eq!(model.len(), BATCH_CAPACITY),
                },
                2 => prop_assert_eq!(batch.pop().map(|object| *object), model.pop_back()),
                3 => prop_assert_eq!(batch.pop_front().map(|object| *object), model.pop_front()),
                4 => {
                    // Up to a number, or to one that doesn't suit.
                    let mut taken = Vec::new();
                    // SAFETY: They stay in `taken`.
                    unsafe {
                        batch.take_front_while(
                            number % 8,
                            |object| (object % 5 != 0).then_some(*object + 1),
                            |object, answer| taken.push((object, answer)),
                        );
                    }
                    for (object, answer) in &taken {
                        prop_assert_eq!(Some(**object), model.pop_front());
                        prop_assert_eq!(*answer, **object + 1);
                    }
                    let stopped = model.front().is_none_or(|object| object % 5 == 0);
                    prop_assert!(taken.len() == number % 8 || stopped);
                }
                5 => {
                    let mut front = batch.front();
                    if let Some((object, ())) = front.take_if(|_| Some(())) {
                        prop_assert_eq!(Some(*object), model.pop_front());
                    }
                }
                _ => {
                    let mut back = batch.back();
                    for number in 0..3 {
                        match back.push(RRef::new(number).expect("unlimited")) {
                            Ok(()) => model.push_back(number),
                            Err(_) => prop_assert_eq!(model.len(), BATCH_CAPACITY),
                        }
                    }
                }
            }
            prop_assert_eq!(batch.len(), model.len());
            prop_assert!(batch.iter().eq(model.iter()));
        }
    });
}

#[test]
fn a_factory_is_named_after_its_trait() {
    assert_eq!(<dyn Counter>::FACTORY.name, "Counter");
}
