//! One CPU's forwarding: batches of frames in, frames addressed to backends and a verdict on each out.
//!
//! A batch is worked on in passes, so that the cache misses of its packets overlap instead of following each other: ask
//! for all frames; read and hash their headers and ask for their connection-table buckets; decide and rewrite. Nothing on this way
//! allocates, takes a lock (but when the configuration has changed) or panics on what a packet contains.
//!
//! Direct routing changes the two MAC addresses of a frame and nothing else: no TTL, no checksum.

use alloc::sync::Arc;

use prefetch::prefetch;

use crate::connection_table::{ConnectionTable, FlowState, Life};
use crate::counters::{CpuCounters, DropReason};
use crate::frame::{Frame, FrameMut, Frames, Slices, Verdict};
use crate::lifetime::{Event, Lives, Timeouts};
use crate::packet::{FragmentKey, Parsed, parse};
use crate::plain_packet::{PlainIpv4, PlainPattern};
use crate::snapshot::{Identity, Published, RecentVip, Snapshot, Target, VipIndex};
use crate::table::BackendSlot;

/// Frames that are worked on together; longer slices are cut into batches of as many.
pub const BATCH: usize = 32;

/// How long the fragments of one datagram may be apart (RFC 791 suggests 15 seconds).
const FRAGMENT_SECONDS: u16 = 15;

/// What the first pass found out about a frame.
#[derive(Clone, Copy, Debug)]
struct Pending {
    hash: u64,
    vip: VipIndex,
    step: Step,
}

/// What is left to do for a frame. The first four are for whole packets of a flow, by the events that they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Segment = Event::Segment as u8,
    Closes = Event::Closes as u8,
    Datagram = Event::Datagram as u8,
    Opens = Event::Opens as u8,
    /// As for a whole packet, and remember the choice for the later fragments.
    FirstFragment,
    /// Find what the first fragment left.
    LaterFragment,
    /// Find the flow's backend without touching the flow.
    IcmpError,
    /// Nothing: it is for no VIP, and has been decided on.
    Nothing,
}

impl Step {
    #[inline(always)]
    fn whole(event: Event) -> Self {
        match event {
            Event::Segment => Self::Segment,
            Event::Closes => Self::Closes,
            Event::Datagram => Self::Datagram,
            Event::Opens => Self::Opens,
        }
    }

    /// The event that a whole packet is.
    #[inline(always)]
    fn event(self) -> Option<Event> {
        match self {
            Self::Segment => Some(Event::Segment),
            Self::Closes => Some(Event::Closes),
            Self::Datagram => Some(Event::Datagram),
            Self::Opens => Some(Event::Opens),
            _ => None,
        }
    }
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
        vip: 0,
        step: Step::Nothing,
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
    /// The VIP of the last packet: it is mostly the next one's too.
    recent: RecentVip,
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
            recent: RecentVip::NONE,
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

    /// As [`forward`](Self::forward), for one batch of frames; frames beyond [`BATCH`], and those from the first without bytes on, are left
    /// alone. Returns how many aren't.
    #[inline]
    pub fn forward_frames(&mut self, now_ns: u64, frames: &mut impl Frames) -> usize {
        self.begin(now_ns);
        let count = self.forward_batch(frames);
        self.end();
        count
    }

    /// Does with the table what a death would.
    #[cfg(test)]
    pub(crate) fn die(self) {
        self.flows.connections.die();
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
        self.recent = RecentVip::NONE;
    }

    #[inline(always)]
    fn forward_batch(&mut self, frames: &mut impl Frames) -> usize {
        let (snapshot, counters) = (&*self.snapshot, &*self.counters);
        let connections = &self.flows.connections;
        let count = read_batch(
            snapshot,
            connections,
            counters,
            frames,
            &mut self.recent,
            &mut self.pending,
        );
        let pending = self.pending.get(..count).unwrap_or_default();
        self.flows.decide_batch(snapshot, counters, pending, frames);
        count
    }
}

/// The first pass: writes down what is left to do for each frame, decides on those that are for no VIP, and asks for buckets. Returns how
/// many there are.
///
/// Out of line, as the second pass is, so that each has the registers to itself.
#[inline(never)]
fn read_batch(
    snapshot: &Snapshot,
    connections: &ConnectionTable,
    counters: &CpuCounters,
    frames: &mut impl Frames,
    recent: &mut RecentVip,
    all_pending: &mut [Pending; BATCH],
) -> usize {
    let mut count = 0;
    for (pending, mut frame) in all_pending.iter_mut().zip(frames.from(0)) {
        let Some(bytes) = frame.bytes() else { break };
        if let Some((packet, event)) = recent.pattern.parse(bytes, Event::of) {
            let hash = snapshot.hasher.flow(&packet.flow());
            connections.prefetch(hash);
            // Field by field: a copy of the whole would wait for its parts to leave the store buffer.
            pending.hash = hash;
            pending.vip = recent.vip;
            pending.step = Step::whole(event);
        } else if let Err(stranger) = read_anew(snapshot, connections, bytes, pending, recent) {
            frame.decide(match stranger {
                Stranger::NotMine => Verdict::NotMine,
                Stranger::Malformed => drop_frame(counters, DropReason::Malformed),
            });
        }
        count += 1;
    }
    count
}

