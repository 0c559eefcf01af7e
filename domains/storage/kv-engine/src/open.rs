//! Opening a store: finding its segments, making the index again, and where the log ends.
//!
//! Sealed segments say by their summaries what is in them, and only these are read. The one that was open is read as a whole, up to the first
//! record that isn't right or doesn't follow: with that the log ends, and what a disk may have written behind it, out of order, is dropped
//! and counted. Then the segment is sealed where it ended, so that what was dropped can't come back, and the log goes on in another.
//!
//! A partition that is blank gets a store. One that holds anything else is left as it is.

use crate::disk::{Disk, Runs};
use crate::engine::{Engine, Limits, Opened, store_error};
use crate::image::{Action, Summary};
use crate::key_hash::Secret;
use crate::layout::{Begin, Footer, Header, LEAST_SEGMENT_BYTES, Layout};
use crate::record::{self, LAST, LOOSE, Seed};
use crate::state::{Segment, State, Unnamed, Use};
use crate::superblocks::{find_layout, format, write_superblock};
use crate::walk::hash_of;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use interface::key_value::StoreError;

/// What of a segment's end is read at once: of a segment with long values that is the whole summary.
const TAIL_BYTES: usize = 32 << 10;
const _: () = assert!(TAIL_BYTES < LEAST_SEGMENT_BYTES as usize);

/// Bytes of summaries that are read at once when a store is opened, if they are several.
const SUMMARIES_BYTES: usize = 1 << 20;

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory.
    pub limits: Limits,
    /// Bytes of a segment of a new store; `None` chooses by the partition's size.
    pub segment_bytes: Option<u32>,
    /// Where random numbers come from.
    pub random: fn() -> u64,
}

/// A segment as it was found.
struct Found {
    number: u32,
    header: Header,
    footer: Option<Footer>,
}

/// What a segment without a footer turned out to hold.
struct Scanned {
    summary: Summary,
    end: usize,
    sequence: u64,
    /// Bytes of a group that ends too early.
    cut_bytes: usize,
    dropped_groups: u64,
    dropped_bytes: u64,
    is_damaged: bool,
    /// Nothing was ever written where the records end.
    ends_well: bool,
}

impl<D: Disk> Engine<D> {
    /// Opens the store on `disk`, or makes one if it is blank. `progress` is told the share that is done, in percent.
    ///
    /// # Errors
    /// [`StoreError::Unrecognised`] when the partition holds something else, [`StoreError::TooSmall`],
    /// [`StoreError::OutOfMemory`] when the index doesn't fit, [`StoreError::Device`].
    pub fn open(disk: D, options: Options, progress: impl Fn(u8)) -> Result<Engine<D>, StoreError> {
        let runs = Runs::new(disk);
        let (layout, generation) = match find_layout(&runs)? {
            Some(found) => found,
            None => (format(&runs, options)?, 0),
        };
        let mut opening = Opening {
            runs: &runs,
            state: State::new(layout, options.limits.index_bytes),
            opened: Opened::default(),
            unnamed: Unnamed::default(),
        };
        opening.load(&progress)?;
        let Opening {
            mut state, opened, ..
        } = opening;
        // So that no name of a long value is given twice, this opening has its own.
        state.next_value = generation.saturating_add(1) << 32;
        write_superblock(&runs, &layout, generation.saturating_add(1))?;
        Ok(Engine::from_parts(runs, state, options.limits, opened))
    }
}

/// The summary of segment `number` that `footer` tells of, `None` if it is damaged; and the bytes that were read.
fn read_summary<D: Disk>(
    runs: &Runs<D>,
    layout: &Layout,
    number: u32,
    footer: &Footer,
) -> Result<(Option<Summary>, u64), StoreError> {
    let words = footer.words as usize;
    let at = layout.summary_start(words);
    let mut bytes = alloc::vec![0; layout.footer_start() - at];
    runs.read(layout.segment_start(number) + at as u64, &mut bytes)
        .map_err(store_error)?;
    let read_bytes = bytes.len() as u64;
    bytes.truncate(words * 8);
    Ok((summary_of(&bytes, footer), read_bytes))
}

/// The summary in `bytes`, if it is the footer's.
fn summary_of(bytes: &[u8], footer: &Footer) -> Option<Summary> {
    (checksum::extend(0, bytes) == footer.summary_crc).then(|| Summary::from_bytes(bytes))
}

