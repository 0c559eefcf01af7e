//! Makes happen what a connection needs: moves bytes between it and a transport until one of the two has to wait.
//!
//! What the transport is, is not known here: sockets of the stack in `server`, memory in tests. Nor is how long a wait may be; a
//! [`Stream`] only keeps the deadline.

use crate::answer::{Context, Output};
use crate::connection::{Connection, Next, Waiting};
use alloc::sync::Arc;
use alloc::vec::Vec;
use rref::BootBytes;

/// What a receive gave.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes at the front of the transport's input buffer.
    pub length: usize,
    /// There may be more to receive now.
    pub more: bool,
    /// The peer has closed its side, and this was all.
    pub finished: bool,
}

/// A byte stream to a peer, with a buffer for each direction. No call blocks.
pub trait Transport {
    /// Why the stream is broken.
    type Error;

    /// Takes what has arrived into the input buffer.
    fn receive(&mut self) -> Result<Received, Self::Error>;

    /// The input buffer, and the output buffer to be filled.
    fn buffers(&mut self) -> Result<(&[u8], &mut [u8]), Self::Error>;

    /// Sends `length` bytes from the front of the output buffer; the count of bytes taken, which are still there afterwards.
    fn send(&mut self, length: usize) -> Result<usize, Self::Error>;

    /// Sends from the archive; the count of bytes taken.
    fn send_file(&mut self, part: BootBytes) -> Result<usize, Self::Error>;
}

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for the peer.
    Waiting,
    /// It waits for the metrics: [`Stream::supply`].
    Metrics,
    /// All is said, and the transport is to be closed.
    Closed,
}

/// How long a connection may wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the rest of a request.
    pub request_ns: u64,
    /// For the next request, or for the peer to take what it was sent.
    pub idle_ns: u64,
}

/// A connection with what its transport has not taken yet.
pub struct Stream {
    connection: Connection,
    unsent: Vec<u8>,
    /// There may be bytes to receive.
    readable: bool,
    /// Nothing was received yet.
    fresh: bool,
    /// The transport took less than it was offered: it says when to go on.
    blocked: bool,
    waiting: Waiting,
    requests: u32,
    deadline_ns: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

impl Stream {
    /// A connection that was just made; whether something has arrived is not known.
    pub fn new() -> Stream {
        Stream {
            connection: Connection::new(),
            unsent: Vec::new(),
            readable: true,
            fresh: true,
            blocked: false,
            waiting: Waiting::Idle,
            requests: 0,
            deadline_ns: 0,
        }
    }

    /// Notes what the transport told; false when there is nothing to do about it yet.
    #[inline]
    pub fn note(&mut self, readable: bool, writable: bool) -> bool {
        self.readable |= readable;
        self.blocked &= !writable;
        !self.blocked
    }

    /// When its patience ends.
    #[inline]
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Bytes that it holds in memory.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.unsent.capacity() + self.connection.held_bytes()
    }

    /// Sets the deadline after something happened. A request's runs from its first byte, however many follow.
    #[inline]
    pub fn renew_deadline(&mut self, now_ns: u64, timeouts: &Timeouts) {
        let waiting = if self.blocked {
            Waiting::Answer
        } else {
            self.connection.waiting()
        };
        let requests = self.connection.requests();
        if waiting == Waiting::Request && self.waiting == waiting && self.requests == requests {
            return;
        }
        self.waiting = waiting;
        self.requests = requests;
        let timeout_ns = if waiting == Waiting::Request {
            timeouts.request_ns
        } else {
            timeouts.idle_ns
        };
        self.deadline_ns = now_ns.saturating_add(timeout_ns);
    }

