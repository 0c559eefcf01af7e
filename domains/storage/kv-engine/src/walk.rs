//! Walking through segments record by record, and the check of the whole store that the operator asks for.

use crate::disk::{Disk, DiskError};
use crate::engine::{Engine, store_error};
use crate::key_hash::{KeyHash, Secret};
use crate::layout::Layout;
use crate::place::RECORD_LIMIT_BYTES;
use crate::record::{self, Kind, PieceName, Record, Seed};
use crate::state::Use;
use alloc::vec::Vec;
use interface::key_value::{CheckReport, StoreError};

/// One step through a segment's bytes.
pub(crate) enum Step<'a> {
    /// A record, and its bytes.
    Record(Record<'a>, usize),
    /// Zeros to the end of a logical block.
    Padding(usize),
    /// The bytes end in the middle of a record.
    Cut,
    /// No record: go on with the next logical block.
    Damage(usize),
}

/// What is at `offset` of a segment, of which `bytes` are those from there on.
pub(crate) fn step<'a>(layout: &Layout, seed: Seed, offset: usize, bytes: &'a [u8]) -> Step<'a> {
    if let Some((record, length)) = record::decode(bytes, seed, offset) {
        return Step::Record(record, length);
    }
    let rest_of_block = layout.round_up(offset + 1) - offset;
    if record::is_padding(bytes) && rest_of_block < layout.block_bytes as usize {
        return Step::Padding(rest_of_block);
    }
    if bytes.len() < RECORD_LIMIT_BYTES {
        return Step::Cut;
    }
    Step::Damage(rest_of_block)
}

/// The hash that the index has a record under, if it can have it.
pub(crate) fn hash_of(secret: Secret, record: &Record<'_>) -> Option<KeyHash> {
    match record.head.kind {
        Kind::Put | Kind::PutLong | Kind::Delete => Some(secret.hash(record.key)),
        Kind::Piece => PieceName::decode(record.key).map(|name| secret.piece(name.id, name.number)),
        Kind::Clear | Kind::Nothing => None,
    }
}

impl<D: Disk> Engine<D> {
    /// Checks the segment at `cursor`, the serial number of the last one that was checked; see
    /// [`interface::key_value::KeyValueStore::check`].
    pub fn check(&self, cursor: u64) -> Result<CheckReport, StoreError> {
        let report = self.check_once(cursor)?;
        if report.damaged + report.dangling + report.unreadable == 0 {
            return Ok(report);
        }
        // Perhaps that was so on the way only.
        self.check_once(cursor)
    }

    fn check_once(&self, cursor: u64) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        let (serial, number, segment, mut bytes) = {
            let state = self.state.lock();
            let Some((&serial, &number)) = state.log.range(cursor.saturating_add(1)..).next() else {
                return Ok(report);
            };
            let images = [&state.open, &state.sealing];
            let image = images.into_iter().flatten().find(|image| image.serial == serial);
            let segment = state.segments.get(number as usize).copied().unwrap_or_default();
            (
                serial,
                number,
                segment,
                image.map(|image| image.records().to_vec()),
            )
        };
        report.next = Some(serial);
        let start = self.layout.segment_start(number);
        if bytes.is_none() && segment.usage == Use::Sealed {
            let mut read = alloc::vec![0; self.layout.round_up(segment.end)];
            match self.runs.read(start, &mut read) {
                Ok(()) => {}
                Err(DiskError::Fault(_)) => {
                    report.unreadable = 1;
                    return Ok(report);
                }
                Err(error) => return Err(store_error(error)),
            }
            read.truncate(segment.end);
            bytes = Some(read);
        }
        let bytes = bytes.unwrap_or_default();
        let seed = Seed::new(self.layout.store, serial);
        let secret = self.state.lock().secret;
        let mut offset = self.layout.block_bytes as usize;
        let mut found = Vec::new();
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            offset += match step(&self.layout, seed, offset, rest) {
                Step::Record(record, length) => {
                    report.records += 1;
                    report.bytes += length as u64;
                    if record.head.kind != Kind::Delete
                        && let Some(hash) = hash_of(secret, &record)
                    {
                        found.push((hash, start + offset as u64));
                    }
                    length
                }
                Step::Padding(length) => length,
                Step::Damage(_) | Step::Cut => {
                    // One run of damage counts once.
                    report.damaged += 1;
                    self.behind_damage((number, serial), seed, offset, &bytes) - offset
                }
            };
            domain_rt::thread::heartbeat();
        }
        let state = self.state.lock();
        let images = [&state.open, &state.sealing];
        let in_memory = images.into_iter().flatten().find(|image| image.serial == serial);
        let now = state.segments.get(number as usize).copied().unwrap_or_default();
        // Records that came meanwhile are named, and weren't looked at: of such a segment nothing can be said, also if it has been sealed since.
        let has_grown = in_memory.map_or(now.end, |image| image.records().len()) != bytes.len();
        if state.log.get(&serial) != Some(&number) {
            // Cleaning freed it, and another one may have been written over what was read.
            return Ok(CheckReport {
                next: report.next,
                ..CheckReport::default()
            });
        }
        if !has_grown {
            let is_named =
                |&(hash, at): &(KeyHash, u64)| state.find(hash).is_some_and(|place| place.offset() == at);
            let named = found.into_iter().filter(is_named).count() as u64;
            report.dangling = u64::from(now.live_records).saturating_sub(named);
        }
        Ok(report)
    }

    /// Where the next record is behind damage at `offset` of a segment, given by its place and its serial number: its summary knows. Without that it
    /// is looked for at the starts of logical blocks. The end of the bytes if there is none.
    pub(crate) fn behind_damage(
        &self,
        (number, serial): (u32, u64),
        seed: Seed,
        offset: usize,
        bytes: &[u8],
    ) -> usize {
        let end = bytes.len().max(offset + 1);
        if let Ok((Some(summary), _)) = self.read_summary(number, serial) {
            let mut offsets = summary.notes().map(|note| note.offset);
            return offsets
                .find(|&next| next > offset)
                .map_or(end, |next| next.min(end));
        }
        let mut next = self.layout.round_up(offset + 1);
        while let Some(rest) = bytes.get(next..).filter(|rest| !rest.is_empty()) {
            if record::decode(rest, seed, next).is_some() {
                return next;
            }
            next += self.layout.block_bytes as usize;
        }
        end
    }
}
