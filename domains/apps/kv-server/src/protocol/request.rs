//! Requests: arrays of bulk strings, and inline commands as people type them.
//!
//! The parser keeps its place in a request that has come in part, so a long one is not read again from its start with each piece. It copies
//! nothing: arguments are spans of the caller's bytes, but for inline commands, whose quotes are taken off.

use super::arguments::{Arguments, Span};
use alloc::vec::Vec;
use core::fmt;

/// Longest inline command, and longest line of a header, in bytes.
const LINE_LIMIT_BYTES: usize = 64 * 1024;
/// Most arguments of a command.
const ARGUMENT_LIMIT: i64 = 1024 * 1024;
/// The same for a client that has yet to show a password.
const STRANGER_ARGUMENT_LIMIT: i64 = 10;
/// Its longest argument, in bytes.
const STRANGER_BULK_LIMIT_BYTES: u64 = 16_384;
/// Longest argument of a request that is read in one go, in bytes.
const SHORT_LIMIT_BYTES: u64 = 99;
/// Spans that an idle parser keeps room for.
const IDLE_SPANS: usize = 64;

/// What is wrong with a request; the connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line that is too long to be a command.
    InlineTooLong,
    /// A quote in an inline command isn't closed.
    UnbalancedQuotes,
    /// The line with the count of arguments is too long.
    CountTooLong,
    /// The count of arguments isn't a number, or too large.
    InvalidCount,
    /// A client without a password sends so many arguments.
    StrangerCount,
    /// Something else than an argument's length.
    ExpectedBulk(u8),
    /// The line with an argument's length is too long.
    LengthTooLong,
    /// The length isn't a number, or too large.
    InvalidLength,
    /// A client without a password sends so long an argument.
    StrangerLength,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProtocolError::InlineTooLong => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::CountTooLong => "too big mbulk count string",
            ProtocolError::InvalidCount => "invalid multibulk length",
            ProtocolError::StrangerCount => "unauthenticated multibulk length",
            ProtocolError::ExpectedBulk(found) => {
                let found = if (0x20..0x7f).contains(found) {
                    *found
                } else {
                    b'?'
                };
                return write!(f, "expected '$', got '{}'", char::from(found));
            }
            ProtocolError::LengthTooLong => "too big bulk count string",
            ProtocolError::InvalidLength => "invalid bulk length",
            ProtocolError::StrangerLength => "unauthenticated bulk length",
        })
    }
}

/// How long requests may be.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// An argument, in bytes.
    pub bulk_bytes: u64,
    /// The client has shown a password or needs none.
    pub authenticated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a request.
    Start,
    /// In an array: arguments to come, and the length of the next if it was read.
    Array { left: u32, bulk: Option<u32> },
    /// An inline command is complete, in `inline`.
    Inline,
}

/// Reads one request after the other.
#[derive(Debug)]
pub struct RequestParser {
    state: State,
    /// What was read of the request, in bytes from its start.
    position: usize,
    spans: Vec<Span>,
    inline: Vec<u8>,
}

impl Default for RequestParser {
    fn default() -> Self {
        RequestParser {
            state: State::Start,
            position: 0,
            spans: Vec::new(),
            inline: Vec::new(),
        }
    }
}

