//! The frame allocator: a binary buddy system whose state is a bitmap for each order.
//!
//! It knows frames by number only (physical address / 4096) and never touches them, so its storage is a plain
//! slice of words that the caller sets aside. Runs need not be powers of two: what a block has over is given
//! back at once, so the number of free frames is exact. Freeing merges with free buddies. A double free is
//! detected and refused.

use core::fmt;

/// The largest block is 2^MAX_ORDER frames (1 GiB).
pub const MAX_ORDER: usize = 18;
const ORDERS: usize = MAX_ORDER + 1;

/// Why frames couldn't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No run of this many frames with this alignment (both in frames) is free.
    OutOfMemory {
        /// How many frames were asked for.
        count: usize,
        /// The alignment that was asked for, in frames.
        align: usize,
    },
    /// The request is for nothing, for more than the largest block, or not aligned to a power of two.
    BadRequest,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { count, align } => {
                write!(f, "no run of {count} free frames aligned to {align}")
            }
            Self::BadRequest => f.write_str("impossible frame request"),
        }
    }
}

/// A free was refused: part of the run was free already or outside of the managed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFree;

/// One order's free blocks: a bit for each block, and above it a bit for each word that isn't zero.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Index of the first word of this order's bits in the storage.
    bits: usize,
    /// Index of the first word of the summary of these bits.
    summary: usize,
    summary_words: usize,
    /// No summary word before this one has a bit set.
    hint: usize,
    blocks: usize,
    free: usize,
}

/// Free frames of the range `base .. base + frames`.
pub struct FrameAllocator<'a> {
    words: &'a mut [u64],
    levels: [Level; ORDERS],
    base: usize,
    frames: usize,
    free: usize,
}

fn layout(frames: usize) -> ([Level; ORDERS], usize) {
    let mut levels = [Level::default(); ORDERS];
    let mut next = 0;
    for (order, level) in levels.iter_mut().enumerate() {
        let blocks = frames >> order;
        let bit_words = blocks.div_ceil(64);
        let summary_words = bit_words.div_ceil(64);
        *level = Level {
            bits: next,
            summary: next + bit_words,
            summary_words,
            hint: 0,
            blocks,
            free: 0,
        };
        next += bit_words + summary_words;
    }
    (levels, next)
}

impl<'a> FrameAllocator<'a> {
    /// How many words of storage a range of `frames` frames needs.
    pub fn words_needed(frames: usize) -> usize {
        layout(frames).1
    }

    /// An allocator for the frames `base .. base + frames`, none of which is free yet; [`free`](Self::free)
    /// adds them.
    ///
    /// `base` is rounded down to the largest block's alignment. `None` if `words` is shorter than
    /// [`words_needed`](Self::words_needed).
    pub fn new(base: usize, frames: usize, words: &'a mut [u64]) -> Option<Self> {
        let aligned = base & !((1 << MAX_ORDER) - 1);
        let frames = frames + (base - aligned);
        let (levels, needed) = layout(frames);
        if words.len() < needed {
            return None;
        }
        words.fill(0);
        Some(Self {
            words,
            levels,
            base: aligned,
            frames,
            free: 0,
        })
    }

    /// How many frames are free.
    pub fn free_frames(&self) -> usize {
        self.free
    }

    /// Takes `count` contiguous frames whose first number is a multiple of `align`; the number of the first
    /// one.
    pub fn allocate(&mut self, count: usize, align: usize) -> Result<usize, FrameError> {
        if count == 0 || !align.is_power_of_two() || count > 1 << MAX_ORDER || align > 1 << MAX_ORDER {
            return Err(FrameError::BadRequest);
        }
        let size = count.next_power_of_two().max(align);
        let order = size.trailing_zeros() as usize;
        let from = (order..ORDERS)
            .find(|&order| self.levels[order].free > 0)
            .ok_or(FrameError::OutOfMemory { count, align })?;
        let block = self
            .take_first(from)
            .ok_or(FrameError::OutOfMemory { count, align })?;
        let first = block << from;
        self.free -= 1 << from;
        self.release_range(first + count, first + (1 << from));
        Ok(self.base + first)
    }

    /// Gives back `count` frames from `first` on. They may be part of a run or several runs.
    pub fn free(&mut self, first: usize, count: usize) -> Result<(), BadFree> {
        let start = first.checked_sub(self.base).ok_or(BadFree)?;
        let end = start.checked_add(count).ok_or(BadFree)?;
        if end > self.frames || self.any_free(start, end) {
            return Err(BadFree);
        }
        self.release_range(start, end);
        Ok(())
    }

    /// Whether any frame of the run is free.
    fn any_free(&self, start: usize, end: usize) -> bool {
        (0..ORDERS).any(|order| {
            let level = &self.levels[order];
            if level.free == 0 || start >= end {
                return false;
            }
            let (low, high) = (start >> order, (((end - 1) >> order) + 1).min(level.blocks));
            (low / 64..high.div_ceil(64)).any(|index| {
                let mut word = self.words[level.bits + index];
                if index == low / 64 {
                    word &= !0 << (low % 64);
                }
                if index == high / 64 && !high.is_multiple_of(64) {
                    word &= (1 << (high % 64)) - 1;
                }
                word != 0
            })
        })
    }

