//! `PUT /domains/NAME`: an image for a live update, on its way from a client to the supervisor (docs/update.md).
//!
//! Off unless the operator's file has a token, which the client shows as RFC 6750 says ("Bearer"). The token says who may try; whether
//! the image may run is the kernel's decision, by its signature, and when it does is the operator's, at the console. A body of a
//! refused request is read to its end and thrown away as long as it isn't longer than any image, so that the client gets to read why.

use crate::body::{BodyError, BodyReader};
use crate::clock::Clock;
use crate::config::Token;
use crate::request::{self, Expectation, Framing, Persistence, Request, Target};
use crate::status::Status;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use interface::kernel::DomainName;
use interface::update::{Build, ImagePart, PART_BYTES, UpdateError, Uploads};
use rref::{Handle, RRef};

/// The longest body that is read, bytes: more than the longest image.
const BODY_LIMIT: u64 = 16 << 20;
/// Where images go, before the domain's name.
const PATH: &[u8] = b"/domains/";

/// Takes images: the supervisor, or what plays it in tests.
pub trait Receiver {
    /// As [`Uploads::begin`].
    fn begin(&self, name: &str, bytes: u32) -> Result<u64, UpdateError>;

    /// As [`Uploads::part`].
    fn part(&self, upload: u64, offset: u32, bytes: &[u8]) -> Result<(), UpdateError>;

    /// As [`Uploads::finish`].
    fn finish(&self, upload: u64) -> Result<Build, UpdateError>;

    /// As [`Uploads::abandon`]; one that is over already is as good.
    fn abandon(&self, upload: u64);
}

/// A shard's way to the supervisor, with a buffer for one part.
pub struct Supervisor {
    uploads: Handle<dyn Uploads>,
    buffer: RefCell<Option<RRef<ImagePart>>>,
}

impl Supervisor {
    /// By this handle.
    pub fn new(uploads: Handle<dyn Uploads>) -> Supervisor {
        Supervisor {
            uploads,
            buffer: RefCell::new(None),
        }
    }
}

/// Not inlined: a part is made on the stack first, and no other function is to have a frame of that size.
#[cold]
#[inline(never)]
fn allocate() -> Result<RRef<ImagePart>, UpdateError> {
    let empty = ImagePart {
        length: 0,
        data: [0; PART_BYTES],
    };
    RRef::new(empty).map_err(|_| UpdateError::OutOfMemory)
}

impl Receiver for Supervisor {
    fn begin(&self, name: &str, bytes: u32) -> Result<u64, UpdateError> {
        self.uploads.begin(DomainName::new(name), bytes)
    }

    fn part(&self, upload: u64, offset: u32, bytes: &[u8]) -> Result<(), UpdateError> {
        let mut buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => allocate()?,
        };
        let mut at = offset;
        for piece in bytes.chunks(PART_BYTES) {
            if let Some(place) = buffer.data.get_mut(..piece.len()) {
                place.copy_from_slice(piece);
            }
            buffer.length = piece.len() as u32;
            self.uploads.part(upload, at, &buffer)?;
            at = at.saturating_add(piece.len() as u32);
        }
        self.buffer.replace(Some(buffer));
        Ok(())
    }

    fn finish(&self, upload: u64) -> Result<Build, UpdateError> {
        // The shared memory is not kept for the next upload, which may never come.
        self.buffer.take();
        self.uploads.finish(upload)
    }

    fn abandon(&self, upload: u64) {
        self.buffer.take();
        self.uploads.abandon(upload).ok();
    }
}

/// What uploads need: whose are let in, and who takes them.
pub struct Entrance {
    /// What a client must show.
    pub token: Token,
    /// Who takes images.
    pub receiver: Box<dyn Receiver + Send>,
}

/// What is answered: a status and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: Status,
    /// The sentence, without a line end.
    pub text: String,
}

impl Reply {
    fn new(status: Status, text: impl Into<String>) -> Reply {
        Reply {
            status,
            text: text.into(),
        }
    }

    fn refusal(error: &UpdateError) -> Reply {
        let status = match error {
            UpdateError::NoDomain => Status::NotFound,
            UpdateError::Supervisor => Status::Forbidden,
            UpdateError::BadSize { .. } => Status::ContentTooLarge,
            UpdateError::Busy | UpdateError::NoUpload | UpdateError::OutOfOrder { .. } => Status::Conflict,
            UpdateError::Refused(_) | UpdateError::Incomplete { .. } => Status::UnprocessableContent,
            _ => Status::ServiceUnavailable,
        };
        Reply::new(status, error.to_string())
    }

