//! The values of all registers, with plain accesses, resets and counters that stick (datasheet 8.2.2, 8.2.3.23).
//!
//! Side effects are `device.rs`'s; what exists is `register_map.rs`'s.

use crate::register_map::{Access, BLOCKS, Block};
use crate::registers::WINDOW_LENGTH;

const WORDS: usize = (WINDOW_LENGTH / 4) as usize;
/// Index of a word that belongs to no register.
const UNDEFINED: u16 = u16::MAX;

/// A register's name, offset and value, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NamedRegister {
    /// The datasheet's name, with the index of an array's element.
    pub name: String,
    /// Offset in BAR 0.
    pub offset: u32,
    /// Current value.
    pub value: u32,
}

/// What a plain write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The writable bits were stored, or a side effect decides.
    Stored,
    /// The register ignores writes.
    Ignored,
    /// There is no such register.
    Undefined,
}

/// Register values by offset.
pub struct RegisterFile {
    words: Vec<u32>,
    /// For each word the index of its block, or `UNDEFINED`.
    blocks: Vec<u16>,
}

impl RegisterFile {
    /// All registers at their reset values.
    pub fn new() -> Self {
        let mut blocks = vec![UNDEFINED; WORDS];
        let mut words = vec![0; WORDS];
        for (index, block) in BLOCKS.iter().enumerate() {
            for at in offsets(block) {
                if let (Some(slot), Some(word)) = (blocks.get_mut(at), words.get_mut(at)) {
                    *slot = index as u16;
                    *word = block.reset;
                }
            }
        }
        Self { words, blocks }
    }

    /// Every register goes back to its reset value, except memories, which a software reset leaves alone.
    pub fn reset(&mut self) {
        for (word, index) in self.words.iter_mut().zip(&self.blocks) {
            match BLOCKS.get(usize::from(*index)) {
                Some(block) if !block.survives => *word = block.reset,
                _ => {}
            }
        }
    }

    /// Value of the register at a (canonical) offset, without side effects; zero where there is none.
    pub fn get(&self, offset: u32) -> u32 {
        self.words.get((offset / 4) as usize).copied().unwrap_or(0)
    }

    /// Sets a register as hardware does: regardless of what software may write.
    pub fn set(&mut self, offset: u32, value: u32) {
        if let Some(word) = self.words.get_mut((offset / 4) as usize) {
            *word = value;
        }
    }

    /// Sets and clears bits as hardware does.
    pub fn update(&mut self, offset: u32, clear: u32, set: u32) {
        self.set(offset, self.get(offset) & !clear | set);
    }

    /// Whether all of `bits` are set.
    pub fn has(&self, offset: u32, bits: u32) -> bool {
        self.get(offset) & bits == bits
    }

    /// A software read: clears counters, gives zero for write-only registers, `None` where there is no register.
    pub fn read(&mut self, offset: u32) -> Option<u32> {
        let block = self.block(offset)?;
        let value = self.get(offset);
        match block.access {
            Access::ReadWrite | Access::ReadOnly => Some(value),
            Access::WriteOnly => Some(0),
            Access::ReadClear => {
                self.set(offset, 0);
                Some(value)
            }
        }
    }

    /// A software write.
    pub fn write(&mut self, offset: u32, value: u32) -> Written {
        let Some(block) = self.block(offset) else {
            return Written::Undefined;
        };
        match block.access {
            Access::ReadWrite => {
                self.set(
                    offset,
                    self.get(offset) & !block.writable | value & block.writable,
                );
                Written::Stored
            }
            Access::WriteOnly => Written::Stored,
            Access::ReadOnly | Access::ReadClear => Written::Ignored,
        }
    }

    /// Adds to a 32-bit counter, which stops at its maximum.
    pub fn count(&mut self, offset: u32, amount: u32) {
        self.set(offset, self.get(offset).saturating_add(amount));
    }

    /// Adds to a 36-bit counter whose upper four bits are in the next register; it stops at its maximum.
    pub fn count_wide(&mut self, low: u32, amount: u64) {
        const MAXIMUM: u64 = (1 << 36) - 1;
        let value = u64::from(self.get(low)) | u64::from(self.get(low + 4)) << 32;
        let value = value.saturating_add(amount).min(MAXIMUM);
        self.set(low, value as u32);
        self.set(low + 4, (value >> 32) as u32);
    }

