//! The way of a frame from descriptors in guest memory onto the wire (datasheet 7.2 "Transmit Functionality").
//!
//! Reads descriptors, gathers buffers, writes back. What offloads do to the bytes is `offload.rs`'s.

use crate::device::Device;
use crate::faults::Direction;
use crate::filter::FRAME_CHECK_LENGTH;
use crate::offload::{self, BadContext, Context, FlagMasks};
use crate::receive::{QueueState, SHORTEST_FRAME, size_class};
use crate::registers as r;
use crate::violations::ViolationKind;

const DESCRIPTOR_LENGTH: u64 = 16;
const COMMAND_END: u64 = 1 << 24;
const COMMAND_FRAME_CHECK: u64 = 1 << 25;
const COMMAND_LEGACY_CHECKSUM: u64 = 1 << 26;
const COMMAND_REPORT: u64 = 1 << 27;
const COMMAND_EXTENDED: u64 = 1 << 29;
const COMMAND_VLAN: u64 = 1 << 30;
const COMMAND_SEGMENT: u64 = 1 << 31;
const OPTION_NETWORK: u64 = 1 << 40;
const OPTION_TRANSPORT: u64 = 1 << 41;
/// Status DD of a written-back descriptor.
const DONE: u64 = 1 << 32;
const TYPE_CONTEXT: u64 = 2;
const TYPE_DATA: u64 = 3;
/// Longest frame that may be handed over for segmentation (datasheet 7.2.4: 256 KB).
const LONGEST_LARGE_SEND: usize = 256 * 1024;
/// Shortest and longest ordinary frame (datasheet 7.2.1.1, 1.2).
const FRAME_LENGTHS: std::ops::RangeInclusive<usize> = 17..=15_872;

/// A transmit queue's state.
#[derive(Clone, Copy, Default)]
pub(crate) struct TransmitQueue {
    pub(crate) state: QueueState,
    contexts: [Option<Context>; 2],
}

/// All transmit queues and the frame that is being put together.
pub(crate) struct TransmitPath {
    pub(crate) queues: Vec<TransmitQueue>,
    frame: Vec<u8>,
}

/// What the first data descriptor of a frame asks for.
#[derive(Clone, Copy)]
struct Request {
    words: (u64, u64),
    extended: bool,
}

/// A frame that can't be sent as asked.
struct Refused {
    kind: ViolationKind,
    value: u64,
}

/// Why a queue's processing ended.
enum Stop {
    /// The ring is empty, or its last frame isn't complete yet.
    Idle,
    /// The ring can't be read.
    Stuck,
}

impl TransmitPath {
    pub(crate) fn new() -> Self {
        Self {
            queues: vec![TransmitQueue::default(); usize::from(r::QUEUES)],
            frame: Vec::new(),
        }
    }

    pub(crate) fn state(&self, queue: u16) -> QueueState {
        self.queues
            .get(usize::from(queue))
            .map(|q| q.state)
            .unwrap_or_default()
    }

    pub(crate) fn set_state(&mut self, queue: u16, state: QueueState) {
        if let Some(slot) = self.queues.get_mut(usize::from(queue)) {
            slot.state = state;
        }
    }
}

impl Device {
    /// Sends everything that any queue holds: after the engine, the link or bus mastering came back.
    pub(crate) fn transmit_all(&mut self) {
        for queue in 0..r::QUEUES {
            if self.transmit.state(queue) == QueueState::Enabled {
                self.transmit_queue(queue);
            }
        }
    }

    /// Whether the engine may fetch descriptors now.
    fn transmit_allowed(&self) -> bool {
        self.dma_allowed()
            && self.registers.has(r::DMATXCTL, r::DMATXCTL_TE)
            && !self.registers.has(r::SECTXCTRL, r::SECTXCTRL_TX_DISABLE)
            && (self.link.is_up() || self.registers.has(r::HLREG0, r::HLREG0_LOOPBACK))
    }

