//! What a driver did that the datasheet forbids.
//!
//! Each kind is counted per queue, so that a driver that repeats itself can't fill the memory; the first of each is logged.

use serde::Serialize;
use std::fmt;

/// Kinds of forbidden behaviour, with the datasheet's section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViolationKind {
    /// A tail register was set to or beyond the ring's length (7.1.9, 7.2.3.3). Value: the tail.
    TailBeyondRing,
    /// A tail was moved while its queue was not enabled (4.6.7, 4.6.8). Value: the tail.
    TailWhileDisabled,
    /// A head was written while its queue was enabled (8.2.3.8.4). Value: the head.
    HeadWhileEnabled,
    /// A queue was enabled before its base or its length was set (4.6.7, 4.6.8). Value: base.
    EnabledWithoutRing,
    /// A ring's length is not a multiple of 128 bytes (8.2.3.8.3). Value: the length.
    RingLength,
    /// A ring's base is not 128-byte aligned (8.2.3.8.1). Value: the written low half.
    RingAlignment,
    /// Base or length of an enabled queue was changed. Value: what was written.
    RingChangedWhileEnabled,
    /// The device was told to use memory that the guest did not map. Value: the address.
    UnmappedDma,
    /// Queues were given work while the PCI command register forbids bus mastering. Value: the tail.
    WorkWithoutBusMaster,
    /// A receive queue was enabled with a buffer size of zero or beyond 16 KiB (8.2.3.8.7). Value: SRRCTL.
    ReceiveBufferSize,
    /// Header split, whose behaviour is unpredictable (specification update, 8.2.3.8.7). Value: SRRCTL.
    HeaderSplit,
    /// A reserved descriptor type in SRRCTL (8.2.3.8.7). Value: SRRCTL.
    ReceiveDescriptorType,
    /// RDRXCTL.CRCSTRIP and HLREG0.RXCRCSTRP differ while receiving (8.2.3.8.8). Value: RDRXCTL.
    CrcStripMismatch,
    /// A transmit queue was enabled before DMATXCTL.TE (4.6.8). Value: TXDCTL.
    TransmitQueueBeforeEngine,
    /// A transmit descriptor of a reserved type, or an advanced one in a legacy frame (7.2.3.2). Value: second word.
    TransmitDescriptorType,
    /// Reserved bits of a transmit descriptor are set (7.2.3.2). Value: second word.
    ReservedDescriptorBits,
    /// PAYLEN differs from what the frame's descriptors add up to (7.2.3.2.4). Value: PAYLEN.
    PayloadLength,
    /// A transmit buffer of zero bytes in a frame (7.2.3.2.4). Value: second word.
    EmptyBuffer,
    /// An offload without a context descriptor before it, or one whose offsets lie outside the frame (7.2.3.2.3).
    /// Value: context.
    OffloadContext,
    /// A frame shorter than 17 bytes or longer than the device sends (7.2.1.1). Value: its length.
    FrameLength,
    /// A frame without IFCS while the MAC appends no checksum of its own (7.2.3.2.4). Value: second word.
    MissingFrameChecksum,
    /// A frame was started and the tail ended before its last descriptor (7.2.3.3). Value: the tail.
    UnfinishedFrame,
    /// Head write-back to an address that is not a multiple of 4, or 16 in practice (7.2.3.5.2). Value: the address.
    HeadWriteBackAlignment,
    /// A write to a register that doesn't exist. Value: offset.
    UndefinedRegister,
    /// An access that is not 32 bits wide, or not aligned (8.2.1). Value: offset.
    AccessWidth,
}

/// One kind of violation on one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What was wrong.
    pub kind: ViolationKind,
    /// The queue, when it concerns one.
    pub queue: Option<u16>,
    /// What was written the last time; see the kind.
    pub value: u64,
    /// How often.
    pub count: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(queue) = self.queue {
            write!(f, " on queue {queue}")?;
        }
        write!(f, ": {:#x} ({} times)", self.value, self.count)
    }
}

/// All violations so far.
#[derive(Default)]
pub struct Violations {
    list: Vec<Violation>,
}

impl Violations {
    /// Notes one violation.
    pub fn report(&mut self, kind: ViolationKind, queue: Option<u16>, value: u64) {
        match self.list.iter_mut().find(|v| v.kind == kind && v.queue == queue) {
            Some(known) => {
                known.value = value;
                known.count += 1;
            }
            None => {
                let violation = Violation {
                    kind,
                    queue,
                    value,
                    count: 1,
                };
                log::warn!("driver violation: {violation}");
                self.list.push(violation);
            }
        }
    }

    /// What was noted, in the order of first appearance.
    pub fn list(&self) -> &[Violation] {
        &self.list
    }

    /// Forgets everything noted.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}
