//! What several tests need.

use rref::BootBytes;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file of these bytes in the boot archive, under a name of its own.
pub fn boot_file(content: &[u8]) -> BootBytes {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    host_platform::attach();
    let name = format!("test/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    host_platform::add_boot_file(&name, content);
    BootBytes::open(&name).expect("added above")
}