    /// Sends the frames between head and tail of one queue.
    pub(crate) fn transmit_queue(&mut self, queue: u16) {
        if self.transmit.state(queue) != QueueState::Enabled || !self.transmit_allowed() {
            return;
        }
        let base = self.ring_base(r::transmit(queue, r::TDBAL));
        let slots = self.registers.get(r::transmit(queue, r::TDLEN)) / DESCRIPTOR_LENGTH as u32;
        let tail = self.registers.get(r::transmit(queue, r::TDT));
        let start = self.registers.get(r::transmit(queue, r::TDH));
        if slots == 0 || tail >= slots || start >= slots {
            return;
        }
        let mut frame = std::mem::take(&mut self.transmit.frame);
        let mut reported = false;
        let mut head = start;
        loop {
            match self.transmit_frame(queue, base, slots, tail, &mut head, &mut frame) {
                Ok(report) => reported |= report,
                Err(Stop::Idle) => break,
                Err(Stop::Stuck) => {
                    self.transmit.set_state(queue, QueueState::Stuck);
                    break;
                }
            }
        }
        self.registers.set(r::transmit(queue, r::TDH), head);
        self.transmit.frame = frame;
        if reported {
            self.write_back_head(queue, head);
            let allocation = self.registers.get(r::IVAR + u32::from(queue / 2) * 4) >> (16 * (queue & 1) + 8);
            self.interrupts.raise_queue(allocation as u8);
        }
    }

    /// Sends one frame, or takes one context descriptor; moves `head` behind it. True when a report was asked for.
    fn transmit_frame(
        &mut self,
        queue: u16,
        base: u64,
        slots: u32,
        tail: u32,
        head: &mut u32,
        frame: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        frame.clear();
        let mut at = *head;
        let mut request: Option<Request> = None;
        let mut refused: Option<Refused> = None;
        let mut report = false;
        let mut to_report = Vec::new();
        loop {
            if at == tail {
                if request.is_some() {
                    self.violations
                        .report(ViolationKind::UnfinishedFrame, Some(queue), u64::from(tail));
                }
                return Err(Stop::Idle);
            }
            let address = base + u64::from(at) * DESCRIPTOR_LENGTH;
            let words = self.read_descriptor(queue, address)?;
            let high = words.1;
            at = if at + 1 == slots { 0 } else { at + 1 };
            let extended = high & COMMAND_EXTENDED != 0;
            if extended && high >> 20 & 0xF == TYPE_CONTEXT {
                self.take_context(queue, words);
                if request.is_some() {
                    refused.get_or_insert(Refused {
                        kind: ViolationKind::TransmitDescriptorType,
                        value: high,
                    });
                } else {
                    *head = at;
                }
                continue;
            }
            if extended && (high >> 20 & 0xF != TYPE_DATA || high >> 16 & 3 != 0) {
                refused.get_or_insert(Refused {
                    kind: ViolationKind::TransmitDescriptorType,
                    value: high,
                });
            }
            let first = *request.get_or_insert(Request { words, extended });
            if first.extended != extended {
                refused.get_or_insert(Refused {
                    kind: ViolationKind::TransmitDescriptorType,
                    value: high,
                });
            }
            if let Err(problem) = self.gather(words, frame) {
                refused.get_or_insert(problem);
            }
            if high & COMMAND_REPORT != 0 {
                report = true;
                to_report.push((address, words));
            }
            if high & COMMAND_END != 0 {
                break;
            }
        }
        if let Some(request) = request {
            let sent = match refused {
                Some(problem) => Err(problem),
                None => self.finish_frame(queue, request, frame),
            };
            if let Err(problem) = sent {
                self.violations.report(problem.kind, Some(queue), problem.value);
                self.counters.tx_refused += 1;
            }
        }
        for (address, words) in to_report {
            self.write_back(queue, address, words);
        }
        *head = at;
        Ok(report)
    }

