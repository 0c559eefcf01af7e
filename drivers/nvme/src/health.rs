//! `StorageHealth`: SMART and error logs (base specification 2.0, 5.16.1.2 and .3), and orders from the operator.

use crate::admin::Admin;
use crate::device::{Device, Exported};
use crate::error::AdminError;
use crate::identify::Fields;
use alloc::sync::Arc;
use core::fmt;
use core::ops::DerefMut;
use core::sync::atomic::Ordering;
use dma::nvme::AdminCommand;
use domain_rt::clock::now_ns;
use domain_rt::thread;
use interface::storage_health::{
    ControllerInfo, ControllerState, ErrorEntry, HealthError, LatencyHistogram, SmartLog, StorageEvent,
    StorageHealth,
};
use rref::Text;

const ERROR_LOG: u8 = 0x01;
const SMART_LOG: u8 = 0x02;
const SMART_BYTES: usize = 512;
const ERROR_ENTRY_BYTES: usize = 64;

/// Critical warnings in words.
pub struct Warnings(pub u8);

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = [
            "little spare capacity left",
            "temperature out of bounds",
            "reliability degraded",
            "read only",
            "backup of volatile memory failed",
            "persistent memory unreliable",
        ];
        let mut separator = "";
        for (bit, name) in NAMES.into_iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        if separator.is_empty() {
            f.write_str("nothing any more")?;
        }
        Ok(())
    }
}

/// Reads SMART's structure.
pub fn parse_smart(bytes: &[u8]) -> SmartLog {
    let fields = Fields(bytes);
    // Of 16 bytes the lower half, or as much as that can hold.
    let wide = |offset: usize| match fields.number(offset + 8, 8) {
        0 => fields.number(offset, 8),
        _ => u64::MAX,
    };
    SmartLog {
        critical_warning: fields.byte(0),
        temperature_kelvin: fields.number(1, 2) as u16,
        available_spare_percent: fields.byte(3),
        spare_threshold_percent: fields.byte(4),
        percentage_used: fields.byte(5),
        data_units_read: wide(32),
        data_units_written: wide(48),
        host_reads: wide(64),
        host_writes: wide(80),
        busy_minutes: wide(96),
        power_cycles: wide(112),
        power_on_hours: wide(128),
        unsafe_shutdowns: wide(144),
        media_errors: wide(160),
        error_log_entries: wide(176),
        warning_minutes: fields.number(192, 4) as u32,
        critical_minutes: fields.number(196, 4) as u32,
    }
}

/// Reads an entry of the error log; `None` for one that was never written.
pub fn parse_error(bytes: &[u8]) -> Option<ErrorEntry> {
    let fields = Fields(bytes);
    let number = fields.number(0, 8);
    (number != 0).then(|| ErrorEntry {
        number,
        queue: fields.number(8, 2) as u16,
        command: fields.number(10, 2) as u16,
        status: (fields.number(12, 2) >> 1) as u16,
        parameter: fields.number(14, 2) as u16,
        address: fields.number(16, 8),
        namespace: fields.number(24, 4) as u32,
    })
}

/// Asks the controller for SMART, which lets it report the next warning.
pub fn read_smart(admin: &mut Admin, limit_ms: u64) -> Result<SmartLog, AdminError> {
    let command = AdminCommand::log_page(SMART_LOG, SMART_BYTES as u32, 0, false);
    admin.execute(command, limit_ms, |answer| {
        let mut bytes = [0; SMART_BYTES];
        answer.copy_to(&mut bytes);
        parse_smart(&bytes)
    })
}

impl Device {
    /// The admin side of controller `index`, when it takes commands. It doesn't wait for a reset to end.
    pub fn ready(&self, index: u16) -> Result<impl DerefMut<Target = Admin> + '_, HealthError> {
        let admin = self.admin.as_ref().filter(|_| index == 0);
        let admin = admin.ok_or(HealthError::NoController)?;
        let deadline_ns = now_ns().saturating_add(self.limits.health_ms.saturating_mul(1_000_000));
        loop {
            match self.state() {
                ControllerState::Ready => {}
                state => return Err(HealthError::WrongState(state)),
            }
            if let Some(admin) = admin.try_lock() {
                return Ok(admin);
            }
            if now_ns() >= deadline_ns {
                return Err(HealthError::TimedOut);
            }
            thread::sleep_ms(1);
        }
    }

    /// What to say of an admin command that went wrong.
    fn admin_failed(&self, error: AdminError) -> HealthError {
        match error {
            AdminError::NotReady => HealthError::WrongState(self.state()),
            AdminError::Refused(status) => HealthError::Refused(status),
            AdminError::TimedOut => {
                self.ask_for_reset("an admin command wasn't answered in time");
                HealthError::TimedOut
            }
        }
    }

    /// Has the thread that looks after the device reset it.
    pub fn ask_for_reset(&self, why: &str) {
        self.history.lock().last_reset = Text::new(why);
        self.reset_wanted.store(true, Ordering::Release);
    }
}

