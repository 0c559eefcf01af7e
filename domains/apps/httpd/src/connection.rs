//! One connection: bytes in, bytes out (RFC 9112, 9).
//!
//! A state machine without input or output of its own. Bytes are given to [`Connection::advance`], which writes answers into a buffer
//! and says what has to happen next; `pump` makes it happen. Requests are answered in order, however they are cut or run together,
//! and none is begun while an answer is still on its way: so a peer that doesn't read holds up no one but itself.

use crate::answer::{
    Answer, Body, Context, HEAD_ROOM, Output, body_refusal, compose, compose_metrics, decide,
};
use crate::body::{BodyError, BodyReader};
use crate::request::{self, Expectation, Framing, Method, Parsed, Persistence, Request};
use crate::status::Status;
use crate::upload::{Entrance, Reply, Upload};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use rref::BootBytes;

/// A head that came in more parts than this is looked at again only when a line of it is complete: reading it from its start
/// for each byte would make a slow peer an expensive one.
const EAGER_PARTS: u8 = 16;

/// What a connection needs next, after the output has been sent.
#[derive(Clone, Copy)]
pub enum Next {
    /// More bytes of the peer.
    Receive,
    /// To be called again, with an empty output.
    Continue,
    /// This part of the archive sent, [`Connection::sent`] told how much of it was, and to be called again when all was.
    SendFile(BootBytes),
    /// The metrics, by [`Connection::supply`].
    Metrics,
    /// To be closed.
    Close,
}

/// What a connection is waiting for, which decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The next request.
    Idle,
    /// The rest of a request.
    Request,
    /// Its own answer: the peer has to take it, or the metrics have to come. Or the next part of an image, however long all of it
    /// takes.
    Answer,
}

enum Phase {
    /// In a request's head or before it.
    Head,
    /// In the body of a request whose answer is decided.
    Body(BodyReader, Answer),
    /// In the body of a request with an image.
    Upload(Box<Upload>),
    /// An answer is decided and not yet written.
    Decided(Answer),
    /// The metrics are asked for.
    Metrics(Answer),
    /// The rest of an answer's body is to be sent.
    File(BootBytes),
    /// As above, from this byte on.
    Text(Arc<[u8]>, usize),
}

/// A connection's state.
pub struct Connection {
    phase: Phase,
    /// Bytes of the peer that aren't used yet.
    input: Vec<u8>,
    /// The answer that is under way is the last.
    last: bool,
    /// The peer has closed its side.
    finished: bool,
    /// Parts that the head in `input` came in.
    parts: u8,
    requests: u32,
}

impl Default for Connection {
    fn default() -> Self {
        Connection::new()
    }
}

impl Connection {
    /// A connection that was just made.
    pub fn new() -> Connection {
        Connection {
            phase: Phase::Head,
            input: Vec::new(),
            last: false,
            finished: false,
            parts: 0,
            requests: 0,
        }
    }

