//! What a namespace is, as the controller says: the size of its blocks decides how much memory a command moves, so it is read here.

use core::fmt;
use core::num::NonZeroU32;

/// Namespace, as commands need it. Only an answer to Identify makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    id: NonZeroU32,
    block_shift: u8,
    blocks: u64,
    source: Source,
}

/// Who said so, and when: it is believed of that controller until that is turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Number of the controller among those that this domain has claimed.
    pub controller: u32,
    /// Its epoch.
    pub epoch: u32,
}

/// Why a namespace can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceError {
    /// It has no blocks: it isn't active, or the answer isn't about a namespace.
    Inactive,
    /// Its blocks are of 2 to this power bytes, not from 512 to 4,096.
    BlockSize(u8),
    /// Each block has as many bytes of metadata.
    Metadata(u16),
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamespaceError::Inactive => f.write_str("it is not active"),
            NamespaceError::BlockSize(shift) => write!(f, "its blocks have 2^{shift} bytes"),
            NamespaceError::Metadata(bytes) => write!(f, "its blocks have {bytes} bytes of metadata each"),
        }
    }
}

impl Namespace {
    /// Reads the structure of Identify Namespace (NVM command set 1.0, 4.1.5.1).
    pub(super) fn parse(source: Source, id: u32, structure: &[u8]) -> Result<Namespace, NamespaceError> {
        let id = NonZeroU32::new(id).ok_or(NamespaceError::Inactive)?;
        let field = |offset: usize| -> Option<u64> {
            let bytes = structure.get(offset..offset.checked_add(8)?)?;
            bytes.try_into().ok().map(u64::from_le_bytes)
        };
        let blocks = field(0)
            .filter(|&blocks| blocks != 0)
            .ok_or(NamespaceError::Inactive)?;
        // FLBAS: the format in use, its upper two bits apart.
        let formatted = structure.get(26).copied().unwrap_or(0);
        let format = usize::from(formatted & 0xF | (formatted >> 5 & 0x3) << 4);
        let format = field(128 + 4 * format).ok_or(NamespaceError::Inactive)? as u32;
        let metadata = format as u16;
        let block_shift = (format >> 16) as u8;
        if metadata != 0 {
            return Err(NamespaceError::Metadata(metadata));
        }
        if !(9..=12).contains(&block_shift) {
            return Err(NamespaceError::BlockSize(block_shift));
        }
        Ok(Namespace {
            id,
            block_shift,
            blocks,
            source,
        })
    }

    /// Its number.
    #[inline(always)]
    pub fn id(&self) -> u32 {
        self.id.get()
    }

    /// Bytes in a block: 512 to 4,096.
    #[inline(always)]
    pub fn block_bytes(&self) -> u32 {
        1 << self.block_shift
    }

    /// Blocks.
    #[inline(always)]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Who said so, and when.
    #[inline(always)]
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// Binary logarithm of the bytes in a block.
    #[inline(always)]
    pub(super) fn block_shift(&self) -> u8 {
        self.block_shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: Source = Source {
        controller: 1,
        epoch: 1,
    };

    fn structure(blocks: u64, formatted: u8, format: usize, value: u32) -> [u8; 4096] {
        let mut bytes = [0; 4096];
        bytes[..8].copy_from_slice(&blocks.to_le_bytes());
        bytes[26] = formatted;
        bytes[128 + 4 * format..][..4].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn the_format_in_use_counts() {
        let namespace = Namespace::parse(SOURCE, 3, &structure(1000, 1, 1, 12 << 16)).unwrap();
        assert_eq!(
            (namespace.id(), namespace.block_bytes(), namespace.blocks()),
            (3, 4096, 1000)
        );
        // Bits 4 to 5 of the format's number are in bits 5 to 6 of FLBAS.
        let namespace = Namespace::parse(SOURCE, 1, &structure(8, 0x21, 17, 9 << 16)).unwrap();
        assert_eq!(namespace.block_bytes(), 512);
    }

    #[test]
    fn what_would_move_other_lengths_is_refused() {
        let of = |value| Namespace::parse(SOURCE, 1, &structure(8, 0, 0, value));
        assert_eq!(of(9 << 16 | 8), Err(NamespaceError::Metadata(8)));
        assert_eq!(of(13 << 16), Err(NamespaceError::BlockSize(13)));
        assert_eq!(of(0), Err(NamespaceError::BlockSize(0)));
        assert_eq!(
            Namespace::parse(SOURCE, 1, &structure(0, 0, 0, 9 << 16)),
            Err(NamespaceError::Inactive)
        );
        assert_eq!(
            Namespace::parse(SOURCE, 0, &structure(8, 0, 0, 9 << 16)),
            Err(NamespaceError::Inactive)
        );
    }

    proptest! {
        #[test]
        fn any_answer_gives_a_usable_namespace_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512), id: u32) {
            if let Ok(namespace) = Namespace::parse(SOURCE, id, &bytes) {
                prop_assert!((512..=4096).contains(&namespace.block_bytes()));
                prop_assert!(namespace.blocks() > 0 && namespace.id() == id);
            }
        }
    }
}
