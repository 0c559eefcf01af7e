//! Instructions by block: where the guest spends them.
//!
//! A block is known by the virtual address of its first instruction. Each address gets a counter when it is translated first
//! and keeps it; code that is loaded to the same address later is counted there too. Which function an address belongs to is
//! for the reader to find out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::api::{self, Entry, Scoreboard};

/// Addresses that have a counter of their own; those beyond share the first, which has the address 0.
const COUNTERS: usize = 1 << 17;

/// A counter for each block.
pub struct Profile {
    scoreboard: *mut Scoreboard,
    indices: Mutex<HashMap<u64, usize>>,
}

impl Profile {
    pub fn new() -> Self {
        Self {
            // SAFETY: allocates; the size is that of `COUNTERS` members, each a u64.
            scoreboard: unsafe { api::qemu_plugin_scoreboard_new(COUNTERS * size_of::<u64>()) },
            indices: Mutex::new(HashMap::from([(0, 0)])),
        }
    }

    fn entry(&self, index: usize) -> Entry {
        Entry {
            scoreboard: self.scoreboard,
            offset: index * size_of::<u64>(),
        }
    }

    /// The counter of the block at this address.
    pub fn entry_of(&self, address: u64) -> Entry {
        let mut indices = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        let next = indices.len();
        let index = match indices.get(&address) {
            Some(&index) => index,
            None if next < COUNTERS => {
                indices.insert(address, next);
                next
            }
            None => 0,
        };
        self.entry(index)
    }

    /// Each address with its count over `cpus` CPUs, all of which QEMU has made room for.
    pub fn read(&self, cpus: u32) -> Vec<(u64, u64)> {
        let indices = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |index| {
            (0..cpus)
                .map(|cpu| {
                    // SAFETY: the scoreboard is never freed and every CPU has its element (the caller's word); `index` is
                    // below `COUNTERS`, so the member is in it.
                    unsafe { api::qemu_plugin_u64_get(self.entry(index), cpu) }
                })
                .sum()
        };
        indices
            .iter()
            .map(|(&address, &index)| (address, count(index)))
            .collect()
    }
}
