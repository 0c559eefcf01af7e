//! The `log` crate's facade: every line goes into the log ring, and from a level on to the console too.

use super::sync::InterruptLock;
use super::{clock, console, cpu};
use crate::log_ring::{Entry, LogRing, MAX_TEXT, Record};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use log::{Level, LevelFilter, Log, Metadata};

/// Bytes of the ring: some thousand lines.
const RING_BYTES: usize = 256 * 1024;

static RING: InterruptLock<LogRing<RING_BYTES>> = InterruptLock::new(LogRing::new());

/// Lines of this level and graver ones are printed.
static CONSOLE_LEVEL: AtomicUsize = AtomicUsize::new(LevelFilter::Info as usize);

struct KernelLog;

impl Log for KernelLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        append(record.level(), "kernel", *record.args());
    }

    fn flush(&self) {}
}

/// Text that is cut off when it gets too long.
struct Line<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Line<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl<const N: usize> Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(N - self.length);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
        Ok(())
    }
}

/// Installs the facade; before that, lines are lost.
pub(super) fn start() {
    if log::set_logger(&KernelLog).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// From which level on lines are printed on the console; all go into the ring.
pub fn set_console_level(level: LevelFilter) {
    CONSOLE_LEVEL.store(level as usize, Ordering::Relaxed);
}

/// Adds a line in the name of a domain.
pub fn append(level: Level, domain: &str, text: fmt::Arguments<'_>) {
    let mut line = Line::<MAX_TEXT>::new();
    // Writing into `Line` can't fail; a Display that reports an error cuts its own line short.
    let _ = line.write_fmt(text);
    let text = line.text();
    let time_ns = clock::now_ns();
    let cpu = cpu::current_index();
    RING.lock().append(Entry {
        time_ns,
        cpu: cpu as u16,
        level,
        domain,
        text,
    });
    if level as usize <= CONSOLE_LEVEL.load(Ordering::Relaxed) {
        let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000);
        // Written as a whole, so that lines of several CPUs don't mix.
        let mut whole = Line::<{ MAX_TEXT + 100 }>::new();
        let _ = write!(
            whole,
            "[{seconds:5}.{micros:06}] {cpu} {level:5} {domain:.32}: {text}"
        );
        let _ = writeln!(whole);
        console::write_later(whole.text());
    }
}

/// The first record whose number is `sequence` or more. To follow the log, ask for the last number plus one.
pub fn read_from(sequence: u64) -> Option<Record> {
    RING.lock().read_from(sequence)
}

/// The number that the next record will get.
pub fn next_sequence() -> u64 {
    RING.lock().next_sequence()
}
