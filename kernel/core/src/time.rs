//! Conversion between a counter's ticks and nanoseconds, without division on the way.

/// Nanoseconds in a second.
pub const NS_PER_SECOND: u64 = 1_000_000_000;

/// A deadline that never comes.
pub const NEVER: u64 = u64::MAX;

/// The rate of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    hz: u64,
    /// Nanoseconds in a tick, as a fraction of 2^32.
    ns_per_tick: u64,
    /// Ticks in a nanosecond, as a fraction of 2^32.
    ticks_per_ns: u64,
}

impl Rate {
    /// A counter of `hz` ticks a second; from 1 kHz to 1 THz. Others are brought into that range.
    pub const fn from_hz(hz: u64) -> Self {
        let hz = if hz < 1_000 {
            1_000
        } else if hz > 1_000_000_000_000 {
            1_000_000_000_000
        } else {
            hz
        };
        let ns_per_tick = ((NS_PER_SECOND as u128) << 32) / hz as u128;
        let ticks_per_ns = ((hz as u128) << 32) / NS_PER_SECOND as u128;
        Self {
            hz,
            ns_per_tick: ns_per_tick as u64,
            ticks_per_ns: ticks_per_ns as u64,
        }
    }

    /// Ticks a second.
    pub const fn hz(self) -> u64 {
        self.hz
    }

    /// How long `ticks` ticks are, rounded down.
    pub const fn ns(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.ns_per_tick as u128) >> 32) as u64
    }

    /// How many ticks fit into `ns` nanoseconds; at most `u64::MAX`.
    pub const fn ticks(self, ns: u64) -> u64 {
        let ticks = (ns as u128 * self.ticks_per_ns as u128) >> 32;
        if ticks > u64::MAX as u128 {
            u64::MAX
        } else {
            ticks as u64
        }
    }
}

/// Seconds since 1970 of a date and time in UTC (proleptic Gregorian calendar).
pub const fn unix_seconds(year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64) -> u64 {
    // Years that start in March, so that the leap day is the last day of a year.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        assert_eq!(unix_seconds(1970, 1, 1, 0, 0, 0), 0);
        assert_eq!(unix_seconds(2000, 2, 29, 12, 0, 0), 951_825_600);
        assert_eq!(unix_seconds(2026, 11, 21, 1, 4, 17), 1_795_223_057);
    }

    proptest! {
        #[test]
        fn there_and_back_loses_less_than_a_microsecond_a_minute(hz in 1_000_000u64..5_000_000_000, seconds in 0u64..60) {
            let rate = Rate::from_hz(hz);
            let ns = seconds * NS_PER_SECOND;
            let back = rate.ns(rate.ticks(ns));
            prop_assert!(back <= ns && ns - back <= 60_000 + 1_000_000_000 / hz + 1);
        }
    }
}
