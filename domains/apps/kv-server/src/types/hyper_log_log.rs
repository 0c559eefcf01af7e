//! HyperLogLog: how many distinct things there were, to within a percent, in 12 KiB whatever their number.
//!
//! The bytes are those of Redis (hyperloglog.c), so that such a string can be moved there and back: `HYLL`, the encoding, a number that was
//! counted before, then 16,384 registers of 6 bits, or while most are 0 their runs. The estimate is that of O. Ertl, "New cardinality estimation algorithms for
//! HyperLogLog sketches" (2017).

use crate::value::Malformed;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Registers.
const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of a hash that choose the register.
const INDEX_BITS: u32 = 14;
/// Bits of it whose zeros are counted.
const RUN_BITS: usize = 50;
const HEADER_BYTES: usize = 16;
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * 6 / 8;
/// Runs are written up to this length.
const SPARSE_LIMIT_BYTES: usize = 3000;
/// Greatest value that a run can have.
const SPARSE_LIMIT: u8 = 32;
/// The last byte of the number counted before, in a string whose number must be counted again.
const STALE: u8 = 0x80;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HyperLogLog {
    registers: Box<[u8; REGISTERS]>,
}

/// Why a string is no HyperLogLog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It doesn't begin as one does.
    Header,
    /// Its runs aren't 16,384 registers.
    Runs,
}

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Broken::Runs
    }
}

impl Default for HyperLogLog {
    fn default() -> Self {
        HyperLogLog {
            registers: Box::new([0; REGISTERS]),
        }
    }
}

impl HyperLogLog {
    /// Reads one.
    ///
    /// # Errors
    /// When the string is none.
    pub fn read(bytes: &[u8]) -> Result<HyperLogLog, Broken> {
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(Broken::Header)?;
        let mut new = HyperLogLog::default();
        match header {
            [b'H', b'Y', b'L', b'L', 0, ..] if bytes.len() == DENSE_BYTES => new.read_dense(body),
            [b'H', b'Y', b'L', b'L', 1, ..] => new.read_sparse(body)?,
            _ => return Err(Broken::Header),
        }
        Ok(new)
    }

    fn read_dense(&mut self, body: &[u8]) {
        for (four, [first, second, third]) in self.registers.chunks_exact_mut(4).zip(body.as_chunks().0) {
            let bits = u32::from_le_bytes([*first, *second, *third, 0]);
            for (place, register) in four.iter_mut().enumerate() {
                *register = (bits >> (6 * place) & 0x3f) as u8;
            }
        }
    }

    fn read_sparse(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut at = 0;
        let mut bytes = body.iter().copied();
        while let Some(first) = bytes.next() {
            let (length, value) = match first {
                0..0x40 => (usize::from(first) + 1, 0),
                0x40..0x80 => {
                    let low = bytes.next().ok_or(Malformed)?;
                    ((usize::from(first & 0x3f) << 8 | usize::from(low)) + 1, 0)
                }
                _ => (usize::from(first & 3) + 1, (first >> 2 & 0x1f) + 1),
            };
            let run = self.registers.get_mut(at..at + length).ok_or(Malformed)?;
            run.fill(value);
            at += length;
        }
        if at == REGISTERS { Ok(()) } else { Err(Malformed) }
    }

    /// As it is kept.
    pub fn write(&self) -> Vec<u8> {
        self.write_sparse().unwrap_or_else(|| self.write_dense())
    }

