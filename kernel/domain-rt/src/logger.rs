//! The `log` crate's records go to the kernel's log ring, which adds time, CPU and the domain's name.

use abi::sys;
use abi::sys::RawBytes;
use log::{LevelFilter, Log, Metadata, Record};
use rref::Text;

struct Logger;

static LOGGER: Logger = Logger;

impl Log for Logger {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text: Text<240> = Text::format(*record.args());
        (sys().log)(record.level() as u32, RawBytes::of(text.as_str()));
    }

    fn flush(&self) {}
}

/// Makes it the domain's logger. Called once, at the start.
pub fn install() {
    // Only a second call fails, and then the first one's logger, the same, is in place.
    log::set_logger(&LOGGER).ok();
    log::set_max_level(LevelFilter::Debug);
}