impl<D: Disk> Engine<D> {
    /// The summary of a sealed segment, `None` if it or the footer is damaged; and the bytes that were read.
    pub(crate) fn read_summary(
        &self,
        segment: u32,
        serial: u64,
    ) -> Result<(Option<Summary>, u64), StoreError> {
        let layout = &self.layout;
        let at = layout.segment_bytes as usize - TAIL_BYTES;
        let mut tail = alloc::vec![0; TAIL_BYTES];
        self.runs
            .read(layout.segment_start(segment) + at as u64, &mut tail)
            .map_err(store_error)?;
        let footer = tail
            .get(layout.footer_start() - at..)
            .and_then(|from| Footer::decode(from, layout));
        let Some(footer) = footer.filter(|footer| footer.serial == serial) else {
            return Ok((None, TAIL_BYTES as u64));
        };
        let words = footer.words as usize;
        let in_tail = layout.summary_start(words).checked_sub(at);
        let Some(bytes) = in_tail.and_then(|from| tail.get(from..from + words * 8)) else {
            let (summary, read_bytes) = read_summary(&self.runs, layout, segment, &footer)?;
            return Ok((summary, read_bytes + TAIL_BYTES as u64));
        };
        Ok((summary_of(bytes, &footer), TAIL_BYTES as u64))
    }
}

struct Opening<'a, D> {
    runs: &'a Runs<D>,
    state: State,
    opened: Opened,
    unnamed: Unnamed,
}