    /// The whole answer.
    pub fn compose(&self, persistence: Persistence, clock: &Clock) -> Vec<u8> {
        let mut message = Vec::from(self.status.line());
        message.extend_from_slice(clock.fields());
        message.extend_from_slice(match self.status {
            Status::Unauthorized => b"WWW-Authenticate: Bearer realm=\"domains\"\r\n".as_slice(),
            Status::Conflict | Status::ServiceUnavailable => b"Retry-After: 10\r\n".as_slice(),
            _ => b"".as_slice(),
        });
        let connection = match persistence {
            Persistence::Persist => "",
            Persistence::PersistTold => "Connection: keep-alive\r\n",
            Persistence::Close => "Connection: close\r\n",
        };
        let head = format!(
            "Cache-Control: no-store\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{connection}\r\n",
            self.text.len() + 1
        );
        message.extend_from_slice(head.as_bytes());
        message.extend_from_slice(self.text.as_bytes());
        message.push(b'\n');
        message
    }
}

/// A request with an image, from its head to its answer.
pub struct Upload {
    reader: BodyReader,
    name: String,
    /// The upload's number, or why there is none.
    state: Result<u64, Reply>,
    received: u32,
    /// What becomes of the connection.
    pub persistence: Persistence,
}

impl Upload {
    /// Begins one, if the request with this head may; a reply at once when its body is not to be read, and the connection ends then.
    pub fn begin(request: &Request<'_>, head: &[u8], entrance: &Entrance) -> Result<Upload, Reply> {
        let Framing::Length(length) = request.framing else {
            return Err(Reply::new(
                Status::LengthRequired,
                "an image is sent with its length, not in chunks",
            ));
        };
        let (name, state) = match admitted(request, head, entrance) {
            Ok(name) => {
                let bytes = u32::try_from(length).unwrap_or(u32::MAX);
                let begun = entrance.receiver.begin(name, bytes);
                (name, begun.map_err(|error| Reply::refusal(&error)))
            }
            Err(reply) => ("", Err(reply)),
        };
        if request.expectation != Expectation::None
            && let Err(reply) = state
        {
            // The client waits to be told whether to send the body: it may or may not follow.
            return Err(reply);
        }
        match BodyReader::new(request.framing, BODY_LIMIT) {
            Ok(reader) => Ok(Upload {
                reader,
                name: name.into(),
                state,
                received: 0,
                persistence: request.persistence,
            }),
            Err(_) => {
                let too_long = Reply::new(Status::ContentTooLarge, "no image is that long");
                Err(state.err().unwrap_or(too_long))
            }
        }
    }

    /// Takes what of `bytes` is the body's; the count of those.
    pub fn take(&mut self, bytes: &[u8], entrance: &Entrance) -> Result<usize, BodyError> {
        let count = self.reader.skip(bytes)?;
        if let Ok(number) = self.state {
            let part = bytes.get(..count).unwrap_or_default();
            match entrance.receiver.part(number, self.received, part) {
                Ok(()) => self.received = self.received.saturating_add(count as u32),
                Err(error) => {
                    entrance.receiver.abandon(number);
                    self.state = Err(Reply::refusal(&error));
                }
            }
        }
        Ok(count)
    }

    /// Whether the body's end has been seen.
    pub fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    /// The answer, at the body's end. Verifying takes the kernel some milliseconds, in which the shard's other connections wait.
    pub fn finish(&self, entrance: &Entrance) -> Reply {
        let finished = match &self.state {
            Ok(number) => entrance.receiver.finish(*number),
            Err(reply) => return reply.clone(),
        };
        match finished {
            Ok(build) => {
                let name = &self.name;
                let text = format!(
                    "{name}: build {build} is verified and waits; `update {name}` at the console runs it"
                );
                Reply::new(Status::Ok, text)
            }
            Err(error) => Reply::refusal(&error),
        }
    }

    /// The body's end will not come.
    pub fn abandon(&self, entrance: &Entrance) {
        if let Ok(number) = self.state {
            entrance.receiver.abandon(number);
        }
    }
}

/// The domain that a request's image is for, if whoever sends it may.
fn admitted<'b>(request: &Request<'b>, head: &[u8], entrance: &Entrance) -> Result<&'b str, Reply> {
    let shown = request::field(head, "authorization").value().and_then(bearer);
    if !shown.is_some_and(|token| entrance.token.is(token)) {
        return Err(Reply::new(
            Status::Unauthorized,
            "an image is taken from whoever shows the token of config/appliance.toml",
        ));
    }
    let name = match request.target {
        Target::Resource(target) => target.strip_prefix(PATH),
        Target::Server => None,
    };
    name.filter(|name| is_name(name))
        .and_then(|name| core::str::from_utf8(name).ok())
        .ok_or_else(|| Reply::new(Status::NotFound, "an image goes to /domains/NAME"))
}

/// The token in an Authorization field of the scheme "Bearer" (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

fn is_name(name: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=32).contains(&name.len()) && name.iter().all(is_of_name)
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