    /// Every register whose name starts with `prefix`, by offset.
    pub fn named(&self, prefix: &str) -> Vec<NamedRegister> {
        let mut list: Vec<_> = BLOCKS
            .iter()
            .filter(|block| block.name.starts_with(prefix))
            .flat_map(|block| {
                (0..block.count).map(move |i| {
                    let offset = block.base + i * block.stride;
                    let name = if block.count == 1 {
                        block.name.to_owned()
                    } else {
                        format!("{}[{i}]", block.name)
                    };
                    (name, offset)
                })
            })
            .map(|(name, offset)| NamedRegister {
                name,
                offset,
                value: self.get(offset),
            })
            .collect();
        list.sort_by_key(|register| register.offset);
        list
    }

    fn block(&self, offset: u32) -> Option<&'static Block> {
        let index = self.blocks.get((offset / 4) as usize)?;
        BLOCKS.get(usize::from(*index))
    }
}

impl Default for RegisterFile {
    fn default() -> Self {
        Self::new()
    }
}

/// Word indexes of a block's registers.
fn offsets(block: &Block) -> impl Iterator<Item = usize> {
    let (base, stride) = (block.base, block.stride);
    (0..block.count).map(move |i| ((base + i * stride) / 4) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers as r;

    #[test]
    fn every_block_lies_in_the_window() {
        for block in BLOCKS {
            assert!(
                block.base + (block.count - 1) * block.stride < WINDOW_LENGTH,
                "{}",
                block.name
            );
            assert_eq!(block.base % 4, 0, "{}", block.name);
            let aliased = block.count == 1 && r::canonical(block.base) != block.base;
            assert!(!aliased, "{} is listed at its alias", block.name);
        }
    }

    #[test]
    fn counters_clear_on_read_and_stick() {
        let mut file = RegisterFile::new();
        file.count(r::GPRC, 5);
        assert_eq!(file.read(r::GPRC), Some(5));
        assert_eq!(file.read(r::GPRC), Some(0));
        file.count(r::GPRC, u32::MAX);
        file.count(r::GPRC, 9);
        assert_eq!(file.read(r::GPRC), Some(u32::MAX));
        assert_eq!(file.write(r::GPRC, 3), Written::Ignored);

        file.count_wide(r::GORCL, 0xF_FFFF_FFF0);
        file.count_wide(r::GORCL, 0x20);
        assert_eq!(
            (file.read(r::GORCL), file.read(r::GORCL + 4)),
            (Some(u32::MAX), Some(0xF))
        );
    }

    #[test]
    fn reset_spares_memories_only() {
        let mut file = RegisterFile::new();
        file.write(r::MTA, 0x55);
        file.write(r::RXCTRL, 1);
        file.reset();
        assert_eq!((file.get(r::MTA), file.get(r::RXCTRL)), (0x55, 0));
        assert_eq!(file.get(r::MAXFRS), 0x05EE_0000);
    }

    #[test]
    fn read_only_bits_keep_their_value() {
        let mut file = RegisterFile::new();
        assert_eq!(file.write(r::LINKS, u32::MAX), Written::Ignored);
        file.write(r::RDRXCTL, 0);
        assert!(file.has(r::RDRXCTL, r::RDRXCTL_DMA_INIT_DONE));
        file.write(r::receive(3, r::RDBAL), u32::MAX);
        assert_eq!(file.get(r::receive(3, r::RDBAL)), 0xFFFF_FF80);
        assert_eq!(file.write(0x1FFFC, 1), Written::Undefined);
        assert_eq!(file.read(0x1FFFC), None);
    }

    #[test]
    fn aliases_lead_to_one_register() {
        assert_eq!(r::canonical(0x5400), r::RAL);
        assert_eq!(r::canonical(0x2104), r::receive(1, r::SRRCTL));
        assert_eq!(r::canonical(0x6074), r::QBTC + 8);
        assert_eq!(r::canonical(0x6030), r::QPTC);
    }
}
