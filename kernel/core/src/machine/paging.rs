//! Page tables: one set for all CPUs and all domains, changed under one lock.
//!
//! The address space:
//!
//! | from | what |
//! |---|---|
//! | 0 | nothing (page 0 is never mapped) |
//! | 2 MiB | the kernel's image, each segment with exactly its own rights |
//! | `PHYSICAL_MAP` | all RAM, read-write and not executable, in 2 MiB pages where possible |
//! | `AREAS` | virtual areas: stacks with their guard pages, domain images |
//! | `DEVICES` | device registers (uncached) and firmware tables, at `DEVICES` + physical address |
//!
//! [`Access`] has no value for "writable and executable". Aliases: where a page is mapped read-only or
//! executable in an area, its alias in the physical map is made read-only for that time (`protect_alias`), so
//! W^X holds for frames too. This module changes tables; invalidating the other CPUs' TLBs is up to its
//! callers (`memory`, through `smp`).

use super::sync::InterruptLock;
use crate::memory::PAGE_SIZE;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::{
    PhysAddr, VirtAddr,
    instructions::tlb,
    registers::control::{Cr3, Cr3Flags},
    structures::paging::PhysFrame,
};

/// Where all RAM is mapped.
pub const PHYSICAL_MAP: usize = 0xffff_8000_0000_0000;
/// Where virtual areas are: 16 TiB.
pub const AREAS: usize = 0xffff_c000_0000_0000;
/// Length of the range for virtual areas in pages.
pub const AREAS_PAGES: usize = 1 << 32;
/// Where devices are mapped.
const DEVICES: usize = 0xffff_e000_0000_0000;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const UNCACHED: u64 = 1 << 4 | 1 << 3;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;
const LARGE_PAGE: u64 = 2 << 20;

/// What may be done with mapped memory. Nothing is ever writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Reading and executing.
    ReadExecute,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Read => PRESENT | NO_EXECUTE,
            Self::ReadWrite => PRESENT | WRITABLE | NO_EXECUTE,
            Self::ReadExecute => PRESENT,
        }
    }
}

/// How the processor may cache what it reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Ordinary memory.
    WriteBack,
    /// Device registers: each access goes to the device, in order.
    Uncached,
}

/// The top-level table, and whom to ask for frames for further ones.
struct Tables {
    root: u64,
    /// Frames set aside at boot for splitting large pages of the physical map, so that doing so never changes
    /// the number of free frames: (next, end) in bytes.
    split_reserve: (u64, u64),
}

static TABLES: InterruptLock<Tables> = InterruptLock::new(Tables {
    root: 0,
    split_reserve: (0, 0),
});

/// The root, for other CPUs' start-up code and for flushing.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// Where the physical map has the byte at this physical address. Meaningful only for RAM.
pub fn physical_to_virtual<T>(physical: u64) -> *mut T {
    (PHYSICAL_MAP + physical as usize) as *mut T
}

/// The physical address of a byte that the physical map has at `pointer`; `None` for other addresses.
pub fn virtual_to_physical<T>(pointer: *const T) -> Option<u64> {
    let address = pointer.addr();
    (PHYSICAL_MAP..AREAS)
        .contains(&address)
        .then(|| (address - PHYSICAL_MAP) as u64)
}

/// A source of zeroed frames for tables; `None` when memory is used up.
pub(super) type FrameSource<'a> = &'a mut dyn FnMut() -> Option<u64>;

fn table(physical: u64) -> *mut u64 {
    physical_to_virtual(physical)
}

fn read(table_at: u64, index: usize) -> u64 {
    // SAFETY: `table_at` is the physical address of a table of ours (the root, or out of an entry with
    // PRESENT and without LARGE), all tables are in RAM, which the physical map covers, and `index` is below
    // 512 by construction.
    unsafe { table(table_at).add(index).read_volatile() }
}

