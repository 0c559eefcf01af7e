//! State of the link: cable, training, and how the registers show it (datasheet 3.7.4, 8.2.3.22.23 "LINKS").

use crate::register_file::RegisterFile;
use crate::registers as r;

/// The link of a 10GBASE-SR port.
pub struct Link {
    /// Light arrives: the cable is plugged in and the partner is on.
    cable: bool,
    up: bool,
    trained_at_ns: u64,
    training_ns: u64,
    changes: u64,
}

impl Link {
    /// A link that is up, and takes `training_ns` to come up again after it was restarted.
    pub fn new(training_ns: u64) -> Self {
        Self {
            cable: true,
            up: true,
            trained_at_ns: 0,
            training_ns,
            changes: 0,
        }
    }

    /// Whether frames pass.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// How often the link came up or went down.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Plugs the cable in or pulls it.
    pub fn set_cable(&mut self, plugged: bool, now_ns: u64) {
        if plugged && !self.cable {
            self.restart(now_ns);
        }
        self.cable = plugged;
    }

    /// Link reset or a restart of the negotiation: the link goes down and trains anew.
    pub fn restart(&mut self, now_ns: u64) {
        self.up = false;
        self.trained_at_ns = now_ns + self.training_ns;
    }

    /// When training ends, if it goes on.
    pub fn next_due_ns(&self) -> Option<u64> {
        (self.cable && !self.up).then_some(self.trained_at_ns)
    }

    /// Brings the registers up to date; true when the link's state has changed since they last were.
    pub fn update(&mut self, registers: &mut RegisterFile, now_ns: u64) -> bool {
        self.up = self.cable && now_ns >= self.trained_at_ns;
        let shown = registers.has(r::LINKS, r::LINKS_UP);
        let changed = shown != self.up;
        if changed {
            self.changes += 1;
            self.show(registers);
        }
        changed
    }

    /// Writes the link's state into the registers.
    pub fn show(&self, registers: &mut RegisterFile) {
        if self.up {
            registers.update(r::LINKS, 0, r::LINKS_UP | r::LINKS_SPEED_10G | r::LINKS_KX_SIGNAL);
            registers.update(r::STATUS, 0, r::STATUS_LINK_UP);
        } else {
            registers.set(r::LINKS, 0);
            registers.update(r::STATUS, r::STATUS_LINK_UP, 0);
        }
    }
}
