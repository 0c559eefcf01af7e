//! `nvme` and what a reboot does to controllers, over one that is played.

use crate::tests::fixture;
use interface::storage_health::{
    ControllerInfo, ControllerState, ErrorEntry, EventKind, HealthError, LATENCY_BUCKETS, LatencyHistogram,
    SmartLog, StorageEvent, StorageHealth,
};
use rref::Text;
use std::sync::atomic::{AtomicU32, Ordering};

/// One controller.
#[derive(Default)]
pub struct Disk {
    pub resets: AtomicU32,
    pub shutdowns: AtomicU32,
}

impl StorageHealth for Disk {
    fn controller(&self, index: u16) -> Result<Option<ControllerInfo>, HealthError> {
        Ok((index == 0).then(|| ControllerInfo {
            state: ControllerState::Ready,
            serial: Text::new("S1"),
            model: Text::new("Played"),
            firmware: Text::new("1.0"),
            vendor: 1,
            version: 0x0001_0400,
            namespaces: 1,
            queues: 2,
            queue_depth: 127,
            transfer_limit_bytes: 131_072,
            volatile_cache: true,
            resets: 3,
            last_reset: Text::new("a test wanted it"),
        }))
    }

    fn smart(&self, _: u16) -> Result<SmartLog, HealthError> {
        Ok(SmartLog {
            critical_warning: 2,
            temperature_kelvin: 310,
            data_units_read: 2,
            ..SmartLog::default()
        })
    }

    fn error_entry(&self, _: u16, index: u16) -> Result<Option<ErrorEntry>, HealthError> {
        Ok((index < 2).then(|| ErrorEntry {
            number: 9 - u64::from(index),
            queue: 1,
            command: u16::MAX,
            status: 0x281,
            ..ErrorEntry::default()
        }))
    }

    fn event(&self, _: u16, from: u64) -> Result<Option<StorageEvent>, HealthError> {
        Ok((from < 3).then_some(StorageEvent {
            number: from.max(1),
            at_ns: 1_500_000_000,
            kind: if from == 2 {
                EventKind::Aborted(0x1_0007)
            } else {
                EventKind::Reset
            },
        }))
    }

    fn latency(&self, _: u16) -> Result<LatencyHistogram, HealthError> {
        Ok(LatencyHistogram {
            counts: [1; LATENCY_BUCKETS],
            longest_ns: 5_000_000,
        })
    }

    fn reset(&self, controller: u16) -> Result<(), HealthError> {
        if controller != 0 {
            return Err(HealthError::NoController);
        }
        self.resets.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn shut_down(&self, _: u16) -> Result<(), HealthError> {
        self.shutdowns.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_controller_is_shown_from_all_sides() {
    let mut fixture = fixture();
    let overview = fixture.session.answer("nvme");
    assert!(
        overview.contains("3, the last because a test wanted it"),
        "{overview}"
    );
    assert_eq!(fixture.json("nvme --json")[0]["version"], "1.4");
    let health = fixture.session.answer("nvme health");
    assert!(
        health.contains("37 C") && health.contains("1000.0 KiB"),
        "{health}"
    );
    assert_eq!(
        fixture.json("nvme health --json")[0]["warnings"][0],
        "temperature"
    );
    let errors = fixture.session.answer("nvme errors");
    assert_eq!(errors.lines().count(), 3);
    assert!(errors.contains("0x0281"), "{errors}");
    let events = fixture.session.answer("nvme events");
    assert!(
        events.ends_with("command 0x0007 of queue 1 is to be aborted"),
        "{events}"
    );
    assert_eq!(fixture.json("nvme events --json")[0][0]["what"], "reset");
}

#[test]
fn a_reset_is_ordered_and_a_reboot_shuts_down_first() {
    let mut fixture = fixture();
    assert!(
        fixture
            .session
            .answer("nvme reset")
            .starts_with("Controller 0 is being reset")
    );
    assert_eq!(
        fixture.session.answer("nvme reset 7"),
        "There is no such storage controller."
    );
    assert_eq!(fixture.disk.resets.load(Ordering::Relaxed), 1);
    fixture.types(b"reboot\r");
    assert_eq!(fixture.disk.shutdowns.load(Ordering::Relaxed), 1);
}
