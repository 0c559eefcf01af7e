//! One CPU's forwarding: batches of frames in, frames addressed to backends and a verdict on each out.
//!
//! A batch is worked on in passes, so that the cache misses of its packets overlap instead of following each other: ask
//! for all frames; read and hash their headers and ask for their connection-table buckets; decide and rewrite. Nothing on this way
//! allocates, takes a lock (but when the configuration has changed) or panics on what a packet contains.
//!
//! Direct routing changes the two MAC addresses of a frame and nothing else: no TTL, no checksum.

use alloc::sync::Arc;

use prefetch::prefetch;

use crate::connection_table::{BackendRef, ConnectionTable, FlowState, Life};
use crate::counters::{CpuCounters, DropReason};
use crate::lifetime::{Event, Lives, Timeouts};
use crate::packet::{FragmentKey, Parsed, PlainIpv4, parse};
use crate::snapshot::{Published, Reachability, RecentVip, Snapshot, Target, VipIndex};
use crate::table::BackendSlot;

/// Frames that are worked on together; longer slices are cut into batches of as many.
pub const BATCH: usize = 32;

/// A frame that can be read and changed in place.
pub trait FrameMut {
    /// The frame from its destination MAC address to the end of its payload, without the checksum.
    fn bytes(&mut self) -> &mut [u8];
}

impl FrameMut for &mut [u8] {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

impl<const N: usize> FrameMut for [u8; N] {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

impl FrameMut for alloc::vec::Vec<u8> {
    #[inline(always)]
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

/// Frames of a batch, at most [`BATCH`], by their number.
pub trait Frames {
    /// How many.
    fn count(&self) -> usize;

    /// A frame's bytes, as [`FrameMut::bytes`]; empty for a number that isn't below the count.
    fn bytes(&mut self, index: usize) -> &mut [u8];

    /// Takes the decision on a frame; called once for each, first on those that are for no VIP.
    fn decide(&mut self, index: usize, verdict: Verdict);
}

/// Frames and their verdicts side by side.
struct Slices<'a, F> {
    frames: &'a mut [F],
    verdicts: &'a mut [Verdict],
}

impl<F: FrameMut> Frames for Slices<'_, F> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.frames.len()
    }

    #[inline(always)]
    fn bytes(&mut self, index: usize) -> &mut [u8] {
        self.frames.get_mut(index).map_or(&mut [], FrameMut::bytes)
    }

    #[inline(always)]
    fn decide(&mut self, index: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(index) {
            *slot = verdict;
        }
    }
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for no VIP: somebody else's.
    NotMine,
    /// Send it; it is addressed to the backend with this slot.
    Transmit(BackendSlot),
    /// Throw it away.
    Drop(DropReason),
}

/// How long the fragments of one datagram may be apart (RFC 791 suggests 15 seconds).
const FRAGMENT_SECONDS: u16 = 15;

/// What the first pass found out about a frame that is for a VIP.
#[derive(Clone, Copy, Debug)]
struct Pending {
    hash: u64,
    /// Position in the batch.
    index: u16,
    vip: VipIndex,
    step: Step,
}

/// What is left to do for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A whole packet of a flow.
    Whole(Event),
    /// As for a whole packet, and remember the choice for the later fragments.
    FirstFragment(Event),
    /// Find what the first fragment left.
    LaterFragment,
    /// Find the flow's backend without touching the flow.
    IcmpError,
}

/// Why nothing is left to do for a frame.
enum Stranger {
    /// It is somebody else's.
    NotMine,
    /// Its headers are nonsense.
    Malformed,
}

impl Pending {
    const NONE: Self = Self {
        hash: 0,
        index: 0,
        vip: 0,
        step: Step::IcmpError,
    };
}

/// A flow's backend, or why there is none.
type Choice<'a> = Result<(BackendSlot, &'a Target), DropReason>;

/// One CPU's half of the balancer.
#[derive(Debug)]
pub struct Balancer {
    published: Arc<Published>,
    version: u64,
    snapshot: Arc<Snapshot>,
    flows: Flows,
    counters: Arc<CpuCounters>,
    /// What the first pass leaves for the others; means nothing between batches.
    pending: [Pending; BATCH],
}

/// What a CPU knows of flows: all that forwarding changes.
#[derive(Debug)]
struct Flows {
    connections: ConnectionTable,
    timeouts: Timeouts,
    lives: Lives,
}