impl RequestParser {
    /// Goes on reading the request at the start of `data`: its length in bytes once it is complete, `None` while it isn't. Then `data` is to
    /// begin at the same byte the next time, and have more. An empty request (no arguments) is complete too.
    ///
    /// # Errors
    /// When it is no request; nothing behind it can be read.
    #[inline]
    pub fn parse(&mut self, data: &[u8], limits: &RequestLimits) -> Result<Option<usize>, ProtocolError> {
        if self.state == State::Start {
            self.spans.clear();
            if limits.authenticated
                && limits.bulk_bytes > SHORT_LIMIT_BYTES
                && let Some(length) = self.parse_short(data)
            {
                return Ok(Some(length));
            }
            self.position = 0;
            self.spans.clear();
            match data.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some((count, behind)) = header(data, 1, ProtocolError::CountTooLong)? else {
                        return Ok(None);
                    };
                    let count = count
                        .filter(|count| *count <= ARGUMENT_LIMIT)
                        .ok_or(ProtocolError::InvalidCount)?;
                    if !limits.authenticated && count > STRANGER_ARGUMENT_LIMIT {
                        return Err(ProtocolError::StrangerCount);
                    }
                    if count <= 0 {
                        return Ok(Some(behind));
                    }
                    self.position = behind;
                    self.state = State::Array {
                        left: count as u32,
                        bulk: None,
                    };
                }
                Some(_) => return self.parse_inline(data),
            }
        }
        let State::Array { mut left, mut bulk } = self.state else {
            // `finish` wasn't called.
            return Ok(Some(self.position));
        };
        while left > 0 {
            let length = match bulk {
                Some(length) => length as usize,
                None => {
                    match data.get(self.position) {
                        None => break,
                        Some(b'$') => {}
                        Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
                    }
                    let found = header(data, self.position + 1, ProtocolError::LengthTooLong)?;
                    let Some((length, behind)) = found else { break };
                    let length = length
                        .and_then(|length| u64::try_from(length).ok())
                        .filter(|length| *length <= limits.bulk_bytes)
                        .ok_or(ProtocolError::InvalidLength)?;
                    if !limits.authenticated && length > STRANGER_BULK_LIMIT_BYTES {
                        return Err(ProtocolError::StrangerLength);
                    }
                    self.position = behind;
                    bulk = Some(length as u32);
                    length as usize
                }
            };
            let end = self.position + length;
            if data.len() < end + 2 {
                break;
            }
            self.spans.push(Span {
                start: self.position as u32,
                end: end as u32,
            });
            self.position = end + 2;
            bulk = None;
            left -= 1;
        }
        if left > 0 {
            self.state = State::Array { left, bulk };
            return Ok(None);
        }
        self.state = State::Start;
        Ok(Some(self.position))
    }

    /// Reads a whole request of at most nine arguments, each shorter than 100 bytes, as nearly all are; `None` for any other.
    #[inline]
    fn parse_short(&mut self, data: &[u8]) -> Option<usize> {
        let [b'*', count @ b'1'..=b'9', b'\r', _, rest @ ..] = data else {
            return None;
        };
        let mut rest = rest;
        for _ in b'0'..*count {
            let (length, behind) = match rest {
                [b'$', ones @ b'0'..=b'9', b'\r', _, behind @ ..] => (usize::from(ones - b'0'), behind),
                [
                    b'$',
                    tens @ b'1'..=b'9',
                    ones @ b'0'..=b'9',
                    b'\r',
                    _,
                    behind @ ..,
                ] => (usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), behind),
                _ => return None,
            };
            rest = behind.get(length + 2..)?;
            let start = data.len() - behind.len();
            self.spans.push(Span {
                start: start as u32,
                end: (start + length) as u32,
            });
        }
        Some(data.len() - rest.len())
    }

    #[cold]
    fn parse_inline(&mut self, data: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return if data.len() > LINE_LIMIT_BYTES {
                Err(ProtocolError::InlineTooLong)
            } else {
                Ok(None)
            };
        };
        let line = data.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.inline.clear();
        split(line, &mut self.inline, &mut self.spans)?;
        self.position = end + 1;
        self.state = State::Inline;
        Ok(Some(end + 1))
    }

    /// The arguments of the request that [`parse`](Self::parse) has just completed in `data`.
    #[inline]
    pub fn arguments<'a>(&'a self, data: &'a [u8]) -> Arguments<'a> {
        Arguments {
            bytes: if self.state == State::Inline {
                &self.inline
            } else {
                data
            },
            spans: &self.spans,
        }
    }

    /// Gets ready for the next request.
    #[inline]
    pub fn finish(&mut self) {
        self.state = State::Start;
        if self.spans.capacity() > IDLE_SPANS {
            self.spans = Vec::new();
        }
        if self.inline.capacity() > 1024 {
            self.inline = Vec::new();
        }
    }

    /// How many bytes the request will have at least: room worth having for it.
    pub fn needed_bytes(&self) -> usize {
        match self.state {
            State::Array { bulk: Some(bulk), .. } => self.position + bulk as usize + 2,
            _ => 0,
        }
    }
}

/// A number up to a line's end, and where the next line begins; the number is `None` if it is none, all is if the line's end hasn't come.
#[inline]
fn header(
    data: &[u8],
    start: usize,
    too_long: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let rest = data.get(start..).unwrap_or_default();
    // Most numbers have one digit or two.
    match rest {
        [digit @ b'0'..=b'9', b'\r', _, ..] => return Ok(Some((Some(i64::from(digit - b'0')), start + 3))),
        [tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _, ..] => {
            let value = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            return Ok(Some((Some(value), start + 4)));
        }
        _ => {}
    }
    let mut value: u64 = 0;
    for (index, &byte) in rest.iter().enumerate().take(12) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            if byte == b'\r' && index > 0 {
                return Ok((rest.len() > index + 1).then_some((Some(value as i64), start + index + 2)));
            }
            break;
        }
        value = value * 10 + u64::from(digit);
    }
    // A sign, many digits, or no number.
    match rest.iter().position(|byte| *byte == b'\r') {
        Some(end) if rest.len() > end + 1 => {
            let number = crate::number::integer(rest.get(..end).unwrap_or_default());
            Ok(Some((number, start + end + 2)))
        }
        Some(_) => Ok(None),
        None if rest.len() > LINE_LIMIT_BYTES => Err(too_long),
        None => Ok(None),
    }
}

