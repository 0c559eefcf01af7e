//! The superblocks of a partition: which store is on it, or that it is blank and gets one.

use crate::disk::{Disk, Runs};
use crate::engine::store_error;
use crate::layout::{HEAD_BYTES, Layout, SUPERBLOCKS, Superblock, VERSION};
use crate::open::Options;
use alloc::vec::Vec;
use interface::key_value::StoreError;
use log::warn;

/// Reads a logical block.
pub(crate) fn read_block<D: Disk>(runs: &Runs<D>, offset: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = alloc::vec![0; runs.shape().block_bytes as usize];
    runs.read(offset, &mut bytes).map_err(store_error)?;
    Ok(bytes)
}

/// The layout by the newest superblock, with its generation; `None` on a blank partition.
pub(crate) fn find_layout<D: Disk>(runs: &Runs<D>) -> Result<Option<(Layout, u64)>, StoreError> {
    let partition_bytes = runs.shape().bytes();
    if partition_bytes < HEAD_BYTES {
        return Err(StoreError::TooSmall);
    }
    let mut best = None;
    let mut is_blank = true;
    for offset in SUPERBLOCKS {
        match Layout::decode(&read_block(runs, offset)?, partition_bytes) {
            Superblock::Blank => {}
            Superblock::Unknown => is_blank = false,
            Superblock::Foreign { version } => {
                match version {
                    VERSION => warn!("the store was made for a larger partition than this"),
                    _ => warn!("the store's format is version {version}; this is version {VERSION}"),
                }
                return Err(StoreError::Unrecognised);
            }
            Superblock::Store { layout, generation } => {
                if best.is_none_or(|(_, other)| generation > other) {
                    best = Some((layout, generation));
                }
            }
        }
    }
    match best {
        Some((layout, _)) if layout.block_bytes != runs.shape().block_bytes => Err(StoreError::Unrecognised),
        Some(found) => Ok(Some(found)),
        None if is_blank => Ok(None),
        None => Err(StoreError::Unrecognised),
    }
}

/// Writes the superblock of this generation, durably.
pub(crate) fn write_superblock<D: Disk>(
    runs: &Runs<D>,
    layout: &Layout,
    generation: u64,
) -> Result<(), StoreError> {
    let mut bytes = alloc::vec![0; layout.block_bytes as usize];
    layout.encode(generation).write_to(&mut bytes);
    let [even, odd] = SUPERBLOCKS;
    let offset = if generation.is_multiple_of(2) { even } else { odd };
    runs.write(offset, &bytes, false).map_err(store_error)?;
    runs.flush().map_err(store_error)
}

/// Makes a store on a partition that is blank wherever a store or something else would have left a trace.
pub(crate) fn format<D: Disk>(runs: &Runs<D>, options: Options) -> Result<Layout, StoreError> {
    let random = [(); 3].map(|()| (options.random)());
    let shape = runs.shape();
    let layout = Layout::choose(shape.bytes(), shape.block_bytes, options.segment_bytes, random)
        .map_err(|_| StoreError::TooSmall)?;
    let mut head = alloc::vec![0; HEAD_BYTES as usize];
    runs.read(0, &mut head).map_err(store_error)?;
    let mut is_blank = head.iter().all(|&byte| byte == 0);
    let starts: Vec<u64> = (0..layout.segments)
        .map(|segment| layout.segment_start(segment))
        .collect();
    runs.read_scattered(&starts, |_, bytes| {
        is_blank &= bytes.iter().all(|&byte| byte == 0)
    })
    .map_err(store_error)?;
    if !is_blank {
        return Err(StoreError::Unrecognised);
    }
    write_superblock(runs, &layout, 0)?;
    Ok(layout)
}
