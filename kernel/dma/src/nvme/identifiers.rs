//! Command identifiers (base specification 2.0, 3.3.3.1, command identifier).
//!
//! An identifier is a slot and how often the slot was used before, modulo 256: a completion that comes late, twice or by mistake then names
//! an identifier that isn't in use, and is dropped. A slot whose command was aborted may get two completions, and is not used again before
//! the queue is made anew.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Slots at most.
pub const SLOT_LIMIT: usize = 255;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Used,
    /// Used, and not to be used again.
    Retiring,
    Retired,
}

#[derive(Clone, Copy)]
struct Slot {
    state: State,
    uses: u8,
}

/// The slots of a queue.
pub struct Identifiers {
    slots: Box<[Slot]>,
    free: Vec<u8>,
}

impl Identifiers {
    /// As many slots, at most [`SLOT_LIMIT`], all free.
    pub fn new(slots: usize) -> Identifiers {
        let slots = slots.min(SLOT_LIMIT);
        let free = Slot {
            state: State::Free,
            uses: 0,
        };
        let mut identifiers = Identifiers {
            slots: alloc::vec![free; slots].into_boxed_slice(),
            free: Vec::with_capacity(slots),
        };
        identifiers.reset();
        identifiers
    }

    /// Every slot is free again; identifiers used before stay unknown for as long as the counts allow.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            slot.state = State::Free;
        }
        self.free.clear();
        // The first slots are taken first.
        self.free
            .extend((0..self.slots.len()).rev().map(|slot| slot as u8));
    }

    /// Slots that are neither in use nor retired.
    #[inline(always)]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Takes a slot.
    #[inline(always)]
    pub fn take(&mut self) -> Option<u8> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.state = State::Used;
        slot.uses = slot.uses.wrapping_add(1);
        Some(index)
    }

    /// The identifier of a slot that is in use.
    #[inline(always)]
    pub fn identifier(&self, index: u8) -> Option<u16> {
        let slot = self.slots.get(usize::from(index))?;
        matches!(slot.state, State::Used | State::Retiring).then(|| u16::from_le_bytes([index, slot.uses]))
    }

    /// The slot that an identifier names, if it is in use under it.
    #[inline(always)]
    pub fn slot(&self, identifier: u16) -> Option<u8> {
        let [index, _] = identifier.to_le_bytes();
        (self.identifier(index) == Some(identifier)).then_some(index)
    }

    /// A slot's command is done.
    #[inline(always)]
    pub fn release(&mut self, index: u8) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return;
        };
        match slot.state {
            State::Used => {
                slot.state = State::Free;
                // Each slot is in the list once, which has room for all.
                self.free.push(index);
            }
            State::Retiring => slot.state = State::Retired,
            State::Free | State::Retired => {}
        }
    }

    /// A slot in use is not used again after this.
    pub fn retire(&mut self, index: u8) {
        if let Some(slot) = self.slots.get_mut(usize::from(index))
            && slot.state == State::Used
        {
            slot.state = State::Retiring;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_identifier_is_known_while_it_is_in_use_and_not_again_soon() {
        let mut identifiers = Identifiers::new(2);
        let slot = identifiers.take().unwrap();
        let old = identifiers.identifier(slot).unwrap();
        assert_eq!(identifiers.slot(old), Some(slot));
        identifiers.release(slot);
        assert_eq!(identifiers.slot(old), None);
        for _ in 0..255 {
            assert_eq!(identifiers.take(), Some(slot));
            assert_eq!(identifiers.slot(old), None, "a late completion is for nobody");
            identifiers.release(slot);
        }
    }

    #[test]
    fn a_retired_slot_comes_back_with_the_next_queue_only() {
        let mut identifiers = Identifiers::new(1);
        let slot = identifiers.take().unwrap();
        identifiers.retire(slot);
        let identifier = identifiers.identifier(slot).unwrap();
        assert_eq!(identifiers.slot(identifier), Some(slot), "its completion counts");
        identifiers.release(slot);
        assert_eq!(identifiers.slot(identifier), None, "a second one doesn't");
        assert_eq!(identifiers.take(), None);
        identifiers.reset();
        assert_eq!(identifiers.take(), Some(slot));
    }

    proptest! {
        /// No two commands under way share an identifier, whatever completions a device makes up.
        #[test]
        fn identifiers_in_use_are_distinct(steps in prop::collection::vec((0u8..4, any::<u16>()), 1..400)) {
            let mut identifiers = Identifiers::new(5);
            let mut used: Vec<u16> = Vec::new();
            for (step, number) in steps {
                match step {
                    0 | 1 => if let Some(slot) = identifiers.take() {
                        let identifier = identifiers.identifier(slot).unwrap();
                        prop_assert!(!used.contains(&identifier));
                        prop_assert!(used.iter().all(|other| other.to_le_bytes()[0] != slot));
                        used.push(identifier);
                    },
                    2 => if !used.is_empty() {
                        let identifier = used.swap_remove(usize::from(number) % used.len());
                        let slot = identifiers.slot(identifier).unwrap();
                        if number & 1 == 0 {
                            identifiers.retire(slot);
                        }
                        identifiers.release(slot);
                    },
                    _ => prop_assert_eq!(identifiers.slot(number).is_some(), used.contains(&number)),
                }
            }
        }
    }
}
