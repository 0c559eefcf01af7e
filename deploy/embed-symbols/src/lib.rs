//! The table of function names of an ELF file, in the format of `kernel::symbols`.
//!
//! The firmware's build leaves an empty section for it, since a linker can't write a table of what it links.
//! [`embed`] fills that section afterwards; [`table`] makes the table of any image. For domain images [`split`] makes two parts of a file: what
//! is loaded, and the table in place of the symbols that the linker wrote.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, anyhow, bail};
use kernel::symbols::{ENTRY_LENGTH, HEADER_LENGTH, MAGIC};
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;
use std::path::Path;

/// The section that the firmware keeps free.
const SECTION: &str = ".kernel_symbols";
/// Longest name that is written, in bytes; longer ones are generic code's, and cut off.
const NAME_LIMIT: usize = 200;

/// What [`embed`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Symbols in the table.
    pub symbols: usize,
    /// Bytes that the table takes.
    pub bytes: usize,
    /// Bytes that there is room for.
    pub room: usize,
}

/// The table of an ELF image's functions, by their addresses in it.
pub fn table(image: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(image).context("not an ELF file")?;
    let mut functions = BTreeMap::new();
    for symbol in file.symbols() {
        // Labels of assembly have no type.
        let code = matches!(
            symbol.kind(),
            SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown
        );
        if let Ok(name) = symbol.name()
            && code
            && symbol.is_definition()
            && !name.is_empty()
            && in_code(&file, &symbol)
        {
            let name = format!("{:#}", rustc_demangle::demangle(name));
            let known = functions.entry(symbol.address()).or_insert((0, String::new()));
            if known.1.is_empty() || symbol.size() > known.0 {
                *known = (symbol.size(), name);
            }
        }
    }
    Ok(encode(&functions))
}

/// An image without what isn't loaded, and the table of its functions.
#[derive(Clone, Debug)]
pub struct Split {
    /// The ELF file up to the end of its last segment, without sections.
    pub loaded: Vec<u8>,
    /// Its functions.
    pub table: Vec<u8>,
}

/// Takes an image apart.
pub fn split(image: &[u8]) -> Result<Split> {
    let header = FileHeader64::<LittleEndian>::parse(image).context("not an ELF file")?;
    let segments = header
        .program_headers(LittleEndian, image)
        .context("no program headers")?;
    let end = segments
        .iter()
        .map(|segment| segment.file_range(LittleEndian))
        .map(|(offset, size)| offset.saturating_add(size))
        .max()
        .context("no segments")?;
    let mut loaded = image
        .get(..usize::try_from(end)?)
        .context("a segment reaches beyond the file")?
        .to_vec();
    let (header, _) = object::pod::from_bytes_mut::<FileHeader64<LittleEndian>>(&mut loaded)
        .map_err(|()| anyhow!("no room for a header"))?;
    header.e_shoff.set(LittleEndian, 0);
    header.e_shnum.set(LittleEndian, 0);
    header.e_shstrndx.set(LittleEndian, 0);
    Ok(Split {
        loaded,
        table: table(image)?,
    })
}

fn in_code(file: &object::File<'_>, symbol: &object::Symbol<'_, '_>) -> bool {
    let section = symbol
        .section_index()
        .and_then(|index| file.section_by_index(index).ok());
    section.is_some_and(|section| section.kind() == object::SectionKind::Text)
}

/// Encodes functions by address; one without a size reaches up to the next one.
fn encode(functions: &BTreeMap<u64, (u64, String)>) -> Vec<u8> {
    let mut names = Vec::new();
    let mut entries = Vec::with_capacity(functions.len() * ENTRY_LENGTH);
    let names_start = HEADER_LENGTH + functions.len() * ENTRY_LENGTH;
    let following = functions.keys().skip(1).copied().chain([u64::MAX]);
    for ((&address, (size, name)), next) in functions.iter().zip(following) {
        let size = if *size == 0 {
            (next - address).min(4096)
        } else {
            *size
        };
        let mut end = name.len().min(NAME_LIMIT);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        entries.extend(address.to_le_bytes());
        entries.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        entries.extend(((names_start + names.len()) as u32).to_le_bytes());
        names.extend((end as u16).to_le_bytes());
        names.extend(&name.as_bytes()[..end]);
    }
    [
        &MAGIC[..],
        &(functions.len() as u32).to_le_bytes(),
        &entries,
        &names,
    ]
    .concat()
}

