//! What SCAN, HSCAN, SSCAN and ZSCAN have in common.
//!
//! A cursor is the number of the slot to go on with, so it needs no memory between calls, and what is there all the time is given once.

use crate::command::Context;
use crate::error::CommandError;
use crate::glob;
use crate::value::Kind;
use alloc::vec::Vec;

/// Slots looked at if COUNT says nothing.
const COUNT: usize = 10;

/// MATCH, COUNT and TYPE.
pub struct ScanOptions {
    /// Slots to look at.
    pub count: usize,
    /// What names are to match.
    pub pattern: Option<Vec<u8>>,
    /// Keys of this type only.
    pub kind: Option<Kind>,
    /// NOVALUES.
    pub without_values: bool,
}

/// The cursor at this argument.
///
/// # Errors
/// When it is none.
pub fn cursor(context: &Context<'_>, index: usize) -> Result<u64, CommandError> {
    core::str::from_utf8(context.argument(index))
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(CommandError::Plain("ERR invalid cursor"))
}

impl ScanOptions {
    /// The options from the argument `index` on; TYPE is for SCAN only.
    ///
    /// # Errors
    /// When they aren't that.
    pub fn read(
        context: &Context<'_>,
        mut index: usize,
        with_type: bool,
    ) -> Result<ScanOptions, CommandError> {
        let mut options = ScanOptions {
            count: COUNT,
            pattern: None,
            kind: None,
            without_values: false,
        };
        while index < context.arguments.len() {
            let has_next = index + 1 < context.arguments.len();
            if context.arguments.is(index, "count") && has_next {
                let count = context.integer(index + 1)?;
                if count < 1 {
                    return Err(CommandError::Syntax);
                }
                options.count = count as usize;
            } else if context.arguments.is(index, "match") && has_next {
                options.pattern = Some(context.argument(index + 1).to_vec());
            } else if with_type && context.arguments.is(index, "type") && has_next {
                let name = context.argument(index + 1).to_ascii_lowercase();
                let kind = Kind::ALL.into_iter().find(|kind| kind.name().as_bytes() == name);
                options.kind = Some(kind.ok_or_else(|| {
                    let name = alloc::string::String::from_utf8_lossy(&name).into_owned();
                    CommandError::Text(alloc::format!("ERR unknown type name '{name}'"))
                })?);
            } else {
                return Err(CommandError::Syntax);
            }
            index += 2;
        }
        Ok(options)
    }

    /// Whether a name is wanted.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| glob::matches(pattern, name))
    }
}
