//! `disk verify`: whether a disk holds what it acknowledged, also when a domain on the way is killed once a second meanwhile.
//!
//! Pages of the partition for measurements are written again and again, each with its place and the number of the write in it, then all are read back. No
//! place is written by two requests at a time, so each must hold the last write to it that was acknowledged.

use crate::answer::Answer;
use crate::disk_bench::{Pump, blocks_of, scramble, scratch};
use crate::import::Import;
use crate::table::Table;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use domain_rt::{clock, thread};
use interface::block::BlockDevice;
use interface::kernel::DomainName;
use interface::supervise::Operator;
use rref::block::{BLOCK_BYTES, Operation, Progress};
use rref::{Block, RRef};
use serde_json::json;

/// Pages under way at most.
const DEPTH_LIMIT: u16 = 512;
/// Longest run, seconds.
const SECONDS_LIMIT: u16 = 600;
/// One request in so many is a flush.
const FLUSH_EVERY: u32 = 64;
/// How long what is under way at the end may take, nanoseconds.
const END_NS: u64 = 60_000_000_000;
/// Time between two kills, milliseconds.
const KILL_EVERY_MS: u64 = 1_000;
/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Requests under way.
    pub depth: u16,
    /// How long it writes.
    pub seconds: u16,
    /// Who is killed meanwhile.
    pub kill: Option<DomainName>,
}

impl Plan {
    /// Takes what follows `disk verify` apart.
    pub fn parse(words: &[&str]) -> Result<Plan, String> {
        let mut plan = Plan {
            depth: 32,
            seconds: 5,
            kill: None,
        };
        for pair in words.chunks(2) {
            let [word, value] = pair else {
                return Err(format!("What is `{}` to be?", pair.concat()));
            };
            let number = |limit: u16| match value.parse() {
                Ok(number) if (1..=limit).contains(&number) => Ok(number),
                _ => Err(format!("`{word}` takes a number from 1 to {limit}.")),
            };
            match *word {
                "depth" => plan.depth = number(DEPTH_LIMIT)?,
                "seconds" => plan.seconds = number(SECONDS_LIMIT)?,
                "kill" => plan.kill = Some(DomainName::new(value)),
                other => {
                    return Err(format!(
                        "There is no `{other}`; there are depth, seconds and kill."
                    ));
                }
            }
        }
        Ok(plan)
    }
}

/// What was found.
#[derive(Default)]
struct Outcome {
    writes: u64,
    flushes: u64,
    /// Requests that failed.
    errors: u64,
    /// Requests that were lost with a domain on their way; the device may have carried them out or not.
    lost: u64,
    /// Places that were read back.
    places: u64,
    /// Places that hold an older write than the last one that was acknowledged.
    stale: u64,
    /// Places that hold something else.
    wrong: u64,
}

struct Run<'a> {
    pump: Pump<'a>,
    unit: u16,
    /// Logical blocks in a page.
    per_page: u64,
    /// By place: the number of the last write that was acknowledged, 0 for none.
    acknowledged: Vec<u32>,
    /// Places that are under way, with the number of their write.
    under_way: BTreeMap<u64, u32>,
    number: u32,
    spare: Vec<RRef<Block>>,
    outcome: Outcome,
}

/// Answers `disk verify`.
pub fn answer(device: &mut Import<dyn BlockDevice>, plan: Plan) -> Result<Answer, String> {
    let (unit, info, queues) = scratch(device)?;
    let per_page = blocks_of(&info, BLOCK_BYTES as u32);
    let killer = plan.kill.map(Killer::start).transpose()?;
    let killer_ends = killer.as_ref().map(|killer| killer.ends.clone());
    let result = device.call(|device| {
        let mut run = Run {
            pump: Pump::new(device, queues),
            unit,
            per_page,
            acknowledged: vec![0; (info.blocks / per_page) as usize],
            under_way: BTreeMap::new(),
            number: 0,
            spare: Vec::new(),
            outcome: Outcome::default(),
        };
        run.write(plan)?;
        if let Some(ends) = killer_ends {
            ends.store(true, Ordering::Release);
        }
        run.read(plan)?;
        Ok::<_, String>(run.outcome)
    });
    let kills = killer.map_or(0, Killer::stop);
    Ok(report(plan, &result?, kills))
}

