//! Memory as the kernel hands it out: frames that free themselves, and virtual areas that unmap themselves.
//!
//! All state is here; the decisions are `crate::memory`'s, the page tables `paging`'s.

use super::boot::BootInformation;
use super::paging::{self, Access, Caching};
use super::sync::InterruptLock;
use super::{fault, smp};
use crate::memory::areas::AreaAllocator;
use crate::memory::frames::{FrameAllocator, FrameError};
use crate::memory::map::RegionKind;
use crate::memory::{PAGE_SIZE, map::MemoryMap};
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicUsize, Ordering};

static FRAMES: InterruptLock<Option<FrameAllocator<'static>>> = InterruptLock::new(None);
static AREAS: InterruptLock<Option<AreaAllocator>> = InterruptLock::new(None);
static TOTAL_PAGES: AtomicUsize = AtomicUsize::new(0);

/// What frames are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum FrameUse {
    /// Nothing of the following.
    Other,
    /// The kernel's heap.
    KernelHeap,
    /// Page tables.
    PageTable,
    /// Stacks of threads.
    Stack,
    /// Images of domains.
    Image,
    /// Private heaps of domains.
    PrivateHeap,
    /// The shared heap.
    SharedHeap,
    /// Ring memory of devices.
    Dma,
}

/// Pages of the CPUs' own stacks, which are no thread's.
static KEPT_STACK_PAGES: AtomicUsize = AtomicUsize::new(0);

/// Pages of the CPUs' own stacks, which are no thread's.
pub fn kept_stack_pages() -> usize {
    KEPT_STACK_PAGES.load(Ordering::Relaxed)
}

/// Pages in use, by [`FrameUse`].
static USED_PAGES: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

/// How many pages are used for something.
pub fn used_pages(usage: FrameUse) -> usize {
    USED_PAGES[usage as usize].load(Ordering::Relaxed)
}

/// RAM below this is left alone: firmware's data, and the page that starts other CPUs.
const LOW_MEMORY: u64 = 1 << 20;
/// What the temporary page tables of the boot code cover.
const EARLY_LIMIT: u64 = 4 << 30;

/// Frames that are taken before there is an allocator: from the end of the largest early run downwards.
struct EarlyFrames {
    start: u64,
    next: u64,
    end: u64,
}

impl EarlyFrames {
    fn take(&mut self, bytes: u64) -> Option<u64> {
        let at = self.next;
        let end = at.checked_add(bytes.next_multiple_of(PAGE_SIZE as u64))?;
        if end > self.end {
            return None;
        }
        self.next = end;
        // SAFETY: The range is usable RAM below 4 GiB that nobody has been given; it is mapped by the boot
        // tables.
        unsafe { paging::physical_to_virtual::<u8>(at).write_bytes(0, (end - at) as usize) };
        Some(at)
    }
}

/// Takes over all RAM: builds the page tables, then the frame allocator from what is left.
pub(super) fn initialise(boot: &BootInformation) {
    let archive = boot.archive();
    let archive_start = paging::virtual_to_physical(archive.as_ptr()).unwrap_or(0);
    let mut taken = [
        (0, LOW_MEMORY),
        paging::image_range(),
        (archive_start, archive_start + archive.len() as u64),
        (0, 0),
    ];
    let mut best = (0, 0);
    boot.memory.free_runs(&taken, |first, count| {
        let start = first as u64 * PAGE_SIZE as u64;
        let end = (start + count as u64 * PAGE_SIZE as u64).min(EARLY_LIMIT);
        if end.saturating_sub(start) > best.1 - best.0 {
            best = (start, end);
        }
    });
    let mut early = EarlyFrames {
        start: best.0,
        next: best.0,
        end: best.1,
    };
    let frames = (boot.memory.usable_end() / PAGE_SIZE as u64) as usize;
    if build(&boot.memory, frames, &mut early).is_none() {
        panic!(
            "not enough memory: the largest run has {} KiB",
            (best.1 - best.0) / 1024
        );
    }
    let words = FrameAllocator::words_needed(frames);
    let Some(storage) = early.take((words * 8) as u64) else {
        panic!(
            "not enough memory for the frame allocator's {} KiB",
            words * 8 / 1024
        );
    };
    // SAFETY: Freshly taken RAM of this length, zeroed, page aligned, mapped in the physical map, and given
    // to nobody else.
    let storage =
        unsafe { core::slice::from_raw_parts_mut(paging::physical_to_virtual::<u64>(storage), words) };
    let Some(mut allocator) = FrameAllocator::new(0, frames, storage) else {
        panic!("the frame allocator's storage is too short");
    };
    taken[3] = (early.start, early.next);
    boot.memory.free_runs(&taken, |first, count| {
        if allocator.free(first, count).is_err() {
            panic!("the memory map has frames {first} + {count} twice");
        }
    });
    TOTAL_PAGES.store(allocator.free_frames(), Ordering::Relaxed);
    *FRAMES.lock() = Some(allocator);
    let areas = AreaAllocator::new(paging::AREAS / PAGE_SIZE, paging::AREAS_PAGES);
    *AREAS.lock() = Some(areas);
}

