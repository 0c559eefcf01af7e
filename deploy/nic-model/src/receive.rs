//! The way of a frame from the wire into guest memory (datasheet 7.1 "Receive Functionality").
//!
//! Filters are `filter.rs`'s, queue choice `rss.rs`'s, header checks `headers.rs`'s. Here: the packet buffer, descriptors,
//! their write-back and the counters that go with them.

use crate::checksum;
use crate::device::Device;
use crate::faults::Direction;
use crate::filter::{self, Accepted, FRAME_CHECK_LENGTH};
use crate::headers::{self, ChecksumResult, Headers, Network, Transport};
use crate::registers as r;
use crate::rss::{self, RssKey, RssResult};
use crate::violations::ViolationKind;
use std::collections::VecDeque;

/// Shortest frame a wire carries, without its check sequence.
pub(crate) const SHORTEST_FRAME: usize = 60;
/// Longest frame taken from a wire.
pub(crate) const LONGEST_FRAME: usize = 16 * 1024;
const DESCRIPTOR_LENGTH: u64 = 16;

const STATUS_DONE: u64 = 1;
const STATUS_END: u64 = 1 << 1;
const STATUS_VLAN: u64 = 1 << 3;
const STATUS_UDP_CHECKED: u64 = 1 << 4;
const STATUS_TRANSPORT_CHECKED: u64 = 1 << 5;
const STATUS_NETWORK_CHECKED: u64 = 1 << 6;
const STATUS_INEXACT: u64 = 1 << 7;
const ERROR_TRANSPORT: u64 = 1 << 30;
const ERROR_NETWORK: u64 = 1 << 31;

/// A receive queue's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QueueState {
    /// Not enabled.
    #[default]
    Disabled,
    /// Enable was written, but software has not seen it take effect yet.
    Enabling,
    /// Working.
    Enabled,
    /// The ring itself could not be reached; only disabling helps.
    Stuck,
}

/// The packet buffer and the queues' states.
pub(crate) struct ReceivePath {
    pub(crate) states: Vec<QueueState>,
    buffer: VecDeque<Buffered>,
    buffered_bytes: usize,
    scratch: Vec<u8>,
    /// What RSSRK says, prepared when a frame needs it.
    pub(crate) rss_key: Option<RssKey>,
}

/// A frame between the wire and memory.
struct Buffered {
    frame: Vec<u8>,
    facts: Facts,
}

/// What the parser and the filters found out about a frame.
#[derive(Clone, Copy)]
struct Facts {
    accepted: Accepted,
    headers: Headers,
    checks: ChecksumResult,
    rss: RssResult,
}

/// What became of a frame that was offered to its queue.
#[derive(PartialEq, Eq)]
enum Placement {
    Placed,
    /// It has to wait for descriptors.
    Waiting,
    /// It was dropped, and counted.
    Dropped,
}

impl ReceivePath {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![QueueState::Disabled; usize::from(r::QUEUES)],
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            scratch: Vec::with_capacity(LONGEST_FRAME),
            rss_key: None,
        }
    }

    pub(crate) fn state(&self, queue: u16) -> QueueState {
        self.states.get(usize::from(queue)).copied().unwrap_or_default()
    }

    pub(crate) fn set_state(&mut self, queue: u16, state: QueueState) {
        if let Some(slot) = self.states.get_mut(usize::from(queue)) {
            *slot = state;
        }
    }
}

impl Device {
    /// Takes a frame (without check sequence) from the wire, through the faults, and signals what that causes.
    pub fn deliver(&mut self, frame: &[u8]) {
        self.arrive(frame);
        self.settle();
    }

    /// Takes at most `limit` frames from the wire and then signals once; returns how many there were.
    pub fn receive_from_wire(&mut self, limit: usize) -> usize {
        let mut frame = std::mem::take(&mut self.wire_buffer);
        frame.resize(LONGEST_FRAME, 0);
        let mut count = 0;
        while count < limit
            && let Some(length) = self.wire.receive(&mut frame)
        {
            count += 1;
            self.arrive(frame.get(..length).unwrap_or_default());
        }
        self.wire_buffer = frame;
        if count > 0 {
            self.settle();
        }
        count
    }

