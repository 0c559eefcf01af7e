//! Misbehaviour on request: what happens to frames on the wire, to interrupts, to the DMA engine and to resets.
//!
//! Every random decision comes from a generator with a seed of its own, so a run can be repeated.

use crate::headers::{self, Transport};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// A held-back frame goes out at the latest after this time, in nanoseconds.
const REORDER_LIMIT_NS: u64 = 5_000_000;

/// Which way a frame goes, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the wire to the guest.
    Rx,
    /// From the guest to the wire.
    Tx,
}

/// What may happen to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameFault {
    /// It is lost.
    Drop,
    /// It comes twice.
    Duplicate,
    /// It comes after the one that follows it.
    Reorder,
    /// One bit behind its IP header is flipped, where a checksum of the receiver covers it.
    ///
    /// The frame check sequence is right again afterwards: a real device drops frames whose sequence is wrong, so those are
    /// `Drop`'s. Frames without such a checksum pass unharmed.
    Corrupt,
}

/// One fault with its rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ActiveFault {
    /// What happens.
    pub kind: FrameFault,
    /// To which frames.
    pub direction: Direction,
    /// Share of frames it happens to, 0 to 1.
    pub rate: f64,
    /// Seed of its generator.
    pub seed: u64,
    /// How often it happened.
    pub count: u64,
}

struct Entry {
    fault: ActiveFault,
    rng: Rng,
}

/// All faults that are switched on.
pub struct Faults {
    frames: Vec<Entry>,
    held: [Option<Held>; 2],
    lose_interrupts: f64,
    interrupts_lost: u64,
    rng: Rng,
    /// The DMA engine does nothing.
    pub dma_stopped: bool,
    /// CTRL.RST and CTRL.LRST never clear.
    pub hang_on_reset: bool,
}

struct Held {
    frame: Vec<u8>,
    since_ns: u64,
}

/// What is switched on, for people and scripts.
#[derive(Clone, Debug, Serialize)]
pub struct FaultSummary {
    /// Faults of frames.
    pub frames: Vec<ActiveFault>,
    /// Share of interrupts that get lost, 0 to 1.
    pub lose_interrupts: f64,
    /// Interrupts lost so far.
    pub interrupts_lost: u64,
    /// Whether the DMA engine is stopped.
    pub dma_stopped: bool,
    /// Whether resets hang.
    pub hang_on_reset: bool,
}

impl Faults {
    /// No faults; `seed` is for those that are switched on without one.
    pub fn new(seed: u64) -> Self {
        Self {
            frames: Vec::new(),
            held: [None, None],
            lose_interrupts: 0.0,
            interrupts_lost: 0,
            rng: Rng::with_seed(seed),
            dma_stopped: false,
            hang_on_reset: false,
        }
    }

    /// Switches a fault of frames on, or off with a rate of zero; replaces one of the same kind and direction.
    pub fn set(&mut self, kind: FrameFault, direction: Direction, rate: f64, seed: Option<u64>) {
        self.frames
            .retain(|entry| (entry.fault.kind, entry.fault.direction) != (kind, direction));
        if rate > 0.0 {
            let seed = seed.unwrap_or_else(|| self.rng.u64(..));
            let fault = ActiveFault {
                kind,
                direction,
                rate: rate.min(1.0),
                seed,
                count: 0,
            };
            self.frames.push(Entry {
                fault,
                rng: Rng::with_seed(seed),
            });
        }
    }

    /// Loses this share of interrupts from now on.
    pub fn set_interrupt_loss(&mut self, rate: f64) {
        self.lose_interrupts = rate.clamp(0.0, 1.0);
    }

    /// Decides whether an interrupt gets lost.
    pub fn lose_interrupt(&mut self) -> bool {
        let lost = self.lose_interrupts > 0.0 && self.rng.f64() < self.lose_interrupts;
        self.interrupts_lost += u64::from(lost);
        lost
    }

