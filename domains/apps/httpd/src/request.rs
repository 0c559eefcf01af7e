//! From bytes to a request head: syntax by httparse, meaning by RFC 9112 (3 to 7) and RFC 9110.
//!
//! Says of a request what the answer depends on, or with which status it is refused. A refusal here means that where the next
//! request begins is not known for sure: the connection ends with it. Targets are only told apart here; what a path names is
//! `target`'s, how a body is skipped is `body`'s.

use crate::status::Status;
use core::mem::MaybeUninit;
use httparse::Error;

/// Header fields of one request at most.
pub const FIELD_LIMIT: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// OPTIONS
    Options,
    /// PUT
    Put,
    /// A method of RFC 9110 or RFC 5789 that nothing here supports.
    Refused,
    /// Any other.
    Unknown,
}

/// Of what it is asked (RFC 9112, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// Path and query, from origin-form or absolute-form; of the latter the path may be empty.
    Resource(&'b [u8]),
    /// The server itself (asterisk-form), or a tunnel that is refused anyway (authority-form).
    Server,
}

/// How long the request's body is (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes.
    Length(u64),
    /// As its chunks say.
    Chunked,
}

/// What the connection is for after the answer (RFC 9112, 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The next request.
    Persist,
    /// The next request, and an HTTP/1.0 client must be told.
    PersistTold,
    /// Nothing.
    Close,
}

/// What a client expects before it sends the body (RFC 9110, 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing.
    None,
    /// An interim answer.
    Continue,
    /// Something unknown.
    Unknown,
}

/// A field that may be sent once: another of its name makes it void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Single<'b> {
    /// Not sent.
    #[default]
    Absent,
    /// Its value.
    Value(&'b [u8]),
    /// Sent more than once.
    Repeated,
}

impl<'b> Single<'b> {
    fn note(&mut self, value: &'b [u8]) {
        *self = match self {
            Single::Absent => Single::Value(value),
            _ => Single::Repeated,
        };
    }

    /// The value, when it was sent exactly once.
    pub fn value(self) -> Option<&'b [u8]> {
        match self {
            Single::Value(value) => Some(value),
            _ => None,
        }
    }
}

/// Fields that make a request conditional or partial (RFC 9110, 13.1 and 14.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions<'b> {
    /// Whether there are any.
    pub any: bool,
    /// If-Match
    pub if_match: Single<'b>,
    /// If-None-Match
    pub if_none_match: Single<'b>,
    /// If-Modified-Since
    pub if_modified_since: Single<'b>,
    /// If-Unmodified-Since
    pub if_unmodified_since: Single<'b>,
    /// If-Range
    pub if_range: Single<'b>,
    /// Range
    pub range: Single<'b>,
}

/// A request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// Method.
    pub method: Method,
    /// Target.
    pub target: Target<'b>,
    /// Body.
    pub framing: Framing,
    /// What to do with the connection.
    pub persistence: Persistence,
    /// Expectation.
    pub expectation: Expectation,
    /// Conditional fields.
    pub conditions: Conditions<'b>,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'b> {
    /// The beginning of a head.
    Partial,
    /// A whole head of this many bytes.
    Complete(Request<'b>, usize),
    /// No request that can be answered otherwise, and the last of its connection.
    Refused(Status),
}

/// Reads the head at the front of `bytes`; of a head only the first `limit` bytes are looked at.
pub fn parse(bytes: &[u8], limit: usize) -> Parsed<'_> {
    let window = bytes.get(..limit).unwrap_or(bytes);
    let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(length)) => match interpret(&head) {
            Ok(request) => Parsed::Complete(request, length),
            Err(status) => Parsed::Refused(status),
        },
        Ok(httparse::Status::Partial) => partial(window, limit),
        Err(Error::TooManyHeaders) => Parsed::Refused(Status::FieldsTooLarge),
        Err(Error::Version) => version(window, limit),
        Err(_) => Parsed::Refused(Status::BadRequest),
    }
}

