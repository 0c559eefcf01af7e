//! From a verified ELF file to what must be mapped where.
//!
//! A domain image is a static position-independent executable (System V ABI, ELF64): loadable segments, each either writable or
//! executable or neither, and relocations of type R_X86_64_RELATIVE only. Nothing is imported: what a domain needs of others it
//! asks the kernel for. Decided here, done by the loader.

use crate::image::{ImageError, Verified};
use abi::image::SIGNATURE_BYTES;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use elf::ElfBytes;
use elf::abi::{
    DT_JMPREL, DT_REL, DT_RELA, DT_RELASZ, ET_DYN, PF_W, PF_X, PT_INTERP, PT_LOAD, PT_TLS, R_X86_64_RELATIVE,
};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;

/// Compact relative relocations (System V gABI, 2022), which the registry's crate doesn't name.
const DT_RELR: i64 = 36;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// The largest image, in pages: 64 MiB.
pub const PAGE_LIMIT: usize = 16384;

/// What a segment's pages may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Constants.
    Read,
    /// Code.
    ReadExecute,
    /// Data.
    ReadWrite,
}

/// A run of pages of one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First page, from the start of the image.
    pub page: usize,
    /// Length in pages.
    pub pages: usize,
    /// What for.
    pub usage: Use,
}

/// A file that was checked and can be loaded any number of times.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The image's memory before relocation, from its first page on.
    pub content: Vec<u8>,
    /// Segments, in order, without overlap.
    pub segments: Vec<Segment>,
    /// Offset in `content`, and addend, of each word that gets base + addend. All offsets are inside `content`.
    pub relocations: Vec<(u32, u32)>,
    /// Offset of the entry, inside an executable segment.
    pub entry: usize,
    /// What the signer calls this image.
    pub build: String,
    /// The image's signature: images of equal ones are equal.
    pub signature: [u8; SIGNATURE_BYTES],
    /// The table of the image's functions, for the reports of deaths; empty where there is none.
    pub symbols: Arc<[u8]>,
}

/// Checks the ELF file of a verified image and lays it out.
pub fn plan(image: Verified<'_>) -> Result<Plan, ImageError> {
    let Verified {
        elf: file,
        symbols,
        build,
        signature,
    } = image;
    let bad = |what: &'static str| ImageError::BadElf(what);
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| bad("its header is damaged"))?;
    if elf.ehdr.e_type != ET_DYN || elf.ehdr.e_machine != elf::abi::EM_X86_64 {
        return Err(bad("it is not a position-independent x86-64 executable"));
    }
    let headers = elf.segments().ok_or(bad("it has no program headers"))?;
    let mut segments = Vec::new();
    let mut pages = 0;
    for header in headers.iter() {
        match header.p_type {
            PT_INTERP => return Err(bad("it asks for a dynamic linker")),
            PT_TLS => return Err(bad("it has thread-local storage")),
            PT_LOAD if header.p_memsz > 0 => {
                let segment = segment(&header).ok_or(bad("a segment is out of bounds"))?;
                if segment.page < pages {
                    return Err(bad("its segments overlap or are out of order"));
                }
                if header.p_flags & PF_W != 0 && header.p_flags & PF_X != 0 {
                    return Err(bad("a segment is both writable and executable"));
                }
                pages = segment.page + segment.pages;
                segments.push(segment);
            }
            _ => {}
        }
    }
    if segments.is_empty() {
        return Err(bad("it has nothing to load"));
    }
    let mut content = Vec::new();
    // A file may ask for far more memory than it is long.
    content
        .try_reserve_exact(pages * PAGE_BYTES)
        .map_err(|_| bad("there is no memory for it"))?;
    content.resize(pages * PAGE_BYTES, 0u8);
    for header in headers
        .iter()
        .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0)
    {
        let data = elf
            .segment_data(&header)
            .map_err(|_| bad("a segment is not in the file"))?;
        let start = header.p_vaddr as usize;
        let place = content
            .get_mut(start..start + data.len())
            .ok_or(bad("a segment is out of bounds"))?;
        if data.len() as u64 > header.p_memsz {
            return Err(bad("a segment is larger in the file than in memory"));
        }
        place.copy_from_slice(data);
    }
    let relocations = relocations(&elf, &content)?;
    let entry = elf.ehdr.e_entry as usize;
    let executable = |segment: &&Segment| {
        segment.usage == Use::ReadExecute
            && (segment.page..segment.page + segment.pages).contains(&(entry / PAGE_BYTES))
    };
    if segments.iter().find(executable).is_none() {
        return Err(bad("its entry is not in executable memory"));
    }
    Ok(Plan {
        content,
        segments,
        relocations,
        entry,
        build,
        signature,
        symbols: symbols.into(),
    })
}

