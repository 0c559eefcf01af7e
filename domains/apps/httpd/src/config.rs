//! The `[httpd]` section of the operator's file, config/appliance.toml.
//!
//! Reads and checks; other sections are other domains' and are not looked at.

use alloc::format;
use alloc::string::String;
use serde::Deserialize;
use settings::{Section, SettingsError, Spanned};
use subtle::ConstantTimeEq;

/// What the operator's file says of the HTTP server, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `port`: TCP port, 1 to 65535; 80 by default.
    pub port: u16,
    /// `connections`: open connections at most, shared evenly by the shards; 8192 by default.
    pub connections: u32,
    /// `header_bytes`: request line and header fields together at most, in bytes; 8192 by default.
    pub header_bytes: u32,
    /// `body_bytes`: a request's body at most, in bytes; it is read and thrown away. 65536 by default.
    pub body_bytes: u64,
    /// `buffer_bytes`: unfinished requests and unsent answers at most, in bytes over all connections; 32 MiB by default.
    pub buffer_bytes: u64,
    /// `request_timeout_ms`: a request must be complete this long after its first byte; 10 s by default.
    pub request_timeout_ms: u32,
    /// `idle_timeout_ms`: a connection without a request, or whose peer takes nothing, is closed after this; 60 s by default.
    pub idle_timeout_ms: u32,
    /// `upload_token`: what a client must show to upload images of domains, 16 to 64 printable ASCII characters without blanks; without
    /// it, which is the default, nobody can.
    pub upload_token: Option<Token>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            port: 80,
            connections: 8192,
            header_bytes: 8192,
            body_bytes: 65_536,
            buffer_bytes: 32 << 20,
            request_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            upload_token: None,
        }
    }
}

/// A secret that client and server share. It is not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    length: u8,
    bytes: [u8; TOKEN_LIMIT],
}

/// Longest token, in bytes.
const TOKEN_LIMIT: usize = 64;
/// Shortest one: 16 random characters are more than anybody can try.
const TOKEN_LEAST: usize = 16;

impl Token {
    /// A token; `None` if it is too short or too long, or has characters that a header field can't carry.
    pub fn new(text: &str) -> Option<Token> {
        let mut bytes = [0; TOKEN_LIMIT];
        if text.len() < TOKEN_LEAST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Token {
            length: text.len() as u8,
            bytes,
        })
    }

    /// Whether `shown` is this token. The time that it takes depends on the length of what was shown alone.
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        // Slices of different lengths are unequal at once: the length is no secret.
        bool::from(own.ct_eq(shown))
    }
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    httpd: Keys,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Keys {
    port: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    header_bytes: Option<Spanned<i64>>,
    body_bytes: Option<Spanned<i64>>,
    buffer_bytes: Option<Spanned<i64>>,
    request_timeout_ms: Option<Spanned<i64>>,
    idle_timeout_ms: Option<Spanned<i64>>,
    upload_token: Option<Spanned<String>>,
}

/// Reads the whole of config/appliance.toml; without an `[httpd]` section all is at its default.
///
/// # Errors
/// The first mistake found.
pub fn read(text: &str) -> Result<Config, SettingsError> {
    let section = Section::new("httpd", text);
    let keys = section.parse::<File>()?.httpd;
    let mut config = Config::default();
    section.number("port", &keys.port, 1..=65_535, &mut config.port)?;
    let connections = 1..=1 << 20;
    section.number(
        "connections",
        &keys.connections,
        connections,
        &mut config.connections,
    )?;
    section.number(
        "header_bytes",
        &keys.header_bytes,
        256..=65_536,
        &mut config.header_bytes,
    )?;
    section.number(
        "body_bytes",
        &keys.body_bytes,
        0..=1 << 40,
        &mut config.body_bytes,
    )?;
    let buffers = 65_536..=1 << 40;
    section.number(
        "buffer_bytes",
        &keys.buffer_bytes,
        buffers,
        &mut config.buffer_bytes,
    )?;
    let times = 100..=86_400_000;
    for (key, given, time_ms) in [
        (
            "request_timeout_ms",
            &keys.request_timeout_ms,
            &mut config.request_timeout_ms,
        ),
        (
            "idle_timeout_ms",
            &keys.idle_timeout_ms,
            &mut config.idle_timeout_ms,
        ),
    ] {
        section.number(key, given, times.clone(), time_ms)?;
    }
    if let Some(given) = &keys.upload_token {
        let token = Token::new(given.get_ref()).ok_or_else(|| {
            let problem =
                format!("it takes {TOKEN_LEAST} to {TOKEN_LIMIT} printable ASCII characters without blanks");
            section.error(given, "upload_token", problem)
        })?;
        config.upload_token = Some(token);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn everything_has_a_default_and_other_sections_are_left_alone() {
        assert_eq!(read(""), Ok(Config::default()));
        assert_eq!(
            read("[network]\nmtu = 9000\n[[maglev.vip]]\nname = 'x'\n"),
            Ok(Config::default())
        );
    }

    #[test]
    fn values_are_taken() {
        let config = read("[httpd]\nport = 8080\nconnections = 10\nidle_timeout_ms = 100\n").unwrap();
        assert_eq!(
            (config.port, config.connections, config.idle_timeout_ms),
            (8080, 10, 100)
        );
    }

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let config = read("[httpd]\nupload_token = \"0123456789abcdef\"\n").unwrap();
        let token = config.upload_token.unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in [
            "",
            "0",
            "0123456789abcdeF",
            "0123456789abcdef0",
            "0123456789abcde",
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(!token.is(other.as_bytes()), "{other:?}");
        }
        assert!(!format!("{config:?}").contains("0123"), "it is not shown");
        let longest = "x".repeat(TOKEN_LIMIT);
        assert!(Token::new(&longest).is_some_and(|token| token.is(longest.as_bytes())));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, expected) in [
            (
                "[httpd]\nupload_token = \"short\"\n",
                "line 2: httpd.upload_token: it takes 16 to 64 printable ASCII characters without blanks",
            ),
            (
                "[httpd]\nupload_token = \"with a blank in between\"\n",
                "line 2: httpd.upload_token: it takes 16 to 64 printable ASCII characters without blanks",
            ),
            (
                "[httpd]\nport = 0\n",
                "line 2: httpd.port: 0 is not from 1 to 65535",
            ),
            (
                "[httpd]\n\nport = 70000\n",
                "line 3: httpd.port: 70000 is not from 1 to 65535",
            ),
            (
                "[httpd]\nheader_bytes = -1\n",
                "line 2: httpd.header_bytes: -1 is not from 256 to 65536",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
        let unknown = read("[network]\n[httpd]\nprot = 80\n").unwrap_err();
        assert_eq!((unknown.line, unknown.key.as_str()), (3, "prot"));
        assert!(unknown.problem.contains("unknown field"), "{unknown}");
        let wrong_type = read("[httpd]\nport = \"80\"\n").unwrap_err();
        assert_eq!((wrong_type.line, wrong_type.key.as_str()), (2, "port"));
        assert_eq!(read("[httpd\n").unwrap_err().line, 1);
    }
}