fn write(table_at: u64, index: usize, entry: u64) {
    // SAFETY: As in `read`; the lock on TABLES keeps other writers out, and the processor reads entries as
    // whole words.
    unsafe { table(table_at).add(index).write_volatile(entry) }
}

const fn index(virtual_address: usize, level: usize) -> usize {
    virtual_address >> (12 + 9 * level) & (ENTRIES - 1)
}

impl Tables {
    /// The table of `level` (0: pages) on the way to an address, made if need be; `None` if there is no frame
    /// for it. A large page in the way is split.
    fn table_for(&mut self, address: usize, level: usize, frames: FrameSource<'_>) -> Option<u64> {
        let mut at = self.root;
        for above in (level + 1..=3).rev() {
            let slot = index(address, above);
            let entry = read(at, slot);
            at = if entry & PRESENT == 0 {
                let fresh = frames()?;
                write(at, slot, fresh | PRESENT | WRITABLE);
                fresh
            } else if entry & LARGE != 0 {
                self.split(at, slot, entry)?
            } else {
                entry & ADDRESS
            };
        }
        Some(at)
    }

    /// Replaces a 2 MiB page by 512 pages with the same rights.
    fn split(&mut self, at: u64, slot: usize, entry: u64) -> Option<u64> {
        let (next, end) = self.split_reserve;
        if next >= end {
            return None;
        }
        self.split_reserve.0 += PAGE_SIZE as u64;
        let start = entry & ADDRESS & !(LARGE_PAGE - 1);
        let flags = entry & !ADDRESS & !LARGE;
        for page in 0..ENTRIES {
            write(next, page, (start + (page * PAGE_SIZE) as u64) | flags);
        }
        write(at, slot, next | PRESENT | WRITABLE);
        Some(next)
    }

    fn set_page(&mut self, address: usize, entry: u64, frames: FrameSource<'_>) -> Option<u64> {
        let at = self.table_for(address, 0, frames)?;
        let old = read(at, index(address, 0));
        write(at, index(address, 0), entry);
        Some(old)
    }

