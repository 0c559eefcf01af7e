//! Writes to the registers of a queue: enabling, tails, and the order the datasheet asks for (4.6.7, 4.6.8).

use crate::device::Device;
use crate::receive::QueueState;
use crate::registers as r;
use crate::violations::ViolationKind;

/// Most bytes of a ring (datasheet 8.2.3.8.3: 64K descriptors at most, in 20 bits).
const RING_ALIGNMENT: u32 = 128;

impl Device {
    pub(crate) fn write_receive_queue(&mut self, queue: u16, register: u32, offset: u32, value: u32) {
        let enabled = self.receive.state(queue) != QueueState::Disabled;
        match register {
            r::RDT => {
                let slots = self.registers.get(r::receive(queue, r::RDLEN)) / 16;
                let head = self.registers.get(r::receive(queue, r::RDH));
                if !self.tail_is_good(queue, value, slots, head, self.receive.state(queue)) {
                    return;
                }
                self.registers.write(offset, value);
                self.drain_receive_buffer();
            }
            r::RXDCTL => {
                self.registers.write(offset, value);
                let enable = value & r::DCTL_ENABLE != 0;
                if enable && !enabled {
                    let good =
                        self.ring_is_good(queue, r::receive(queue, r::RDBAL)) & self.buffers_are_good(queue);
                    let state = if good {
                        QueueState::Enabling
                    } else {
                        QueueState::Disabled
                    };
                    self.receive.set_state(queue, state);
                    if !good {
                        self.registers.update(offset, r::DCTL_ENABLE, 0);
                    }
                } else if !enable {
                    self.receive.set_state(queue, QueueState::Disabled);
                    // What waits for this queue is dropped, so that it doesn't block the others.
                    self.drain_receive_buffer();
                }
            }
            r::RDH if enabled => {
                self.violations
                    .report(ViolationKind::HeadWhileEnabled, Some(queue), u64::from(value))
            }
            r::RDBAL | r::RDBAH | r::RDLEN => self.write_ring(queue, offset, register, value, enabled),
            _ => {
                self.registers.write(offset, value);
            }
        }
    }

    pub(crate) fn write_transmit_queue(&mut self, queue: u16, register: u32, offset: u32, value: u32) {
        let enabled = self.transmit.state(queue) != QueueState::Disabled;
        match register {
            r::TDT => {
                let slots = self.registers.get(r::transmit(queue, r::TDLEN)) / 16;
                let head = self.registers.get(r::transmit(queue, r::TDH));
                if !self.tail_is_good(queue, value, slots, head, self.transmit.state(queue)) {
                    return;
                }
                self.registers.write(offset, value);
                self.transmit_queue(queue);
            }
            r::TXDCTL => {
                self.registers.write(offset, value);
                let enable = value & r::DCTL_ENABLE != 0;
                if enable && !enabled {
                    let good = self.ring_is_good(queue, r::transmit(queue, r::TDBAL));
                    if !self.registers.has(r::DMATXCTL, r::DMATXCTL_TE) {
                        let kind = ViolationKind::TransmitQueueBeforeEngine;
                        self.violations.report(kind, Some(queue), u64::from(value));
                    }
                    let state = if good {
                        QueueState::Enabling
                    } else {
                        QueueState::Disabled
                    };
                    self.transmit.set_state(queue, state);
                    if !good {
                        self.registers.update(offset, r::DCTL_ENABLE, 0);
                    }
                } else if !enable {
                    self.transmit.set_state(queue, QueueState::Disabled);
                }
            }
            r::TDH if enabled => {
                self.violations
                    .report(ViolationKind::HeadWhileEnabled, Some(queue), u64::from(value))
            }
            r::TDWBAL => {
                if value & 1 != 0 && value & 0xC != 0 {
                    let kind = ViolationKind::HeadWriteBackAlignment;
                    self.violations.report(kind, Some(queue), u64::from(value));
                }
                self.registers.write(offset, value);
            }
            r::TDBAL | r::TDBAH | r::TDLEN => {
                self.write_ring(queue, offset, register - 0x6000, value, enabled)
            }
            _ => {
                self.registers.write(offset, value);
            }
        }
    }

    /// Base or length of a ring; `register` is `RDBAL`, `RDBAH` or `RDLEN`, to which the transmit ones are mapped.
    fn write_ring(&mut self, queue: u16, offset: u32, register: u32, value: u32, enabled: bool) {
        let mut report = |kind| self.violations.report(kind, Some(queue), u64::from(value));
        if enabled && self.registers.get(offset) != value {
            report(ViolationKind::RingChangedWhileEnabled);
        }
        if register == r::RDBAL && !value.is_multiple_of(RING_ALIGNMENT) {
            report(ViolationKind::RingAlignment);
        }
        if register == r::RDLEN && !value.is_multiple_of(RING_ALIGNMENT) {
            report(ViolationKind::RingLength);
        }
        self.registers.write(offset, value);
    }

    /// Whether a ring may be enabled; `base` is the offset of its base register, its length follows at 8.
    fn ring_is_good(&mut self, queue: u16, base: u32) -> bool {
        let address = self.ring_base(base);
        let length = self.registers.get(base + 8);
        if address == 0 || length == 0 {
            self.violations
                .report(ViolationKind::EnabledWithoutRing, Some(queue), address);
            return false;
        }
        length.is_multiple_of(RING_ALIGNMENT)
    }

    /// Whether a receive queue's buffers and descriptor type make sense; header split works as one buffer.
    fn buffers_are_good(&mut self, queue: u16) -> bool {
        let srrctl = self.registers.get(r::receive(queue, r::SRRCTL));
        let mut report = |kind| self.violations.report(kind, Some(queue), u64::from(srrctl));
        match srrctl >> 25 & 7 {
            0 | 1 => {}
            2 | 5 => report(ViolationKind::HeaderSplit),
            _ => {
                report(ViolationKind::ReceiveDescriptorType);
                return false;
            }
        }
        let good = (1..=16).contains(&(srrctl & 0x1F));
        if !good {
            report(ViolationKind::ReceiveBufferSize);
        }
        good
    }

    /// Whether a tail may be stored.
    fn tail_is_good(&mut self, queue: u16, tail: u32, slots: u32, head: u32, state: QueueState) -> bool {
        let mut report = |kind| self.violations.report(kind, Some(queue), u64::from(tail));
        if tail >= slots.max(1) {
            report(ViolationKind::TailBeyondRing);
            return false;
        }
        if state != QueueState::Enabled {
            // An empty ring moves nothing: drivers write zeros to start from a known state.
            if tail != head && tail != 0 {
                report(ViolationKind::TailWhileDisabled);
                return false;
            }
            return true;
        }
        if !self.config_space.bus_master() {
            report(ViolationKind::WorkWithoutBusMaster);
        }
        true
    }
}
