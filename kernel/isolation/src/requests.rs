//! Requests to a thread to look whether a domain on its chain is dead.
//!
//! A request is a number in the thread's header, 0 for none. Requests are numbered so that a thread which has looked and found nothing
//! takes back the request that it looked for, and not a newer one. `kernel/models` checks this file.

use super::atomic::{AtomicU32, Ordering};

/// The numbers that have been given out.
pub struct Requests(AtomicU32);

impl Requests {
    /// Counts on from what `last` holds.
    pub const fn new(last: AtomicU32) -> Requests {
        Requests(last)
    }

    /// A number for a new request: not 0, and another than that of any request which a thread may be looking for.
    pub fn next(&self) -> u32 {
        loop {
            // 0 means that there is no request.
            match self.0.fetch_add(1, Ordering::SeqCst).wrapping_add(1) {
                0 => {}
                number => return number,
            }
        }
    }
}

/// Whether a domain on a thread's chain is dead, which `is_broken` finds out; takes back the request in `pending` if none is.
pub fn look(pending: &AtomicU32, is_broken: impl FnOnce() -> bool) -> bool {
    let request = pending.load(Ordering::SeqCst);
    if request == 0 {
        return false;
    }
    let broken = is_broken();
    if !broken {
        // Fails if there is a newer request, which then stands.
        pending
            .compare_exchange(request, 0, Ordering::SeqCst, Ordering::SeqCst)
            .ok();
    }
    broken
}
