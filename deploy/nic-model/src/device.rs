//! The device as a whole: what a host does to it, and the side effects of its registers (datasheet 4, 8.2).
//!
//! Belongs to one thread. Has no clock of its own: its host says what time it is with [`Device::advance_to`]. The paths of
//! frames are in `receive.rs` and `transmit.rs`, plain register behaviour in `register_file.rs`.

use crate::capture::Capture;
use crate::config_space::ConfigSpace;
use crate::counters::Counters;
use crate::eeprom::Eeprom;
use crate::faults::{Direction, Faults};
use crate::interrupts::{InterruptLines, Interrupts};
use crate::link::Link;
use crate::receive::{QueueState, ReceivePath};
use crate::register_file::{NamedRegister, RegisterFile, Written};
use crate::registers as r;
use crate::sfp::SfpModule;
use crate::transmit::TransmitPath;
use crate::violations::{Violation, ViolationKind, Violations};
use crate::wire::Wire;
use guest_memory::GuestMemory;
use std::time::Duration;

/// What differs from one card to another.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Address in the EEPROM.
    pub mac: [u8; 6],
    /// Seed of faults that are switched on without one.
    pub seed: u64,
    /// How long the link takes to come up after it was restarted. A software reset alone leaves the link up.
    pub link_training: Duration,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            mac: [0x02, 0x82, 0x99, 0, 0, 1],
            seed: 1,
            link_training: Duration::from_millis(20),
        }
    }
}

/// A software model of one 82599 function.
pub struct Device {
    pub(crate) registers: RegisterFile,
    pub(crate) config_space: ConfigSpace,
    pub(crate) memory: GuestMemory,
    pub(crate) interrupts: Interrupts,
    pub(crate) lines: InterruptLines,
    pub(crate) link: Link,
    pub(crate) faults: Faults,
    pub(crate) violations: Violations,
    pub(crate) counters: Counters,
    pub(crate) receive: ReceivePath,
    pub(crate) transmit: TransmitPath,
    pub(crate) wire: Box<dyn Wire + Send>,
    pub(crate) wire_buffer: Vec<u8>,
    pub(crate) now_ns: u64,
    config: DeviceConfig,
    eeprom: Eeprom,
    sfp: SfpModule,
    capture: Option<Capture>,
    interrupt_due_ns: Option<u64>,
}

impl Device {
    /// A device that has just been powered on, plugged into `wire`.
    pub fn new(config: DeviceConfig, wire: Box<dyn Wire + Send>) -> Self {
        let mut device = Self {
            registers: RegisterFile::new(),
            config_space: ConfigSpace::new(config.mac),
            memory: GuestMemory::new(),
            interrupts: Interrupts::new(),
            lines: InterruptLines::new(),
            link: Link::new(u64::try_from(config.link_training.as_nanos()).unwrap_or(u64::MAX)),
            faults: Faults::new(config.seed),
            violations: Violations::default(),
            counters: Counters::default(),
            receive: ReceivePath::new(),
            transmit: TransmitPath::new(),
            wire,
            wire_buffer: Vec::new(),
            now_ns: 0,
            eeprom: Eeprom::new(config.mac),
            sfp: SfpModule::short_range(),
            capture: None,
            interrupt_due_ns: None,
            config,
        };
        device.load_after_reset();
        device
    }

