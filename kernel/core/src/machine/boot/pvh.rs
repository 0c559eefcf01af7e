//! The PVH boot protocol: reads `hvm_start_info` (Xen's include/public/arch-x86/hvm/start_info.h, version 1).

use super::super::paging::physical_to_virtual;
use super::{BootInformation, RootTables};
use crate::memory::map::RegionKind;

const MAGIC: u32 = 0x336e_c578;

#[repr(C)]
#[derive(Clone, Copy)]
struct StartInformation {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// Reads the start information.
///
/// # Safety
/// `start` is the virtual address of the structure that the loader passed, and the tables that it points to
/// are in the first 4 GiB, which must be mapped at the physical map's address.
pub unsafe fn read(start: *const u8, boot: &mut BootInformation) {
    // SAFETY: By the contract of this function; unaligned since the protocol promises nothing.
    let information = unsafe { start.cast::<StartInformation>().read_unaligned() };
    assert!(
        information.magic == MAGIC,
        "no PVH start information at {start:p}"
    );
    if information.rsdp != 0 {
        boot.root_tables = Some(RootTables::Rsdp(information.rsdp));
    }
    if information.command_line != 0 {
        let text: *const core::ffi::c_char = physical_to_virtual(information.command_line);
        // SAFETY: The protocol says that this is a string that ends with a zero byte.
        boot.set_command_line(unsafe { core::ffi::CStr::from_ptr(text) }.to_bytes());
    }
    if information.module_count > 0 {
        let modules: *const Module = physical_to_virtual(information.modules);
        // SAFETY: The protocol says that `module_count` entries are there.
        let module = unsafe { modules.read_unaligned() };
        boot.module = Some((module.address, module.size));
    }
    // Version 0 has no memory map; without one `memory::initialise` reports that there is no memory.
    if information.version >= 1 {
        let entries: *const MemoryMapEntry = physical_to_virtual(information.memory_map);
        for index in 0..information.memory_map_entries as usize {
            // SAFETY: The protocol says that this many entries are there.
            let entry = unsafe { entries.add(index).read_unaligned() };
            let kind = if entry.kind == 1 {
                RegionKind::Usable
            } else {
                RegionKind::Reserved
            };
            boot.memory.add(entry.address, entry.size, kind);
        }
    }
}
