//! The table of function names that a kernel fault's backtrace is printed with.
//!
//! A host tool writes it after linking (`encode` in deploy/symbols), the kernel reads it; the format is this
//! file's. All numbers are little-endian: 8 bytes magic, a 32-bit count; for each symbol, sorted by address,
//! a 64-bit address, a 32-bit size, a 32-bit offset of its name from the start of the table; names are UTF-8
//! after a 16-bit length.

/// The first bytes of a table.
pub const MAGIC: [u8; 8] = *b"RLSYMS01";
/// Bytes before the first symbol.
pub const HEADER_LENGTH: usize = 12;
/// Bytes for each symbol.
pub const ENTRY_LENGTH: usize = 16;

/// A symbol table in its encoded form. Damaged tables answer with nothing; they can't do harm.
#[derive(Clone, Copy)]
pub struct SymbolTable<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The function's demangled name.
    pub name: &'a str,
    /// Bytes from the function's start.
    pub offset: u64,
}

impl<'a> SymbolTable<'a> {
    /// The table in `bytes`, if there is one.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let count = u32::from_le_bytes(array(bytes, 8)?) as usize;
        let whole = count.checked_mul(ENTRY_LENGTH)?.checked_add(HEADER_LENGTH)? <= bytes.len();
        (bytes.starts_with(&MAGIC) && whole).then_some(Self { bytes, count })
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The function that `address` is in.
    pub fn find(&self, address: u64) -> Option<Location<'a>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.0 <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let (start, size, name) = self.entry(low.checked_sub(1)?)?;
        let offset = address - start;
        if offset >= u64::from(size).max(1) {
            return None;
        }
        let length = usize::from(u16::from_le_bytes(array(self.bytes, name)?));
        let text = self.bytes.get(name + 2..)?.get(..length)?;
        Some(Location {
            name: core::str::from_utf8(text).ok()?,
            offset,
        })
    }

    fn entry(&self, index: usize) -> Option<(u64, u32, usize)> {
        let at = HEADER_LENGTH + index * ENTRY_LENGTH;
        let address = u64::from_le_bytes(array(self.bytes, at)?);
        let size = u32::from_le_bytes(array(self.bytes, at + 8)?);
        Some((
            address,
            size,
            u32::from_le_bytes(array(self.bytes, at + 12)?) as usize,
        ))
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn table(symbols: &[(u64, u32, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((symbols.len() as u32).to_le_bytes());
        let mut names = Vec::new();
        let names_at = HEADER_LENGTH + symbols.len() * ENTRY_LENGTH;
        for &(address, size, name) in symbols {
            bytes.extend(address.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(((names_at + names.len()) as u32).to_le_bytes());
            names.extend((name.len() as u16).to_le_bytes());
            names.extend(name.as_bytes());
        }
        bytes.extend(names);
        bytes
    }

    #[test]
    fn finds_the_function_around_an_address() {
        let bytes = table(&[
            (0x1000, 0x10, "first"),
            (0x1010, 0x20, "second"),
            (0x2000, 0, "label"),
        ]);
        let table = SymbolTable::parse(&bytes).expect("well-formed");
        assert_eq!(
            table.find(0x101f),
            Some(Location {
                name: "second",
                offset: 15
            })
        );
        assert_eq!(
            table.find(0x2000),
            Some(Location {
                name: "label",
                offset: 0
            })
        );
        assert_eq!(table.find(0x1030), None);
        assert_eq!(table.find(0xfff), None);
    }

    proptest! {
        /// No input makes a lookup panic or return a name that isn't in the table's bytes.
        #[test]
        fn damage_is_harmless(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), address: u64, magic: bool) {
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&MAGIC);
            }
            if let Some(found) = SymbolTable::parse(&bytes).and_then(|table| table.find(address)) {
                prop_assert!(found.name.len() <= bytes.len());
            }
        }
    }
}
