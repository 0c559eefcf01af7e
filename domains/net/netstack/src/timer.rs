//! When connections want to be looked at again.
//!
//! Deadlines move with nearly every packet, mostly to later. So an entry stays where it is when its deadline moves to later, and
//! says "look again" when it comes up; only a deadline that moves to earlier makes a new entry. A busy connection then costs an
//! entry for each delayed acknowledgement's time, not for each packet.

use crate::table::Ticket;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// Deadlines by time.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Timers {
    /// Has `ticket` come up at `deadline_ns`; `scheduled_ns` is the connection's own note of its earliest entry.
    #[inline]
    pub fn schedule(&mut self, ticket: Ticket, scheduled_ns: &mut u64, deadline_ns: u64) {
        if deadline_ns < *scheduled_ns {
            *scheduled_ns = deadline_ns;
            self.heap
                .push(Reverse((deadline_ns, ticket.index, ticket.serial)));
        }
    }

    /// The next ticket that has come up by `now_ns`, with its entry's time; entries that are no longer a connection's earliest are
    /// the caller's to ignore.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<(Ticket, u64)> {
        let Reverse((deadline_ns, index, serial)) = *self.heap.peek()?;
        if deadline_ns > now_ns {
            return None;
        }
        self.heap.pop();
        Some((Ticket { index, serial }, deadline_ns))
    }

    /// When the next entry comes up; `u64::MAX` for never.
    pub fn next_ns(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse((at, _, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_to_later_makes_no_entry() {
        let mut timers = Timers::default();
        let ticket = Ticket { index: 4, serial: 2 };
        let mut scheduled = u64::MAX;
        timers.schedule(ticket, &mut scheduled, 100);
        timers.schedule(ticket, &mut scheduled, 200);
        assert_eq!(timers.heap.len(), 1);
        timers.schedule(ticket, &mut scheduled, 50);
        assert_eq!((scheduled, timers.next_ns()), (50, 50));
        assert_eq!(timers.pop_due(49), None);
        assert_eq!(timers.pop_due(60), Some((ticket, 50)));
        assert_eq!(timers.pop_due(60), None);
        assert_eq!(timers.pop_due(100), Some((ticket, 100)));
        assert_eq!(timers.next_ns(), u64::MAX);
    }
}
