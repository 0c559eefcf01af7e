//! What packet work in safe code needs of the CPU and can't say in Rust: cache prefetch hints, comparing the words of a
//! cache line at once (`equal.rs`), and some bits of a packet's headers (`pattern.rs`).
//!
//! A hint starts bringing a cache line in and never waits for it, so that packet work can ask for the lines of a whole
//! batch before it needs the first. Safe code has no other means: a load that warms the cache also holds up everything
//! behind it until it is done.
#![no_std]

mod equal;
mod pattern;

pub use equal::equal_words;
pub use pattern::Pattern;

/// Starts bringing the first cache line of `value` into all levels of the cache.
///
/// Has no effect but on time; `value` is not read.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = core::ptr::from_ref(value).cast::<i8>();
        // SAFETY: PREFETCHT0 is part of SSE, which every x86-64 CPU has; it is a hint that never faults, reads no value
        // into the program and writes none, whatever the address, and this one comes from a live reference besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    /// A hint on anything, an empty slice and the last byte of an allocation among it, does no harm.
    #[test]
    fn hints_are_harmless() {
        let bytes = [7_u8; 64];
        super::prefetch(&bytes);
        super::prefetch(&bytes[64..]);
        super::prefetch("");
        super::prefetch(&());
        assert_eq!(bytes, [7; 64]);
    }
}
