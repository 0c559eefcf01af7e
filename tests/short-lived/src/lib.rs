//! An image that starts well and panics a second later, for the test of live updates: it can be built as any domain's. Never part of a
//! boot archive.
#![no_std]
#![forbid(unsafe_code)]

use domain_rt::{StartError, thread};

/// How long it lives, milliseconds.
const LIFE_MS: u64 = 1_000;

/// Starts the thread that ends it.
///
/// # Errors
/// No memory for a thread.
pub fn start() -> Result<(), StartError> {
    thread::spawn("end", None, || {
        thread::sleep_ms(LIFE_MS);
        panic!("this image is made to die");
    })?;
    Ok(())
}
