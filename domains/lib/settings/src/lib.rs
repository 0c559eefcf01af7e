//! A domain's section of the operator's file, config/appliance.toml.
//!
//! What the sections hold is their domains' business: each declares its keys as a type and checks their values with a
//! [`Section`], which turns every mistake into a [`SettingsError`] with line and key, in words that an operator can act on. The
//! host checks the file with the very same readers before it builds an image (`deploy/configuration`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use core::ops::RangeInclusive;
use domain_rt::StartError;
use rref::BootBytes;
use serde::de::DeserializeOwned;
pub use toml::Spanned;

/// The operator's file in the boot archive.
pub const PATH: &str = "config/appliance.toml";

/// A mistake in the operator's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {key}: {problem}")]
pub struct SettingsError {
    /// Line of the file, from 1.
    pub line: usize,
    /// The key concerned: with its section, or as it stands on that line.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What `read` makes of the boot archive's file, or of an empty one if there is none: what a domain starts with.
///
/// # Errors
/// The file is no text, or has a mistake.
pub fn at_start<T>(read: impl FnOnce(&str) -> Result<T, SettingsError>) -> Result<T, StartError> {
    let bytes = BootBytes::open(PATH).map_or(&[][..], |file| file.as_slice());
    let text =
        core::str::from_utf8(bytes).map_err(|_| StartError::new(format_args!("{PATH} is not UTF-8")))?;
    read(text).map_err(|error| StartError::new(format_args!("{PATH}, {error}")))
}

/// The text of the operator's file, and the section of it that is read.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    text: &'a str,
    name: &'static str,
}

impl<'a> Section<'a> {
    /// The section `name` of a file with this text.
    pub fn new(name: &'static str, text: &'a str) -> Self {
        Section { text, name }
    }

    /// Reads the whole file as a `T`: one field for each section that the domain looks at; others are left alone.
    ///
    /// # Errors
    /// It isn't TOML, or a section has a key that its type doesn't know, or a value of another type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        toml::from_str(self.text).map_err(|error| {
            let line = self.line(error.span().map_or(0, |span| span.start));
            let content = self.text.lines().nth(line - 1).unwrap_or_default();
            let key = content.split(['=', '#']).next().unwrap_or_default().trim();
            SettingsError {
                line,
                key: if key.is_empty() { self.name } else { key }.to_string(),
                problem: error.message().trim().to_string(),
            }
        })
    }

    /// A mistake in the value `at`, which `key` has in this section.
    pub fn error<T>(&self, at: &Spanned<T>, key: &str, problem: impl ToString) -> SettingsError {
        SettingsError {
            line: self.line(at.span().start),
            key: format!("{}.{key}", self.name),
            problem: problem.to_string(),
        }
    }

    /// Sets `value` to the number that the file gives, if it gives one.
    ///
    /// # Errors
    /// The number is outside `range`, or nothing that a `T` can hold.
    pub fn number<T: TryFrom<i64>>(
        &self,
        key: &str,
        given: &Option<Spanned<i64>>,
        range: RangeInclusive<i64>,
        value: &mut T,
    ) -> Result<(), SettingsError> {
        self.scaled(key, given, range, 1, value)
    }

    /// Sets `bytes` to the mebibytes that the file gives, if it gives some. `range` is in mebibytes.
    ///
    /// # Errors
    /// As [`Section::number`].
    pub fn mebibytes<T: TryFrom<i64>>(
        &self,
        key: &str,
        given: &Option<Spanned<i64>>,
        range: RangeInclusive<i64>,
        bytes: &mut T,
    ) -> Result<(), SettingsError> {
        self.scaled(key, given, range, 1 << 20, bytes)
    }

    fn scaled<T: TryFrom<i64>>(
        &self,
        key: &str,
        given: &Option<Spanned<i64>>,
        range: RangeInclusive<i64>,
        unit: i64,
        value: &mut T,
    ) -> Result<(), SettingsError> {
        let Some(given) = given else { return Ok(()) };
        let number = *given.get_ref();
        let in_units = number
            .checked_mul(unit)
            .and_then(|scaled| T::try_from(scaled).ok());
        match in_units {
            Some(fitting) if range.contains(&number) => {
                *value = fitting;
                Ok(())
            }
            _ => {
                let problem = format!("{number} is not from {} to {}", range.start(), range.end());
                Err(self.error(given, key, problem))
            }
        }
    }

    /// Line of a byte offset, from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        shop: Shop,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Shop {
        doors: Option<Spanned<i64>>,
        cellar_mib: Option<Spanned<i64>>,
    }

    fn read(text: &str) -> Result<(u8, u64), SettingsError> {
        let section = Section::new("shop", text);
        let shop = section.parse::<File>()?.shop;
        let (mut doors, mut cellar_bytes) = (2_u8, 5_u64);
        section.number("doors", &shop.doors, 1..=1000, &mut doors)?;
        section.mebibytes("cellar_mib", &shop.cellar_mib, 0..=64, &mut cellar_bytes)?;
        Ok((doors, cellar_bytes))
    }

    #[test]
    fn what_the_file_does_not_give_stays() {
        assert_eq!(read(""), Ok((2, 5)));
        assert_eq!(read("[other]\nanything = []\n[shop]\n"), Ok((2, 5)));
        assert_eq!(read("[shop]\ndoors = 255\ncellar_mib = 3\n"), Ok((255, 3 << 20)));
    }

    #[test]
    fn mistakes_are_told_with_line_and_key() {
        for (text, line, key, problem) in [
            ("[shop]\ndoors = 0\n", 2, "shop.doors", "0 is not from 1 to 1000"),
            // What the range allows and the type can't hold.
            (
                "[shop]\n\ndoors = 256\n",
                3,
                "shop.doors",
                "256 is not from 1 to 1000",
            ),
            (
                "[shop]\ncellar_mib = -1\n",
                2,
                "shop.cellar_mib",
                "-1 is not from 0 to 64",
            ),
            (
                "[other]\n[shop]\nwindows = 1 # big\n",
                3,
                "windows",
                "unknown field",
            ),
            ("[shop]\ndoors = \"two\"\n", 2, "doors", "invalid type"),
            ("[shop\n", 1, "[shop", ""),
            ("\n= 3\n", 2, "shop", ""),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.line, error.key.as_str()), (line, key), "{text:?}: {error}");
            assert!(error.problem.contains(problem), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_domain_starts_with_the_boot_archives_file() {
        host_platform::attach();
        let start = || at_start(read).map_err(|error| error.to_string());
        assert_eq!(start(), Ok((2, 5)), "without a file");
        host_platform::add_boot_file(PATH, b"\n[shop]\ndoors = 7000\n");
        assert_eq!(
            start(),
            Err("config/appliance.toml, line 3: shop.doors: 7000 is not from 1 to 1000".to_string())
        );
    }
}
