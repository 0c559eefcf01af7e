//! Our code on the host, on one core, against a C program that does the same work.
//!
//! Both sides get the same input and take turns, round by round, so that whatever else the machine does hits both alike. After every round
//! both report what came of it: if that differs, they haven't done the same work, and there is no result.
//!
//! `peer.rs` builds and runs the C program, `comparison.rs` makes figures of the rounds. What is measured is for whoever uses this.
#![forbid(unsafe_code)]

mod comparison;
mod peer;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};

pub use comparison::{BUDGET_RATIO, Comparison, compare};
pub use peer::{Peer, Program};

/// Rounds of each measurement unless asked otherwise.
pub const DEFAULT_ROUNDS: u32 = 15;

/// What a side says after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round<const RESULTS: usize> {
    /// Processor time that it took.
    pub nanoseconds: u64,
    /// What came of it: the same on both sides.
    pub results: [u64; RESULTS],
}

/// Refuses to measure code that was built without optimisation; `name` is the benchmark's.
///
/// # Errors
/// If this was.
pub fn refuse_debug_build(name: &str) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!(
            "built without optimisation, so the figures would mean nothing; run `cargo xtask bench {name}`"
        );
    }
    Ok(())
}

/// Processor time of this thread: what others do on the machine doesn't count.
///
/// # Errors
/// When there is no such clock.
pub fn processor_time_nanoseconds() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot read the processor time")?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Shows on the terminal's last line what is going on; nothing when nobody watches.
pub fn progress(what: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // A terminal that is gone is no reason to stop measuring.
        let _ = write!(terminal, "\r\x1b[K{what}");
        let _ = terminal.flush();
    }
}