    /// A frame comes out of the wire: faults may change what arrives.
    fn arrive(&mut self, frame: &[u8]) {
        if self.faults.is_clean(Direction::Rx) {
            self.enter(frame);
        } else {
            for frame in self.faults.pass(Direction::Rx, frame, self.now_ns) {
                self.enter(&frame);
            }
        }
    }

    /// A frame reaches the MAC.
    pub(crate) fn enter(&mut self, frame: &[u8]) {
        self.capture(frame);
        if !self.link.is_up() && !self.registers.has(r::HLREG0, r::HLREG0_LOOPBACK) {
            self.counters.rx_lost_link_down += 1;
            return;
        }
        let mut padded = [0; SHORTEST_FRAME];
        let frame = match padded.get_mut(..frame.len()) {
            Some(start) => {
                start.copy_from_slice(frame);
                padded.as_slice()
            }
            None => frame,
        };
        let receiving = self.registers.has(r::RXCTRL, r::RXCTRL_RXEN)
            && !self.registers.has(r::SECRXCTRL, r::SECRXCTRL_RX_DISABLE);
        if !receiving {
            self.counters.rx_lost_disabled += 1;
            return;
        }
        if let Some(facts) = self.inspect(frame) {
            self.accept(frame, facts);
        }
    }

    /// Counts and filters; `None` for a frame that isn't for us.
    fn inspect(&mut self, frame: &[u8]) -> Option<Facts> {
        let wire_length = frame.len() + FRAME_CHECK_LENGTH;
        self.registers.count(r::TPR, 1);
        self.registers.count_wide(r::TORL, wire_length as u64);
        let vlan_type = self.registers.get(r::VLNCTRL) as u16;
        let headers = headers::parse(frame, vlan_type);
        if wire_length > filter::longest_frame(&self.registers, headers.vlan.is_some()) {
            self.registers.count(r::ROC, 1);
            return None;
        }
        self.registers.count(r::RXNFGPC, 1);
        self.registers.count_wide(r::RXNFGBCL, wire_length as u64);
        let destination = *frame.first_chunk::<6>()?;
        let accepted = filter::accept_address(&self.registers, destination)?;
        if !filter::accept_vlan(&self.registers, &headers) {
            return None;
        }
        self.registers.count(r::GPRC, 1);
        self.registers.count_wide(r::GORCL, wire_length as u64);
        self.registers.count(r::PRC64 + size_class(wire_length), 1);
        if destination == [0xFF; 6] {
            self.registers.count(r::BPRC, 1);
        } else if destination[0] & 1 != 0 {
            self.registers.count(r::MPRC, 1);
        }
        let key = self
            .receive
            .rss_key
            .get_or_insert_with(|| RssKey::of(&self.registers));
        let mut rss = rss::classify(&self.registers, key, &headers, frame);
        if !self.registers.has(r::RXCSUM, r::RXCSUM_PACKET_CHECKSUM_DISABLE) {
            // The descriptor's field carries a fragment checksum instead, which this model leaves at zero.
            rss = RssResult {
                hash: 0,
                kind: 0,
                ..rss
            };
        }
        Some(Facts {
            accepted,
            headers,
            checks: headers.verify(frame),
            rss,
        })
    }

    /// Puts a frame into memory, or into the packet buffer when it has to wait.
    fn accept(&mut self, frame: &[u8], facts: Facts) {
        if self.receive.buffer.is_empty() && self.place(frame, &facts) != Placement::Waiting {
            return;
        }
        let capacity = (self.registers.get(r::RXPBSIZE) & 0x000F_FC00) as usize;
        if self.receive.buffered_bytes + frame.len() > capacity {
            self.registers.count(r::MPC, 1);
            self.interrupts.raise_other(r::CAUSE_RX_MISS);
            self.counters.rx_missed += 1;
            return;
        }
        self.receive.buffered_bytes += frame.len();
        self.receive.buffer.push_back(Buffered {
            frame: frame.to_vec(),
            facts,
        });
    }

