//! One CPU's forwarding: batches of frames in, frames addressed to backends and a verdict on each out.
//!
//! A batch is worked on in three passes, so that the cache misses of its packets overlap instead of following each
//! other: read and hash all headers; touch all connection-table buckets; decide and rewrite. Nothing on this way
//! allocates, takes a lock (but when the configuration has changed) or panics on what a packet contains.
//!
//! Direct routing changes the two MAC addresses of a frame and nothing else: no TTL, no checksum.

use alloc::sync::Arc;
use core::hint::black_box;

use crate::connection_table::{BackendRef, Capacity, ConnectionTable, FlowState, Life};
use crate::counters::{CpuCounters, DropReason};
use crate::packet::{FragmentKey, Parsed, PlainIpv4, Protocol, TcpFlags, parse};
use crate::snapshot::{Published, Reachability, Snapshot, Target, VipIndex};
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

/// How long an idle flow is remembered, in seconds, at most
/// [`LONGEST_TIMEOUT_SECONDS`](crate::connection_table::LONGEST_TIMEOUT_SECONDS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TCP connection of which only SYNs were seen.
    pub tcp_opening_seconds: u16,
    /// An established TCP connection.
    pub tcp_established_seconds: u16,
    /// A TCP connection whose client has sent FIN or RST.
    pub tcp_closing_seconds: u16,
    /// A UDP flow.
    pub udp_seconds: u16,
}

/// How long the fragments of one datagram may be apart (RFC 791 suggests 15 seconds).
const FRAGMENT_SECONDS: u16 = 15;

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening_seconds: 60,
            tcp_established_seconds: 1_800,
            tcp_closing_seconds: 60,
            udp_seconds: 60,
        }
    }
}

impl Timeouts {
    #[inline(always)]
    fn for_tcp(&self, state: FlowState) -> u16 {
        match state {
            FlowState::Opening => self.tcp_opening_seconds,
            FlowState::Established => self.tcp_established_seconds,
            FlowState::Closing => self.tcp_closing_seconds,
        }
    }
}

/// What the first pass found out about a frame.
#[derive(Clone, Copy, Debug)]
struct Pending {
    hash: u64,
    length: u32,
    vip: VipIndex,
    flags: TcpFlags,
    step: Step,
}

/// What is left to do for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: somebody else's.
    NotMine,
    /// Nothing: its headers are nonsense.
    Malformed,
    Tcp,
    Udp,
    /// As for a whole packet, and remember the choice for the later fragments.
    FirstFragment,
    /// Find what the first fragment left.
    LaterFragment,
    /// Find the flow's backend without touching the flow.
    IcmpError,
}

impl Step {
    /// For a whole packet.
    #[inline(always)]
    fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl Pending {
    const NOT_MINE: Self = Self {
        hash: 0,
        length: 0,
        vip: 0,
        flags: TcpFlags(0),
        step: Step::NotMine,
    };
}

/// A flow's backend, or why there is none.
type Choice = Result<BackendSlot, DropReason>;

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
}

impl Balancer {
    /// Made by [`Control::balancer`](crate::control::Control::balancer), which knows what is published and who counts.
    #[must_use]
    pub(crate) fn new(
        published: Arc<Published>,
        counters: Arc<CpuCounters>,
        capacity: Capacity,
        timeouts: Timeouts,
    ) -> Self {
        let (version, snapshot) = published.current();
        let flows = Flows {
            connections: ConnectionTable::new(capacity),
            timeouts,
        };
        Self {
            published,
            version,
            snapshot,
            flows,
            counters,
            pending: [Pending::NOT_MINE; BATCH],
        }
    }

    /// Decides on every frame and addresses those to be sent; `verdicts` gets an answer for each frame, in order.
    ///
    /// `now_ns` is monotonic time. If the slices differ in length, the shorter one counts.
    pub fn forward<F: FrameMut>(&mut self, now_ns: u64, frames: &mut [F], verdicts: &mut [Verdict]) {
        if self.published.version() != self.version {
            self.take_snapshot();
        }
        self.flows.connections.advance(now_ns / 1_000_000_000);
        for (frames, verdicts) in frames.chunks_mut(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            self.forward_batch(frames, verdicts);
        }
        self.counters.publish(self.flows.connections.statistics());
    }

    #[cold]
    fn take_snapshot(&mut self) {
        (self.version, self.snapshot) = self.published.current();
    }

