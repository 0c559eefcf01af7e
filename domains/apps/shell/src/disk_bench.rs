//! `disk bench`: what a disk does, measured as its users would use it: through the partitions, at a chosen number of operations under way.
//!
//! Only a partition for measurements is touched (`SCRATCH_PARTITION`). An operation is of one or more pages at consecutive places, and ends with
//! its last page.

use crate::answer::Answer;
use crate::import::Import;
use crate::table::{Table, bytes};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use domain_rt::{clock, thread};
use interface::block::{BlockDevice, BlockError, UnitInfo, WaitResult};
use interface::partition::SCRATCH_PARTITION;
use rref::block::{BLOCK_BYTES, Operation, Progress};
use rref::{BATCH_CAPACITY, Block, BlockBatch, RRef};
use serde_json::json;

/// Pages of all operations under way at most: what the shell's share of memory allows.
const PAGE_LIMIT: usize = 1024;
/// Longest measurement, seconds.
const SECONDS_LIMIT: u16 = 600;
/// How long what is under way at the end may take, nanoseconds.
const END_NS: u64 = 30_000_000_000;
/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Writes, not reads.
    pub writes: bool,
    /// One place behind the other, not at random.
    pub sequential: bool,
    /// Bytes of an operation.
    pub block_bytes: u32,
    /// Operations under way.
    pub depth: u16,
    /// How long.
    pub seconds: u16,
}

impl Plan {
    /// Takes what follows `disk bench` apart.
    pub fn parse(words: &[&str]) -> Result<Plan, String> {
        let mut plan = Plan {
            writes: false,
            sequential: false,
            block_bytes: BLOCK_BYTES as u32,
            depth: 1,
            seconds: 5,
        };
        let Some((kind, mut rest)) = words.split_first() else {
            return Err("It measures `disk bench read` or `disk bench write`.".into());
        };
        plan.writes = match *kind {
            "read" => false,
            "write" => true,
            other => {
                return Err(format!(
                    "There is no measurement of {other}; there are read and write."
                ));
            }
        };
        while let Some((word, more)) = rest.split_first() {
            if *word == "sequential" {
                plan.sequential = true;
                rest = more;
                continue;
            }
            let Some((value, more)) = more.split_first() else {
                return Err(format!("What is `{word}` to be?"));
            };
            let number: u32 = value
                .parse()
                .map_err(|_| format!("{value} is not a number for `{word}`."))?;
            match *word {
                "depth" => plan.depth = number.try_into().unwrap_or(u16::MAX),
                "seconds" => plan.seconds = number.try_into().unwrap_or(u16::MAX),
                "block" => plan.block_bytes = number,
                other => {
                    return Err(format!(
                        "There is no `{other}`; there are depth, seconds, block and sequential."
                    ));
                }
            }
            rest = more;
        }
        plan.check()
    }

    fn check(self) -> Result<Plan, String> {
        let pages = self.pages();
        if !self.block_bytes.is_multiple_of(BLOCK_BYTES as u32) || !(1..=BATCH_CAPACITY).contains(&pages) {
            return Err(format!(
                "A block has {BLOCK_BYTES} bytes or a multiple, up to {}.",
                BATCH_CAPACITY * BLOCK_BYTES
            ));
        }
        if self.depth == 0 || usize::from(self.depth) * pages > PAGE_LIMIT {
            return Err(format!(
                "With blocks of that size the depth is from 1 to {}.",
                PAGE_LIMIT / pages
            ));
        }
        if !(1..=SECONDS_LIMIT).contains(&self.seconds) {
            return Err(format!("It measures for 1 to {SECONDS_LIMIT} seconds."));
        }
        Ok(self)
    }

    fn pages(&self) -> usize {
        self.block_bytes as usize / BLOCK_BYTES
    }
}

/// Latencies, counted in buckets of an eighth of a power of two.
#[derive(Default)]
struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum_ns: u64,
    longest_ns: u64,
}

/// Buckets of each power of two, as bits.
const FRACTION_BITS: u32 = 3;

impl Histogram {
    fn bucket(ns: u64) -> usize {
        let ns = ns.max(1 << FRACTION_BITS);
        let shift = ns.ilog2() - FRACTION_BITS;
        ((shift << FRACTION_BITS) + (ns >> shift) as u32 - (1 << FRACTION_BITS)) as usize
    }