/// Takes a line apart at blanks, but for those in quotes. In double quotes a backslash begins an escape, in single ones only one of a quote.
fn split(line: &[u8], bytes: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        let start = bytes.len() as u32;
        let mut quote = None;
        let Some(_) = rest.first() else { return Ok(()) };
        loop {
            let Some((&byte, behind)) = rest.split_first() else {
                match quote {
                    Some(_) => return Err(ProtocolError::UnbalancedQuotes),
                    None => break,
                }
            };
            match (quote, byte) {
                (None, b'"' | b'\'') => {
                    quote = Some(byte);
                    rest = behind;
                }
                (None, byte) if byte.is_ascii_whitespace() || byte == 0 => break,
                (Some(open), byte) if open == byte => {
                    rest = behind;
                    if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return Err(ProtocolError::UnbalancedQuotes);
                    }
                    break;
                }
                (Some(b'"'), b'\\') => {
                    let (escaped, length) = escape(behind);
                    bytes.push(escaped);
                    rest = behind.get(length..).unwrap_or_default();
                }
                (Some(b'\''), b'\\') if behind.first() == Some(&b'\'') => {
                    bytes.push(b'\'');
                    rest = behind.get(1..).unwrap_or_default();
                }
                (_, byte) => {
                    bytes.push(byte);
                    rest = behind;
                }
            }
        }
        // A zero byte ends an argument like a blank.
        if rest.first() == Some(&0) {
            rest = rest.get(1..).unwrap_or_default();
        }
        let end = bytes.len() as u32;
        spans.push(Span { start, end });
    }
}

/// The byte that an escape stands for, and the length of what is behind its backslash.
fn escape(behind: &[u8]) -> (u8, usize) {
    let digit = |index: usize| {
        behind
            .get(index)
            .and_then(|byte| char::from(*byte).to_digit(16))
            .map(|digit| digit as u8)
    };
    match (behind.first(), digit(1), digit(2)) {
        (Some(b'x'), Some(high), Some(low)) => (high << 4 | low, 3),
        (Some(b'n'), ..) => (b'\n', 1),
        (Some(b'r'), ..) => (b'\r', 1),
        (Some(b't'), ..) => (b'\t', 1),
        (Some(b'b'), ..) => (8, 1),
        (Some(b'a'), ..) => (7, 1),
        (Some(&other), ..) => (other, 1),
        (None, ..) => (b'\\', 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::prelude::v1::*;

    const LIMITS: RequestLimits = RequestLimits {
        bulk_bytes: 512 << 20,
        authenticated: true,
    };

    /// All requests of `data`, given in pieces that end at `cuts`, and the error at the end if there is one.
    fn read(data: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut parser = RequestParser::default();
        let mut found = Vec::new();
        let mut start = 0;
        let ends = cuts.iter().map(|cut| cut % (data.len() + 1)).chain([data.len()]);
        let mut ends: Vec<usize> = ends.collect();
        ends.sort_unstable();
        for end in ends {
            while start < end {
                match parser.parse(&data[start..end], &LIMITS) {
                    Ok(Some(length)) => {
                        let arguments = parser.arguments(&data[start..end]);
                        found.push(arguments.from(0).map(<[u8]>::to_vec).collect());
                        parser.finish();
                        start += length;
                    }
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn arrays_and_inline_commands_follow_each_other() {
        let (found, error) = read(
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n\r\n*0\r\nset \"a\\x41\\n\" 'b\\'c'\n",
            &[],
        );
        assert_eq!(error, None);
        assert_eq!(
            found,
            [
                words(&["GET", "a"]),
                words(&["PING"]),
                vec![],
                vec![],
                words(&["set", "aA\n", "b'c"])
            ]
        );
    }

    #[test]
    fn mistakes_have_their_texts() {
        for (data, text) in [
            (&b"*a\r\n"[..], "invalid multibulk length"),
            (b"*3000000000\r\n", "invalid multibulk length"),
            (b"*1\r\n:3\r\n", "expected '$', got ':'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$9000000000\r\n", "invalid bulk length"),
            (b"get \"a\r\n", "unbalanced quotes in request"),
        ] {
            let (_, error) = read(data, &[]);
            assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn strangers_send_little() {
        let limits = RequestLimits {
            authenticated: false,
            ..LIMITS
        };
        let mut parser = RequestParser::default();
        assert_eq!(
            parser.parse(b"*11\r\n", &limits),
            Err(ProtocolError::StrangerCount)
        );
        let mut parser = RequestParser::default();
        assert_eq!(
            parser.parse(b"*1\r\n$16385\r\n", &limits),
            Err(ProtocolError::StrangerLength)
        );
    }

    proptest! {
        /// However the bytes are cut, the same requests come out.
        #[test]
        fn cuts_make_no_difference(
            commands in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..5), 0..6),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
        ) {
            let mut data = Vec::new();
            for command in &commands {
                data.extend(format!("*{}\r\n", command.len()).bytes());
                for argument in command {
                    data.extend(format!("${}\r\n", argument.len()).bytes());
                    data.extend(argument);
                    data.extend(b"\r\n");
                }
            }
            let (found, error) = read(&data, &cuts);
            prop_assert_eq!(error, None);
            prop_assert_eq!(found, commands);
        }

        /// Any bytes give requests or an error, the same ones however they are cut.
        #[test]
        fn any_bytes_are_read(
            data in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
        ) {
            prop_assert_eq!(read(&data, &[]), read(&data, &cuts));
        }
    }
}