    /// Moves what waits in the packet buffer on, as far as descriptors go.
    pub(crate) fn drain_receive_buffer(&mut self) {
        while let Some(next) = self.receive.buffer.pop_front() {
            if self.place(&next.frame, &next.facts) == Placement::Waiting {
                self.receive.buffer.push_front(next);
                return;
            }
            self.receive.buffered_bytes -= next.frame.len();
        }
    }

    /// Frames that wait for descriptors or for the DMA engine.
    pub fn buffered_frames(&self) -> usize {
        self.receive.buffer.len()
    }

    /// Writes a frame into its queue's buffers.
    fn place(&mut self, frame: &[u8], facts: &Facts) -> Placement {
        if !self.dma_allowed() {
            return Placement::Waiting;
        }
        let queue = facts.rss.queue;
        if self.receive.state(queue) != QueueState::Enabled {
            return self.drop_frame(queue);
        }
        let register = |name| self.registers.get(r::receive(queue, name));
        let srrctl = register(r::SRRCTL);
        let strip = register(r::RXDCTL) & r::RXDCTL_VLAN_STRIP != 0 && facts.headers.vlan.is_some();
        let keep_check = !self.registers.has(r::HLREG0, r::HLREG0_RX_CRC_STRIP);
        let mut scratch = std::mem::take(&mut self.receive.scratch);
        let data = if strip || keep_check {
            scratch.clear();
            let (start, rest) = frame.split_at(12.min(frame.len()));
            scratch.extend_from_slice(start);
            scratch.extend_from_slice(rest.get(if strip { 4 } else { 0 }..).unwrap_or_default());
            if keep_check {
                scratch.extend_from_slice(&checksum::frame_check(frame));
            }
            scratch.as_slice()
        } else {
            frame
        };
        let placement = self.fill_descriptors(queue, srrctl, data, facts);
        self.receive.scratch = scratch;
        placement
    }

