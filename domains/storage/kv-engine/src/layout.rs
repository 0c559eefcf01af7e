//! The partition's layout: superblocks, segments, and what a segment begins and ends with.
//!
//! ```text
//! 0        superblock A
//! 64 KiB   superblock B: the one with the higher generation counts
//! 128 KiB  segment 0, segment 1, …
//! ```
//! A segment begins with a header, in a logical block of its own. Behind it stand records (`record.rs`); each write-out begins with a logical
//! block, so that none that holds something is ever written again. A segment that is *sealed* ends with its footer, in the last logical block,
//! and before that its summary: two words for each record, by which the index is made without reading the records.
//!
//! Segments have serial numbers in the order in which they were begun, which is the order of the log. A segment is begun on the disk
//! only when the one before is durable up to its end, and the header says where that is. One that is freed gets a header that says so.

use crate::place::REACH_BYTES;

/// Bytes before the first segment.
pub const HEAD_BYTES: u64 = 128 << 10;
/// Where the superblocks are.
pub const SUPERBLOCKS: [u64; 2] = [0, 64 << 10];
/// Segments at least.
pub const LEAST_SEGMENTS: u32 = 8;
/// Bytes of a segment at least: a group and its summary must fit.
pub const LEAST_SEGMENT_BYTES: u32 = 256 << 10;
/// Bytes of a segment at most.
pub const LARGEST_SEGMENT_BYTES: u32 = 64 << 20;

/// Serial numbers are below this, which no disk lives to see.
pub const SERIAL_LIMIT: u64 = 1 << 40;
/// And the numbers of groups below this.
pub const SEQUENCE_LIMIT: u64 = 1 << 62;

const SUPERBLOCK_MAGIC: &[u8; 8] = b"RLKVSTOR";
const HEADER_MAGIC: &[u8; 8] = b"RLKVSEGM";
const FREE_MAGIC: &[u8; 8] = b"RLKVFREE";
const FOOTER_MAGIC: &[u8; 8] = b"RLKVFOOT";
/// Of what is written here: 1 had no keys in the summaries.
pub const VERSION: u64 = 2;

/// How a store lies on its partition, and what its checksums and hashes begin with; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Segments.
    pub segments: u32,
    /// The store's own number, at random.
    pub store: u64,
    /// What hashes of keys begin with, at random.
    pub secret: [u64; 2],
}

/// The partition is too small, too large, or its blocks can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadShape;

impl Layout {
    /// For a new store on a partition of this size: segments of 1/512 of it, but not below 1 MiB nor above 8 MiB, unless it says otherwise.
    pub fn choose(
        partition_bytes: u64,
        block_bytes: u32,
        segment_bytes: Option<u32>,
        random: [u64; 3],
    ) -> Result<Layout, BadShape> {
        let segment_bytes = segment_bytes.unwrap_or_else(|| {
            let share = (partition_bytes / 512).clamp(1 << 20, 8 << 20);
            1 << share.ilog2()
        });
        let segments = partition_bytes.saturating_sub(HEAD_BYTES) / u64::from(segment_bytes.max(1));
        let layout = Layout {
            block_bytes,
            segment_bytes,
            segments: segments.try_into().map_err(|_| BadShape)?,
            store: random[0],
            secret: [random[1], random[2]],
        };
        layout
            .is_possible(partition_bytes)
            .then_some(layout)
            .ok_or(BadShape)
    }

    /// Whether a store can lie so on a partition of this size.
    fn is_possible(&self, partition_bytes: u64) -> bool {
        let end = HEAD_BYTES.checked_add(u64::from(self.segments) * u64::from(self.segment_bytes));
        matches!(self.block_bytes, 512 | 1024 | 2048 | 4096)
            && (LEAST_SEGMENT_BYTES..=LARGEST_SEGMENT_BYTES).contains(&self.segment_bytes)
            && self.segment_bytes.is_power_of_two()
            && self.segments >= LEAST_SEGMENTS
            && end.is_some_and(|end| end <= partition_bytes && end < REACH_BYTES)
    }

    /// Where a segment begins.
    pub fn segment_start(&self, segment: u32) -> u64 {
        HEAD_BYTES + u64::from(segment) * u64::from(self.segment_bytes)
    }

    /// The segment that a place in the partition is in, and the offset there.
    pub fn locate(&self, offset: u64) -> (u32, usize) {
        let from = offset.saturating_sub(HEAD_BYTES);
        let (segment, rest) = (
            from >> self.segment_bytes.trailing_zeros(),
            from & u64::from(self.segment_bytes - 1),
        );
        (segment as u32, rest as usize)
    }

