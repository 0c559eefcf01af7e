//! The disk's content at a point of the log.
//!
//! What was written before a flush is there once the flush is; of what was written since, a power cut leaves any part, by whole sectors, and a later
//! write may be there though an earlier one isn't. Forced writes count as done at their place in the log.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::write_log::{Entry, WriteLog};

/// Bytes that survive a power cut as a whole.
pub const SECTOR_BYTES: usize = 512;

/// What the disk holds.
#[derive(Clone, Default)]
pub struct Medium {
    /// What is durable; sectors that aren't there are zeros.
    durable: Arc<Sectors>,
    /// What a power cut, or the store after it, put over it.
    over: HashMap<u64, Box<[u8; SECTOR_BYTES]>>,
}

type Sectors = HashMap<u64, Box<[u8; SECTOR_BYTES]>>;

impl Medium {
    /// Reads whole sectors.
    pub fn read(&self, sector: u64, into: &mut [u8]) {
        for (number, to) in (sector..).zip(into.chunks_mut(SECTOR_BYTES)) {
            match self.over.get(&number).or_else(|| self.durable.get(&number)) {
                Some(from) => to.copy_from_slice(from.get(..to.len()).unwrap_or_default()),
                None => to.fill(0),
            }
        }
    }

    /// Writes whole sectors.
    pub fn write(&mut self, sector: u64, bytes: &[u8]) {
        put(&mut self.over, sector, bytes);
    }
}

fn put(sectors: &mut Sectors, first: u64, bytes: &[u8]) {
    for (number, from) in (first..).zip(bytes.chunks(SECTOR_BYTES)) {
        let to = sectors
            .entry(number)
            .or_insert_with(|| Box::new([0; SECTOR_BYTES]));
        if let Some(to) = to.get_mut(..from.len()) {
            to.copy_from_slice(from);
        }
    }
}

/// A walk through the log, from flush to flush.
pub struct Replay<'a> {
    log: &'a WriteLog,
    durable: Arc<Sectors>,
    /// Entries that are durable.
    done: usize,
}

impl<'a> Replay<'a> {
    /// At the log's beginning: a blank disk.
    pub fn new(log: &'a WriteLog) -> Self {
        Self {
            log,
            durable: Arc::default(),
            done: 0,
        }
    }

    /// Goes behind the next flush; `false` when there is none.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn advance(&mut self) -> Result<bool> {
        let entries = &self.log.entries;
        let Some(flush) = entries
            .iter()
            .skip(self.done)
            .position(|entry| entry.flush && entry.length == 0)
        else {
            return Ok(false);
        };
        let flush = self.done + flush;
        // Media that were given out are gone by now, as a rule; else this makes a copy.
        let durable = Arc::make_mut(&mut self.durable);
        for entry in entries.get(self.done..flush).unwrap_or_default() {
            ensure!(
                entry.offset.is_multiple_of(SECTOR_BYTES as u64),
                "the log has writes that don't begin with a sector"
            );
            put(
                durable,
                entry.offset / SECTOR_BYTES as u64,
                &self.log.data(entry)?,
            );
        }
        self.done = flush + 1;
        Ok(true)
    }

    /// How far the log is, in bytes: acknowledgements up to there stand.
    pub fn mark(&self) -> u64 {
        match self
            .done
            .checked_sub(1)
            .and_then(|last| self.log.entries.get(last))
        {
            Some(entry) => entry.end,
            None => self.log.sector_bytes,
        }
    }

    /// Whether writes follow before the next flush.
    pub fn has_pending(&self) -> bool {
        !self.pending().is_empty()
    }

    /// The medium with nothing but what is durable.
    pub fn medium(&self) -> Medium {
        Medium {
            durable: self.durable.clone(),
            over: HashMap::new(),
        }
    }

    /// The medium when power fails between this flush and the next: a part of the writes between them, drawn by `seed`, in an order drawn by it, and each
    /// possibly torn between two sectors.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn cut(&self, seed: u64) -> Result<Medium> {
        let mut random = fastrand::Rng::with_seed(seed ^ (self.done as u64) << 20);
        let mut medium = self.medium();
        let pending = self.pending();
        // Power fails after so many requests were made.
        let made = pending.get(..random.usize(..=pending.len())).unwrap_or_default();
        let mut order: Vec<&Entry> = made.iter().collect();
        random.shuffle(&mut order);
        // From none of them to all.
        let share = random.f64();
        for entry in order {
            if !entry.forced && random.f64() > share {
                continue;
            }
            let data = self.log.data(entry).context("a write that is under way")?;
            let sector = entry.offset / SECTOR_BYTES as u64;
            let torn = !entry.forced && random.u32(..4) == 0;
            for (number, bytes) in (sector..).zip(data.chunks(SECTOR_BYTES)) {
                if !torn || random.bool() {
                    medium.write(number, bytes);
                }
            }
        }
        Ok(medium)
    }

    fn pending(&self) -> &[Entry] {
        let rest = self.log.entries.get(self.done..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|entry| entry.flush && entry.length == 0)
            .unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }
}