    fn fill_descriptors(&mut self, queue: u16, srrctl: u32, data: &[u8], facts: &Facts) -> Placement {
        let buffer_length = (srrctl & 0x1F) as usize * 1024;
        let slots = self.registers.get(r::receive(queue, r::RDLEN)) / DESCRIPTOR_LENGTH as u32;
        let head = self.registers.get(r::receive(queue, r::RDH));
        let tail = self.registers.get(r::receive(queue, r::RDT));
        if buffer_length == 0 || slots == 0 || head >= slots || tail >= slots {
            return self.drop_frame(queue);
        }
        let available = (tail + slots - head) % slots;
        let needed = data.len().div_ceil(buffer_length) as u32;
        if needed > available {
            let drop = srrctl & r::SRRCTL_DROP_EN != 0 || needed >= slots;
            return if drop {
                self.drop_frame(queue)
            } else {
                Placement::Waiting
            };
        }
        let base = self.ring_base(r::receive(queue, r::RDBAL));
        let mut slot = head;
        for (i, chunk) in data.chunks(buffer_length).enumerate() {
            let at = base + u64::from(slot) * DESCRIPTOR_LENGTH;
            let mut address = [0; 8];
            if self.memory.read(at, &mut address).is_err() {
                self.violations
                    .report(ViolationKind::UnmappedDma, Some(queue), at);
                self.receive.set_state(queue, QueueState::Stuck);
                return self.drop_frame(queue);
            }
            let address = u64::from_le_bytes(address);
            // A posted write that nobody takes is lost, and the device doesn't notice.
            if self.memory.write(address, chunk).is_err() {
                self.violations
                    .report(ViolationKind::UnmappedDma, Some(queue), address);
            }
            let last = i + 1 == needed as usize;
            let (low, high) = if srrctl >> 25 & 7 == 0 {
                legacy_write_back(chunk.len(), last, facts)
            } else {
                advanced_write_back(chunk.len(), last, facts)
            };
            let low_first = self
                .memory
                .store_u64(at, low)
                .and_then(|()| self.memory.store_u64(at + 8, high));
            if low_first.is_err() {
                self.violations
                    .report(ViolationKind::UnmappedDma, Some(queue), at);
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        self.registers.set(r::receive(queue, r::RDH), slot);
        self.count_received(queue, data.len());
        Placement::Placed
    }

    fn count_received(&mut self, queue: u16, length: usize) {
        let statistic = self.registers.get(r::RQSMR + u32::from(queue & !3)) >> (8 * (queue & 3)) & 0xF;
        self.registers.count(r::QPRC + r::QUEUE_STRIDE * statistic, 1);
        self.registers
            .count_wide(r::QBRC + r::QUEUE_STRIDE * statistic, length as u64);
        self.registers.count(r::RXDGPC, 1);
        self.registers.count_wide(r::RXDGBCL, length as u64);
        self.counters.count_rx(queue, length);
        let allocation = self.registers.get(r::IVAR + u32::from(queue / 2) * 4) >> (16 * (queue & 1));
        self.interrupts.raise_queue(allocation as u8);
    }

    fn drop_frame(&mut self, queue: u16) -> Placement {
        let statistic = self.registers.get(r::RQSMR + u32::from(queue & !3)) >> (8 * (queue & 3)) & 0xF;
        self.registers.count(r::QPRDC + r::QUEUE_STRIDE * statistic, 1);
        self.counters.rx_dropped += 1;
        Placement::Dropped
    }
}

/// Offset of a frame's size counter from the first of six: 64, 127, 255, 511, 1023 and more bytes.
pub(crate) fn size_class(wire_length: usize) -> u32 {
    4 * match wire_length {
        0..=64 => 0,
        65..=127 => 1,
        128..=255 => 2,
        256..=511 => 3,
        512..=1023 => 4,
        _ => 5,
    }
}

/// Status and error bits of the last descriptor of a frame, as in bits 0 to 31 of the advanced format.
fn status(facts: &Facts) -> u64 {
    let mut status = STATUS_DONE | STATUS_END;
    if facts.headers.vlan.is_some() {
        status |= STATUS_VLAN;
    }
    if facts.accepted == Accepted::Inexactly {
        status |= STATUS_INEXACT;
    }
    if let Some(good) = facts.checks.network {
        status |= STATUS_NETWORK_CHECKED | if good { 0 } else { ERROR_NETWORK };
    }
    if let Some(good) = facts.checks.transport {
        status |= STATUS_TRANSPORT_CHECKED | if good { 0 } else { ERROR_TRANSPORT };
        if facts.headers.transport == Some(Transport::Udp) {
            status |= STATUS_UDP_CHECKED;
        }
    }
    status
}

/// Both words of an advanced descriptor's write-back (datasheet 7.1.6.2).
fn advanced_write_back(length: usize, last: bool, facts: &Facts) -> (u64, u64) {
    let length = (length as u64) << 32;
    if !last {
        return (0, length | STATUS_DONE);
    }
    let packet_type = match facts.headers.network {
        Some(Network::V4 { options: false }) => 0x1,
        Some(Network::V4 { options: true }) => 0x3,
        Some(Network::V6 { extensions: false }) => 0x4,
        Some(Network::V6 { extensions: true }) => 0xC,
        None => 0,
    } | match facts.headers.transport {
        Some(Transport::Tcp) => 0x10,
        Some(Transport::Udp) => 0x20,
        Some(Transport::Sctp) => 0x40,
        None => 0,
    };
    let low = u64::from(facts.rss.kind) | packet_type << 4 | u64::from(facts.rss.hash) << 32;
    let tag = u64::from(facts.headers.vlan.unwrap_or(0)) << 48;
    (low, tag | length | status(facts))
}

/// Both words of a legacy descriptor's write-back (datasheet 7.1.5): the buffer address is left as zero.
fn legacy_write_back(length: usize, last: bool, facts: &Facts) -> (u64, u64) {
    let full = status(facts);
    let (status, errors) = if last {
        (full & 0xFF, full >> 24 & 0xC0)
    } else {
        (STATUS_DONE, 0)
    };
    let tag = u64::from(facts.headers.vlan.unwrap_or(0)) << 48;
    (0, length as u64 | status << 32 | errors << 40 | tag)
}
