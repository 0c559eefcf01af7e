//! The input: keys of eight bytes, and the order in which they are looked up.

use anyhow::{Context as _, Result};
use kv_engine::key_hash::Secret;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Lookups of a pass at most: more than any cache holds, and no more than there are keys.
const LOOKUPS: usize = 1 << 20;

/// A table's keys.
pub struct Workload {
    /// What hashes begin with.
    pub secret: Secret,
    /// Slots of the table.
    pub slots: usize,
    /// Keys in it: three quarters of the slots.
    pub keys: Vec<[u8; 8]>,
    /// Those that are looked up, in order.
    pub lookups: Vec<[u8; 8]>,
}

impl Workload {
    /// For a table of so many slots, a power of two.
    pub fn new(slots: usize) -> Workload {
        let mut random = fastrand::Rng::with_seed(slots as u64);
        let secret = Secret {
            high: random.u64(..),
            low: random.u64(..),
        };
        // Distinct, as the product of a counter and an odd number is.
        let keys: Vec<[u8; 8]> = (0..(slots / 4 * 3) as u64)
            .map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        random.shuffle(&mut order);
        order.truncate(LOOKUPS);
        let lookups = order.into_iter().map(|index| keys[index]).collect();
        Workload {
            secret,
            slots,
            keys,
            lookups,
        }
    }

    /// Writes it for the C program.
    pub fn write_setup(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            let numbers = [
                self.secret.high,
                self.secret.low,
                self.slots as u64,
                self.keys.len() as u64,
                self.lookups.len() as u64,
            ];
            for number in numbers {
                file.write_all(&number.to_le_bytes())?;
            }
            for key in self.keys.iter().chain(&self.lookups) {
                file.write_all(key)?;
            }
            file.flush()
        };
        write().context("cannot write the C program's setup")
    }
}
