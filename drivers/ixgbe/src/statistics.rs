//! Counters: hardware's, which clear when read and stick at their maximum, and the queues' own (datasheet 8.2.3.23).
//!
//! Each hardware counter costs a read over the bus, so they are read at most once a second, and at least once a minute: at 14.88 million
//! frames a second the first would stick after 288 s.

use crate::registers as r;
use dma::Mmio;
use interface::net::NetStatistics;

/// Hardware counters are read at most this often.
pub const REFRESH_NS: u64 = 1_000_000_000;
/// They are read at least this often.
pub const LIMIT_NS: u64 = 60_000_000_000;

/// Registers that are read, in the order of [`Hardware::add`].
const COUNTERS: [u32; 11] = [
    r::CRCERRS,
    r::ILLERRC,
    r::RLEC,
    r::RUC,
    r::RFC,
    r::ROC,
    r::RJC,
    r::MPC,
    r::QPRDC,
    r::MPRC,
    r::BPRC,
];

/// Reads every counter that is used, and so sets it to zero.
pub fn clear(registers: &Mmio) {
    for counter in COUNTERS {
        registers.read(counter);
    }
}

/// Sums of hardware's counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardware {
    crc_errors: u64,
    length_errors: u64,
    missed: u64,
    multicast: u64,
    refreshed_ns: u64,
}

impl Hardware {
    /// Counters that were zero at `now_ns`.
    pub fn new(now_ns: u64) -> Hardware {
        Hardware {
            refreshed_ns: now_ns,
            ..Hardware::default()
        }
    }

    /// Reads the counters when they were last read `interval_ns` ago or longer.
    pub fn refresh(&mut self, registers: &Mmio, now_ns: u64, interval_ns: u64) {
        if now_ns.saturating_sub(self.refreshed_ns) < interval_ns {
            return;
        }
        self.refreshed_ns = now_ns;
        let values = COUNTERS.map(|counter| match registers.read(counter) {
            // A device that is gone reads all ones; so does a counter that stuck, whose value is no count either.
            u32::MAX => 0,
            value => u64::from(value),
        });
        self.add(values);
    }

    fn add(&mut self, values: [u64; COUNTERS.len()]) {
        let [
            crc,
            illegal,
            length,
            undersize,
            fragments,
            oversize,
            jabber,
            missed,
            dropped,
            multicast,
            broadcast,
        ] = values;
        self.crc_errors += crc + illegal;
        self.length_errors += length + undersize + fragments + oversize + jabber;
        self.missed += missed + dropped;
        self.multicast += multicast + broadcast;
    }

    /// Puts what hardware counted into `total`.
    pub fn fill(&self, total: &mut NetStatistics) {
        total.crc_errors = self.crc_errors;
        total.length_errors = self.length_errors;
        total.receive_missed = self.missed;
        total.received_multicast = self.multicast;
    }
}

/// What one queue counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueCounters {
    /// Frames given to software.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that came with an error, or in more pieces than a frame can have.
    pub receive_errors: u64,
    /// Of the received, those whose checksum was wrong.
    pub checksum_errors: u64,
    /// Frames given to hardware.
    pub transmitted_frames: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
    /// Frames that came back unsent because the ring was full.
    pub transmit_full: u64,
    /// Hangs of the ring.
    pub transmit_hangs: u64,
}

impl QueueCounters {
    /// Adds what the queue counted to `total`.
    pub fn add_to(&self, total: &mut NetStatistics) {
        total.received_frames += self.received_frames;
        total.received_bytes += self.received_bytes;
        total.length_errors += self.receive_errors;
        total.checksum_errors += self.checksum_errors;
        total.transmitted_frames += self.transmitted_frames;
        total.transmitted_bytes += self.transmitted_bytes;
        total.transmit_full += self.transmit_full;
        total.transmit_hangs += self.transmit_hangs;
    }
}