    /// Guest memory, to map windows and, in tests, to read and write.
    pub fn memory(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    /// Where interrupts go.
    pub fn lines(&mut self) -> &mut InterruptLines {
        &mut self.lines
    }

    /// Interrupt vectors signalled since the last call, in order.
    pub fn take_interrupts(&mut self) -> Vec<u16> {
        self.lines.take_signalled()
    }

    /// What the driver did that the datasheet forbids.
    pub fn violations(&self) -> &[Violation] {
        self.violations.list()
    }

    /// Forgets the violations noted so far.
    pub fn clear_violations(&mut self) {
        self.violations.clear();
    }

    /// Frames sent since the last call, when the wire keeps them.
    pub fn take_transmitted(&mut self) -> Vec<Vec<u8>> {
        self.wire.take_transmitted()
    }

    /// The wire, to sleep on.
    pub fn wire(&self) -> &(dyn Wire + Send) {
        self.wire.as_ref()
    }

    /// The model's own counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The MAC address in the EEPROM.
    pub fn mac(&self) -> [u8; 6] {
        self.config.mac
    }

    /// The EEPROM, to spoil it.
    pub fn eeprom(&mut self) -> &mut Eeprom {
        &mut self.eeprom
    }

    /// Whether the link is up, and how often it has changed.
    pub fn link_state(&self) -> (bool, u64) {
        (self.link.is_up(), self.link.changes())
    }

    /// Plugs the cable in or pulls it.
    pub fn set_link(&mut self, plugged: bool) {
        self.link.set_cable(plugged, self.now_ns);
        self.settle();
    }

    /// Faults, to switch them on and off. Call [`Device::settle`] afterwards.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Registers whose name starts with `prefix`; with an empty one all that aren't zero.
    pub fn registers(&self, prefix: &str) -> Vec<NamedRegister> {
        let mut list = self.registers.named(prefix);
        for register in &mut list {
            match register.offset {
                r::EICR => register.value = self.interrupts.causes(),
                r::EIMS => register.value = self.interrupts.mask(),
                r::EIMS_EX => register.value = self.interrupts.mask_extended(0),
                _ => {}
            }
        }
        list.retain(|register| !prefix.is_empty() || register.value != 0);
        list
    }

    /// Starts a capture of what passes on the wire, or ends it.
    pub fn set_capture(&mut self, capture: Option<Capture>) {
        self.capture = capture;
    }

    /// Frames captured, while a capture runs.
    pub fn captured(&mut self) -> Option<u64> {
        let capture = self.capture.as_mut()?;
        if let Err(error) = capture.flush() {
            log::warn!("the capture can't be written: {error}");
        }
        Some(capture.frames())
    }

    /// Sets the time, in nanoseconds since the device was made, and does what has become due.
    pub fn advance_to(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if self.next_due_ns().is_some_and(|due| due <= self.now_ns) {
            if let Some(frame) = self.faults.overdue(Direction::Rx, self.now_ns) {
                self.enter(&frame);
            }
            if let Some(frame) = self.faults.overdue(Direction::Tx, self.now_ns) {
                self.leave(&frame);
            }
            self.settle();
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        self.advance_to(self.now_ns + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2));
    }

    /// When something becomes due next, in the time of [`Device::advance_to`].
    pub fn next_due_ns(&self) -> Option<u64> {
        [
            self.interrupt_due_ns,
            self.link.next_due_ns(),
            self.faults.next_due_ns(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Brings link, waiting frames and interrupts up to date after something changed.
    pub fn settle(&mut self) {
        if self.link.update(&mut self.registers, self.now_ns) {
            log::info!("link {}", if self.link.is_up() { "up" } else { "down" });
            self.interrupts.raise_other(r::CAUSE_LINK_STATUS_CHANGE);
            self.transmit_all();
        }
        self.signal();
    }

    /// Sends interrupts that are due.
    fn signal(&mut self) {
        let signalling = self.config_space.signalling();
        let faults = &mut self.faults;
        self.interrupt_due_ns =
            self.interrupts
                .deliver(&self.registers, signalling, self.now_ns, &mut self.lines, || {
                    faults.lose_interrupt()
                });
    }

    /// The host has served the pin: signals it again when a cause is still active.
    pub fn pin_served(&mut self) {
        if self.lines.unmask_pin() {
            self.interrupts.rearm();
            self.signal();
        }
    }

    /// Reads configuration space.
    pub fn config_read(&mut self, offset: usize, into: &mut [u8]) {
        self.counters.config_reads += 1;
        self.config_space.read(offset, into);
    }

    /// Writes configuration space. When it returns, a device whose bus mastering went off does no DMA any more.
    pub fn config_write(&mut self, offset: usize, from: &[u8]) {
        self.counters.config_writes += 1;
        let change = self.config_space.write(offset, from);
        if change.reset {
            self.function_reset();
        }
        if change.bus_master == Some(true) {
            self.resume_dma();
        }
        self.settle();
    }

    /// Function-level reset, or the host's reset of the whole device.
    pub fn reset(&mut self) {
        self.config_space.reset();
        self.function_reset();
        self.settle();
    }

    fn function_reset(&mut self) {
        self.counters.function_resets += 1;
        self.reset_queues();
        self.registers = RegisterFile::new();
        self.load_after_reset();
    }

    /// Continues what waited for the DMA engine.
    pub(crate) fn resume_dma(&mut self) {
        self.drain_receive_buffer();
        self.transmit_all();
    }

    /// Stops or starts the DMA engine: a fault on request.
    pub fn set_dma_stopped(&mut self, stopped: bool) {
        self.faults.dma_stopped = stopped;
        if !stopped {
            self.resume_dma();
        }
        self.settle();
    }

    /// Makes resets hang, or lets them work again. One that hangs goes on until the driver asks for another: a reset that
    /// finished late would wipe what the driver, having given up on it, has configured since.
    pub fn set_hang_on_reset(&mut self, hang: bool) {
        self.faults.hang_on_reset = hang;
    }

    /// Switches every fault off.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
        self.resume_dma();
        self.settle();
    }

    /// Whether the device may use guest memory now.
    pub(crate) fn dma_allowed(&self) -> bool {
        self.config_space.bus_master()
            && !self.faults.dma_stopped
            && self.registers.get(r::CTRL) & (r::CTRL_MASTER_DISABLE | r::CTRL_RST) == 0
    }

    /// Base address of the ring whose low half is at `low`.
    pub(crate) fn ring_base(&self, low: u32) -> u64 {
        u64::from(self.registers.get(low + 4)) << 32 | u64::from(self.registers.get(low))
    }

    /// Adds a frame to the capture, when one runs.
    pub(crate) fn capture(&mut self, frame: &[u8]) {
        if let Some(capture) = &mut self.capture
            && let Err(error) = capture.add(frame)
        {
            log::warn!("capture ends, its file can't be written: {error}");
            self.capture = None;
        }
    }

    /// Reads a 32-bit register.
    pub fn mmio_read32(&mut self, offset: u32) -> u32 {
        self.counters.mmio_reads += 1;
        if !offset.is_multiple_of(4) {
            self.violations
                .report(ViolationKind::AccessWidth, None, u64::from(offset));
        }
        let offset = r::canonical(offset & !3);
        match offset {
            r::EICR => {
                let value = self.interrupts.read_causes(&self.registers);
                self.signal();
                value
            }
            r::EICS => self.interrupts.causes(),
            r::EIMS => self.interrupts.mask(),
            r::EIMS_EX | 0x00AA4 => self.interrupts.mask_extended((offset - r::EIMS_EX) / 4),
            r::FRTIMER => (self.now_ns / 1000) as u32,
            r::SWSM => {
                let value = self.registers.get(r::SWSM);
                self.registers.set(r::SWSM, value | r::SWSM_SMBI);
                value
            }
            _ => {
                if let Some((queue, register)) = r::receive_queue(offset)
                    && register == r::RXDCTL
                    && self.receive.state(queue) == QueueState::Enabling
                {
                    self.receive.set_state(queue, QueueState::Enabled);
                    self.drain_receive_buffer();
                } else if let Some((queue, r::TXDCTL)) = r::transmit_queue(offset)
                    && self.transmit.state(queue) == QueueState::Enabling
                {
                    self.transmit.set_state(queue, QueueState::Enabled);
                }
                self.registers.read(offset).unwrap_or_else(|| {
                    self.counters.undefined_reads += 1;
                    log::debug!("read of undefined register {offset:#x}");
                    0
                })
            }
        }
    }

    /// Writes a 32-bit register.
    pub fn mmio_write32(&mut self, offset: u32, value: u32) {
        self.counters.mmio_writes += 1;
        if !offset.is_multiple_of(4) {
            self.violations
                .report(ViolationKind::AccessWidth, None, u64::from(offset));
        }
        let offset = r::canonical(offset & !3);
        if self.write_interrupts(offset, value) {
            self.signal();
            return;
        }
        if let Some((queue, register)) = r::receive_queue(offset) {
            self.write_receive_queue(queue, register, offset, value);
        } else if let Some((queue, register)) = r::transmit_queue(offset) {
            self.write_transmit_queue(queue, register, offset, value);
        } else {
            self.write_general(offset, value);
        }
        self.settle();
    }

    /// Interrupt registers that keep no plain value; false for others.
    fn write_interrupts(&mut self, offset: u32, value: u32) -> bool {
        match offset {
            r::EICR => self.interrupts.clear_causes(value),
            r::EICS => self.interrupts.set_causes(value),
            r::EIMS => self.interrupts.enable(value),
            r::EIMC => self.interrupts.disable(value),
            r::EICS_EX | 0x00A94 => self
                .interrupts
                .set_causes_extended((offset - r::EICS_EX) / 4, value),
            r::EIMS_EX | 0x00AA4 => self.interrupts.enable_extended((offset - r::EIMS_EX) / 4, value),
            r::EIMC_EX | 0x00AB4 => self.interrupts.disable_extended((offset - r::EIMC_EX) / 4, value),
            _ => return false,
        }
        true
    }

    fn write_general(&mut self, offset: u32, value: u32) {
        match offset {
            r::CTRL => self.write_control(value),
            r::I2CCTL => {
                let result = self.sfp.write(value);
                self.registers.set(r::I2CCTL, result);
            }
            r::ESDP => {
                let present = if value & r::ESDP_MODULE_PIN_IS_OUTPUT == 0 {
                    r::ESDP_MODULE_PRESENT
                } else {
                    0
                };
                self.registers
                    .set(r::ESDP, value & !r::ESDP_MODULE_PRESENT | present);
            }
            r::EERD => self.registers.set(r::EERD, self.eeprom.read_request(value)),
            r::EEC => {
                let grant = if value & r::EEC_REQUEST != 0 {
                    r::EEC_GRANT
                } else {
                    0
                };
                let writable = r::EEC_REQUEST | 0x3F;
                self.registers
                    .update(r::EEC, writable | r::EEC_GRANT, value & writable | grant);
            }
            r::AUTOC => {
                self.registers.set(r::AUTOC, value & !r::AUTOC_RESTART);
                if value & r::AUTOC_RESTART != 0 {
                    self.link.restart(self.now_ns);
                }
            }
            r::MSCA => {
                // No PHY answers on this bus: the command ends, and reads give ones.
                self.registers.set(r::MSCA, value & !r::MSCA_COMMAND);
                self.registers.set(r::MSRWD, 0xFFFF_0000);
            }
            r::FDIRCTRL => self.registers.set(r::FDIRCTRL, value | r::FDIRCTRL_INIT_DONE),
            // Filter commands complete at once: no filter is kept, every lookup misses.
            r::FDIRCMD => self.registers.set(r::FDIRCMD, value & !3),
            r::RSSRK..=r::RSSRK_LAST => {
                self.registers.write(offset, value);
                self.receive.rss_key = None;
            }
            r::RXCTRL => {
                self.registers.write(r::RXCTRL, value);
                let crc = self.registers.has(r::RDRXCTL, r::RDRXCTL_CRC_STRIP)
                    == self.registers.has(r::HLREG0, r::HLREG0_RX_CRC_STRIP);
                if value & r::RXCTRL_RXEN != 0 && !crc {
                    let rdrxctl = u64::from(self.registers.get(r::RDRXCTL));
                    self.violations
                        .report(ViolationKind::CrcStripMismatch, None, rdrxctl);
                }
            }
            r::DMATXCTL | r::SECTXCTRL | r::HLREG0 => {
                self.registers.write(offset, value);
                self.transmit_all();
            }
            _ => {
                if let Some(vector) = r::eitr_vector(offset) {
                    self.interrupts.throttle_written(vector, value);
                }
                if self.registers.write(offset, value) == Written::Undefined {
                    self.violations
                        .report(ViolationKind::UndefinedRegister, None, u64::from(offset));
                }
            }
        }
    }

    fn write_control(&mut self, value: u32) {
        let reset = value & (r::CTRL_RST | r::CTRL_LRST);
        self.registers.set(r::CTRL, value);
        let master = if value & r::CTRL_MASTER_DISABLE != 0 {
            0
        } else {
            r::STATUS_MASTER_ENABLED
        };
        self.registers.update(r::STATUS, r::STATUS_MASTER_ENABLED, master);
        if reset != 0 && !self.faults.hang_on_reset {
            self.software_reset(reset & r::CTRL_LRST != 0);
        } else if reset != 0 {
            log::info!("a reset hangs, as asked for");
            self.reset_queues();
        } else if master != 0 {
            self.resume_dma();
        }
    }

    /// Software reset, and with `link` also a link reset (datasheet 4.2.1.6).
    fn software_reset(&mut self, link: bool) {
        self.counters.resets += 1;
        self.reset_queues();
        self.registers.reset();
        self.load_after_reset();
        if link {
            self.link.restart(self.now_ns);
        }
    }

    fn reset_queues(&mut self) {
        self.receive = ReceivePath::new();
        self.transmit = TransmitPath::new();
        self.interrupts.reset();
        self.interrupt_due_ns = None;
    }

    /// What hardware loads from the EEPROM after a reset, and the state that the reset didn't touch.
    fn load_after_reset(&mut self) {
        let word = |at: u16| u32::from(self.eeprom.word(at));
        let (low, high) = (word(0x61) | word(0x62) << 16, word(0x63));
        self.registers.set(r::RAL, low);
        self.registers.set(r::RAL + 4, high | r::RAH_VALID);
        self.link.show(&mut self.registers);
    }
}
