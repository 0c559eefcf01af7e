//! Answers: from a request to what is sent for it (RFC 9110, 9 and 15), and how that looks on the wire (RFC 9112, 4).
//!
//! [`decide`] makes an [`Answer`], a plain value that can wait until the request's body is over; [`compose`] writes its head, and a
//! short body with it, so that both leave in one segment. Longer bodies are the connection's to send.

use crate::clock::Clock;
use crate::conditional::{Selection, select};
use crate::counters::Counters;
use crate::repeat::Repeats;
use crate::request::{Framing, Method, Persistence, Request, Target};
use crate::site::{File, Resource, Site};
use crate::status::Status;
use crate::target::{PathError, normalise};
use crate::upload::Entrance;
use core::fmt::Write;
use rref::{BootBytes, Text};

/// Room that any head has enough of: the longest has a Location of an archive's path (256 bytes), each byte percent-encoded.
pub const HEAD_ROOM: usize = 2048;
/// A body up to this length is copied behind its head; copying a longer one costs more than a call for it.
const COPY_LIMIT: usize = 8192;

/// Bytes to be sent, in the front of a buffer.
pub struct Output<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Output<'a> {
    /// Nothing yet, in `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Output<'a> {
        Output { buffer, length: 0 }
    }

    /// Bytes written.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that still fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.buffer.len() - self.length
    }

    /// Adds what fits of `bytes`; the count of those.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        if let (Some(to), Some(from)) = (
            self.buffer.get_mut(self.length..self.length + count),
            bytes.get(..count),
        ) {
            to.copy_from_slice(from);
            self.length += count;
        }
        count
    }
}

impl Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        if self.put(text.as_bytes()) == text.len() {
            Ok(())
        } else {
            Err(core::fmt::Error)
        }
    }
}

/// What every answer of a shard draws on.
pub struct Context<'a> {
    /// The site.
    pub site: &'a Site,
    /// The time.
    pub clock: &'a Clock,
    /// The shard's counters.
    pub counters: &'a Counters,
    /// Heads that the shard has seen.
    pub repeats: &'a Repeats,
    /// Longest head of a request, in bytes.
    pub header_bytes: usize,
    /// Longest body of a request, in bytes.
    pub body_bytes: u64,
    /// Where images for live updates go, if they may be uploaded.
    pub uploads: Option<&'a Entrance>,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A whole file.
    File(u32),
    /// Part of a file: bytes from the first number to before the second.
    Part(u32, u64, u64),
    /// 304 for a file.
    NotModified(u32),
    /// 416 for a file.
    NotSatisfiable(u32),
    /// 301 to a folder.
    Folder(u32),
    /// The metrics, which the server has to fetch.
    Metrics,
    /// The server is alive.
    Health,
    /// What may be asked for.
    Options,
    /// No more than a status.
    Plain(Status),
}

/// An answer that is decided and not yet sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is answered.
    pub content: Content,
    /// To HEAD: without the body.
    pub head_only: bool,
    /// What becomes of the connection.
    pub persistence: Persistence,
}

impl Answer {
    /// A refusal that ends the connection.
    pub fn last(status: Status) -> Answer {
        Answer {
            content: Content::Plain(status),
            head_only: false,
            persistence: Persistence::Close,
        }
    }
}

/// What remains to be sent behind the head.
pub enum Body {
    /// Nothing.
    None,
    /// Bytes of the archive.
    File(BootBytes),
    /// The metrics, once they are there.
    Metrics,
}

/// The answer to a request.
#[inline]
pub fn decide(request: &Request<'_>, context: &Context<'_>) -> Answer {
    let content = match (request.method, request.target) {
        (Method::Get | Method::Head, Target::Resource(target)) => {
            // Most targets are spelled as the site spells them. One with a percent sign is decoded first.
            match context.site.find(target) {
                Some(resource) if !target.contains(&b'%') => resource_content(resource, request, context),
                _ => find_normalised(target, request, context),
            }
        }
        (Method::Options, _) => Content::Options,
        (Method::Unknown, _) => Content::Plain(Status::NotImplemented),
        (Method::Put | Method::Refused | Method::Get | Method::Head, _) => {
            Content::Plain(Status::MethodNotAllowed)
        }
    };
    Answer {
        content,
        head_only: request.method == Method::Head,
        persistence: request.persistence,
    }
}

