//! What goes wrong, and how often. A disk's own report of a failure is told from silent damage: the first is in the interface, the second
//! is what checksums are for.

use fastrand::Rng;

/// How often something happens: once in so many requests, never for 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneIn(pub u32);

impl OneIn {
    /// Always.
    pub const ALWAYS: OneIn = OneIn(1);

    pub(crate) fn happens(self, random: &mut Rng) -> bool {
        self.0 != 0 && random.u32(0..self.0) == 0
    }
}

/// Faults by chance. All are off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A write reaches some of its logical blocks only, and is answered as done.
    pub torn: OneIn,
    /// A write reaches nothing, and is answered as done.
    pub lost: OneIn,
    /// A write goes to another place, and is answered as done.
    pub misdirected: OneIn,
    /// A bit of what is written changes on the way.
    pub corrupted_write: OneIn,
    /// A bit of what is read changes on the way; the next read is right again.
    pub corrupted_read: OneIn,
    /// A read fails with [`rref::block::Fault::Unreadable`].
    pub failed_read: OneIn,
    /// A write fails with [`rref::block::Fault::WriteFault`]; it may have reached some of its logical blocks.
    pub failed_write: OneIn,
    /// A flush fails with [`rref::block::Fault::Internal`].
    pub failed_flush: OneIn,
    /// A request is carried out and answered only after further calls, [`Faults::slow_turns`] at most, so behind others.
    pub slow: OneIn,
    /// Calls that a slow request takes at most.
    pub slow_turns: u32,
    /// Requests of one call are carried out and answered in any order. Allowed by the interface.
    pub reordered: bool,
    /// At most so many requests under way in a queue, below the geometry's depth; 0 for no such limit.
    pub shallow: u16,
}

impl Faults {
    /// What the interface allows: any order, late answers, little room.
    pub fn adverse() -> Faults {
        Faults {
            slow: OneIn(3),
            slow_turns: 4,
            reordered: true,
            shallow: 5,
            ..Faults::default()
        }
    }
}