/// A field of a head that [`parse`] found complete, for what few requests need.
#[cold]
pub fn field<'b>(head: &'b [u8], name: &str) -> Single<'b> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut request = httparse::Request::new(&mut []);
    let mut found = Single::Absent;
    if request.parse_with_uninit_headers(head, &mut fields).is_ok() {
        for field in request.headers.iter() {
            if field.name.eq_ignore_ascii_case(name) {
                found.note(field.value);
            }
        }
    }
    found
}

/// A head that isn't complete: too long already, or not.
#[cold]
fn partial(window: &[u8], limit: usize) -> Parsed<'static> {
    if window.len() < limit {
        Parsed::Partial
    } else if request_line(window).is_some() {
        Parsed::Refused(Status::FieldsTooLarge)
    } else {
        Parsed::Refused(Status::UriTooLong)
    }
}

/// A version that isn't 1.0 or 1.1: another one of HTTP, or no version at all. That takes the whole line to tell.
#[cold]
fn version(window: &[u8], limit: usize) -> Parsed<'static> {
    let Some(line) = request_line(window) else {
        return partial(window, limit);
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match last {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Parsed::Refused(Status::VersionNotSupported)
        }
        _ => Parsed::Refused(Status::BadRequest),
    }
}

/// The first line that isn't empty, if it is complete.
fn request_line(window: &[u8]) -> Option<&[u8]> {
    let start = window.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let rest = window.get(start..)?;
    rest.get(..rest.iter().position(|byte| *byte == b'\n')?)
}

/// What the fields say of framing, while they are read.
#[derive(Default)]
struct Fields<'b> {
    hosts: u32,
    length: Option<u64>,
    lengths: u32,
    chunked: u32,
    other_codings: bool,
    close: bool,
    keep_alive: bool,
    expectation: Option<Expectation>,
    conditions: Conditions<'b>,
}

fn interpret<'b>(head: &httparse::Request<'_, 'b>) -> Result<Request<'b>, Status> {
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(Status::BadRequest);
    };
    let old = minor == 0;
    let mut fields = Fields::default();
    for field in head.headers.iter() {
        fields.note(field.name, field.value)?;
    }

    // RFC 9112, 3.2: exactly one Host, which HTTP/1.0 may leave out.
    if fields.hosts != 1 && !(old && fields.hosts == 0) {
        return Err(Status::BadRequest);
    }
    let framing = fields.framing(old)?;
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        "PUT" => Method::Put,
        "POST" | "DELETE" | "PATCH" | "TRACE" | "CONNECT" => Method::Refused,
        _ => Method::Unknown,
    };
    let target = if target.as_bytes().first() == Some(&b'/') {
        Target::Resource(target.as_bytes())
    } else {
        other_target(head.method, target.as_bytes())?
    };
    let persistence = if fields.close {
        Persistence::Close
    } else if !old {
        Persistence::Persist
    } else if fields.keep_alive {
        Persistence::PersistTold
    } else {
        Persistence::Close
    };
    let expectation = match fields.expectation {
        // RFC 9110, 10.1.1: of HTTP/1.0 it is ignored.
        Some(expectation) if !old => expectation,
        _ => Expectation::None,
    };
    Ok(Request {
        method,
        target,
        framing,
        persistence,
        expectation,
        conditions: fields.conditions,
    })
}

