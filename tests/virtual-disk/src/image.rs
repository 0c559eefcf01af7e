//! What a medium holds: a map of the logical blocks that were written. Copies share them, so a snapshot costs little.

use std::collections::HashMap;
use std::sync::Arc;

/// The content of a medium; blocks that were never written read as zeros.
#[derive(Clone, Debug)]
pub struct Image {
    block_bytes: usize,
    blocks: HashMap<u64, Arc<[u8]>>,
}

impl Image {
    /// All zeros.
    pub fn new(block_bytes: usize) -> Image {
        Image {
            block_bytes,
            blocks: HashMap::new(),
        }
    }

    /// Bytes in a logical block.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// One logical block; `None` if it reads as zeros because it was never written, or discarded.
    pub fn block(&self, block: u64) -> Option<&[u8]> {
        self.blocks.get(&block).map(AsRef::as_ref)
    }

    /// Reads logical blocks from `first` on, as many as `bytes` has room for.
    pub fn read(&self, first: u64, bytes: &mut [u8]) {
        for (block, target) in (first..).zip(bytes.chunks_mut(self.block_bytes)) {
            match self.blocks.get(&block) {
                Some(source) => target.copy_from_slice(&source[..target.len()]),
                None => target.fill(0),
            }
        }
    }

    /// Writes logical blocks from `first` on.
    pub fn write(&mut self, first: u64, bytes: &[u8]) {
        for (block, source) in (first..).zip(bytes.chunks(self.block_bytes)) {
            self.blocks.insert(block, source.into());
        }
    }

    /// Makes logical blocks read as zeros.
    pub fn discard(&mut self, first: u64, count: u64) {
        if count as usize > self.blocks.len() {
            self.blocks
                .retain(|block, _| !(first..first + count).contains(block));
        } else {
            for block in first..first + count {
                self.blocks.remove(&block);
            }
        }
    }

    /// Logical blocks that were written and not discarded since, in order.
    pub fn written(&self) -> Vec<u64> {
        let mut written: Vec<u64> = self.blocks.keys().copied().collect();
        written.sort_unstable();
        written
    }
}

/// Same content; a block of zeros is as good as none.
impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        let covers = |a: &Image, b: &Image| {
            a.blocks.iter().all(|(block, bytes)| match b.blocks.get(block) {
                Some(other) => Arc::ptr_eq(bytes, other) || bytes == other,
                None => bytes.iter().all(|byte| *byte == 0),
            })
        };
        self.block_bytes == other.block_bytes && covers(self, other) && covers(other, self)
    }
}

impl Eq for Image {}