    /// Switches everything off. Frames held back go out at the next opportunity.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.lose_interrupts = 0.0;
        self.dma_stopped = false;
        self.hang_on_reset = false;
    }

    /// What is switched on.
    pub fn summary(&self) -> FaultSummary {
        FaultSummary {
            frames: self.frames.iter().map(|entry| entry.fault).collect(),
            lose_interrupts: self.lose_interrupts,
            interrupts_lost: self.interrupts_lost,
            dma_stopped: self.dma_stopped,
            hang_on_reset: self.hang_on_reset,
        }
    }

    /// Whether frames of this direction pass untouched, so that [`Faults::pass`] needn't be asked.
    pub fn is_clean(&self, direction: Direction) -> bool {
        self.held[slot(direction)].is_none() && !self.frames.iter().any(|e| e.fault.direction == direction)
    }

    /// Sends a frame through the faults of its direction: the result is what arrives, in order.
    pub fn pass(&mut self, direction: Direction, frame: &[u8], now_ns: u64) -> Vec<Vec<u8>> {
        let mut frame = frame.to_vec();
        let mut copies = 1;
        let mut hold = false;
        for entry in self
            .frames
            .iter_mut()
            .filter(|entry| entry.fault.direction == direction)
        {
            if entry.rng.f64() >= entry.fault.rate {
                continue;
            }
            let happened = match entry.fault.kind {
                FrameFault::Drop => std::mem::replace(&mut copies, 0) > 0,
                FrameFault::Duplicate => {
                    copies *= 2;
                    true
                }
                FrameFault::Reorder => {
                    hold = true;
                    true
                }
                FrameFault::Corrupt => corrupt(&mut frame, &mut entry.rng),
            };
            entry.fault.count += u64::from(happened);
        }
        let held = &mut self.held[slot(direction)];
        if hold && copies > 0 && held.is_none() {
            *held = Some(Held {
                frame,
                since_ns: now_ns,
            });
            return Vec::new();
        }
        let mut out = vec![frame; copies];
        out.extend(held.take().map(|held| held.frame));
        out
    }

    /// A frame that was held back for too long, or that nothing holds back any more.
    pub fn overdue(&mut self, direction: Direction, now_ns: u64) -> Option<Vec<u8>> {
        let held = &mut self.held[slot(direction)];
        let due = held
            .as_ref()
            .is_some_and(|held| now_ns >= held.since_ns + REORDER_LIMIT_NS);
        if due {
            held.take().map(|held| held.frame)
        } else {
            None
        }
    }

    /// When a held-back frame goes out at the latest.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.held
            .iter()
            .flatten()
            .map(|held| held.since_ns + REORDER_LIMIT_NS)
            .min()
    }
}

fn slot(direction: Direction) -> usize {
    match direction {
        Direction::Rx => 0,
        Direction::Tx => 1,
    }
}

/// Flips one bit that a TCP or UDP checksum covers; false when the frame has none.
fn corrupt(frame: &mut [u8], rng: &mut Rng) -> bool {
    let headers = headers::parse(frame, 0x8100);
    let (start, end) = (headers.transport_at, headers.end);
    let protected = match headers.transport {
        // A UDP checksum may be absent, and must not become so.
        Some(Transport::Udp) => frame.get(start + 6..start + 8).is_some_and(|sum| sum != [0, 0]),
        Some(Transport::Tcp) => true,
        Some(Transport::Sctp) | None => false,
    };
    if !protected || start >= end {
        return false;
    }
    let mut at = rng.usize(start..end);
    if headers.transport == Some(Transport::Udp) && (6..8).contains(&(at - start)) {
        at -= 6;
    }
    match frame.get_mut(at) {
        Some(byte) => {
            *byte ^= 1 << rng.u8(0..8);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::samples;

    fn run(kind: FrameFault, rate: f64, count: usize) -> (Vec<Vec<u8>>, u64) {
        let mut faults = Faults::new(1);
        faults.set(kind, Direction::Rx, rate, Some(7));
        let mut out = vec![];
        for i in 0..count {
            out.extend(faults.pass(Direction::Rx, &samples::udp(i as u16, b"payload"), 0));
        }
        out.extend(faults.overdue(Direction::Rx, REORDER_LIMIT_NS));
        (out, faults.summary().frames[0].count)
    }

    #[test]
    fn counts_match_what_happened() {
        let (out, dropped) = run(FrameFault::Drop, 0.1, 1000);
        assert_eq!(out.len() as u64, 1000 - dropped);
        assert!((60..140).contains(&dropped));
        let (out, duplicated) = run(FrameFault::Duplicate, 0.1, 1000);
        assert_eq!(out.len() as u64, 1000 + duplicated);
        let (out, reordered) = run(FrameFault::Reorder, 0.1, 1000);
        assert_eq!(out.len(), 1000);
        let swaps = out
            .windows(2)
            .filter(|pair| pair[0][34..36] > pair[1][34..36])
            .count() as u64;
        assert!(reordered > 0 && swaps > 0 && swaps <= reordered);
    }

    #[test]
    fn corruption_is_always_detectable() {
        let (out, corrupted) = run(FrameFault::Corrupt, 1.0, 500);
        assert_eq!(corrupted, 500);
        for frame in out {
            let headers = headers::parse(&frame, 0x8100);
            assert_ne!(headers.verify(&frame).transport, Some(true));
        }
    }

    #[test]
    fn same_seed_same_run() {
        assert_eq!(run(FrameFault::Drop, 0.3, 300), run(FrameFault::Drop, 0.3, 300));
    }

    #[test]
    fn other_direction_is_clean() {
        let mut faults = Faults::new(1);
        faults.set(FrameFault::Drop, Direction::Rx, 1.0, None);
        assert!(faults.is_clean(Direction::Tx) && !faults.is_clean(Direction::Rx));
        faults.clear();
        assert!(faults.is_clean(Direction::Rx));
    }
}
