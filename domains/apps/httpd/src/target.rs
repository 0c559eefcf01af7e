//! What a request's path names (RFC 3986, 2.1 and 6.2.2): percent-encoding, dot segments, query.
//!
//! Gives the one spelling under which the site knows a resource. Nothing outside the site can be named: a path that leaves the
//! root is refused, and a slash that was percent-encoded never separates.

use alloc::vec::Vec;

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It isn't a path: a bad byte or percent-encoding, or a way out of the root.
    Malformed,
    /// It is one that no resource can have.
    Nothing,
}

/// The path of an origin-form target, decoded and without dot segments and empty ones; the query is left out.
///
/// Begins with a slash, and ends with one when the target's path does or when it ends in a dot segment.
pub fn normalise(target: &[u8]) -> Result<Vec<u8>, PathError> {
    if !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        return Err(PathError::Malformed);
    }
    let end = target
        .iter()
        .position(|byte| *byte == b'?')
        .unwrap_or(target.len());
    let (path, _query) = target.split_at(end);
    let mut result = Vec::with_capacity(path.len() + 1);
    // Where each segment in `result` begins, at its slash.
    let mut starts: Vec<usize> = Vec::new();
    let mut directory = true;
    let mut nothing = false;
    for segment in path.split(|byte| *byte == b'/') {
        let start = result.len();
        result.push(b'/');
        nothing |= decode(segment, &mut result)?;
        match result.get(start + 1..).unwrap_or_default() {
            b"" | b"." => {
                result.truncate(start);
                directory = true;
            }
            b".." => {
                result.truncate(starts.pop().ok_or(PathError::Malformed)?);
                directory = true;
            }
            _ => {
                starts.push(start);
                directory = false;
            }
        }
    }
    if nothing {
        return Err(PathError::Nothing);
    }
    if directory {
        result.push(b'/');
    }
    Ok(result)
}

/// Decodes a segment to the end of `result`; true when it has a byte that no segment can have.
fn decode(segment: &[u8], result: &mut Vec<u8>) -> Result<bool, PathError> {
    let mut nothing = false;
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            result.push(byte);
            continue;
        }
        let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(PathError::Malformed);
        };
        let decoded = (high * 16 + low) as u8;
        if decoded == 0 {
            return Err(PathError::Malformed);
        }
        nothing |= decoded == b'/';
        result.push(decoded);
    }
    Ok(nothing)
}

/// Adds a path of the site to `result`, percent-encoded for a Location field.
pub fn encode(path: &[u8], result: &mut Vec<u8>) {
    for &byte in path {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
            result.push(byte);
        } else {
            let digit = |value: u8| {
                char::from_digit(u32::from(value), 16)
                    .unwrap_or('0')
                    .to_ascii_uppercase()
            };
            result.extend([b'%', digit(byte >> 4) as u8, digit(byte & 15) as u8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn path(target: &str) -> Result<String, PathError> {
        normalise(target.as_bytes()).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn one_spelling_for_all() {
        for (target, expected) in [
            ("/", "/"),
            ("", "/"),
            ("?x", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/%61%2e%2E/b?c=/../..", "/a../b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%20b", "/a b"),
            ("/a%252e", "/a%2e"),
            ("/...", "/..."),
        ] {
            assert_eq!(path(target).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn the_root_is_not_left() {
        for target in [
            "/..",
            "/../etc/passwd",
            "/a/../../b",
            "/%2e%2e/",
            "/.%2e",
            "/a/..//../..",
        ] {
            assert_eq!(path(target), Err(PathError::Malformed), "{target}");
        }
    }

    #[test]
    fn what_no_path_has_is_refused() {
        for target in ["/%00", "/a%0", "/a%", "/%gg", "/a#b", "/\u{e4}", "/%+1"] {
            assert_eq!(path(target), Err(PathError::Malformed), "{target}");
        }
        assert_eq!(path("/a%2fb"), Err(PathError::Nothing));
        assert_eq!(path("/a/..%2f..%2fetc/passwd"), Err(PathError::Nothing));
    }

    proptest! {
        #[test]
        fn a_result_is_absolute_and_has_no_dot_segments(target: Vec<u8>) {
            if let Ok(path) = normalise(&target) {
                prop_assert_eq!(path.first(), Some(&b'/'));
                for segment in path.split(|byte| *byte == b'/') {
                    prop_assert!(segment != b"." && segment != b"..");
                }
            }
        }

        #[test]
        fn what_is_encoded_is_decoded_again(segments in prop::collection::vec("[^/\0]{1,8}", 1..5)) {
            prop_assume!(segments.iter().all(|segment| segment != "." && segment != ".."));
            let path = format!("/{}", segments.join("/"));
            let mut encoded = Vec::new();
            encode(path.as_bytes(), &mut encoded);
            prop_assert_eq!(normalise(&encoded), Ok(path.into_bytes()));
        }
    }
}