fn build(map: &MemoryMap, frames: usize, early: &mut EarlyFrames) -> Option<()> {
    let mut ram = [(0, 0); 128];
    let mut count = 0;
    for region in map
        .regions()
        .iter()
        .filter(|region| region.kind == RegionKind::Usable)
    {
        if let Some(slot) = ram.get_mut(count) {
            *slot = (region.start, region.end);
            count += 1;
        }
    }
    let reserve = early.take((frames.div_ceil(512) * PAGE_SIZE) as u64)?;
    let reserve = (reserve, early.next);
    paging::initialise(ram.get(..count)?, reserve, &mut || early.take(PAGE_SIZE as u64))
}

/// How many pages are free.
pub fn free_pages() -> usize {
    FRAMES.lock().as_ref().map_or(0, FrameAllocator::free_frames)
}

/// How many pages there were when the allocator started.
pub fn total_pages() -> usize {
    TOTAL_PAGES.load(Ordering::Relaxed)
}

/// A zeroed frame for a page table, for `paging`.
fn table_frame() -> Option<u64> {
    Some(
        Frames::allocate_for(FrameUse::PageTable, 1, 1)
            .ok()?
            .zeroed()
            .leak(),
    )
}

fn free_raw(physical: u64, count: usize, usage: FrameUse) {
    let mut frames = FRAMES.lock();
    let freed = frames
        .as_mut()
        .map(|frames| frames.free((physical / PAGE_SIZE as u64) as usize, count));
    drop(frames);
    USED_PAGES[usage as usize].fetch_sub(count, Ordering::Relaxed);
    if freed != Some(Ok(())) {
        fault::stop(format_args!("{count} frames at {physical:#x} were freed twice"));
    }
}

/// A run of physically contiguous frames, owned; dropping it frees them.
#[derive(Debug)]
pub struct Frames {
    physical: u64,
    count: usize,
    usage: FrameUse,
}

impl Frames {
    /// Takes `count` frames; the first one's number is a multiple of `align` (a power of two). Contents are
    /// whatever they were before.
    pub fn allocate(count: usize, align: usize) -> Result<Self, FrameError> {
        Self::allocate_for(FrameUse::Other, count, align)
    }

    /// The same, for a use that is accounted for.
    pub fn allocate_for(usage: FrameUse, count: usize, align: usize) -> Result<Self, FrameError> {
        let mut frames = FRAMES.lock();
        let allocator = frames.as_mut().ok_or(FrameError::OutOfMemory { count, align })?;
        let first = allocator.allocate(count, align)?;
        USED_PAGES[usage as usize].fetch_add(count, Ordering::Relaxed);
        Ok(Self {
            physical: first as u64 * PAGE_SIZE as u64,
            count,
            usage,
        })
    }

    /// The same frames, filled with zeroes.
    pub fn zeroed(self) -> Self {
        // SAFETY: The frames are RAM that this value owns, mapped in the physical map.
        unsafe { self.as_pointer().write_bytes(0, self.bytes()) };
        self
    }

    /// Physical address of the first byte.
    pub fn physical(&self) -> u64 {
        self.physical
    }

