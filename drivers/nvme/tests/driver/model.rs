//! A controller in software: registers, admin and I/O queues, three namespaces, and what a controller shouldn't do but might.
//!
//! Written from the NVM Express specifications, not from the driver. It reaches memory as a device does, by addresses that it was given,
//! through the file that the test's heap is. What a driver must not do is noted as a violation. Here are registers, queues and I/O commands;
//! `model/admin.rs` has the admin commands.

mod admin;

use guest_memory::GuestMemory;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CC_ENABLE: u32 = 1;
const READY: u32 = 1;
const FATAL: u32 = 2;
const PAGE: u64 = 4096;

/// Status: Command Abort Requested.
const ABORTED: u16 = 0x07;

/// How the model misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Statuses that the next commands which create queues are refused with, the last one first.
    pub queue_refusals: Vec<u16>,
    /// I/O commands are taken but not carried out until they are released.
    pub hold: bool,
    /// Held commands are aborted when that is asked for; otherwise the abort is answered as one that did nothing.
    pub aborts_work: bool,
    /// An abort is answered as done, and the command's completion comes too, twice.
    pub abort_answers_twice: bool,
    /// Before each I/O completion one with this identifier is posted as well.
    pub stray: Option<u16>,
    /// Each I/O completion is posted twice.
    pub twice: bool,
    /// No interrupts.
    pub no_interrupts: bool,
    /// Admin commands aren't answered.
    pub mute_admin: bool,
    /// It doesn't become ready.
    pub never_ready: bool,
    /// It doesn't stop being ready.
    pub never_off: bool,
    /// It has gone, and its registers read this.
    pub gone: Option<u32>,
    /// Statuses of I/O commands by opcode and first block, and for how many of them.
    pub statuses: BTreeMap<(u8, u64), (u16, u32)>,
}

struct Queue {
    base: u64,
    entries: u32,
    /// Submission: next to be fetched. Completion: next to be written.
    position: u32,
    /// Submission: told by the doorbell. Completion: taken by the driver.
    doorbell: u32,
    phase: bool,
    vector: Option<u16>,
}

/// A command as it was fetched.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Submission queue.
    pub queue: u16,
    /// Identifier.
    pub id: u16,
    /// Opcode.
    pub opcode: u8,
    /// Namespace.
    pub namespace: u32,
    /// The two addresses.
    pub pages: [u64; 2],
    /// Words 10 to 15.
    pub words: [u32; 6],
}

/// A namespace's content.
pub struct Namespace {
    /// Bytes in a block.
    pub block_bytes: u64,
    /// Metadata bytes a block.
    pub metadata: u16,
    /// All blocks.
    pub data: Vec<u8>,
    /// It is listed.
    pub active: bool,
}

/// The controller.
pub struct Model {
    /// The test's memory.
    pub memory: GuestMemory,
    /// How it misbehaves.
    pub faults: Faults,
    /// Namespaces from number 1.
    pub namespaces: Vec<Namespace>,
    /// Entries of a queue at most.
    pub queue_entries: u32,
    /// Distance of doorbells, as CAP has it.
    pub doorbell_shift: u64,
    /// Pairs of I/O queues that it grants.
    pub granted_queues: u16,
    /// MDTS.
    pub transfer_power: u8,
    /// Blocks of a range of a deallocation.
    pub range_blocks: u32,
    /// WZSL.
    pub zeroes_power: u8,
    /// It has a volatile write cache.
    pub volatile_cache: bool,
    configuration: u32,
    status: u32,
    admin: [u64; 3],
    submission: BTreeMap<u16, Queue>,
    completion: BTreeMap<u16, Queue>,
    held: Vec<Entry>,
    event_requests: VecDeque<u16>,
    events: VecDeque<u32>,
    stopped: bool,
    /// SMART's critical warning.
    pub critical_warning: u8,
    /// Entries of the error log, newest first: number and status.
    pub errors: Vec<(u64, u16)>,
    /// Raised interrupts.
    pub interrupts: BTreeSet<u16>,
    /// I/O commands that were fetched.
    pub commands: Vec<Entry>,
    /// Resets.
    pub resets: u32,
    /// What the driver did wrong.
    pub violations: Vec<String>,
}

