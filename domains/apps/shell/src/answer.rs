//! An answer in both its forms: for people and for scripts.

use alloc::string::{String, ToString};
use serde_json::Value;

/// What a command answers; without a JSON form, `json` is null.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// For people: lines without a last line end.
    pub text: String,
    /// For scripts.
    pub json: Value,
}

impl Answer {
    /// An answer for people only.
    pub fn text(text: impl Into<String>) -> Answer {
        Answer {
            text: text.into(),
            json: Value::Null,
        }
    }

    /// The form that was asked for.
    pub fn render(self, json: bool) -> String {
        if json { self.json.to_string() } else { self.text }
    }
}

/// An error as a sentence: it begins with a capital and ends with a full stop.
pub fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    let mut result: String = first.chain(characters).collect();
    if !result.ends_with(['.', '?', '!']) {
        result.push('.');
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sentences() {
        assert_eq!(
            sentence("the domain is not running"),
            "The domain is not running."
        );
        assert_eq!(sentence("Why?"), "Why?");
    }
}