impl StorageHealth for Exported {
    fn controller(&self, index: u16) -> Result<Option<ControllerInfo>, HealthError> {
        let device = &self.0;
        if device.admin.is_none() || index != 0 {
            return Ok(None);
        }
        let (usable, transfer_limit_bytes) = {
            let units: Arc<_> = device.units.lock().clone();
            let transfer = (0..units.len()).find_map(|unit| {
                let info = units.get(unit as u16)?.info();
                Some(info.transfer_blocks * info.block_bytes)
            });
            (units.usable(), transfer.unwrap_or(0))
        };
        let queue_depth = device
            .active()
            .first()
            .map_or(0, |queue| queue.requests.lock().depth());
        let (resets, last_reset) = {
            let history = device.history.lock();
            (history.resets(), history.last_reset)
        };
        let identity = device.identity.lock();
        let data = identity.as_ref().map(|identity| &identity.data);
        Ok(Some(ControllerInfo {
            state: device.state(),
            serial: data.map_or(Text::EMPTY, |data| data.serial),
            model: data.map_or(Text::EMPTY, |data| data.model),
            firmware: data.map_or(Text::EMPTY, |data| data.firmware),
            vendor: data.map_or(0, |data| data.vendor),
            version: identity.as_ref().map_or(0, |identity| identity.version),
            namespaces: usable as u16,
            queues: device.active().len() as u16,
            queue_depth: queue_depth as u16,
            transfer_limit_bytes,
            volatile_cache: identity.as_ref().is_some_and(|identity| identity.volatile_cache),
            resets,
            last_reset: if resets == 0 { Text::EMPTY } else { last_reset },
        }))
    }

    fn smart(&self, controller: u16) -> Result<SmartLog, HealthError> {
        let device = &self.0;
        let result = read_smart(&mut *device.ready(controller)?, device.limits.health_ms);
        result.map_err(|error| device.admin_failed(error))
    }

    fn error_entry(&self, controller: u16, index: u16) -> Result<Option<ErrorEntry>, HealthError> {
        let device = &self.0;
        let mut admin = device.ready(controller)?;
        let entries = device
            .identity
            .lock()
            .as_ref()
            .map_or(0, |identity| identity.data.error_entries);
        if index >= entries {
            return Ok(None);
        }
        // From the start: not every controller takes an offset. What doesn't fit a page is older than anybody asks for.
        let end = (usize::from(index) + 1) * ERROR_ENTRY_BYTES;
        if end > dma::nvme::admin::PAGE_BYTES {
            return Ok(None);
        }
        let command = AdminCommand::log_page(ERROR_LOG, end as u32, 0, true);
        let result = admin.execute(command, device.limits.health_ms, |answer| {
            let mut bytes = [0; dma::nvme::admin::PAGE_BYTES];
            answer.copy_to(&mut bytes);
            bytes.get(end - ERROR_ENTRY_BYTES..end).and_then(parse_error)
        });
        result.map_err(|error| device.admin_failed(error))
    }

    fn event(&self, controller: u16, from: u64) -> Result<Option<StorageEvent>, HealthError> {
        if self.0.admin.is_none() || controller != 0 {
            return Err(HealthError::NoController);
        }
        Ok(self.0.history.lock().event(from))
    }

    fn latency(&self, controller: u16) -> Result<LatencyHistogram, HealthError> {
        if self.0.admin.is_none() || controller != 0 {
            return Err(HealthError::NoController);
        }
        Ok(self.0.counters().latency)
    }

    fn reset(&self, controller: u16) -> Result<(), HealthError> {
        let device = &self.0;
        if device.admin.is_none() || controller != 0 {
            return Err(HealthError::NoController);
        }
        match device.state() {
            state @ (ControllerState::Removed | ControllerState::Starting) => {
                Err(HealthError::WrongState(state))
            }
            _ => {
                device.ask_for_reset("the operator asked for it");
                Ok(())
            }
        }
    }

    fn shut_down(&self, controller: u16) -> Result<(), HealthError> {
        let device = &self.0;
        if device.admin.is_none() || controller != 0 {
            return Err(HealthError::NoController);
        }
        device.shut_down()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn warnings_are_put_into_words() {
        assert_eq!(
            Warnings(0b1010).to_string(),
            "temperature out of bounds, read only"
        );
        assert_eq!(Warnings(0).to_string(), "nothing any more");
    }

    #[test]
    fn smart_is_read_by_its_fields() {
        let mut bytes = [0; 512];
        bytes[0] = 4;
        bytes[1..3].copy_from_slice(&310u16.to_le_bytes());
        bytes[32..40].copy_from_slice(&7u64.to_le_bytes());
        bytes[48] = 1;
        bytes[60] = 1;
        let smart = parse_smart(&bytes);
        assert_eq!((smart.critical_warning, smart.temperature_kelvin), (4, 310));
        assert_eq!((smart.data_units_read, smart.data_units_written), (7, u64::MAX));
    }

    #[test]
    fn an_entry_that_was_never_written_is_none() {
        assert_eq!(parse_error(&[0; 64]), None);
        let mut bytes = [0; 64];
        bytes[0] = 9;
        bytes[12..14].copy_from_slice(&(0x0281u16 << 1).to_le_bytes());
        let entry = parse_error(&bytes).unwrap();
        assert_eq!((entry.number, entry.status), (9, 0x281));
    }

    proptest! {
        #[test]
        fn any_log_is_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            parse_smart(&bytes);
            parse_error(&bytes);
        }
    }
}
