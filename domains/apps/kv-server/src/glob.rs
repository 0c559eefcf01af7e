//! Patterns of KEYS, SCAN and PSUBSCRIBE: `*`, `?`, `[a-z]`, `[^a]` and a backslash before a literal.

/// Whether all of `text` matches `pattern`. Takes time in proportion to the product of their lengths at most.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when what follows the last `*` doesn't match: behind that `*`, one byte further in the text.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    loop {
        if let Some(b'*') = pattern.get(p) {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        let next = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => one(pattern, p, byte),
            (None, Some(_)) => None,
            (Some(_), None) => return false,
        };
        match (next, retry) {
            (Some(behind), _) => (p, t) = (behind, t + 1),
            (None, Some((pattern_at, text_at))) => {
                retry = Some((pattern_at, text_at + 1));
                (p, t) = (pattern_at, text_at + 1);
            }
            (None, None) => return false,
        }
    }
}

/// Whether the element at `p`, which is no `*`, matches `byte`: where the next element begins.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte),
        b'\\' => match pattern.get(p + 1) {
            Some(&literal) => (literal == byte).then_some(p + 2),
            None => (byte == b'\\').then_some(p + 1),
        },
        literal => (literal == byte).then_some(p + 1),
    }
}

/// A class whose first byte behind the bracket is at `p`. One that isn't closed ends with the pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let inverted = pattern.get(p) == Some(&b'^');
    if inverted {
        p += 1;
    }
    let mut found = false;
    loop {
        match pattern.get(p) {
            None => break,
            Some(b']') => {
                p += 1;
                break;
            }
            Some(b'\\') if p + 1 < pattern.len() => {
                found |= pattern.get(p + 1) == Some(&byte);
                p += 2;
            }
            Some(&first) => match (pattern.get(p + 1), pattern.get(p + 2)) {
                (Some(b'-'), Some(&last)) => {
                    let (low, high) = (first.min(last), first.max(last));
                    found |= (low..=high).contains(&byte);
                    p += 3;
                }
                _ => {
                    found |= first == byte;
                    p += 1;
                }
            },
        }
    }
    (found != inverted).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::prelude::v1::*;

    #[test]
    fn every_element_matches_what_it_should() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[bx]c", "abc", true),
            ("a[^bx]c", "abc", false),
            ("a[a-c]c", "abc", true),
            ("a[c-a]c", "abc", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a[\\]]", "a]", true),
            ("h[ae]llo", "hello", true),
            ("[", "a", false),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} on {text}"
            );
        }
    }

    proptest! {
        /// Any bytes are a pattern, and a pattern of stars alone matches all.
        #[test]
        fn any_pattern_ends(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
            prop_assert!(matches(b"***", &text));
        }
    }
}
