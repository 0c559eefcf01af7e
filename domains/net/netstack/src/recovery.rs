//! Loss recovery beyond smoltcp's: the next hole at once, and a probe long before the retransmission timer.
//!
//! smoltcp resends one segment after three duplicate acknowledgements and otherwise waits for its timer, a second or more. So a
//! window with two losses, or a loss at its end, would cost that second. This keeps a sender's view of the connection beside
//! it and says when its first unacknowledged segment is lost:
//! - a partial acknowledgement in recovery: the next segment is missing too (RFC 6582, 3.2);
//! - no progress for about two round trips: a probe (RFC 8985, 7), with the first segment rather than the last, since that is
//!   the one that smoltcp can be brought to resend.
//!
//! It is brought to by showing it the duplicate acknowledgements that the peer would send: `receive.rs` does that. Its own
//! congestion control then reacts as to any loss, and its timer stays behind all this.

use crate::demultiplex::{Segment, flag};
use crate::transmit::SentSegment;

/// Shortest wait for a probe.
const PROBE_FLOOR_NS: u64 = 10_000_000;
/// What a peer may delay the acknowledgement of a lone segment (RFC 8985, 7.2).
const LONE_SEGMENT_NS: u64 = 200_000_000;
/// Round-trip time before the first measurement.
const INITIAL_ROUND_TRIP_NS: u64 = 100_000_000;
/// Probes without progress before it is left to the retransmission timer.
const PROBE_LIMIT: u32 = 4;

/// The sender's view of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    started: bool,
    /// First sequence number that isn't acknowledged.
    unacknowledged: u32,
    /// The peer's window field as it was last, and its next sequence number: what a duplicate acknowledgement looks like.
    window: u16,
    remote_next: u32,
    duplicates: u8,
    /// In recovery until this is acknowledged.
    until: Option<u32>,
    /// The retransmission timer has fired: smoltcp resends everything in order.
    going_back: bool,
    /// When something was last acknowledged, or sent after everything was.
    progress_ns: u64,
    probes: u32,
    round_trip_ns: u64,
    deviation_ns: u64,
    /// The sequence number whose acknowledgement is timed, and when it was sent.
    timed: Option<(u32, u64)>,
}

/// What the peer would send if the first unacknowledged segment were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The peer's sequence number.
    pub sequence: u32,
    /// What it acknowledges.
    pub acknowledgement: u32,
    /// A window that differs from its last one, in the least bit: smoltcp then counts duplicates anew.
    pub window: u16,
}

fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

impl Recovery {
    /// Begins at these sequence numbers: ours, and the peer's next.
    pub fn start(&mut self, unacknowledged: u32, remote_next: u32, now_ns: u64) {
        self.started = true;
        self.unacknowledged = unacknowledged;
        self.remote_next = remote_next;
        self.progress_ns = now_ns;
    }

    /// Takes note of a segment from the peer; true when the first unacknowledged segment is to be sent again now.
    ///
    /// `end` is the sequence number after the last one sent.
    #[inline]
    pub fn on_segment(&mut self, segment: &Segment, end: u32, now_ns: u64) -> bool {
        if segment.flags & (flag::ACK | flag::RST) != flag::ACK {
            return false;
        }
        let acknowledged = segment.acknowledgement;
        let fin_or_syn = u32::from(segment.flags & (flag::FIN | flag::SYN) != 0);
        let next = segment
            .sequence
            .wrapping_add(segment.payload_bytes as u32)
            .wrapping_add(fin_or_syn);
        if !self.started {
            self.started = true;
            self.unacknowledged = acknowledged;
            self.remote_next = next;
            self.progress_ns = now_ns;
        }
        if is_after(acknowledged, end) {
            return false;
        }
        let same_window = segment.window == self.window;
        self.window = segment.window;
        if is_after(next, self.remote_next) {
            self.remote_next = next;
        }
        if is_after(acknowledged, self.unacknowledged) {
            self.unacknowledged = acknowledged;
            self.progress_ns = now_ns;
            self.probes = 0;
            self.duplicates = 0;
            if let Some((timed, sent_ns)) = self.timed
                && !is_after(timed, acknowledged)
            {
                self.timed = None;
                self.sample(now_ns.saturating_sub(sent_ns));
            }
            match self.until {
                Some(until) if is_after(until, acknowledged) => return !self.going_back,
                Some(_) => {
                    self.until = None;
                    self.going_back = false;
                }
                None => {}
            }
            return false;
        }
        if acknowledged == self.unacknowledged
            && acknowledged != end
            && segment.payload_bytes == 0
            && same_window
        {
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates == 3 && self.until.is_none() {
                // smoltcp has counted them too and resends by itself.
                self.until = Some(end);
            }
        }
        false
    }

    /// First sequence number that isn't acknowledged.
    #[inline]
    pub fn unacknowledged(&self) -> u32 {
        self.unacknowledged
    }

    /// The peer's window field as it was last.
    #[inline]
    pub fn window(&self) -> u16 {
        self.window
    }

    /// The sequence number after the peer's last one, in order or not.
    #[inline]
    pub fn remote_next(&self) -> u32 {
        self.remote_next
    }

