//! What happened to the controller: events that it reports (base specification 2.0, 5.2 "Asynchronous Event Request") and those of the
//! driver's own, kept for the operator.

use crate::admin::Admin;
use crate::device::Device;
use crate::health;
use alloc::collections::VecDeque;
use dma::nvme::AdminCommand;
use interface::storage_health::{EventKind, StorageEvent};
use rref::Text;

/// Events that are kept.
const KEPT: usize = 64;
/// Requests for events under way at most.
const REQUEST_LIMIT: u16 = 4;

/// Log pages.
const ERROR_LOG: u8 = 0x01;
const SMART_LOG: u8 = 0x02;
const FIRMWARE_LOG: u8 = 0x03;
const CHANGED_NAMESPACES_LOG: u8 = 0x04;

/// The newest events.
#[derive(Default)]
pub struct History {
    events: VecDeque<StorageEvent>,
    count: u64,
    resets: u64,
    /// Why it was last reset.
    pub last_reset: Text<80>,
}

impl History {
    /// Notes one.
    pub fn record(&mut self, at_ns: u64, kind: EventKind) {
        self.count += 1;
        self.resets += u64::from(kind == EventKind::Reset);
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(StorageEvent {
            number: self.count,
            at_ns,
            kind,
        });
    }

    /// Resets so far.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// The first one kept with a number of at least `from`.
    pub fn event(&self, from: u64) -> Option<StorageEvent> {
        self.events.iter().find(|event| event.number >= from).copied()
    }
}

/// Asks for as many events as the controller takes requests for.
pub fn request_all(admin: &mut Admin, event_limit: u16) {
    for _ in 0..event_limit.min(REQUEST_LIMIT) {
        if !admin.request_event() {
            return;
        }
    }
}

/// Takes an event that the controller reported, reads the log page that it is about, which lets the controller report the next of its
/// kind, and asks for another. Says whether namespaces changed.
pub fn handle(device: &Device, admin: &mut Admin, event: u32) -> bool {
    let (kind, information, page) = (event & 0x7, (event >> 8) as u8, (event >> 16) as u8);
    let limit_ms = device.limits.health_ms;
    let mut changed = false;
    let recorded = match (kind, information) {
        (0, code) => {
            log::warn!("the NVMe controller reports error {code}");
            EventKind::Error(code)
        }
        (1, _) => match health::read_smart(admin, limit_ms) {
            Ok(smart) => {
                log::warn!(
                    "the NVMe controller warns: {}",
                    health::Warnings(smart.critical_warning)
                );
                EventKind::Warning(smart.critical_warning)
            }
            Err(error) => {
                log::warn!("the NVMe controller warns, and its SMART log can't be read: {error}");
                EventKind::Warning(0)
            }
        },
        (2, 0) => {
            log::info!("namespaces of the NVMe controller changed");
            changed = true;
            EventKind::NamespacesChanged
        }
        (2, 1) => {
            log::info!("the NVMe controller activates firmware");
            EventKind::FirmwareActivation
        }
        _ => {
            log::info!("the NVMe controller reports event {event:#08x}");
            EventKind::Other(event)
        }
    };
    let known = matches!(
        page,
        ERROR_LOG | SMART_LOG | FIRMWARE_LOG | CHANGED_NAMESPACES_LOG
    );
    if known && kind != 1 {
        let bytes = if page == CHANGED_NAMESPACES_LOG { 4096 } else { 64 };
        if let Err(error) = admin.result(AdminCommand::log_page(page, bytes, 0, false), limit_ms) {
            log::warn!("log page {page} of the NVMe controller can't be read: {error}");
        }
    }
    device.record(recorded);
    admin.request_event();
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_kept() {
        let mut history = History::default();
        for at_ns in 0..100 {
            history.record(at_ns, EventKind::Reset);
        }
        assert_eq!(history.resets(), 100);
        assert_eq!(history.event(0).unwrap().number, 37);
        assert_eq!(history.event(99).unwrap().at_ns, 98);
        assert_eq!(history.event(101), None);
    }
}