#[cold]
fn drop_frame(counters: &CpuCounters, reason: DropReason) -> Verdict {
    counters.count_drop(reason);
    Verdict::Drop(reason)
}

/// The first pass for a frame that isn't like the one before. Out of line as a whole, so that the others' results stay in registers.
#[inline(never)]
fn read_anew(
    snapshot: &Snapshot,
    connections: &ConnectionTable,
    frame: &[u8],
    pending: &mut Pending,
    recent: &mut RecentVip,
) -> Result<(), Stranger> {
    pending.step = Step::Nothing;
    let (hash, vip, step) = match PlainIpv4::parse(frame, Event::of) {
        Some((packet, event)) => {
            let vip = snapshot.find_vip_ipv4(&packet).ok_or(Stranger::NotMine)?;
            *recent = RecentVip {
                pattern: PlainPattern::of(frame, &packet),
                vip,
            };
            (snapshot.hasher.flow(&packet.flow()), vip, Step::whole(event))
        }
        None => read_unusual(snapshot, frame)?,
    };
    connections.prefetch(hash);
    pending.hash = hash;
    pending.vip = vip;
    pending.step = step;
    Ok(())
}

/// What is this frame, whose is it, and which flow does it belong to?
#[cold]
#[inline(never)]
fn read_unusual(snapshot: &Snapshot, frame: &[u8]) -> Result<(u64, VipIndex, Step), Stranger> {
    let hasher = &snapshot.hasher;
    let (vip, hash, step) = match parse(frame).map_err(|_| Stranger::Malformed)? {
        Parsed::Other => return Err(Stranger::NotMine),
        Parsed::Packet { flow, flags } => {
            let step = Step::whole(Event::of(flow.protocol, flags));
            (snapshot.find_vip(&flow), hasher.flow(&flow), step)
        }
        Parsed::FirstFragment { flow, .. } => {
            (snapshot.find_vip(&flow), hasher.flow(&flow), Step::FirstFragment)
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
fn look_up<'a>(snapshot: &'a Snapshot, pending: &Pending) -> Choice<'a> {
    look_up_by(snapshot, pending, pending.hash)
}

/// Frames from the `first` on, each with what is known of it.
#[inline(always)]
fn remaining<'a, F: Frames>(
    pending: &'a [Pending],
    frames: &'a mut F,
    first: usize,
) -> impl Iterator<Item = (&'a Pending, F::Frame<'a>)> {
    let pending = pending.get(first..).unwrap_or_default();
    pending.iter().zip(frames.from(first))
}