    /// Rounded up to whole logical blocks.
    pub fn round_up(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.block_bytes as usize)
    }

    /// Rounded down to whole logical blocks.
    pub fn round_down(&self, bytes: usize) -> usize {
        bytes & !(self.block_bytes as usize - 1)
    }

    /// Where the footer is in a segment.
    pub fn footer_start(&self) -> usize {
        self.segment_bytes as usize - self.block_bytes as usize
    }

    /// Where a summary of so many words is in a segment.
    pub fn summary_start(&self, words: usize) -> usize {
        self.footer_start().saturating_sub(self.round_up(words * 8))
    }

    /// Bytes of records, with their summaries, that all segments together hold at most.
    pub fn data_bytes(&self) -> u64 {
        u64::from(self.segments) * u64::from(self.segment_bytes - 2 * self.block_bytes)
    }

    /// As a superblock.
    pub fn encode(&self, generation: u64) -> Numbers<9> {
        encode(
            SUPERBLOCK_MAGIC,
            [
                VERSION,
                generation,
                u64::from(self.block_bytes),
                u64::from(self.segment_bytes),
                u64::from(self.segments),
                self.store,
                self.secret[0],
                self.secret[1],
                0,
            ],
        )
    }

    /// From a superblock.
    pub fn decode(from: &[u8], partition_bytes: u64) -> Superblock {
        let Some(
            [
                version,
                generation,
                block,
                segment,
                segments,
                store,
                secret_a,
                secret_b,
                _,
            ],
        ) = decode(SUPERBLOCK_MAGIC, from)
        else {
            return match from.iter().all(|&byte| byte == 0) {
                true => Superblock::Blank,
                false => Superblock::Unknown,
            };
        };
        let layout = || {
            Some(Layout {
                block_bytes: block.try_into().ok()?,
                segment_bytes: segment.try_into().ok()?,
                segments: segments.try_into().ok()?,
                store,
                secret: [secret_a, secret_b],
            })
        };
        match layout() {
            Some(layout) if version == VERSION && layout.is_possible(partition_bytes) => {
                Superblock::Store { layout, generation }
            }
            // Right, but not for us: of another version, or of a larger partition.
            _ => Superblock::Foreign { version },
        }
    }
}

/// What a superblock's place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Superblock {
    /// Zeros.
    Blank,
    /// Something that isn't a superblock, or is a damaged one.
    Unknown,
    /// A superblock that this version can't use: of another version, or, if it is this one, of a larger partition.
    Foreign {
        /// Of the format that it is.
        version: u64,
    },
    /// A store's.
    Store {
        /// How it lies.
        layout: Layout,
        /// Counts its openings.
        generation: u64,
    },
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of this use of the segment.
    pub serial: u64,
    /// Of the segment that was written before, 0 for none.
    pub previous: u64,
    /// Where the records end there.
    pub previous_end: u64,
    /// The last group before this segment.
    pub sequence: u64,
}

/// What is where a header belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The segment is in use.
    Used(Header),
    /// It is free; the serial number of its last use.
    Free(u64),
    /// It was never used.
    Blank,
    /// It is damaged.
    Damaged,
}

impl Header {
    /// As bytes.
    pub fn encode(&self, store: u64) -> Numbers<5> {
        let Header {
            serial,
            previous,
            previous_end,
            sequence,
        } = *self;
        encode(HEADER_MAGIC, [store, serial, previous, previous_end, sequence])
    }

    /// What says that a segment is free.
    pub fn encode_free(store: u64, serial: u64) -> Numbers<5> {
        encode(FREE_MAGIC, [store, serial, 0, 0, 0])
    }

    /// From bytes.
    pub fn decode(from: &[u8], store: u64) -> Begin {
        if let Some([of, serial, previous, previous_end, sequence]) = decode(HEADER_MAGIC, from)
            && of == store
            && serial < SERIAL_LIMIT
            && sequence < SEQUENCE_LIMIT
        {
            return Begin::Used(Header {
                serial,
                previous,
                previous_end,
                sequence,
            });
        }
        match decode::<5>(FREE_MAGIC, from) {
            Some([of, serial, ..]) if of == store && serial < SERIAL_LIMIT => Begin::Free(serial),
            _ if from.iter().all(|&byte| byte == 0) => Begin::Blank,
            _ => Begin::Damaged,
        }
    }
}

/// What a sealed segment ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Of this use of the segment.
    pub serial: u64,
    /// Where the records end.
    pub end: u64,
    /// Words of the summary.
    pub words: u64,
    /// Their checksum.
    pub summary_crc: u32,
    /// The last group in the segment or before it.
    pub sequence: u64,
}

impl Footer {
    /// As bytes.
    pub fn encode(&self, store: u64) -> Numbers<6> {
        encode(
            FOOTER_MAGIC,
            [
                store,
                self.serial,
                self.end,
                self.words,
                u64::from(self.summary_crc),
                self.sequence,
            ],
        )
    }

    /// From bytes; `None` unless they are right and possible.
    pub fn decode(from: &[u8], layout: &Layout) -> Option<Footer> {
        let [store, serial, end, words, summary_crc, sequence] = decode(FOOTER_MAGIC, from)?;
        let limit = layout.footer_start() as u64;
        let fits = words <= limit / 8 && end <= layout.summary_start(words as usize) as u64;
        let is_possible = serial < SERIAL_LIMIT && sequence < SEQUENCE_LIMIT;
        (store == layout.store && fits && is_possible && end >= u64::from(layout.block_bytes)).then_some(
            Footer {
                serial,
                end,
                words,
                summary_crc: summary_crc as u32,
                sequence,
            },
        )
    }
}