#[cold]
fn find_normalised(target: &[u8], request: &Request<'_>, context: &Context<'_>) -> Content {
    match normalise(target) {
        Ok(path) => context
            .site
            .find(&path)
            .map_or(Content::Plain(Status::NotFound), |resource| {
                resource_content(resource, request, context)
            }),
        Err(PathError::Nothing) => Content::Plain(Status::NotFound),
        Err(PathError::Malformed) => Content::Plain(Status::BadRequest),
    }
}

#[inline]
fn resource_content(resource: Resource, request: &Request<'_>, context: &Context<'_>) -> Content {
    match resource {
        Resource::File(index) if !request.conditions.any => Content::File(index),
        Resource::File(index) => conditional_content(index, request, context),
        Resource::Folder(index) => Content::Folder(index),
        Resource::Metrics => Content::Metrics,
        Resource::Health => Content::Health,
    }
}

fn conditional_content(index: u32, request: &Request<'_>, context: &Context<'_>) -> Content {
    let Some(file) = context.site.file(index) else {
        return Content::Plain(Status::NotFound);
    };
    let partial = request.method == Method::Get;
    match select(file, &request.conditions, partial, context.clock.unix_s()) {
        Selection::Whole => Content::File(index),
        Selection::Part { start, end } => Content::Part(index, start, end),
        Selection::NotModified => Content::NotModified(index),
        Selection::PreconditionFailed => Content::Plain(Status::PreconditionFailed),
        Selection::NotSatisfiable => Content::NotSatisfiable(index),
    }
}

/// The body that a request announces, or the refusal of it.
pub fn body_refusal(request: &Request<'_>, answer: &Answer) -> Option<Status> {
    use crate::request::Expectation;
    if request.framing == Framing::Length(0) {
        return (request.expectation == Expectation::Unknown).then_some(Status::ExpectationFailed);
    }
    match (request.expectation, answer.content) {
        (Expectation::Unknown, _) => Some(Status::ExpectationFailed),
        // The client waits to be told whether to send the body: it may or may not follow the refusal, so nothing else can.
        (Expectation::Continue, Content::Plain(status)) => Some(status),
        _ => None,
    }
}

/// Writes the head of an answer, and its body when that is short. `output` has [`HEAD_ROOM`].
#[inline]
pub fn compose(answer: &Answer, context: &Context<'_>, output: &mut Output<'_>) -> Body {
    if let Content::File(index) = answer.content
        && let Some(file) = context.site.file(index)
    {
        context.counters.answered(Status::Ok);
        output.put(context.clock.ok());
        if answer.persistence == Persistence::Persist && !answer.head_only && !file.message().is_empty() {
            output.put(file.message());
            return Body::None;
        }
        output.put(file.fields());
        end_head(answer.persistence, output);
        return if answer.head_only {
            Body::None
        } else {
            file_body(file.content, output)
        };
    }
    compose_other(answer, context, output)
}

/// Connection where one is needed, and the empty line.
#[inline]
fn end_head(persistence: Persistence, output: &mut Output<'_>) {
    output.put(match persistence {
        Persistence::Persist => b"\r\n",
        Persistence::PersistTold => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    });
}

/// Copies the body behind the head or leaves it to be sent.
#[inline]
fn file_body(content: BootBytes, output: &mut Output<'_>) -> Body {
    let bytes = content.as_slice();
    if bytes.len() <= COPY_LIMIT.min(output.room()) {
        output.put(bytes);
        Body::None
    } else {
        Body::File(content)
    }
}

