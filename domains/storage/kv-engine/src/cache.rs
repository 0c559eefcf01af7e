//! Records that were read from the disk, so that reading them again needs none: a bounded number of bytes, the clock algorithm.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Bytes that an entry costs besides its own.
const OVERHEAD_BYTES: usize = 96;

struct Entry {
    bytes: Vec<u8>,
    used: bool,
}

/// The records by a name that is never given to another.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<u64, Entry, fnv::FnvBuildHasher>,
    order: VecDeque<u64>,
    bytes: usize,
    limit_bytes: usize,
}

impl Cache {
    /// Of this size at most, overhead included.
    pub fn new(limit_bytes: usize) -> Cache {
        Cache {
            limit_bytes,
            ..Cache::default()
        }
    }

    /// The record of this name.
    pub fn get(&mut self, name: u64) -> Option<&[u8]> {
        let entry = self.entries.get_mut(&name)?;
        entry.used = true;
        Some(&entry.bytes)
    }

    /// Keeps a record, in place of others that weren't used lately.
    pub fn insert(&mut self, name: u64, bytes: &[u8]) {
        let cost = bytes.len() + OVERHEAD_BYTES;
        // One large record isn't worth many small ones.
        if cost > self.limit_bytes / 16 || self.entries.contains_key(&name) {
            return;
        }
        while self.bytes + cost > self.limit_bytes {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    if let Some(entry) = self.entries.remove(&oldest) {
                        self.bytes -= entry.bytes.len() + OVERHEAD_BYTES;
                    }
                }
            }
        }
        self.bytes += cost;
        self.order.push_back(name);
        let bytes = bytes.to_vec();
        self.entries.insert(name, Entry { bytes, used: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_within_its_bytes() {
        let mut cache = Cache::new(20 * (100 + OVERHEAD_BYTES));
        for name in 0..1000 {
            cache.insert(name, &[name as u8; 100]);
            assert!(cache.bytes <= cache.limit_bytes);
            if name % 5 == 0 {
                assert_eq!(cache.get(0), Some(&[0; 100][..]), "after {name}");
            }
        }
        assert_eq!(cache.entries.len(), 20);
        assert_eq!(cache.order.len(), 20);
        assert_eq!(cache.get(999), Some(&[999_u32 as u8; 100][..]));
        assert_eq!(cache.get(500), None);
    }
}