/// A magic number, `N` numbers and a checksum.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<const N: usize> {
    magic: [u8; 8],
    numbers: [u64; N],
}

impl<const N: usize> Numbers<N> {
    /// Writes it to the start of `to`.
    pub fn write_to(&self, to: &mut [u8]) {
        let mut crc = checksum::extend(0, &self.magic);
        let words = core::iter::once(self.magic).chain(self.numbers.map(u64::to_le_bytes));
        let mut chunks = to.chunks_exact_mut(8);
        for (index, (word, chunk)) in words.zip(&mut chunks).enumerate() {
            if index > 0 {
                crc = checksum::extend(crc, &word);
            }
            chunk.copy_from_slice(&word);
        }
        if let Some(chunk) = chunks.next() {
            chunk.copy_from_slice(&u64::from(crc).to_le_bytes());
        }
    }
}

fn encode<const N: usize>(magic: &[u8; 8], numbers: [u64; N]) -> Numbers<N> {
    Numbers {
        magic: *magic,
        numbers,
    }
}

fn decode<const N: usize>(magic: &[u8; 8], from: &[u8]) -> Option<[u64; N]> {
    let (head, rest) = from.split_at_checked(8)?;
    let (content, rest) = rest.split_at_checked(N * 8)?;
    let crc = u64::from_le_bytes(*rest.first_chunk()?);
    let right = head == magic && crc == u64::from(checksum::extend(checksum::extend(0, head), content));
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(content.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    right.then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAYOUT: Layout = Layout {
        block_bytes: 512,
        segment_bytes: 1 << 20,
        segments: 64,
        store: 5,
        secret: [6, 7],
    };
    const PARTITION: u64 = HEAD_BYTES + (64 << 20);

    #[test]
    fn superblocks_come_back() {
        let mut bytes = [0; 512];
        assert_eq!(Layout::decode(&bytes, PARTITION), Superblock::Blank);
        LAYOUT.encode(3).write_to(&mut bytes);
        let store = Superblock::Store {
            layout: LAYOUT,
            generation: 3,
        };
        assert_eq!(Layout::decode(&bytes, PARTITION), store);
        assert_eq!(
            Layout::decode(&bytes, PARTITION - 1),
            Superblock::Foreign { version: VERSION }
        );
        bytes[20] ^= 1;
        assert_eq!(Layout::decode(&bytes, PARTITION), Superblock::Unknown);
    }

    #[test]
    fn sizes_of_segments() {
        let segment = |bytes| Layout::choose(bytes, 512, None, [0; 3]).map(|layout| layout.segment_bytes);
        assert_eq!(segment(1 << 20), Err(BadShape));
        assert_eq!(segment(64 << 20), Ok(1 << 20));
        assert_eq!(segment(1 << 30), Ok(2 << 20));
        assert_eq!(segment(1 << 40), Ok(8 << 20));
        assert_eq!(segment(1 << 44), Err(BadShape));
        assert_eq!(Layout::choose(1 << 30, 520, None, [0; 3]), Err(BadShape));
    }

    #[test]
    fn places_are_located() {
        for (segment, offset) in [(0, 0), (3, 512), (63, (1 << 20) - 8)] {
            assert_eq!(
                LAYOUT.locate(LAYOUT.segment_start(segment) + offset as u64),
                (segment, offset)
            );
        }
    }

    proptest! {
        #[test]
        fn headers_and_footers_come_back(serial in 0..SERIAL_LIMIT, previous: u64, end in 512..(1_u64 << 19), words in 0..1000_u64, crc: u32, sequence in 0..SEQUENCE_LIMIT) {
            let mut bytes = [0; 512];
            let header = Header { serial, previous, previous_end: end, sequence };
            header.encode(5).write_to(&mut bytes);
            prop_assert_eq!(Header::decode(&bytes, 5), Begin::Used(header));
            prop_assert_eq!(Header::decode(&bytes, 6), Begin::Damaged);
            Header::encode_free(5, serial).write_to(&mut bytes);
            prop_assert_eq!(Header::decode(&bytes, 5), Begin::Free(serial));
            let footer = Footer { serial, end, words, summary_crc: crc, sequence };
            footer.encode(5).write_to(&mut bytes);
            prop_assert_eq!(Footer::decode(&bytes, &LAYOUT), Some(footer));
            prop_assert_eq!(Header::decode(&bytes, 5), Begin::Damaged);
        }

        #[test]
        fn any_bytes_are_taken_in_peace(bytes: Vec<u8>) {
            let _ = Layout::decode(&bytes, PARTITION);
            let _ = Header::decode(&bytes, 5);
            let _ = Footer::decode(&bytes, &LAYOUT);
        }
    }
}
