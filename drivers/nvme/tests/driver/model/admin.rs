//! The model's admin commands (base specification, chapter 5): queues, Identify, log pages, aborts, asynchronous events.

use super::{ABORTED, Entry, Model, PAGE, Queue};

impl Model {
    pub(super) fn administer(&mut self, entry: Entry) {
        if self.faults.mute_admin {
            return;
        }
        let word = entry.words;
        let (status, result) = match entry.opcode {
            0x01 | 0x05 => (self.create_queue(&entry), 0),
            0x06 => (self.identify(&entry), 0),
            0x02 => (self.log_page(&entry), 0),
            0x09 if word[0] as u8 == 7 => {
                let granted = u32::from(self.granted_queues - 1);
                (0, granted << 16 | granted)
            }
            0x09 => (0, 0),
            0x0A if word[0] as u8 == 6 => (0, u32::from(self.volatile_cache)),
            0x08 => return self.abort(&entry),
            0x0C => {
                self.event_requests.push_back(entry.id);
                return self.report();
            }
            _ => (0x4001, 0),
        };
        self.complete(0, entry.id, status, result);
    }

    fn abort(&mut self, entry: &Entry) {
        let (queue, id) = (entry.words[0] as u16, (entry.words[0] >> 16) as u16);
        let index = self
            .held
            .iter()
            .position(|held| (held.queue, held.id) == (queue, id));
        match index {
            Some(index) if self.faults.abort_answers_twice => {
                self.held.remove(index);
                self.complete(queue, id, ABORTED, 0);
                self.complete(0, entry.id, 0, 0);
                self.complete(queue, id, 0, 0);
            }
            Some(index) if self.faults.aborts_work => {
                self.held.remove(index);
                self.complete(queue, id, ABORTED, 0);
                self.complete(0, entry.id, 0, 0);
            }
            _ => self.complete(0, entry.id, 0, 1),
        }
    }

    /// Something happens that the driver may have asked to hear of.
    pub fn raise(&mut self, event: u32) {
        self.events.push_back(event);
        self.report();
    }

    fn report(&mut self) {
        while let (Some(_), Some(&event)) = (self.event_requests.front(), self.events.front()) {
            let id = self.event_requests.pop_front().unwrap_or(0);
            self.events.pop_front();
            self.complete(0, id, 0, event);
        }
    }

    fn create_queue(&mut self, entry: &Entry) -> u16 {
        if let Some(status) = self.faults.queue_refusals.pop() {
            return status;
        }
        let (number, entries) = (entry.words[0] as u16, (entry.words[0] >> 16) + 1);
        let is_completion = entry.opcode == 5;
        if number == 0 || number > self.granted_queues || entries > self.queue_entries {
            return 0x4101;
        }
        if entry.words[1] & 1 == 0 || !entry.pages[0].is_multiple_of(PAGE) {
            self.violation("a queue isn't contiguous or not aligned".into());
        }
        let vector = (is_completion && entry.words[1] & 2 != 0).then_some((entry.words[1] >> 16) as u16);
        if !is_completion && !self.completion.contains_key(&((entry.words[1] >> 16) as u16)) {
            return 0x4100;
        }
        let queues = if is_completion {
            &mut self.completion
        } else {
            &mut self.submission
        };
        if queues.contains_key(&number) {
            return 0x4101;
        }
        queues.insert(
            number,
            Queue {
                base: entry.pages[0],
                entries,
                position: 0,
                doorbell: 0,
                phase: true,
                vector,
            },
        );
        0
    }

    fn answer(&mut self, entry: &Entry, bytes: &[u8]) -> u16 {
        if self.memory.write(entry.pages[0], bytes).is_err() {
            self.violation("an answer's page isn't the driver's".into());
        }
        0
    }

    fn identify(&mut self, entry: &Entry) -> u16 {
        let mut bytes = vec![0; 4096];
        match entry.words[0] as u8 {
            0 => {
                let Some(namespace) = self.namespaces.get(entry.namespace.wrapping_sub(1) as usize) else {
                    return 0x400B;
                };
                let blocks = namespace.data.len() as u64 / namespace.block_bytes;
                bytes[..8].copy_from_slice(&blocks.to_le_bytes());
                // The format in use is the third.
                bytes[26] = 2;
                let format = u32::from(namespace.metadata) | namespace.block_bytes.ilog2() << 16;
                bytes[136..140].copy_from_slice(&format.to_le_bytes());
            }
            1 => {
                bytes[..2].copy_from_slice(&0x1234u16.to_le_bytes());
                bytes[4..24].copy_from_slice(b"S1                  ");
                bytes[24..64].copy_from_slice(b"Model of a controller                   ");
                bytes[64..72].copy_from_slice(b"1.0     ");
                bytes[77] = self.transfer_power;
                bytes[92..96].copy_from_slice(&0x300u32.to_le_bytes());
                bytes[258] = 3;
                bytes[259] = 3;
                bytes[262] = 15;
                bytes[520] = 0x0C;
                bytes[525] = u8::from(self.volatile_cache);
            }
            2 => {
                let active = (1u32..).zip(&self.namespaces).filter(|(_, one)| one.active);
                for (place, (number, _)) in bytes.chunks_exact_mut(4).zip(active) {
                    place.copy_from_slice(&number.to_le_bytes());
                }
            }
            6 => {
                bytes[1] = self.zeroes_power;
                bytes[4..8].copy_from_slice(&self.range_blocks.to_le_bytes());
            }
            _ => return 0x4002,
        }
        self.answer(entry, &bytes)
    }

    fn log_page(&mut self, entry: &Entry) -> u16 {
        let length = ((entry.words[0] >> 16) as usize + 1) * 4;
        let mut bytes = vec![0; length];
        match entry.words[0] as u8 {
            1 => {
                for (place, (number, status)) in bytes.chunks_exact_mut(64).zip(&self.errors) {
                    place[..8].copy_from_slice(&number.to_le_bytes());
                    place[12..14].copy_from_slice(&(status << 1).to_le_bytes());
                }
            }
            2 => {
                bytes[0] = self.critical_warning;
                bytes[1..3].copy_from_slice(&300u16.to_le_bytes());
            }
            3 | 4 => {}
            _ => return 0x4109,
        }
        self.answer(entry, &bytes)
    }
}