    #[inline(always)]
    fn forward_batch<F: FrameMut>(&mut self, frames: &mut [F], verdicts: &mut [Verdict]) {
        let snapshot = &*self.snapshot;
        for (frame, pending) in frames.iter_mut().zip(&mut self.pending) {
            read(snapshot, frame.bytes(), pending);
        }

        // The sum is of no use but to make the loads happen.
        let connections = &self.flows.connections;
        let batch = self.pending.iter().take(frames.len());
        black_box(batch.fold(0, |sum, pending| sum ^ connections.touch(pending.hash)));

        for ((frame, pending), verdict) in frames.iter_mut().zip(&self.pending).zip(verdicts) {
            let choice = match pending.step {
                Step::Tcp => self.flows.tcp(snapshot, pending, &self.counters),
                Step::Udp => self.flows.udp(snapshot, pending, &self.counters),
                Step::NotMine => {
                    *verdict = Verdict::NotMine;
                    continue;
                }
                step => self
                    .flows
                    .unusual(step, snapshot, pending, frame.bytes(), &self.counters),
            };
            *verdict = match choice.and_then(|slot| address(snapshot, slot, frame.bytes())) {
                Ok((slot, vip)) => {
                    let length = u64::from(pending.length);
                    if let (Some(vip), Some(backend)) = (self.counters.vip(vip), self.counters.backend(slot))
                    {
                        vip.count_frame(length);
                        backend.count_frame(length);
                    }
                    Verdict::Transmit(slot)
                }
                Err(reason) => {
                    self.counters.count_drop(reason);
                    Verdict::Drop(reason)
                }
            };
        }
    }
}

/// The first pass: what is this frame, whose is it, and which flow does it belong to?
#[inline(always)]
fn read(snapshot: &Snapshot, frame: &[u8], pending: &mut Pending) {
    let Some(packet) = PlainIpv4::parse(frame) else {
        *pending = read_unusual(snapshot, frame);
        return;
    };
    let flow = packet.flow();
    pending.hash = snapshot.hasher.flow(&flow);
    pending.length = frame.len() as u32;
    pending.flags = packet.flags;
    match snapshot.find_vip(&flow) {
        Some(vip) => {
            pending.vip = vip;
            pending.step = Step::of(packet.protocol);
        }
        None => pending.step = Step::NotMine,
    }
}

#[cold]
#[inline(never)]
fn read_unusual(snapshot: &Snapshot, frame: &[u8]) -> Pending {
    let hasher = &snapshot.hasher;
    let (vip, hash, flags, step) = match parse(frame) {
        Err(_) => return Pending { step: Step::Malformed, ..Pending::NOT_MINE },
        Ok(Parsed::Other) => return Pending::NOT_MINE,
        Ok(Parsed::Packet { flow, flags }) => {
            (snapshot.find_vip(&flow), hasher.flow(&flow), flags, Step::of(flow.protocol))
        }
        Ok(Parsed::FirstFragment { flow, flags, .. }) => {
            (snapshot.find_vip(&flow), hasher.flow(&flow), flags, Step::FirstFragment)
        }
        Ok(Parsed::LaterFragment { key }) => {
            let vip = snapshot.find_vip_without_port(&key.addresses, key.protocol);
            (vip, hasher.fragment(&key), TcpFlags::default(), Step::LaterFragment)
        }
        Ok(Parsed::IcmpError { flow }) => {
            (snapshot.find_vip(&flow), hasher.flow(&flow), TcpFlags::default(), Step::IcmpError)
        }
    };
    match vip {
        Some(vip) => Pending { hash, length: frame.len() as u32, vip, flags, step },
        None => Pending::NOT_MINE,
    }
}

/// Writes the backend's MAC address and ours into a frame; gives the backend and the VIP that it serves.
///
/// The VIP may be another than the first pass found for a fragment without ports.
#[inline(always)]
fn address(
    snapshot: &Snapshot,
    slot: BackendSlot,
    frame: &mut [u8],
) -> Result<(BackendSlot, VipIndex), DropReason> {
    let target = snapshot.target(slot).ok_or(DropReason::NoBackend)?;
    if target.reachability != Reachability::Known {
        return Err(DropReason::NeighbourUnknown);
    }
    // Frames that got here are longer than an Ethernet header.
    let header = frame.first_chunk_mut::<12>().ok_or(DropReason::Malformed)?;
    let [d0, d1, d2, d3, d4, d5] = target.mac;
    let [s0, s1, s2, s3, s4, s5] = snapshot.source_mac;
    *header = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    Ok((slot, target.vip))
}

/// The state of a TCP connection after a packet of the client's.
#[inline(always)]
fn next_state(state: FlowState, flags: TcpFlags) -> FlowState {
    if flags.closes() || state == FlowState::Closing {
        FlowState::Closing
    } else if flags.opens() {
        // A repeated SYN, or a stray one that the backend will challenge (RFC 9293 section 3.10.7.4).
        state
    } else {
        FlowState::Established
    }
}

/// The backend that the lookup table has for a flow.
#[inline(always)]
fn look_up(snapshot: &Snapshot, hash: u64, vip: VipIndex) -> Result<BackendRef, DropReason> {
    let slot = snapshot
        .vip(vip)
        .ok_or(DropReason::NoBackend)?
        .table
        .backend(hash);
    let target = snapshot.target(slot).ok_or(DropReason::NoBackend)?;
    Ok(BackendRef {
        slot,
        incarnation: target.incarnation,
    })
}

#[inline(always)]
fn count_connection(counters: &CpuCounters, vip: VipIndex, slot: BackendSlot) {
    if let (Some(vip), Some(backend)) = (counters.vip(vip), counters.backend(slot)) {
        vip.count_connection();
        backend.count_connection();
    }
}

