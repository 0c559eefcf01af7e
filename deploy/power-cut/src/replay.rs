//! The disk's content at a point of the log.
//!
//! What was written before a flush is there once the flush is done, and a forced write once it is done itself. Of the rest a power cut leaves any part, by whole
//! sectors: a later write may be there though an earlier one isn't. The log tells when requests were made and not when they were done, so the last
//! few forced writes count as possibly under way: a cut may drop or tear them too, and then only what was acknowledged before they were made must be there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::write_log::{Entry, WriteLog};

/// Bytes that survive a power cut as a whole.
pub const SECTOR_BYTES: usize = 512;
/// Forced writes that may be under way together.
const UNDER_WAY: usize = 4;

type Sector = [u8; SECTOR_BYTES];
/// Sectors with the place in the log of the write that they are from.
type Sectors = HashMap<u64, (usize, Box<Sector>)>;

/// What the disk holds.
#[derive(Clone, Default)]
pub struct Medium {
    /// What is durable; sectors that aren't there are zeros.
    durable: Arc<Sectors>,
    /// What a power cut left besides, or the store wrote afterwards.
    over: HashMap<u64, Box<Sector>>,
}

impl Medium {
    /// Reads whole sectors.
    pub fn read(&self, sector: u64, into: &mut [u8]) {
        for (number, to) in (sector..).zip(into.chunks_mut(SECTOR_BYTES)) {
            let over = self.over.get(&number);
            match over.or_else(|| self.durable.get(&number).map(|(_, bytes)| bytes)) {
                Some(from) => to.copy_from_slice(from.get(..to.len()).unwrap_or_default()),
                None => to.fill(0),
            }
        }
    }

    /// Writes whole sectors.
    pub fn write(&mut self, sector: u64, bytes: &[u8]) {
        for (number, from) in (sector..).zip(bytes.chunks(SECTOR_BYTES)) {
            fill(
                self.over
                    .entry(number)
                    .or_insert_with(|| Box::new([0; SECTOR_BYTES])),
                from,
            );
        }
    }
}

fn fill(to: &mut Sector, from: &[u8]) {
    if let Some(to) = to.get_mut(..from.len()) {
        to.copy_from_slice(from);
    }
}

/// The content at a point, and what must be there.
pub struct Cut {
    /// The content.
    pub medium: Medium,
    /// Acknowledgements up to this place in the log, in bytes, stand.
    pub mark: u64,
}

/// A walk through the log, from one request that makes something durable to the next.
pub struct Replay<'a> {
    log: &'a WriteLog,
    durable: Arc<Sectors>,
    /// Requests that were made.
    made: usize,
    /// Writes that are not durable.
    volatile: Vec<usize>,
    /// The last forced writes.
    forced: VecDeque<usize>,
}

impl<'a> Replay<'a> {
    /// At the log's beginning: a blank disk.
    pub fn new(log: &'a WriteLog) -> Self {
        Self {
            log,
            durable: Arc::default(),
            made: 0,
            volatile: Vec::new(),
            forced: VecDeque::new(),
        }
    }

    /// How many flushes and forced writes a log has.
    pub fn barriers(log: &WriteLog) -> usize {
        log.entries.iter().filter(|entry| is_barrier(entry)).count()
    }

