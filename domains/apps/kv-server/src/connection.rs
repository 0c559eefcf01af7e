//! A connection: what came of a request that isn't whole yet, and what waits to be sent.

use crate::client::{ClientFlags, ClientIndex};
use crate::protocol::{ProtocolError, RequestParser};
use crate::server::{After, Server};
use alloc::vec::Vec;
use interface::socket::SocketId;

/// Room that an idle connection keeps, in bytes.
const IDLE_BYTES: usize = 16 * 1024;

/// A connection.
pub struct Connection {
    /// Its socket.
    pub socket: SocketId,
    /// Its client.
    pub client: ClientIndex,
    parser: RequestParser,
    /// What came and wasn't executed, from `executed` on.
    input: Vec<u8>,
    executed: usize,
    outgoing: Vec<u8>,
    sent: usize,
    /// Nothing was received of it because too much of its output waits.
    pub left_alone: bool,
    /// The peer has closed its side, and all was received.
    pub finished: bool,
    /// It is closed when everything is sent.
    pub closing: bool,
    /// It is ended now.
    pub killed: bool,
}

impl Connection {
    /// A new connection.
    pub fn new(socket: SocketId, client: ClientIndex) -> Connection {
        Connection {
            socket,
            client,
            parser: RequestParser::default(),
            input: Vec::new(),
            executed: 0,
            outgoing: Vec::new(),
            sent: 0,
            left_alone: false,
            finished: false,
            closing: false,
            killed: false,
        }
    }

    /// What is to be sent.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.outgoing.get(self.sent..).unwrap_or_default()
    }

    /// Bytes to be sent.
    #[inline]
    pub fn outgoing_bytes(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// So many bytes were sent.
    #[inline]
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.outgoing.len() {
            self.sent = 0;
            self.outgoing.clear();
            if self.outgoing.capacity() > IDLE_BYTES {
                self.outgoing = Vec::new();
            }
        } else if self.sent > (1 << 20) && self.sent * 2 > self.outgoing.len() {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// It is to be sent what there is for it, and nothing else.
    #[inline]
    pub fn only_sends(&self) -> bool {
        !(self.killed || self.closing || self.finished || self.left_alone)
    }

    /// Of all that there was to send, which counted as sent, this wasn't.
    #[cold]
    pub fn take_back(&mut self, bytes: &[u8]) {
        self.outgoing.splice(self.sent..self.sent, bytes.iter().copied());
    }

    /// Keeps bytes that aren't to be executed yet: whether the connection lives on.
    #[cold]
    pub fn keep(&mut self, server: &Server, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        self.input.len() as u64 <= server.config.request_limit_bytes
    }

    /// Executes the requests in what came before and in `bytes`, and takes the client's output: whether the connection lives on.
    #[inline]
    pub fn execute(&mut self, server: &mut Server, bytes: &[u8]) -> bool {
        server.statistics.received_bytes += bytes.len() as u64;
        if self.input.is_empty() {
            let done = self.execute_in(server, bytes);
            if let Some(rest) = bytes.get(done..)
                && !rest.is_empty()
                && !self.closing
            {
                self.input.reserve(self.parser.needed_bytes().max(rest.len()));
                self.input.extend_from_slice(rest);
            }
        } else {
            self.execute_kept(server, bytes);
        }
        let request_limit_bytes = server.config.request_limit_bytes;
        if self.input.len() as u64 > request_limit_bytes {
            log::warn!("a request is longer than the limit: its connection ends");
            return false;
        }
        // What earlier rounds have left; what is added now is sent in a moment.
        let backlog_bytes = self.outgoing_bytes();
        let before = self.outgoing.len();
        let Some(client) = server.clients.get_mut(self.client) else {
            return false;
        };
        client.take_output(&mut self.outgoing);
        server.statistics.sent_bytes += (self.outgoing.len() - before) as u64;
        client.unsent_bytes = self.outgoing.len() - self.sent;
        client.input_bytes = self.input.len();
        let buffered_bytes = backlog_bytes + client.input_bytes;
        if buffered_bytes != client.buffered_bytes {
            let all_bytes = server.buffered_bytes + buffered_bytes - client.buffered_bytes;
            let grew = buffered_bytes > client.buffered_bytes;
            client.buffered_bytes = buffered_bytes;
            server.buffered_bytes = all_bytes;
            if grew && all_bytes as u64 > 2 * request_limit_bytes {
                log::warn!("the buffers of all clients are full: a connection ends");
                return false;
            }
        }
        if client.flags.intersects(ClientFlags::KILLED | ClientFlags::CLOSE) {
            if client.flags.contains(ClientFlags::KILLED) {
                return false;
            }
            self.closing = true;
        }
        if self.sent > 0 && client.unsent_bytes > 0 {
            server.check_output_limit(self.client);
        }
        true
    }

    #[cold]
    fn execute_kept(&mut self, server: &mut Server, bytes: &[u8]) {
        let mut input = core::mem::take(&mut self.input);
        let needed = self.parser.needed_bytes() + self.executed;
        if needed > input.len() {
            input.reserve_exact((needed - input.len()).max(bytes.len()));
        }
        input.extend_from_slice(bytes);
        let rest = input.get(self.executed..).unwrap_or_default();
        let done = self.execute_in(server, rest);
        self.executed += done;
        if self.executed >= input.len() || self.closing {
            input.clear();
            self.executed = 0;
            if input.capacity() > IDLE_BYTES {
                input = Vec::new();
            }
        } else if self.executed > 0 {
            input.drain(..self.executed);
            self.executed = 0;
        }
        self.input = input;
    }

    /// Executes the whole requests at the start of `data`: how many bytes they are.
    #[inline]
    fn execute_in(&mut self, server: &mut Server, data: &[u8]) -> usize {
        let mut done = 0;
        let mut limits = match server.clients.get_mut(self.client) {
            Some(client) => {
                client.flags.remove(ClientFlags::POSTPONED);
                client.request_limits(server.config.bulk_limit_bytes)
            }
            None => return data.len(),
        };
        loop {
            if self.closing {
                return data.len();
            }
            let rest = data.get(done..).unwrap_or_default();
            if rest.is_empty() {
                return done;
            }
            match self.parser.parse(rest, &limits) {
                Ok(Some(length)) => {
                    let arguments = self.parser.arguments(rest);
                    if arguments.len() > 0 {
                        match server.execute(self.client, arguments, rest.len()) {
                            After::Data => {}
                            After::Other => {
                                if let Some(client) = server.clients.get(self.client) {
                                    limits = client.request_limits(server.config.bulk_limit_bytes);
                                }
                            }
                            After::Closing => self.closing = true,
                            After::Postponed => {
                                // It is read again when its time has come.
                                self.parser.finish();
                                return done;
                            }
                        }
                    }
                    self.parser.finish();
                    done += length;
                }
                Ok(None) => return done,
                Err(error) => {
                    self.refuse(server, error);
                    return data.len();
                }
            }
        }
    }

    #[cold]
    fn refuse(&mut self, server: &mut Server, error: ProtocolError) {
        server.push(self.client, |reply| {
            reply.error(format_args!("ERR Protocol error: {error}"));
        });
        self.closing = true;
    }
}
