//! Things that one domain has at a time, and which one has them: devices, whatever number of manifest entries mean the same one.

use abi::OwnerId;
use alloc::vec::Vec;

/// Who has what. Things are known by a number of the caller's choice, such as an address.
#[derive(Default)]
pub struct Register {
    held: Vec<(usize, OwnerId)>,
}

impl Register {
    /// Nobody has anything.
    pub const fn new() -> Register {
        Register { held: Vec::new() }
    }

    /// Gives a thing to `owner`.
    ///
    /// # Errors
    /// Who has it already, which may be `owner` itself.
    pub fn take(&mut self, thing: usize, owner: OwnerId) -> Result<(), OwnerId> {
        match self.held.iter().find(|(held, _)| *held == thing) {
            Some(&(_, holder)) => Err(holder),
            None => {
                self.held.push((thing, owner));
                Ok(())
            }
        }
    }

    /// Nobody has it any more.
    pub fn give_back(&mut self, thing: usize) {
        self.held.retain(|(held, _)| *held != thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    #[test]
    fn the_second_is_told_who_was_first() {
        let mut register = Register::new();
        let (first, second) = (OwnerId::new(3, 1), OwnerId::new(4, 1));
        assert_eq!(register.take(0x1000, first), Ok(()));
        assert_eq!(register.take(0x1000, second), Err(first));
        assert_eq!(register.take(0x1000, first), Err(first));
        assert_eq!(register.take(0x2000, second), Ok(()));
        register.give_back(0x1000);
        assert_eq!(register.take(0x1000, second), Ok(()));
    }

    proptest! {
        /// Whatever is taken and given back: a thing has one holder at most, and is free when that one has given it back.
        #[test]
        fn has_one_holder(steps: Vec<(u8, u16, bool)>) {
            let (mut register, mut model) = (Register::new(), BTreeMap::new());
            for (thing, slot, takes) in steps {
                let (thing, owner) = (usize::from(thing % 8), OwnerId::new(slot % 4 + 1, 1));
                if takes {
                    let expected = model.get(&thing).map_or(Ok(()), |holder| Err(*holder));
                    prop_assert_eq!(register.take(thing, owner), expected);
                    model.entry(thing).or_insert(owner);
                } else {
                    register.give_back(thing);
                    model.remove(&thing);
                }
            }
        }
    }
}
