//! Errors in a configuration file, with the place.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its content is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong, as a sentence.
        message: String,
    },
}

/// A configuration file's text with its name, to make errors from.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let place = error.span().unwrap_or(0..0);
            self.error(place, error.message().trim())
        })
    }

    /// An error at a byte range of the text.
    pub(crate) fn error(&self, place: Range<usize>, message: impl Into<String>) -> ConfigError {
        let before = self.text.get(..place.start).unwrap_or(&self.text);
        self.error_at(before.matches('\n').count() + 1, message)
    }

    /// An error in a line, counted from 1.
    pub(crate) fn error_at(&self, line: usize, message: impl Into<String>) -> ConfigError {
        ConfigError::Content {
            path: self.path.clone(),
            line,
            message: message.into(),
        }
    }
}