    fn read_descriptor(&mut self, queue: u16, address: u64) -> Result<(u64, u64), Stop> {
        let mut bytes = [0; 16];
        if self.memory.read(address, &mut bytes).is_err() {
            self.violations
                .report(ViolationKind::UnmappedDma, Some(queue), address);
            return Err(Stop::Stuck);
        }
        let (words, _) = bytes.as_chunks::<8>();
        Ok((u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])))
    }

    fn take_context(&mut self, queue: u16, (low, high): (u64, u64)) {
        let index = (high >> 36 & 7) as usize;
        if let Some(slot) = self
            .transmit
            .queues
            .get_mut(usize::from(queue))
            .and_then(|q| q.contexts.get_mut(index))
        {
            *slot = Some(Context::decode(low, high));
        } else {
            self.violations
                .report(ViolationKind::OffloadContext, Some(queue), high);
        }
    }

    /// Appends one buffer to the frame.
    fn gather(&self, (address, high): (u64, u64), frame: &mut Vec<u8>) -> Result<(), Refused> {
        let length = (high & 0xFFFF) as usize;
        if length == 0 {
            return Err(Refused {
                kind: ViolationKind::EmptyBuffer,
                value: high,
            });
        }
        let start = frame.len();
        if start + length > LONGEST_LARGE_SEND {
            return Err(Refused {
                kind: ViolationKind::FrameLength,
                value: (start + length) as u64,
            });
        }
        frame.resize(start + length, 0);
        let into = frame.get_mut(start..).unwrap_or_default();
        self.memory.read(address, into).map_err(|_| Refused {
            kind: ViolationKind::UnmappedDma,
            value: address,
        })
    }

    /// Applies the offloads that were asked for and sends.
    fn finish_frame(&mut self, queue: u16, request: Request, frame: &mut Vec<u8>) -> Result<(), Refused> {
        let high = request.words.1;
        let bad = |BadContext| Refused {
            kind: ViolationKind::OffloadContext,
            value: high,
        };
        let appends = self.registers.has(r::HLREG0, r::HLREG0_TX_CRC_ENABLE);
        if high & COMMAND_FRAME_CHECK == 0 && !appends {
            // Software brings its own check sequence; the wire carries frames without.
            frame.truncate(frame.len().saturating_sub(FRAME_CHECK_LENGTH));
        } else if high & COMMAND_FRAME_CHECK == 0 {
            return Err(Refused {
                kind: ViolationKind::MissingFrameChecksum,
                value: high,
            });
        }
        if !request.extended {
            let (start, at) = ((high >> 40 & 0xFF) as usize, (high >> 16 & 0xFF) as usize);
            if high & COMMAND_LEGACY_CHECKSUM != 0 {
                offload::insert_legacy_checksum(frame, start, at).map_err(bad)?;
            }
            let tag = (high & COMMAND_VLAN != 0).then_some((high >> 48) as u16);
            return self.send(queue, frame, tag);
        }
        if high >> 32 & 0xF != 0 {
            return Err(Refused {
                kind: ViolationKind::ReservedDescriptorBits,
                value: high,
            });
        }
        let options = high & (OPTION_NETWORK | OPTION_TRANSPORT | COMMAND_VLAN | COMMAND_SEGMENT);
        let index = (high >> 36 & 7) as usize;
        let context = self
            .transmit
            .queues
            .get(usize::from(queue))
            .and_then(|q| q.contexts.get(index).copied().flatten());
        let context = match (options, context) {
            (0, _) => Context::default(),
            (_, Some(context)) => context,
            (_, None) => return Err(bad(BadContext)),
        };
        let tag = (high & COMMAND_VLAN != 0).then_some(context.vlan);
        let payload_length = (high >> 46) as usize;
        if high & COMMAND_SEGMENT != 0 {
            let header_length = context.mac_length + context.network_length + context.transport_length;
            if payload_length + header_length != frame.len() {
                return Err(Refused {
                    kind: ViolationKind::PayloadLength,
                    value: payload_length as u64,
                });
            }
            return self.send_segments(queue, frame, &context, tag).map_err(bad);
        }
        if payload_length != frame.len() {
            return Err(Refused {
                kind: ViolationKind::PayloadLength,
                value: payload_length as u64,
            });
        }
        if high & OPTION_NETWORK != 0 {
            offload::insert_network_checksum(frame, &context).map_err(bad)?;
        }
        if high & OPTION_TRANSPORT != 0 {
            offload::insert_transport_checksum(frame, &context, 0).map_err(bad)?;
        }
        self.send(queue, frame, tag)
    }

    fn send_segments(
        &mut self,
        queue: u16,
        frame: &[u8],
        context: &Context,
        tag: Option<u16>,
    ) -> Result<(), BadContext> {
        let low = self.registers.get(r::DTXTCPFLGL);
        let flags = FlagMasks {
            first: (low & 0xFFF) as u16,
            middle: (low >> 16 & 0xFFF) as u16,
            last: (self.registers.get(r::DTXTCPFLGH) & 0xFFF) as u16,
        };
        let mut fits = true;
        offload::segment(frame, context, flags, |segment| {
            fits &= self.send(queue, segment, tag).is_ok()
        })?;
        if fits { Ok(()) } else { Err(BadContext) }
    }

    /// A finished frame leaves the MAC.
    fn send(&mut self, queue: u16, frame: &mut Vec<u8>, tag: Option<u16>) -> Result<(), Refused> {
        if !FRAME_LENGTHS.contains(&frame.len()) {
            return Err(Refused {
                kind: ViolationKind::FrameLength,
                value: frame.len() as u64,
            });
        }
        if let Some(tag) = tag {
            offload::insert_vlan(frame, (self.registers.get(r::DMATXCTL) >> 16) as u16, tag);
        }
        if frame.len() < SHORTEST_FRAME {
            if !self.registers.has(r::HLREG0, r::HLREG0_TX_PAD_ENABLE) {
                return Err(Refused {
                    kind: ViolationKind::FrameLength,
                    value: frame.len() as u64,
                });
            }
            frame.resize(SHORTEST_FRAME, 0);
        }
        self.count_transmitted(queue, frame);
        if self.registers.has(r::HLREG0, r::HLREG0_LOOPBACK) {
            let frame = frame.clone();
            self.enter(&frame);
        } else if self.faults.is_clean(Direction::Tx) {
            self.leave(frame);
        } else {
            for frame in self.faults.pass(Direction::Tx, frame, self.now_ns) {
                self.leave(&frame);
            }
        }
        Ok(())
    }

    /// A frame goes onto the wire.
    pub(crate) fn leave(&mut self, frame: &[u8]) {
        self.capture(frame);
        self.wire.transmit(frame);
    }

    fn count_transmitted(&mut self, queue: u16, frame: &[u8]) {
        let wire_length = frame.len() + FRAME_CHECK_LENGTH;
        for counter in [r::TPT, r::GPTC, r::PTC64 + size_class(wire_length), r::TXDGPC] {
            self.registers.count(counter, 1);
        }
        self.registers.count_wide(r::GOTCL, wire_length as u64);
        self.registers.count_wide(r::TXDGBCL, frame.len() as u64);
        match frame.first_chunk::<6>() {
            Some([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]) => self.registers.count(r::BPTC, 1),
            Some([first, ..]) if first & 1 != 0 => self.registers.count(r::MPTC, 1),
            _ => {}
        }
        let statistic = self.registers.get(r::TQSM + u32::from(queue & !3)) >> (8 * (queue & 3)) & 0xF;
        self.registers.count(r::QPTC + 4 * statistic, 1);
        self.registers
            .count_wide(r::QBTC + 8 * statistic, frame.len() as u64);
        self.counters.count_tx(queue, frame.len());
    }

    /// Marks a descriptor as done, unless the head is written back instead.
    fn write_back(&mut self, queue: u16, address: u64, (low, high): (u64, u64)) {
        if self.registers.get(r::transmit(queue, r::TDWBAL)) & 1 != 0 {
            return;
        }
        let extended = high & COMMAND_EXTENDED != 0;
        let (low, high) = if extended { (0, DONE) } else { (low, high | DONE) };
        let written = self
            .memory
            .store_u64(address, low)
            .and_then(|()| self.memory.store_u64(address + 8, high));
        if written.is_err() {
            self.violations
                .report(ViolationKind::UnmappedDma, Some(queue), address);
        }
    }

    /// Writes the head to memory when the queue is set up for it (datasheet 7.2.3.5.2).
    fn write_back_head(&mut self, queue: u16, head: u32) {
        let low = self.registers.get(r::transmit(queue, r::TDWBAL));
        if low & 1 == 0 {
            return;
        }
        let high = self.registers.get(r::transmit(queue, r::TDWBAH));
        let address = u64::from(high) << 32 | u64::from(low & !3);
        if self.memory.write(address, &head.to_le_bytes()).is_err() {
            self.violations
                .report(ViolationKind::UnmappedDma, Some(queue), address);
        }
    }
}