    /// Goes on until the peer or the metrics have to be waited for.
    ///
    /// # Errors
    /// The transport's; the stream is then broken.
    #[inline]
    pub fn drive<T: Transport>(
        &mut self,
        transport: &mut T,
        context: &Context<'_>,
    ) -> Result<Outcome, T::Error> {
        if !self.unsent.is_empty() && !self.send_rest(transport, context)? {
            return Ok(Outcome::Waiting);
        }
        // A connection between two requests needs no look before there is something to look at.
        let mut idle = self.connection.is_idle();
        let mut next = if idle { Next::Receive } else { Next::Continue };
        loop {
            let mut received = 0;
            match next {
                Next::Continue => {}
                Next::Receive => {
                    if !self.readable {
                        return Ok(Outcome::Waiting);
                    }
                    let news = transport.receive()?;
                    context.counters.received_bytes.add(news.length as u64);
                    // A client that sends everything at once and closes its side does so with its first bytes: the stack has
                    // told of that with them, and says that it is over when it is asked once more.
                    self.readable = news.more || (news.length > 0 && core::mem::take(&mut self.fresh));
                    if news.finished {
                        self.connection.finish();
                    } else if news.length == 0 {
                        return Ok(Outcome::Waiting);
                    }
                    received = news.length;
                }
                Next::SendFile(part) => {
                    let taken = transport.send_file(part)?;
                    context.counters.sent_bytes.add(taken as u64);
                    self.connection.sent(taken);
                    if taken < part.as_slice().len() {
                        self.blocked = true;
                        return Ok(Outcome::Waiting);
                    }
                }
                Next::Metrics => return Ok(Outcome::Metrics),
                Next::Close => return Ok(Outcome::Closed),
            }
            let (input, buffer) = transport.buffers()?;
            let mut output = Output::new(buffer);
            let input = input.get(..received).unwrap_or_default();
            next = match core::mem::take(&mut idle)
                .then(|| self.connection.repeat(input, context, &mut output))
                .flatten()
            {
                Some(true) => Next::Receive,
                Some(false) => Next::Continue,
                None => self.connection.advance(input, context, &mut output),
            };
            let length = output.len();
            if length > 0 && !self.send(transport, length, context)? {
                return Ok(Outcome::Waiting);
            }
        }
    }

    /// Gives the metrics to a connection that waits for them, and goes on.
    ///
    /// # Errors
    /// As [`drive`](Self::drive).
    pub fn supply<T: Transport>(
        &mut self,
        text: Arc<[u8]>,
        transport: &mut T,
        context: &Context<'_>,
    ) -> Result<Outcome, T::Error> {
        let (_, buffer) = transport.buffers()?;
        let mut output = Output::new(buffer);
        self.connection.supply(text, context, &mut output);
        let length = output.len();
        if length > 0 && !self.send(transport, length, context)? {
            return Ok(Outcome::Waiting);
        }
        self.drive(transport, context)
    }

    /// Says the last to a peer that was waited for too long; true when all that was said is on its way and the transport can be
    /// closed, false when it is to be cut.
    ///
    /// # Errors
    /// As [`drive`](Self::drive).
    pub fn expire<T: Transport>(
        &mut self,
        transport: &mut T,
        context: &Context<'_>,
    ) -> Result<bool, T::Error> {
        if self.blocked {
            return Ok(false);
        }
        let (_, buffer) = transport.buffers()?;
        let mut output = Output::new(buffer);
        self.connection.expire(context, &mut output);
        let length = output.len();
        if length == 0 {
            return Ok(true);
        }
        self.send(transport, length, context)
    }

    /// Sends the front of the output buffer; what isn't taken is kept, and false.
    #[inline]
    fn send<T: Transport>(
        &mut self,
        transport: &mut T,
        length: usize,
        context: &Context<'_>,
    ) -> Result<bool, T::Error> {
        let taken = transport.send(length)?;
        context.counters.sent_bytes.add(taken as u64);
        if taken >= length {
            return Ok(true);
        }
        let (_, buffer) = transport.buffers()?;
        self.unsent = buffer.get(taken..length).unwrap_or_default().to_vec();
        self.blocked = true;
        Ok(false)
    }

    /// Sends what was kept; false when some of it still is.
    #[cold]
    fn send_rest<T: Transport>(
        &mut self,
        transport: &mut T,
        context: &Context<'_>,
    ) -> Result<bool, T::Error> {
        let (_, buffer) = transport.buffers()?;
        let kept = core::mem::take(&mut self.unsent);
        let length = Output::new(buffer).put(&kept);
        let all = self.send(transport, length, context)?;
        // What is kept was in an output buffer before, so it fits into one; were it longer, the rest would follow.
        self.unsent
            .extend_from_slice(kept.get(length..).unwrap_or_default());
        Ok(all && self.unsent.is_empty())
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