/// Writes the table of the firmware's functions into its own file.
pub fn embed(path: &Path) -> Result<Embedded> {
    let mut image = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let table = table(&image)?;
    let (offset, room) = {
        let file = object::File::parse(&*image).context("not an ELF file")?;
        let section = file
            .section_by_name(SECTION)
            .with_context(|| format!("no section {SECTION}"))?;
        section
            .file_range()
            .with_context(|| format!("section {SECTION} is not in the file"))?
    };
    if table.len() as u64 > room {
        bail!(
            "{} bytes of symbols don't fit into {room} bytes of section {SECTION}",
            table.len()
        );
    }
    let (offset, room) = (usize::try_from(offset)?, usize::try_from(room)?);
    let section = image
        .get_mut(offset..offset + room)
        .context("the section reaches beyond the file")?;
    section.fill(0);
    section[..table.len()].copy_from_slice(&table);
    std::fs::write(path, &image).with_context(|| format!("can't write {}", path.display()))?;
    let symbols = u32::from_le_bytes([table[8], table[9], table[10], table[11]]) as usize;
    Ok(Embedded {
        symbols,
        bytes: table.len(),
        room,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::symbols::SymbolTable;
    use object::ObjectSegment;

    #[test]
    fn the_kernel_finds_what_was_encoded() {
        let long = "x".repeat(500);
        let functions = BTreeMap::from([
            (0x1000, (16, "first".into())),
            (0x1010, (0, "second".into())),
            (0x1100, (4, long)),
        ]);
        let bytes = encode(&functions);
        let table = SymbolTable::parse(&bytes).expect("well-formed");
        assert_eq!(table.find(0x100f).map(|found| found.name), Some("first"));
        assert_eq!(
            table.find(0x10ff).map(|found| (found.name, found.offset)),
            Some(("second", 0xef))
        );
        assert_eq!(table.find(0x1103).map(|found| found.name.len()), Some(NAME_LIMIT));
        assert_eq!(table.find(0x1104), None);
    }

    /// This very test program has a function of this name.
    #[test]
    fn a_programs_own_functions_are_found() {
        let image = std::fs::read(std::env::current_exe().expect("a program has a path")).expect("readable");
        let bytes = table(&image).expect("it is an ELF file");
        let names = String::from_utf8_lossy(&bytes).into_owned();
        assert!(names.contains("a_programs_own_functions_are_found"));
    }

    /// Without sections the same segments are there, and the names are in the table.
    #[test]
    fn a_split_image_has_its_segments_and_no_sections() {
        let image = std::fs::read(std::env::current_exe().expect("a program has a path")).expect("readable");
        let split = split(&image).expect("it is an ELF file");
        let file = object::File::parse(&*split.loaded).expect("it still is one");
        assert_eq!(file.sections().count(), 0);
        let whole = object::File::parse(&*image).expect("it is one");
        let ranges = |file: &object::File<'_>| -> Vec<(u64, Vec<u8>)> {
            let content =
                |segment: object::Segment<'_, '_>| (segment.address(), segment.data().unwrap().to_vec());
            file.segments().map(content).collect()
        };
        // The header itself is part of the first segment here, and differs.
        assert_eq!(ranges(&file)[1..], ranges(&whole)[1..]);
        assert!(split.loaded.len() < image.len());
        let table = SymbolTable::parse(&split.table).expect("well-formed");
        assert!(!table.is_empty());
    }
}
