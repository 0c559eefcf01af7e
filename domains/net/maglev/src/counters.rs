//! Packets, bytes and connections per backend, and what was dropped. What a VIP was sent is the sum of its backends'.
//!
//! Each CPU counts for itself: it alone writes its counters, so an increment is a plain load and store, and others read
//! them at any time without a lock. Sums over CPUs are made by the reader (`control.rs`).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread counts up and others read.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// Not an atomic addition: there is one writer.
    #[inline(always)]
    fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one CPU has forwarded to one backend.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct TrafficCounter {
    packets: Counter,
    bytes: Counter,
    connections: Counter,
}

impl TrafficCounter {
    /// Counts a forwarded frame.
    #[inline(always)]
    pub fn count_frame(&self, length: u64) {
        self.packets.add(1);
        self.bytes.add(length);
    }

    /// Counts a connection that was given a backend.
    #[inline(always)]
    pub fn count_connection(&self) {
        self.connections.add(1);
    }

    fn read(&self) -> Traffic {
        Traffic {
            packets: self.packets.get(),
            bytes: self.bytes.get(),
            connections: self.connections.get(),
        }
    }
}

/// A reading of what has been forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames sent on.
    pub packets: u64,
    /// Their bytes, Ethernet header included, checksum not.
    pub bytes: u64,
    /// New connections: for TCP those whose SYN was seen, for UDP new 5-tuples.
    pub connections: u64,
}

impl Traffic {
    /// The sum of two readings.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            connections: self.connections.wrapping_add(other.connections),
        }
    }

    /// What was added since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(earlier.packets),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
            connections: self.connections.wrapping_sub(earlier.connections),
        }
    }
}

/// Why a frame for a VIP was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// Its headers contradict each other.
    Malformed,
    /// The VIP has no backend that takes new connections.
    NoBackend,
    /// The backend's MAC address isn't known (yet).
    NeighbourUnknown,
}

/// Frames dropped, by reason, and what became of flows in the connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames with contradictory headers.
    pub malformed: u64,
    /// Frames for a VIP without a backend.
    pub no_backend: u64,
    /// Frames for a backend whose MAC address wasn't known.
    pub neighbour_unknown: u64,
    /// Entries in use in the connection tables.
    pub connection_entries: u64,
    /// Flows that found no place in a connection table, one count for each of their packets.
    pub connections_overflowed: u64,
    /// Half-open connections that lost their place to newer ones.
    pub connections_displaced: u64,
}

impl Totals {
    /// The sum of two readings.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            malformed: self.malformed.wrapping_add(other.malformed),
            no_backend: self.no_backend.wrapping_add(other.no_backend),
            neighbour_unknown: self.neighbour_unknown.wrapping_add(other.neighbour_unknown),
            connection_entries: self.connection_entries.wrapping_add(other.connection_entries),
            connections_overflowed: self
                .connections_overflowed
                .wrapping_add(other.connections_overflowed),
            connections_displaced: self
                .connections_displaced
                .wrapping_add(other.connections_displaced),
        }
    }
}

/// All counters of one CPU.
#[derive(Debug)]
pub struct CpuCounters {
    backends: Vec<TrafficCounter>,
    malformed: Counter,
    no_backend: Counter,
    neighbour_unknown: Counter,
    connection_entries: Counter,
    connections_overflowed: Counter,
    connections_displaced: Counter,
}

impl CpuCounters {
    /// Counters for as many backends, all at zero.
    #[must_use]
    pub fn new(backends: usize) -> Self {
        Self {
            backends: core::iter::repeat_with(TrafficCounter::default)
                .take(backends)
                .collect(),
            malformed: Counter::default(),
            no_backend: Counter::default(),
            neighbour_unknown: Counter::default(),
            connection_entries: Counter::default(),
            connections_overflowed: Counter::default(),
            connections_displaced: Counter::default(),
        }
    }

    /// The counters of all backends, by slot.
    #[inline(always)]
    #[must_use]
    pub fn backends(&self) -> &[TrafficCounter] {
        &self.backends
    }

    /// The counter of a backend, if there is room for that many.
    #[inline(always)]
    #[must_use]
    pub fn backend(&self, slot: u16) -> Option<&TrafficCounter> {
        self.backends.get(usize::from(slot))
    }

    /// Counts a dropped frame.
    #[cold]
    pub fn count_drop(&self, reason: DropReason) {
        match reason {
            DropReason::Malformed => self.malformed.add(1),
            DropReason::NoBackend => self.no_backend.add(1),
            DropReason::NeighbourUnknown => self.neighbour_unknown.add(1),
        }
    }

    /// Makes the connection table's figures known to readers.
    #[inline]
    pub fn publish(&self, statistics: crate::connection_table::TableStatistics) {
        self.connection_entries
            .0
            .store(statistics.entries, Ordering::Relaxed);
        self.connections_overflowed
            .0
            .store(statistics.overflowed, Ordering::Relaxed);
        self.connections_displaced
            .0
            .store(statistics.displaced, Ordering::Relaxed);
    }

    /// What this CPU has forwarded to a backend.
    #[must_use]
    pub fn backend_traffic(&self, slot: u16) -> Traffic {
        self.backend(slot).map(TrafficCounter::read).unwrap_or_default()
    }

    /// What this CPU has dropped, and the state of its connection table.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            malformed: self.malformed.get(),
            no_backend: self.no_backend.get(),
            neighbour_unknown: self.neighbour_unknown.get(),
            connection_entries: self.connection_entries.get(),
            connections_overflowed: self.connections_overflowed.get(),
            connections_displaced: self.connections_displaced.get(),
        }
    }
}