    /// The middle of a bucket, nanoseconds.
    fn middle(bucket: usize) -> u64 {
        let (shift, fraction) = (bucket >> FRACTION_BITS, bucket & ((1 << FRACTION_BITS) - 1));
        let low = ((1 << FRACTION_BITS) + fraction as u64) << shift;
        low + (1 << shift) / 2
    }

    fn add(&mut self, ns: u64) {
        let bucket = Self::bucket(ns);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.sum_ns += ns;
        self.longest_ns = self.longest_ns.max(ns);
    }

    /// The latency that so many of a thousand operations don't exceed.
    fn quantile(&self, of_thousand: u64) -> u64 {
        let wanted = (self.total * of_thousand).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        bucket.map_or(0, |bucket| Self::middle(bucket).min(self.longest_ns))
    }
}

/// One operation.
struct Slot {
    /// Its pages while they are not under way.
    pages: Vec<RRef<Block>>,
    begun_ns: u64,
}

/// What was measured.
struct Outcome {
    latencies: Histogram,
    errors: u64,
    elapsed_ns: u64,
}

/// Hands pages over and takes them back.
pub struct Pump<'a> {
    device: &'a dyn BlockDevice,
    queue: u16,
    /// Pages that are to be handed over.
    pub outgoing: VecDeque<RRef<Block>>,
    under_way: usize,
    batch: Option<BlockBatch>,
    /// When the last turn ended.
    pub now_ns: u64,
}

impl<'a> Pump<'a> {
    /// A pump that has nothing to do.
    pub fn new(device: &'a dyn BlockDevice, queues: u16) -> Pump<'a> {
        Pump {
            device,
            queue: thread::cpu() % queues.max(1),
            outgoing: VecDeque::new(),
            under_way: 0,
            batch: None,
            now_ns: clock::now_ns(),
        }
    }

    /// Whether nothing is to be handed over or to be had back.
    pub fn is_idle(&self) -> bool {
        self.under_way + self.outgoing.len() == 0
    }

    /// Hands over what there is room for, and adds what is finished to `finished`; waits for some if there is none. False if all that was handed over
    /// is lost: the device may have carried it out or not.
    pub fn turn(&mut self, finished: &mut Vec<RRef<Block>>) -> Result<bool, String> {
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => BlockBatch::new().map_err(|error| error.to_string())?,
        };
        // Room for an answer is left: a device that is full gives none back in a full batch.
        while batch.room() > 1
            && let Some(page) = self.outgoing.pop_front()
        {
            self.under_way += 1;
            drop(batch.push(page));
        }
        // What has no room in this batch is handed over before anything is waited for.
        let answer = if self.outgoing.is_empty() && self.under_way != 0 && finished.is_empty() {
            let deadline_ns = self.now_ns.saturating_add(SECOND_NS);
            self.device.exchange_until(self.queue, batch, deadline_ns)
        } else {
            self.device.exchange(self.queue, batch)
        };
        let mut batch = match answer {
            Ok(batch) => batch,
            Err(BlockError::Lost) => {
                self.under_way = 0;
                return Ok(false);
            }
            Err(error) => return Err(error.to_string()),
        };
        while let Some(page) = batch.pop() {
            self.under_way = self.under_way.saturating_sub(1);
            if page.progress() == Progress::Submitted {
                self.outgoing.push_front(page);
            } else {
                finished.push(page);
            }
        }
        self.batch = Some(batch);
        self.now_ns = clock::now_ns();
        // The device is full, or this call ends for another's sake.
        if finished.is_empty() && !self.is_idle() {
            let waited = self
                .device
                .wait(self.queue, self.now_ns.saturating_add(SECOND_NS))
                .map_err(|error| error.to_string())?;
            self.now_ns = clock::now_ns();
            if waited == WaitResult::Cancelled {
                return Err("it was called off".into());
            }
        }
        Ok(true)
    }
}

/// The partition for measurements, with the number of the device's queues.
pub fn scratch(device: &mut Import<dyn BlockDevice>) -> Result<(u16, UnitInfo, u16), String> {
    let info = device.call(|device| device.info())?;
    let mut found = None;
    for unit in 0..info.units {
        let unit_info = device.call(|device| device.unit(unit))?;
        if unit_info.kind == SCRATCH_PARTITION && unit_info.blocks != 0 {
            found = Some((unit, unit_info, info.queues));
        }
    }
    // An earlier measurement may have ended with requests under way.
    device.call(|device| device.abandon())?;
    found.ok_or_else(|| {
        "There is no partition that may be overwritten; `disk create DISK scratch MEBIBYTES` makes one."
            .into()
    })
}

