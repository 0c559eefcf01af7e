//! Interrupt causes, masks, throttling and messages (datasheet 7.3 "Interrupts", 8.2.3.5).
//!
//! Keeps causes by vector as IVAR distributes them, decides when a message leaves, and remembers those that had nobody
//! to go to yet. Where a message goes (an eventfd, a test's list) is the caller's `InterruptLines`.

use crate::register_file::RegisterFile;
use crate::registers as r;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Throttling interval unit at 10 and 1 Gb/s, in nanoseconds (datasheet 8.2.3.5.13: 2.048 µs, in bits 3 to 11).
const ITR_UNIT_NS: u64 = 2048;
/// Causes that belong to queues.
const QUEUE_CAUSES: u32 = 0xFFFF;
/// Signals kept for [`InterruptLines::take_signalled`]; older ones are forgotten.
const RECORD_LIMIT: usize = 4096;

/// How the function signals interrupts, as its configuration space says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalling {
    /// MSI-X is enabled.
    MsiX,
    /// MSI is enabled.
    Msi,
    /// Neither is: the INTx pin.
    Pin,
}

/// Where messages go: one line per vector, and the pin.
#[derive(Default)]
pub struct InterruptLines {
    vectors: Vec<Line>,
    message: Line,
    pin: Line,
    pin_masked: bool,
    /// Messages in order, for a host that has no eventfds.
    record: VecDeque<u16>,
}

/// One destination.
#[derive(Default)]
struct Line {
    eventfd: Option<OwnedFd>,
    /// A message that came before there was a destination.
    pending: bool,
    sent: u64,
}

impl Line {
    fn send(&mut self) {
        self.sent += 1;
        match &self.eventfd {
            Some(fd) => notify(fd),
            None => self.pending = true,
        }
    }

    fn attach(&mut self, eventfd: Option<OwnedFd>) {
        if let Some(fd) = &eventfd
            && self.pending
        {
            notify(fd);
            self.pending = false;
        }
        self.eventfd = eventfd;
    }
}

/// Adds one to an eventfd. Its counter can't overflow in practice, and a reader that is gone is not our error.
fn notify(fd: &OwnedFd) {
    if let Err(error) = rustix::io::write(fd, &1u64.to_ne_bytes()) {
        log::debug!("eventfd refused an interrupt: {error}");
    }
}

impl InterruptLines {
    /// Lines without destinations.
    pub fn new() -> Self {
        let vectors = (0..r::VECTORS).map(|_| Line::default()).collect();
        Self {
            vectors,
            ..Self::default()
        }
    }

    /// Gives vector `vector` of a kind a destination, or takes it away. Vectors that don't exist are ignored.
    pub fn attach(&mut self, signalling: Signalling, vector: u16, eventfd: Option<OwnedFd>) {
        match signalling {
            Signalling::MsiX => {
                if let Some(line) = self.vectors.get_mut(usize::from(vector)) {
                    line.attach(eventfd);
                }
            }
            Signalling::Msi => self.message.attach(eventfd),
            Signalling::Pin => {
                self.pin_masked = false;
                self.pin.attach(eventfd);
            }
        }
    }

    /// Takes away every destination of a kind, and what was pending for it.
    pub fn detach_all(&mut self, signalling: Signalling) {
        match signalling {
            Signalling::MsiX => self.vectors.iter_mut().for_each(|line| {
                line.eventfd = None;
                line.pending = false;
            }),
            Signalling::Msi => {
                self.message = Line {
                    sent: self.message.sent,
                    ..Line::default()
                }
            }
            Signalling::Pin => {
                self.pin = Line {
                    sent: self.pin.sent,
                    ..Line::default()
                }
            }
        }
    }

    /// Signals a vector regardless of causes and masks: a host's self-test.
    pub fn trigger(&mut self, signalling: Signalling, vector: u16) {
        match signalling {
            Signalling::MsiX => {
                if let Some(line) = self.vectors.get_mut(usize::from(vector)) {
                    line.send();
                }
            }
            Signalling::Msi => self.message.send(),
            Signalling::Pin => self.pin.send(),
        }
    }

    /// Lets the pin signal again after its host has served it; true when that was not so before.
    pub fn unmask_pin(&mut self) -> bool {
        std::mem::take(&mut self.pin_masked)
    }

