//! The way to the living driver, and what each new one is told.
//!
//! Every queue's thread meets a death on its own and connects on its own; the kernel wakes all of them when the next driver
//! is up. The first one replays the configuration, the others wait for that.

use crate::unsent::Unsent;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, clock};
use interface::net::{NetConfiguration, NetDevice, NetError};
use log::{debug, info, warn};
use outage::Outages;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// The driver, whichever incarnation lives.
pub struct Driver {
    import: &'static str,
    replay: Mutex<Replay>,
    restarts: AtomicU64,
    outages: Arc<Outages>,
    unsent: Unsent,
}

#[derive(Default)]
struct Replay {
    /// The newest incarnation that was told the configuration.
    told: Option<OwnerId>,
    configuration: Option<NetConfiguration>,
}

impl Driver {
    /// The driver behind `import`.
    pub fn new(import: &'static str, outages: Arc<Outages>) -> Driver {
        Driver {
            import,
            replay: Mutex::default(),
            restarts: AtomicU64::new(0),
            outages,
            unsent: Unsent::default(),
        }
    }

    /// Whether there is a driver, or was one.
    pub fn was_there(&self) -> bool {
        self.replay.lock().told.is_some()
    }

    /// Drivers that followed the first.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The outages of this driver.
    pub fn outages(&self) -> &Outages {
        &self.outages
    }

    /// What a dead driver was to send.
    pub fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// A handle to an incarnation other than `not` that knows the configuration; `None` when there is none by `deadline_ns`, or
    /// when the caller died meanwhile.
    pub fn connect(&self, mut not: OwnerId, deadline_ns: u64) -> Option<Handle<dyn NetDevice>> {
        loop {
            let left_ms = deadline_ns.saturating_sub(clock::now_ns()).div_ceil(MS);
            let handle: Handle<dyn NetDevice> = domain_rt::reconnect(self.import, not, left_ms).ok()?;
            let target = handle.target();
            if self.tell(&handle) {
                return Some(handle);
            }
            if clock::now_ns() >= deadline_ns {
                return None;
            }
            not = target;
        }
    }

    /// Sees to it that an incarnation knows the configuration; false when it is dead already.
    fn tell(&self, handle: &Handle<dyn NetDevice>) -> bool {
        let target = handle.target();
        let mut replay = self.replay.lock();
        if replay.told == Some(target) {
            return true;
        }
        if let Some(configuration) = replay.configuration {
            match handle.configure(configuration) {
                Ok(()) => {}
                Err(NetError::Dead(_)) => return false,
                // It worked with the driver before; a device that carries on with its defaults is better than none.
                Err(error) => warn!(
                    "generation {} doesn't take the configuration: {error}",
                    target.generation()
                ),
            }
        } else if !domain_rt::is_live(target) {
            return false;
        }
        if let Some(before) = replay.told.replace(target) {
            self.restarts.fetch_add(1, Ordering::Relaxed);
            self.outages.begin(before);
            debug!(
                "driver generation {} follows generation {}",
                target.generation(),
                before.generation()
            );
        }
        // The other queues wait for this: none sends anything newer before it knows of these. A shadow that died with its driver finds them
        // with its first one.
        let frames = self.unsent.collect();
        if frames != 0 {
            info!("{frames} frames that the last generation had not sent go out now");
        }
        true
    }

    /// Sets what each further driver is told; gives what was set before.
    pub fn set_configuration(&self, configuration: Option<NetConfiguration>) -> Option<NetConfiguration> {
        core::mem::replace(&mut self.replay.lock().configuration, configuration)
    }
}
