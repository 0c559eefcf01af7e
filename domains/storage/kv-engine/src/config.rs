//! The `[store]` section of the operator's file, config/appliance.toml: what the store may take of the domain's memory.
//!
//! Reads and checks; other sections are other domains' and are not looked at.

use crate::engine::Limits;
use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;
use serde::Deserialize;
use toml::Spanned;

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

/// A mistake in the operator's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {key}: {problem}")]
pub struct ConfigError {
    /// Line of the file, from 1.
    pub line: usize,
    /// The key concerned.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    store: Section,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Section {
    /// Memory for the index at most, in MiB: it doubles when three quarters full, 16 bytes a key, and old and new are there meanwhile.
    index_mib: Option<Spanned<u32>>,
    /// Memory for records that were read, in MiB.
    cache_mib: Option<Spanned<u32>>,
}

/// Reads the whole of config/appliance.toml; without a `[store]` section all is at its default.
///
/// # Errors
/// The first mistake found.
pub fn read(text: &str) -> Result<Limits, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| ConfigError {
        line: line(text, error.span()),
        key: "[store]".into(),
        problem: error.message().to_string(),
    })?;
    let defaults = Limits::default();
    Ok(Limits {
        index_bytes: mebibytes(text, "index_mib", &file.store.index_mib, 1, defaults.index_bytes)?,
        cache_bytes: mebibytes(text, "cache_mib", &file.store.cache_mib, 0, defaults.cache_bytes)?,
    })
}

fn mebibytes(
    text: &str,
    key: &str,
    given: &Option<Spanned<u32>>,
    least: u32,
    default: usize,
) -> Result<usize, ConfigError> {
    const MOST: u32 = 65_536;
    let Some(given) = given else { return Ok(default) };
    if (least..=MOST).contains(given.get_ref()) {
        return Ok(*given.get_ref() as usize * MIB);
    }
    Err(ConfigError {
        line: line(text, Some(given.span())),
        key: key.into(),
        problem: format!("{} is not between {least} and {MOST}", given.get_ref()),
    })
}

fn line(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or_default();
    1 + before.matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections() {
        assert_eq!(read("[other]\na = 1\n"), Ok(Limits::default()));
        let limits = read("[store]\nindex_mib = 8\ncache_mib = 0\n").unwrap();
        assert_eq!((limits.index_bytes, limits.cache_bytes), (8 * MIB, 0));
        let error = read("[store]\nindex_mib = 0\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: index_mib: 0 is not between 1 and 65536"
        );
        let error = read("[store]\nindx_mib = 0\n").unwrap_err();
        assert_eq!(error.line, 2);
    }
}