    /// Masks or unmasks the pin.
    pub fn mask_pin(&mut self) {
        self.pin_masked = true;
    }

    /// Messages since the last call, in order: the interface for hosts without eventfds.
    pub fn take_signalled(&mut self) -> Vec<u16> {
        self.record.drain(..).collect()
    }

    /// Messages sent so far by each vector, then by MSI and by the pin.
    pub fn sent(&self) -> (Vec<u64>, u64, u64) {
        (
            self.vectors.iter().map(|line| line.sent).collect(),
            self.message.sent,
            self.pin.sent,
        )
    }

    fn send(&mut self, signalling: Signalling, vector: u16) {
        if self.record.len() == RECORD_LIMIT {
            self.record.pop_front();
        }
        self.record.push_back(vector);
        if signalling == Signalling::Pin {
            // Level-triggered: its host masks it until it has served it.
            if self.pin_masked {
                return;
            }
            self.pin_masked = true;
        }
        self.trigger(signalling, vector);
    }
}

/// Causes and masks.
#[derive(Default)]
pub struct Interrupts {
    /// Causes of queues, by the vector (or EICR bit) that IVAR gives them.
    vectors: u64,
    /// EICR bits 16 to 30.
    others: u32,
    vector_mask: u64,
    other_mask: u32,
    /// Vectors whose level was high when it was last looked at; a message goes out on the rise only.
    asserted: u64,
    /// Earliest time of each vector's next message, in nanoseconds.
    next_allowed_ns: Vec<u64>,
}

impl Interrupts {
    /// No cause, everything masked.
    pub fn new() -> Self {
        Self {
            next_allowed_ns: vec![0; usize::from(r::VECTORS)],
            ..Self::default()
        }
    }

    /// Back to the state after a reset.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// A queue wants attention: `allocation` is its IVAR byte.
    pub fn raise_queue(&mut self, allocation: u8) {
        if allocation & r::IVAR_VALID != 0 {
            self.vectors |= 1 << (allocation & 0x3F);
        }
    }

    /// Another cause, as its EICR bit.
    pub fn raise_other(&mut self, causes: u32) {
        self.others |= causes & !QUEUE_CAUSES;
    }

    /// EICR as software reads it, without the side effects of doing so.
    pub fn causes(&self) -> u32 {
        let others = self.others & 0x7FFF_FFFF;
        let active = if others != 0 { 1 << 31 } else { 0 };
        self.vectors as u32 & QUEUE_CAUSES | others | active
    }

    /// Reading EICR: clears causes (all, or all but queues') and masks by EIAM unless messages do that.
    pub fn read_causes(&mut self, registers: &RegisterFile) -> u32 {
        let value = self.causes();
        let gpie = registers.get(r::GPIE);
        self.others = 0;
        if gpie & r::GPIE_OTHER_CLEAR_DISABLE == 0 {
            self.vectors &= !u64::from(QUEUE_CAUSES);
        }
        if gpie & r::GPIE_AUTO_MASK_ENABLE == 0 {
            self.disable(registers.get(r::EIAM) & value);
        }
        value
    }

    /// Writing EICR: clears the causes whose bits are set.
    pub fn clear_causes(&mut self, causes: u32) {
        self.vectors &= !u64::from(causes & QUEUE_CAUSES);
        self.others &= !causes;
    }

    /// Writing EICS: sets causes.
    pub fn set_causes(&mut self, causes: u32) {
        self.vectors |= u64::from(causes & QUEUE_CAUSES);
        self.raise_other(causes);
    }

    /// Writing half `half` of EICS_EX.
    pub fn set_causes_extended(&mut self, half: u32, causes: u32) {
        self.vectors |= u64::from(causes) << (32 * half);
    }

    /// EIMS as software reads it.
    pub fn mask(&self) -> u32 {
        self.vector_mask as u32 & QUEUE_CAUSES | self.other_mask & 0x7FFF_FFFF
    }

    /// Half `half` of EIMS_EX.
    pub fn mask_extended(&self, half: u32) -> u32 {
        (self.vector_mask >> (32 * half)) as u32
    }

    /// Writing EIMS: lets causes through.
    pub fn enable(&mut self, causes: u32) {
        self.vector_mask |= u64::from(causes & QUEUE_CAUSES);
        self.other_mask |= causes & !QUEUE_CAUSES;
    }