fn low(value: u32, rest: u64) -> u64 {
    rest & !0xFFFF_FFFF | u64::from(value)
}

fn high(value: u32, rest: u64) -> u64 {
    rest & 0xFFFF_FFFF | u64::from(value) << 32
}

impl Model {
    /// A controller with namespaces of 512 and 4,096 bytes a block, and one with metadata.
    pub fn new(memory: GuestMemory) -> Model {
        let namespace = |block_bytes: u64, metadata, blocks: u64| Namespace {
            block_bytes,
            metadata,
            data: vec![0; (block_bytes * blocks) as usize],
            active: true,
        };
        Model {
            memory,
            faults: Faults::default(),
            namespaces: vec![
                namespace(512, 0, 4096),
                namespace(4096, 0, 512),
                namespace(512, 8, 64),
            ],
            queue_entries: 64,
            doorbell_shift: 0,
            granted_queues: 64,
            transfer_power: 5,
            range_blocks: 0,
            zeroes_power: 0,
            volatile_cache: true,
            configuration: 0,
            status: 0,
            admin: [0; 3],
            submission: BTreeMap::new(),
            completion: BTreeMap::new(),
            held: Vec::new(),
            event_requests: VecDeque::new(),
            events: VecDeque::new(),
            stopped: false,
            critical_warning: 0,
            errors: Vec::new(),
            interrupts: BTreeSet::new(),
            commands: Vec::new(),
            resets: 0,
            violations: Vec::new(),
        }
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// A register is read.
    pub fn read(&self, offset: u32) -> u32 {
        if let Some(nothing) = self.faults.gone {
            return nothing;
        }
        let capabilities =
            u64::from(self.queue_entries - 1) | 1 << 16 | 1 << 24 | self.doorbell_shift << 32 | 1 << 37;
        match offset {
            0x00 => capabilities as u32,
            0x04 => (capabilities >> 32) as u32,
            0x08 => 0x0001_0400,
            0x14 => self.configuration,
            0x1C => self.status,
            _ => 0,
        }
    }

    /// A register is written.
    pub fn write(&mut self, offset: u32, value: u32) {
        if self.faults.gone.is_some() {
            return;
        }
        match offset {
            0x14 => self.configure(value),
            0x24 => self.admin[0] = u64::from(value),
            0x28 => self.admin[1] = low(value, self.admin[1]),
            0x2C => self.admin[1] = high(value, self.admin[1]),
            0x30 => self.admin[2] = low(value, self.admin[2]),
            0x34 => self.admin[2] = high(value, self.admin[2]),
            0x1000.. => self.doorbell(offset - 0x1000, value),
            other => self.violation(format!("register {other:#x} was written")),
        }
    }

    /// A fatal error.
    pub fn fail(&mut self) {
        self.status |= FATAL;
    }

    /// Bus mastering is gone.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    fn configure(&mut self, value: u32) {
        let was_on = self.configuration & CC_ENABLE != 0;
        let on = value & CC_ENABLE != 0;
        if on && !was_on {
            if self.status & READY != 0 {
                self.violation("enabled while ready".into());
            }
            if value >> 16 & 0xF != 6 || value >> 20 & 0xF != 4 || value >> 7 & 0xF != 0 {
                self.violation(format!("CC {value:#x}"));
            }
            self.status = if self.faults.never_ready { 0 } else { READY };
            let queue = |base: u64, entries: u64| Queue {
                base,
                entries: entries as u32 + 1,
                position: 0,
                doorbell: 0,
                phase: true,
                vector: Some(0),
            };
            self.submission
                .insert(0, queue(self.admin[1], self.admin[0] & 0xFFF));
            self.completion
                .insert(0, queue(self.admin[2], self.admin[0] >> 16 & 0xFFF));
        }
        if !on && was_on {
            if self.status & (READY | FATAL) == 0 {
                self.violation("disabled on its way up".into());
            }
            self.resets += 1;
            if !self.faults.never_off {
                self.status = 0;
            }
            self.submission.clear();
            self.completion.clear();
            self.held.clear();
            self.event_requests.clear();
            self.events.clear();
        }
        if value >> 14 & 3 == 1 && on {
            self.status |= 2 << 2;
        }
        self.configuration = value;
    }