impl Balancer {
    /// Made by [`Control::balancer`](crate::control::Control::balancer), which knows what is published and who counts, and has a table.
    #[must_use]
    pub(crate) fn new(
        published: Arc<Published>,
        counters: Arc<CpuCounters>,
        connections: ConnectionTable,
        timeouts: Timeouts,
    ) -> Self {
        let (version, snapshot) = published.current();
        let flows = Flows {
            lives: Lives::new(&timeouts, connections.now()),
            connections,
            timeouts,
        };
        Self {
            published,
            version,
            snapshot,
            flows,
            counters,
            pending: [Pending::NONE; BATCH],
        }
    }

    /// Decides on every frame and addresses those to be sent; `verdicts` gets an answer for each frame, in order.
    ///
    /// `now_ns` is monotonic time. If the slices differ in length, the shorter one counts.
    pub fn forward<F: FrameMut>(&mut self, now_ns: u64, frames: &mut [F], verdicts: &mut [Verdict]) {
        self.begin(now_ns);
        for (frames, verdicts) in frames.chunks_mut(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            for frame in &mut *frames {
                prefetch(&*frame.bytes());
            }
            self.forward_batch(&mut Slices { frames, verdicts });
        }
        self.end();
    }

    /// As [`forward`](Self::forward), for one batch of frames whose first bytes the caller has asked the cache for; frames beyond
    /// [`BATCH`] are left alone.
    #[inline]
    pub fn forward_frames(&mut self, now_ns: u64, frames: &mut impl Frames) {
        self.begin(now_ns);
        self.forward_batch(frames);
        self.end();
    }

    #[inline(always)]
    fn begin(&mut self, now_ns: u64) {
        if self.published.version() != self.version {
            self.take_snapshot();
        }
        self.flows.advance(now_ns / 1_000_000_000);
    }

    #[inline(always)]
    fn end(&self) {
        self.counters.publish(self.flows.connections.statistics());
    }

    #[cold]
    fn take_snapshot(&mut self) {
        (self.version, self.snapshot) = self.published.current();
    }

    #[inline(always)]
    fn forward_batch(&mut self, frames: &mut impl Frames) {
        let (snapshot, counters) = (&*self.snapshot, &*self.counters);
        let connections = &self.flows.connections;
        let count = read_batch(snapshot, connections, counters, frames, &mut self.pending);
        let pending = self.pending.get(..count).unwrap_or_default();
        self.flows.decide_batch(snapshot, counters, pending, frames);
    }
}

/// The first pass: writes down what is left to do for the frames that are for a VIP, decides on the others, and asks for buckets.
/// Returns how many there are.
///
/// Out of line, as the second pass is, so that each has the registers to itself.
#[inline(never)]
fn read_batch(
    snapshot: &Snapshot,
    connections: &ConnectionTable,
    counters: &CpuCounters,
    frames: &mut impl Frames,
    all_pending: &mut [Pending; BATCH],
) -> usize {
    let mut recent = RecentVip::default();
    let mut count = 0;
    for index in 0..frames.count().min(BATCH) {
        match read(snapshot, frames.bytes(index), &mut recent) {
            Ok((hash, vip, step)) => {
                connections.prefetch(hash);
                if let Some(pending) = all_pending.get_mut(count) {
                    *pending = Pending {
                        hash,
                        index: index as u16,
                        vip,
                        step,
                    };
                    count += 1;
                }
            }
            Err(Stranger::NotMine) => frames.decide(index, Verdict::NotMine),
            Err(Stranger::Malformed) => frames.decide(index, drop_frame(counters, DropReason::Malformed)),
        }
    }
    count
}

#[cold]
fn drop_frame(counters: &CpuCounters, reason: DropReason) -> Verdict {
    counters.count_drop(reason);
    Verdict::Drop(reason)
}

/// The first pass: what is this frame, whose is it, and which flow does it belong to?
#[inline(always)]
fn read(
    snapshot: &Snapshot,
    frame: &[u8],
    recent: &mut RecentVip,
) -> Result<(u64, VipIndex, Step), Stranger> {
    let Some(packet) = PlainIpv4::parse(frame) else {
        return read_unusual(snapshot, frame);
    };
    let vip = snapshot
        .find_vip_ipv4(
            packet.destination,
            packet.destination_port,
            packet.protocol,
            recent,
        )
        .ok_or(Stranger::NotMine)?;
    let event = Event::of(packet.protocol, packet.flags);
    Ok((snapshot.hasher.flow(&packet.flow()), vip, Step::Whole(event)))
}