impl Run<'_> {
    fn page(&mut self) -> Result<RRef<Block>, String> {
        match self.spare.pop() {
            Some(page) => Ok(page),
            None => Block::allocate().map_err(|error| error.to_string()),
        }
    }

    /// Writes for as long as is planned, and flushes at the end.
    fn write(&mut self, plan: Plan) -> Result<(), String> {
        let end_ns = clock::now_ns().saturating_add(u64::from(plan.seconds) * SECOND_NS);
        for _ in 0..plan.depth {
            self.begin()?;
        }
        let mut finished = Vec::new();
        while !self.pump.is_idle() {
            let is_lost = !self.pump.turn(&mut finished)?;
            let now_ns = self.pump.now_ns;
            if is_lost {
                self.forget_under_way();
                if now_ns < end_ns {
                    for _ in 0..plan.depth {
                        self.begin()?;
                    }
                }
            }
            for page in finished.drain(..) {
                self.finish(page);
                if now_ns < end_ns {
                    self.begin()?;
                }
            }
            if now_ns > end_ns.saturating_add(END_NS) {
                return Err(format!("{} requests are never answered", self.under_way.len()));
            }
        }
        Ok(())
    }

    /// Makes the next request: a write to a place that isn't under way, or a flush.
    fn begin(&mut self) -> Result<(), String> {
        self.number += 1;
        let number = self.number;
        let mut page = self.page()?;
        page.unit = self.unit;
        if number.is_multiple_of(FLUSH_EVERY) {
            page.request(Operation::Flush, 0, 0);
        } else {
            let places = self.acknowledged.len().max(1) as u64;
            let mut place = scramble(number.into()) % places;
            while self.under_way.contains_key(&place) {
                place = (place + 1) % places;
            }
            page.request(Operation::Write, place * self.per_page, self.per_page as u32);
            for (index, word) in page.data_mut().chunks_exact_mut(8).enumerate() {
                word.copy_from_slice(&pattern(place, number, index).to_le_bytes());
            }
            page.cookie = place;
            self.under_way.insert(place, number);
        }
        self.pump.outgoing.push_back(page);
        Ok(())
    }

    /// What was under way is lost: its places may hold anything until they are written again.
    fn forget_under_way(&mut self) {
        self.spare.extend(self.pump.outgoing.drain(..));
        self.outcome.lost += self.under_way.len() as u64;
        for (place, _) in core::mem::take(&mut self.under_way) {
            if let Some(last) = self.acknowledged.get_mut(place as usize) {
                *last = 0;
            }
        }
    }

    fn finish(&mut self, page: RRef<Block>) {
        let is_done = page.progress() == Progress::Done;
        self.outcome.errors += u64::from(!is_done);
        if page.operation() == Some(Operation::Flush) {
            self.outcome.flushes += u64::from(is_done);
        } else if let Some(number) = self.under_way.remove(&page.cookie) {
            self.outcome.writes += u64::from(is_done);
            if let Some(last) = self.acknowledged.get_mut(page.cookie as usize) {
                // After a failed write the place may hold anything.
                *last = if is_done { number } else { 0 };
            }
        }
        self.spare.push(page);
    }

    /// Reads all places back that were written.
    fn read(&mut self, plan: Plan) -> Result<(), String> {
        let end_ns = clock::now_ns().saturating_add(u64::from(SECONDS_LIMIT) * SECOND_NS);
        let mut next = 0;
        let mut in_flight = 0;
        let mut finished = Vec::new();
        loop {
            while in_flight < plan.depth
                && let Some(last) = self.acknowledged.get(next as usize)
            {
                if *last != 0 {
                    let mut page = self.page()?;
                    page.request(Operation::Read, next * self.per_page, self.per_page as u32);
                    page.unit = self.unit;
                    page.cookie = next;
                    self.pump.outgoing.push_back(page);
                    in_flight += 1;
                }
                next += 1;
            }
            if self.pump.is_idle() {
                return Ok(());
            }
            if !self.pump.turn(&mut finished)? {
                return Err("requests were lost while all was read back".into());
            }
            for page in finished.drain(..) {
                in_flight -= 1;
                self.compare(&page);
                self.spare.push(page);
            }
            if clock::now_ns() > end_ns {
                return Err("requests are never answered".into());
            }
        }
    }

    fn compare(&mut self, page: &Block) {
        if page.progress() != Progress::Done {
            self.outcome.errors += 1;
            return;
        }
        let place = page.cookie;
        let last = self.acknowledged.get(place as usize).copied().unwrap_or(0);
        let mut words = page.data().chunks_exact(8).map(|word| {
            let bytes = word.try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        });
        let first = words.next().unwrap_or(0);
        let (found_place, found) = (first >> 32, first as u32);
        let is_whole = (1..)
            .zip(words)
            .all(|(index, word)| word == pattern(place, found, index));
        self.outcome.places += 1;
        if found_place != place || !is_whole || found > last {
            self.outcome.wrong += 1;
        } else if found < last {
            self.outcome.stale += 1;
        }
    }
}

