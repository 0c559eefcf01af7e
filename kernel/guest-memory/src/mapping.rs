//! One shared mapping and the only unsafe code of this crate: atomic copies between it and ordinary slices.

use crate::MapError;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Unit of mappings on the machines this runs on.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// What a device may do with a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The device may read guest memory.
    pub read: bool,
    /// The device may write guest memory.
    pub write: bool,
}

impl Access {
    /// Both directions, as for a guest's RAM.
    pub const READ_WRITE: Access = Access {
        read: true,
        write: true,
    };
}

/// Memory that stays mapped, readable and (unless the file was given read-only) writable while this value lives.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access from several threads is a race of atomics only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a part of `file`, shared with whoever else has it.
    pub(crate) fn of_file(
        file: BorrowedFd<'_>,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<Self, MapError> {
        let needed = offset.checked_add(size).ok_or(MapError::BadRange {
            address: offset,
            size,
        })?;
        let stat = rustix::fs::fstat(file).map_err(MapError::System)?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if needed > length {
            return Err(MapError::BeyondFile { needed, length });
        }
        let bytes = usize::try_from(size).map_err(|_| MapError::BadRange {
            address: offset,
            size,
        })?;
        let protection = if access.write {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a null hint lets the system choose a free range, so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                file,
                offset,
            )
        };
        Self::new(base.map_err(MapError::System)?, bytes)
    }

    /// Maps zeroed memory of this process alone.
    pub(crate) fn anonymous(size: u64) -> Result<Self, MapError> {
        let bytes = usize::try_from(size).map_err(|_| MapError::BadRange { address: 0, size })?;
        // SAFETY: a null hint lets the system choose a free range, so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Self::new(base.map_err(MapError::System)?, bytes)
    }

    fn new(base: *mut std::ffi::c_void, length: usize) -> Result<Self, MapError> {
        match NonNull::new(base.cast::<u8>()) {
            Some(base) => Ok(Self { base, length }),
            None => Err(MapError::System(rustix::io::Errno::NOMEM)),
        }
    }

    /// Copies from `offset` on into `into`, as much as the mapping holds; returns the number of bytes.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let Some((start, count)) = self.clamp(offset, into.len()) else {
            return 0;
        };
        let (head, words) = Self::split(start, count);
        let (first, rest) = into[..count].split_at_mut(head);
        let (body, last) = rest.split_at_mut(words * 8);
        for (byte, from) in first.iter_mut().zip(self.bytes(start, head)) {
            *byte = from.load(Ordering::Relaxed);
        }
        for (chunk, from) in body
            .as_chunks_mut::<8>()
            .0
            .iter_mut()
            .zip(self.words(start + head, words))
        {
            *chunk = from.load(Ordering::Relaxed).to_ne_bytes();
        }
        for (byte, from) in last
            .iter_mut()
            .zip(self.bytes(start + head + words * 8, count - head - words * 8))
        {
            *byte = from.load(Ordering::Relaxed);
        }
        // What is read after a descriptor that software has published must not be older than it.
        std::sync::atomic::fence(Ordering::Acquire);
        count
    }

    /// Copies `from` to `offset` on, as much as the mapping holds; returns the number of bytes.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> usize {
        let Some((start, count)) = self.clamp(offset, from.len()) else {
            return 0;
        };
        let (head, words) = Self::split(start, count);
        let (first, rest) = from[..count].split_at(head);
        let (body, last) = rest.split_at(words * 8);
        for (byte, into) in first.iter().zip(self.bytes(start, head)) {
            into.store(*byte, Ordering::Relaxed);
        }
        for (chunk, into) in body
            .as_chunks::<8>()
            .0
            .iter()
            .zip(self.words(start + head, words))
        {
            into.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        for (byte, into) in last
            .iter()
            .zip(self.bytes(start + head + words * 8, count - head - words * 8))
        {
            into.store(*byte, Ordering::Relaxed);
        }
        count
    }

    /// Stores a little-endian word after everything written before it; false when `offset` isn't a multiple of 8 inside.
    pub(crate) fn store_u64(&self, offset: u64, value: u64) -> bool {
        match self.clamp(offset, 8) {
            Some((start, 8)) if start % 8 == 0 => {
                self.words(start, 1)
                    .iter()
                    .for_each(|word| word.store(value.to_le(), Ordering::Release));
                true
            }
            _ => false,
        }
    }

    /// The part of `offset..offset + wanted` that is inside, as start and count.
    fn clamp(&self, offset: u64, wanted: usize) -> Option<(usize, usize)> {
        let start = usize::try_from(offset)
            .ok()
            .filter(|start| *start < self.length)?;
        Some((start, wanted.min(self.length - start)))
    }

    /// How many bytes come before the first whole word, and how many words follow.
    fn split(start: usize, count: usize) -> (usize, usize) {
        let head = (start.next_multiple_of(8) - start).min(count);
        (head, (count - head) / 8)
    }

    /// `count` bytes from `at` on, which must be inside.
    fn bytes(&self, at: usize, count: usize) -> &[AtomicU8] {
        assert!(at <= self.length && count <= self.length - at);
        // SAFETY: the range is inside the mapping, which lives as long as `self`; an AtomicU8 has no alignment, any bit
        // pattern is valid for it, and no reference into the mapping that isn't to atomics is ever made.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at).cast(), count) }
    }

    /// `count` words from `at` on, which must be inside, `at` a multiple of 8 unless there are none.
    fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        if count == 0 {
            return &[];
        }
        assert!(at.is_multiple_of(8) && at <= self.length && count <= (self.length - at) / 8);
        // SAFETY: the range is inside the mapping, which lives as long as `self`; mappings start on a page, so a multiple of
        // 8 is aligned; any bit pattern is valid, and no reference into the mapping that isn't to atomics is ever made.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at).cast(), count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are what mmap returned, and no reference into the mapping outlives `self`. A failure
        // leaks the mapping, which is harmless.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