#[cold]
#[inline(never)]
fn read_unusual(snapshot: &Snapshot, frame: &[u8]) -> Result<(u64, VipIndex, Step), Stranger> {
    let hasher = &snapshot.hasher;
    let (vip, hash, step) = match parse(frame).map_err(|_| Stranger::Malformed)? {
        Parsed::Other => return Err(Stranger::NotMine),
        Parsed::Packet { flow, flags } => {
            let event = Event::of(flow.protocol, flags);
            (snapshot.find_vip(&flow), hasher.flow(&flow), Step::Whole(event))
        }
        Parsed::FirstFragment { flow, flags, .. } => {
            let event = Event::of(flow.protocol, flags);
            (
                snapshot.find_vip(&flow),
                hasher.flow(&flow),
                Step::FirstFragment(event),
            )
        }
        Parsed::LaterFragment { key } => {
            let vip = snapshot.find_vip_without_port(&key.addresses, key.protocol);
            (vip, hasher.fragment(&key), Step::LaterFragment)
        }
        Parsed::IcmpError { flow } => (snapshot.find_vip(&flow), hasher.flow(&flow), Step::IcmpError),
    };
    Ok((hash, vip.ok_or(Stranger::NotMine)?, step))
}

/// The backend that the lookup table has for a flow.
#[inline(always)]
fn look_up(snapshot: &Snapshot, hash: u64, vip: VipIndex) -> Choice<'_> {
    let slot = snapshot
        .vip(vip)
        .ok_or(DropReason::NoBackend)?
        .table
        .backend(hash);
    let target = snapshot.target(slot).ok_or(DropReason::NoBackend)?;
    Ok((slot, target))
}

impl Flows {
    /// Sets the time, in whole seconds.
    #[inline(always)]
    fn advance(&mut self, now_seconds: u64) {
        self.connections.advance(now_seconds);
        if self.connections.now() != self.lives.now() {
            self.lives = Lives::new(&self.timeouts, self.connections.now());
        }
    }

    /// The second pass: decides on the frames that are for a VIP.
    #[inline(never)]
    fn decide_batch(
        &mut self,
        snapshot: &Snapshot,
        counters: &CpuCounters,
        all_pending: &[Pending],
        frames: &mut impl Frames,
    ) {
        for pending in all_pending {
            let index = usize::from(pending.index);
            let choice = match pending.step {
                Step::Whole(event) => self
                    .assign(snapshot, pending, event, counters)
                    .ok_or(DropReason::NoBackend),
                _ => self.unusual(snapshot, pending, frames.bytes(index), counters),
            };
            let (slot, target) = match choice {
                Ok(choice) => choice,
                Err(reason) => {
                    frames.decide(index, drop_frame(counters, reason));
                    continue;
                }
            };
            if target.reachability != Reachability::Known {
                frames.decide(index, drop_frame(counters, DropReason::NeighbourUnknown));
                continue;
            }
            let bytes = frames.bytes(index);
            let length = bytes.len() as u64;
            // Whatever has a backend is longer than that.
            if let Some(header) = bytes.first_chunk_mut() {
                *header = target.header;
            }
            if let Some(counter) = counters.backend(slot) {
                counter.count_frame(length);
            }
            frames.decide(index, Verdict::Transmit(slot));
        }
    }