    /// How many frames.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.count * PAGE_SIZE
    }

    /// Where the physical map has them; valid as long as this value lives, writable unless they are also
    /// mapped read-only or executable somewhere ([`VirtualArea::map`]).
    pub fn as_pointer(&self) -> *mut u8 {
        paging::physical_to_virtual(self.physical)
    }

    /// Gives up ownership without freeing; the physical address.
    pub fn leak(self) -> u64 {
        ManuallyDrop::new(self).physical
    }

    /// Takes ownership again of what [`leak`](Self::leak) gave up and what is used for `usage`.
    ///
    /// # Safety
    /// The run came from `leak` (or is a part of such a run), nobody else owns it, and nothing refers to its
    /// contents once this value is dropped.
    pub unsafe fn from_leaked(usage: FrameUse, physical: u64, count: usize) -> Self {
        Self {
            physical,
            count,
            usage,
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if self.count > 0 {
            free_raw(self.physical, self.count, self.usage);
        }
    }
}

/// Why memory couldn't be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No frames, for the memory itself or for page tables.
    OutOfMemory,
    /// The address range for areas is used up.
    OutOfAddresses,
    /// The pages are outside of the area, or already mapped.
    BadRange,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::OutOfAddresses => "out of virtual addresses",
            Self::BadRange => "pages outside of the area, or mapped twice",
        })
    }
}

impl From<FrameError> for MapError {
    fn from(_: FrameError) -> Self {
        Self::OutOfMemory
    }
}

struct Mapped {
    /// First page, counted from the start of the area.
    page: usize,
    frames: Frames,
    access: Access,
}

/// A range of virtual addresses of its own. What is mapped in it belongs to it; dropping it unmaps everything
/// on all CPUs and frees frames and addresses. Drop it only on a thread, with interrupts on and no lock held.
pub struct VirtualArea {
    start: usize,
    pages: usize,
    mapped: Vec<Mapped>,
}

impl VirtualArea {
    /// Reserves `pages` pages of addresses, none of which is mapped.
    pub fn reserve(pages: usize) -> Result<Self, MapError> {
        let start = AREAS
            .lock()
            .as_mut()
            .and_then(|areas| areas.allocate(pages))
            .ok_or(MapError::OutOfAddresses)?;
        Ok(Self {
            start: start * PAGE_SIZE,
            pages,
            mapped: Vec::new(),
        })
    }

    /// Address of the first byte.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Length in pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Pages of it that are mapped.
    pub fn mapped_pages(&self) -> usize {
        self.mapped.iter().map(|run| run.frames.count()).sum()
    }

    /// Maps frames from the page `page` (counted from the area's start) on.
    ///
    /// With [`Access::Read`] or [`Access::ReadExecute`] the frames' alias in the physical map becomes
    /// read-only, so fill them before. On an error nothing stays mapped and the frames are freed.
    pub fn map(&mut self, page: usize, frames: Frames, access: Access) -> Result<(), MapError> {
        let count = frames.count();
        let fits = page.checked_add(count).is_some_and(|end| end <= self.pages);
        let overlaps = |other: &Mapped| page < other.page + other.frames.count() && other.page < page + count;
        if !fits || self.mapped.iter().any(overlaps) {
            return Err(MapError::BadRange);
        }
        let (start, physical) = (self.start + page * PAGE_SIZE, frames.physical());
        self.mapped.push(Mapped { page, frames, access });
        for offset in (0..count * PAGE_SIZE).step_by(PAGE_SIZE) {
            // SAFETY: The page is inside of this area, which this value owns, and not mapped; the frames are
            // owned by it too.
            let done =
                unsafe { paging::map(start + offset, physical + offset as u64, access, &mut table_frame) };
            if done.is_none() {
                self.unmap_last();
                return Err(MapError::OutOfMemory);
            }
        }
        if access != Access::ReadWrite && !set_alias(physical, count, false) {
            self.unmap_last();
            return Err(MapError::OutOfMemory);
        }
        Ok(())
    }

    fn unmap_last(&mut self) {
        if let Some(last) = self.mapped.pop() {
            release(self.start, [last]);
        }
    }
}

/// Makes a run's alias in the physical map writable or read-only on all CPUs.
fn set_alias(physical: u64, count: usize, writable: bool) -> bool {
    let mut done = true;
    for page in 0..count {
        // SAFETY: The run is owned by the area that maps it, whose contract says that it isn't written
        // through the physical map while it is mapped without write access.
        done &= unsafe { paging::protect_alias(physical + (page * PAGE_SIZE) as u64, writable) };
    }
    smp::flush_all_cpus();
    done
}