/// The `index`-th word of a page: the first tells place and write, the others are hard to have by accident.
fn pattern(place: u64, number: u32, index: usize) -> u64 {
    let name = place << 32 | u64::from(number);
    match index {
        0 => name,
        _ => scramble(name ^ (index as u64) << 54),
    }
}

/// Kills a domain once a second.
struct Killer {
    ends: Arc<AtomicBool>,
    kills: Arc<AtomicU32>,
}

impl Killer {
    fn start(name: DomainName) -> Result<Killer, String> {
        let killer = Killer {
            ends: Arc::default(),
            kills: Arc::default(),
        };
        let (ends, kills) = (killer.ends.clone(), killer.kills.clone());
        thread::spawn("killer", None, move || {
            let mut operator: Import<dyn Operator> = Import::new("operator", "The supervisor");
            loop {
                thread::sleep_ms(KILL_EVERY_MS);
                if ends.load(Ordering::Acquire) {
                    return;
                }
                match operator.call(|operator| operator.kill(name)) {
                    Ok(_) => drop(kills.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => log::warn!("{name} is not killed: {error}"),
                }
            }
        })
        .map_err(|_| "There is no memory for a thread.".to_string())?;
        Ok(killer)
    }

    /// Ends it; how often it killed.
    fn stop(self) -> u32 {
        self.ends.store(true, Ordering::Release);
        self.kills.load(Ordering::Relaxed)
    }
}

fn report(plan: Plan, outcome: &Outcome, kills: u32) -> Answer {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row([name.to_string(), value]);
    row("writes acknowledged", outcome.writes.to_string());
    row("flushes acknowledged", outcome.flushes.to_string());
    row("requests that failed", outcome.errors.to_string());
    row("requests that were lost", outcome.lost.to_string());
    row("places read back", outcome.places.to_string());
    row("with an older write", outcome.stale.to_string());
    row("with something else", outcome.wrong.to_string());
    if let Some(name) = plan.kill {
        row("kills", format!("{kills} of {name}"));
    }
    Answer {
        text: table.to_string(),
        json: json!({
            "writes": outcome.writes,
            "flushes": outcome.flushes,
            "errors": outcome.errors,
            "lost": outcome.lost,
            "places": outcome.places,
            "stale": outcome.stale,
            "wrong": outcome.wrong,
            "kills": kills,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_checked() {
        assert_eq!(
            Plan::parse(&["depth", "8", "kill", "nvme", "seconds", "60"]),
            Ok(Plan {
                depth: 8,
                seconds: 60,
                kill: Some(DomainName::new("nvme"))
            })
        );
        for words in [
            &["depth"][..],
            &["depth", "0"],
            &["depth", "513"],
            &["seconds", "x"],
            &["colour", "3"],
        ] {
            assert!(Plan::parse(words).is_err(), "{words:?}");
        }
    }
}
