//! The multiboot2 boot protocol (GRUB): reads its information structure through the crate of the same name.

use super::{BootInformation, RootTables};
use crate::memory::map::RegionKind;
use multiboot2::{BootInformationHeader, MemoryAreaType};

/// Reads the boot information.
///
/// # Safety
/// `start` is the virtual address of the structure that the loader passed.
pub unsafe fn read(start: *const u8, boot: &mut BootInformation) {
    // SAFETY: By the contract of this function; the crate checks lengths and the end tag.
    let information =
        match unsafe { multiboot2::BootInformation::load(start.cast::<BootInformationHeader>()) } {
            Ok(information) => information,
            Err(error) => panic!("bad multiboot2 information: {error}"),
        };
    if let Some(tag) = information.rsdp_v2_tag() {
        let address = tag.xsdt_address() as u64;
        boot.root_tables = Some(RootTables::Sdt {
            revision: tag.revision(),
            address,
        });
    } else if let Some(tag) = information.rsdp_v1_tag() {
        boot.root_tables = Some(RootTables::Sdt {
            revision: 0,
            address: tag.rsdt_address() as u64,
        });
    }
    if let Some(Ok(text)) = information.command_line_tag().map(|tag| tag.cmdline()) {
        boot.set_command_line(text.as_bytes());
    }
    if let Some(module) = information.module_tags().next() {
        boot.module = Some((module.start_address().into(), module.module_size().into()));
    }
    if let Some(tag) = information.memory_map_tag() {
        for area in tag.memory_areas() {
            let usable = area.typ() == MemoryAreaType::Available;
            let kind = if usable {
                RegionKind::Usable
            } else {
                RegionKind::Reserved
            };
            boot.memory.add(area.start_address(), area.size(), kind);
        }
    }
}