    /// The entry that maps an address, and the size of its page.
    fn lookup(&self, address: usize) -> Option<(u64, u64)> {
        let mut at = self.root;
        for level in (0..=3).rev() {
            let entry = read(at, index(address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                return Some((entry, 1 << (12 + 9 * level)));
            }
            at = entry & ADDRESS;
        }
        None
    }

    /// Removes a page and the tables that become empty by it; calls `freed` with each such table's frame.
    fn remove_page(&mut self, address: usize, freed: &mut dyn FnMut(u64)) -> Option<u64> {
        let mut path = [0; 4];
        path[3] = self.root;
        for level in (1..=3).rev() {
            let entry = read(path[level], index(address, level));
            if entry & PRESENT == 0 || entry & LARGE != 0 {
                return None;
            }
            path[level - 1] = entry & ADDRESS;
        }
        let old = read(path[0], index(address, 0));
        write(path[0], index(address, 0), 0);
        for level in 1..=3 {
            if (0..ENTRIES).any(|slot| read(path[level - 1], slot) != 0) {
                break;
            }
            write(path[level], index(address, level), 0);
            freed(path[level - 1]);
        }
        (old & PRESENT != 0).then_some(old & ADDRESS)
    }
}

// SAFETY: The linker script defines each. They are addresses; nothing is read through them.
unsafe extern "C" {
    static kernel_image_start: u8;
    static kernel_text_start: u8;
    static kernel_proxies_start: u8;
    static kernel_proxies_end: u8;
    static kernel_text_end: u8;
    static kernel_injected_end: u8;
    static kernel_rodata_start: u8;
    static kernel_rodata_end: u8;
    static kernel_data_start: u8;
    static kernel_data_end: u8;
    static kernel_image_end: u8;
    static boot_stack_guard: u8;
}

/// Addresses of the image's parts, from the linker script.
pub(super) fn image_range() -> (u64, u64) {
    (
        address_of(&raw const kernel_image_start),
        address_of(&raw const kernel_image_end),
    )
}

/// The kernel's code.
pub(super) fn text_range() -> (u64, u64) {
    (
        address_of(&raw const kernel_text_start),
        address_of(&raw const kernel_text_end),
    )
}

/// Whether an instruction at `address` is the kernel's own, and not a domain's.
pub fn is_kernel_code(address: u64) -> bool {
    let (start, end) = text_range();
    (start..end).contains(&address)
}

/// Whether an instruction at `address` is a proxy's, which may meet the end of its caller's stack when it begins.
pub fn is_proxy_code(address: u64) -> bool {
    (address_of(&raw const kernel_proxies_start)..address_of(&raw const kernel_proxies_end))
        .contains(&address)
}

fn address_of(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}

/// Builds the real tables and switches to them.
///
/// `ram` are the ranges to map in the physical map (start, end in bytes); `split_reserve` are the zeroed
/// frames for splitting large pages. Called once, on the boot CPU, before any other function of this module.
pub(super) fn initialise(
    ram: &[(u64, u64)],
    split_reserve: (u64, u64),
    frames: FrameSource<'_>,
) -> Option<()> {
    let mut tables = TABLES.lock();
    tables.root = frames()?;
    tables.split_reserve = split_reserve;
    for &(start, end) in ram {
        let mut at = start / LARGE_PAGE * LARGE_PAGE;
        while at < end {
            let address = PHYSICAL_MAP + at as usize;
            let table_at = tables.table_for(address, 1, frames)?;
            write(table_at, index(address, 1), at | Access::ReadWrite.bits() | LARGE);
            at += LARGE_PAGE;
        }
    }
    let (image, _) = image_range();
    let (text, _) = text_range();
    // Nothing is between the two in a release.
    let text_end = address_of(&raw const kernel_injected_end);
    let (rodata, rodata_end) = (
        address_of(&raw const kernel_rodata_start),
        address_of(&raw const kernel_rodata_end),
    );
    let (data, data_end) = (
        address_of(&raw const kernel_data_start),
        address_of(&raw const kernel_data_end),
    );
    let segments = [
        (image, text, Access::Read),
        (text, text_end, Access::ReadExecute),
        (rodata, rodata_end, Access::Read),
        (data, data_end, Access::ReadWrite),
    ];
    let guard = address_of(&raw const boot_stack_guard);
    for (start, end, access) in segments {
        for page in (start..end).step_by(PAGE_SIZE) {
            if page != guard {
                tables.set_page(page as usize, page | access.bits(), frames)?;
            }
            // The same frames in the physical map: writable only where the segment is.
            let alias = if access == Access::ReadWrite {
                Access::ReadWrite
            } else {
                Access::Read
            };
            tables.set_page(PHYSICAL_MAP + page as usize, page | alias.bits(), frames)?;
        }
    }
    ROOT.store(tables.root, Ordering::Release);
    // SAFETY: The new tables map the running code, its data and stack at the same addresses with the rights
    // they need, and everything that was reached through the physical map.
    unsafe { load() };
    Some(())
}

/// Makes this CPU use the kernel's tables.
///
/// # Safety
/// What the CPU runs on (code, stack) must be mapped in them.
unsafe fn load() {
    let root = PhysFrame::containing_address(PhysAddr::new_truncate(ROOT.load(Ordering::Acquire)));
    // SAFETY: By the contract; ROOT is a complete set of tables.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
}

/// Physical address of the top-level table.
pub(super) fn root() -> u64 {
    ROOT.load(Ordering::Acquire)
}

/// Drops every translation that this CPU has cached.
pub(super) fn flush_this_cpu() {
    tlb::flush_all();
}

/// Maps one page; `None` if a frame for a table is missing. The address must not be mapped.
///
/// # Safety
/// The address is in an area that the caller owns, and `physical` is memory that may be used there with these
/// rights.
pub(super) unsafe fn map(
    address: usize,
    physical: u64,
    access: Access,
    frames: FrameSource<'_>,
) -> Option<()> {
    TABLES
        .lock()
        .set_page(address, physical | access.bits(), frames)
        .map(|_| ())
}

/// Removes a page; its frame, if it was mapped. Tables that become empty are passed to `freed`; like the
/// page's own frame they may be used again only after every CPU's TLB is invalidated.
///
/// # Safety
/// The address is in an area that the caller owns, and nobody uses it any more.
pub(super) unsafe fn unmap(address: usize, freed: &mut dyn FnMut(u64)) -> Option<u64> {
    TABLES.lock().remove_page(address, freed)
}

/// Makes a frame's alias in the physical map read-only or writable again; false if the page could not be
/// split. The caller invalidates TLBs.
///
/// # Safety
/// Nobody writes the frame through the physical map while it is read-only.
pub(super) unsafe fn protect_alias(physical: u64, writable: bool) -> bool {
    let access = if writable { Access::ReadWrite } else { Access::Read };
    let address = PHYSICAL_MAP + physical as usize;
    TABLES
        .lock()
        .set_page(address, physical | access.bits(), &mut || None)
        .is_some()
}

/// Maps `length` bytes from a physical address for a device or for firmware's tables; where they are.
/// Mappings stay for good and are shared by all who ask for the same page. `None` if memory for tables is
/// missing.
///
/// # Safety
/// The range is device registers (uncached, read-write) or firmware's data (write-back, read-only), never RAM
/// of ours.
pub(super) unsafe fn map_physical(
    physical: u64,
    length: usize,
    access: Access,
    caching: Caching,
    frames: FrameSource<'_>,
) -> Option<*mut u8> {
    let attributes = if caching == Caching::Uncached { UNCACHED } else { 0 };
    let page = PAGE_SIZE as u64;
    let first = physical / page * page;
    let mut tables = TABLES.lock();
    for at in (first..physical + length as u64).step_by(PAGE_SIZE) {
        let address = DEVICES + at as usize;
        if tables.lookup(address).is_none() {
            tables.set_page(address, at | access.bits() | attributes, frames)?;
        }
    }
    Some((DEVICES + physical as usize) as *mut u8)
}

/// Maps one page at its own address, executable, for the code that starts other CPUs; see [`unmap`].
///
/// # Safety
/// The page below 1 MiB is RAM that nobody else uses.
pub(super) unsafe fn map_identity(physical: u64, access: Access, frames: FrameSource<'_>) -> Option<()> {
    TABLES
        .lock()
        .set_page(physical as usize, physical | access.bits(), frames)
        .map(|_| ())
}

/// Whether this address can be read now, so that a backtrace never faults.
pub(super) fn is_mapped(address: usize) -> bool {
    let canonical = VirtAddr::try_new(address as u64).is_ok();
    // A fault report must not wait for a lock that the faulting code may hold; a walk without it reads whole
    // words.
    let tables = Tables {
        root: root(),
        split_reserve: (0, 0),
    };
    canonical && tables.root != 0 && tables.lookup(address).is_some()
}

/// Walks all tables and panics if a page is writable and executable, or if page 0 is mapped.
pub(super) fn check_write_xor_execute() {
    let tables = TABLES.lock();
    assert!(tables.lookup(0).is_none(), "page 0 is mapped");
    check_level(tables.root, 3, true, true, 0);
}

fn check_level(at: u64, level: usize, writable_above: bool, executable_above: bool, base: usize) {
    for slot in 0..ENTRIES {
        let entry = read(at, slot);
        if entry & PRESENT == 0 {
            continue;
        }
        let writable = writable_above && entry & WRITABLE != 0;
        let executable = executable_above && entry & NO_EXECUTE == 0;
        let address = base | slot << (12 + 9 * level);
        if level > 0 && entry & LARGE == 0 {
            check_level(entry & ADDRESS, level - 1, writable, executable, address);
        } else {
            assert!(
                !(writable && executable),
                "page {address:#x} is writable and executable"
            );
        }
    }
}
