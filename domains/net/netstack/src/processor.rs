//! The packet path's interfaces: batches for the shards, and neighbours for Maglev.

use crate::stack::Shared;
use core::net::IpAddr;
use core::sync::atomic::Ordering;
use domain_rt::clock;
use domain_rt::thread::{self, ThreadId};
use interface::net::MacAddress;
use interface::path::{Neighbours, PacketProcessor, PathError, Processed};
use rref::PacketBatch;

/// Threads that one round wakes at most; there are few domains with sockets, and each shard has one thread of each.
const WAKE_LIMIT: usize = 16;

impl PacketProcessor for Shared {
    fn process(&self, shard: u16, mut packets: PacketBatch) -> Result<Processed, PathError> {
        let cell = self
            .0
            .shards
            .get(usize::from(shard))
            .ok_or(PathError::NoShard { shard })?;
        let mut wake: [Option<ThreadId>; WAKE_LIMIT] = [None; WAKE_LIMIT];
        let (more, wake_ns) = {
            let mut shard = cell.lock();
            let outcome = shard.process(&mut packets, clock::now_ns());
            let mut slots = wake.iter_mut();
            shard.owners.take_waiters(|thread| match slots.next() {
                Some(slot) => *slot = Some(thread),
                // Never so many; woken under the lock, it waits a moment for it.
                None => {
                    thread::unpark(thread);
                }
            });
            outcome
        };
        for thread in wake.iter().map_while(|thread| *thread) {
            thread::unpark(thread);
        }
        Ok(Processed {
            packets,
            more,
            wake_ns,
        })
    }

    fn attach(&self, shard: u16, _runner: u64) -> Result<(), PathError> {
        let index = usize::from(shard);
        let (Some(cell), Some(inbox)) = (self.0.shards.get(index), self.0.common.inboxes.get(index)) else {
            return Err(PathError::NoShard { shard });
        };
        // The call runs on the runner's own thread, whatever number it gives.
        let runner = thread::id();
        cell.lock().runner = Some(runner);
        inbox.lock().runner = Some(runner);
        Ok(())
    }
}

impl Neighbours for Shared {
    fn resolve(&self, address: IpAddr) -> Result<Option<MacAddress>, PathError> {
        let common = &self.0.common;
        let next_hop = common.addresses.lock().next_hop(address);
        let Some(next_hop) = next_hop else {
            return Ok(None);
        };
        let mut neighbours = common.neighbours.lock();
        let mac = neighbours.resolve(next_hop, clock::now_ns());
        if neighbours.has_questions() {
            common.questions.store(true, Ordering::Relaxed);
            drop(neighbours);
            // Any runner asks; the first one is woken in case that all of them sleep.
            let runner = common.inboxes.first().and_then(|inbox| inbox.lock().runner);
            if let Some(runner) = runner
                && runner != thread::id()
            {
                thread::unpark(runner);
            }
        }
        Ok(mac.map(MacAddress))
    }

    fn own_mac(&self) -> Result<MacAddress, PathError> {
        Ok(MacAddress(self.0.common.mac))
    }
}
