//! Time.

use abi::sys;

/// Nanoseconds since boot: monotonic, the same on every CPU.
pub fn now_ns() -> u64 {
    (sys().now_ns)()
}

/// Seconds since 1970-01-01 00:00 UTC by the machine's clock, for dates that people read.
pub fn unix_time_s() -> u64 {
    (sys().unix_time_s)()
}

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// 64 bits for seeds: unpredictable where the CPU has a random number generator.
pub fn entropy() -> u64 {
    (sys().entropy)()
}
