//! The link: bringing it up, and what it is now (datasheet 4.6.4, 8.2.3.22.19, .20).
//!
//! The module and speed are as the EEPROM set them in AUTOC: 10 Gb/s over SFP+ for device 10fb.

use crate::registers as r;
use core::sync::atomic::{AtomicU32, Ordering};
use dma::Mmio;
use interface::net::LinkState;

/// Turns the transmitter on and starts the link anew, unless it is up.
pub fn bring_up(registers: &Mmio) {
    let pins = registers.read(r::ESDP);
    registers.write(r::ESDP, (pins | r::ESDP_PIN_3_OUTPUT) & !r::ESDP_LASER_OFF);
    if registers.read(r::LINKS) & r::LINKS_UP == 0 {
        registers.write(r::AUTOC, registers.read(r::AUTOC) | r::AUTOC_RESTART);
    }
}

/// The link as last seen. Read on the data path, so it is kept here and not asked of the device.
#[derive(Default)]
pub struct Link {
    /// Megabits a second; 0 when down.
    speed_mbps: AtomicU32,
    changes: AtomicU32,
}

impl Link {
    /// Looks at the device; returns the state when it has changed.
    pub fn refresh(&self, registers: &Mmio) -> Option<LinkState> {
        self.note(registers.read(r::LINKS))
    }

    /// Takes in what LINKS said; returns the state when it has changed.
    pub fn note(&self, links: u32) -> Option<LinkState> {
        let speed = speed_mbps(links);
        if self.speed_mbps.swap(speed, Ordering::Relaxed) == speed {
            return None;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        Some(self.state())
    }

    /// Whether frames can pass.
    #[inline(always)]
    pub fn is_up(&self) -> bool {
        self.speed_mbps.load(Ordering::Relaxed) != 0
    }

    /// What is known.
    pub fn state(&self) -> LinkState {
        let speed_mbps = self.speed_mbps.load(Ordering::Relaxed);
        LinkState {
            up: speed_mbps != 0,
            speed_mbps,
            changes: self.changes.load(Ordering::Relaxed),
        }
    }
}

/// Megabits a second by LINKS; 0 when the link is down.
fn speed_mbps(links: u32) -> u32 {
    if links & r::LINKS_UP == 0 || links == u32::MAX {
        return 0;
    }
    match links >> r::LINKS_SPEED_SHIFT & 3 {
        3 => 10_000,
        2 => 1_000,
        1 => 100,
        // Reserved: up, at a speed that this driver has no name for.
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_read_from_links() {
        assert_eq!(speed_mbps(0x7000_0000), 10_000);
        assert_eq!(speed_mbps(0x6000_0000), 1_000);
        assert_eq!(speed_mbps(0x3000_0000), 0);
        assert_eq!(speed_mbps(u32::MAX), 0, "a device that is gone has no link");
    }
}