    /// Frees `start .. end` (relative numbers, known not to be free) as the largest aligned blocks that fit.
    fn release_range(&mut self, mut start: usize, end: usize) {
        while start < end {
            let by_alignment = if start == 0 {
                MAX_ORDER
            } else {
                (start.trailing_zeros() as usize).min(MAX_ORDER)
            };
            let by_length = (end - start).ilog2() as usize;
            let order = by_alignment.min(by_length);
            self.release_block(start >> order, order);
            start += 1 << order;
        }
    }

    fn release_block(&mut self, mut block: usize, mut order: usize) {
        self.free += 1 << order;
        while order < MAX_ORDER && self.test(order, block ^ 1) {
            self.clear(order, block ^ 1);
            block >>= 1;
            order += 1;
        }
        self.set(order, block);
    }

    fn test(&self, order: usize, block: usize) -> bool {
        let level = &self.levels[order];
        block < level.blocks && self.words[level.bits + block / 64] >> (block % 64) & 1 == 1
    }

    fn set(&mut self, order: usize, block: usize) {
        let level = &mut self.levels[order];
        let word = block / 64;
        self.words[level.bits + word] |= 1 << (block % 64);
        self.words[level.summary + word / 64] |= 1 << (word % 64);
        level.hint = level.hint.min(word / 64);
        level.free += 1;
    }

    fn clear(&mut self, order: usize, block: usize) {
        let level = &mut self.levels[order];
        let word = block / 64;
        self.words[level.bits + word] &= !(1 << (block % 64));
        if self.words[level.bits + word] == 0 {
            self.words[level.summary + word / 64] &= !(1 << (word % 64));
        }
        level.free -= 1;
    }

    /// Takes the free block of this order that has the lowest number.
    fn take_first(&mut self, order: usize) -> Option<usize> {
        let level = self.levels[order];
        let summary =
            (level.hint..level.summary_words).find(|&index| self.words[level.summary + index] != 0)?;
        self.levels[order].hint = summary;
        let word = summary * 64 + self.words[level.summary + summary].trailing_zeros() as usize;
        let block = word * 64 + self.words[level.bits + word].trailing_zeros() as usize;
        self.clear(order, block);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, vec, vec::Vec};

    fn with_all_free(base: usize, frames: usize, test: impl FnOnce(&mut FrameAllocator<'_>)) {
        let aligned = base & !((1 << MAX_ORDER) - 1);
        let mut words = vec![0; FrameAllocator::words_needed(frames + base - aligned)];
        let mut allocator = FrameAllocator::new(base, frames, &mut words).expect("enough storage");
        allocator.free(base, frames).expect("nothing is free yet");
        test(&mut allocator);
    }

    #[test]
    fn a_run_keeps_only_what_was_asked_for() {
        with_all_free(0, 1000, |frames| {
            let first = frames.allocate(5, 1).expect("room");
            assert_eq!(frames.free_frames(), 995);
            assert_eq!(frames.free(first, 5), Ok(()));
            assert_eq!(frames.free_frames(), 1000);
        });
    }

    #[test]
    fn a_double_free_is_refused_and_changes_nothing() {
        with_all_free(256, 512, |frames| {
            let first = frames.allocate(4, 4).expect("room");
            assert_eq!(frames.free(first, 4), Ok(()));
            assert_eq!(frames.free(first + 1, 1), Err(BadFree));
            assert_eq!(frames.free(256 + 512, 1), Err(BadFree));
            assert_eq!(frames.free_frames(), 512);
        });
    }

    #[test]
    fn the_whole_range_can_be_had_as_one_run_after_everything_was_freed() {
        with_all_free(0, 1 << 12, |frames| {
            let singles: Vec<_> = (0..1 << 12)
                .map(|_| frames.allocate(1, 1).expect("room"))
                .collect();
            assert_eq!(
                frames.allocate(1, 1),
                Err(FrameError::OutOfMemory { count: 1, align: 1 })
            );
            for &frame in singles.iter().rev() {
                frames.free(frame, 1).expect("was allocated");
            }
            assert_eq!(frames.allocate(1 << 12, 1 << 12), Ok(0));
        });
    }

    proptest! {
        /// Against a set of frame numbers: runs are disjoint, aligned, inside the range, and the count is
        /// exact.
        #[test]
        fn agrees_with_a_set(operations in proptest::collection::vec((1usize..70, 0u32..6, any::<bool>()), 1..200)) {
            let (base, total) = (300, 3000);
            with_all_free(base, total, |frames| {
                let mut taken = BTreeSet::new();
                let mut runs = Vec::new();
                for (count, align_log, free) in operations {
                    if free && !runs.is_empty() {
                        let (first, count) = runs.swap_remove(count % runs.len());
                        frames.free(first, count).expect("was allocated");
                        for frame in first..first + count {
                            assert!(taken.remove(&frame));
                        }
                    } else if let Ok(first) = frames.allocate(count, 1 << align_log) {
                        assert_eq!(first % (1 << align_log), 0);
                        assert!(first >= base && first + count <= base + total);
                        for frame in first..first + count {
                            assert!(taken.insert(frame), "frame {frame} given out twice");
                        }
                        runs.push((first, count));
                    }
                    assert_eq!(frames.free_frames(), total - taken.len());
                }
            });
        }
    }
}