    fn doorbell(&mut self, offset: u32, value: u32) {
        let stride = 4 << self.doorbell_shift;
        let (queue, is_completion) = ((offset / stride / 2) as u16, offset / stride % 2 == 1);
        let queues = if is_completion {
            &mut self.completion
        } else {
            &mut self.submission
        };
        match queues.get_mut(&queue) {
            Some(found) if value < found.entries => found.doorbell = value,
            Some(_) => return self.violation(format!("doorbell of queue {queue} set to {value}")),
            None => return self.violation(format!("doorbell of queue {queue}, which there isn't")),
        }
        if !is_completion && !self.stopped && self.status & FATAL == 0 {
            self.run(queue);
        }
    }

    fn run(&mut self, number: u16) {
        loop {
            let Some(queue) = self.submission.get_mut(&number) else {
                return;
            };
            if queue.position == queue.doorbell {
                return;
            }
            let address = queue.base + u64::from(queue.position) * 64;
            queue.position = (queue.position + 1) % queue.entries;
            let mut bytes = [0; 64];
            if self.memory.read(address, &mut bytes).is_err() {
                self.status |= FATAL;
                return;
            }
            let word = |index: usize| u32::from_le_bytes(bytes[index * 4..][..4].try_into().unwrap());
            let long = |index: usize| u64::from(word(index)) | u64::from(word(index + 1)) << 32;
            let entry = Entry {
                queue: number,
                id: (word(0) >> 16) as u16,
                opcode: word(0) as u8,
                namespace: word(1),
                pages: [long(6), long(8)],
                words: core::array::from_fn(|index| word(10 + index)),
            };
            if number == 0 {
                self.administer(entry);
            } else {
                self.commands.push(entry);
                if self
                    .held
                    .iter()
                    .any(|other| (other.queue, other.id) == (number, entry.id))
                {
                    self.violation(format!("identifier {:#x} is in use", entry.id));
                }
                if self.faults.hold {
                    self.held.push(entry);
                } else {
                    self.carry_out(entry);
                }
            }
        }
    }

    /// Carries out what was held, the last first.
    pub fn release(&mut self) {
        for entry in std::mem::take(&mut self.held).into_iter().rev() {
            self.carry_out(entry);
        }
    }