impl<'b> Fields<'b> {
    #[inline]
    fn note(&mut self, name: &str, value: &'b [u8]) -> Result<(), Status> {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                if !is_host(value) {
                    return Err(Status::BadRequest);
                }
            }
            5 if is("range") => self.condition(value, |conditions| &mut conditions.range),
            6 if is("expect") => {
                self.expectation = Some(if value.eq_ignore_ascii_case(b"100-continue") {
                    Expectation::Continue
                } else {
                    Expectation::Unknown
                });
            }
            8 if is("if-range") => self.condition(value, |conditions| &mut conditions.if_range),
            8 if is("if-match") => self.condition(value, |conditions| &mut conditions.if_match),
            10 if is("connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            13 if is("if-none-match") => self.condition(value, |conditions| &mut conditions.if_none_match),
            14 if is("content-length") => {
                self.lengths += 1;
                self.length = Some(content_length(value)?);
            }
            17 if is("transfer-encoding") => {
                for coding in list(value) {
                    // A coding behind `chunked` can't be: the body would have no end that can be found.
                    if self.chunked > 0 {
                        return Err(Status::BadRequest);
                    }
                    if coding.eq_ignore_ascii_case(b"chunked") {
                        self.chunked += 1;
                    } else {
                        self.other_codings = true;
                    }
                }
                if self.chunked == 0 && !self.other_codings {
                    return Err(Status::BadRequest);
                }
            }
            17 if is("if-modified-since") => {
                self.condition(value, |conditions| &mut conditions.if_modified_since)
            }
            19 if is("if-unmodified-since") => {
                self.condition(value, |conditions| &mut conditions.if_unmodified_since)
            }
            _ => {}
        }
        Ok(())
    }

    fn condition(
        &mut self,
        value: &'b [u8],
        which: impl for<'c> FnOnce(&'c mut Conditions<'b>) -> &'c mut Single<'b>,
    ) {
        self.conditions.any = true;
        which(&mut self.conditions).note(value);
    }

    /// RFC 9112, 6.1 and 6.3. Two ways to read one message are an attack, not a mistake: they are refused.
    fn framing(&self, old: bool) -> Result<Framing, Status> {
        if self.chunked > 0 || self.other_codings {
            if old || self.lengths > 0 || self.chunked == 0 {
                return Err(Status::BadRequest);
            }
            if self.other_codings {
                return Err(Status::NotImplemented);
            }
            return Ok(Framing::Chunked);
        }
        if self.lengths > 1 {
            return Err(Status::BadRequest);
        }
        Ok(Framing::Length(self.length.unwrap_or(0)))
    }
}

/// A decimal number; one that doesn't fit is longer than any limit.
fn content_length(value: &[u8]) -> Result<u64, Status> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Status::BadRequest);
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    value.iter().try_fold(0, add).ok_or(Status::ContentTooLarge)
}

/// The elements of a comma-separated list (RFC 9110, 5.6.1), without empty ones.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// Whether a Host field's value is a host with or without a port, or nothing.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|byte| *byte == b':') {
        // A colon inside the brackets of an IPv6 address is none before a port.
        Some(colon) if !value.ends_with(b"]") => (
            value.get(..colon).unwrap_or_default(),
            value.get(colon + 1..).unwrap_or_default(),
        ),
        _ => (value, &[][..]),
    };
    if port.len() > 5 || !port.iter().all(u8::is_ascii_digit) {
        return false;
    }
    if let Some(inner) = host.strip_prefix(b"[") {
        let inner = inner.strip_suffix(b"]").unwrap_or_default();
        return !inner.is_empty()
            && inner
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    host.iter()
        .all(|byte| HOST_BYTES.get(usize::from(*byte)) == Some(&true))
}

/// Bytes of a registered name (RFC 3986, 3.2.2): unreserved, sub-delims, percent-encoded.
static HOST_BYTES: [bool; 128] = {
    let mut table = [false; 128];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            );
        byte += 1;
    }
    table
};

/// Targets that don't begin with a slash.
#[cold]
fn other_target<'b>(method: Option<&str>, target: &'b [u8]) -> Result<Target<'b>, Status> {
    if method == Some("CONNECT") || (method == Some("OPTIONS") && target == b"*") {
        return Ok(Target::Server);
    }
    let prefix = |scheme: &[u8]| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = prefix(b"http://")
        .or_else(|| prefix(b"https://"))
        .ok_or(Status::BadRequest)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(Status::BadRequest);
    }
    Ok(Target::Resource(path))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
