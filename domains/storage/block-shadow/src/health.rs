//! What the driver says of its device, passed on to whichever driver lives.

use crate::shadow::CONTROL_WAIT_MS;
use domain_rt::sync::Mutex;
use domain_rt::{Handle, OwnerId, clock};
use interface::storage_health::{
    ControllerInfo, ErrorEntry, HealthError, LatencyHistogram, SmartLog, StorageEvent, StorageHealth,
};

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// The health of what is behind the driver.
pub struct Health {
    import: &'static str,
    driver: Mutex<Option<Handle<dyn StorageHealth>>>,
}

impl Health {
    /// As the driver behind `import` tells it.
    pub fn new(import: &'static str) -> Health {
        Health {
            import,
            driver: Mutex::new(None),
        }
    }

    fn handle(&self, not: OwnerId, deadline_ns: u64) -> Option<Handle<dyn StorageHealth>> {
        let known = self.driver.lock().clone();
        if let Some(handle) = known
            && handle.target() != not
        {
            return Some(handle);
        }
        // The lock isn't held meanwhile: whoever comes here waits in the kernel, not for the lock.
        let left_ms = deadline_ns.saturating_sub(clock::now_ns()).div_ceil(MS);
        let handle: Handle<dyn StorageHealth> = domain_rt::reconnect(self.import, not, left_ms).ok()?;
        *self.driver.lock() = Some(handle.clone());
        Some(handle)
    }

    /// Makes a call on one driver after the other until one lives through it.
    fn ask<R>(
        &self,
        call: impl Fn(&Handle<dyn StorageHealth>) -> Result<R, HealthError>,
    ) -> Result<R, HealthError> {
        let deadline_ns = clock::now_ns().saturating_add(CONTROL_WAIT_MS * MS);
        let mut not = OwnerId::NONE;
        loop {
            let handle = self.handle(not, deadline_ns).ok_or(HealthError::NoController)?;
            match call(&handle) {
                Err(HealthError::Dead(_)) if clock::now_ns() < deadline_ns => not = handle.target(),
                Err(HealthError::Dead(_)) => return Err(HealthError::NoController),
                result => return result,
            }
        }
    }
}

impl StorageHealth for Health {
    fn controller(&self, index: u16) -> Result<Option<ControllerInfo>, HealthError> {
        self.ask(|driver| driver.controller(index))
    }

    fn smart(&self, controller: u16) -> Result<SmartLog, HealthError> {
        self.ask(|driver| driver.smart(controller))
    }

    fn error_entry(&self, controller: u16, index: u16) -> Result<Option<ErrorEntry>, HealthError> {
        self.ask(|driver| driver.error_entry(controller, index))
    }

    fn event(&self, controller: u16, from: u64) -> Result<Option<StorageEvent>, HealthError> {
        self.ask(|driver| driver.event(controller, from))
    }

    fn latency(&self, controller: u16) -> Result<LatencyHistogram, HealthError> {
        self.ask(|driver| driver.latency(controller))
    }

    fn reset(&self, controller: u16) -> Result<(), HealthError> {
        self.ask(|driver| driver.reset(controller))
    }

    fn shut_down(&self, controller: u16) -> Result<(), HealthError> {
        self.ask(|driver| driver.shut_down(controller))
    }
}
