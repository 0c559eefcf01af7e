//! The way to a domain above the classifier: the stack or the balancer.
//!
//! While it is dead its packets are lost, and the loop goes on for the other one: connecting again never waits, and is tried at
//! growing distances.

use domain_rt::clock::NEVER;
use domain_rt::{Handle, OwnerId, thread};
use interface::path::{PacketProcessor, PathError};
use log::{info, warn};
use rref::PacketBatch;

/// First distance between two tries to connect, nanoseconds.
const RETRY_FLOOR_NS: u64 = 1_000_000;
/// Longest one: a domain that stays down costs a sleeping appliance next to nothing.
const RETRY_CEILING_NS: u64 = 100_000_000;

/// What became of a batch.
pub enum Answer {
    /// The packets, marked.
    Packets(PacketBatch),
    /// Nobody was there to take it.
    Unclaimed(PacketBatch),
    /// It is gone with its taker.
    Lost,
}

/// One processor, for one queue.
pub struct Processor {
    import: &'static str,
    shard: u16,
    handle: Option<Handle<dyn PacketProcessor>>,
    dead: OwnerId,
    retry_ns: u64,
    retry_distance_ns: u64,
    wake_ns: u64,
    more: bool,
    called_ns: u64,
}

impl Processor {
    /// A processor that is not connected yet.
    pub fn new(import: &'static str, shard: u16) -> Processor {
        Processor {
            import,
            shard,
            handle: None,
            dead: OwnerId::NONE,
            retry_ns: 0,
            retry_distance_ns: RETRY_FLOOR_NS,
            wake_ns: NEVER,
            more: false,
            called_ns: 0,
        }
    }

    /// Whether there is somebody to call.
    #[inline(always)]
    pub fn is_connected(&self) -> bool {
        self.handle.is_some()
    }

    /// Whether it has said that it has more to send.
    #[inline(always)]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// When it has to be called again, or connected.
    #[inline(always)]
    pub fn due_ns(&self) -> u64 {
        match self.handle {
            Some(_) => self.wake_ns,
            None => self.retry_ns,
        }
    }

    /// When it was last called.
    #[inline(always)]
    pub fn called_ns(&self) -> u64 {
        self.called_ns
    }

    /// Hands packets on.
    #[inline]
    pub fn process(&mut self, packets: PacketBatch, now_ns: u64) -> Answer {
        let Some(handle) = &self.handle else {
            return Answer::Unclaimed(packets);
        };
        self.called_ns = now_ns;
        match handle.process(self.shard, packets) {
            Ok(processed) => {
                self.more = processed.more;
                self.wake_ns = processed.wake_ns;
                Answer::Packets(processed.packets)
            }
            Err(error) => {
                self.fail(error, now_ns);
                Answer::Lost
            }
        }
    }

    /// Connects if it isn't and it is time to try; whether it is newly connected.
    #[inline(always)]
    pub fn connect(&mut self, now_ns: u64) -> bool {
        self.handle.is_none() && now_ns >= self.retry_ns && self.try_connect(now_ns)
    }

    #[cold]
    fn try_connect(&mut self, now_ns: u64) -> bool {
        self.retry_ns = now_ns.saturating_add(self.retry_distance_ns);
        self.retry_distance_ns = (self.retry_distance_ns * 2).min(RETRY_CEILING_NS);
        let Ok(handle) = domain_rt::reconnect::<dyn PacketProcessor>(self.import, self.dead, 0) else {
            return false;
        };
        match handle.attach(self.shard, thread::id().number()) {
            Ok(()) => {}
            Err(PathError::Dead(_)) => {
                self.dead = handle.target();
                return false;
            }
            Err(error) => {
                warn!("{}: queue {}: {error}", self.import, self.shard);
                return false;
            }
        }
        info!(
            "{}: queue {} connected to generation {}",
            self.import,
            self.shard,
            handle.target().generation()
        );
        self.handle = Some(handle);
        self.retry_distance_ns = RETRY_FLOOR_NS;
        // It may have something to send already.
        self.wake_ns = 0;
        self.more = false;
        true
    }

    #[cold]
    fn fail(&mut self, error: PathError, now_ns: u64) {
        if let PathError::Dead(_) = error {
            if let Some(handle) = self.handle.take() {
                self.dead = handle.target();
            }
            self.retry_ns = now_ns;
            self.retry_distance_ns = RETRY_FLOOR_NS;
            warn!(
                "{}: queue {}: dead; its packets are dropped until it is back",
                self.import, self.shard
            );
        } else {
            // It lives and said no: the packets went with the call.
            self.wake_ns = now_ns.saturating_add(RETRY_FLOOR_NS);
            warn!("{}: queue {}: {error}", self.import, self.shard);
        }
        self.more = false;
    }
}
