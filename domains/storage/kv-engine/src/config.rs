//! The `[store]` section of the operator's file, config/appliance.toml: what the store may take of the domain's memory.
//!
//! Reads and checks; other sections are other domains' and are not looked at.

use crate::engine::Limits;
use serde::Deserialize;
use settings::{Section, SettingsError, Spanned};

/// Bytes in a mebibyte.
const MIB: usize = 1 << 20;

/// Without the section: for 6 million keys.
impl Default for Limits {
    fn default() -> Self {
        Limits {
            index_bytes: 192 * MIB,
            cache_bytes: 16 * MIB,
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    store: Keys,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Memory for the index at most, in MiB: it doubles when three quarters full, 16 bytes a key, and old and new are there meanwhile.
    index_mib: Option<Spanned<i64>>,
    /// Memory for records that were read, in MiB.
    cache_mib: Option<Spanned<i64>>,
}

/// Reads the whole of config/appliance.toml; without a `[store]` section all is at its default.
///
/// # Errors
/// The first mistake found.
pub fn read(text: &str) -> Result<Limits, SettingsError> {
    /// Most that each may take, in MiB.
    const MOST: i64 = 65_536;
    let section = Section::new("store", text);
    let keys = section.parse::<File>()?.store;
    let mut limits = Limits::default();
    section.mebibytes("index_mib", &keys.index_mib, 1..=MOST, &mut limits.index_bytes)?;
    section.mebibytes("cache_mib", &keys.cache_mib, 0..=MOST, &mut limits.cache_bytes)?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn sections() {
        assert_eq!(read("[other]\na = 1\n"), Ok(Limits::default()));
        let limits = read("[store]\nindex_mib = 8\ncache_mib = 0\n").unwrap();
        assert_eq!((limits.index_bytes, limits.cache_bytes), (8 * MIB, 0));
        let error = read("[store]\nindex_mib = 0\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: store.index_mib: 0 is not from 1 to 65536"
        );
        let error = read("[store]\nindx_mib = 0\n").unwrap_err();
        assert_eq!(error.line, 2);
    }
}
