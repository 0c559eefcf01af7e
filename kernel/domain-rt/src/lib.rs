//! What a domain links to be one.
//!
//! Safe interfaces to what the kernel offers every domain: threads and time ([`thread`], [`clock`]), a lock that yields
//! ([`sync`]), handles that the manifest grants ([`connect`], [`export`]), the log (by the `log` crate). With the feature
//! `image` it is also the entry point, the private heap and the panic handler of a domain image, so that a domain crate is
//! one safe function, `start`.
#![no_std]

extern crate alloc;
// The memory functions that compiled code calls without naming them.
#[cfg(feature = "image")]
extern crate freestanding as _;

pub mod clock;
#[cfg(feature = "image")]
mod heap;
pub mod logger;
#[cfg(feature = "image")]
mod panic;
pub mod start;
pub mod sync;
pub mod thread;

pub use rref::handle::ConnectError;
pub use rref::{BootBytes, Handle, Interface, OwnerId, caller};
pub use start::{StartError, connect, connect_and, export, is_live, reconnect, start_with};

#[doc(hidden)]
pub use start::enter;

/// Makes `start` (`fn() -> Result<(), StartError>`) what the domain image runs when it is loaded.
#[macro_export]
macro_rules! entry {
    ($start:path) => {
        /// Where the kernel enters the image, on the domain's first thread.
        #[unsafe(no_mangle)]
        pub extern "C" fn _start(table: &'static $crate::SysTable) {
            // SAFETY: Only the kernel's loader calls this, with its own table.
            unsafe { $crate::enter(table, $start) }
        }
    };
}

#[doc(hidden)]
pub use abi::SysTable;