impl<D: Disk> Opening<'_, D> {
    fn load(&mut self, progress: &impl Fn(u8)) -> Result<(), StoreError> {
        let found = self.find_segments()?;
        let mut changed = false;
        let order: Vec<u64> = found.keys().copied().collect();
        let mut summaries = BTreeMap::new();
        for (index, &serial) in order.iter().enumerate() {
            progress((index * 100 / order.len()) as u8);
            domain_rt::thread::heartbeat();
            let Some(this) = found.get(&serial) else { continue };
            let next = order.get(index + 1).and_then(|next| found.get(next));
            if this.footer.is_some() && !summaries.contains_key(&serial) {
                let ahead = order.get(index..).unwrap_or_default().iter();
                summaries = self.read_summaries(ahead.filter_map(|serial| found.get(serial)))?;
            }
            changed |= self.load_segment(this, next, summaries.remove(&serial).flatten())?;
        }
        // What was taken up is durable before anything follows it, and before anybody is told of it.
        self.runs.flush().map_err(store_error)?;
        if changed {
            self.end_segments(&found)?;
        }
        for number in 0..self.state.layout.segments {
            let segment = self.state.segments.get(number as usize);
            if segment.is_some_and(|segment| segment.usage == Use::Free) {
                self.state.free.push_back(number);
            }
        }
        self.state.durable = self.state.appended;
        Ok(())
    }

    /// All segments in use, by serial number.
    fn find_segments(&mut self) -> Result<BTreeMap<u64, Found>, StoreError> {
        let layout = self.state.layout;
        let mut begins = alloc::vec![Begin::Damaged; layout.segments as usize];
        let mut footers = alloc::vec![None; layout.segments as usize];
        let starts: Vec<u64> = (0..layout.segments)
            .map(|segment| layout.segment_start(segment))
            .collect();
        // What is damaged is read again: perhaps it was so on the way only.
        for _ in 0..2 {
            self.runs
                .read_scattered(&starts, |index, bytes| {
                    if let Some(begin @ Begin::Damaged) = begins.get_mut(index) {
                        *begin = Header::decode(bytes, layout.store);
                    }
                })
                .map_err(store_error)?;
            if !begins.contains(&Begin::Damaged) {
                break;
            }
        }
        let used: Vec<usize> = begins
            .iter()
            .enumerate()
            .filter_map(|(number, begin)| matches!(begin, Begin::Used(_)).then_some(number))
            .collect();
        let ends: Vec<u64> = used
            .iter()
            .map(|&number| layout.segment_start(number as u32) + layout.footer_start() as u64)
            .collect();
        self.runs
            .read_scattered(&ends, |index, bytes| {
                let number = used.get(index).copied().unwrap_or_default();
                if let Some(footer) = footers.get_mut(number) {
                    *footer = Footer::decode(bytes, &layout);
                }
            })
            .map_err(store_error)?;
        self.opened.read_bytes += (starts.len() + ends.len()) as u64 * u64::from(layout.block_bytes);
        let mut found: BTreeMap<u64, Found> = BTreeMap::new();
        let mut newest = 0;
        for (number, (begin, footer)) in (0..).zip(begins.into_iter().zip(footers)) {
            match begin {
                Begin::Used(header) => {
                    newest = newest.max(header.serial);
                    let footer = footer.filter(|footer: &Footer| footer.serial == header.serial);
                    let segment = Found {
                        number,
                        header,
                        footer,
                    };
                    let segment = match found.remove(&header.serial) {
                        Some(other) => self.elect(other, segment)?,
                        None => segment,
                    };
                    found.insert(header.serial, segment);
                }
                Begin::Free(serial) => newest = newest.max(serial),
                Begin::Blank => {}
                Begin::Damaged => {
                    // What it was is unknown; nothing is written over it.
                    self.opened.damaged_segments += 1;
                    if let Some(segment) = self.state.segments.get_mut(number as usize) {
                        segment.usage = Use::Sealed;
                        segment.is_stuck = true;
                    }
                }
            }
        }
        self.state.next_serial = newest.saturating_add(1);
        Ok(found)
    }

    /// Of two segments with one serial number the one that has more: where a segment couldn't be written, all of it went to another one
    /// (`State::move_image`). The other one is free.
    fn elect(&mut self, first: Found, second: Found) -> Result<Found, StoreError> {
        let limit = self.state.layout.footer_start();
        let mut reach = |this: &Found| -> Result<_, StoreError> {
            let scanned = self.scan_once(this, limit, true)?;
            Ok((this.footer.is_some(), scanned.sequence, scanned.end))
        };
        let (winner, loser) = match reach(&first)? >= reach(&second)? {
            true => (first, second),
            false => (second, first),
        };
        let layout = self.state.layout;
        let mut header = alloc::vec![0; layout.block_bytes as usize];
        Header::encode_free(layout.store, loser.header.serial).write_to(&mut header);
        self.runs
            .write(layout.segment_start(loser.number), &header, false)
            .map_err(store_error)?;
        Ok(winner)
    }

    /// Takes a segment up; true when it isn't sealed.
    fn load_segment(
        &mut self,
        this: &Found,
        next: Option<&Found>,
        summary: Option<Summary>,
    ) -> Result<bool, StoreError> {
        let serial = this.header.serial;
        let sealed = summary.zip(this.footer);
        let (summary, end, sequence) = match sealed {
            Some((summary, footer)) => (summary, footer.end as usize, footer.sequence),
            None => {
                let limit = match (this.footer, next) {
                    (Some(footer), _) => footer.end as usize,
                    (None, Some(next)) if next.header.previous == serial => next.header.previous_end as usize,
                    (None, _) => self.state.layout.footer_start(),
                };
                let is_last = this.footer.is_none() && next.is_none();
                let scanned =
                    self.scan_segment(this, limit.min(self.state.layout.footer_start()), is_last)?;
                self.opened.dropped_groups += scanned.dropped_groups;
                self.opened.dropped_bytes += scanned.dropped_bytes;
                self.opened.damaged_segments += u32::from(scanned.is_damaged);
                (scanned.summary, scanned.end, scanned.sequence)
            }
        };
        self.state.log.insert(serial, this.number);
        if let Some(segment) = self.state.segments.get_mut(this.number as usize) {
            *segment = Segment {
                usage: Use::Sealed,
                serial,
                end,
                ..Segment::default()
            };
        }
        for note in summary.notes() {
            self.state.index.reserve(1).map_err(|_| StoreError::OutOfMemory)?;
            let unnamed = self.unnamed.pieces.values().map(BTreeMap::len);
            if matches!(note.action, Action::PutLong(_)) {
                let most = unnamed.sum::<usize>() + 1;
                self.state
                    .index
                    .reserve(most)
                    .map_err(|_| StoreError::OutOfMemory)?;
            }
            self.state.replay(this.number, serial, note, &mut self.unnamed);
        }
        self.state.appended = self.state.appended.max(sequence);
        self.state.previous = (serial, end as u64);
        Ok(this.footer.is_none())
    }

    /// The summaries of the first of these segments, by serial number, as many as are read at once; `None` for one that is damaged.
    fn read_summaries<'f>(
        &mut self,
        segments: impl Iterator<Item = &'f Found>,
    ) -> Result<BTreeMap<u64, Option<Summary>>, StoreError> {
        let layout = self.state.layout;
        let (mut stretches, mut footers, mut total) = (Vec::new(), Vec::new(), 0);
        for this in segments {
            let Some(footer) = this.footer else { continue };
            let at = layout.summary_start(footer.words as usize);
            let length = layout.footer_start() - at;
            if total > 0 && total + length > SUMMARIES_BYTES {
                break;
            }
            stretches.push((layout.segment_start(this.number) + at as u64, length));
            footers.push(footer);
            total += length;
        }
        let mut bytes = alloc::vec![0; total];
        match stretches.as_slice() {
            &[(offset, _)] => self.runs.read(offset, &mut bytes),
            many => self.runs.read_stretches(many, &mut bytes),
        }
        .map_err(store_error)?;
        self.opened.read_bytes += total as u64;
        let mut rest = bytes.as_slice();
        let summaries = footers.iter().zip(stretches).map(|(footer, (_, length))| {
            let (this, behind) = rest.split_at_checked(length).unwrap_or_default();
            rest = behind;
            let summary = this.get(..footer.words as usize * 8);
            (footer.serial, summary.and_then(|bytes| summary_of(bytes, footer)))
        });
        Ok(summaries.collect())
    }

    /// Reads a segment's records up to `limit`. In the last one, the log ends at the first that isn't right or doesn't follow; in others, all
    /// before `limit` was durable when the next was begun, so what isn't right there is damage, and what comes behind it counts.
    ///
    /// Reads it again where that ends in the middle of something, and takes what goes further: what was wrong may have been so on the way only.
    fn scan_segment(&mut self, this: &Found, limit: usize, is_last: bool) -> Result<Scanned, StoreError> {
        let first = self.scan_once(this, limit, is_last)?;
        if first.ends_well && !first.is_damaged {
            return Ok(first);
        }
        let second = self.scan_once(this, limit, is_last)?;
        let further = |scanned: &Scanned| (!scanned.is_damaged, scanned.end, scanned.summary.words());
        Ok(if further(&second) > further(&first) {
            second
        } else {
            first
        })
    }

    fn scan_once(&mut self, this: &Found, limit: usize, is_last: bool) -> Result<Scanned, StoreError> {
        let layout = self.state.layout;
        let mut bytes = alloc::vec![0; layout.round_up(limit)];
        self.runs
            .read(layout.segment_start(this.number), &mut bytes)
            .map_err(store_error)?;
        self.opened.read_bytes += bytes.len() as u64;
        bytes.truncate(limit);
        let scan = Scan {
            layout,
            bytes: &bytes,
            seed: Seed::new(layout.store, this.header.serial),
            secret: self.state.secret,
        };
        let mut scanned = Scanned {
            summary: Summary::default(),
            end: layout.block_bytes as usize,
            sequence: this.header.sequence,
            cut_bytes: 0,
            dropped_groups: 0,
            dropped_bytes: 0,
            is_damaged: false,
            ends_well: false,
        };
        let mut stopped = scan.follow(&mut scanned, layout.block_bytes as usize);
        let rest = bytes.get(stopped..).unwrap_or_default();
        let block = rest.get(..layout.block_bytes as usize).unwrap_or(rest);
        scanned.ends_well = block.iter().all(|&byte| byte == 0);
        if is_last {
            scan.count_dropped(&mut scanned, stopped);
            return Ok(scanned);
        }
        while stopped < limit {
            scanned.is_damaged = true;
            let next = scan.next_record(stopped);
            scanned.dropped_bytes += (next - stopped) as u64;
            let Some((record, _)) = scan.record(next) else {
                break;
            };
            // The groups in between are gone; the log goes on with this one.
            scanned.sequence = match record.head.flags & LOOSE {
                0 => record.head.sequence.saturating_sub(1),
                _ => scanned.sequence,
            };
            stopped = scan.follow(&mut scanned, next);
        }
        scanned.end = limit;
        Ok(scanned)
    }

    /// Seals the segments that aren't, where their records end, and frees those that have none.
    fn end_segments(&mut self, found: &BTreeMap<u64, Found>) -> Result<(), StoreError> {
        let layout = self.state.layout;
        for this in found.values().filter(|this| this.footer.is_none()) {
            let Some(segment) = self.state.segments.get(this.number as usize).copied() else {
                continue;
            };
            let start = layout.segment_start(this.number);
            let head_bytes = layout.block_bytes as usize;
            if segment.end <= head_bytes {
                let mut header = alloc::vec![0; head_bytes];
                Header::encode_free(layout.store, this.header.serial).write_to(&mut header);
                self.runs.write(start, &header, false).map_err(store_error)?;
                self.state.log.remove(&this.header.serial);
                if let Some(segment) = self.state.segments.get_mut(this.number as usize) {
                    *segment = Segment::default();
                }
                self.state.previous = match this.header.previous {
                    previous if self.state.previous.0 == this.header.serial => {
                        (previous, this.header.previous_end)
                    }
                    _ => self.state.previous,
                };
                continue;
            }
            let again = Found {
                number: this.number,
                header: this.header,
                footer: None,
            };
            let scanned = self.scan_segment(&again, segment.end, false)?;
            let (at, bytes) =
                scanned
                    .summary
                    .ending(&layout, this.header.serial, segment.end as u64, scanned.sequence);
            self.runs.write(start + at, &bytes, false).map_err(store_error)?;
        }
        self.runs.flush().map_err(store_error)
    }
}