/// The same by another hash than the frame's.
#[inline(always)]
fn look_up_by<'a>(snapshot: &'a Snapshot, pending: &Pending, hash: u64) -> Choice<'a> {
    let vip = snapshot.vip(pending.vip).ok_or(DropReason::NoBackend)?;
    let slot = vip.table.backend(hash);
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

    /// The second pass: decides on the frames that are for a VIP, by turns on those of settled flows and on the others.
    #[inline(always)]
    fn decide_batch(
        &mut self,
        snapshot: &Snapshot,
        counters: &CpuCounters,
        pending: &[Pending],
        frames: &mut impl Frames,
    ) {
        let mut next = 0;
        while next < pending.len() {
            next = self.decide_settled(snapshot, counters, pending, frames, next);
            next = self.decide_others(snapshot, counters, pending, frames, next);
        }
    }

    /// Decides on the frames from `first` on up to one of a flow that isn't settled; returns where it stopped.
    #[inline(never)]
    fn decide_settled(
        &self,
        snapshot: &Snapshot,
        counters: &CpuCounters,
        all_pending: &[Pending],
        frames: &mut impl Frames,
        first: usize,
    ) -> usize {
        // Of one length, so that a slot that is in the one list is in the other.
        let (targets, backends) = (snapshot.targets(), counters.backends());
        let slots = targets.len().min(backends.len());
        let (targets, backends) = (
            targets.get(..slots).unwrap_or_default(),
            backends.get(..slots).unwrap_or_default(),
        );
        let mut next = first;
        for (pending, mut frame) in remaining(all_pending, frames, first) {
            let Some((slot, target)) = self.settled(targets, pending) else {
                break;
            };
            let length = frame.address(&target.header);
            if let Some(counter) = backends.get(usize::from(slot)) {
                counter.count_frame(length as u64);
            }
            frame.decide(Verdict::Transmit(slot));
            next += 1;
        }
        next
    }

    /// The backend of a flow for which its packet changes nothing, and which is as a backend usually is: nearly every packet's.
    #[inline(always)]
    fn settled<'a>(&self, targets: &'a [Target], pending: &Pending) -> Option<(BackendSlot, &'a Target)> {
        // A SYN may begin another connection with the same ports.
        let event = pending.step.event().filter(|event| *event != Event::Opens)?;
        let backend = self
            .connections
            .find_settled(pending.hash, |life| self.lives.is_fresh(life, event))?;
        let target = targets.get(usize::from(backend.slot))?;
        let is_usual = target.identity == Identity::usual(pending.vip, backend.incarnation);
        is_usual.then_some((backend.slot, target))
    }

    /// Decides on frame `first`, whatever it is, and on those after it up to one whose flow may be settled; returns where it stopped.
    #[inline(never)]
    fn decide_others(
        &mut self,
        snapshot: &Snapshot,
        counters: &CpuCounters,
        all_pending: &[Pending],
        frames: &mut impl Frames,
        first: usize,
    ) -> usize {
        let mut next = first;
        for (pending, mut frame) in remaining(all_pending, frames, first) {
            let choice = match pending.step {
                Step::Opens => self.assign(snapshot, pending, Event::Opens, counters),
                _ if next != first && pending.step.event().is_some() => break,
                step => match step.event() {
                    Some(event) => self.assign_otherwise(snapshot, pending, event, counters),
                    None if step == Step::Nothing => {
                        next += 1;
                        continue;
                    }
                    None => self.unusual(snapshot, pending, frame.bytes().unwrap_or_default(), counters),
                },
            };
            match choice {
                Ok((slot, target)) if target.identity.is_reachable() => {
                    send(counters, &mut frame, slot, target);
                }
                Ok(_) => frame.decide(drop_frame(counters, DropReason::NeighbourUnknown)),
                Err(reason) => frame.decide(drop_frame(counters, reason)),
            }
            next += 1;
        }
        next
    }

    /// [`assign`](Self::assign) out of line.
    #[inline(never)]
    fn assign_otherwise<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pending: &Pending,
        event: Event,
        counters: &CpuCounters,
    ) -> Choice<'a> {
        self.assign(snapshot, pending, event, counters)
    }

    /// Gives a flow the backend that is remembered for it, or else the one that the lookup table has.
    #[inline(always)]
    fn assign<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pending: &Pending,
        event: Event,
        counters: &CpuCounters,
    ) -> Choice<'a> {
        if let Some(mut entry) = self.connections.find(pending.hash) {
            let (backend, life) = (entry.backend(), entry.life());
            if let Some(target) = snapshot.remembered(backend, pending.vip)
                && !(event == Event::Opens && begins_anew(life, target))
            {
                entry.set_life(self.lives.after(life, event));
                return Ok((backend.slot, target));
            }
            return self.assign_in_place(snapshot, pending, event, counters);
        }
        let (slot, target) = look_up(snapshot, pending)?;
        let is_remembered =
            self.connections
                .insert(pending.hash, target.backend(slot), self.lives.first(event));
        // A UDP flow that finds no place looks new with every packet.
        if event == Event::Opens || (event == Event::Datagram && is_remembered) {
            count_connection(counters, slot);
        }
        Ok((slot, target))
    }

    /// The same for one whose remembered backend is no longer its.
    #[cold]
    #[inline(never)]
    fn assign_in_place<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        pending: &Pending,
        event: Event,
        counters: &CpuCounters,
    ) -> Choice<'a> {
        let (slot, target) = look_up(snapshot, pending)?;
        self.connections
            .remember(pending.hash, target.backend(slot), self.lives.first(event));
        if matches!(event, Event::Opens | Event::Datagram) {
            count_connection(counters, slot);
        }
        Ok((slot, target))
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
            (Step::FirstFragment, Ok(Parsed::FirstFragment { flow, flags, key })) => {
                let event = Event::of(flow.protocol, flags);
                let (slot, target) = self.assign_otherwise(snapshot, pending, event, counters)?;
                // As one that is being opened, so that a flood of fragments displaces no connection.
                let life = Life::new(FlowState::Opening, self.connections.now(), FRAGMENT_SECONDS);
                self.connections
                    .remember(snapshot.hasher.fragment(&key), target.backend(slot), life);
                Ok((slot, target))
            }
            (Step::LaterFragment, Ok(Parsed::LaterFragment { key })) => {
                self.later_fragment(snapshot, pending, &key)
            }
            (Step::IcmpError, _) => {
                let backend = self.connections.find(pending.hash).map(|entry| entry.backend());
                let remembered = backend
                    .and_then(|backend| Some((backend.slot, snapshot.remembered(backend, pending.vip)?)));
                remembered.map_or_else(|| look_up(snapshot, pending), Ok)
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
            && snapshot.remembered(backend, target.identity.vip()).is_some()
        {
            return Ok((backend.slot, target));
        }
        let hash = snapshot.hasher.host_pair(&key.addresses, key.protocol);
        look_up_by(snapshot, pending, hash)
    }
}

/// Addresses a frame to a backend, and counts it.
#[inline(always)]
fn send(counters: &CpuCounters, frame: &mut impl Frame, slot: BackendSlot, target: &Target) {
    let length = frame.address(&target.header);
    if let Some(counter) = counters.backend(slot) {
        counter.count_frame(length as u64);
    }
    frame.decide(Verdict::Transmit(slot));
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
        Some(FlowState::Established) => target.identity.is_draining(),
        Some(FlowState::Closing) => true,
    }
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