/// A measurement under way.
struct Run<'a> {
    pump: Pump<'a>,
    plan: Plan,
    unit: u16,
    /// Logical blocks of an operation, and of a page.
    per_operation: u64,
    per_page: u64,
    /// Operations that fit on the partition.
    places: u64,
    slots: Vec<Slot>,
    /// Where the next operation goes, or the state of the generator of places.
    place: u64,
    latencies: Histogram,
    errors: u64,
}

/// Answers `disk bench`.
pub fn answer(device: &mut Import<dyn BlockDevice>, plan: Plan) -> Result<Answer, String> {
    let (unit, info, queues) = scratch(device)?;
    let outcome = device.call(|device| Run::new(Pump::new(device, queues), plan, unit, info)?.measure())?;
    Ok(report(plan, &outcome))
}

impl<'a> Run<'a> {
    fn new(pump: Pump<'a>, plan: Plan, unit: u16, info: UnitInfo) -> Result<Run<'a>, String> {
        let mut slots = Vec::new();
        for number in 0..plan.depth {
            let mut pages = Vec::new();
            for page in 0..plan.pages() {
                let mut block = Block::allocate().map_err(|error| error.to_string())?;
                // No two pages are alike, for devices that would notice.
                let seed = u64::from(number) << 32 | page as u64;
                for (index, word) in block.data_mut().chunks_exact_mut(8).enumerate() {
                    word.copy_from_slice(&scramble(seed ^ (index as u64) << 48).to_le_bytes());
                }
                pages.push(block);
            }
            slots.push(Slot { pages, begun_ns: 0 });
        }
        let per_operation = blocks_of(&info, plan.block_bytes);
        let places = info.blocks / per_operation;
        if places == 0 {
            return Err("the partition is smaller than one block".into());
        }
        Ok(Run {
            pump,
            plan,
            unit,
            per_operation,
            per_page: blocks_of(&info, BLOCK_BYTES as u32),
            places,
            slots,
            place: 0,
            latencies: Histogram::default(),
            errors: 0,
        })
    }

    fn measure(mut self) -> Result<Outcome, String> {
        let begun_ns = clock::now_ns();
        let end_ns = begun_ns.saturating_add(u64::from(self.plan.seconds) * SECOND_NS);
        let mut now_ns = begun_ns;
        for slot in 0..self.slots.len() {
            self.begin(slot, now_ns);
        }
        let mut finished = Vec::new();
        while !self.pump.is_idle() {
            if !self.pump.turn(&mut finished)? {
                return Err(BlockError::Lost.to_string());
            }
            now_ns = self.pump.now_ns;
            for page in finished.drain(..) {
                self.finish(page, now_ns, now_ns < end_ns);
            }
            if now_ns > end_ns.saturating_add(END_NS) {
                return Err("the disk doesn't answer".into());
            }
        }
        Ok(Outcome {
            latencies: self.latencies,
            errors: self.errors,
            elapsed_ns: now_ns.saturating_sub(begun_ns),
        })
    }

    /// Starts an operation.
    fn begin(&mut self, number: usize, now_ns: u64) {
        let Run {
            per_operation,
            per_page,
            places,
            ..
        } = *self;
        self.place = self.place.wrapping_add(1);
        let place = if self.plan.sequential {
            self.place % places
        } else {
            scramble(self.place) % places
        };
        let operation = if self.plan.writes {
            Operation::Write
        } else {
            Operation::Read
        };
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        slot.begun_ns = now_ns;
        for (index, mut page) in slot.pages.drain(..).enumerate() {
            page.request(
                operation,
                place * per_operation + index as u64 * per_page,
                per_page as u32,
            );
            page.unit = self.unit;
            page.cookie = number as u64;
            self.pump.outgoing.push_back(page);
        }
    }

    /// Takes a page back; with its last one an operation ends, and the next begins if there is time.
    fn finish(&mut self, page: RRef<Block>, now_ns: u64, goes_on: bool) {
        self.errors += u64::from(page.progress() == Progress::Failed);
        let number = page.cookie as usize;
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        slot.pages.push(page);
        if slot.pages.len() == self.plan.pages() {
            self.latencies.add(now_ns.saturating_sub(slot.begun_ns));
            if goes_on {
                self.begin(number, now_ns);
            }
        }
    }
}

/// Logical blocks in so many bytes.
pub fn blocks_of(info: &UnitInfo, bytes: u32) -> u64 {
    u64::from(bytes / info.block_bytes.max(1)).max(1)
}

/// Spreads numbers over all of 64 bits (the finaliser of SplitMix64).
pub fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn report(plan: Plan, outcome: &Outcome) -> Answer {
    let latencies = &outcome.latencies;
    let per_second = |count: u64| {
        let scaled = u128::from(count) * u128::from(SECOND_NS) / u128::from(outcome.elapsed_ns.max(1));
        scaled as u64
    };
    let iops = per_second(latencies.total);
    let rate = per_second(latencies.total.saturating_mul(u64::from(plan.block_bytes)));
    let mean_ns = latencies.sum_ns / latencies.total.max(1);
    let order = if plan.sequential { "sequential" } else { "random" };
    let kind = if plan.writes { "write" } else { "read" };
    let quantiles = [
        ("p50", latencies.quantile(500)),
        ("p90", latencies.quantile(900)),
        ("p99", latencies.quantile(990)),
        ("p99.9", latencies.quantile(999)),
    ];
    let mut table = Table::new(&[]);
    let micros = |ns: u64| format!("{}.{} us", ns / 1000, ns / 100 % 10);
    let mut row = |name: &str, value: String| table.row([name.to_string(), value]);
    row(
        "operations",
        format!("{order} {kind}, {}", bytes(u64::from(plan.block_bytes))),
    );
    row("under way", plan.depth.to_string());
    row(
        "done",
        format!("{} in {} ms", latencies.total, outcome.elapsed_ns / 1_000_000),
    );
    row("rate", format!("{iops} a second, {} a second", bytes(rate)));
    row("errors", outcome.errors.to_string());
    row("mean latency", micros(mean_ns));
    for (name, ns) in quantiles {
        row(name, micros(ns));
    }
    row("longest", micros(latencies.longest_ns));
    let mut value = json!({
        "operation": kind,
        "order": order,
        "block_bytes": plan.block_bytes,
        "depth": plan.depth,
        "operations": latencies.total,
        "errors": outcome.errors,
        "elapsed_ns": outcome.elapsed_ns,
        "operations_per_second": iops,
        "bytes_per_second": rate,
        "mean_ns": mean_ns,
        "longest_ns": latencies.longest_ns,
    });
    if let Some(fields) = value.as_object_mut() {
        for (name, ns) in quantiles {
            fields.insert(format!("{}_ns", name.replace('.', "_")), json!(ns));
        }
    }
    Answer {
        text: table.to_string(),
        json: value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_checked() {
        assert_eq!(
            Plan::parse(&[
                "write",
                "depth",
                "32",
                "seconds",
                "2",
                "block",
                "8192",
                "sequential"
            ]),
            Ok(Plan {
                writes: true,
                sequential: true,
                block_bytes: 8192,
                depth: 32,
                seconds: 2
            })
        );
        for words in [
            &[][..],
            &["melt"],
            &["read", "depth"],
            &["read", "depth", "0"],
            &["read", "depth", "1025"],
            &["read", "depth", "64", "block", "131072"],
            &["read", "block", "512"],
            &["read", "block", "262144"],
            &["read", "seconds", "0"],
            &["read", "colour", "3"],
        ] {
            assert!(Plan::parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn quantiles_are_right_to_an_eighth() {
        let mut histogram = Histogram::default();
        for ns in 1..=100_000u64 {
            histogram.add(ns);
        }
        for (of_thousand, expected) in [(500, 50_000u64), (900, 90_000), (990, 99_000), (1000, 100_000)] {
            let found = histogram.quantile(of_thousand);
            assert!(
                found.abs_diff(expected) <= expected / 8,
                "{of_thousand}: {found} for {expected}"
            );
        }
        assert_eq!(histogram.longest_ns, 100_000);
        histogram.add(u64::MAX / 2);
        assert_eq!(Histogram::default().quantile(500), 0);
    }
}
