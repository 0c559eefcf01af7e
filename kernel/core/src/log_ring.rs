//! The log's memory: a bounded ring of records that keeps the newest and numbers them without gaps.
//!
//! Pure storage. Who writes (the `log` crate's facade, domains through the kernel's interface) and who prints
//! is decided elsewhere.

use alloc::string::String;
use log::Level;

/// One line of the log, as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the record since boot; a gap to the one before means that the reader was too slow.
    pub sequence: u64,
    /// When it was written, nanoseconds since boot.
    pub time_ns: u64,
    /// The CPU it was written on.
    pub cpu: u16,
    /// How grave it is.
    pub level: Level,
    /// The domain that wrote it; "kernel" for the kernel itself.
    pub domain: String,
    /// The text, without a line end; cut off at [`MAX_TEXT`] bytes.
    pub text: String,
}

/// A record before it has a number.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Nanoseconds since boot.
    pub time_ns: u64,
    /// The CPU it is written on.
    pub cpu: u16,
    /// How grave it is.
    pub level: Level,
    /// The domain that writes it; at most 255 bytes are kept.
    pub domain: &'a str,
    /// The text.
    pub text: &'a str,
}

/// Longest text of a record in bytes.
pub const MAX_TEXT: usize = 1024;

/// Length of a record's header in the ring: text length, domain length, level, CPU, time.
const HEADER: usize = 2 + 1 + 1 + 2 + 8;

/// The ring: at most `N` bytes of records.
pub struct LogRing<const N: usize> {
    bytes: [u8; N],
    /// Where the oldest record starts, and how many bytes are in use from there on.
    start: usize,
    used: usize,
    /// Number of the oldest record, and of the next one to be written.
    first: u64,
    next: u64,
}

impl<const N: usize> Default for LogRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

fn prefix(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl<const N: usize> LogRing<N> {
    const LARGE_ENOUGH: () = assert!(
        N >= HEADER + 255 + MAX_TEXT,
        "a ring holds at least one record of full length"
    );

    /// An empty ring.
    pub const fn new() -> Self {
        let () = Self::LARGE_ENOUGH;
        Self {
            bytes: [0; N],
            start: 0,
            used: 0,
            first: 0,
            next: 0,
        }
    }

    /// Appends a record, pushing out the oldest ones if need be; its number.
    pub fn append(&mut self, entry: Entry<'_>) -> u64 {
        let (domain, text) = (prefix(entry.domain, 255), prefix(entry.text, MAX_TEXT));
        let length = HEADER + domain.len() + text.len();
        while self.used + length > N {
            let oldest = self.record_length(self.start);
            self.start = (self.start + oldest) % N;
            self.used -= oldest;
            self.first += 1;
        }
        let mut at = (self.start + self.used) % N;
        at = self.put(at, &(text.len() as u16).to_le_bytes());
        at = self.put(at, &[domain.len() as u8, entry.level as u8]);
        at = self.put(at, &entry.cpu.to_le_bytes());
        at = self.put(at, &entry.time_ns.to_le_bytes());
        at = self.put(at, domain.as_bytes());
        self.put(at, text.as_bytes());
        self.used += length;
        self.next += 1;
        self.next - 1
    }

    /// The first record whose number is `sequence` or more, if there is one.
    pub fn read_from(&self, sequence: u64) -> Option<Record> {
        if sequence >= self.next {
            return None;
        }
        let (mut at, mut number) = (self.start, self.first);
        while number < sequence {
            at = (at + self.record_length(at)) % N;
            number += 1;
        }
        let header: [u8; HEADER] = self.get(at);
        let text_length = usize::from(u16::from_le_bytes([header[0], header[1]]));
        let domain_length = usize::from(header[2]);
        let mut time = [0; 8];
        time.copy_from_slice(&header[6..14]);
        Some(Record {
            sequence: number,
            time_ns: u64::from_le_bytes(time),
            cpu: u16::from_le_bytes([header[4], header[5]]),
            level: Level::iter()
                .find(|&level| level as u8 == header[3])
                .unwrap_or(Level::Error),
            domain: self.text(at + HEADER, domain_length),
            text: self.text(at + HEADER + domain_length, text_length),
        })
    }

    /// The number that the next record will get.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    fn record_length(&self, at: usize) -> usize {
        let [low, high, domain] = self.get(at);
        HEADER + usize::from(u16::from_le_bytes([low, high])) + usize::from(domain)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            self.bytes[(at + index) % N] = byte;
        }
        (at + bytes.len()) % N
    }

    fn get<const L: usize>(&self, at: usize) -> [u8; L] {
        core::array::from_fn(|index| self.bytes[(at + index) % N])
    }

    fn text(&self, at: usize, length: usize) -> String {
        let bytes = (at..at + length).map(|index| self.bytes[index % N]).collect();
        String::from_utf8(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn entry(text: &str) -> Entry<'_> {
        Entry {
            time_ns: 7,
            cpu: 3,
            level: Level::Warn,
            domain: "ixgbe",
            text,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let mut ring = LogRing::<2048>::new();
        assert_eq!(ring.append(entry("link up")), 0);
        let record = ring.read_from(0).expect("it is there");
        assert_eq!((record.cpu, record.level, record.time_ns), (3, Level::Warn, 7));
        assert_eq!(
            (record.domain.as_str(), record.text.as_str()),
            ("ixgbe", "link up")
        );
        assert_eq!(ring.read_from(1), None);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        let mut ring = LogRing::<2048>::new();
        let long: std::string::String = core::iter::repeat_n('ä', 1000).chain(['x']).collect();
        ring.append(entry(&long[..]));
        let text = ring.read_from(0).expect("it is there").text;
        assert_eq!(text.len(), MAX_TEXT);
        assert!(text.chars().all(|c| c == 'ä'));
    }

    proptest! {
        /// The newest records survive, in order and without a gap, whatever their lengths.
        #[test]
        fn the_newest_records_survive(lengths in proptest::collection::vec(0usize..1100, 1..60)) {
            let mut ring = LogRing::<3000>::new();
            let texts: Vec<_> = lengths.iter().enumerate().map(|(index, &length)| {
                core::iter::repeat_n((b'a' + (index % 26) as u8) as char, length).collect::<std::string::String>()
            }).collect();
            for text in &texts {
                ring.append(entry(text));
            }
            let mut sequence = ring.read_from(0).expect("at least the newest").sequence;
            while let Some(record) = ring.read_from(sequence) {
                prop_assert_eq!(record.sequence, sequence);
                let text = &texts[sequence as usize];
                prop_assert_eq!(&record.text, &text[..text.len().min(MAX_TEXT)]);
                sequence += 1;
            }
            prop_assert_eq!(sequence, texts.len() as u64);
        }
    }
}