fn compose_other(answer: &Answer, context: &Context<'_>, output: &mut Output<'_>) -> Body {
    if answer.content == Content::Metrics {
        return Body::Metrics;
    }
    let site = context.site;
    let (status, file) = match answer.content {
        Content::File(index) => (Status::Ok, site.file(index)),
        Content::Part(index, ..) => (Status::PartialContent, site.file(index)),
        Content::NotModified(index) => (Status::NotModified, site.file(index)),
        Content::NotSatisfiable(index) => (Status::RangeNotSatisfiable, site.file(index)),
        Content::Folder(_) => (Status::MovedPermanently, None),
        Content::Metrics | Content::Health => (Status::Ok, None),
        Content::Options => (Status::NoContent, None),
        Content::Plain(Status::NotFound) => (Status::NotFound, site.not_found()),
        Content::Plain(status) => (status, None),
    };
    context.counters.answered(status);
    output.put(status.line().as_bytes());
    output.put(context.clock.fields());
    match (answer.content, file) {
        (Content::Part(_, start, end), Some(file)) => {
            // The room is there and numbers always format: writing can't fail.
            write!(output, "Content-Length: {}\r\n", end - start).ok();
            write!(
                output,
                "Content-Range: bytes {start}-{}/{}\r\n",
                end - 1,
                file.length
            )
            .ok();
            output.put(file.fields_of_part());
            end_head(answer.persistence, output);
            let part = file.content.range(start as usize, end as usize);
            if answer.head_only {
                Body::None
            } else {
                file_body(part, output)
            }
        }
        (Content::NotModified(_), Some(file)) => {
            output.put(file.validators());
            end_head(answer.persistence, output);
            Body::None
        }
        (Content::Plain(_), Some(file)) => compose_not_found(answer, file, output),
        (Content::Health, _) => text(
            answer,
            "text/plain; charset=utf-8",
            "Cache-Control: no-store\r\n",
            "ok\n",
            output,
        ),
        (Content::Options, _) => {
            output.put(ALLOW.as_bytes());
            end_head(answer.persistence, output);
            Body::None
        }
        (Content::Folder(index), _) => {
            output.put(b"Location: ");
            output.put(site.folder(index));
            page(answer, status, "\r\n", output)
        }
        (Content::NotSatisfiable(_), Some(file)) => {
            let range: Text<64> = Text::format(format_args!("Content-Range: bytes */{}\r\n", file.length));
            page(answer, status, range.as_str(), output)
        }
        _ if status == Status::MethodNotAllowed => page(answer, status, ALLOW, output),
        _ => page(answer, status, "", output),
    }
}

const ALLOW: &str = "Allow: GET, HEAD, OPTIONS\r\n";

/// 404 with the site's own page.
fn compose_not_found(answer: &Answer, file: &File, output: &mut Output<'_>) -> Body {
    write!(
        output,
        "Content-Length: {}\r\nContent-Type: text/html; charset=utf-8\r\n",
        file.length
    )
    .ok();
    end_head(answer.persistence, output);
    if answer.head_only {
        Body::None
    } else {
        file_body(file.content, output)
    }
}

/// A status' own short page.
fn page(answer: &Answer, status: Status, fields: &str, output: &mut Output<'_>) -> Body {
    text(answer, "text/html; charset=utf-8", fields, status.page(), output)
}

fn text(answer: &Answer, media_type: &str, fields: &str, text: &str, output: &mut Output<'_>) -> Body {
    output.put(fields.as_bytes());
    write!(
        output,
        "Content-Type: {media_type}\r\nContent-Length: {}\r\n",
        text.len()
    )
    .ok();
    end_head(answer.persistence, output);
    if !answer.head_only {
        output.put(text.as_bytes());
    }
    Body::None
}

/// Writes the head of an answer with the metrics, which are `length` bytes.
pub fn compose_metrics(answer: &Answer, length: usize, context: &Context<'_>, output: &mut Output<'_>) {
    context.counters.answered(Status::Ok);
    output.put(context.clock.ok());
    write!(
        output,
        "Cache-Control: no-store\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n"
    )
    .ok();
    end_head(answer.persistence, output);
}