impl Flows {
    #[inline(always)]
    fn tcp(&mut self, snapshot: &Snapshot, pending: &Pending, counters: &CpuCounters) -> Choice {
        let (now, flags) = (self.connections.now(), pending.flags);
        let entry = self.connections.find(pending.hash);
        if let Some(mut entry) = entry
            && let Some(state) = entry.life().state()
            && let Some(target) = snapshot.remembered(entry.backend(), pending.vip)
            && !(flags.opens() && begins_anew(state, target))
        {
            let state = next_state(state, flags);
            entry.set_life(Life::new(state, now, self.timeouts.for_tcp(state)));
            return Ok(entry.backend().slot);
        }
        let state = match (flags.opens(), flags.closes()) {
            (_, true) => FlowState::Closing,
            (true, false) => FlowState::Opening,
            (false, false) => FlowState::Established,
        };
        let life = Life::new(state, now, self.timeouts.for_tcp(state));
        let (slot, _) = self.choose(snapshot, pending, life)?;
        if flags.opens() {
            count_connection(counters, pending.vip, slot);
        }
        Ok(slot)
    }

    #[inline(always)]
    fn udp(&mut self, snapshot: &Snapshot, pending: &Pending, counters: &CpuCounters) -> Choice {
        let life = Life::new(
            FlowState::Established,
            self.connections.now(),
            self.timeouts.udp_seconds,
        );
        let entry = self.connections.find(pending.hash);
        if let Some(mut entry) = entry
            && snapshot.remembered(entry.backend(), pending.vip).is_some()
        {
            entry.set_life(life);
            return Ok(entry.backend().slot);
        }
        let (slot, is_remembered) = self.choose(snapshot, pending, life)?;
        // A flow that finds no place looks new with every packet.
        if is_remembered {
            count_connection(counters, pending.vip, slot);
        }
        Ok(slot)
    }

    /// Gives a flow the backend that the lookup table has for it, and remembers that if there is a place for it.
    #[inline(always)]
    fn choose(
        &mut self,
        snapshot: &Snapshot,
        pending: &Pending,
        life: Life,
    ) -> Result<(BackendSlot, bool), DropReason> {
        let backend = look_up(snapshot, pending.hash, pending.vip)?;
        Ok((
            backend.slot,
            self.connections.remember(pending.hash, backend, life),
        ))
    }

    #[cold]
    fn unusual(
        &mut self,
        step: Step,
        snapshot: &Snapshot,
        pending: &Pending,
        frame: &[u8],
        counters: &CpuCounters,
    ) -> Choice {
        match (step, parse(frame)) {
            (Step::FirstFragment, Ok(Parsed::FirstFragment { flow, key, .. })) => {
                let choice = match flow.protocol {
                    Protocol::Tcp => self.tcp(snapshot, pending, counters),
                    Protocol::Udp => self.udp(snapshot, pending, counters),
                };
                choice.inspect(|&slot| self.remember_datagram(snapshot, &key, slot))
            }
            (Step::LaterFragment, Ok(Parsed::LaterFragment { key })) => {
                self.later_fragment(snapshot, pending, &key)
            }
            (Step::IcmpError, _) => match self.connections.find(pending.hash) {
                Some(entry) if snapshot.remembered(entry.backend(), pending.vip).is_some() => {
                    Ok(entry.backend().slot)
                }
                _ => look_up(snapshot, pending.hash, pending.vip).map(|backend| backend.slot),
            },
            _ => Err(DropReason::Malformed),
        }
    }

    fn remember_datagram(&mut self, snapshot: &Snapshot, key: &FragmentKey, slot: BackendSlot) {
        if let Some(target) = snapshot.target(slot) {
            let backend = BackendRef {
                slot,
                incarnation: target.incarnation,
            };
            // As one that is being opened, so that a flood of fragments displaces no connection.
            let life = Life::new(FlowState::Opening, self.connections.now(), FRAGMENT_SECONDS);
            self.connections
                .remember(snapshot.hasher.fragment(key), backend, life);
        }
    }

    /// Follows the first fragment; one that came before it, or on another CPU, goes where the 3-tuple says.
    ///
    /// The NIC hashes all fragments of a datagram to the same queue, so only reordering on the way does that.
    fn later_fragment(&mut self, snapshot: &Snapshot, pending: &Pending, key: &FragmentKey) -> Choice {
        if let Some(entry) = self.connections.find(pending.hash)
            && let Some(target) = snapshot.target(entry.backend().slot)
            && snapshot.remembered(entry.backend(), target.vip).is_some()
        {
            return Ok(entry.backend().slot);
        }
        let hash = snapshot.hasher.host_pair(&key.addresses, key.protocol);
        look_up(snapshot, hash, pending.vip).map(|backend| backend.slot)
    }
}

/// Whether a SYN for a remembered connection is the beginning of another one with the same ports.
#[inline(always)]
fn begins_anew(state: FlowState, target: &Target) -> bool {
    match state {
        FlowState::Opening => false,
        FlowState::Established => target.draining,
        FlowState::Closing => true,
    }
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