    /// Goes behind the next flush or forced write; `false` when there is none.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn advance(&mut self) -> Result<bool> {
        while let Some(entry) = self.log.entries.get(self.made) {
            let index = self.made;
            self.made += 1;
            if entry.flush {
                let mut all: Vec<usize> = std::mem::take(&mut self.volatile);
                all.extend(std::mem::take(&mut self.forced));
                all.sort_unstable();
                for earlier in all {
                    self.settle(earlier)?;
                }
            }
            if entry.length > 0 {
                if entry.forced {
                    self.forced.push_back(index);
                    if self.forced.len() > UNDER_WAY
                        && let Some(earlier) = self.forced.pop_front()
                    {
                        self.settle(earlier)?;
                    }
                } else {
                    self.volatile.push(index);
                }
            }
            if is_barrier(entry) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The content with all that is durable, and nothing else.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn durable(&self) -> Result<Cut> {
        let mut medium = self.empty();
        for &index in &self.forced {
            self.apply(&mut medium, index, |_| true)?;
        }
        let mark = self.mark();
        Ok(Cut { medium, mark })
    }

    /// The content when power fails about here: some of the last forced writes and of those that are made before the next barrier dropped or torn, drawn by
    /// `seed`, and a part of what is volatile there.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn cut(&self, seed: u64) -> Result<Cut> {
        let mut random = fastrand::Rng::with_seed(seed ^ (self.made as u64) << 20);
        let mut mark = self.mark();
        let rest = self.log.entries.get(self.made..).unwrap_or_default();
        let until_barrier = rest.iter().position(is_barrier).unwrap_or(rest.len());
        let further = random.usize(..=until_barrier);
        // So many of the last forced writes are under way.
        let under_way = random.usize(..=self.forced.len());
        let mut all: Vec<(usize, bool)> = self
            .forced
            .iter()
            .enumerate()
            .map(|(position, &index)| (index, position + under_way >= self.forced.len()))
            .collect();
        all.extend(self.volatile.iter().map(|&index| (index, true)));
        all.extend((self.made..self.made + further).map(|index| (index, true)));
        all.sort_unstable();
        let mut medium = self.empty();
        // From none of them to all.
        let share = random.f64();
        for (index, may_be_lost) in all {
            let torn = may_be_lost && random.u32(..4) == 0;
            let lost = may_be_lost && random.f64() > share;
            let forced = self.log.entries.get(index).filter(|entry| entry.forced);
            if let Some(entry) = forced.filter(|_| torn || lost) {
                mark = mark.min(entry.data.saturating_sub(self.log.sector_bytes));
            }
            if !lost {
                self.apply(&mut medium, index, |_| !torn || random.bool())?;
            }
        }
        Ok(Cut { medium, mark })
    }

    /// The end of the last request that was made.
    fn mark(&self) -> u64 {
        let last = self.made.checked_sub(1);
        last.and_then(|last| self.log.entries.get(last))
            .map_or(self.log.sector_bytes, |entry| entry.end)
    }

    fn empty(&self) -> Medium {
        Medium {
            durable: self.durable.clone(),
            over: HashMap::new(),
        }
    }

    /// Puts those sectors of a write that `keep` chooses over what is durable, unless what is durable is newer.
    fn apply(&self, medium: &mut Medium, index: usize, mut keep: impl FnMut(u64) -> bool) -> Result<()> {
        let Some((first, data)) = self.read(index)? else {
            return Ok(());
        };
        for (number, bytes) in (first..).zip(data.chunks(SECTOR_BYTES)) {
            let is_older = self.durable.get(&number).is_some_and(|(from, _)| *from > index);
            if keep(number) && !is_older {
                medium.write(number, bytes);
            }
        }
        Ok(())
    }

    fn settle(&mut self, index: usize) -> Result<()> {
        let Some((first, data)) = self.read(index)? else {
            return Ok(());
        };
        // Media that were given out are gone by now, as a rule; else this makes a copy.
        let durable = Arc::make_mut(&mut self.durable);
        for (number, bytes) in (first..).zip(data.chunks(SECTOR_BYTES)) {
            let (from, to) = durable
                .entry(number)
                .or_insert_with(|| (index, Box::new([0; SECTOR_BYTES])));
            if *from <= index {
                *from = index;
                fill(to, bytes);
            }
        }
        Ok(())
    }

    /// First sector and data of a write.
    fn read(&self, index: usize) -> Result<Option<(u64, Vec<u8>)>> {
        let Some(entry) = self.log.entries.get(index) else {
            return Ok(None);
        };
        ensure!(
            entry.offset.is_multiple_of(SECTOR_BYTES as u64),
            "the log has writes that don't begin with a sector"
        );
        Ok(Some((entry.offset / SECTOR_BYTES as u64, self.log.data(entry)?)))
    }
}

/// Whether a request makes something durable.
fn is_barrier(entry: &Entry) -> bool {
    entry.flush || entry.forced
}
