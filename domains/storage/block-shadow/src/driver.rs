//! The way to the living driver.
//!
//! Every queue's thread meets a death on its own and connects on its own; the kernel wakes all of them when the next driver is up.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, clock};
use interface::block::{BlockDevice, BlockError};
use log::{debug, warn};
use outage::Outages;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// The driver, whichever incarnation lives.
pub struct Driver {
    import: &'static str,
    /// The newest incarnation that is known.
    newest: Mutex<Option<OwnerId>>,
    restarts: AtomicU64,
    outages: Arc<Outages>,
}

impl Driver {
    /// The driver behind `import`.
    pub fn new(import: &'static str, outages: Arc<Outages>) -> Driver {
        Driver {
            import,
            newest: Mutex::new(None),
            restarts: AtomicU64::new(0),
            outages,
        }
    }

    /// Drivers that followed the first.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The outages of this driver.
    pub fn outages(&self) -> &Outages {
        &self.outages
    }

    /// A handle to an incarnation other than `not`, after `collect` has taken over what its predecessors held; `None` when there is none by
    /// `deadline_ns`, or when the caller died meanwhile. `collect` says whether there was anything, and runs once at a time.
    ///
    /// It runs for each handle, not for each driver only: requests that were handed to a dead driver too late are left the moment that is tried.
    pub fn connect(
        &self,
        mut not: OwnerId,
        deadline_ns: u64,
        collect: impl Fn() -> bool,
    ) -> Option<Handle<dyn BlockDevice>> {
        loop {
            let left_ms = deadline_ns.saturating_sub(clock::now_ns()).div_ceil(MS);
            let handle: Handle<dyn BlockDevice> = domain_rt::reconnect(self.import, not, left_ms).ok()?;
            let target = handle.target();
            let mut newest = self.newest.lock();
            if self.is_usable(&handle, &mut newest, &collect) {
                return Some(handle);
            }
            drop(newest);
            if clock::now_ns() >= deadline_ns {
                return None;
            }
            not = target;
        }
    }

    /// Takes over what was left; false when this incarnation is dead already.
    fn is_usable(
        &self,
        handle: &Handle<dyn BlockDevice>,
        newest: &mut Option<OwnerId>,
        collect: &impl Fn() -> bool,
    ) -> bool {
        let target = handle.target();
        if *newest == Some(target) {
            collect();
            return true;
        }
        match newest.replace(target) {
            // A shadow that is no driver's first may find one that has requests of its predecessor's under way. They must have come to an
            // end before anything new is written.
            None => match handle.abandon() {
                Ok(()) => {}
                Err(BlockError::Dead(_)) => {
                    *newest = None;
                    return false;
                }
                Err(error) => warn!("what was under way before can't be called off: {error}"),
            },
            Some(before) => {
                if !domain_rt::is_live(target) {
                    *newest = Some(before);
                    return false;
                }
                self.restarts.fetch_add(1, Ordering::Relaxed);
                self.outages.begin_if_met(before);
                debug!(
                    "driver generation {} follows generation {}",
                    target.generation(),
                    before.generation()
                );
            }
        }
        collect();
        true
    }
}