    fn header(encoding: u8) -> Vec<u8> {
        let mut out = Vec::with_capacity(DENSE_BYTES);
        out.extend_from_slice(b"HYLL");
        out.extend_from_slice(&[encoding, 0, 0, 0]);
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, STALE]);
        out
    }

    fn write_dense(&self) -> Vec<u8> {
        let mut out = Self::header(0);
        for four in self.registers.chunks_exact(4) {
            let bits = four
                .iter()
                .rev()
                .fold(0_u32, |bits, register| bits << 6 | u32::from(*register));
            out.extend(bits.to_le_bytes().into_iter().take(3));
        }
        out
    }

    /// Its runs, if they are short.
    fn write_sparse(&self) -> Option<Vec<u8>> {
        let mut out = Self::header(1);
        for run in self.registers.chunk_by(|one, other| one == other) {
            let value = run.first().copied().unwrap_or_default();
            if value > SPARSE_LIMIT {
                return None;
            }
            let mut left = run.len();
            while left > 0 {
                let length = match value {
                    0 => left,
                    _ => left.min(4),
                };
                match (value, length - 1) {
                    (0, short @ 0..0x40) => out.push(short as u8),
                    (0, long) => out.extend([0x40 | (long >> 8) as u8, (long & 0xff) as u8]),
                    (value, short) => out.push(0x80 | (value - 1) << 2 | short as u8),
                }
                left -= length;
            }
            if out.len() > SPARSE_LIMIT_BYTES {
                return None;
            }
        }
        Some(out)
    }

    /// Counts an element; whether it changed anything.
    pub fn add(&mut self, element: &[u8]) -> bool {
        let hash = murmur_hash(element);
        // The bit behind the last ends the zeros.
        let zeros = (hash >> INDEX_BITS | 1 << RUN_BITS).trailing_zeros() as u8;
        let place = (hash & (REGISTERS as u64 - 1)) as usize;
        match self.registers.get_mut(place) {
            Some(register) if *register < zeros + 1 => {
                *register = zeros + 1;
                true
            }
            _ => false,
        }
    }

    /// Counts what another counted too.
    pub fn merge(&mut self, other: &HyperLogLog) {
        for (own, other) in self.registers.iter_mut().zip(other.registers.iter()) {
            *own = (*own).max(*other);
        }
    }

    /// How many distinct elements there were, nearly.
    pub fn count(&self) -> u64 {
        let mut histogram = [0_u32; 64];
        for register in self.registers.iter() {
            if let Some(count) = histogram.get_mut(usize::from(*register)) {
                *count += 1;
            }
        }
        let of = |value: usize| f64::from(histogram.get(value).copied().unwrap_or_default());
        let registers = REGISTERS as f64;
        let mut sum = registers * tau((registers - of(RUN_BITS + 1)) / registers);
        for value in (1..=RUN_BITS).rev() {
            sum = (sum + of(value)) * 0.5;
        }
        sum += registers * sigma(of(0) / registers);
        let alpha = 0.5 / core::f64::consts::LN_2;
        libm::round(alpha * registers * registers / sum) as u64
    }
}

fn sigma(mut share: f64) -> f64 {
    if share == 1.0 {
        return f64::INFINITY;
    }
    let mut weight = 1.0;
    let mut sum = share;
    loop {
        share *= share;
        let before = sum;
        sum += share * weight;
        weight += weight;
        if before == sum {
            return sum;
        }
    }
}

fn tau(mut share: f64) -> f64 {
    if share == 0.0 || share == 1.0 {
        return 0.0;
    }
    let mut weight = 1.0;
    let mut sum = 1.0 - share;
    loop {
        share = libm::sqrt(share);
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - share) * (1.0 - share) * weight;
        if before == sum {
            return sum / 3.0;
        }
    }
}

/// MurmurHash64A, with Redis' seed.
fn murmur_hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xadc8_3b19;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        hash ^= (word ^ word >> 47).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(FACTOR);
    hash ^ hash >> 47
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_number_is_nearly_right() {
        let mut log = HyperLogLog::default();
        for number in 1..=100_000_u64 {
            log.add(&number.to_le_bytes());
            if matches!(number, 10 | 1000 | 100_000) {
                let share = log.count() as f64 / number as f64;
                assert!((0.97..1.03).contains(&share), "{number}: {}", log.count());
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_redis() {
        // What Redis 7.0 keeps after PFADD of "a", "b" and "c".
        let redis = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80`\xf3\x80P\xb1\x84K\xfb\x80BZ";
        let mut log = HyperLogLog::default();
        for element in [b"a", b"b", b"c"] {
            assert!(log.add(element));
        }
        assert_eq!(log.write(), redis);
        assert_eq!(log.count(), 3);
    }

    proptest! {
        #[test]
        fn both_encodings_come_back(elements in prop::collection::vec(any::<u64>(), 0..3000)) {
            let mut log = HyperLogLog::default();
            for element in &elements {
                log.add(&element.to_le_bytes());
            }
            prop_assert_eq!(HyperLogLog::read(&log.write_dense()), Ok(log.clone()));
            prop_assert_eq!(HyperLogLog::read(&log.write()), Ok(log));
        }

        #[test]
        fn any_bytes_are_read_or_refused(encoding in 0_u8..2, body: Vec<u8>) {
            let mut bytes = HyperLogLog::header(encoding);
            bytes.extend(body);
            let _ = HyperLogLog::read(&bytes);
        }
    }
}