    /// Commands that are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn carry_out(&mut self, entry: Entry) {
        let status = self.io(&entry);
        if let Some(id) = self.faults.stray {
            self.complete(entry.queue, id, 0, 0);
        }
        self.complete(entry.queue, entry.id, status, 0);
        if self.faults.twice {
            self.complete(entry.queue, entry.id, status, 0);
        }
    }

    /// Posts a completion.
    pub fn complete(&mut self, submission: u16, id: u16, status: u16, result: u32) {
        if self.stopped || self.faults.gone.is_some() {
            return;
        }
        let Some(queue) = self.completion.get_mut(&submission) else {
            return;
        };
        let address = queue.base + u64::from(queue.position) * 16;
        let phase = queue.phase;
        queue.position = (queue.position + 1) % queue.entries;
        if queue.position == 0 {
            queue.phase = !phase;
        }
        let full = queue.position == queue.doorbell;
        let vector = queue.vector;
        let first = u64::from(result);
        let second = u64::from(submission) << 16
            | u64::from(id) << 32
            | u64::from(phase) << 48
            | u64::from(status) << 49;
        self.memory
            .write(address, &first.to_le_bytes())
            .expect("a completion queue");
        self.memory
            .store_u64(address + 8, second)
            .expect("a completion queue");
        if full {
            self.violation(format!("completion queue {submission} overflows"));
        }
        if let (Some(vector), false) = (vector, self.faults.no_interrupts) {
            self.interrupts.insert(vector);
        }
    }

    /// The parts of memory that a transfer of `bytes` is to or from (base specification, 4.1.1).
    fn pieces(&mut self, entry: &Entry, bytes: u64) -> Vec<(u64, u64)> {
        let [first, second] = entry.pages;
        let head = (PAGE - first % PAGE).min(bytes);
        let mut pieces = vec![(first, head)];
        let mut rest = bytes - head;
        if rest > PAGE {
            let mut list = second;
            while rest > 0 {
                let mut word = [0; 8];
                if list % 8 != 0 || self.memory.read(list, &mut word).is_err() {
                    self.violation(format!("list entry at {list:#x}"));
                    return pieces;
                }
                let page = u64::from_le_bytes(word);
                if list % PAGE == PAGE - 8 && rest > PAGE {
                    self.violation("a list reaches its page's end".into());
                    return pieces;
                }
                pieces.push((page, rest.min(PAGE)));
                rest -= rest.min(PAGE);
                list += 8;
            }
        } else if rest > 0 {
            pieces.push((second, rest));
        }
        for (address, _) in &pieces[1..] {
            if address % PAGE != 0 {
                self.violations.push(format!("page {address:#x} isn't aligned"));
            }
        }
        pieces
    }

    fn io(&mut self, entry: &Entry) -> u16 {
        const WRITE: u8 = 1;
        const READ: u8 = 2;
        let address = u64::from(entry.words[0]) | u64::from(entry.words[1]) << 32;
        if let Some((status, count)) = self.faults.statuses.get_mut(&(entry.opcode, address))
            && *count > 0
        {
            *count -= 1;
            return *status;
        }
        let Some(namespace) = self.namespaces.get(entry.namespace.wrapping_sub(1) as usize) else {
            return 0x400B;
        };
        let block_bytes = namespace.block_bytes;
        let capacity = namespace.data.len() as u64;
        let length = u64::from(entry.words[2] & 0xFFFF) + 1;
        let (start, bytes) = (address.saturating_mul(block_bytes), length * block_bytes);
        let end = start.saturating_add(bytes);
        match entry.opcode {
            0 => 0,
            WRITE | READ => {
                if end > capacity {
                    return 0x4080;
                }
                if bytes > PAGE << self.transfer_power {
                    return 0x4002;
                }
                let mut position = start as usize;
                for (memory, bytes) in self.pieces(entry, bytes) {
                    let namespace = &mut self.namespaces[entry.namespace as usize - 1];
                    let part = &mut namespace.data[position..position + bytes as usize];
                    let done = if entry.opcode == WRITE {
                        self.memory.read(memory, part)
                    } else {
                        self.memory.write(memory, part)
                    };
                    if done.is_err() {
                        self.violation(format!("{bytes} bytes at {memory:#x} aren't the driver's"));
                    }
                    position += bytes as usize;
                }
                0
            }
            8 => {
                if end > capacity || self.zeroes_power != 0 && bytes > PAGE << self.zeroes_power {
                    return 0x4080;
                }
                let data = &mut self.namespaces[entry.namespace as usize - 1].data;
                data[start as usize..end as usize].fill(0);
                0
            }
            9 => {
                for range in 0..=u64::from(entry.words[0] & 0xFF) {
                    let mut bytes = [0; 16];
                    if self.memory.read(entry.pages[0] + range * 16, &mut bytes).is_err() {
                        self.violation("ranges aren't the driver's".into());
                        return 0x4002;
                    }
                    let count = u64::from(u32::from_le_bytes(bytes[4..8].try_into().unwrap()));
                    let first = u64::from_le_bytes(bytes[8..].try_into().unwrap());
                    let (start, end) = (first * block_bytes, (first + count) * block_bytes);
                    if end > capacity || self.range_blocks != 0 && count > u64::from(self.range_blocks) {
                        return 0x4080;
                    }
                    let data = &mut self.namespaces[entry.namespace as usize - 1].data;
                    data[start as usize..end as usize].fill(0);
                }
                0
            }
            _ => 0x4001,
        }
    }
}