    /// Bytes that it holds in memory, or makes others hold.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        let text = match &self.phase {
            Phase::Text(text, _) => text.len(),
            _ => 0,
        };
        self.input.capacity() + text
    }

    /// Requests begun so far, wrapping.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// Whether it is between two requests and only more bytes can change that.
    #[inline]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.input.is_empty() && !self.last && !self.finished
    }

    /// What it waits for.
    pub fn waiting(&self) -> Waiting {
        match self.phase {
            Phase::Head if self.input.is_empty() => Waiting::Idle,
            Phase::Head | Phase::Body(..) => Waiting::Request,
            _ => Waiting::Answer,
        }
    }

    /// The peer has closed its side: what was received is all there is.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Answers what an idle connection received, if it is one request that the shard has seen before: the usual way on a busy
    /// connection. Whether the connection is idle again; `None` when it is anything else, for [`advance`](Self::advance).
    #[inline]
    pub fn repeat(
        &mut self,
        received: &[u8],
        context: &Context<'_>,
        output: &mut Output<'_>,
    ) -> Option<bool> {
        let (answer, length) = context.repeats.find(received)?;
        if length != received.len() {
            return None;
        }
        self.requests = self.requests.wrapping_add(1);
        self.answer(answer, context, output);
        Some(self.is_idle())
    }

    /// Goes on with what was received before and now, as far as `output` goes.
    ///
    /// After anything but [`Next::Receive`] the peer's bytes wait: the caller receives no more before that.
    pub fn advance(&mut self, received: &[u8], context: &Context<'_>, output: &mut Output<'_>) -> Next {
        if self.is_idle()
            && let Some((answer, length)) = context.repeats.find(received)
            && length == received.len()
        {
            // The usual way on a busy connection: one request, and one that was seen before.
            self.requests = self.requests.wrapping_add(1);
            self.answer(answer, context, output);
            return if self.is_idle() {
                Next::Receive
            } else {
                self.run(&[], context, output).0
            };
        }
        if self.input.is_empty() {
            // The usual way otherwise: whole requests are read where they arrived.
            let (next, used) = self.run(received, context, output);
            if let Some(rest) = received.get(used..)
                && !rest.is_empty()
            {
                self.input = rest.to_vec();
            }
            return next;
        }
        let mut held = core::mem::take(&mut self.input);
        held.extend_from_slice(received);
        if matches!(self.phase, Phase::Head) && !received.is_empty() && self.parts > 0 {
            self.parts = self.parts.saturating_add(1);
            let complete = self.finished || received.contains(&b'\n') || held.len() >= context.header_bytes;
            if self.parts > EAGER_PARTS && !complete {
                self.input = held;
                return Next::Receive;
            }
        }
        let (next, used) = self.run(&held, context, output);
        if used < held.len() {
            held.drain(..used);
            self.input = held;
        }
        next
    }

    /// Goes through `bytes`; what is next, and how many of them are used.
    #[inline]
    fn run(&mut self, bytes: &[u8], context: &Context<'_>, output: &mut Output<'_>) -> (Next, usize) {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let next = match &mut self.phase {
                Phase::Head if self.last => {
                    // Nothing that follows is looked at.
                    return (Next::Close, bytes.len());
                }
                Phase::Head if rest.is_empty() => Some(self.starved()),
                Phase::Head if output.room() < HEAD_ROOM => Some(Next::Continue),
                Phase::Head => {
                    if let Some((answer, length)) = context.repeats.find(rest) {
                        used += length;
                        self.parts = 0;
                        self.requests = self.requests.wrapping_add(1);
                        self.answer(answer, context, output);
                        continue;
                    }
                    match request::parse(rest, context.header_bytes) {
                        Parsed::Complete(request, length) => {
                            used += length;
                            self.parts = 0;
                            self.requests = self.requests.wrapping_add(1);
                            self.begin(&request, rest.get(..length).unwrap_or_default(), context, output);
                            None
                        }
                        Parsed::Partial => {
                            self.parts = self.parts.max(1);
                            Some(self.starved())
                        }
                        Parsed::Refused(status) => {
                            used = bytes.len();
                            self.answer(Answer::last(status), context, output);
                            None
                        }
                    }
                }
                Phase::Body(reader, answer) => match reader.skip(rest) {
                    Ok(count) => {
                        used += count;
                        if reader.is_done() {
                            self.phase = Phase::Decided(*answer);
                            None
                        } else {
                            Some(self.starved())
                        }
                    }
                    Err(error) => {
                        used = bytes.len();
                        self.phase = Phase::Decided(Answer::last(refusal(error)));
                        None
                    }
                },
                Phase::Upload(upload) => match context.uploads {
                    Some(entrance) => match upload.take(rest, entrance) {
                        Ok(count) => {
                            used += count;
                            if upload.is_done() {
                                let (reply, persistence) = (upload.finish(entrance), upload.persistence);
                                self.reply(&reply, persistence, context);
                                None
                            } else {
                                if self.finished {
                                    upload.abandon(entrance);
                                }
                                Some(self.starved())
                            }
                        }
                        Err(error) => {
                            used = bytes.len();
                            self.phase = Phase::Decided(Answer::last(refusal(error)));
                            None
                        }
                    },
                    None => return (Next::Close, bytes.len()),
                },
                Phase::Decided(_) if output.room() < HEAD_ROOM => Some(Next::Continue),
                Phase::Decided(answer) => {
                    let answer = *answer;
                    self.answer(answer, context, output);
                    None
                }
                Phase::Metrics(_) => Some(Next::Metrics),
                Phase::File(content) => Some(Next::SendFile(*content)),
                Phase::Text(text, position) => {
                    *position += output.put(text.get(*position..).unwrap_or_default());
                    if *position < text.len() {
                        Some(Next::Continue)
                    } else {
                        self.phase = Phase::Head;
                        None
                    }
                }
            };
            if let Some(next) = next {
                return (next, used);
            }
        }
    }

    /// There are no more bytes to go on with.
    fn starved(&self) -> Next {
        if self.finished { Next::Close } else { Next::Receive }
    }

    /// Begins a request: answers it, or skips its body first.
    #[inline]
    fn begin(&mut self, request: &Request<'_>, head: &[u8], context: &Context<'_>, output: &mut Output<'_>) {
        if request.method == Method::Put
            && let Some(entrance) = context.uploads
        {
            return self.begin_upload(request, head, entrance, context, output);
        }
        let answer = decide(request, context);
        if request.framing == Framing::Length(0) && request.expectation == Expectation::None {
            // Conditions can depend on the time: they are looked at each time.
            if !request.conditions.any {
                context.repeats.keep(head, answer);
            }
            self.answer(answer, context, output);
        } else {
            self.begin_with_body(request, answer, context, output);
        }
    }

    #[cold]
    fn begin_upload(
        &mut self,
        request: &Request<'_>,
        head: &[u8],
        entrance: &Entrance,
        context: &Context<'_>,
        output: &mut Output<'_>,
    ) {
        match Upload::begin(request, head, entrance) {
            Ok(upload) => {
                if request.expectation == Expectation::Continue {
                    output.put(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.phase = Phase::Upload(Box::new(upload));
            }
            Err(reply) => self.reply(&reply, Persistence::Close, context),
        }
    }

    /// Answers a request with an image.
    fn reply(&mut self, reply: &Reply, persistence: Persistence, context: &Context<'_>) {
        context.counters.answered(reply.status);
        self.last = persistence == Persistence::Close;
        self.phase = Phase::Text(reply.compose(persistence, context.clock).into(), 0);
    }

    fn begin_with_body(
        &mut self,
        request: &Request<'_>,
        answer: Answer,
        context: &Context<'_>,
        output: &mut Output<'_>,
    ) {
        if let Some(status) = body_refusal(request, &answer) {
            let last = Answer {
                head_only: answer.head_only,
                ..Answer::last(status)
            };
            return self.answer(last, context, output);
        }
        match BodyReader::new(request.framing, context.body_bytes) {
            Ok(reader) if reader.is_done() => self.answer(answer, context, output),
            Ok(reader) => {
                if request.expectation == Expectation::Continue {
                    output.put(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.phase = Phase::Body(reader, answer);
            }
            Err(error) => self.answer(Answer::last(refusal(error)), context, output),
        }
    }

    #[inline]
    fn answer(&mut self, answer: Answer, context: &Context<'_>, output: &mut Output<'_>) {
        self.last = answer.persistence == Persistence::Close;
        self.phase = match compose(&answer, context, output) {
            Body::None => Phase::Head,
            Body::File(content) => Phase::File(content),
            Body::Metrics => Phase::Metrics(answer),
        };
    }

    /// Notes that `count` bytes from the front of what [`Next::SendFile`] named were sent.
    pub fn sent(&mut self, count: usize) {
        if let Phase::File(content) = &mut self.phase {
            let length = content.as_slice().len();
            if count < length {
                *content = content.range(count, length);
            } else {
                self.phase = Phase::Head;
            }
        }
    }

    /// Gives what [`Next::Metrics`] asked for. `output` has [`HEAD_ROOM`].
    pub fn supply(&mut self, text: Arc<[u8]>, context: &Context<'_>, output: &mut Output<'_>) {
        if let Phase::Metrics(answer) = self.phase {
            compose_metrics(&answer, text.len(), context, output);
            self.phase = if answer.head_only {
                Phase::Head
            } else {
                Phase::Text(text, 0)
            };
        }
    }

    /// The deadline of what it waits for came: writes what the peer is still told. The connection is then to be closed.
    pub fn expire(&mut self, context: &Context<'_>, output: &mut Output<'_>) {
        if let (Phase::Upload(upload), Some(entrance)) = (&self.phase, context.uploads) {
            upload.abandon(entrance);
        }
        if self.waiting() == Waiting::Request && output.room() >= HEAD_ROOM {
            self.input = Vec::new();
            self.answer(Answer::last(Status::RequestTimeout), context, output);
        }
    }
}

fn refusal(error: BodyError) -> Status {
    match error {
        BodyError::Malformed => Status::BadRequest,
        BodyError::TooLong => Status::ContentTooLarge,
    }
}