    /// Whether the retransmission timer has fired and what was in flight is sent again.
    pub fn is_going_back(&self) -> bool {
        self.going_back
    }

    /// RFC 6298, 2.
    fn sample(&mut self, round_trip_ns: u64) {
        if self.round_trip_ns == 0 {
            self.round_trip_ns = round_trip_ns.max(1);
            self.deviation_ns = round_trip_ns / 2;
        } else {
            let difference = self.round_trip_ns.abs_diff(round_trip_ns);
            self.deviation_ns = (3 * self.deviation_ns + difference) / 4;
            self.round_trip_ns = ((7 * self.round_trip_ns + round_trip_ns) / 8).max(1);
        }
    }

    /// Takes note of a segment that was sent; `end` is the sequence number after the last one sent, this one counted.
    #[inline]
    pub fn on_sent(&mut self, segment: &SentSegment, repeated: bool, end: u32, now_ns: u64) {
        if segment.payload_bytes == 0 {
            return;
        }
        if repeated {
            // Karn: what was sent twice can't be timed.
            self.timed = None;
            // Not first in line, or without recovery: the retransmission timer has rewound the socket.
            if segment.sequence != self.unacknowledged || self.until.is_none() {
                self.going_back = true;
                self.until = Some(end);
            }
            return;
        }
        if self.unacknowledged == segment.sequence {
            self.progress_ns = now_ns;
            self.probes = 0;
        }
        if self.timed.is_none() {
            self.timed = Some((end, now_ns));
        }
    }

    /// When to probe; `u64::MAX` when nothing is to be acknowledged, or it is the retransmission timer's turn.
    #[inline]
    pub fn probe_ns(&self, end: u32, lone_bytes: u32) -> u64 {
        let flight = end.wrapping_sub(self.unacknowledged);
        if !self.started
            || flight == 0
            || flight as i32 <= 0
            || self.probes >= PROBE_LIMIT
            || self.window == 0
        {
            return u64::MAX;
        }
        let round_trip_ns = match self.round_trip_ns {
            0 => INITIAL_ROUND_TRIP_NS,
            measured => measured,
        };
        let mut wait_ns = (2 * round_trip_ns + 4 * self.deviation_ns).max(PROBE_FLOOR_NS);
        if flight <= lone_bytes {
            wait_ns += LONE_SEGMENT_NS;
        }
        self.progress_ns.saturating_add(wait_ns << self.probes)
    }

    /// Notes a probe, or a hole that is filled; what to show smoltcp so that it resends.
    pub fn resend(&mut self, end: u32, probe: bool) -> Duplicate {
        self.probes += u32::from(probe);
        self.until.get_or_insert(end);
        self.duplicates = 3;
        self.timed = None;
        self.window ^= 1;
        Duplicate {
            sequence: self.remote_next,
            acknowledgement: self.unacknowledged,
            window: self.window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demultiplex::FlowKey;

    fn acknowledge(number: u32) -> Segment {
        Segment {
            key: FlowKey {
                local: 1,
                remote: 2,
                local_port: 3,
                remote_port: 4,
            },
            flags: flag::ACK,
            sequence: 500,
            acknowledgement: number,
            window: 1000,
            payload_bytes: 0,
            packet: 0..0,
        }
    }

    fn send(recovery: &mut Recovery, sequence: u32, now_ns: u64) {
        let segment = SentSegment {
            sequence,
            payload_bytes: 100,
            ..SentSegment::default()
        };
        recovery.on_sent(&segment, false, sequence + 100, now_ns);
    }

    #[test]
    fn a_partial_acknowledgement_in_recovery_resends() {
        let mut recovery = Recovery::default();
        recovery.on_segment(&acknowledge(1000), 1000, 0);
        for sequence in (1000..1500).step_by(100) {
            send(&mut recovery, sequence, 1);
        }
        for _ in 0..3 {
            assert!(!recovery.on_segment(&acknowledge(1000), 1500, 2));
        }
        assert!(recovery.on_segment(&acknowledge(1200), 1500, 3));
        assert!(!recovery.on_segment(&acknowledge(1500), 1500, 4));
        assert_eq!(recovery.probe_ns(1500, 0), u64::MAX);
    }

    #[test]
    fn probes_back_off_and_end() {
        let mut recovery = Recovery::default();
        recovery.on_segment(&acknowledge(1000), 1000, 0);
        send(&mut recovery, 1000, 0);
        recovery.on_segment(&acknowledge(1100), 1100, 1_000_000);
        send(&mut recovery, 1100, 2_000_000);
        assert_eq!(recovery.probe_ns(1200, 0), 12_000_000);
        assert_eq!(recovery.probe_ns(1200, 100), 212_000_000);
        let duplicate = recovery.resend(1200, true);
        assert_eq!(
            (duplicate.sequence, duplicate.acknowledgement, duplicate.window),
            (500, 1100, 1001)
        );
        assert_eq!(recovery.probe_ns(1200, 0), 22_000_000);
        for _ in 0..3 {
            recovery.resend(1200, true);
        }
        assert_eq!(recovery.probe_ns(1200, 0), u64::MAX);
    }
}