    /// Writing EIMC: holds causes back.
    pub fn disable(&mut self, causes: u32) {
        self.vector_mask &= !u64::from(causes & QUEUE_CAUSES);
        self.other_mask &= !causes;
    }

    /// Writing half `half` of EIMS_EX.
    pub fn enable_extended(&mut self, half: u32, vectors: u32) {
        self.vector_mask |= u64::from(vectors) << (32 * half);
    }

    /// Writing half `half` of EIMC_EX.
    pub fn disable_extended(&mut self, half: u32, vectors: u32) {
        self.vector_mask &= !(u64::from(vectors) << (32 * half));
    }

    /// Writing EITR of `vector`: unless bit 31 keeps it, the running interval ends.
    pub fn throttle_written(&mut self, vector: u16, value: u32) {
        if value >> 31 == 0
            && let Some(next) = self.next_allowed_ns.get_mut(usize::from(vector))
        {
            *next = 0;
        }
    }

    /// The host served the pin: if a cause is still active it must be signalled again.
    pub fn rearm(&mut self) {
        self.asserted = 0;
    }

    /// Sends what is due at `now_ns`. `lose` decides for each message whether it gets lost on its way.
    ///
    /// Returns when the next throttled message is due.
    pub fn deliver(
        &mut self,
        registers: &RegisterFile,
        signalling: Signalling,
        now_ns: u64,
        lines: &mut InterruptLines,
        mut lose: impl FnMut() -> bool,
    ) -> Option<u64> {
        let levels = self.levels(registers, signalling);
        self.asserted &= levels;
        let mut risen = levels & !self.asserted;
        let mut next_due: Option<u64> = None;
        while risen != 0 {
            let vector = risen.trailing_zeros() as u16;
            risen &= risen - 1;
            let allowed = self
                .next_allowed_ns
                .get(usize::from(vector))
                .copied()
                .unwrap_or(0);
            if now_ns < allowed {
                next_due = Some(next_due.map_or(allowed, |due| due.min(allowed)));
                continue;
            }
            let interval = u64::from(registers.get(r::eitr(vector)) >> 3 & 0x1FF) * ITR_UNIT_NS;
            if let Some(next) = self.next_allowed_ns.get_mut(usize::from(vector)) {
                *next = now_ns + interval;
            }
            self.asserted |= 1 << vector;
            if !lose() {
                lines.send(signalling, vector);
            }
            if signalling == Signalling::MsiX {
                self.after_message(registers, vector);
            }
        }
        // What a message has cleared or masked by itself counts as a rise when it comes again.
        self.asserted &= self.levels(registers, signalling);
        next_due
    }

    /// Which vectors have an unmasked cause.
    fn levels(&self, registers: &RegisterFile, signalling: Signalling) -> u64 {
        let vectors = self.vectors & self.vector_mask;
        let others = self.others & self.other_mask;
        if signalling == Signalling::MsiX && registers.has(r::GPIE, r::GPIE_MULTIPLE_MSIX) {
            let allocation = (registers.get(r::IVAR_MISC) >> 8) as u8;
            let other = if others != 0 && allocation & r::IVAR_VALID != 0 {
                1 << (allocation & 0x3F)
            } else {
                0
            };
            vectors | other
        } else {
            u64::from(vectors & u64::from(QUEUE_CAUSES) != 0 || others != 0)
        }
    }