fn segment(header: &ProgramHeader) -> Option<Segment> {
    let end = header.p_vaddr.checked_add(header.p_memsz)?;
    let page = header.p_vaddr as usize / PAGE_BYTES;
    let pages = usize::try_from(end)
        .ok()?
        .div_ceil(PAGE_BYTES)
        .checked_sub(page)?;
    let usage = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
        (true, _) => Use::ReadWrite,
        (false, true) => Use::ReadExecute,
        (false, false) => Use::Read,
    };
    (page.checked_add(pages)? <= PAGE_LIMIT).then_some(Segment { page, pages, usage })
}

/// The file's relocations, each checked to be a word inside of `content`, with an addend that is an address inside of it.
fn relocations(elf: &ElfBytes<'_, LittleEndian>, content: &[u8]) -> Result<Vec<(u32, u32)>, ImageError> {
    let bad = |what: &'static str| ImageError::BadElf(what);
    let (mut table, mut size) = (0, 0);
    if let Some(dynamic) = elf.dynamic().map_err(|_| bad("its dynamic section is damaged"))? {
        for entry in dynamic.iter() {
            match entry.d_tag {
                DT_RELA => table = entry.d_ptr() as usize,
                DT_RELASZ => size = entry.d_val() as usize,
                DT_REL | DT_RELR | DT_JMPREL => {
                    return Err(bad("it has relocations of a kind that it shouldn't have"));
                }
                _ => {}
            }
        }
    }
    let end = table
        .checked_add(size)
        .ok_or(bad("its relocations are out of bounds"))?;
    let bytes = content
        .get(table..end)
        .ok_or(bad("its relocations are out of bounds"))?;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let mut list = Vec::with_capacity(size / 24);
    for entry in bytes.chunks_exact(24) {
        let (offset, info, addend) = (word(&entry[..8]), word(&entry[8..16]), word(&entry[16..]));
        if info != u64::from(R_X86_64_RELATIVE) {
            return Err(bad("it has a relocation that is not relative"));
        }
        let inside = |end: u64| end <= content.len() as u64;
        if !offset.checked_add(8).is_some_and(inside) || !inside(addend) {
            return Err(bad("a relocation is out of bounds"));
        }
        list.push((offset as u32, addend as u32));
    }
    Ok(list)
}

impl Plan {
    /// Length of the image in pages.
    pub fn pages(&self) -> usize {
        self.content.len() / PAGE_BYTES
    }

    /// The bytes of `segment`, relocated to an image at `base`, into `memory`, which is as long as the segment.
    pub fn fill(&self, segment: &Segment, base: u64, memory: &mut [u8]) {
        let start = segment.page * PAGE_BYTES;
        let Some(content) = self.content.get(start..start + memory.len()) else {
            return;
        };
        memory.copy_from_slice(content);
        // Sorted by offset by the linker, but nothing depends on it; a word that spans two segments would have been refused by
        // its bounds only at the end of the image, so it is written to both parts as far as it lies in them.
        for &(offset, addend) in &self.relocations {
            let value = (base + u64::from(addend)).to_le_bytes();
            let Some(position) = (offset as usize).checked_sub(start) else {
                continue;
            };
            if let Some(place) = memory.get_mut(position..position + 8) {
                place.copy_from_slice(&value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan_of(elf: &[u8]) -> Result<Plan, ImageError> {
        plan(Verified {
            elf,
            symbols: &[],
            build: String::new(),
            signature: [0; SIGNATURE_BYTES],
        })
    }

    #[test]
    fn text_is_not_an_elf() {
        assert!(matches!(plan_of(b"hello"), Err(ImageError::BadElf(_))));
    }

    proptest! {
        /// Signed or not, no file makes the loader panic.
        #[test]
        fn damaged_files_are_refused_without_a_panic(change in proptest::collection::vec((0usize..4096, any::<u8>()), 1..20)) {
            // Any ELF will do as a start: this test's own.
            let path = std::env::current_exe().expect("a test has a path");
            let mut file = std::fs::read(path).expect("it can be read");
            for (position, value) in change {
                if let Some(byte) = file.get_mut(position) {
                    *byte = value;
                }
            }
            plan_of(&file).ok();
        }
    }
}