    /// Gives a flow the backend that is remembered for it, or else the one that the lookup table has.
    #[inline(always)]
    fn assign<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pending: &Pending,
        event: Event,
        counters: &CpuCounters,
    ) -> Option<(BackendSlot, &'a Target)> {
        let slot = if let Some(mut entry) = self.connections.find(pending.hash) {
            let (backend, life) = (entry.backend(), entry.life());
            if let Some(target) = snapshot.remembered(backend, pending.vip)
                && !(event == Event::Opens && begins_anew(life, target))
            {
                entry.set_life(self.lives.after(life, event));
                return Some((backend.slot, target));
            }
            self.assign_in_place(snapshot, pending, event, counters)?
        } else {
            self.assign_anew(snapshot, pending, event, counters)?
        };
        Some((slot, snapshot.target(slot)?))
    }

    /// Gives a flow of which nothing is remembered the backend that the lookup table has.
    ///
    /// Out of line, so that the usual way has the registers to itself.
    #[inline(never)]
    fn assign_anew(
        &mut self,
        snapshot: &Snapshot,
        pending: &Pending,
        event: Event,
        counters: &CpuCounters,
    ) -> Option<BackendSlot> {
        let (slot, target) = look_up(snapshot, pending.hash, pending.vip).ok()?;
        let backend = BackendRef {
            slot,
            incarnation: target.incarnation,
        };
        let is_remembered = self
            .connections
            .insert(pending.hash, backend, self.lives.first(event));
        // A UDP flow that finds no place looks new with every packet.
        if event == Event::Opens || (event == Event::Datagram && is_remembered) {
            count_connection(counters, slot);
        }
        Some(slot)
    }

    /// The same for one whose remembered backend is no longer its.
    #[cold]
    #[inline(never)]
    fn assign_in_place(
        &mut self,
        snapshot: &Snapshot,
        pending: &Pending,
        event: Event,
        counters: &CpuCounters,
    ) -> Option<BackendSlot> {
        let (slot, target) = look_up(snapshot, pending.hash, pending.vip).ok()?;
        let backend = BackendRef {
            slot,
            incarnation: target.incarnation,
        };
        self.connections
            .remember(pending.hash, backend, self.lives.first(event));
        if matches!(event, Event::Opens | Event::Datagram) {
            count_connection(counters, slot);
        }
        Some(slot)
    }

    #[cold]
    #[inline(never)]
    fn unusual<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pending: &Pending,
        frame: &[u8],
        counters: &CpuCounters,
    ) -> Choice<'a> {
        match (pending.step, parse(frame)) {
            (Step::FirstFragment(event), Ok(Parsed::FirstFragment { key, .. })) => {
                let (slot, target) = self
                    .assign(snapshot, pending, event, counters)
                    .ok_or(DropReason::NoBackend)?;
                let backend = BackendRef {
                    slot,
                    incarnation: target.incarnation,
                };
                // As one that is being opened, so that a flood of fragments displaces no connection.
                let life = Life::new(FlowState::Opening, self.connections.now(), FRAGMENT_SECONDS);
                self.connections
                    .remember(snapshot.hasher.fragment(&key), backend, life);
                Ok((slot, target))
            }
            (Step::LaterFragment, Ok(Parsed::LaterFragment { key })) => {
                self.later_fragment(snapshot, pending, &key)
            }
            (Step::IcmpError, _) => {
                let backend = self.connections.find(pending.hash).map(|entry| entry.backend());
                let remembered = backend
                    .and_then(|backend| Some((backend.slot, snapshot.remembered(backend, pending.vip)?)));
                remembered.map_or_else(|| look_up(snapshot, pending.hash, pending.vip), Ok)
            }
            _ => Err(DropReason::Malformed),
        }
    }

    /// Follows the first fragment; one that came before it, or on another CPU, goes where the 3-tuple says.
    ///
    /// The NIC hashes all fragments of a datagram to the same queue, so only reordering on the way does that.
    fn later_fragment<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pending: &Pending,
        key: &FragmentKey,
    ) -> Choice<'a> {
        let backend = self.connections.find(pending.hash).map(|entry| entry.backend());
        if let Some(backend) = backend
            && let Some(target) = snapshot.target(backend.slot)
            && snapshot.remembered(backend, target.vip).is_some()
        {
            return Ok((backend.slot, target));
        }
        let hash = snapshot.hasher.host_pair(&key.addresses, key.protocol);
        look_up(snapshot, hash, pending.vip)
    }
}

#[inline(always)]
fn count_connection(counters: &CpuCounters, slot: BackendSlot) {
    if let Some(counter) = counters.backend(slot) {
        counter.count_connection();
    }
}

/// Whether a SYN for a remembered connection is the beginning of another one with the same ports.
#[inline(always)]
fn begins_anew(life: Life, target: &Target) -> bool {
    match life.state() {
        None | Some(FlowState::Opening) => false,
        Some(FlowState::Established) => target.draining,
        Some(FlowState::Closing) => true,
    }
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
