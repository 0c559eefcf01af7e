//! A panic in a domain ends it: the kernel is told where and why, and unwinds every thread in it.

use abi::sys;
use abi::sys::{RawBytes, RawPanic};
use core::panic::PanicInfo;
use rref::Text;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let message: Text<200> = Text::format(format_args!("{}", info.message()));
    let (file, line) = info
        .location()
        .map_or(("?", 0), |location| (location.file(), location.line()));
    (sys().panic)(&RawPanic {
        message: RawBytes::of(message.as_str()),
        file: RawBytes::of(file),
        line,
    })
}