    /// Automatic clearing and masking once an MSI-X message has left (datasheet 7.3.1.4).
    fn after_message(&mut self, registers: &RegisterFile, vector: u16) {
        if !registers.has(r::GPIE, r::GPIE_MULTIPLE_MSIX) {
            let cleared = registers.get(r::EIAC) & QUEUE_CAUSES;
            self.vectors &= !u64::from(cleared);
            if registers.has(r::GPIE, r::GPIE_AUTO_MASK_ENABLE) {
                self.disable(registers.get(r::EIAM));
            }
            return;
        }
        let bit = 1u64 << vector;
        // Vectors from 16 on have no EICR bit: they are always cleared.
        if vector >= 16 || registers.get(r::EIAC) >> vector & 1 != 0 {
            self.vectors &= !bit;
        }
        if registers.has(r::GPIE, r::GPIE_AUTO_MASK_ENABLE) {
            let extended =
                u64::from(registers.get(r::EIAM_EX)) | u64::from(registers.get(r::EIAM_EX + 4)) << 32;
            let automatic = extended | u64::from(registers.get(r::EIAM) & QUEUE_CAUSES);
            self.vector_mask &= !(automatic & bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        registers: RegisterFile,
        interrupts: Interrupts,
        lines: InterruptLines,
    }

    impl Bench {
        fn msix() -> Self {
            let mut registers = RegisterFile::new();
            registers.set(r::GPIE, r::GPIE_MULTIPLE_MSIX | r::GPIE_AUTO_MASK_ENABLE);
            registers.set(r::IVAR_MISC, 0x8200);
            Self {
                registers,
                interrupts: Interrupts::new(),
                lines: InterruptLines::new(),
            }
        }

        fn run(&mut self, now_ns: u64) -> (Vec<u16>, Option<u64>) {
            let due =
                self.interrupts
                    .deliver(&self.registers, Signalling::MsiX, now_ns, &mut self.lines, || {
                        false
                    });
            (self.lines.take_signalled(), due)
        }
    }

    #[test]
    fn masked_cause_waits_for_its_mask() {
        let mut bench = Bench::msix();
        bench.interrupts.raise_queue(0x81);
        assert_eq!(bench.run(0).0, [0u16; 0]);
        bench.interrupts.enable(1 << 1);
        assert_eq!(bench.run(0).0, [1]);
        assert_eq!(bench.interrupts.causes(), 1 << 1);
        assert_eq!(bench.run(0).0, [0u16; 0], "a message goes out on the rise only");
    }

    #[test]
    fn automatic_clear_and_mask_follow_a_message() {
        let mut bench = Bench::msix();
        bench.registers.set(r::EIAC, 1 << 1);
        bench.registers.set(r::EIAM_EX, 1 << 1);
        bench.interrupts.enable(1 << 1);
        bench.interrupts.raise_queue(0x81);
        assert_eq!(bench.run(0).0, [1]);
        assert_eq!((bench.interrupts.causes(), bench.interrupts.mask()), (0, 0));
        bench.interrupts.raise_queue(0x81);
        assert_eq!(bench.run(0).0, [0u16; 0]);
        bench.interrupts.enable_extended(0, 1 << 1);
        assert_eq!(bench.run(0).0, [1]);
    }

    #[test]
    fn throttled_message_goes_out_when_its_interval_ends() {
        let mut bench = Bench::msix();
        bench.registers.set(r::EIAC, 1);
        bench.registers.set(r::eitr(0), 5 << 3);
        bench.interrupts.enable(1);
        bench.interrupts.raise_queue(0x80);
        assert_eq!(bench.run(1000), (vec![0], None));
        bench.interrupts.raise_queue(0x80);
        assert_eq!(bench.run(2000), (vec![], Some(1000 + 5 * ITR_UNIT_NS)));
        assert_eq!(bench.run(1000 + 5 * ITR_UNIT_NS), (vec![0], None));
    }

    #[test]
    fn other_causes_use_their_own_vector_and_clear_by_write() {
        let mut bench = Bench::msix();
        bench.interrupts.enable(r::CAUSE_LINK_STATUS_CHANGE);
        bench.interrupts.raise_other(r::CAUSE_LINK_STATUS_CHANGE);
        assert_eq!(bench.run(0).0, [2]);
        assert_eq!(
            bench.interrupts.causes() & !(1 << 31),
            r::CAUSE_LINK_STATUS_CHANGE
        );
        bench.interrupts.clear_causes(r::CAUSE_LINK_STATUS_CHANGE);
        assert_eq!(bench.run(0).0, [0u16; 0]);
        bench.interrupts.raise_other(r::CAUSE_LINK_STATUS_CHANGE);
        assert_eq!(bench.run(0).0, [2]);
    }

    #[test]
    fn message_before_its_eventfd_is_kept() {
        let mut bench = Bench::msix();
        bench.interrupts.enable(1);
        bench.interrupts.raise_queue(0x80);
        bench.run(0);
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
        bench
            .lines
            .attach(Signalling::MsiX, 0, Some(fd.try_clone().expect("clone")));
        let mut count = [0; 8];
        rustix::io::read(&fd, &mut count).expect("signalled");
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
