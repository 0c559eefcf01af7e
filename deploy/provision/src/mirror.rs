//! The Debian mirror that this machine already uses, read from its own apt configuration.
//!
//! Both formats of `sources.list(5)` are understood: one-line (`*.list`) and deb822 (`*.sources`). No mirror is ever
//! written into the project; a machine behind a private mirror works as it is.

use std::fs;
use std::path::Path;

use crate::Error;

/// Where Debian's main archive is fetched from, and the keyring that its signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianMirror {
    /// The archive's base address, such as the one in a `URIs:` field.
    pub uri: String,
    /// The keyring: the one named by the source, or Debian's own.
    pub keyring: String,
}

/// Debian's own keyring; the one of Debian 12 already holds the keys of Debian 13.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Finds the mirror of Debian's main archive in `/etc/apt`.
///
/// # Errors
/// [`Error::NoMirror`] when no source looks like Debian's archive.
pub fn debian_mirror() -> Result<DebianMirror, Error> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "list" => from_list(&text),
                "sources" => from_sources(&text),
                _ => None,
            }
        })
        .next()
        .ok_or(Error::NoMirror)
}

/// Debian's main archive is the one whose address ends in `/debian`, wherever it is mirrored.
fn is_main_archive(uri: &str) -> bool {
    uri.trim_end_matches('/').ends_with("/debian")
}

fn mirror(uri: &str, keyring: Option<&str>) -> DebianMirror {
    let keyring = keyring
        .filter(|path| path.starts_with('/'))
        .unwrap_or(DEBIAN_KEYRING);
    DebianMirror {
        uri: uri.trim_end_matches('/').to_owned(),
        keyring: keyring.to_owned(),
    }
}

/// One-line format: `deb [options] URI suite component…`.
fn from_list(text: &str) -> Option<DebianMirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => ("", rest),
        };
        let uri = rest.split_whitespace().next()?;
        let keyring = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        is_main_archive(uri).then(|| mirror(uri, keyring))
    })
}

/// Deb822 format: stanzas of `Field: value`, separated by empty lines; comments begin with `#`.
fn from_sources(text: &str) -> Option<DebianMirror> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no")) {
            return None;
        }
        let uri = field("URIs")?
            .split_whitespace()
            .find(|uri| is_main_archive(uri))?;
        Some(mirror(uri, field("Signed-By")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_deb822_sources() {
        let text = "Types: deb\n# a comment: with a colon\nURIs: http://mirror.example/debian-security\n\n\
                    Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\nSigned-By: /keys/debian.gpg\n";
        let found = from_sources(text).unwrap();
        assert_eq!(found.uri, "http://mirror.example/debian");
        assert_eq!(found.keyring, "/keys/debian.gpg");
    }

    #[test]
    fn reads_one_line_sources_with_and_without_options() {
        let with = from_list(
            "# deb http://no.example/debian x\ndeb [arch=amd64 signed-by=/k.gpg] https://m.example/debian bookworm main",
        );
        assert_eq!(
            with,
            Some(DebianMirror {
                uri: "https://m.example/debian".into(),
                keyring: "/k.gpg".into()
            })
        );
        let without = from_list("deb https://m.example/debian/ bookworm main\n").unwrap();
        assert_eq!(without.keyring, DEBIAN_KEYRING);
    }

    #[test]
    fn other_archives_and_disabled_sources_are_passed_over() {
        assert_eq!(
            from_list("deb https://m.example/debian-security bookworm-security main"),
            None
        );
        assert_eq!(from_list("deb-src https://m.example/debian bookworm main"), None);
        assert_eq!(
            from_sources("Enabled: no\nURIs: https://m.example/debian\n"),
            None
        );
    }
}