/// Unmaps runs of the area at `start` and frees their frames once no CPU can reach them any more.
fn release(start: usize, runs: impl IntoIterator<Item = Mapped>) {
    let mut tables = Vec::new();
    let mut frames = Vec::new();
    for Mapped {
        page,
        frames: run,
        access,
    } in runs
    {
        for index in page..page + run.count() {
            // SAFETY: The page belongs to the area that is being released, which nobody uses any more.
            unsafe { paging::unmap(start + index * PAGE_SIZE, &mut |table| tables.push(table)) };
        }
        if access != Access::ReadWrite {
            for index in 0..run.count() {
                // SAFETY: The run is about to be freed; it was read-only in the physical map and becomes
                // ordinary again.
                unsafe { paging::protect_alias(run.physical() + (index * PAGE_SIZE) as u64, true) };
            }
        }
        frames.push(run);
    }
    if tables.is_empty() {
        smp::flush_all_cpus();
    } else {
        smp::flush_all_cpus_before_freeing_tables();
    }
    for table in tables {
        free_raw(table, 1, FrameUse::PageTable);
    }
}

impl Drop for VirtualArea {
    fn drop(&mut self) {
        let runs = core::mem::take(&mut self.mapped);
        if !runs.is_empty() {
            release(self.start, runs);
        }
        if let Some(areas) = AREAS.lock().as_mut() {
            areas.release(self.start / PAGE_SIZE, self.pages);
        }
    }
}

/// A stack with an unmapped guard page below it.
pub struct Stack {
    area: VirtualArea,
}

impl Stack {
    /// A stack of `pages` pages.
    pub fn allocate(pages: usize) -> Result<Self, MapError> {
        let mut area = VirtualArea::reserve(pages + 1)?;
        let mut page = 1;
        // Small runs: a stack doesn't need contiguous frames, and large ones get scarce.
        while page <= pages {
            let count = (pages + 1 - page).min(4);
            let frames = Frames::allocate_for(FrameUse::Stack, count, 1)?;
            area.map(page, frames, Access::ReadWrite)?;
            page += count;
        }
        Ok(Self { area })
    }

    /// The address just above the stack; aligned to a page.
    pub fn top(&self) -> usize {
        self.area.start() + self.area.pages() * PAGE_SIZE
    }

    /// Keeps it for good, for a CPU.
    pub fn keep(self) {
        KEPT_STACK_PAGES.fetch_add(self.pages(), Ordering::Relaxed);
        core::mem::forget(self);
    }

    /// Length in pages, without the guard page.
    pub fn pages(&self) -> usize {
        self.area.pages() - 1
    }

    /// Lowest address that may be used; the guard page is below it.
    pub fn bottom(&self) -> usize {
        self.area.start() + PAGE_SIZE
    }
}

/// Maps a device's registers, uncached; the address of the first byte. The mapping stays for good; the same
/// registers asked for again are at the same address. `None` if memory for page tables is missing.
pub fn map_device(physical: u64, length: usize) -> Option<*mut u8> {
    // SAFETY: Reached only with addresses from ACPI tables and BARs, which name device registers. Whether the
    // caller may use them is the caller's matter; a mapping alone does nothing.
    unsafe {
        paging::map_physical(
            physical,
            length,
            Access::ReadWrite,
            Caching::Uncached,
            &mut table_frame,
        )
    }
}

/// Maps firmware's tables for reading. As [`map_device`] otherwise.
pub(super) fn map_firmware(physical: u64, length: usize) -> Option<*mut u8> {
    // SAFETY: Read-only, so nothing can be damaged by it.
    unsafe {
        paging::map_physical(
            physical,
            length,
            Access::Read,
            Caching::WriteBack,
            &mut table_frame,
        )
    }
}

/// Makes the page at a physical address below 1 MiB executable at its own address while `f` runs.
pub(super) fn with_start_up_page<R>(physical: u64, f: impl FnOnce(*mut u8) -> R) -> Option<R> {
    // SAFETY: RAM below 1 MiB is never given to anyone else (`LOW_MEMORY`).
    unsafe { paging::map_identity(physical, Access::ReadExecute, &mut table_frame) }?;
    let result = f(paging::physical_to_virtual(physical));
    let mut tables = Vec::new();
    // SAFETY: Mapped above; `f` has made sure that no CPU is in that code any more.
    unsafe { paging::unmap(physical as usize, &mut |table| tables.push(table)) };
    smp::flush_all_cpus_before_freeing_tables();
    for table in tables {
        free_raw(table, 1, FrameUse::PageTable);
    }
    Some(result)
}