/// A segment's bytes, to look for records in.
struct Scan<'a> {
    layout: Layout,
    bytes: &'a [u8],
    seed: Seed,
    secret: Secret,
}

impl<'a> Scan<'a> {
    fn record(&self, offset: usize) -> Option<(record::Record<'a>, usize)> {
        record::decode(self.bytes.get(offset..)?, self.seed, offset)
    }

    /// Notes the records of whole groups from `offset` on, as long as they follow each other; where that ends.
    fn follow(&self, scanned: &mut Scanned, mut offset: usize) -> usize {
        let mut whole_words = scanned.summary.words();
        let mut group = None;
        loop {
            let Some((record, length)) = self.record(offset) else {
                let next = self.layout.round_up(offset);
                let rest = self.bytes.get(offset..).unwrap_or_default();
                if next != offset && record::is_padding(rest) && group.is_none() {
                    offset = next;
                    continue;
                }
                break;
            };
            let is_loose = record.head.flags & LOOSE != 0;
            let expected = group.unwrap_or(scanned.sequence.saturating_add(1));
            if (is_loose && group.is_some()) || (!is_loose && record.head.sequence != expected) {
                break;
            }
            let hash = hash_of(self.secret, &record).unwrap_or(self.secret.hash(&[]));
            scanned
                .summary
                .push(offset, length, record.head, hash, record.key, record.value);
            offset += length;
            group = Some(expected);
            if is_loose || record.head.flags & LAST != 0 {
                if !is_loose {
                    scanned.sequence = expected;
                }
                group = None;
                whole_words = scanned.summary.words();
                scanned.end = offset;
            }
        }
        scanned.summary.truncate(whole_words);
        scanned.cut_bytes = if group.is_some() { offset - scanned.end } else { 0 };
        offset
    }

    /// The next record behind `offset` that begins a logical block; the end of the bytes if there is none.
    fn next_record(&self, offset: usize) -> usize {
        let mut next = self.layout.round_up(offset + 1);
        while next < self.bytes.len() && self.record(next).is_none() {
            next += self.layout.block_bytes as usize;
        }
        next.min(self.bytes.len())
    }

    /// Counts what the log doesn't reach: the group that is cut off at `offset`, and all behind.
    fn count_dropped(&self, scanned: &mut Scanned, offset: usize) {
        scanned.dropped_groups += u64::from(scanned.cut_bytes > 0);
        scanned.dropped_bytes += scanned.cut_bytes as u64;
        let mut next = self.next_record(offset.saturating_sub(1));
        while let Some((record, length)) = self.record(next) {
            let is_end = record.head.flags & (LAST | LOOSE) == LAST;
            scanned.dropped_groups += u64::from(is_end);
            scanned.dropped_bytes += length as u64;
            next += length;
            if self.record(next).is_none() {
                next = self.next_record(next.saturating_sub(1));
            }
        }
    }
}
